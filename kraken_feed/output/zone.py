"""Show times in one zone: this machine's, or UTC."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

NS = 1_000_000_000
LONG = 12  # cells of a time with milliseconds
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_RECENT_DAYS = 300  # an older date is shown with its year


class Zone:
    """A zone. ``offset`` returns by how many seconds it is ahead of UTC at a time in unix seconds."""

    def __init__(self, offset: Callable[[int], int] = lambda second: 0) -> None:
        self._offset = offset

    def name(self, unix_ns: int) -> str:
        """Return the zone's name at a time, such as ``UTC+5:30``: that of a country would be ambiguous."""
        minutes = self._offset(unix_ns // NS) // 60
        if not minutes:
            return "UTC"
        hours, rest = divmod(abs(minutes), 60)
        return f"UTC{'-' if minutes < 0 else '+'}{hours}" + (f":{rest:02}" if rest else "")

    def date(self, unix_ns: int) -> str:
        """Return the date, such as ``2026-11-20``."""
        return f"{self._local(unix_ns, self._offset(unix_ns // NS)):%Y-%m-%d}"

    def clock(self, unix_ns: int, now_ns: int, width: int = 8) -> str:
        """Return the time of day, with milliseconds if ``width`` allows. If the day is not that of ``now_ns``, return
        the date, with the time if ``width`` allows. All have the offset of ``now_ns``, so that they can be compared."""
        offset = self._offset(now_ns // NS)
        now, then = self._local(now_ns, offset), self._local(unix_ns, offset)
        if then.date() == now.date():
            return f"{then:%H:%M:%S}" + (f".{unix_ns // 1_000_000 % 1000:03}" if width >= LONG else "")
        month = _MONTHS[then.month - 1]
        if abs((now - then).days) > _RECENT_DAYS:
            return f"{month} {then:%Y}"
        return f"{month} {then.day:2}" + (f" {then:%H:%M}" if width >= LONG else "")

    @staticmethod
    def _local(unix_ns: int, offset: int) -> datetime:
        try:
            return datetime.fromtimestamp(unix_ns // NS + offset, UTC).replace(tzinfo=None)
        except (ValueError, OverflowError, OSError):  # at the end of the year 9999
            return datetime.max


def elapsed(seconds: float) -> str:
    """Return a span of time in its two largest units: ``34s``, ``5m 12s``, ``2h 13m``, ``3d 4h``."""
    whole = max(0, int(seconds))
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller}{small}"
    return f"{whole}s"
