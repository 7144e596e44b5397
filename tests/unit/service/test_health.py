"""Health: what makes a program unready, in words, and what makes it as good as dead."""

from __future__ import annotations

import msgspec
from hypothesis import given

from kraken_feed.service.health import BLOCKED_S, dead, unready
from kraken_feed.telemetry.stats import Program

from ...support.figures import LOST, MAIN, PROGRAMS, V1, V2, WELL, program

FRESH_S = 20.0


def _reasons(seen: Program) -> list[str]:
    return [reason["reason"] for reason in unready(seen, FRESH_S)]


def test_a_program_that_is_well_is_alive_and_ready() -> None:
    assert unready(WELL, FRESH_S) == []
    assert dead(WELL) is None


def test_every_channel_that_is_not_live_is_a_reason_that_says_what_is_done_about_it() -> None:
    said = "not live for 12 s, last cause: silence, next attempt in 4 s"
    assert unready(program(LOST, V2), FRESH_S) == [
        {"account": "main", "channel": "openOrders", "reason": said},
        {"account": "main", "channel": "ownTrades", "reason": said},
    ]


def test_a_refused_key_is_a_reason_that_says_when_it_is_tried_again() -> None:
    refused = msgspec.structs.replace(LOST, down_s=1200.0, retry_s=240.0, cause="refused", refused="key")
    assert _reasons(program(refused)) == ["not live for 1200 s, key refused by Kraken, next attempt in 240 s"] * 2


def test_a_channel_that_never_was_live_is_a_reason_without_a_cause() -> None:
    assert _reasons(program(msgspec.structs.replace(LOST, down_s=None, cause="", retry_s=None))) == ["not live"] * 2


def test_a_frame_as_old_as_allowed_is_fresh_and_an_older_one_is_not() -> None:
    assert unready(program(msgspec.structs.replace(V1, last_frame_s=FRESH_S)), FRESH_S) == []
    old = msgspec.structs.replace(V1, last_frame_s=FRESH_S + 1)
    assert _reasons(program(old)) == ["stale: the last frame came 21 s ago"] * 2


def test_a_live_channel_without_a_frame_is_stale() -> None:
    silent = msgspec.structs.replace(V1, last_frame_s=None)
    assert _reasons(program(silent)) == ["stale: the last frame came never"] * 2


def test_an_output_that_is_behind_for_a_moment_is_no_reason_and_one_that_stalls_is() -> None:
    assert unready(program(blocked_s=BLOCKED_S / 2, pending_bytes=9), FRESH_S) == []
    assert unready(program(blocked_s=7.0, pending_bytes=9), FRESH_S) == [
        {"output": "stdout", "reason": "blocked for 7 s: 9 bytes are not written yet"}
    ]


def test_a_full_output_is_a_reason_at_once() -> None:
    assert len(unready(program(full=True, blocked_s=0.0), FRESH_S)) == 1


def test_a_program_that_stops_is_not_ready_and_not_dead() -> None:
    assert _reasons(program(stopping="SIGTERM")) == ["stopping: SIGTERM"]
    assert dead(program(stopping="SIGTERM")) is None


def test_a_part_that_is_overdue_is_named_by_both() -> None:
    assert dead(program(overdue="the checkpoint")) == {"status": "overdue", "part": "the checkpoint"}
    assert _reasons(program(overdue="the checkpoint")) == ["overdue: the checkpoint"]


def test_one_account_of_several_makes_the_program_unready() -> None:
    other = msgspec.structs.replace(MAIN, account="other", endpoints=(LOST,))
    seen = msgspec.structs.replace(WELL, accounts=(MAIN, other))
    assert {reason.get("account") for reason in unready(seen, FRESH_S)} == {"other"}


@given(PROGRAMS)
def test_ready_means_that_every_endpoint_is_live(seen: Program) -> None:
    if not unready(seen, FRESH_S):
        assert all(endpoint.live for figures in seen.accounts for endpoint in figures.endpoints)
