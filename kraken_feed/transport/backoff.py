"""Calculate how long to wait: before the next connect, and before the next call of a key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass

import msgspec

from ..errors import CredentialsRefused
from ..protocol.refusals import NONCE, Refusal

# ----------------------------------------------------------------- How long a refusal is treated as temporary
#
# Kraken refuses good keys during its incidents. It refuses a nonce for as long as another program's clock was ahead. So
# a key that has worked is tried again, slowly enough to avoid Kraken's lockout, and given up after hours. A key that
# never worked is given up after a few tries, within about a minute.

SLOW_S = (5.0, 30.0, 120.0, 300.0, 900.0)  # between tries; the last value repeats
REQUEST_S = (5.0, 5.0, 5.0, 15.0, 60.0, 300.0)  # after an error that is not about the key: no risk of a lockout
NONCE_S = (1.0, 2.0, 5.0, 10.0, 15.0, 30.0)  # one minute: the nonce overtakes even a clock that is off by years
ONCE_S = (1.0, 1.0, 2.0, 2.0)  # the same for a command that runs once and must not wait for a minute
KEY = "key"  # the subject of errors about the key as a whole


@dataclass(eq=False, repr=False)
class Patience:
    """Counts consecutive refusals per subject: the key, one method, one channel."""

    limit_s: float = 0.0  # for which a key that has worked may be refused; 0: treat it like one that never worked
    worked: InitVar[Iterable[str]] = ()  # subjects that worked in an earlier run
    nonce_s: Sequence[float] = ONCE_S  # waits after a refused nonce

    def __post_init__(self, worked: Iterable[str]) -> None:
        self._worked = set(worked)
        self._refused: dict[tuple[str, Refusal], tuple[float, int]] = {}  # since when, and how often in a row

    def succeed(self, *subjects: str) -> None:
        """Note that these subjects work, and forget their refusals."""
        self._worked.update(subjects)
        if self._refused:
            self._refused = {key: row for key, row in self._refused.items() if key[0] not in subjects}

    def refused(self, subject: str, refusal: Refusal, now: float) -> float | None:
        """Count a refusal at ``now`` (seconds of any clock that does not jump).

        Returns how many seconds to wait before the next try; None if the refusal is final.
        """
        if refusal.attempts is None:
            return refusal.delay
        key, about_key = (subject, refusal), refusal.error is CredentialsRefused
        since, seen = self._refused.get(key, (now, 0))
        self._refused[key] = since, seen + 1
        patient = subject in self._worked and (self.limit_s > 0 or not about_key)
        quick = tuple(self.nonce_s) if refusal == NONCE else (refusal.delay,) * (refusal.attempts - 1)
        if not patient or refusal == NONCE:
            if seen < len(quick):
                return quick[seen]
            seen -= len(quick)
        if not patient or (about_key and now - since >= self.limit_s):
            del self._refused[key]
            return None
        slow = SLOW_S if about_key else REQUEST_S
        return slow[min(seen, len(slow) - 1)]


HISTORY_COST = 4.0  # ClosedOrders, TradesHistory, Ledgers: Kraken's pages say 2 or 4; 4 is the safe value
CALL_COST = 1.0  # every other private call
EDGE_CONNECTS, EDGE_WINDOW_S = 150, 600.0  # connects per window at which Kraken's edge bans an address
SPACING_S = 0.2  # between connects: five per second, a quarter of what Kraken's support named
BURST = 4  # connects at once: a single account with two endpoints never waits, not even for its first reconnect


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The span of the first wait and the longest span, in seconds."""

    initial: float
    longest: float


def delay(failures: int, policy: BackoffPolicy, draw: float, floor: float = 0.0) -> float:
    """Return the seconds to wait after ``failures`` losses in a row (1 is the first).

    The span doubles with every failure up to ``policy.longest``. ``draw``, uniform in [0, 1), picks a point in all of
    it, so that many clients that lost the same server do not reconnect together, even at the cap. ``floor`` is the wait
    that the failure itself demands (a lockout, a throttle); the jitter is added to it.
    """
    doublings = min(failures - 1, 63)  # beyond this every span is the longest; 2.0**1024 would overflow
    return floor + draw * min(policy.longest, policy.initial * 2.0**doublings)


class CallCounter:
    """A model of the call counter that Kraken keeps per API key: calls raise it, time lowers it.

    Beyond ``limit``, Kraken refuses calls, and a refused call counts too. A call counts from when it was sent
    (:meth:`send`). It decays only after it has ended (:meth:`end`): Kraken counts it at an unknown time in between.

    Source: https://docs.kraken.com/api/docs/guides/spot-rest-ratelimits
    """

    def __init__(self, limit: float, decay: float) -> None:
        self.limit = limit
        self.refusals_in_a_row = 0  # refusals since the last call that was answered
        self._decay = decay
        self._level = 0.0
        self._at = 0.0
        self._in_flight = 0.0

    def level(self, now: float) -> float:
        """Return the counter's value at ``now``, calls in flight included."""
        return self._decayed(now) + self._in_flight

    def wait(self, cost: float, reserve: float, now: float) -> float:
        """Return the seconds until a call of ``cost`` leaves ``reserve`` points to others; 0 if it can be made now.

        If the limit is too small for both, the call is admitted once the counter is empty.
        """
        over = self.level(now) + cost - max(self.limit - reserve, cost)
        return over / self._decay if over > 1e-6 else 0.0  # less than that is a rounding error of the clock

    def send(self, cost: float, now: float) -> None:
        """Add the cost of a call that is about to be sent."""
        self._settle(now)
        self._in_flight += cost

    def end(self, cost: float, now: float) -> None:
        """Let the cost of a call decay from now on: it was answered, or it failed."""
        self._settle(now)
        self._in_flight = max(0.0, self._in_flight - cost)
        self._level += cost

    def succeed(self) -> None:
        """Note that a call was answered: the run of refusals is over."""
        self.refusals_in_a_row = 0

    def note_refusal(self, now: float) -> None:
        """Note that Kraken refused a call because the counter is full: others use the key, or calls cost more.

        Each consecutive refusal adds the cost of a history call, so that the waits grow, up to twice the limit.
        """
        self.refusals_in_a_row += 1
        self._settle(now)
        full = max(self._level, self.limit) + self.refusals_in_a_row * HISTORY_COST
        self._level = min(full, 2 * self.limit)

    def restore(self, level: float, seconds_ago: float, now: float) -> None:
        """Start from the counter of an earlier run. The higher of that level and the present one is used."""
        self._settle(now)
        left = min(level, 2 * self.limit) - self._decay * max(0.0, seconds_ago)
        self._level = max(self._level, left)

    def _decayed(self, now: float) -> float:
        return max(0.0, self._level - self._decay * max(0.0, now - self._at))

    def _settle(self, now: float) -> None:
        self._level, self._at = self._decayed(now), now


class Budget:
    """Allows at most ``limit`` connects in any ``window`` seconds, and never many at once, for the whole process.

    Kraken's edge bans an address for ten minutes at about 150 connects in ten minutes
    (https://docs.kraken.com/exchange/guides/websockets/reconnection). Support once spoke of 20 new connections per
    second. So after a ``BURST``, connects are ``SPACING_S`` apart, with jitter.
    """

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._spacing = min(SPACING_S, window / limit)  # a larger budget needs a faster pace
        self._reserved: deque[float] = deque(maxlen=limit)  # when the last connects were, or will be, allowed
        self._due = float("-inf")  # when the next connect would be due if all were `_spacing` apart

    def reserve(self, now: float, draw: Callable[[], float]) -> float:
        """Reserve one connect, and return the seconds to wait before it; 0 if it may begin now.

        A reservation keeps its place in the queue. ``draw``, uniform in [0, 1), is the jitter.
        """
        at = max(now, self._due - BURST * self._spacing)
        if len(self._reserved) == self.limit:
            at = max(at, self._reserved[0] + self.window)
        self._reserved.append(at)
        jitter = draw() + 0.5 if at > now else 1.0
        self._due = max(self._due, at) + self._spacing * jitter
        return at - now

    def span(self, connects: int) -> float:
        """Return the seconds until the last of ``connects`` begins, if all are wanted at once."""
        windows = (connects - 1) // self.limit * self.window
        return windows + max(0, (connects - 1) % self.limit - BURST) * self._spacing


def limit_if_exceeded(connects: int, budget: Budget, *, public: bool) -> int | None:
    """Return the allowed number of connects if ``connects`` at once are more than that, else None. The limit is the
    budget's, and that of Kraken's edge if they go to the ``public`` network."""
    edge = int(EDGE_CONNECTS * budget.window / EDGE_WINDOW_S)
    most = min(budget.limit, edge) if public else budget.limit
    return most if connects > most else None
