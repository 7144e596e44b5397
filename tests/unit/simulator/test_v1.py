"""WebSocket v1: greeting, subscriptions, feeds, errors."""

import json
from typing import Any

import pytest

from kraken_feed.simulator.wire.outgoing import Close
from tests.support.account import T0, Account, Tap, frame, opened, quiet

from ...support.cases import each


def test_the_greeting_has_a_connection_id_above_every_signed_integer() -> None:
    tap = Tap(quiet(), "v1", T0)
    (greeting,) = tap.frames()
    assert greeting["connectionID"] == tap.peer.connection_id > 2**63
    assert list(greeting) == ["connectionID", "event", "status", "version"]
    assert (greeting["event"], greeting["status"]) == ("systemStatus", "online")


def test_the_ack_comes_before_the_snapshot_and_repeats_the_reqid() -> None:
    exchange = quiet(open_orders=2)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", Account(exchange).token(T0), T0, ratecounter=True)
    _, ack, snapshot = tap.frames()
    assert ack == {
        "channelName": "openOrders",
        "event": "subscriptionStatus",
        "reqid": 1,
        "status": "subscribed",
        "subscription": {"maxratecount": 60, "name": "openOrders"},
    }
    items, channel, tail = snapshot
    assert (len(items), channel, tail) == (2, "openOrders", {"sequence": 1})
    assert all(list(item) == [order_id] for item, order_id in zip(items, exchange.book.open, strict=True))


def test_an_empty_account_gets_an_empty_snapshot() -> None:
    exchange = quiet(open_orders=0)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", Account(exchange).token(T0), T0)
    assert tap.bytes()[-1] == b'[[],"openOrders",{"sequence":1}]'


def test_an_order_is_told_as_the_documents_tell_it() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v1", "openOrders")
    mine = exchange.new_order(T0 + 1.000001, pair="ETH/USD", side="sell", volume="1", price="3500.00")
    exchange.fill(mine, "0.4", T0 + 2)
    exchange.fill(mine, "0.6", T0 + 3)
    bodies = [frame[0][0][mine] for frame in tap.frames()]
    assert bodies == [
        {
            "avg_price": "0.00000",
            "cost": "0.00000",
            "descr": {
                "close": None,
                "leverage": None,
                "order": "sell 1.00000000 ETH/USD @ limit 3500.00000",
                "ordertype": "limit",
                "pair": "ETH/USD",
                "price": "3500.00000",
                "price2": "0.00000",
                "type": "sell",
            },
            "expiretm": None,
            "fee": "0.00000",
            "limitprice": "0.00000",
            "misc": "",
            "oflags": "fciq",
            "opentm": "1760000001.000001",
            "refid": None,
            "starttm": None,
            "status": "pending",
            "stopprice": "0.00000",
            "timeinforce": "GTC",
            "userref": 0,
            "vol": "1.00000000",
            "vol_exec": "0.00000000",
        },
        {"status": "open", "userref": 0},
        {
            "vol_exec": "0.40000000",
            "cost": "1400.00000",
            "fee": "2.24000",
            "avg_price": "3500.00000",
            "userref": 0,
        },
        {
            "vol_exec": "1.00000000",
            "cost": "3500.00000",
            "fee": "5.60000",
            "avg_price": "3500.00000",
            "userref": 0,
        },
        {
            "lastupdated": "1760000003.000009",
            "status": "closed",
            "vol_exec": "1.00000000",
            "cost": "3500.00000",
            "fee": "5.60000",
            "avg_price": "3500.00000",
            "userref": 0,
        },
    ]


def test_a_fill_delta_has_no_status() -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders")
    order = next(iter(exchange.book.open.values()))
    exchange.fill(order.id, order.volume / 2, T0 + 1)
    ((item,), _, _) = tap.frames()[0]
    assert "status" not in item[order.id]


def test_a_canceled_order_says_why_and_an_expired_one_does_not() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v1", "openOrders")
    first = exchange.new_order(T0, cl_ord_id="grid-17-b")
    second = exchange.new_order(T0, expires=T0 + 60)
    exchange.cancel(first, T0 + 1, "Post only order")
    exchange.expire(second, T0 + 60)
    canceled, expired = (frame[0][0] for frame in tap.frames()[-2:])
    assert canceled[first]["cancel_reason"] == "Post only order"
    assert list(canceled[first])[-2:] == ["cl_ord_id", "cancel_reason"]
    assert canceled[first]["cl_ord_id"] == "grid-17-b"
    assert "userref" not in canceled[first]
    assert expired[second]["status"] == "expired"
    assert "cancel_reason" not in expired[second]


def test_a_canceled_order_has_its_members_as_recorded() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v1", "openOrders")
    mine = exchange.new_order(T0)
    exchange.cancel(mine, T0 + 1)
    (((recorded,), _, _), ((told,), _, _)) = (json.loads(frame("v1-openOrders-delta-canceled")), tap.frames()[-1])
    assert list(told[mine]) == [name for body in recorded.values() for name in body]


def test_the_zeros_of_a_pair_with_six_decimals_have_six() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v1", "openOrders")
    mine = exchange.new_order(T0, pair="ADA/EUR", price="0.45")
    body = tap.frames()[0][0][0][mine]
    money = ("avg_price", "cost", "fee", "limitprice", "stopprice")
    assert {body[name] for name in money} | {body["descr"]["price2"]} == {"0.000000"}
    exchange.cancel(mine, T0 + 1)
    ended = tap.frames()[-1][0][0][mine]
    assert [ended[name] for name in ("vol_exec", "cost", "fee")] == ["0.00000000", "0.000000", "0.000000"]


def test_an_amend_tells_the_new_volume_and_limit() -> None:
    exchange = quiet(open_orders=0)
    tap = opened(exchange, "v1", "openOrders", ratecounter=True)
    mine = exchange.new_order(T0, userref=7)
    exchange.amend(mine, T0 + 1, volume="0.4", price="60000.0")
    body = tap.frames()[-1][0][0][mine]
    assert (body["amended"], body["vol"], body["userref"]) == (True, "0.40000000", 7)
    assert body["descr"]["price"] == "60000.00000"
    assert body["ratecount"] == 4  # an add, a second of decay, an amend of a fresh order


def test_own_trades_come_newest_first_and_at_most_fifty() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    mine = exchange.new_order(T0, volume="1")
    for second in range(1, 61):
        exchange.fill(mine, "0.01", T0 + second)
    tap = Tap(exchange, "v1", T0 + 70)
    tap.subscribe("ownTrades", Account(exchange).token(T0 + 70), T0 + 70)
    _, ack, (items, channel, tail) = tap.frames()
    assert ack["subscription"] == {"name": "ownTrades"}
    assert (len(items), channel, tail) == (50, "ownTrades", {"sequence": 1})
    times = [trade["time"] for item in items for trade in item.values()]
    assert times[0] == "1760000060.000000"
    assert times == sorted(times, reverse=True)
    assert all("userref" not in trade for item in items for trade in item.values())


def test_a_trade_is_told_with_the_client_reference() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    tap = opened(exchange, "v1", "ownTrades", snapshot=False)
    mine = exchange.new_order(T0, volume="1", cl_ord_id="grid-17-b")
    exchange.fill(mine, "0.1", T0 + 1)
    ((items, _, tail),) = tap.frames()
    (trade,) = items[0].values()
    assert tail == {"sequence": 1}  # no snapshot took the first number
    assert (trade["cl_ord_id"], trade["vol"], trade["price"]) == ("grid-17-b", "0.10000000", "61000.00000")
    assert "userref" not in trade


def test_a_ping_is_answered_with_its_reqid() -> None:
    tap = Tap(quiet(), "v1", T0)
    assert tap.ask({"event": "ping", "reqid": 42}, T0) == {"event": "pong", "reqid": 42}
    assert tap.ask({"event": "ping"}, T0) == {"event": "pong"}


def test_a_reqid_of_zero_is_repeated_like_any_other() -> None:
    exchange = quiet()
    tap = Tap(exchange, "v1", T0)
    assert tap.ask({"event": "ping", "reqid": 0}, T0) == {"event": "pong", "reqid": 0}
    subscription = {"name": "ownTrades", "token": Account(exchange).token(T0)}
    tap.send({"event": "subscribe", "reqid": 0, "subscription": subscription}, T0)
    assert tap.bytes()[0] == frame("v1-ownTrades-ack-reqid-zero")


def subscribe(name: object = "openOrders", **more: object) -> dict[str, Any]:
    subscription: dict[str, object] = {"name": name, "token": "x"}
    return {"event": "subscribe", "subscription": subscription, **more}


@each(
    ("message", "text", "event"),
    [
        ([], "Malformed request", "error"),
        ({"reqid": 1}, "Malformed request", "error"),
        ({"event": "subscribe"}, "Malformed request", "error"),
        ({"event": "subscribe", "subscription": {"token": "x"}}, "Malformed request", "error"),
        ({"event": "shout"}, "Event(s) not found", "error"),
        (
            {"event": "ping", "reqid": "1"},
            "Reqid field must be a positive integer less than 18446744073709551616",
            "error",
        ),
        (
            {"event": "subscribe", "pair": ["XBT/USD"], "subscription": {"name": "ticker"}},
            "Public channels not available in this endpoint",
            "subscriptionStatus",
        ),
        (subscribe(depth=10), "Unsupported field: 'depth' for the given msg type: subscribe", "error"),
        (subscribe("shouts"), "Subscription name invalid", "subscriptionStatus"),
        (subscribe("ticker"), "Public channels not available in this endpoint", "subscriptionStatus"),
        (
            subscribe(pair=["XBT/USD"]),
            "Pair field unsupported for this subscription type",
            "subscriptionStatus",
        ),
        (
            {"event": "subscribe", "subscription": "openOrders"},
            "Subscription field must be an object",
            "subscriptionStatus",
        ),
        (
            {"event": "subscribe", "subscription": {"name": "openOrders", "token": "x", "depth": 1}},
            "Subscription object unsupported field",
            "subscriptionStatus",
        ),
        (subscribe(), "EAPI:Invalid token", "subscriptionStatus"),
        (
            {"event": "unsubscribe", "subscription": {"name": "openOrders"}},
            "Subscription Not Found",
            "subscriptionStatus",
        ),
        ({"event": "addOrder", "token": "x"}, "EAPI:Invalid token", "addOrderStatus"),
    ],
)
def test_mistakes_are_answered_and_leave_the_socket_open(message: object, text: str, event: str) -> None:
    tap = Tap(quiet(), "v1", T0)
    answer = tap.ask(message, T0)
    assert (answer["errorMessage"], answer["event"]) == (text, event)
    assert not tap.peer.closed


def test_text_that_is_no_json_is_malformed() -> None:
    tap = Tap(quiet(), "v1", T0)
    tap.frames()
    for garbage in (b"{", b"\xff\xfe", b"[" * 100_000):
        tap.peer.receive(garbage, T0)
        assert tap.bytes() == [b'{"errorMessage":"Malformed request","event":"error"}']


def test_an_error_ack_repeats_reqid_name_and_token() -> None:
    tap = Tap(quiet(), "v1", T0)
    assert tap.ask(subscribe(reqid=11), T0) == {
        "errorMessage": "EAPI:Invalid token",
        "event": "subscriptionStatus",
        "reqid": 11,
        "status": "error",
        "subscription": {"name": "openOrders", "token": "x"},
    }


def test_subscribing_twice_brings_no_second_snapshot() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", token, T0)
    answer = tap.ask({"event": "subscribe", "subscription": {"name": "openOrders", "token": token}}, T0)
    assert answer["errorMessage"] == "Already subscribed"


def test_resubscribing_starts_a_new_sequence() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", token, T0)
    exchange.new_order(T0)
    tap.frames()
    unsubscribe = {"event": "unsubscribe", "reqid": 2, "subscription": {"name": "*", "token": token}}
    answer = tap.ask(unsubscribe, T0)
    assert (answer["status"], answer["reqid"], answer["channelName"]) == ("unsubscribed", 2, "openOrders")
    tap.subscribe("openOrders", token, T0)
    assert tap.frames()[-1][-1] == {"sequence": 1}


def test_a_burst_of_requests_exceeds_the_rate_and_a_second_later_it_is_over() -> None:
    tap = Tap(quiet(), "v1", T0)
    tap.frames()
    for number in range(1, 22):
        tap.send({"event": "ping", "reqid": number}, T0)
    assert tap.frames()[20:] == [{"errorMessage": "Exceeded msg rate", "event": "error", "reqid": 21}]
    assert tap.ask({"event": "ping"}, T0 + 1)["event"] == "pong"


def test_heartbeats_come_every_second_only_while_subscribed_and_nothing_else_is_sent() -> None:
    exchange = quiet()
    idle = Tap(exchange, "v1", T0)
    idle.frames()
    tap = opened(exchange, "v1", "openOrders")
    exchange.advance(T0 + 0.9)
    assert tap.frames() == []
    exchange.new_order(T0 + 0.9)
    tap.frames()
    exchange.advance(T0 + 1.8)
    assert tap.frames() == []
    assert exchange.next_wakeup(T0 + 1.8) == pytest.approx(T0 + 1.9)
    exchange.advance(T0 + 4)
    assert tap.bytes() == [b'{"event":"heartbeat"}'] * 3
    assert idle.frames() == []


def test_a_connection_without_a_subscription_is_closed_after_a_minute_in_spite_of_pings() -> None:
    exchange = quiet()
    tap = Tap(exchange, "v1", T0)
    tap.send({"event": "ping"}, T0 + 59)
    exchange.advance(T0 + 59.9)
    assert not tap.peer.closed
    exchange.advance(T0 + 60)
    assert tap.peer.outgoing()[-1] == Close(1000)


def test_changes_of_one_moment_share_a_frame_and_keep_their_order() -> None:
    exchange = quiet()
    tap = opened(exchange, "v1", "openOrders", "ownTrades")
    order = next(iter(exchange.book.open.values()))
    half = order.volume / 2
    changes = exchange.book.fill(order.id, half, T0) + exchange.book.cancel(order.id, T0)
    exchange.publish(changes, T0)
    orders, trades = tap.frames()
    assert [list(item) for item in orders[0]] == [[order.id], [order.id]]
    assert "status" not in orders[0][0][order.id]
    assert orders[0][1][order.id]["status"] == "canceled"
    assert len(trades[0]) == 1


def test_frames_are_compact_json_without_surprises() -> None:
    exchange = quiet(open_orders=1)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", Account(exchange).token(T0), T0)
    text = tap.bytes()[-1]
    assert json.dumps(json.loads(text), separators=(",", ":")).encode() == text
