"""How long to wait before the next connect: jitter over the whole span, and a rolling budget of connects."""

from __future__ import annotations

from collections import deque

import msgspec


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
    """A model of the call counter that Kraken keeps for each API key: calls add to it, time takes away.

    Source: https://docs.kraken.com/api/docs/guides/spot-rest-ratelimits . Beyond ``limit`` calls are refused, and a
    refused call counts too.
    """

    def __init__(self, limit: float, decay: float) -> None:
        self.limit = limit
        self._decay = decay
        self._level = 0.0
        self._at = 0.0

    def level(self, now: float) -> float:
        """Where the counter stands."""
        return max(0.0, self._level - self._decay * (now - self._at))

    def wait(self, cost: float, reserve: float, now: float) -> float:
        """Seconds until a call of ``cost`` leaves ``reserve`` points to others; 0 if it does now."""
        over = self.level(now) + cost - (self.limit - reserve)
        return over / self._decay if over > 1e-6 else 0.0  # less than that is a rounding of the clock

    def add(self, cost: float, now: float) -> None:
        """A call was made."""
        self._level, self._at = self.level(now) + cost, now

    def fill(self, now: float) -> None:
        """Kraken says that it is full: others use the key too."""
        self._level, self._at = max(self.level(now), self.limit), now


class Budget:
    """At most ``limit`` connects in any ``window`` seconds, shared by every connection of the process.

    Kraken's edge bans an address for ten minutes at about 150 connects in ten minutes
    (https://docs.kraken.com/exchange/guides/websockets/reconnection).
    """

    def __init__(self, limit: int, window: float) -> None:
        self.limit = limit
        self.window = window
        self._spent: deque[float] = deque()

    def wait(self, now: float) -> float:
        """Seconds until a connect is allowed; 0 if it is now."""
        while self._spent and self._spent[0] <= now - self.window:
            self._spent.popleft()
        if len(self._spent) < self.limit:
            return 0.0
        return self._spent[0] + self.window - now

    def spend(self, now: float) -> None:
        """Count one connect. Only when :meth:`wait` says 0."""
        self._spent.append(now)
