"""Count calls in counters that drain with time, and define the tiers that set their size.

Sources: https://docs.kraken.com/api/docs/guides/spot-rest-ratelimits ,
https://docs.kraken.com/api/docs/guides/spot-ratelimits
"""

from dataclasses import dataclass

from msgspec import Struct


class Tier(Struct, frozen=True):
    """An account's verification level: the limits of the REST and of the engine counter."""

    name: str
    rest_limit: float
    rest_decay: float
    engine_limit: int
    engine_decay: float


STARTER = Tier("starter", 15, 0.33, 60, 1.0)
INTERMEDIATE = Tier("intermediate", 20, 0.5, 125, 2.34)
PRO = Tier("pro", 20, 1.0, 180, 3.75)
TIERS = {tier.name: tier for tier in (STARTER, INTERMEDIATE, PRO)}

# What an amend or a cancel adds beyond its fixed cost, by the age of the order in seconds.
_AMEND = ((5, 3), (10, 2), (15, 1))
_CANCEL = ((5, 8), (10, 6), (15, 5), (45, 4), (90, 2), (300, 1))


@dataclass(eq=False, repr=False)
class Counter:
    """A level that falls by `decay` per second, and never below zero."""

    decay: float
    _at: float
    _level: float = 0.0

    def level(self, now: float) -> float:
        return max(0.0, self._level - self.decay * max(0.0, now - self._at))

    def add(self, cost: float, now: float) -> float:
        """Add `cost` and return the new level."""
        self._level = self.level(now) + cost
        self._at = max(self._at, now)
        return self._level

    def call(self, cost: float, limit: float, now: float) -> bool:
        """Count a call of that cost, and return whether it is allowed. Refused ones count, up to twice the limit."""
        allowed = self.level(now) + cost <= limit
        self.add(cost, now)
        self._level = min(self._level, 2 * limit)
        return allowed


def engine_cost(action: str, age: float) -> int:
    """Return the points that one order action adds to the engine counter of its pair."""
    if action == "add":
        return 1
    fixed, steps = (1, _AMEND) if action == "amend" else (0, _CANCEL)
    return fixed + next((extra for limit, extra in steps if age < limit), 0)
