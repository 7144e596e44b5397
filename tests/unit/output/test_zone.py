"""Times in one zone: its name, the time of day or the date, and spans of time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.output.zone import NS, Zone, elapsed

from ...support.cases import each

NOON_NS = 1_795_262_400 * NS  # 2026-11-21T12:00:00Z
DAY_NS = 86_400 * NS


@each(
    ("offset", "name"),
    [
        (0, "UTC"),
        (3600, "UTC+1"),
        (-18_000, "UTC-5"),
        (19_800, "UTC+5:30"),
        (-12_600, "UTC-3:30"),
        (45_900, "UTC+12:45"),
    ],
)
def test_a_zone_is_named_by_its_offset(offset: int, name: str) -> None:
    assert Zone(lambda second: offset).name(NOON_NS) == name


@each(
    ("ago_ns", "narrow", "wide"),
    [
        (0, "12:00:00", "12:00:00.000"),
        (123_456_789, "11:59:59", "11:59:59.876"),
        (DAY_NS // 2, "00:00:00", "00:00:00.000"),
        (DAY_NS, "Nov 20", "Nov 20 12:00"),
        (13 * DAY_NS, "Nov  8", "Nov  8 12:00"),
        (400 * DAY_NS, "Oct 2025", "Oct 2025"),
        (-DAY_NS, "Nov 22", "Nov 22 12:00"),
    ],
)
def test_another_day_is_shown_as_a_date(ago_ns: int, narrow: str, wide: str) -> None:
    assert Zone().clock(NOON_NS - ago_ns, NOON_NS) == narrow
    assert Zone().clock(NOON_NS - ago_ns, NOON_NS, 12) == wide


def test_midnight_is_the_zones() -> None:
    zone = Zone(lambda second: 13 * 3600)
    assert zone.clock(NOON_NS - 2 * 3600 * NS, NOON_NS) == "Nov 21"
    assert zone.date(NOON_NS) == "2026-11-22"


def test_all_times_have_the_offset_of_now() -> None:
    """Summer time began in between: the heading names one zone."""
    zone = Zone(lambda second: 7200 if second > NOON_NS // NS - 60 else 3600)
    assert zone.clock(NOON_NS - 3600 * NS, NOON_NS) == "13:00:00"


@given(st.integers(0, 2**63), st.integers(0, 2**62), st.integers(-50_000, 50_000), st.sampled_from([8, 12]))
def test_any_time_fits_its_column(unix_ns: int, now_ns: int, offset: int, width: int) -> None:
    zone = Zone(lambda second: offset)
    assert len(zone.clock(unix_ns, now_ns, width)) <= width
    assert len(zone.name(now_ns)) <= 9


@each(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m 0s"), (312, "5m 12s"), (7980, "2h 13m"), (273_600, "3d 4h")],
)
def test_a_span_has_two_units_at_most(seconds: float, text: str) -> None:
    assert elapsed(seconds) == text
