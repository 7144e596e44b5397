"""Count repeated events and limit how often they are logged: a peer must not fill the diagnostics."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

KINDS = 20  # kinds of an event that are counted separately; a peer may cause any number

_DIGITS = re.compile(r"[0-9]+")


class Repeats:
    """Counts events by kind. The kind is the name and the texts in the fields, with all digits made equal."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._kinds: Counter[str] = Counter()  # counted separately so far, by event

    def count(self, event: str, fields: Mapping[str, object]) -> int | None:
        """Count one event. Return its number if it should be logged (the first, the tenth, the 100th, …), else None."""
        texts = (text for text in fields.values() if isinstance(text, str))
        kind = event, _DIGITS.sub("0", " ".join(texts))
        if kind not in self._counts:
            if self._kinds[event] < KINDS:
                self._kinds[event] += 1
            else:
                kind = event, ""
        self._counts[kind] += 1
        count = self._counts[kind]
        return count if str(count).rstrip("0") == "1" else None
