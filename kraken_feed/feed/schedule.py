"""Decide when outages are tried again, and for how long they have been over.

Times are Kraken's, in unix nanoseconds. While Kraken's time is only assumed, nothing counts as over for long, and what
was set by the assumed time moves when Kraken's becomes known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..state.checkpoint import Outage
from ..transport.kraken_clock import DRIFT, NS, KrakenClock
from .pages import SKEW_S

RETRY_S = 5.0  # the first wait after REST did not answer; it doubles
RETRY_MAX_S = 60.0
# When the next passes come after an outage's end, as factors of second_pass_s. The default is 90 s.
UNPROVEN = (1.0, 10 / 3, 10.0)  # until history has caught up
DOUBTFUL = (4 / 3, 10 / 3, 10.0)  # while answers contradict each other
HOURLY_S = 3600.0  # between the tries after a gap was declared


@dataclass(eq=False, repr=False)
class Schedule:
    """The tries of one account's outages."""

    outages: Sequence[Outage]  # the recovery's, which changes
    clock: KrakenClock
    second_pass_s: float  # when REST has usually caught up

    def __post_init__(self) -> None:
        self._ended: dict[int, int] = {}  # by outage, when it ended or was resumed, by this machine's own clock
        self._offset: int | None = None  # between that clock and the latest possible time at Kraken

    def begin(self, outage: Outage) -> None:
        """Note that the outage has ended, or goes on from an earlier run."""
        self._ended[id(outage)] = self.clock.boot()

    def forget(self, outage: Outage) -> None:
        """Note that the outage needs no more tries."""
        self._ended.pop(id(outage), None)

    def ready(self) -> list[Outage]:
        """Return the outages that are due. If a declared one is among them, all declared ones are tried: one query for
        all gaps."""
        now = self.now()
        if now is None:
            return []
        ended = [outage for outage in self.outages if outage.end_ns is not None]
        due = [outage for outage in ended if outage.due_ns <= now]
        if any(outage.declared_ns for outage in due):
            due = [outage for outage in ended if outage in due or outage.declared_ns]
        return due

    def wait_s(self) -> float | None:
        """Return the seconds until the next outage may be due; None if none has ended."""
        due, now = min((o.due_ns for o in self.outages if o.end_ns is not None), default=None), self.now()
        if due is None:
            return None
        wait = RETRY_S if now is None else (due - now) / NS
        return min(wait, RETRY_S) if self.clock.assumed else wait  # Kraken's time can turn out to be another

    def now(self) -> int | None:
        """Return the latest time that it can be at Kraken; None if it is not known. When a time that was only assumed
        becomes known, the tries move with it."""
        latest = self.clock.latest()
        if latest is None:
            return None
        offset = latest - self.clock.boot()
        moved = 0 if self._offset is None else self._offset - offset
        if moved > SKEW_S * NS:
            for outage in self.outages:
                outage.due_ns -= moved
        self._offset = offset
        return latest

    def age_ns(self, outage: Outage, began: int) -> int:
        """Return for how long, at least, the outage had been over when a pass ``began`` by our own clock."""
        assert outage.end_ns is not None  # only ended outages are tried
        here = began - self._ended.get(id(outage), began)
        earliest = None if self.clock.assumed else self.clock.earliest(began)
        return here if earliest is None else max(here, earliest - outage.end_ns)

    def next_pass_ns(self, outage: Outage, is_doubtful: bool, began: int, now: int) -> int:
        """Return when the outage is tried again after a pass that ``began`` then, by our own clock.

        A pass can take minutes on a small call counter. What became due meanwhile is requested at once.
        """
        assert outage.end_ns is not None  # only ended outages are tried
        factors = DOUBTFUL if is_doubtful else UNPROVEN
        times = [outage.end_ns + int(factor * self.second_pass_s * NS) for factor in factors]
        # The last pass proves by its time that history is not late any more: by the earliest time that it can be then.
        uncertain_s = self.clock.uncertainty_s() + 2 * DRIFT * (times[-1] - now) / NS
        times[-1] += int(min(uncertain_s, SKEW_S) * NS)
        begun = self.clock.latest(began) or 0
        return max(now, next((at for at in times if at > begun), now + int(self.second_pass_s * NS)))
