"""Our clock beside Kraken's: by how much it may be off, and what that means for a tail."""

from __future__ import annotations

from typing import NamedTuple

from .errors import Transient
from .findings import Finding

NS = 1_000_000_000
WARN_S = 2.0  # time synchronisation keeps a machine well below a second


class Offset(NamedTuple):
    """By how many seconds our clock is ahead of Kraken's: something between these two."""

    low: float
    high: float

    @property
    def least(self) -> float:
        """The smallest that is possible, with its sign; 0 if the clocks may agree."""
        return max(self.low, 0.0) + min(self.high, 0.0)


def offset(unix: int, sent_ns: int, received_ns: int) -> Offset:
    """From Kraken's time, cut to whole seconds, and our times before and after asking for it."""
    return Offset(sent_ns / NS - (unix + 1), received_ns / NS - unix)


def judge(found: Offset, behind_s: float, ahead_s: float) -> Finding:
    """Whether the clock is right enough.

    Nonces only have to rise, and tokens are Kraken's affair; but a backfill asks for spans of time, with a margin of
    ``behind_s`` at their end and of ``ahead_s`` at their beginning: beyond it misses events, and nobody is told. The
    nonces of a clock that is ahead moreover keep the key from working once the clock is right.
    """
    off = found.least
    facts = {"offset_s": [round(found.low, 3), round(found.high, 3)]}
    if abs(off) < WARN_S:
        return Finding("OK", "clock", "agrees with Kraken's", facts=facts)
    what = f"The clock is about {span(abs(found.low + found.high) / 2)} {'ahead of' if off > 0 else 'behind'} Kraken's."
    remedy = "Set it, and let the system keep it right (timedatectl set-ntp true, or chrony)."
    if -behind_s < off < max(ahead_s, WARN_S):
        why = "The times of records (ts) are off by as much; nothing is lost by it."
        return Finding("WARN", "clock", what, why, remedy, facts=facts)
    why = (
        "What is missed while disconnected is asked for by time: with this clock, not all of it would be found. The "
        "key is not tried, since Kraken would remember this clock's nonces."
    )
    return Finding("FAIL", "clock", what, why, remedy, facts=facts, exit_code=Transient.exit_code)


def span(seconds: float) -> str:
    """So much time, in words."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
