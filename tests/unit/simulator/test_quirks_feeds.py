"""Quirks of the feeds and their connections, as a client meets them: in frames."""

import json
from typing import Any, Literal

import pytest

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.market.ledger import Frame
from kraken_feed.simulator.quirks.quirk import Quirks
from kraken_feed.simulator.wire.outgoing import Abort, Text
from tests.support.account import T0, Account, Tap, opened, quiet

from ...support.cases import each

Name = Literal["v1", "v2"]
BOTH = pytest.mark.parametrize(("dialect", "channel"), [("v1", "openOrders"), ("v2", "executions")])
PING: dict[Name, dict[str, object]] = {
    "v1": {"event": "ping", "reqid": 7},
    "v2": {"method": "ping", "req_id": 7},
}


def quirky(**quirks: Any) -> Exchange:
    return quiet(open_orders=0, past_trades=0, scenario=Scenario(quirks=Quirks(**quirks)))


def published(exchange: Exchange, kind: str = "update") -> list[Frame]:
    return [frame for frame in exchange.ledger.frames if frame.kind == kind]


def ends(tap: Tap, order: str) -> list[list[dict[str, Any]]]:
    """The ends of an order in each frame."""
    found = []
    for frame in tap.frames():
        items = frame[0] if isinstance(frame, list) else frame.get("data", [])
        values = [item.get(order, item) for item in items]
        told = [value for value in values if "closed" in value.values() or value.get("exec_type") == "filled"]
        if told:
            found.append(told)
    return found


def sequences(tap: Tap) -> list[object]:
    frames = [frame for frame in tap.frames() if isinstance(frame, list) or "sequence" in frame]
    return [frame[-1]["sequence"] if isinstance(frame, list) else frame["sequence"] for frame in frames]


# Ends


def test_v1_ends_an_order_bare_twice_and_then_with_its_volumes() -> None:
    exchange = quirky(double_ends="richer")
    tap = opened(exchange, "v1", "openOrders")
    order = exchange.new_order(T0, volume="1")
    exchange.fill(order, "1", T0 + 1)
    first, second = ends(tap, order)
    assert first == [{"status": "closed"}, {"status": "closed"}]
    assert [end["vol_exec"] for end in second] == ["1.00000000"]
    assert [change.kind for change in exchange.ledger.changes].count("closed") == 1
    assert [len(frame.items) for frame in published(exchange)] == [1, 1, 1, 2, 1]


def test_v2_ends_an_order_bare_and_then_with_its_volumes() -> None:
    exchange = quirky(double_ends="richer")
    tap = opened(exchange, "v2", "executions")
    order = exchange.new_order(T0, volume="1")
    exchange.fill(order, "1", T0 + 1)
    ((bare,), (full,)) = ends(tap, order)
    assert bare.items() < full.items()
    assert "cum_qty" in full


@BOTH
def test_an_order_can_end_twice_with_the_same_bytes(dialect: Name, channel: str) -> None:
    exchange = quirky(double_ends="identical")
    tap = opened(exchange, dialect, channel)
    order = exchange.new_order(T0, volume="1")
    exchange.fill(order, "1", T0 + 1)
    first, second = ends(tap, order)
    assert first == second


def test_both_ways_of_ending_twice_are_met() -> None:
    exchange = quirky(double_ends="both")
    tap = opened(exchange, "v1", "openOrders")
    lengths = set()
    for second in range(20):
        order = exchange.new_order(T0 + second, volume="1")
        exchange.fill(order, "1", T0 + second)
        first, again = ends(tap, order)
        assert len(again) == 1
        lengths.add(len(first))
    assert lengths == {1, 2}


# Shapes


@BOTH
def test_the_integers_of_frames_and_answers_have_another_spelling(dialect: Name, channel: str) -> None:
    for how, one, seven in (("float", "1.0", "7.0"), ("text", '"1"', '"7"')):
        exchange = quirky(integers=how)
        tap = Tap(exchange, dialect, T0)
        tap.bytes()
        tap.subscribe(channel, Account(exchange).token(T0), T0)
        ack, snapshot = tap.bytes()
        assert f'id":{one},'.encode() in ack
        assert f'"sequence":{one}}}'.encode() in snapshot
        tap.send(PING[dialect], T0)
        (pong,) = tap.bytes()
        assert f'id":{seven}'.encode() in pong


@each(
    ("dialect", "channel", "text"),
    [
        ("v1", "openOrders", b'[null,"openOrders",{"sequence":1}]'),
        ("v2", "executions", b'{"channel":"executions","type":"snapshot","data":null,"sequence":1}'),
    ],
)
def test_an_empty_snapshot_can_be_null(dialect: Name, channel: str, text: bytes) -> None:
    exchange = quirky(null_snapshots=True)
    tap = Tap(exchange, dialect, T0)
    tap.subscribe(channel, Account(exchange).token(T0), T0)
    assert tap.bytes()[-1] == text
    exchange.new_order(T0, accept=False)
    assert b"null" not in tap.bytes()[0].split(b'"descr"')[0]


@BOTH
def test_frames_can_begin_with_a_null_that_is_no_publication(dialect: Name, channel: str) -> None:
    exchange = quirky(null_items=True)
    tap = opened(exchange, dialect, channel)
    exchange.new_order(T0, accept=False)
    (frame,) = tap.frames()
    items = frame[0] if isinstance(frame, list) else frame["data"]
    assert [item is None for item in items] == [True, False]
    assert [len(told.items) for told in published(exchange)] == [1]


@BOTH
def test_items_have_unknown_members_and_lone_surrogates(dialect: Name, channel: str) -> None:
    exchange = quirky(unknown_members=True, surrogates=1.0)
    tap = opened(exchange, dialect, channel)
    order = exchange.new_order(T0)
    opened(exchange, dialect, channel)
    texts = [exchange.ledger.frames[-1].text, *tap.bytes()]  # the other connection's snapshot, and the updates
    assert len(texts) == 3
    for text in texts:
        assert text.count(b'"\\ud800') == text.count(b'"x_new":{') == 1
        json.loads(text)
    assert {item.ids for item in exchange.ledger.published} == {(order,)}
    assert all(item.value in b"".join(texts) for item in exchange.ledger.published)


@BOTH
def test_frames_of_an_unknown_type_count_in_the_sequence(dialect: Name, channel: str) -> None:
    exchange = quirky(strange_frames=0.5)
    tap = opened(exchange, dialect, channel)
    for second in range(10):
        exchange.new_order(T0 + second * 0.1)
    texts = tap.bytes()
    strange = [text for text in texts if b"something new" in text]
    assert len(texts) - len(strange) == 20 == len(published(exchange))
    assert 3 < len(strange) < 18
    numbers = [int(text.rpartition(b":")[2].rstrip(b"}]")) for text in texts]
    assert numbers == list(range(numbers[0], numbers[0] + len(texts)))


@BOTH
def test_a_frame_of_an_unknown_type_can_be_a_fault(dialect: Name, channel: str) -> None:
    exchange = quirky()
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("unknown_frame", variant="type"), T0)
    exchange.new_order(T0, accept=False)
    assert sequences(tap) == [2, 3]
    assert [frame.sequence for frame in exchange.ledger.frames] == [1, 3]


def test_v1_can_be_without_heartbeats() -> None:
    exchange = quirky(no_v1_heartbeats=True)
    first, second = opened(exchange, "v1", "openOrders"), opened(exchange, "v2", "executions")
    exchange.advance(T0 + 10)
    assert first.frames() == []
    assert len(second.frames()) == 10


# Pings and the line


@each(("pongs", "ident"), [("echo", 7), ("bare", None), ("text", "7")])
@each("dialect", ["v1", "v2"])
def test_a_pong_has_its_id_or_not(dialect: Name, pongs: Any, ident: object) -> None:
    pong = Tap(quirky(pongs=pongs), dialect, T0).ask(PING[dialect], T0)
    assert pong.get("reqid", pong.get("req_id")) == ident
    assert "pong" in pong.values()


def test_pongs_can_be_late_behind_later_data() -> None:
    exchange = quirky(pong_delay=5.0)
    tap = opened(exchange, "v2", "executions")
    tap.send(PING["v2"], T0)
    exchange.new_order(T0 + 1)
    exchange.advance(T0 + 4.9)
    assert [frame.get("method") for frame in tap.frames() if frame["channel"] != "heartbeat"] == [None] * 2
    exchange.advance(T0 + 5)
    assert tap.frames()[-1]["req_id"] == 7


def test_pongs_can_be_lost_or_never_come() -> None:
    exchange = quirky(lost_pongs=0.5)
    tap = Tap(exchange, "v1", T0)
    tap.bytes()
    answers = []
    for second in range(20):
        tap.send(PING["v1"], T0 + second)
        answers.append(len(tap.bytes()))
    assert 3 < sum(answers) < 17
    never = Tap(quirky(pongs="never"), "v1", T0)
    never.bytes()
    never.send(PING["v1"], T0)
    assert never.bytes() == []


def test_one_pong_can_be_lost() -> None:
    exchange = quirky()
    tap = Tap(exchange, "v2", T0)
    tap.bytes()
    exchange.inject(Fault("no_pong"), T0)
    tap.send(PING["v2"], T0)
    assert tap.bytes() == []
    assert tap.ask(PING["v2"], T0 + 1)["req_id"] == 7


def test_a_slow_line_transmits_in_order_and_the_pong_queues_behind_the_data() -> None:
    exchange = quirky(line_rate=1000.0)
    tap = opened(exchange, "v1", "openOrders")
    exchange.advance(T0 + 10)
    tap.bytes()
    before = len(exchange.ledger.frames)
    for _ in range(20):
        exchange.new_order(T0 + 10)
    tap.send(PING["v1"], T0 + 10)
    assert tap.bytes() == []
    arrived: list[tuple[float, bytes]] = []
    now = T0 + 10
    while not arrived or b"pong" not in arrived[-1][1]:
        now = exchange.next_wakeup(now)
        exchange.advance(now)
        arrived += [(now, text) for text in tap.bytes() if b"heartbeat" not in text]
    size = sum(len(text) for _, text in arrived)
    assert size / 1000 <= now - T0 - 10 < size / 1000 + 1  # heartbeats take their bytes, too
    assert len(arrived) == 41
    assert [json.loads(text)[-1]["sequence"] for _, text in arrived[:-1]] == list(range(2, 42))
    assert len(exchange.ledger.frames) == before + 40


def test_a_cut_loses_what_a_slow_line_has_not_transmitted() -> None:
    for fault in (Fault("drop"), Fault("drop", code=1001)):
        exchange = quirky(line_rate=100.0)
        tap = opened(exchange, "v1", "openOrders")
        exchange.advance(T0 + 10)
        tap.bytes()
        exchange.new_order(T0 + 10)
        exchange.inject(fault, T0 + 10)
        (only,) = tap.peer.outgoing()
        assert not isinstance(only, Text)
        assert isinstance(only, Abort) == (fault.code is None)
        assert published(exchange) == []


# The server's state


@pytest.mark.parametrize(("variant", "expected"), [("restart", [1, 2]), ("continue", [3, 4]), ("jump", [10, 11])])
@BOTH
def test_a_second_snapshot_comes_after_updates_that_were_not_sent(
    dialect: Name, channel: str, variant: str, expected: list[int]
) -> None:
    exchange = quirky()
    gone = exchange.new_order(T0)
    tap = opened(exchange, dialect, channel)
    stays = exchange.new_order(T0, accept=False)
    exchange.inject(Fault("resnapshot", variant=variant, duration=3.0), T0 + 1)
    assert sequences(tap) == [2]
    exchange.cancel(gone, T0 + 2)
    exchange.advance(T0 + 3.9)
    assert sequences(tap) == []
    exchange.advance(T0 + 4)
    (snapshot,) = [frame for frame in tap.frames() if isinstance(frame, list) or "sequence" in frame]
    assert (snapshot[-1] if isinstance(snapshot, list) else snapshot)["sequence"] == expected[0]
    assert stays in json.dumps(snapshot, default=str)
    assert gone not in json.dumps(snapshot, default=str)
    exchange.cancel(stays, T0 + 5)
    assert sequences(tap) == expected[1:]
    assert [frame.kind for frame in exchange.ledger.frames] == ["snapshot", "update", "snapshot", "update"]


def test_a_second_snapshot_can_come_at_once() -> None:
    exchange = quirky()
    tap = opened(exchange, "v2", "balances")
    exchange.inject(Fault("resnapshot", duration=0.0), T0)
    assert [frame["type"] for frame in tap.frames()] == ["snapshot"]


def test_a_subscription_without_a_snapshot_is_not_restarted() -> None:
    exchange = quirky()
    tap = opened(exchange, "v2", "executions", snap_orders=False, snap_trades=False)
    exchange.inject(Fault("resnapshot", duration=1.0), T0)
    exchange.new_order(T0 + 0.5)
    assert sequences(tap) == [1, 2]


@pytest.mark.parametrize("state", ["post_only", "cancel_only"])
@BOTH
def test_a_greeting_can_say_otherwise_and_online_comes_without_a_snapshot(
    dialect: Name, channel: str, state: str
) -> None:
    exchange = quirky()
    order = exchange.new_order(T0)
    exchange.inject(Fault("late_online", variant=state, seconds=4.0), T0)
    tap = Tap(exchange, dialect, T0)
    (greeting,) = tap.bytes()
    assert state.encode() in greeting
    tap.subscribe(channel, Account(exchange).token(T0), T0)
    assert sequences(tap) == [1]
    exchange.cancel(order, T0 + 2)
    exchange.advance(T0 + 3.9)
    assert sequences(tap) == []
    exchange.advance(T0 + 4)
    assert b'"online"' in tap.bytes()[-1]
    exchange.new_order(T0 + 5, accept=False)
    assert sequences(tap) == [2]
    assert [fault.kind for fault in exchange.ledger.faults] == ["late_online"]


def test_who_is_greeted_in_maintenance_subscribes_later() -> None:
    exchange = quirky()
    exchange.inject(Fault("late_online", variant="maintenance"), T0)
    tap = Tap(exchange, "v2", T0)
    token = Account(exchange).token(T0)
    tap.subscribe("executions", token, T0)
    assert tap.frames()[-1]["error"] == "EService:Unavailable"
    exchange.advance(T0 + 3)
    tap.subscribe("executions", token, T0 + 3)
    assert tap.frames()[-1]["type"] == "snapshot"


@BOTH
def test_a_maintenance_can_keep_what_happens_in_it_to_itself(dialect: Name, channel: str) -> None:
    exchange = quirky()
    order = exchange.new_order(T0)
    tap = opened(exchange, dialect, channel)
    exchange.inject(Fault("maintenance", variant="untold"), T0)
    exchange.cancel(order, T0 + 6)
    exchange.advance(T0 + 12)
    texts = b"".join(tap.bytes())
    assert order.encode() not in texts
    assert b'"online"' in texts
    exchange.new_order(T0 + 13, accept=False)
    assert sequences(tap) == [2]


def test_v2_tells_the_exchanges_clock() -> None:
    exchange = quirky()
    exchange.world.clock_offset_s = 3600.0
    tap = Tap(exchange, "v2", T0)
    assert tap.ask(PING["v2"], T0)["time_in"] == "2025-10-09T09:53:20.000000Z"
    tap.subscribe("balances", Account(exchange).token(T0), T0)
    assert tap.frames()[0]["time_out"].startswith("2025-10-09T09:53:20.")
