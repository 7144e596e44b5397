"""Write times as Kraken does, all from the same whole microsecond."""

from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from functools import lru_cache

from msgspec import Raw

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(at: float) -> int:
    """Convert unix seconds to whole microseconds."""
    return round(at * 1_000_000)


def unix_text(at: float) -> str:
    """Return a time of v1: `"1760000000.123456"`."""
    whole, rest = divmod(micros(at), 1_000_000)
    return f"{whole}.{rest:06d}"


def unix_number(at: float | None) -> Raw:
    """Return a time of REST: a JSON number with four decimals, truncated, not rounded; 0 when unset."""
    if at is None:
        return Raw(b"0")
    whole, rest = divmod(micros(at), 1_000_000)
    return Raw(f"{whole}.{rest // 100:04d}".encode())


def rfc3339(at: float) -> str:
    """Return a time of v2: `"2025-10-09T08:53:20.123456Z"`."""
    whole, rest = divmod(micros(at), 1_000_000)
    return f"{_second(whole)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _second(whole: int) -> str:
    """Return a whole second as text. It is cached: many events share it, and strftime is slow."""
    return (_EPOCH + timedelta(seconds=whole)).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339_seconds(at: float) -> str:
    """Return a time of REST SystemStatus: `"2025-10-09T08:05:10Z"`."""
    return rfc3339(at)[:19] + "Z"


def rfc1123(at: float) -> str:
    """Return a time of REST Time: `"Thu,  9 Oct 25 09:05:10 +0000"`: the day padded with a space, a short year."""
    moment = _EPOCH + timedelta(seconds=int(at))
    return f"{moment:%a}, {moment.day:2d} {moment:%b %y %H:%M:%S} +0000"


def http_date(at: float) -> str:
    """Return HTTP's Date: `Thu, 09 Oct 2025 09:05:10 GMT`."""
    return formatdate(int(at), usegmt=True)
