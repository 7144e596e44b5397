"""Say how far a query has come, in one line that fits the terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from ..text import printable

NS = 1_000_000_000


@dataclass
class Progress:
    """How far a query has come. ``reading`` is what it reads, ``reached_ns`` the oldest time that it has reached.

    ``until`` is the time of the event loop's clock for which it waits, None if it does not wait; ``cause`` is what it
    waits for.
    """

    reading: str = ""
    rows: int = 0
    reached_ns: int | None = None
    until: float | None = None
    cause: str = ""

    def wait(self, until: float, cause: str) -> None:
        self.until, self.cause = until, cause

    def go_on(self) -> None:
        self.until, self.cause = None, ""


def line(progress: Progress, now: float, columns: int) -> str:
    """Return the line, shorter than ``columns``: the longest of several wordings that fits, or the beginning of the
    shortest. ``now`` is the time of the event loop's clock."""
    rows = f"{progress.rows:,} row{'' if progress.rows == 1 else 's'}"
    what = f"{progress.reading}: {rows}" if progress.reading else rows
    day, minute = _times(progress.reached_ns)
    wait = cause = ""
    if progress.until is not None and progress.until > now:
        wait = f"waits {math.ceil(progress.until - now)} s"
        cause = f"{wait} ({printable(progress.cause)})"
    wordings = (
        _joined(what, minute and f"back to {minute} UTC", cause),
        _joined(rows, minute and f"back to {minute}", cause),
        _joined(rows, day and f"back to {day}", wait),
        _joined(rows, day, wait),
    )
    return next((text for text in wordings if len(text) < columns), wordings[-1][: max(0, columns - 1)])


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _times(ns: int | None) -> tuple[str, str]:
    """Return the day of a time, and the day with hour and minute; empty if there is none."""
    if ns is None:
        return "", ""
    minute = datetime.fromtimestamp(ns // NS, UTC).strftime("%Y-%m-%d %H:%M")
    return minute[:10], minute
