"""Estimate Kraken's clock, with an upper and a lower bound.

Outages and the checkpoint use Kraken's time. It is a clock of this machine that runs through suspends and cannot be
set (CLOCK_BOOTTIME), plus an offset. Every answer from Kraken narrows the offset down: the Date header of REST, and
``time_in`` and ``time_out`` of v2's pongs. So a wall clock that is wrong, or is stepped, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

NS = 1_000_000_000
DRIFT = 500e-6  # the most by which the kernel slews its clocks while it corrects them
DAY_NS = 86_400 * NS
SLACK_NS = NS // 10  # servers behind one name differ by milliseconds
STEP_NS = NS  # time synchronisation slews steps below half a second


if hasattr(time, "CLOCK_BOOTTIME"):

    def boot_ns() -> int:
        """Return the nanoseconds of a clock that runs through suspends and is never set."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

else:  # macOS: its monotonic clock goes on through suspends
    boot_ns = time.monotonic_ns


@dataclass(eq=False, repr=False)
class KrakenClock:
    """Estimates Kraken's time, between two bounds."""

    boot: Callable[[], int] = boot_ns  # all moments are of this clock

    def __post_init__(self) -> None:
        self._low: int | None = None  # lower bound of Kraken's time minus ours, at `_at`
        self._high = 0
        self._at = 0
        self.assumed = False  # whether the bounds are only this machine's wall clock, which can be wrong by years
        self._changed_at = 0  # when a sample last contradicted the earlier ones
        self._low_before: int | None = None  # the smallest offset assumed before it

    @property
    def known(self) -> bool:
        """Whether there was a sample from Kraken, or a time was assumed."""
        return self._low is not None

    def sample(
        self, sent: int, received: int, earliest_ns: int, latest_ns: int, *, authoritative: bool = True
    ) -> float:
        """Note that Kraken's clock was between two unix times at some moment between ``sent`` and ``received``.

        Returns the seconds by which this contradicts the earlier samples; 0.0 if it does not. An ``authoritative``
        contradiction replaces them: this machine's clocks stood still (a paused VM), or Kraken's was set.
        """
        low, high = earliest_ns - SLACK_NS - received, latest_ns + SLACK_NS - sent
        if self._low is None or self.assumed:
            self._low, self._high, self._at, self.assumed = low, high, received, False
            return 0.0
        known_low, known_high = self._bounds(received)
        both = max(low, known_low), min(high, known_high)
        if both[0] <= both[1]:
            (self._low, self._high), self._at = both, received
            return 0.0
        if authoritative:
            self._low_before = known_low if self._low_before is None else min(self._low_before, known_low)
            self._low, self._high, self._at, self._changed_at = low, high, received, received
        return (low - known_high if low > known_high else high - known_low) / NS

    def assume(self, wall_ns: int) -> None:
        """Use this machine's wall clock, plus or minus one day, until the first sample from Kraken."""
        if self._low is None:
            now = self.boot()
            self.sample(now, now, wall_ns - DAY_NS, wall_ns + DAY_NS)
            self.assumed = True

    def earliest(self, moment: int | None = None) -> int | None:
        """Return the earliest possible Kraken time at ``moment`` (default: now), in unix nanoseconds; None: unknown.

        For moments before a contradiction, the true offset is unknown: the smaller one is used.
        """
        if self._low is None:
            return None
        at = self.boot() if moment is None else moment
        low = self._bounds(at)[0]
        if at < self._changed_at and self._low_before is not None:
            low = min(low, self._low_before)
        return at + low

    def latest(self, moment: int | None = None) -> int | None:
        """Return the latest possible Kraken time at ``moment`` (by default now), in unix nanoseconds; None: unknown."""
        if self._low is None:
            return None
        at = self.boot() if moment is None else moment
        return at + self._bounds(at)[1]

    def uncertainty_s(self) -> float:
        """Return the seconds between the two bounds now; infinite if nothing is known."""
        if self._low is None:
            return float("inf")
        low, high = self._bounds(self.boot())
        return (high - low) / NS

    def _bounds(self, at: int) -> tuple[int, int]:
        """Return the bounds of the offset at a moment. They move apart while there is no sample."""
        assert self._low is not None  # the callers have checked that
        drift = int(abs(at - self._at) * DRIFT)
        return self._low - drift, self._high + drift


class Step(NamedTuple):
    """A jump of this machine's clock: ``wall`` was set, or ``suspend``: the machine slept. In seconds."""

    kind: str
    seconds: float


@dataclass(eq=False, repr=False)
class Steps:
    """Detects that the wall clock was set, and that the machine slept."""

    wall_ns: Callable[[], int]  # CLOCK_REALTIME
    boot: Callable[[], int]  # CLOCK_BOOTTIME, in nanoseconds as well
    monotonic: Callable[[], float]  # seconds of CLOCK_MONOTONIC, which stands still while the machine sleeps

    def __post_init__(self) -> None:
        self._last = self._differences()

    def look(self) -> list[Step]:
        """Return the clock jumps since the last call."""
        (wall, slept), self._last = self._last, self._differences()
        found = [Step("suspend", (self._last[1] - slept) / NS), Step("wall", (self._last[0] - wall) / NS)]
        return [step for step in found if abs(step.seconds) * NS >= STEP_NS]

    def _differences(self) -> tuple[int, int]:
        """Return wall minus boot, and boot minus monotonic. A suspend changes the second, a clock that is set changes
        the first."""
        boot = self.boot()
        return self.wall_ns() - boot, boot - int(self.monotonic() * NS)
