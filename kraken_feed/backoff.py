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
