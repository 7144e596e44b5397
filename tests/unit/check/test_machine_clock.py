"""Our clock beside Kraken's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.check.machine import WARN_S, Offset, judge, offset, span
from kraken_feed.transport.kraken_clock import NS, KrakenClock

from ...support.cases import each

seconds = st.floats(min_value=-1e6, max_value=1e6)
T0 = 1_760_000_000


def learned(true_s: float, trip_s: float = 0.0, fraction: float = 0.0) -> Offset:
    """What a tail learns of a clock that is ahead by ``true_s`` from one answer, as :class:`KrakenClock` keeps it."""
    moment = 0
    clock = KrakenClock(lambda: moment)
    kraken_s = T0 + fraction  # when the question leaves
    second = int(kraken_s + trip_s)
    received = round(trip_s * NS)
    clock.sample(0, received, second * NS, (second + 1) * NS)
    moment = received
    earliest, latest = clock.earliest(), clock.latest()
    assert earliest is not None
    assert latest is not None
    return offset(round((kraken_s + trip_s + true_s) * NS), earliest, latest)


@given(seconds, st.floats(0, 30), st.floats(0, 0.999))
def test_the_true_offset_lies_between_the_two_ends(true: float, trip: float, fraction: float) -> None:
    """Whatever the round trip, and however much of a second Kraken cut."""
    found = learned(true, trip, fraction)
    assert found.low - 1e-3 <= true <= found.high + 1e-3


@given(st.floats(0, 30), st.floats(0, 0.999))
def test_a_slow_network_is_not_taken_for_a_wrong_clock(trip: float, fraction: float) -> None:
    found = learned(0.0, trip, fraction)
    assert abs(found.least) < 1e-3
    assert judge(found).status == "OK"


@each("off", [0, 1.5, -1.5, 5, -5, -12, 122, 1e6, -1e6, 1e9, -1e9])
def test_a_wrong_clock_is_at_most_a_warning(off: float) -> None:
    result = judge(learned(off))
    assert result.status == ("OK" if abs(off) < WARN_S else "WARN")
    assert result.exit_code == 0
    bounds = result.facts["offset_s"]
    assert isinstance(bounds, list)
    assert bounds[0] <= off <= bounds[1]
    assert result.facts["uncertainty_s"] == pytest.approx(1.2, abs=0.01)
    if result.status == "WARN":
        assert ("ahead" if off > 0 else "behind") in result.what
        assert "nonces" in result.why


@each(
    ("off", "suffers"),
    [(5, "Kraken refuses other programs"), (-5, "if the key has used higher ones"),
     (-70, "deadlines"), (90 * 86400, "TLS"), (-3e8, "TLS")],
)  # fmt: skip
def test_a_warning_says_what_suffers(off: float, suffers: str) -> None:
    assert suffers in judge(learned(off)).why
    assert "loses no events" in judge(learned(off)).why
    assert ("TLS" in judge(learned(off)).why) == (abs(off) > 30 * 86400)


def test_the_uncertainty_is_said_to_people() -> None:
    assert judge(Offset(-0.4, 0.8)).what == "agrees with Kraken's: offset between -0.4 s and +0.8 s"


@each(("seconds", "words"), [(0, "0 s"), (59, "59 s"), (120, "2 minutes"), (7200, "2 hours"), (864000, "10 days")])
def test_spans_are_said_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert span(seconds) == words
