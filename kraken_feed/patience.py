"""How long a refusal is taken for something that passes.

Kraken refuses good keys during its incidents, and a nonce for as long as another program's clock was ahead. A key that
has worked is therefore tried again, seldom enough for Kraken's lockout, and given up after hours; one that never worked
is given up at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import CredentialsRefused
from .refusals import NONCE, Verdict

SLOW_S = (5.0, 30.0, 120.0, 300.0, 900.0)  # between tries; the last one for all further ones
REQUEST_S = 300.0  # the longest of these for a text that says nothing about the key: Kraken locks nobody out for it
NONCE_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0)  # a minute, in which the nonce gets ahead of any clock that is off by years
ONCE_S = (1.0, 1.0, 2.0, 2.0)  # the same for a command that runs once, and does not wait for a minute
KEY = "key"  # the subject of what Kraken says about the key as a whole


class Patience:
    """Counts the refusals in a row, by subject: the key, one method, one channel.

    Args:
        limit_s: for so long a key that has worked may be refused; 0: it counts as one that never worked.
        worked: subjects that an earlier run has used.
        nonce_s: waits after a refused nonce.
    """

    def __init__(self, limit_s: float = 0.0, worked: Iterable[str] = (), nonce_s: Sequence[float] = ONCE_S) -> None:
        self._limit_s = limit_s
        self._nonce_s = tuple(nonce_s)
        self._worked = set(worked)
        self._refused: dict[tuple[str, Verdict], tuple[float, int]] = {}  # since when, and how often in a row

    def succeed(self, *subjects: str) -> None:
        """Note that these subjects work: what was asked for has been given."""
        self._worked.update(subjects)
        if self._refused:
            self._refused = {key: row for key, row in self._refused.items() if key[0] not in subjects}

    def refused(self, subject: str, verdict: Verdict, now: float) -> float | None:
        """Note a refusal at ``now`` (seconds of any clock that does not jump).

        Returns how many seconds to wait before the next try; None if the refusal is final.
        """
        if verdict.attempts is None:
            return verdict.delay
        key, about_key = (subject, verdict), verdict.error is CredentialsRefused
        since, seen = self._refused.get(key, (now, 0))
        self._refused[key] = since, seen + 1
        patient = subject in self._worked and (self._limit_s > 0 or not about_key)
        quick = self._nonce_s if verdict == NONCE else (verdict.delay,) * (verdict.attempts - 1)
        if not patient or verdict == NONCE:
            if seen < len(quick):
                return quick[seen]
            seen -= len(quick)
        if not patient or (about_key and now - since >= self._limit_s):
            del self._refused[key]
            return None
        return min(SLOW_S[min(seen, len(SLOW_S) - 1)], SLOW_S[-1] if about_key else REQUEST_S)
