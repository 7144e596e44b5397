"""Faults: each kind does what it says, and only that."""

import json
from typing import Any, Literal

import pytest

from kraken_feed.simulator.exchange import Exchange, Refused
from kraken_feed.simulator.faults.fault import OCCASION_KINDS, PARAMETERS, Fault
from kraken_feed.simulator.faults.scenario import RandomFaults, Scenario
from kraken_feed.simulator.strike import STRIKES
from kraken_feed.simulator.wire.outgoing import Abort, Close, Text
from kraken_feed.simulator.wire.peer import Peer
from tests.support.account import T0, Account, Tap, frame, opened, quiet

from ...support.cases import each

Name = Literal["v1", "v2"]
PING = {"v1": {"event": "ping"}, "v2": {"method": "ping"}}
BOTH = pytest.mark.parametrize(("dialect", "channel"), [("v1", "openOrders"), ("v2", "executions")])


def script(*faults: Fault, **options: Any) -> Exchange:
    return quiet(scenario=Scenario(faults=faults, tier="pro"), **options)


def struck(exchange: Exchange) -> list[str]:
    return [fault.kind for fault in exchange.ledger.faults]


def sequences(tap: Tap) -> list[int]:
    frames = tap.frames()
    if tap.dialect == "v1":
        return [frame[-1]["sequence"] for frame in frames if isinstance(frame, list)]
    return [frame["sequence"] for frame in frames if "sequence" in frame]


def error(ack: dict[str, Any]) -> str:
    return str(ack.get("errorMessage") or ack.get("error"))


# On connections, at once.


@BOTH
def test_a_drop_without_a_code_is_a_reset(dialect: Name, channel: str) -> None:
    exchange = script(Fault("drop", at=6.0))
    tap = opened(exchange, dialect, channel)
    exchange.advance(T0 + 5.99)
    assert not tap.peer.closed
    exchange.advance(T0 + 6)
    assert tap.peer.outgoing() == [Abort()]
    assert exchange.peers == []


@each("code", [1000, 1001, 1006, 1008, 1011, 1013])
def test_a_drop_with_a_code_closes_with_it(code: int) -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders")
    exchange.inject(Fault("drop", code=code), T0)
    reason = "CloudFlare WebSocket proxy restarting" if code == 1001 else ""
    assert tap.peer.outgoing() == [Close(code, reason)]


def test_a_drop_hits_only_the_dialect_and_channel_that_it_names() -> None:
    exchange = quiet()
    first, second = opened(exchange, "v1", "openOrders"), opened(exchange, "v1", "ownTrades")
    other = opened(exchange, "v2", "executions")
    exchange.inject(Fault("drop", channel="ownTrades"), T0)
    assert (first.peer.closed, second.peer.closed, other.peer.closed) == (False, True, False)
    exchange.inject(Fault("drop", dialect="v2"), T0)
    assert (first.peer.closed, other.peer.closed) == (False, True)


def test_a_fault_that_finds_nobody_waits_for_the_next_connection() -> None:
    exchange = script(Fault("unsubscribe", at=1.0, channel="ownTrades"))
    exchange.advance(T0 + 5)
    tap = Tap(exchange, "v1", T0 + 6)
    assert struck(exchange) == []
    tap.subscribe("ownTrades", Account(exchange).token(T0 + 6), T0 + 6)
    assert struck(exchange) == ["unsubscribe"]
    assert tap.frames()[-1]["status"] == "unsubscribed"


@BOTH
def test_a_half_open_connection_says_nothing_until_it_ends(dialect: Name, channel: str) -> None:
    exchange = script(Fault("half_open", at=1.0, duration=10.0))
    tap = opened(exchange, dialect, channel)
    exchange.advance(T0 + 1)
    tap.frames()
    exchange.new_order(T0 + 2)
    tap.send(PING[dialect], T0 + 3)
    exchange.advance(T0 + 10)
    assert tap.peer.stalled
    assert tap.peer.outgoing() == []
    before = len(exchange.ledger.frames)
    exchange.advance(T0 + 11)
    kinds = [frame for frame in tap.frames() if isinstance(frame, dict)]
    assert len(exchange.ledger.frames) == before + 2  # what waited is published now
    assert any("pong" in frame.values() for frame in kinds)


def test_half_open_without_an_end_lasts_until_the_connection_is_dropped() -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders")
    exchange.inject(Fault("half_open"), T0)
    exchange.advance(T0 + 100_000)
    assert tap.peer.outgoing() == []
    exchange.inject(Fault("drop", code=1011), T0 + 100_000)
    assert tap.peer.outgoing() == [Close(1011)]


@BOTH
def test_a_silent_connection_answers_pings_and_loses_its_data(dialect: Name, channel: str) -> None:
    exchange = script(Fault("silent", at=1.0, duration=10.0))
    tap = opened(exchange, dialect, channel)
    exchange.advance(T0 + 1)
    tap.frames()
    exchange.new_order(T0 + 2)
    exchange.advance(T0 + 5)
    assert tap.frames() == []
    tap.send(PING[dialect], T0 + 5)
    assert len(tap.frames()) == 1
    exchange.advance(T0 + 11)
    exchange.new_order(T0 + 11)
    assert sequences(tap) == [4, 5]  # two frames were lost, and the numbers show it
    assert [frame.sequence for frame in exchange.ledger.frames] == [1, 4, 5]


@BOTH
def test_the_server_may_unsubscribe_unasked(dialect: Name, channel: str) -> None:
    exchange = quiet()
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("unsubscribe"), T0)
    (notice,) = tap.frames()
    assert "reqid" not in notice
    assert "req_id" not in notice
    assert notice.get("status", notice.get("method")) in ("unsubscribed", "unsubscribe")
    exchange.new_order(T0)
    assert tap.frames() == []


@BOTH
def test_a_sequence_can_jump_without_loss_and_miss_a_frame(dialect: Name, channel: str) -> None:
    exchange = quiet()
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("sequence_skip", count=3), T0)
    exchange.new_order(T0)
    assert sequences(tap) == [5, 6]
    exchange.inject(Fault("sequence_skip", variant="lost"), T0)
    exchange.new_order(T0)
    assert sequences(tap) == [8]
    assert [frame.sequence for frame in exchange.ledger.frames] == [1, 5, 6, 8]


@BOTH
def test_a_duplicate_repeats_the_last_data_frame_and_is_no_publication(dialect: Name, channel: str) -> None:
    exchange = quiet()
    tap = opened(exchange, dialect, channel)
    exchange.new_order(T0, accept=False)
    exchange.inject(Fault("duplicate_frame"), T0)
    first, second = tap.bytes()
    assert first == second
    assert len(exchange.ledger.frames) == 2


@each("variant", ["not_json", "not_utf8", "other_shape", "nested"])
def test_garbage_is_garbage(variant: str) -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders")
    exchange.inject(Fault("garbage_frame", variant=variant), T0)
    (text,) = tap.bytes()
    if variant == "other_shape":
        assert isinstance(json.loads(text), list)
    elif variant == "not_utf8":
        with pytest.raises(UnicodeDecodeError):
            text.decode()
    else:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(text)
    assert len(exchange.ledger.frames) == 1


@BOTH
def test_a_big_frame_is_well_formed_and_as_big_as_asked(dialect: Name, channel: str) -> None:
    exchange = quiet()
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("big_frame", bytes=3_000_000), T0)
    (text,) = tap.bytes()
    assert 3_000_000 < len(text) < 3_000_100
    assert isinstance(json.loads(text), dict)


@BOTH
@pytest.mark.parametrize("variant", ["event", "channel"])
def test_unknown_frames_are_well_formed(dialect: Name, channel: str, variant: str) -> None:
    exchange = quiet()
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("unknown_frame", variant=variant), T0)
    assert len(tap.frames()) == 1


@BOTH
def test_split_frames_are_cut_and_whole_again_afterwards(dialect: Name, channel: str) -> None:
    exchange = script(
        Fault("split", at=1.0, duration=1.0, bytes=5),
        Fault("split", at=3.0, duration=1.0, bytes=5, variant="writes"),
    )
    tap = opened(exchange, dialect, channel)
    exchange.advance(T0 + 1)
    tap.frames()
    cuts = []
    for second in (1.5, 2.5, 3.5):
        exchange.new_order(T0 + second, accept=False)
        exchange.advance(T0 + second)
        cuts += [message for message in tap.peer.outgoing() if isinstance(message, Text)]
        exchange.advance(T0 + second + 0.5)
        tap.frames()
    assert [(text.fragment, text.write) for text in cuts if len(text.data) > 100] == [(5, 0), (0, 0), (0, 5)]


# On the next occasion.


@BOTH
def test_no_greeting_leaves_out_the_greeting_only(dialect: Name, channel: str) -> None:
    exchange = script(Fault("no_greeting", on_connect=1))
    token = Account(exchange).token(T0)
    tap = Tap(exchange, dialect, T0)
    assert tap.frames() == []
    tap.subscribe(channel, token, T0)
    assert len(tap.frames()) == 2
    assert len(Tap(exchange, dialect, T0).frames()) == 1


@BOTH
def test_no_ack_ignores_one_request_or_loses_its_ack(dialect: Name, channel: str) -> None:
    exchange = script(Fault("no_ack", on_connect=2, variant="lost"))
    exchange.inject(Fault("no_ack"), T0)
    token = Account(exchange).token(T0)
    tap = Tap(exchange, dialect, T0)
    tap.frames()
    tap.subscribe(channel, token, T0)
    assert tap.frames() == []
    tap.subscribe(channel, token, T0)
    assert len(tap.frames()) == 2
    second = Tap(exchange, dialect, T0)
    second.frames()
    second.subscribe(channel, token, T0)
    assert sequences(second) == [1]
    second.subscribe(channel, token, T0)
    assert "Already subscribed" not in map(str, second.frames())  # that ack is lost, too


@BOTH
def test_no_snapshot_counts_it_but_does_not_send_it(dialect: Name, channel: str) -> None:
    exchange = quiet()
    exchange.inject(Fault("no_snapshot"), T0)
    tap = Tap(exchange, dialect, T0)
    tap.subscribe(channel, Account(exchange).token(T0), T0)
    assert len(tap.frames()) == 2
    exchange.new_order(T0, accept=False)
    assert sequences(tap) == [2]


@BOTH
def test_a_refused_token_is_an_error_ack(dialect: Name, channel: str) -> None:
    exchange = quiet()
    exchange.inject(Fault("refuse_token", times=2), T0)
    exchange.inject(Fault("refuse_token", text="EAPI:Invalid token"), T0)
    token = Account(exchange).token(T0)
    tap = Tap(exchange, dialect, T0)
    tap.frames()
    texts = []
    for _ in range(4):
        tap.subscribe(channel, token, T0)
        texts.append(error(tap.frames()[0]))
    assert texts == ["ESession:Invalid session"] * 2 + ["EAPI:Invalid token", "None"]


def test_an_expired_token_is_refused_by_the_socket() -> None:
    exchange = script(Fault("expired_token", on_token=2))
    account = Account(exchange)
    good, stale = account.token(T0), account.token(T0)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", stale, T0)
    assert error(tap.frames()[1]) == "ESession:Invalid session"
    tap.subscribe("openOrders", good, T0)
    assert len(tap.frames()) == 2


@BOTH
def test_a_late_ack_comes_with_its_snapshot(dialect: Name, channel: str) -> None:
    exchange = quiet()
    exchange.inject(Fault("delay_ack", seconds=4.0), T0)
    tap = Tap(exchange, dialect, T0)
    tap.subscribe(channel, Account(exchange).token(T0), T0)
    exchange.advance(T0 + 3.9)
    assert len(tap.frames()) == 1
    exchange.advance(T0 + 4)
    assert len(tap.frames()) == 2


@BOTH
def test_early_data_comes_before_the_ack(dialect: Name, channel: str) -> None:
    exchange = quiet()
    exchange.inject(Fault("early_data"), T0)
    tap = Tap(exchange, dialect, T0)
    tap.subscribe(channel, Account(exchange).token(T0), T0)
    _, snapshot, ack = tap.frames()
    assert "subscribe" in str(ack)
    assert "sequence" in str(snapshot)


@each(
    ("dialect", "variant", "keys"),
    [
        ("v1", "error", {"errorMessage", "event", "reqid"}),
        ("v1", "status", {"event", "reqid", "status", "errorMessage"}),
        ("v1", "bare", {"Error"}),
        ("v2", "error", {"error", "method", "req_id", "success", "time_in", "time_out"}),
        ("v2", "status", {"error", "method", "req_id", "success", "time_in", "time_out"}),
        ("v2", "bare", {"error"}),
    ],
)
def test_the_message_rate_is_told_in_its_shapes(dialect: Name, variant: str, keys: set[str]) -> None:
    exchange = quiet()
    tap = Tap(exchange, dialect, T0)
    tap.frames()
    exchange.inject(Fault("msg_rate", variant=variant), T0)
    tap.subscribe("openOrders" if dialect == "v1" else "executions", "x", T0)
    (answer,) = tap.frames()
    assert set(answer) == keys
    assert "Exceeded msg rate" in answer.values()


def test_upgrades_are_refused_for_as_many_connections_as_asked() -> None:
    exchange = script(Fault("upgrade_refused", on_connect=1, times=2, status=429, retry_after=7))
    for _ in range(2):
        refused = exchange.connect("v1", T0)
        assert isinstance(refused, Refused)
        assert (refused.status, refused.headers["Retry-After"]) == (429, "7")
    assert isinstance(exchange.connect("v1", T0), Peer)


# On REST.


@each(
    ("fault", "status", "header"),
    [
        (Fault("http_502"), 502, None),
        (Fault("http_429", retry_after=9), 429, "9"),
        (Fault("http_403"), 403, None),
    ],
)
def test_the_edge_answers_in_html(fault: Fault, status: int, header: str | None) -> None:
    exchange = quiet()
    exchange.inject(fault, T0)
    reply = Account(exchange).raw("Balance", T0)
    assert reply.status == status
    assert reply.body.lstrip().lower().startswith((b"<html", b"<!doctype"))
    assert reply.headers.get("Retry-After") == header
    assert Account(exchange).raw("Balance", T0).status == 200


@each("text", ["EAPI:Rate limit exceeded", "EGeneral:Temporary lockout", "EService:Unavailable"])
def test_any_documented_error_can_be_answered(text: str) -> None:
    exchange = quiet()
    exchange.inject(Fault("rest_error", text=text, method="GetWebSocketsToken", times=2), T0)
    account = Account(exchange)
    account.result("Balance", T0)  # another method is left alone
    assert [account.error("GetWebSocketsToken", T0) for _ in range(2)] == [text, text]
    account.token(T0)


def test_a_rest_call_can_hang_or_come_late() -> None:
    exchange = quiet()
    exchange.inject(Fault("rest_timeout"), T0)
    exchange.inject(Fault("rest_timeout", seconds=12.0), T0)
    account = Account(exchange)
    assert account.raw("Balance", T0).hang
    late = account.raw("Balance", T0)
    assert (late.hang, late.delay) == (False, 12.0)
    assert b'"result"' in late.body


def test_a_fault_with_a_duration_meets_every_occasion_within_it() -> None:
    exchange = script(Fault("http_502", at=1.0, duration=5.0))
    account = Account(exchange)
    seen = [account.raw("GetApiKeyInfo", T0 + second).status for second in (0.5, 1.0, 3.0, 5.9, 6.0)]
    assert seen == [200, 502, 502, 502, 200]


# On the exchange.


def test_multi_tells_one_orders_life_in_one_frame() -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders")
    exchange.inject(Fault("multi"), T0)
    ((items, _, _),) = tap.frames()
    ids = {order_id for item in items for order_id in item}
    assert (len(items), len(ids)) == (5, 1)


def test_many_orders_make_one_huge_snapshot() -> None:
    exchange = script(Fault("many_orders", on_connect=1))
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", Account(exchange).token(T0), T0)
    assert len(tap.frames()[-1][0]) == 10_005


def test_maintenance_recovers_step_by_step_and_tells_everybody() -> None:
    exchange = script(Fault("maintenance", at=1.0, maintenance=10.0, cancel_only=5.0, post_only=5.0), open_orders=5)
    tap = opened(exchange, "v1", "openOrders")
    account = Account(exchange)
    token = account.token(T0)
    exchange.advance(T0 + 2)
    assert account.error("Balance", T0 + 2) == "EService:Unavailable"
    late = Tap(exchange, "v2", T0 + 2)
    late.subscribe("executions", token, T0 + 2)
    assert error(late.frames()[-1]) == "EService:Unavailable"
    exchange.advance(T0 + 22)
    told = [frame["status"] for frame in tap.frames() if isinstance(frame, dict) and "status" in frame]
    assert told == ["maintenance", "cancel_only", "post_only", "online"]
    account.result("Balance", T0 + 22)


def test_a_change_of_state_is_told_in_v2_as_it_was_recorded_and_in_v1_like_the_greeting() -> None:
    exchange = script(Fault("maintenance", at=1.0))
    first, second = Tap(exchange, "v1", T0), Tap(exchange, "v2", T0)
    (greeting,), _ = first.frames(), second.frames()
    exchange.advance(T0 + 1)
    assert first.frames() == [{**greeting, "status": "maintenance"}]
    (told,), recorded = second.frames(), json.loads(frame("v2-status-maintenance"))
    assert list(told) == list(recorded)
    assert list(told["data"][0]) == list(recorded["data"][0])
    assert told["data"][0]["system"] == "maintenance"


def test_nothing_is_filled_before_the_engine_is_online_again() -> None:
    states = Fault("maintenance", at=0.0, maintenance=20.0, cancel_only=20.0, post_only=20.0)
    exchange = script(states, rate=50.0, open_orders=30)
    exchange.advance(T0 + 59.9)
    kinds = {(change.kind, int((change.at - T0) // 20)) for change in exchange.ledger.changes if change.at > T0}
    assert {kind for kind, phase in kinds if phase == 0} == set()
    assert {kind for kind, phase in kinds if phase == 1} <= {"canceled", "expired"}
    assert {kind for kind, phase in kinds if phase == 2} <= {"pending", "open", "canceled", "expired"}


# When.


def test_every_repeats_from_first_on() -> None:
    exchange = script(Fault("unknown_frame", every=2.0, first=1.0, times=3))
    opened(exchange, "v1", "openOrders")
    exchange.advance(T0 + 30)
    assert [fault.at - T0 for fault in exchange.ledger.faults] == [1.0, 3.0, 5.0]


def test_on_connect_counts_connections_and_after_waits() -> None:
    exchange = script(Fault("drop", on_connect=2, after=3.0))
    first, second = opened(exchange, "v1", "openOrders"), opened(exchange, "v2", "executions")
    exchange.advance(T0 + 2.9)
    assert not second.peer.closed
    exchange.advance(T0 + 3)
    assert (first.peer.closed, second.peer.closed) == (False, True)


def test_a_fault_meant_for_a_connection_that_is_gone_is_forgotten() -> None:
    exchange = script(Fault("drop", on_connect=1, after=3.0))
    first = opened(exchange, "v1", "openOrders")
    first.peer.disconnect()
    second = opened(exchange, "v1", "openOrders")
    exchange.advance(T0 + 10)
    assert not second.peer.closed


def test_on_token_counts_token_calls() -> None:
    exchange = script(Fault("http_502", on_token=2), Fault("drop", on_token=3))
    tap = Tap(exchange, "v1", T0)
    account = Account(exchange)
    assert [account.raw("GetWebSocketsToken", T0).status for _ in range(2)] == [200, 502]
    assert not tap.peer.closed
    account.token(T0)
    assert tap.peer.closed


def test_random_faults_follow_the_seed() -> None:
    def kinds(seed: int) -> list[str]:
        scenario = Scenario(random=RandomFaults(every=1.0, kinds={"multi": 1, "maintenance": 1}))
        exchange = Exchange(now=T0, seed=seed, rate=0.0, scenario=scenario)
        exchange.advance(T0 + 40)
        return struck(exchange)

    assert len(kinds(1)) == 40
    assert kinds(1) == kinds(1)
    assert kinds(1) != kinds(2)


def test_chance_piles_nothing_up_while_nobody_is_connected() -> None:
    scenario = Scenario(random=RandomFaults(every=1.0, kinds={"drop": 1, "no_greeting": 1}), tier="pro")
    exchange = Exchange(now=T0, seed=1, rate=0.0, scenario=scenario)
    exchange.advance(T0 + 100)
    peers = [Tap(exchange, "v1", T0 + 100.1) for _ in range(3)]
    assert [tap.peer.closed for tap in peers] == [False] * 3
    assert sum(not tap.frames() for tap in peers) <= 1


def test_a_repeated_fault_waits_for_somebody_only_once() -> None:
    exchange = script(Fault("drop", every=1.0), Fault("no_greeting", every=1.0))
    exchange.advance(T0 + 50.5)
    first, second = (Tap(exchange, "v1", T0 + 50.5) for _ in range(2))
    assert (first.peer.closed, second.peer.closed) == (True, False)
    assert len(second.frames()) == 1


def test_a_repeated_outage_comes_again_even_when_nobody_met_the_last_one() -> None:
    exchange = script(Fault("http_502", every=10.0, duration=2.0))
    exchange.advance(T0 + 21)
    assert Account(exchange).raw("GetApiKeyInfo", T0 + 21).status == 502
    assert Account(exchange).raw("GetApiKeyInfo", T0 + 22).status == 200


def test_an_injected_fault_with_a_trigger_counts_from_now() -> None:
    exchange = quiet()
    exchange.inject(Fault("multi", at=5.0), T0 + 10)
    exchange.advance(T0 + 14.9)
    assert struck(exchange) == []
    exchange.advance(T0 + 15)
    assert struck(exchange) == ["multi"]


def test_every_kind_is_carried_out_somewhere() -> None:
    assert set(PARAMETERS) == set(STRIKES) | OCCASION_KINDS | {"multi", "many_orders", "maintenance"}
