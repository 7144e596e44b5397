"""Parse the times of the command line: TIME is a length, WHEN a moment in the past."""

from __future__ import annotations

import argparse
import re
import time

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([smhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

SPANS = "90s, 5m, 2h, 7d, 1w"


def seconds(text: str) -> float:
    """Return the seconds of a TIME: ``90s``, ``5m``, ``2h``, ``7d``, ``1w``, or plain seconds.

    Raises:
        argparse.ArgumentTypeError: it is something else, or zero.
    """
    found = _SPAN.fullmatch(text)
    value = float(found[1]) * _UNITS[found[2]] if found else float(text) if _SECONDS.fullmatch(text) else 0.0
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: {SPANS}, or seconds")
    return value


def when(text: str, now_ns: int | None = None) -> int:
    """Return a WHEN in unix nanoseconds: that long ago, a date (UTC), or an RFC 3339 time.

    ``now_ns`` is the present, by default this machine's, which a WHEN must not be after.

    Raises:
        argparse.ArgumentTypeError: it is something else, or in the future.
    """
    now = time.time_ns() if now_ns is None else now_ns
    ago = _SPAN.fullmatch(text)
    moment = now - int(seconds(text) * 1_000_000_000) if ago else _date_or_time(text)
    if moment is None or moment < 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: {SPANS} (that long ago), 2026-01-31 (UTC) or 2026-01-31T08:00:00Z"
        )
    if now_ns is None and moment > now:
        raise argparse.ArgumentTypeError(f"{text} is in the future")
    return moment


def past(text: str) -> str:
    """Return the text of a WHEN after a check: what it means depends on the time at Kraken. Raises as :func:`when`."""
    when(text)
    return text


def _date_or_time(text: str) -> int | None:
    """Return the unix nanoseconds; None if it is no date and no time with a zone."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and _DATE.fullmatch(text):
            moment = moment.replace(tzinfo=UTC)
        return None if moment.tzinfo is None else int(moment.timestamp() * 1_000_000_000)
    except (ValueError, OverflowError):
        return None
