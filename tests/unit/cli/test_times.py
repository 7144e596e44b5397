"""One grammar for TIME and WHEN."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.cli.times import past, seconds, when

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
NOW = 1_800_000_000 * 10**9


@given(st.integers(1, 10**6), st.sampled_from(sorted(UNITS)))
def test_a_time_with_a_unit_is_that_many_of_it_and_as_a_when_that_long_ago(number: int, unit: str) -> None:
    assert seconds(f"{number}{unit}") == number * UNITS[unit]
    if number * UNITS[unit] < NOW // 10**9:
        assert when(f"{number}{unit}", NOW) == NOW - number * UNITS[unit] * 10**9


@pytest.mark.parametrize(("text", "value"), [("90", 90.0), ("0.5", 0.5), ("1.5h", 5400.0)])
def test_plain_seconds_and_fractions_are_times(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "-1s", "1x", "1 h", "1e3", "inf", "nan", "h", "٣s", "1h30m"])
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="90s"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T08:00:00Z", datetime(2026, 1, 31, 8, tzinfo=UTC)),
        ("2026-01-31T09:00:00+01:00", datetime(2026, 1, 31, 8, tzinfo=UTC)),
    ],
)
def test_a_date_counts_in_utc_and_a_time_names_its_zone(text: str, moment: datetime) -> None:
    assert when(text, NOW) == int(moment.timestamp()) * 10**9


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31T08:00:00", "90", "20260131", "1900-01-01", "9999999999w"])
def test_what_is_no_when_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        when(text, NOW)


@pytest.mark.parametrize("text", ["2999-01-01", "2999-01-01T00:00:00Z"])
def test_a_when_in_the_future_is_refused(text: str) -> None:
    for parse in (when, past):
        with pytest.raises(argparse.ArgumentTypeError, match="in the future"):
            parse(text)
