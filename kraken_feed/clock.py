"""Our clock beside Kraken's: by how much it may be off, and what that means for a tail."""

from __future__ import annotations

from typing import NamedTuple

from .findings import Finding

NS = 1_000_000_000
DEADLINE_S = 60.0  # the latest deadline that Kraken takes for an order
TLS_S = 30 * 86400.0  # certificates of Kraken's edge are good for about three months
WARN_S = 2.0  # time synchronisation keeps a machine well below a second


class Offset(NamedTuple):
    """By how many seconds our clock is ahead of Kraken's: something between these two."""

    low: float
    high: float

    @property
    def least(self) -> float:
        """The smallest that is possible, with its sign; 0 if the clocks may agree."""
        return max(self.low, 0.0) + min(self.high, 0.0)


def offset(wall_ns: int, earliest_ns: int, latest_ns: int) -> Offset:
    """Return the offset, from our clock and the bounds of Kraken's time at the same moment."""
    return Offset((wall_ns - latest_ns) / NS, (wall_ns - earliest_ns) / NS)


def judge(found: Offset) -> Finding:
    """Say how far off the clock is, and what suffers from it. A tail keeps outages in Kraken's time, so no event is
    lost by it."""
    off = found.least
    facts = {"offset_s": [round(found.low, 3), round(found.high, 3)], "uncertainty_s": round(found.high - found.low, 3)}
    bounds = f"offset between {found.low:+.1f} s and {found.high:+.1f} s"
    if abs(off) < WARN_S:
        return Finding("OK", "clock", f"agrees with Kraken's: {bounds}", facts=facts)
    about = span(abs(found.low + found.high) / 2)
    what = f"The clock is about {about} {'ahead of' if off > 0 else 'behind'} Kraken's ({bounds})."
    return Finding(
        "WARN", "clock", what, " ".join(_suffers(off)),
        "Set it, and let the system keep it right (timedatectl set-ntp true, or chrony).", facts=facts,
    )  # fmt: skip


def _suffers(off: float) -> list[str]:
    """Return what a clock that is ``off`` by so many seconds spoils."""
    said = [
        "A tail loses nothing by it: it keeps outages in Kraken's time. The times of records (ts) are off by as much."
    ]
    if off > 0:
        said.append("The key's nonces are ahead, too: another program that uses the key is refused.")
    else:
        said.append("The key's nonces are behind: they are refused for as long as the key has seen higher ones.")
    if abs(off) >= DEADLINE_S:
        said.append("`call` refuses deadlines that are right, or lets them pass.")
    if abs(off) >= TLS_S:
        said.append("The certificates of TLS may count as expired, or as not yet valid.")
    return said


def span(seconds: float) -> str:
    """So much time, in words."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
