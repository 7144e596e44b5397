"""The wait before the next connect and the next call, and how many connects a window holds."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kraken_feed.transport.backoff import (
    BURST,
    CALL_COST,
    HISTORY_COST,
    SPACING_S,
    BackoffPolicy,
    Budget,
    CallCounter,
    delay,
    limit_if_exceeded,
)

from ...support.cases import each
from ...support.examples import examples

POLICY = BackoffPolicy(initial=1.0, longest=60.0)
SECONDS = st.floats(0.001, 10_000.0)
DRAWS = st.floats(0.0, 1.0, exclude_max=True)


@settings(max_examples=examples(200))
@given(st.integers(1, 200), SECONDS, SECONDS, DRAWS, st.floats(0.0, 1000.0))
def test_delay_lies_between_the_floor_and_the_span(
    failures: int, initial: float, longest: float, draw: float, floor: float
) -> None:
    span = min(longest, initial * 2.0 ** (failures - 1))
    waited = delay(failures, BackoffPolicy(initial=initial, longest=longest), draw, floor)
    assert floor <= waited <= floor + span


@each(("failures", "span"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (8, 60.0), (1000, 60.0)])
def test_delay_covers_the_whole_span_at_the_cap_too(failures: int, span: float) -> None:
    assert delay(failures, POLICY, 0.0) == 0.0
    assert delay(failures, POLICY, 0.5) == span / 2
    assert delay(failures, POLICY, 0.999999) == pytest.approx(span, rel=1e-5)


def test_jitter_comes_on_top_of_the_floor() -> None:
    assert [delay(1, POLICY, draw, floor=900.0) for draw in (0.0, 0.5)] == [900.0, 900.5]


@each("failures", [64, 65, 1024, 1025, 10**6, 10**18, 10**400])
def test_no_number_of_failures_overflows(failures: int) -> None:
    assert delay(failures, POLICY, 0.5) == 30.0


def test_no_policy_overflows() -> None:
    assert delay(10**9, BackoffPolicy(initial=1e308, longest=1e308), 0.5) == 5e307


def test_longest_below_initial_is_the_span_from_the_start() -> None:
    assert delay(1, BackoffPolicy(initial=10.0, longest=2.0), 0.5) == 1.0


# ------------------------------------------------------------------------------------------------ the budget

# Eighths of a second are exact in binary, so that windows can be compared without a tolerance.
EIGHTHS = st.integers(0, 400).map(lambda eighths: eighths / 8)


MIDDLE = 0.5  # a draw without a jitter


def _middle() -> float:
    return MIDDLE


@settings(max_examples=examples(200))
@given(
    st.integers(1, 5), st.integers(1, 80).map(lambda eighths: eighths / 8), st.lists(EIGHTHS, max_size=60),
    st.floats(0.0, 1.0, exclude_max=True),
)  # fmt: skip
def test_no_window_ever_holds_more_than_the_limit(limit: int, window: float, pauses: list[float], drawn: float) -> None:
    budget, begun, now = Budget(limit, window), list[float](), 0.0
    for pause in pauses:
        now += pause
        wait = budget.reserve(now, lambda: drawn)
        assert wait >= 0.0
        begun.append(now + wait)
    assert begun == sorted(begun)
    for start in begun:
        assert sum(start <= at < start + window - 1e-9 for at in begun) <= limit


@settings(max_examples=examples(200))
@given(st.integers(1, 300), st.floats(0.0, 1.0, exclude_max=True))
def test_connects_that_are_wanted_at_once_begin_one_after_the_other(connects: int, drawn: float) -> None:
    budget = Budget(1000, 600.0)
    begun = [budget.reserve(0.0, lambda: drawn) for _ in range(connects)]
    assert begun[: BURST + 1] == [0.0] * min(connects, BURST + 1)
    gaps = [after - before for before, after in itertools.pairwise(begun[BURST + 1 :])]
    assert all(gap + 1e-9 >= SPACING_S / 2 and gap <= SPACING_S * 1.5 + 1e-9 for gap in gaps)


def test_the_jitter_is_drawn_for_every_connect_that_waits() -> None:
    drawn = iter([0.0, 0.5, 0.75, 0.25])
    budget = Budget(1000, 600.0)
    begun = [budget.reserve(0.0, lambda: next(drawn)) for _ in range(BURST + 5)]
    gaps = [after - before for before, after in itertools.pairwise(begun[BURST:])]
    assert gaps == pytest.approx([SPACING_S * part for part in (1.0, 0.5, 1.0, 1.25)])


def test_a_single_account_never_waits_at_its_start_nor_for_its_first_reconnect() -> None:
    budget = Budget(100, 600.0)
    assert [budget.reserve(0.0, _never) for _ in range(4)] == [0.0] * 4
    assert budget.reserve(1.0, _never) == 0.0


def _never() -> float:
    raise AssertionError("a draw for nobody who waits")


def test_within_the_budget_nobody_waits() -> None:
    budget = Budget(3, 10.0)
    for now in (0.0, 1.0, 2.0):
        assert budget.reserve(now, _middle) == 0.0
    assert budget.reserve(2.0, _middle) == 8.0
    assert budget.reserve(9.875, _middle) == 1.125
    assert budget.reserve(12.0, _middle) == 0.0


def test_unused_window_is_not_saved_up() -> None:
    budget = Budget(2, 10.0)
    assert [budget.reserve(1000.0, _middle) for _ in range(3)] == [0.0, 0.0, 10.0]


def test_who_waits_keeps_its_place() -> None:
    budget = Budget(1, 10.0)
    assert [budget.reserve(now, _middle) for now in (0.0, 0.0, 5.0)] == [0.0, 10.0, 15.0]


@settings(max_examples=examples(100))
@given(st.integers(1, 60), st.integers(1, 400))
def test_span_says_when_the_last_of_many_connects_begins(limit: int, connects: int) -> None:
    budget = Budget(limit, 600.0)
    last = [budget.reserve(0.0, _middle) for _ in range(connects)][-1]
    assert budget.span(connects) == pytest.approx(last, abs=SPACING_S * 2)


@each(
    ("connects", "limit", "public", "most"),
    [(100, 100, True, None), (101, 100, True, 100), (150, 1000, True, None), (151, 1000, True, 150),
     (151, 1000, False, None), (1001, 1000, False, 1000)],
)  # fmt: skip
def test_connects_are_too_many_for_the_budget_or_for_krakens_edge(
    connects: int, limit: int, public: bool, most: int | None
) -> None:
    assert limit_if_exceeded(connects, Budget(limit, 600.0), public=public) == most


# ------------------------------------------------------------------------------------------------ the call counter


class Exchange:
    """Kraken's side of the counter: it charges what it wants for history, and decays in steps of so many seconds."""

    def __init__(self, limit: float, decay: float, history: float, step: float) -> None:
        self.limit, self._decay, self.history, self._step = limit, decay, history, step
        self._level, self._at = 0.0, 0.0

    def charge(self, cost: float, now: float) -> float:
        """Count a call, and return the level."""
        steps = (now - self._at) // self._step if self._step else 0.0
        elapsed = steps * self._step if self._step else now - self._at
        self._level = max(0.0, self._level - self._decay * elapsed) + (self.history if cost == HISTORY_COST else cost)
        self._at += elapsed
        return self._level


class Call(NamedTuple):
    """A call of our side: what it is for, after which pause, how long it takes, and when in it Kraken counts it."""

    history: bool
    pause: float
    duration: float
    counted: float  # as a part of the duration


CALLS = st.lists(
    st.builds(
        Call,
        st.booleans(),
        st.sampled_from([*[0.0] * 12, 0.1, 3.0, 30.0]),
        st.sampled_from([*[0.0] * 12, 0.05, 1.0, 10.0]),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    min_size=20,
    max_size=80,
)
TIERS = st.sampled_from([(15.0, 0.33), (20.0, 0.5), (20.0, 1.0)])


SLOW_CALL_BEFORE_A_BURST = [
    Call(True, 0.0, 10.0, 1.0),
    *[Call(True, 0.0, 0.0, 0.0)] * 3,
    *[Call(False, 0.0, 0.0, 0.0)] * 9,
]


@example(SLOW_CALL_BEFORE_A_BURST, (20.0, 1.0), 4.0, 0.0, 0.0)
@given(CALLS, TIERS, st.sampled_from([2.0, 4.0]), st.sampled_from([0.0, 1.0]), st.floats(0.0, 6.0))
def test_calls_that_are_spaced_by_the_counter_never_exceed_kraken_s(
    calls: list[Call], tier: tuple[float, float], history: float, step: float, reserve: float
) -> None:
    limit, decay = tier
    kraken, counter = Exchange(limit, decay, history, step), CallCounter(limit - 1, decay)
    now = 0.0
    for call in calls:
        now += call.pause
        cost, kept = (HISTORY_COST, reserve) if call.history else (CALL_COST, 0.0)
        while wait := counter.wait(cost, kept, now):
            now += wait
        counter.send(cost, now)
        assert kraken.charge(cost, now + call.duration * call.counted) <= limit
        now += call.duration
        counter.end(cost, now)
        counter.succeed()


@given(CALLS, TIERS, st.integers(0, 20), st.floats(0.0, 100.0), st.sampled_from([2.0, 4.0]))
def test_a_restart_goes_on_where_the_counter_stood(
    calls: list[Call], tier: tuple[float, float], restart: int, away: float, history: float
) -> None:
    limit, decay = tier
    kraken, counter = Exchange(limit, decay, history, 0.0), CallCounter(limit - 1, decay)
    now = 0.0
    for number, call in enumerate(calls):
        now += call.pause
        if number == restart:
            level, counter = counter.level(now), CallCounter(limit - 1, decay)
            now += away
            counter.restore(level, away, now)
        cost = HISTORY_COST if call.history else CALL_COST
        while wait := counter.wait(cost, 0.0, now):
            now += wait
        counter.send(cost, now)
        assert kraken.charge(cost, now) <= limit
        counter.end(cost, now)


def test_history_leaves_its_reserve_to_tokens() -> None:
    counter = CallCounter(14, 0.33)
    made = 0
    while not counter.wait(HISTORY_COST, 6.0, 0.0):
        counter.send(HISTORY_COST, 0.0)
        counter.end(HISTORY_COST, 0.0)
        made += 1
    assert made == 2
    for _ in range(6):
        assert counter.wait(CALL_COST, 0.0, 0.0) == 0.0
        counter.send(CALL_COST, 0.0)
        counter.end(CALL_COST, 0.0)
    assert counter.wait(CALL_COST, 0.0, 0.0) > 0.0


@each("limit", [1.0, 3.0, 5.0, 9.0])
def test_a_small_counter_admits_history_when_it_is_empty(limit: float) -> None:
    counter = CallCounter(limit, 0.5)
    assert counter.wait(HISTORY_COST, 6.0, 0.0) == 0.0
    counter.send(CALL_COST, 0.0)
    counter.end(CALL_COST, 0.0)
    assert counter.wait(HISTORY_COST, 6.0, 0.0) == 2.0


def test_the_points_of_a_call_that_is_under_way_do_not_decay() -> None:
    counter = CallCounter(14, 1.0)
    counter.send(4.0, 0.0)
    assert counter.level(100.0) == 4.0
    counter.end(4.0, 100.0)
    assert [counter.level(now) for now in (100.0, 101.0, 104.0, 200.0)] == [4.0, 3.0, 0.0, 0.0]


def test_the_waits_grow_with_every_refusal_in_a_row() -> None:
    counter, now, waits = CallCounter(14, 0.5), 0.0, list[float]()
    for _ in range(5):
        counter.note_refusal(now)
        waits.append(counter.wait(HISTORY_COST, 6.0, now))
        now += waits[-1]
        counter.send(HISTORY_COST, now)
        counter.end(HISTORY_COST, now)
    assert waits == [28.0, 36.0, 44.0, 48.0, 48.0]
    assert counter.refusals_in_a_row == 5


def test_a_call_that_is_answered_ends_the_row_of_refusals() -> None:
    counter = CallCounter(14, 0.5)
    counter.note_refusal(0.0)
    first = counter.wait(HISTORY_COST, 6.0, 0.0)
    counter.succeed()
    counter.note_refusal(1000.0)
    assert counter.wait(HISTORY_COST, 6.0, 1000.0) == first


def test_restore_takes_time_away_and_never_lowers_what_is_known() -> None:
    counter = CallCounter(14, 0.5)
    counter.restore(10.0, 4.0, 0.0)
    assert counter.level(0.0) == 8.0
    counter.restore(3.0, 0.0, 0.0)
    assert counter.level(0.0) == 8.0
    counter.restore(1e300, 0.0, 0.0)
    assert counter.level(0.0) == 28.0
    counter.restore(20.0, -50.0, 60.0)
    assert counter.level(60.0) == 20.0
