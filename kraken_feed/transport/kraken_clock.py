"""Kraken's clock, as far as it can be known here.

Outages and the checkpoint are kept in Kraken's time. It is derived from a clock of this machine that runs through
suspends and that nobody sets (CLOCK_BOOTTIME), plus an offset that every answer of Kraken's narrows down: the Date
header of REST, and ``time_in`` and ``time_out`` of v2's pongs. So a wall clock that is wrong, or is stepped, changes
nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

NS = 1_000_000_000
DRIFT = 500e-6  # the most by which the kernel slews its clocks while it corrects them
DAY_NS = 86_400 * NS
SLACK_NS = NS // 10  # servers behind one name differ by milliseconds
STEP_NS = NS  # time synchronisation slews what is smaller than half a second


def boot_ns() -> int:
    """Return nanoseconds of a clock that runs through suspends and is never set."""
    return _boottime()


if hasattr(time, "CLOCK_BOOTTIME"):

    def _boottime() -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:  # macOS: its monotonic clock goes on through suspends
    _boottime = time.monotonic_ns


class KrakenClock:
    """Tells Kraken's time, between two bounds.

    Args:
        boot: nanoseconds of a clock that runs through suspends and is never set. All moments are of this clock.
    """

    def __init__(self, boot: Callable[[], int] = boot_ns) -> None:
        self.boot = boot
        self._low: int | None = None  # of Kraken's time minus ours, at `_at`
        self._high = 0
        self._at = 0
        self._changed_at = 0  # when a sample last contradicted what was known
        self._low_before: int | None = None  # the smallest offset that was believed before it

    @property
    def known(self) -> bool:
        """Whether there was a sample."""
        return self._low is not None

    def sample(
        self, sent: int, received: int, earliest_ns: int, latest_ns: int, *, authoritative: bool = True
    ) -> float:
        """Learn that Kraken's clock stood between two unix times at some moment between ``sent`` and ``received``.

        Returns the seconds by which this contradicts what was known; 0.0 if it does not. What contradicts replaces what
        was known, if it is ``authoritative``: this machine's clocks stood still (a paused VM), or Kraken's was set.
        """
        low, high = earliest_ns - SLACK_NS - received, latest_ns + SLACK_NS - sent
        if self._low is None:
            self._low, self._high, self._at = low, high, received
            return 0.0
        known_low, known_high = self._bounds(received)
        both = max(low, known_low), min(high, known_high)
        if both[0] <= both[1]:
            (self._low, self._high), self._at = both, received
            return 0.0
        if not authoritative:
            return (low - known_high if low > known_high else high - known_low) / NS
        self._low_before = known_low if self._low_before is None else min(self._low_before, known_low)
        self._low, self._high, self._at, self._changed_at = low, high, received, received
        return (low - known_high if low > known_high else high - known_low) / NS

    def assume(self, wall_ns: int) -> None:
        """Believe this machine's wall clock to a day, as long as Kraken does not tell the time."""
        if self._low is None:
            now = self.boot()
            self.sample(now, now, wall_ns - DAY_NS, wall_ns + DAY_NS)

    def earliest(self, moment: int | None = None) -> int | None:
        """Return Kraken's unix time in nanoseconds at ``moment`` (by default now), at the earliest; None: unknown.

        Before a contradiction nobody knows which offset held: then it is the smaller one.
        """
        if self._low is None:
            return None
        at = self.boot() if moment is None else moment
        low = self._bounds(at)[0]
        if at < self._changed_at and self._low_before is not None:
            low = min(low, self._low_before)
        return at + low

    def latest(self, moment: int | None = None) -> int | None:
        """Return Kraken's unix time in nanoseconds at ``moment`` (by default now), at the latest; None: unknown."""
        if self._low is None:
            return None
        at = self.boot() if moment is None else moment
        return at + self._bounds(at)[1]

    def uncertainty_s(self) -> float:
        """Return by how many seconds the two bounds differ now; infinite if nothing is known."""
        if self._low is None:
            return float("inf")
        low, high = self._bounds(self.boot())
        return (high - low) / NS

    def _bounds(self, at: int) -> tuple[int, int]:
        """Return the offset's bounds at a moment. They move apart while there is no sample."""
        assert self._low is not None  # the callers have looked
        drift = int(abs(at - self._at) * DRIFT)
        return self._low - drift, self._high + drift


class Step(NamedTuple):
    """A clock of this machine that jumped: ``wall`` was set, or ``suspend``: the machine slept. In seconds."""

    kind: str
    seconds: float


class Steps:
    """Notices that the wall clock was set, and that the machine slept.

    Args:
        wall_ns, boot: nanoseconds of CLOCK_REALTIME and of CLOCK_BOOTTIME.
        monotonic: seconds of CLOCK_MONOTONIC, which stands still while the machine sleeps.
    """

    def __init__(self, wall_ns: Callable[[], int], boot: Callable[[], int], monotonic: Callable[[], float]) -> None:
        self._wall_ns, self._boot, self._monotonic = wall_ns, boot, monotonic
        self._last = self._differences()

    def look(self) -> list[Step]:
        """Return what jumped since the last call."""
        (wall, slept), self._last = self._last, self._differences()
        found = [Step("suspend", (self._last[1] - slept) / NS), Step("wall", (self._last[0] - wall) / NS)]
        return [step for step in found if abs(step.seconds) * NS >= STEP_NS]

    def _differences(self) -> tuple[int, int]:
        """Return wall minus boot, and boot minus monotonic. A suspend changes the second, setting the clock the
        first."""
        boot = self._boot()
        return self._wall_ns() - boot, boot - int(self._monotonic() * NS)
