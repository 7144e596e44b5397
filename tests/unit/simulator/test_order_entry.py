"""Order entry on the simulated exchange: what it does to the account, what it answers, and what it refuses."""

import json
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Literal

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.simulator.access.key import READ_PERMISSIONS, TRADING_PERMISSIONS
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.market.stamp import rfc3339
from kraken_feed.simulator.quirks.quirk import Quirks
from kraken_feed.simulator.wire import v1_orders, v2_orders
from kraken_feed.simulator.wire.outgoing import Abort, Close
from tests.support.account import T0, Account, Tap, frame, quiet

from ...support.cases import each

V1_LIMIT: dict[str, Any] = {
    "ordertype": "limit",
    "type": "buy",
    "pair": "XBT/USD",
    "price": "61000.0",
    "volume": "0.01",
}
V2_LIMIT: dict[str, Any] = {
    "order_type": "limit",
    "side": "buy",
    "symbol": "BTC/USD",
    "limit_price": 61000.0,
    "order_qty": 0.01,
}


class Trader:
    """A connection of a key that may trade, on which nothing but order entry happens."""

    def __init__(self, exchange: Exchange, dialect: Literal["v1", "v2"], *permissions: str, now: float = T0) -> None:
        key = exchange.add_key(permissions=(*READ_PERMISSIONS, *(permissions or TRADING_PERMISSIONS)))
        self.tap = Tap(exchange, dialect, now)
        self.token = Account(exchange, key.key, key.secret).token(now)
        self.tap.frames()

    def ask(self, name: str, now: float = T0, **params: Any) -> list[Any]:
        self.send(name, now, **params)
        return self.tap.frames()

    def send(self, name: str, now: float = T0, **params: Any) -> None:
        if self.tap.dialect == "v1":
            self.tap.send({"event": name, "token": self.token, "reqid": 7, **params}, now)
        else:
            self.tap.send({"method": name, "params": {**params, "token": self.token}, "req_id": 7}, now)

    def one(self, name: str, now: float = T0, **params: Any) -> Any:
        (answer,) = self.ask(name, now, **params)
        return answer


def v1(exchange: Exchange, *permissions: str) -> Trader:
    return Trader(exchange, "v1", *permissions)


def v2(exchange: Exchange, *permissions: str) -> Trader:
    return Trader(exchange, "v2", *permissions)


def empty() -> Exchange:
    return quiet(open_orders=0, past_trades=0)


def kinds(exchange: Exchange) -> list[str]:
    return [change.kind for change in exchange.ledger.changes]


def shape(value: Any) -> Any:
    """Names, order and JSON types."""
    if isinstance(value, dict):
        return [(name, shape(each)) for name, each in value.items()]
    if isinstance(value, list):
        return [shape(each) for each in value]
    return "number" if isinstance(value, int | float | Decimal) else type(value).__name__


def recorded(name: str) -> Any:
    return json.loads(frame(name))


# -- what it does


def test_an_order_is_placed_and_told_to_everybody_in_both_dialects() -> None:
    exchange = empty()
    trader, listener = v1(exchange), Tap(exchange, "v2", T0)
    listener.subscribe("executions", Account(exchange).token(T0), T0)
    listener.frames()
    answer = trader.one("addOrder", **V1_LIMIT, cl_ord_id="mine")
    assert answer.pop("cl_ord_id") == "mine"
    assert shape(answer) == shape(recorded("v1-addOrderStatus-ok"))
    assert answer["descr"] == "buy 0.01000000 XBTUSD @ limit 61000.0"
    order = exchange.book.open[answer["txid"]]
    assert (order.price, order.volume, order.cl_ord_id) == (Decimal("61000.0"), Decimal("0.01"), "mine")
    events = [row for told in listener.frames() if told["channel"] == "executions" for row in told["data"]]
    assert [(row["order_id"], row["exec_type"]) for row in events] == [(order.id, "pending_new"), (order.id, "new")]


def test_v2_places_the_same_and_answers_as_recorded() -> None:
    exchange = empty()
    answer = v2(exchange).one("add_order", **V2_LIMIT, cl_ord_id="mine")
    assert (answer["method"], answer["req_id"], answer["success"]) == ("add_order", 7, True)
    assert answer["result"] == {"order_id": next(iter(exchange.book.open)), "cl_ord_id": "mine"}


def test_a_market_order_is_executed_at_once_and_settled() -> None:
    exchange = empty()
    before = exchange.book.balances["BTC"]
    v2(exchange).one("add_order", order_type="market", side="sell", symbol="BTC/USD", order_qty=0.5)
    assert kinds(exchange) == ["pending", "open", "fill", "closed"]
    assert exchange.book.balances["BTC"] == before - Decimal("0.5")


@each("dialect", ["v1", "v2"])
def test_an_amended_order_keeps_its_id_and_an_edited_one_gets_another(dialect: str) -> None:
    exchange = empty()
    order_id = exchange.new_order(T0)
    if dialect == "v1":
        answer = v1(exchange).one("amendOrder", txid=order_id, limit_price="60900.0", volume="0.5")
        assert shape(answer) == shape(recorded("v1-amendOrderStatus-ok"))
        edited = v1(exchange).one("editOrder", orderid=order_id, pair="XBT/USD", price="60500.0")
        assert shape(edited) == shape(recorded("v1-editOrderStatus-ok"))
        assert (edited["descr"], edited["originaltxid"]) == ("order edited price = 60500.0", order_id)
        new = edited["txid"]
    else:
        answer = v2(exchange).one("amend_order", order_id=order_id, limit_price=60900.0, order_qty=0.5)
        assert answer["result"]["order_id"] == order_id
        edited = v2(exchange).one("edit_order", order_id=order_id, symbol="BTC/USD", limit_price=60500.0)
        assert shape(edited) == shape(recorded("v2-edit_order-ok"))
        new = edited["result"]["order_id"]
    (amended,) = [change.order for change in exchange.ledger.changes if change.kind == "amended"]
    assert (amended.id, amended.price, amended.volume) == (order_id, Decimal("60900.0"), Decimal("0.5"))
    assert exchange.order(order_id).status == "canceled"
    assert exchange.order(new).price == Decimal("60500.0")


def test_amending_below_what_is_executed_cancels_the_rest() -> None:
    exchange = empty()
    order_id = exchange.new_order(T0, volume="0.5")
    exchange.fill(order_id, "0.3", T0)
    assert v2(exchange).one("amend_order", order_id=order_id, order_qty=0.2)["success"] is True
    assert exchange.order(order_id).status == "canceled"


def test_canceling_several_orders_brings_an_answer_for_each() -> None:
    exchange = empty()
    first, second = exchange.new_order(T0), exchange.new_order(T0)
    ok, error = v1(exchange).ask("cancelOrder", txid=[first, "OZZZZZ-ZZZZZ-ZZZZZZ"])
    assert ok == {"event": "cancelOrderStatus", "reqid": 7, "status": "ok"}
    assert shape(error) == shape(recorded("v1-cancelOrderStatus-error"))
    ok, error = v2(exchange).ask("cancel_order", order_id=[second, first])
    assert ok["result"] == {"order_id": second}
    assert error["error"] == "EOrder:Unknown order"
    assert ok["time_out"] != error["time_out"]


def test_a_reference_stands_for_every_order_that_has_it() -> None:
    exchange = empty()
    orders = {exchange.new_order(T0, userref=5), exchange.new_order(T0, userref=5)}
    exchange.new_order(T0)
    answers = v2(exchange).ask("cancel_order", order_userref=[5])
    assert {answer["result"]["order_id"] for answer in answers} == orders
    assert len(exchange.book.open) == 1


def test_all_are_canceled_and_counted() -> None:
    exchange = quiet(open_orders=2)
    assert shape(v1(exchange).one("cancelAll")) == shape(recorded("v1-cancelAllStatus-ok"))
    assert v2(exchange).one("cancel_all")["result"] == {"count": 0}
    assert not exchange.book.open


@each("dialect", ["v1", "v2"])
def test_the_timer_cancels_all_unless_it_is_set_anew_or_switched_off(dialect: Literal["v1", "v2"]) -> None:
    exchange = quiet(open_orders=2)
    trader = Trader(exchange, dialect)
    name = "cancelAllOrdersAfter" if dialect == "v1" else "cancel_all_orders_after"
    trader.one(name, timeout=60)
    trader.one(name, T0 + 50, timeout=60)
    exchange.advance(T0 + 100)
    assert len(exchange.book.open) == 2
    assert exchange.next_wakeup(T0 + 100) <= T0 + 110
    exchange.advance(T0 + 111)
    assert {change.order.reason for change in exchange.ledger.changes[-2:]} == {"CancelAllOrdersAfter Timeout"}
    order_id = exchange.new_order(T0 + 120)
    again = Trader(exchange, dialect, now=T0 + 120)
    again.one(name, T0 + 120, timeout=60)
    off = again.one(name, T0 + 121, timeout=0)
    if dialect == "v1":
        assert off == {**recorded("v1-cancelAllOrdersAfterStatus-ok"), "reqid": 7, "currentTime": off["currentTime"]}
    else:
        assert off["result"]["triggerTime"] == "0"
    exchange.advance(T0 + 500)
    assert order_id in exchange.book.open


def test_a_batch_is_placed_order_by_order_and_canceled_in_one() -> None:
    exchange = empty()
    rows = [{**V2_LIMIT, "cl_ord_id": "a"}, {**V2_LIMIT, "order_qty": 1000, "cl_ord_id": "b"}]
    for row in rows:
        del row["symbol"]
    answer = v2(exchange).one("batch_add", symbol="BTC/USD", orders=rows)
    placed, refused = answer["result"]
    assert (placed["cl_ord_id"], refused["error"]) == ("a", "EOrder:Insufficient funds")
    answer = v2(exchange).one("batch_cancel", orders=[placed["order_id"]], cl_ord_id=["nobody's"])
    assert shape(answer) == shape(recorded("v2-batch_cancel-ok"))
    assert answer["orders_cancelled"] == 1


# -- what it does not do


ROW = {"order_type": "limit", "side": "buy", "order_qty": 1, "limit_price": 60000.0}
CHECKS: list[tuple[Literal["v1", "v2"], str, dict[str, Any]]] = [
    ("v1", "addOrder", {**V1_LIMIT, "validate": "true"}),
    ("v1", "editOrder", {"orderid": "?", "pair": "XBT/USD", "price": "60000.0", "validate": True}),
    ("v2", "add_order", {**V2_LIMIT, "validate": True}),
    ("v2", "edit_order", {"order_id": "?", "symbol": "BTC/USD", "limit_price": 60000.0, "validate": True}),
    ("v2", "batch_add", {"symbol": "BTC/USD", "orders": [ROW, ROW], "validate": True}),
]


@each(("dialect", "name", "params"), CHECKS)
def test_a_check_changes_nothing_and_names_no_order(
    dialect: Literal["v1", "v2"], name: str, params: dict[str, Any]
) -> None:
    exchange = empty()
    order_id = exchange.new_order(T0)
    given: dict[str, Any] = {field: order_id if value == "?" else value for field, value in params.items()}
    before = len(exchange.ledger.changes)
    answer = Trader(exchange, dialect).one(name, **given)
    assert len(exchange.ledger.changes) == before
    assert answer.get("status", "ok") == "ok"
    assert answer.get("success", True) is True
    assert "txid" not in answer
    assert not any(row["order_id"] for row in (answer.get("result") or []) if isinstance(row, dict))


WRONG_CHECKS: list[tuple[Literal["v1", "v2"], str, dict[str, Any]]] = [
    ("v1", "addOrder", {**V1_LIMIT, "validate": True}),
    ("v1", "editOrder", {"orderid": "?", "pair": "XBT/USD", "price": "60000.0", "validate": "true"}),
    ("v2", "edit_order", {"order_id": "?", "symbol": "BTC/USD", "limit_price": 60000.0, "validate": "true"}),
]


@each(("dialect", "name", "params"), WRONG_CHECKS)
@each("reading", ["refused", "ignored", "taken"])
def test_a_validate_of_the_wrong_type_is_read_as_the_quirk_says(
    reading: Literal["refused", "ignored", "taken"], dialect: Literal["v1", "v2"], name: str, params: dict[str, Any]
) -> None:
    exchange = quiet(scenario=Scenario(quirks=Quirks(wrong_validate=reading)), open_orders=0, past_trades=0)
    order_id = exchange.new_order(T0)
    before = len(exchange.ledger.changes)
    filled = {key: order_id if value == "?" else value for key, value in params.items()}
    answer = Trader(exchange, dialect).one(name, T0, **filled)
    refused = answer.get("error", answer.get("errorMessage"))
    assert refused == ("EGeneral:Invalid arguments:validate" if reading == "refused" else None)
    assert (len(exchange.ledger.changes) > before) is (reading == "ignored")


def test_an_amendment_of_what_is_not_crypto_names_its_pair_and_no_other() -> None:
    exchange = quiet(scenario=Scenario(quirks=Quirks(asset_classes=True)), open_orders=0, past_trades=0)
    share = exchange.new_order(T0, pair="SOLx/USD", price="12.00", volume="1")
    crypto = exchange.new_order(T0)
    for dialect, name, order, price, pair in (
        ("v1", "amendOrder", "txid", "limit_price", "pair"),
        ("v2", "amend_order", "order_id", "limit_price", "symbol"),
    ):
        trader = v1(exchange) if dialect == "v1" else v2(exchange)
        cheap: Any = "11.00" if dialect == "v1" else 11.0
        answers = [
            trader.one(name, **{order: share, price: cheap}),
            trader.one(name, **{order: share, price: cheap, pair: "SOLx/USD"}),
            trader.one(name, **{order: crypto, price: cheap, pair: "SOLx/USD"}),
        ]
        texts = [answer.get("error", answer.get("errorMessage")) for answer in answers]
        assert texts == [f"EGeneral:Invalid arguments:{pair}", None, "EOrder:Invalid order"]


def test_an_amendment_is_answered_with_the_name_that_the_request_gave() -> None:
    exchange = empty()
    exchange.new_order(T0, cl_ord_id="mine")
    answer = v1(exchange).one("amendOrder", cl_ord_id="mine", limit_price="60900.0")
    assert (answer["cl_ord_id"], "txid" in answer) == ("mine", False)
    assert answer["amend_id"].startswith("T")


def test_an_edit_without_a_volume_is_refused_where_the_exchange_requires_one() -> None:
    exchange = quiet(scenario=Scenario(quirks=Quirks(edit_needs_volume=True)), open_orders=0, past_trades=0)
    order: dict[str, Any] = {"orderid": exchange.new_order(T0), "pair": "XBT/USD", "price": "60000.0"}
    assert v1(exchange).one("editOrder", **order)["errorMessage"] == "EGeneral:Invalid arguments:volume"
    assert v1(exchange).one("editOrder", **order, volume="0.5")["status"] == "ok"


@each("any_case", [False, True])
def test_time_in_force_has_one_case_per_dialect_or_any(any_case: bool) -> None:
    exchange = quiet(scenario=Scenario(quirks=Quirks(any_case=any_case)), open_orders=0, past_trades=0)
    low, high = v1(exchange), v2(exchange)
    assert low.one("addOrder", **V1_LIMIT, timeinforce="GTC")["status"] == "ok"
    assert high.one("add_order", **V2_LIMIT, time_in_force="gtc")["success"] is True
    assert (low.one("addOrder", **V1_LIMIT, timeinforce="gtc")["status"] == "ok") is any_case
    assert high.one("add_order", **V2_LIMIT, time_in_force="GTC")["success"] is any_case


@each("dialect", ["v1", "v2"])
def test_a_token_that_is_none_is_refused_and_a_key_that_only_reads_too(dialect: Literal["v1", "v2"]) -> None:
    exchange = quiet(open_orders=1)
    name = "cancelAll" if dialect == "v1" else "cancel_all"
    reader = Trader(exchange, dialect, "query-funds")
    answer = reader.one(name)
    assert answer.get("error", answer.get("errorMessage")) == "EGeneral:Permission denied"
    reader.token = "none"
    answer = reader.one(name)
    assert answer.get("error", answer.get("errorMessage")) == "EAPI:Invalid token"
    assert len(exchange.book.open) == 1


def test_each_method_needs_its_permissions() -> None:
    exchange = empty()
    denied = "EGeneral:Permission denied"
    assert v2(exchange, "close-trades").one("add_order", **V2_LIMIT)["error"] == denied
    assert v2(exchange, "modify-trades").one("add_order", **V2_LIMIT)["success"] is True
    order_id = next(iter(exchange.book.open))
    edit: dict[str, Any] = {"order_id": order_id, "symbol": "BTC/USD", "limit_price": 60000.0}
    assert v2(exchange, "modify-trades").one("edit_order", **edit)["error"] == denied
    assert v2(exchange, "close-trades").one("cancel_order", order_id=[order_id])["success"] is True


WRONG: list[tuple[Literal["v1", "v2"], str, dict[str, Any], str]] = [
    ("v1", "addOrder", {**V1_LIMIT, "price": 61000.0}, "EGeneral:Invalid arguments:price"),
    ("v1", "addOrder", {**V1_LIMIT, "ordertype": "limited"}, "EGeneral:Invalid arguments:ordertype"),
    ("v1", "addOrder", {**V1_LIMIT, "pair": "XBT/ABC"}, "EQuery:Unknown asset pair"),
    ("v1", "addOrder", {**V1_LIMIT, "userref": "1", "cl_ord_id": "a"}, "EGeneral:Invalid arguments:cl_ord_id"),
    ("v1", "addOrder", {**V1_LIMIT, "size": "1"}, "Unsupported field: 'size' for the given msg type: addOrder"),
    ("v1", "addOrder", {**V1_LIMIT, "volume": "1000"}, "EOrder:Insufficient funds"),
    ("v1", "addOrder", {**V1_LIMIT, "volume": "0.00001"}, "EOrder:Order minimum not met"),
    ("v1", "addOrder", {**V1_LIMIT, "price": "61000.01"}, "EOrder:Invalid price"),
    ("v1", "addOrder", {**V1_LIMIT, "deadline": rfc3339(T0 - 1)}, "EService:Deadline elapsed"),
    ("v1", "addOrder", {**V1_LIMIT, "deadline": rfc3339(T0 + 61)}, "EGeneral:Invalid arguments:deadline"),
    ("v1", "addOrder", {**V1_LIMIT, "ordertype": "stop-loss"}, "EGeneral:Invalid arguments:ordertype"),
    ("v1", "addOrder", {**V1_LIMIT, "reduce_only": "true"}, "EGeneral:Invalid arguments:reduce_only"),
    ("v1", "addOrder", {**V1_LIMIT, "margin": "true"}, "EGeneral:Invalid arguments:margin"),
    ("v1", "addOrder", {**V1_LIMIT, "leverage": 2}, "EGeneral:Invalid arguments:leverage"),
    ("v1", "addOrder", {**V1_LIMIT, "userref": 7}, "EGeneral:Invalid arguments:userref"),
    ("v1", "addOrder", {**V1_LIMIT, "stp_type": "cancel-newest"}, "EGeneral:Invalid arguments:stp_type"),
    (
        "v1",
        "addOrder",
        {**V1_LIMIT, "stptype": "cancel_newest"},
        "Unsupported field: 'stptype' for the given msg type: addOrder",
    ),
    ("v1", "cancelOrder", {}, "EGeneral:Invalid arguments:txid"),
    ("v1", "cancelAllOrdersAfter", {"timeout": "60"}, "EGeneral:Invalid arguments:timeout"),
    ("v1", "amendOrder", {"txid": "nobody's", "volume": "1"}, "EOrder:Unknown order"),
    ("v2", "add_order", {**V2_LIMIT, "limit_price": "61000.0"}, "EGeneral:Invalid arguments:limit_price"),
    ("v2", "add_order", {**V2_LIMIT, "post_only": "true"}, "EGeneral:Invalid arguments:post_only"),
    ("v2", "add_order", {**V2_LIMIT, "price": 1}, "Unsupported field: 'price' for the given msg type: add order"),
    ("v2", "cancel_order", {"order_id": ["a"], "cl_ord_id": ["b"]}, "EGeneral:Invalid arguments:order_id"),
    ("v2", "cancel_all_orders_after", {"timeout": 86400}, "EGeneral:Invalid arguments:timeout"),
    ("v2", "batch_add", {"symbol": "BTC/USD", "orders": [V2_LIMIT]}, "EGeneral:Invalid arguments:orders"),
    ("v2", "batch_cancel", {"orders": ["a"]}, "EGeneral:Invalid arguments:orders"),
    ("v2", "batch_cancel", {"orders": ["a", "b"]}, "EOrder:Unknown order"),
]


@each(("dialect", "name", "params", "text"), WRONG)
def test_what_is_wrong_is_refused_in_krakens_words_and_changes_nothing(
    dialect: Literal["v1", "v2"], name: str, params: dict[str, Any], text: str
) -> None:
    exchange = quiet()
    before = len(exchange.ledger.changes)
    answer = Trader(exchange, dialect).one(name, **params)
    assert answer.get("error", answer.get("errorMessage")) == text
    assert answer.get("success", answer.get("status")) in (False, "error")
    assert len(exchange.ledger.changes) == before


@each(
    ("state", "post_only", "text"),
    [
        ("maintenance", True, "EService:Unavailable"),
        ("cancel_only", True, "EService:Market in cancel_only mode"),
        ("post_only", False, "EService:Market in post_only mode"),
        ("post_only", True, None),
    ],
)
def test_the_engines_state_decides_what_is_taken(state: str, post_only: bool, text: str | None) -> None:
    exchange = empty()
    trader = v2(exchange)
    exchange.engine.status = state
    assert trader.one("add_order", **V2_LIMIT, post_only=post_only).get("error") == text


# Drawing one of these costs next to nothing: a list to pick from, and no regular expression to satisfy.
NUMBERS = [
    "0",
    "1",
    "-1",
    "+1",
    "#1",
    "007",
    "0.01",
    "1e-30",
    "-1.5e300",
    "1e400",
    "9" * 30,
    "0." + "1" * 30,
    "5%",
    "+2%",
]
WORDS = ["limit", "market", "buy", "XBT/USD", "BTC/USD", "gtd", "GTD", "²", "true", "", "1.", ".5", "e5", "1 ", "é"]
SCALARS = [None, True, False, 0, 1, -1, 2**31, -(2**63), 10**30, 0.1, -0.0, 1e-30, 1e300, *NUMBERS, *WORDS]
SCALAR = st.sampled_from(SCALARS) | st.integers(-100, 100)
NESTED: list[Any] = [[], {}, [[]], [None], [{}], [V2_LIMIT], [V2_LIMIT, {}], {"price": "1"}, {"order_qty": []}, [["a"]]]


def objects(names: Collection[str], values: st.SearchStrategy[Any], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """Draw objects with some of these members. Unlike ``st.dictionaries``, nothing is drawn only to be rejected."""
    return st.lists(st.tuples(st.sampled_from(sorted(names) or ["x"]), values), max_size=most).map(dict)


VALUES = SCALAR | st.sampled_from(NESTED) | st.lists(SCALAR, max_size=3) | objects(V2_LIMIT, SCALAR, 3)


@given(st.sampled_from(v1_orders.EVENTS + v2_orders.METHODS), st.data())
def test_whatever_is_asked_is_answered(name: str, data: st.DataObject) -> None:
    """And the account can go on: what came onto the book can be executed and told."""
    exchange = quiet(open_orders=2, rate=5.0)
    dialect, known = ("v1", v1_orders._KNOWN) if name in v1_orders.EVENTS else ("v2", v2_orders._KNOWN)
    right = V1_LIMIT if dialect == "v1" else V2_LIMIT
    fields = {field: value for field, value in right.items() if field in known[name]}
    changed = data.draw(objects(known[name], VALUES, 4))
    trader = v1(exchange) if dialect == "v1" else v2(exchange)
    trader.send(name, **{**fields, **changed})
    assert trader.tap.frames()
    exchange.advance(T0 + 5)


# -- faults


def test_a_lost_answer_is_of_a_request_that_was_done() -> None:
    exchange = empty()
    exchange.inject(Fault("no_answer"), T0)
    trader = v2(exchange)
    assert trader.ask("add_order", **V2_LIMIT) == []
    assert len(exchange.book.open) == 1
    exchange.inject(Fault("no_answer", variant="ignored"), T0)
    assert trader.ask("add_order", **V2_LIMIT) == []
    assert len(exchange.book.open) == 1


def test_some_of_several_answers_are_lost_and_others_come_twice() -> None:
    exchange = empty()
    orders = [exchange.new_order(T0) for _ in range(3)]
    exchange.inject(Fault("no_answer", count=1), T0)
    exchange.inject(Fault("duplicate_answer"), T0)
    answers = v2(exchange).ask("cancel_order", order_id=orders)
    assert [answer["result"]["order_id"] for answer in answers] == [orders[0], orders[0], orders[1], orders[1]]


@each(("fault", "end"), [(Fault("drop_answer"), Abort()), (Fault("drop_answer", code=1001), Close(1001))])
def test_a_connection_ends_in_the_place_of_the_answer(fault: Fault, end: Abort | Close) -> None:
    exchange = empty()
    exchange.inject(fault, T0)
    trader = v1(exchange)
    trader.send("addOrder", **V1_LIMIT)
    assert trader.tap.peer.outgoing() == [end]
    assert len(exchange.book.open) == 1


def test_any_text_can_be_the_refusal() -> None:
    exchange = quiet(open_orders=1)
    exchange.inject(Fault("refuse_order", text="EOrder:Brand new"), T0)
    trader = v1(exchange)
    assert trader.one("cancelAll")["errorMessage"] == "EOrder:Brand new"
    assert trader.one("cancelAll")["status"] == "ok"
