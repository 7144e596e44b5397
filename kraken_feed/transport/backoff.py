"""How long to wait: before the next connect, and before the next call of a key."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from ..errors import CredentialsRefused
from ..protocol.refusals import NONCE, Verdict

# ------------------------------------------------------------- How long a refusal is taken for something that passes
#
# Kraken refuses good keys during its incidents, and a nonce for as long as another program's clock was ahead. A key
# that has worked is therefore tried again, seldom enough for Kraken's lockout, and given up after hours; one that never
# worked is given up at once.


SLOW_S = (5.0, 30.0, 120.0, 300.0, 900.0)  # between tries; the last one for all further ones
REQUEST_S = (5.0, 5.0, 5.0, 15.0, 60.0, 300.0)  # after a text that says nothing about the key: no lockout threatens
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
        slow = SLOW_S if about_key else REQUEST_S
        return slow[min(seen, len(slow) - 1)]


HISTORY_COST = 4.0  # ClosedOrders, TradesHistory, Ledgers: Kraken's pages say 2 and 4, and 2 reckoned at 4 is refused
CALL_COST = 1.0  # every other private call
EDGE_CONNECTS, EDGE_WINDOW_S = 150, 600.0  # at so many in so long Kraken's edge bans an address
SPACING_S = 0.2  # between connects: five per second, a quarter of what Kraken's support named
BURST = 4  # connects at once: a single account with two endpoints never waits, not even for its first reconnect


class BackoffPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds: the span of the first wait, and the longest."""

    initial: float
    longest: float


def delay(failures: int, policy: BackoffPolicy, draw: float, floor: float = 0.0) -> float:
    """Seconds to wait after ``failures`` losses in a row (1 is the first).

    The span doubles with every failure up to ``policy.longest``, and ``draw``, uniform in [0, 1), picks a point
    anywhere in it: a thousand clients that lost the same server come back spread out, at the cap too. ``floor`` is
    what the failure itself demands (a lockout, a throttle); the jitter comes on top of it.
    """
    doublings = min(failures - 1, 63)  # beyond this every span is the longest; 2.0**1024 would overflow
    return floor + draw * min(policy.longest, policy.initial * 2.0**doublings)


class CallCounter:
    """Model the call counter that Kraken keeps for each API key: calls add to it, time takes away.

    Beyond ``limit`` calls are refused, and a refused call counts too. A call counts from when it was sent
    (:meth:`send`), and does not decay before it has ended (:meth:`end`): nobody knows when in between Kraken counts it.

    Source: https://docs.kraken.com/api/docs/guides/spot-rest-ratelimits
    """

    def __init__(self, limit: float, decay: float) -> None:
        self.limit = limit
        self.consecutive = 0  # refusals since the last call that was answered
        self._decay = decay
        self._level = 0.0
        self._at = 0.0
        self._in_flight = 0.0

    def level(self, now: float) -> float:
        """Return where the counter stands."""
        return self._decayed(now) + self._in_flight

    def wait(self, cost: float, reserve: float, now: float) -> float:
        """Return the seconds until a call of ``cost`` leaves ``reserve`` points to others; 0 if it does now.

        A counter too small for both still admits the call once it is empty.
        """
        over = self.level(now) + cost - max(self.limit - reserve, cost)
        return over / self._decay if over > 1e-6 else 0.0  # less than that is a rounding of the clock

    def send(self, cost: float, now: float) -> None:
        """Count a call that is about to be sent."""
        self._settle(now)
        self._in_flight += cost

    def end(self, cost: float, now: float) -> None:
        """Let the points of a call decay from now on: it was answered, or it failed."""
        self._settle(now)
        self._in_flight = max(0.0, self._in_flight - cost)
        self._level += cost

    def succeed(self) -> None:
        """Note that a call was answered: what was refused before is over."""
        self.consecutive = 0

    def fill(self, now: float) -> None:
        """Note that Kraken refused a call because the counter is full: others use the key too, or calls cost more.

        Each refusal in a row counts a history call's points on top, so that the waits grow, up to twice the limit.
        """
        self.consecutive += 1
        self._settle(now)
        full = max(self._level, self.limit) + self.consecutive * HISTORY_COST
        self._level = min(full, 2 * self.limit)

    def restore(self, level: float, seconds_ago: float, now: float) -> None:
        """Start from where an earlier run left the counter. The higher of this level and the present one holds."""
        self._settle(now)
        left = min(level, 2 * self.limit) - self._decay * max(0.0, seconds_ago)
        self._level = max(self._level, left)

    def _decayed(self, now: float) -> float:
        return max(0.0, self._level - self._decay * max(0.0, now - self._at))

    def _settle(self, now: float) -> None:
        self._level, self._at = self._decayed(now), now


class Budget:
    """At most ``limit`` connects in any ``window`` seconds, and never many at once, for all connections of the process.

    Kraken's edge bans an address for ten minutes at about 150 connects in ten minutes
    (https://docs.kraken.com/exchange/guides/websockets/reconnection). Support once spoke of 20 new connections per
    second. So after a ``BURST``, connects are ``SPACING_S`` apart, with jitter.
    """

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._spacing = min(SPACING_S, window / limit)  # a larger budget asks for a faster pace
        self._reserved: deque[float] = deque(maxlen=limit)  # when the last connects were, or will be, allowed
        self._due = float("-inf")  # when the next connect would be, if every one had kept its distance

    def reserve(self, now: float, draw: Callable[[], float]) -> float:
        """Count one connect, and return the seconds to wait before it; 0 if it may begin now.

        Who waits keeps its place, so nobody is woken in vain. ``draw``, uniform in [0, 1), is the jitter.
        """
        at = max(now, self._due - BURST * self._spacing)
        if len(self._reserved) == self.limit:
            at = max(at, self._reserved[0] + self.window)
        self._reserved.append(at)
        jitter = draw() + 0.5 if at > now else 1.0
        self._due = max(self._due, at) + self._spacing * jitter
        return at - now

    def span(self, connects: int) -> float:
        """Return the seconds after which so many connects have begun that are wanted at once."""
        windows = (connects - 1) // self.limit * self.window
        return windows + max(0, (connects - 1) % self.limit - BURST) * self._spacing


def excess(connects: int, budget: Budget, *, public: bool) -> int | None:
    """Return how many connects there should be at most, if ``connects`` at once are too many: for the budget, or for
    Kraken's edge if they go to the ``public`` network. None if they are not."""
    edge = int(EDGE_CONNECTS * budget.window / EDGE_WINDOW_S)
    most = min(budget.limit, edge) if public else budget.limit
    return most if connects > most else None
