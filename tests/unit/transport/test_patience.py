"""Which refusals are final, and when the next try is due."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.protocol.refusals import classify
from kraken_feed.protocol.signing import Nonce
from kraken_feed.transport.backoff import KEY, NONCE_S, ONCE_S, REQUEST_S, SLOW_S, Patience

from ...support.cases import each

HOURS_6 = 6 * 3600.0
NOW_NS = 1_760_000_000 * 10**9
INVALID_KEY = classify("EAPI:Invalid key", 0.0)
INVALID_NONCE = classify("EAPI:Invalid nonce", 0.0)
UNKNOWN_TEXT = classify("Service temporarily unavailable", 0.0)
MALFORMED = classify("EGeneral:Invalid arguments", 0.0)


def waits(patience: Patience, subject: str, text: str, seconds: float) -> list[float | None]:
    """Refuse as often as it asks again, for so long."""
    refusal, now, found = classify(text, 0.0), 0.0, list[float | None]()
    while now <= seconds:
        wait = patience.refused(subject, refusal, now)
        found.append(wait)
        if wait is None:
            break
        now += wait
    return found


def test_a_key_that_never_worked_is_given_up_after_one_more_try() -> None:
    assert waits(Patience(HOURS_6), KEY, "EAPI:Invalid key", 60) == [5.0, None]
    assert waits(Patience(HOURS_6), KEY, "EAPI:Invalid signature", 60) == [None]


def test_a_key_that_has_worked_is_tried_a_handful_of_times_an_hour_and_given_up_after_hours() -> None:
    found = waits(Patience(HOURS_6, [KEY]), KEY, "EAPI:Invalid key", 10 * 3600)
    assert found[:5] == list(SLOW_S)
    assert found[-1] is None
    assert HOURS_6 <= sum(filter(None, found)) < HOURS_6 + SLOW_S[-1]
    assert sum(wait == 900.0 for wait in found) == len(found) - 5


def test_a_key_that_works_for_the_first_time_in_this_run_counts() -> None:
    patience = Patience(HOURS_6)
    patience.succeed(KEY)
    assert patience.refused(KEY, INVALID_KEY, 0.0) == 5.0
    assert patience.refused(KEY, INVALID_KEY, 5.0) == 30.0


def test_a_success_ends_the_row() -> None:
    patience = Patience(HOURS_6, [KEY])
    assert [patience.refused(KEY, INVALID_KEY, 0.0) for _ in range(4)] == list(SLOW_S[:4])
    patience.succeed(KEY)
    assert patience.refused(KEY, INVALID_KEY, HOURS_6) == SLOW_S[0]


def test_one_subject_says_nothing_about_another() -> None:
    patience = Patience(HOURS_6, [KEY, "openOrders"])
    assert patience.refused("executions", UNKNOWN_TEXT, 0.0) == UNKNOWN_TEXT.delay
    assert patience.refused("executions", UNKNOWN_TEXT, 5.0) is None
    assert patience.refused("openOrders", UNKNOWN_TEXT, 5.0) == REQUEST_S[0]
    patience.succeed(KEY)
    assert [patience.refused("openOrders", UNKNOWN_TEXT, 10.0) for _ in REQUEST_S[1:]] == list(REQUEST_S[1:])


@each("text", ["Service temporarily unavailable", "EGeneral:Invalid arguments", "Malformed request"])
def test_a_channel_that_was_live_is_tried_again_for_ever(text: str) -> None:
    found = waits(Patience(HOURS_6, ["openOrders"]), "openOrders", text, 7 * 86_400)
    assert None not in found
    assert tuple(found[: len(REQUEST_S)]) == REQUEST_S
    assert set(found[len(REQUEST_S) :]) == {REQUEST_S[-1]}
    assert waits(Patience(HOURS_6), "openOrders", text, 60)[-1] is None


def test_a_refused_nonce_is_tried_again_for_at_least_a_minute_by_every_feed() -> None:
    found = waits(Patience(HOURS_6, nonce_s=NONCE_S), KEY, "EAPI:Invalid nonce", 3600)
    assert found == [*NONCE_S, None]
    assert sum(NONCE_S) >= 60
    worked = waits(Patience(HOURS_6, [KEY], NONCE_S), KEY, "EAPI:Invalid nonce", 3600)
    assert worked[: len(NONCE_S) + len(SLOW_S)] == [*NONCE_S, *SLOW_S]


@given(behind_s=st.integers(0, 7 * 365 * 86_400))
def test_the_nonce_gets_ahead_of_a_clock_that_is_off_by_years_within_the_quick_tries(behind_s: int) -> None:
    assert _tries(behind_s) <= len(NONCE_S) + 1


@given(behind_s=st.integers(0, 200 * 365 * 86_400), tries=st.integers(1, 30))
def test_the_nonce_gets_ahead_of_any_clock_and_stays_a_number_of_64_bits(behind_s: int, tries: int) -> None:
    assert _tries(behind_s) <= 10
    nonce = Nonce(NOW_NS)
    for _ in range(tries):
        nonce.refused()
        assert nonce.last < nonce.next(NOW_NS) < nonce.next(NOW_NS) < 2**63


@given(behind_s=st.integers(11, 30 * 365 * 86_400))
def test_the_nonce_gets_no_further_ahead_than_it_has_to_by_orders_of_magnitude(behind_s: int) -> None:
    nonce = Nonce(NOW_NS)
    while nonce.last <= NOW_NS + behind_s * 10**9:
        nonce.refused()
    assert nonce.last - NOW_NS <= 32 * behind_s * 10**9


def _tries(behind_s: int) -> int:
    """Return how many calls it takes until a nonce is above one that a clock so far ahead has used."""
    nonce, tries = Nonce(), 1
    while nonce.next(NOW_NS) <= NOW_NS + behind_s * 10**9:
        nonce.refused()
        tries += 1
    return tries


def test_an_accepted_nonce_ends_the_row() -> None:
    nonce = Nonce(NOW_NS)
    steps = []
    for refused in (True, True, True, False, True):
        before = nonce.last
        if refused:
            nonce.refused()
        else:
            nonce.accepted()
        steps.append((nonce.last - before) // 10**9)
    assert steps == [10, 300, 9000, 0, 10]


def test_a_command_that_runs_once_tries_a_refused_nonce_a_few_times_within_seconds() -> None:
    found = waits(Patience(), KEY, "EAPI:Invalid nonce", 60)
    assert found == [*ONCE_S, None]
    assert sum(ONCE_S) < 10


def test_a_command_that_runs_once_tries_a_key_that_has_just_worked_like_any_other() -> None:
    patience = Patience()
    patience.succeed(KEY)
    assert waits(patience, KEY, "EAPI:Invalid key", 60) == [5.0, None]
