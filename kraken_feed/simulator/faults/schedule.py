"""When faults happen: due ones by the clock, ready ones for their occasion."""

import math
from random import Random

from msgspec import Struct

from kraken_feed.simulator.faults.fault import OCCASION_KINDS, Fault
from kraken_feed.simulator.faults.scenario import RandomFaults

_SHORT = {"half_open": 20.0, "silent": 20.0, "split": 5.0}  # at random, these end again


class _Clocked(Struct):
    """A fault that the clock triggers, and how often it still does."""

    fault: Fault
    due: float
    left: float


class _Ready(Struct):
    """A fault that waits for its occasion, and how often or how long it does."""

    fault: Fault
    left: float
    until: float


class Schedule:
    """The faults of a run. It decides when; what they do is decided elsewhere."""

    def __init__(self, rng: Random, random: RandomFaults | None, now: float) -> None:
        self._rng = rng
        self._random = random
        self._random_due = math.inf
        if random is not None:
            self._random_due = now + (random.every if random.first is None else random.first)
        self._clocked: list[_Clocked] = []
        self._counted: list[Fault] = []
        self._ready: list[_Ready] = []

    def add(self, fault: Fault, now: float) -> None:
        """Takes in a fault with a trigger; its times count from `now`."""
        if fault.at is not None:
            repeats = 1 if fault.kind in OCCASION_KINDS else fault.times or 1
            for _ in range(repeats):
                self._clocked.append(_Clocked(fault, now + fault.at, 1))
        elif fault.every is not None:
            first = fault.every if fault.first is None else fault.first
            self._clocked.append(_Clocked(fault, now + first, fault.times or math.inf))
        else:
            self._counted.append(fault)

    def due(self) -> float:
        """When `fire` should be called next."""
        return min([self._random_due, *(clocked.due for clocked in self._clocked)])

    def fire(self, now: float) -> list[Fault]:
        """The faults of the script whose time has come."""
        fired: list[Fault] = []
        for clocked in self._clocked:
            if clocked.due <= now:
                fired.append(clocked.fault)
                clocked.left -= 1
                clocked.due += clocked.fault.every or math.inf
        self._clocked = [clocked for clocked in self._clocked if clocked.left > 0]
        return fired

    def roll(self, now: float) -> Fault | None:
        """The fault that chance picks, if it is time for one and it needs no occasion.

        One that needs an occasion waits for it until the next roll and no longer: while nobody is connected,
        chance must not pile up what would keep a client out for ever.
        """
        if self._random is None or self._random_due > now:
            return None
        self._random_due += self._random.every
        kinds = self._random.kinds
        kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
        fault = Fault(kind, duration=_SHORT.get(kind))
        if kind not in OCCASION_KINDS:
            return fault
        self._ready.append(_Ready(fault, 1, now + self._random.every))
        return None

    def connected(self, number: int) -> list[Fault]:
        """The faults that strike connection `number` at once, or `after` some seconds."""
        return [
            fault
            for fault in self._counted
            if fault.kind not in OCCASION_KINDS and _hits(fault.on_connect, fault.times, number)
        ]

    def called(self, number: int) -> list[Fault]:
        """The faults that happen, to whomever, at the token call `number`."""
        return [
            fault
            for fault in self._counted
            if fault.kind not in OCCASION_KINDS and _hits(fault.on_token, fault.times, number)
        ]

    def ready(self, fault: Fault, now: float) -> None:
        """Lets a fault wait for its occasion: for `for` seconds, else for `times` occasions.

        One that comes `every` so often waits once, however often its time has come.
        """
        self._prune(now)
        if fault.every is not None and any(one.fault is fault for one in self._ready):
            return
        if fault.duration is not None:
            self._ready.append(_Ready(fault, math.inf, now + fault.duration))
        else:
            once = 1 if fault.every is not None else fault.times or 1
            self._ready.append(_Ready(fault, once, math.inf))

    def take(
        self,
        kind: str,
        now: float,
        *,
        dialect: str | None = None,
        channel: str | None = None,
        connection: int | None = None,
        token: int | None = None,
        method: str | None = None,
    ) -> Fault | None:
        """The fault of that kind that meets this occasion, if any; a counted one is used up by it."""
        self._prune(now)
        for ready in self._ready:
            if ready.fault.kind == kind and _fits(ready.fault, dialect, channel, method):
                ready.left -= 1
                return ready.fault
        for fault in self._counted:
            if fault.kind != kind or not _fits(fault, dialect, channel, method):
                continue
            if _hits(fault.on_connect, fault.times, connection) or _hits(fault.on_token, fault.times, token):
                return fault
        return None

    def _prune(self, now: float) -> None:
        self._ready = [ready for ready in self._ready if ready.left > 0 and now < ready.until]


def _hits(first: int | None, times: int | None, number: int | None) -> bool:
    return first is not None and number is not None and first <= number < first + (times or 1)


def _fits(fault: Fault, dialect: str | None, channel: str | None, method: str | None) -> bool:
    return fault.dialect in (None, dialect) and fault.channel in (None, channel) and fault.method in (None, method)
