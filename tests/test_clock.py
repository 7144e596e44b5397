"""Our clock beside Kraken's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.clock import NS, WARN_S, judge, offset, span

seconds = st.floats(min_value=-1e6, max_value=1e6)
T0 = 1_760_000_000


@given(seconds, st.floats(0, 30), st.floats(0, 1), st.floats(0, 0.999))
def test_the_true_offset_lies_between_the_two_ends(true: float, trip: float, at: float, fraction: float) -> None:
    """Whatever the round trip, whenever in it Kraken looked at its clock, and however much of a second it cut."""
    kraken = T0 + fraction + trip * at
    sent = T0 + fraction + true
    found = offset(int(kraken), round(sent * NS), round((sent + trip) * NS))
    assert found.low - 1e-3 <= true <= found.high + 1e-3


@given(seconds, st.floats(0, 30))
def test_a_slow_network_is_not_taken_for_a_wrong_clock(at: float, trip: float) -> None:
    sent = T0 + at
    found = offset(int(sent + trip), round(sent * NS), round((sent + trip) * NS))
    assert abs(found.least) < 1e-3
    assert judge(found, 10.0, 120.0).status == "OK"


@pytest.mark.parametrize(
    ("off", "status"),
    [(0, "OK"), (1.9, "OK"), (-1.9, "OK"), (5, "WARN"), (-5, "WARN"), (-9, "WARN"), (-12, "FAIL"), (119, "WARN"),
     (122, "FAIL"), (1e9, "FAIL"), (-1e9, "FAIL")],
)  # fmt: skip
def test_what_a_backfill_would_miss_is_a_failure_and_less_a_warning(off: float, status: str) -> None:
    """Behind by more than the margin at a window's end, or ahead by more than the overlap at its beginning."""
    found = offset(T0, round((T0 + off) * NS), round((T0 + off) * NS))
    finding = judge(found, 10.0, 120.0)
    assert finding.status == status
    if off:
        assert status == "OK" or ("ahead" if off > 0 else "behind") in finding.what
    assert finding.exit_code == (69 if status == "FAIL" else 0)


def test_an_overlap_of_nothing_does_not_make_every_clock_wrong() -> None:
    assert judge(offset(T0, T0 * NS, T0 * NS), 10.0, 0.0).status == "OK"
    assert (
        judge(offset(T0, round((T0 + WARN_S + 1.1) * NS), round((T0 + WARN_S + 1.1) * NS)), 10.0, 0.0).status == "FAIL"
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (120, "2 minutes"), (7200, "2 hours"), (864000, "10 days")]
)
def test_spans_are_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert span(seconds) == words
