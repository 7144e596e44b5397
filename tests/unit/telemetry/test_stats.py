"""The histogram of what takes time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.telemetry.stats import BOUNDS, Histogram


@given(st.lists(st.floats(0, 100)))
def test_every_observation_is_in_the_bucket_of_the_first_bound_that_it_does_not_exceed(seconds: list[float]) -> None:
    latency = Histogram()
    for value in seconds:
        latency.observe(value)
    for index, bound in enumerate(BOUNDS):
        assert sum(latency.counts[: index + 1]) == sum(value <= bound for value in seconds)
    assert sum(latency.counts) == len(seconds)
    assert latency.sum_s == pytest.approx(sum(seconds))
