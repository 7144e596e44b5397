"""However often a peer repeats itself, the diagnostics grow only with the number of digits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.telemetry.repeats import KINDS, Repeats


def test_the_first_of_a_kind_is_said_and_then_every_power_of_ten() -> None:
    repeats = Repeats()
    said = [repeats.count("frame_unknown", {"why": "not UTF-8", "bytes": n}) for n in range(20_000)]
    assert [times for times in said if times is not None] == [1, 10, 100, 1000, 10_000]


def test_kinds_are_counted_apart() -> None:
    repeats = Repeats()
    for why in ("not an object", "data of another shape"):
        assert repeats.count("frame_unknown", {"why": why}) == 1
    assert repeats.count("frame_repeated", {"channel": "balances"}) == 1
    assert repeats.count("frame_unknown", {"why": "not an object"}) is None


def test_numbers_in_a_text_make_no_kind() -> None:
    repeats = Repeats()
    said = [repeats.count("frame_unknown", {"why": f"not JSON: malformed (byte {n})"}) for n in range(99)]
    assert [times for times in said if times is not None] == [1, 10]


@given(st.lists(st.text(), min_size=1, max_size=3000))
def test_a_peer_that_always_says_something_else_is_limited_too(texts: list[str]) -> None:
    repeats = Repeats()
    said = [repeats.count("kraken_error", {"error": f"{text}{chr(0x4E00 + n)}"}) for n, text in enumerate(texts)]
    assert sum(times is not None for times in said) <= KINDS + 4
    assert said[0] == 1
