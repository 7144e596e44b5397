"""The wait before the next connect: where it lies, and how many connects a window holds."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.backoff import BackoffPolicy, Budget, delay

POLICY = BackoffPolicy(initial=1.0, longest=60.0)
SECONDS = st.floats(0.001, 10_000.0)
DRAWS = st.floats(0.0, 1.0, exclude_max=True)


@settings(max_examples=200)
@given(st.integers(1, 200), SECONDS, SECONDS, DRAWS, st.floats(0.0, 1000.0))
def test_delay_lies_between_the_floor_and_the_span(
    failures: int, initial: float, longest: float, draw: float, floor: float
) -> None:
    span = min(longest, initial * 2.0 ** (failures - 1))
    waited = delay(failures, BackoffPolicy(initial=initial, longest=longest), draw, floor)
    assert floor <= waited <= floor + span


@pytest.mark.parametrize(
    ("failures", "span"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (8, 60.0), (1000, 60.0)]
)
def test_delay_covers_the_whole_span_at_the_cap_too(failures: int, span: float) -> None:
    assert delay(failures, POLICY, 0.0) == 0.0
    assert delay(failures, POLICY, 0.5) == span / 2
    assert delay(failures, POLICY, 0.999999) == pytest.approx(span, rel=1e-5)


def test_jitter_comes_on_top_of_the_floor() -> None:
    assert [delay(1, POLICY, draw, floor=900.0) for draw in (0.0, 0.5)] == [900.0, 900.5]


@pytest.mark.parametrize("failures", [64, 65, 1024, 1025, 10**6, 10**18, 10**400])
def test_no_number_of_failures_overflows(failures: int) -> None:
    assert delay(failures, POLICY, 0.5) == 30.0


def test_no_policy_overflows() -> None:
    assert delay(10**9, BackoffPolicy(initial=1e308, longest=1e308), 0.5) == 5e307


def test_longest_below_initial_is_the_span_from_the_start() -> None:
    assert delay(1, BackoffPolicy(initial=10.0, longest=2.0), 0.5) == 1.0


# ------------------------------------------------------------------------------------------------ the budget

# Eighths of a second are exact in binary, so that windows can be compared without a tolerance.
EIGHTHS = st.integers(0, 400).map(lambda eighths: eighths / 8)


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 80).map(lambda eighths: eighths / 8), st.lists(EIGHTHS, max_size=60))
def test_no_window_ever_holds_more_than_the_limit(limit: int, window: float, pauses: list[float]) -> None:
    budget, spent, now = Budget(limit, window), list[float](), 0.0
    for pause in pauses:
        now += pause
        now += budget.wait(now)
        budget.spend(now)
        spent.append(now)
    for start in spent:
        assert sum(start <= at < start + window for at in spent) <= limit


@settings(max_examples=200)
@given(st.integers(1, 5), st.integers(1, 80).map(lambda eighths: eighths / 8), st.lists(EIGHTHS, max_size=40))
def test_wait_is_exact(limit: int, window: float, pauses: list[float]) -> None:
    """After the wait a connect is allowed, an eighth of a second before it is not."""
    budget, now = Budget(limit, window), 0.0
    for pause in pauses:
        now += pause
        wait = budget.wait(now)
        assert wait >= 0.0
        assert budget.wait(now) == wait
        if wait:
            assert wait <= window
            assert budget.wait(now + wait - 1 / 8) == 1 / 8
        now += wait
        assert budget.wait(now) == 0.0
        budget.spend(now)


@settings(max_examples=200)
@given(st.integers(1, 5), st.floats(0.1, 1000.0), st.lists(st.floats(0.0, 100.0), max_size=60), st.floats(0, 1e9))
def test_any_clock_comes_to_a_connect(limit: int, window: float, pauses: list[float], now: float) -> None:
    """With times that do not add up exactly a connect may be due a rounding later, never much."""
    budget = Budget(limit, window)
    for pause in pauses:
        now += pause
        for _ in range(3):
            now += budget.wait(now)
        assert budget.wait(now) <= 1e-6
        budget.spend(now)


def test_within_the_budget_nobody_waits() -> None:
    budget = Budget(3, 10.0)
    for now in (0.0, 1.0, 2.0):
        assert budget.wait(now) == 0.0
        budget.spend(now)
    assert budget.wait(2.0) == 8.0
    assert budget.wait(9.875) == 0.125
    assert budget.wait(10.0) == 0.0


def test_unused_window_is_not_saved_up() -> None:
    budget = Budget(2, 10.0)
    assert budget.wait(1000.0) == 0.0
    budget.spend(1000.0)
    budget.spend(1000.0)
    assert budget.wait(1000.0) == 10.0
