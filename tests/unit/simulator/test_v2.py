"""WebSocket v2: greeting, subscriptions, feeds, errors."""

import json
from decimal import Decimal
from typing import Any

from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from tests.support.account import T0, Account, Tap, frame, opened, quiet

from ...support.cases import each

STAMP = "2025-10-09T08:53:20.000000Z"


def shape(message: dict[str, Any]) -> list[tuple[str, type]]:
    return [(name, type(value)) for name, value in message.items()]


def recorded(name: str) -> dict[str, Any]:
    """The only event in a frame of that name."""
    (event,) = json.loads(frame(name))["data"]
    return dict(event)


def test_the_greeting_has_a_connection_id_above_every_signed_integer() -> None:
    tap = Tap(quiet(), "v2", T0)
    (greeting,) = tap.frames()
    assert greeting["data"][0] == {
        "api_version": "v2",
        "connection_id": tap.peer.connection_id,
        "system": "online",
        "version": "2.0.10",
    }
    assert list(greeting["data"][0]) == list(recorded("v2-status-online"))
    assert tap.peer.connection_id > 2**63


def test_the_ack_comes_before_the_snapshot_and_tells_the_accepted_parameters() -> None:
    exchange = quiet(open_orders=1, past_trades=2)
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("executions", Account(exchange).token(T0), T0)
    _, ack, snapshot = tap.frames()
    assert list(ack) == ["method", "req_id", "result", "success", "time_in", "time_out"]
    assert ack["result"] == {
        "channel": "executions",
        "maxratecount": 60,
        "snap_orders": True,
        "snap_trades": False,
        "snapshot": True,
        "warnings": json.loads(frame("v2-executions-ack-warnings"))["result"]["warnings"],
    }
    assert (ack["success"], ack["time_in"]) == (True, STAMP)
    assert (snapshot["type"], snapshot["sequence"]) == ("snapshot", 1)
    assert [event["exec_type"] for event in snapshot["data"]] == ["new"]  # trades only on request


def test_a_snapshot_tells_trades_when_asked_and_orders_unless_declined() -> None:
    exchange = quiet(open_orders=2, past_trades=2)
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("executions", Account(exchange).token(T0), T0, snap_trades=True, snap_orders=False)
    snapshot = tap.frames()[-1]
    assert [event["exec_type"] for event in snapshot["data"]] == ["trade", "trade"]
    assert snapshot["data"][0]["order_status"] == "filled"  # the state in which the order is now
    assert "cum_qty" not in snapshot["data"][0]


def test_without_any_snapshot_the_first_update_has_the_first_number() -> None:
    exchange = quiet()
    tap = opened(exchange, "v2", "executions", snap_orders=False)
    exchange.new_order(T0)
    assert [(frame["type"], frame["sequence"]) for frame in tap.frames()] == [("update", 1), ("update", 2)]


def test_an_order_is_told_as_the_documents_tell_it() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, pair="ETH/USD", side="sell", volume="1", price="3500.00")
    exchange.fill(mine, "0.4", T0 + 1)
    exchange.fill(mine, "0.6", T0 + 2)
    pending, new, trade, _, filled = (text.decode() for text in tap.bytes())
    number = exchange.book.trades[exchange.order(mine).trades[0]].number
    assert pending == (
        '{"channel":"executions","type":"update","data":['
        f'{{"order_id":"{mine}","symbol":"ETH/USD","order_qty":1.00000000,"cum_cost":0.00000,"time_in_force":"GTC",'
        '"exec_type":"pending_new","side":"sell","order_type":"limit","order_userref":0,'
        '"limit_price_type":"static","limit_price":3500.00,"stop_price":0.00,"order_status":"pending_new",'
        f'"fee_usd_equiv":0.00000,"fee_ccy_pref":"fciq","timestamp":"{STAMP}"}}],"sequence":2}}'
    )
    assert new.endswith(
        f'"data":[{{"timestamp":"{STAMP}","order_status":"new","exec_type":"new","order_userref":0,'
        f'"order_id":"{mine}"}}],"sequence":3}}'
    )
    assert trade.endswith(
        f'"data":[{{"order_id":"{mine}","order_userref":0,"exec_id":"{exchange.order(mine).trades[0]}",'
        f'"exec_type":"trade","trade_id":{number},"symbol":"ETH/USD","side":"sell","last_qty":0.40000000,'
        '"last_price":3500.00,"liquidity_ind":"m","cost":1400.00000,"order_type":"limit",'
        '"timestamp":"2025-10-09T08:53:21.000000Z","order_status":"partially_filled","cum_qty":0.40000000,'
        '"cum_cost":1400.00000,"avg_price":3500.00,"fee_usd_equiv":2.24000,'
        '"fees":[{"asset":"USD","qty":2.24000}]}],"sequence":4}'
    )
    assert filled.endswith(
        '"data":[{"timestamp":"2025-10-09T08:53:22.000009Z","order_status":"filled","exec_type":"filled",'
        '"cum_qty":1.00000000,"cum_cost":3500.00000,"fee_usd_equiv":5.60000,"avg_price":3500.00,'
        f'"order_userref":0,"order_id":"{mine}"}}],"sequence":6}}'
    )


def test_the_trade_that_completes_an_order_still_says_partially_filled() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "1", T0 + 1)
    events = [event for frame in tap.frames() for event in frame["data"]]
    kinds = [(event["exec_type"], event["order_status"]) for event in events]
    assert kinds == [
        ("pending_new", "pending_new"),
        ("new", "new"),
        ("trade", "partially_filled"),
        ("filled", "filled"),
    ]


def test_a_canceled_order_gives_its_reason_twice_and_keeps_what_was_filled() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, volume="0.25", cl_ord_id="grid-17-b")
    exchange.fill(mine, "0.1", T0 + 1)
    exchange.cancel(mine, T0 + 2)
    (event,) = tap.frames()[-1]["data"]
    assert list(event) == [
        "timestamp", "order_status", "exec_type", "cum_qty", "cum_cost", "fee_usd_equiv", "avg_price",
        "cl_ord_id", "cancel_reason", "reason", "order_id",
    ]  # fmt: skip
    assert list(event) == list(recorded("v2-executions-canceled"))
    assert event["cancel_reason"] == event["reason"] == "User requested"
    assert event["cum_qty"] == Decimal("0.10000000")


def test_the_members_of_a_post_only_order_stand_where_they_were_recorded() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, pair="ETH/USD", price="3100.00", cl_ord_id="grid-17-b", post_only=True)
    exchange.cancel(mine, T0 + 1, "Post only order")
    pending, new, canceled = (list(frame["data"][0]) for frame in tap.frames())
    assert pending == list(recorded("v2-executions-pending_new-cl_ord_id"))
    assert new == list(recorded("v2-executions-new-post_only"))
    with_userref = list(recorded("v2-executions-canceled-filled"))
    assert canceled == ["cl_ord_id" if name == "order_userref" else name for name in with_userref]


def test_zeros_keep_the_decimals_of_their_column() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    for pair, price in (("ETH/USD", "3100"), ("ADA/EUR", "0.5")):
        exchange.cancel(exchange.new_order(T0, pair=pair, price=price), T0 + 1)
    ether, ada = (text for text in tap.bytes() if b"canceled" in text)
    assert b'"cum_qty":0.00000000,"cum_cost":0.00000,"fee_usd_equiv":0.00000,"avg_price":0.00,' in ether
    assert b'"cum_qty":0.00000000,"cum_cost":0.000000,"fee_usd_equiv":0.000000,"avg_price":0.000000,' in ada


def test_costs_have_the_decimals_of_their_pair_and_in_a_snapshots_orders_ten() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, pair="ADA/EUR", side="sell", volume="100", price="0.612345")
    exchange.fill(mine, "75", T0 + 1)
    assert b'"cost":45.925875,' in tap.bytes()[-1]
    late = Tap(exchange, "v2", T0 + 2)
    late.subscribe("executions", Account(exchange).token(T0 + 2), T0 + 2)
    assert b'"cum_cost":45.9258750000,' in late.bytes()[-1]


def test_balances_have_the_decimals_of_their_asset() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "balances")
    mine = exchange.new_order(T0, volume="0.00032", price="61234.5")
    exchange.fill(mine, "0.00032", T0 + 1)
    (text,) = tap.bytes()
    assert b'"amount":-19.5950,"fee":0.0314,' in text
    assert b'"amount":0.0003200000,"fee":0.0000000000,' in text


def test_every_kind_of_event_has_its_members_as_recorded() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    exchange.fill(exchange.new_order(T0, volume="1"), "1", T0)
    exchange.amend(exchange.new_order(T0), T0 + 1, price="60000.0")
    told = [event for frame in tap.frames() for event in frame["data"]]
    exchange.expire(exchange.new_order(T0, expires=T0 + 60), T0 + 60)
    told += tap.frames()[-1]["data"]
    kinds = {str(event["exec_type"]): list(event) for event in told}
    assert set(kinds) == {"pending_new", "new", "trade", "filled", "amended", "expired"}
    assert kinds == {kind: list(recorded(f"v2-executions-{kind}")) for kind in kinds}


def test_an_amend_tells_the_new_volume_and_limit() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions", ratecounter=True)
    mine = exchange.new_order(T0, pair="ETH/USD", price="3100.00")
    exchange.amend(mine, T0 + 1, volume="0.4", price="3090.00")
    text = tap.bytes()[-1]
    assert b'"cum_qty":0.00000000,"reason":"User requested","amended":true,"order_qty":0.40000000,' in text
    assert b'"limit_price":3090.00,"limit_price_type":"static","order_userref":0' in text
    assert b'"ratecount":4' in text


def test_order_status_false_leaves_only_openings_and_ends() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions", order_status=False)
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "0.5", T0 + 1)
    exchange.amend(mine, T0 + 2, volume="2")
    exchange.cancel(mine, T0 + 3)
    frames = tap.frames()
    assert [event["exec_type"] for frame in frames for event in frame["data"]] == ["new", "canceled"]
    assert [frame["sequence"] for frame in frames] == [2, 3]


def test_balances_tell_both_legs_of_a_trade_and_add_up() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("balances", Account(exchange).token(T0), T0)
    _, ack, snapshot = tap.frames()
    assert ack["result"] == {"channel": "balances", "snapshot": True}
    before = {entry["asset"]: entry["balance"] for entry in snapshot["data"]}
    assert snapshot["data"][0]["wallets"] == [{"type": "spot", "id": "main", "balance": before["BTC"]}]
    mine = exchange.new_order(T0, volume="0.5", price="61000.0")
    exchange.fill(mine, "0.5", T0 + 1)
    (update,) = tap.frames()
    paid, got = update["data"]
    assert (update["sequence"], paid["asset"], got["asset"]) == (2, "USD", "BTC")
    assert paid["ref_id"] == got["ref_id"] == exchange.order(mine).trades[0]
    assert (paid["amount"], paid["fee"]) == (Decimal("-30500"), Decimal("48.8"))
    assert paid["balance"] == before["USD"] + paid["amount"] - paid["fee"]
    assert got["balance"] == before["BTC"] + Decimal("0.5")


def test_numbers_keep_their_zeros() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    exchange.new_order(T0, pair="ADA/EUR", volume="100.00010000", price="0.450000")
    text = tap.bytes()[0]
    assert b'"order_qty":100.00010000,' in text
    assert b'"limit_price":0.450000,' in text


def test_a_fee_in_euro_is_told_in_dollars_too() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions")
    mine = exchange.new_order(T0, pair="ADA/EUR", volume="1000", price="0.5")
    exchange.fill(mine, "500", T0)
    (event,) = tap.frames()[-1]["data"]
    assert event["fees"] == [{"asset": "EUR", "qty": Decimal("0.4")}]
    assert event["fee_usd_equiv"] == Decimal("0.432")


def test_a_ping_is_answered_with_both_times() -> None:
    tap = Tap(quiet(), "v2", T0)
    answer = tap.ask({"method": "ping", "req_id": 101}, T0)
    assert answer == {
        "method": "pong",
        "req_id": 101,
        "time_in": STAMP,
        "time_out": "2025-10-09T08:53:20.000123Z",
    }


@each(
    ("message", "text"),
    [
        ([], "Malformed request"),
        ({"method": "subscribe"}, "Malformed request"),
        ({"method": "subscribe", "params": {"token": "x"}}, "Malformed request"),
        ({"method": "ping", "req_id": "7"}, "Malformed request"),
        ({"method": "shout"}, "Unsupported event"),
        ({"method": "ping", "params": {}}, "Unsupported field: 'params' for the given msg type: ping"),
        ({"method": "subscribe", "params": {"channel": "ticker", "token": "x"}}, "Subscription name invalid"),
        ({"method": "subscribe", "params": {"channel": "executions"}}, "Token(s) not found"),
        (
            {"method": "subscribe", "params": {"channel": "executions", "token": "x", "maxratecount": 1}},
            "Unsupported field: 'maxratecount' for the given msg type: subscribe",
        ),
        (
            {"method": "subscribe", "params": {"channel": "executions", "token": "x", "snap_trades": "yes"}},
            "EGeneral:Invalid arguments:snap_trades",
        ),
        ({"method": "subscribe", "params": {"channel": "balances", "token": "x"}}, "EAPI:Invalid token"),
        ({"method": "unsubscribe", "params": {"channel": "balances"}}, "Subscription Not Found"),
        ({"method": "add_order", "params": {"token": "x"}}, "EAPI:Invalid token"),
    ],
)
def test_mistakes_are_answered_and_leave_the_socket_open(message: object, text: str) -> None:
    tap = Tap(quiet(), "v2", T0)
    answer = tap.ask(message, T0)
    assert (answer["error"], answer["success"]) == (text, False)
    assert not tap.peer.closed


def test_an_error_ack_names_no_channel_and_only_a_bad_session_brings_a_status() -> None:
    exchange = quiet()
    exchange.inject(Fault("refuse_token"), T0)
    tap = Tap(exchange, "v2", T0)
    request = {"method": "subscribe", "params": {"channel": "executions", "token": "x"}, "req_id": 21}
    assert shape(tap.ask(request, T0)) == shape(json.loads(frame("v2-ack-error-session")))
    assert shape(tap.ask(request, T0)) == shape(json.loads(frame("v2-ack-error-already")))


def test_requests_that_cannot_be_read_or_are_not_known_are_told_by_their_method() -> None:
    tap = Tap(quiet(), "v2", T0)
    tap.frames()
    for garbage in (b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"{}"):
        tap.peer.receive(garbage, T0)
        (answer,) = tap.frames()
        recorded = json.loads(frame("v2-error-malformed"))
        assert shape(answer) == shape(recorded)
        assert (answer["error"], answer["method"]) == (recorded["error"], recorded["method"])
    assert tap.ask({"method": "shout", "req_id": 3}, T0)["method"] == "shout"


def test_a_ping_with_params_is_refused_as_a_ping() -> None:
    answer = Tap(quiet(), "v2", T0).ask({"method": "ping", "req_id": 0, "params": {}}, T0)
    recorded = json.loads(frame("v2-error-ping"))
    assert list(answer) == list(recorded)
    assert {**recorded, "time_in": 0, "time_out": 0} == {**answer, "time_in": 0, "time_out": 0}


def test_a_frame_mixes_events_unless_the_scenario_forbids_it() -> None:
    told: dict[bool, list[list[str]]] = {}
    for mixed in (True, False):
        exchange = quiet(scenario=Scenario(mixed_frames=mixed))
        tap = opened(exchange, "v2", "executions")
        exchange.inject(Fault("multi"), T0)
        frames = tap.frames()
        assert [frame["sequence"] for frame in frames] == list(range(2, 2 + len(frames)))
        told[mixed] = [[event["exec_type"] for event in frame["data"]] for frame in frames]
    (together,) = told[True]
    assert together == ["pending_new", "new", "trade", "trade", "filled"]
    assert told[False] == [[kind] for kind in together]


def test_users_all_brings_no_snapshot_and_names_the_user() -> None:
    exchange = quiet()
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("executions", Account(exchange).token(T0), T0, users="all")
    assert len(tap.frames()) == 2  # greeting and ack
    exchange.new_order(T0)
    assert all("user" in event for frame in tap.frames() for event in frame["data"])


def test_each_channel_counts_for_itself() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v2", "executions", "balances")
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "0.5", T0)
    counts = [(frame["channel"], frame["sequence"]) for frame in tap.frames()]
    assert counts == [("executions", 2), ("executions", 3), ("executions", 4), ("balances", 2)]


def test_an_unsubscribe_is_acknowledged() -> None:
    tap = opened(quiet(), "v2", "executions")
    answer = tap.ask({"method": "unsubscribe", "params": {"channel": "executions"}, "req_id": 22}, T0)
    assert (answer["success"], answer["req_id"], answer["result"]) == (True, 22, {"channel": "executions"})
