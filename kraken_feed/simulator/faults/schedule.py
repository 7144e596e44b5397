"""Decide when faults happen: at a time, or at the next occasion."""

import math
from random import Random

from msgspec import Struct

from .fault import OCCASION_KINDS, Fault
from .scenario import RandomFaults

_SHORT = {"half_open": 20.0, "silent": 20.0, "split": 5.0}  # seconds after which random faults end


class _Clocked(Struct):
    """A fault that the clock triggers, and how many times are left."""

    fault: Fault
    due: float
    left: float


class _Ready(Struct):
    """A fault that waits for its occasion, and how often or how long it still waits."""

    fault: Fault
    left: float
    until: float


class Schedule:
    """The faults of a run. It decides when they happen; other modules decide what they do."""

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
        """Add a fault with a trigger; its times count from `now`."""
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
        """Return when `fire` should be called next."""
        return min([self._random_due, *(clocked.due for clocked in self._clocked)])

    def fire(self, now: float) -> list[Fault]:
        """Return the faults of the script whose time has come."""
        fired: list[Fault] = []
        for clocked in self._clocked:
            if clocked.due <= now:
                fired.append(clocked.fault)
                clocked.left -= 1
                clocked.due += clocked.fault.every or math.inf
        self._clocked = [clocked for clocked in self._clocked if clocked.left > 0]
        return fired

    def roll(self, now: float) -> Fault | None:
        """Return a randomly picked fault, if it is time for one and it needs no occasion.

        One that needs an occasion waits for it only until the next roll. Otherwise faults would pile up without a
        client, and then keep it out.
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
        """Return the faults that hit connection `number`, at once or `after` some seconds."""
        return [fault for fault in self._at_once() if _hits(fault.on_connect, fault.times, number)]

    def called(self, number: int) -> list[Fault]:
        """Return the faults that the token call `number` triggers."""
        return [fault for fault in self._at_once() if _hits(fault.on_token, fault.times, number)]

    def _at_once(self) -> list[Fault]:
        return [fault for fault in self._counted if fault.kind not in OCCASION_KINDS]

    def ready(self, fault: Fault, now: float) -> None:
        """Let a fault wait for its occasion: for `for` seconds, else for `times` occasions.

        A repeated fault (`every`) waits only once, however often its time has come.
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
        """Return the fault of that kind for this occasion, if any; a counted one is used up by it."""
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
