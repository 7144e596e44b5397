"""Answer order entry in v2: requests with numbers, answers with a result.

Sources: https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/add_order , …/amend_order , …/edit_order ,
…/cancel_order , …/cancel_all , …/cancel_after , …/batch_add , …/batch_cancel
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ..market.order import Order
from ..market.pair import Pair
from ..market.stamp import rfc3339
from .order_entry import CLOSE, MODIFY, ORDER_TYPES, STP_TYPES, Desk, Fields, Refusal, Types, Wish, check_types, invalid

_ORDER: Types = {
    **dict.fromkeys(
        (
            "order_type", "side", "limit_price_type", "time_in_force", "effective_time", "expire_time", "cl_ord_id",
            "fee_preference", "stp_type", "sender_sub_id",
        ),
        "text",
    ),
    **dict.fromkeys(("order_qty", "cash_order_qty", "limit_price", "display_qty"), "number"),
    **dict.fromkeys(("margin", "post_only", "reduce_only", "no_mpp"), "flag"),
    "order_userref": "integer", "triggers": "object", "conditional": "object",
}  # fmt: skip
_KNOWN: dict[str, Types] = {
    "add_order": {**_ORDER, "symbol": "text", "deadline": "text", "validate": "flag"},
    "amend_order": {
        **dict.fromkeys(
            ("order_id", "cl_ord_id", "symbol", "limit_price_type", "trigger_price_type", "deadline"), "text"
        ),
        **dict.fromkeys(("order_qty", "display_qty", "limit_price", "trigger_price"), "number"),
        "post_only": "flag",
    },
    "edit_order": {
        **dict.fromkeys(("order_id", "symbol", "fee_preference", "deadline"), "text"),
        **dict.fromkeys(("order_qty", "limit_price", "display_qty"), "number"),
        **dict.fromkeys(("post_only", "reduce_only", "no_mpp", "validate"), "flag"),
        "triggers": "object", "order_userref": "integer",
    },
    "cancel_order": {"order_id": "texts", "cl_ord_id": "texts", "order_userref": "integers"},
    "cancel_all": {},
    "cancel_all_orders_after": {"timeout": "integer"},
    "batch_add": {"symbol": "text", "orders": "objects", "deadline": "text", "validate": "flag"},
    "batch_cancel": {"orders": "texts", "cl_ord_id": "texts"},
}  # fmt: skip
_TRIGGERS: Types = {"price": "number", "reference": "text", "price_type": "text"}
_CONDITIONAL: Types = {
    "order_type": "text", "limit_price": "number", "limit_price_type": "text", "trigger_price": "number",
    "trigger_price_type": "text",
}  # fmt: skip
METHODS = tuple(_KNOWN)
_NAMES = ("order_id", "cl_ord_id", "order_userref")
_BATCH_ADD, _BATCH_CANCEL = (2, 15), (2, 50)
_HANDLING_S = 0.000123  # seconds that an answer takes; each of several is sent a little later
Result = dict[str, object]
Done = Result | list[Result] | Refusal


def order(method: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
    """Carry out a request, and return its answers in order: one, or one per order that was to be canceled."""
    params = message.get("params")
    done: list[Done]
    try:
        if not isinstance(params, dict):
            raise Refusal("Malformed request")
        _check_types(method, params, _KNOWN[method])
        fields = Fields(params)
        fields.deadline(desk.now)
        done = _DO[method](fields, desk)
    except Refusal as refusal:
        done = [refusal]
    number = {"req_id": message["req_id"]} if message.get("req_id") is not None else {}
    return [_answer(method, number, each, desk.now, index) for index, each in enumerate(done, 1)]


def _answer(method: str, number: Result, done: Done, now: float, index: int) -> bytes:
    times = {"time_in": rfc3339(now), "time_out": rfc3339(now + index * _HANDLING_S)}
    if isinstance(done, Refusal):
        return msgspec.json.encode({"error": str(done), "method": method, **number, "success": False, **times})
    if method == "batch_cancel" and isinstance(done, dict):  # as recorded; documented as a result
        return msgspec.json.encode({"method": method, **done, **number, "success": True, **times})
    return msgspec.json.encode({"method": method, **number, "result": done, "success": True, **times})


def _check_types(method: str, given: Mapping[str, Any], types: Types) -> None:
    said = method.replace("_", " ")
    check_types(said, given, types, ("token",))
    check_types(said, given.get("triggers", {}), _TRIGGERS)
    check_types(said, given.get("conditional", {}), _CONDITIONAL)


def _wish(fields: Fields, pair: Pair, desk: Desk) -> Wish:
    volume = fields.volume("order_qty")
    fields.text("stp_type", STP_TYPES)
    gtd = desk.time_in_force(fields, "time_in_force", ("gtc", "gtd", "ioc", "fok")) == "GTD"
    return Wish(
        pair=pair,
        side=fields.side("side"),
        ordertype=fields.needed("order_type", ORDER_TYPES),
        volume=volume,
        price=_trigger(fields) if fields.decimal("limit_price") is None else fields.decimal("limit_price"),
        userref=fields.get("order_userref", 0),
        cl_ord_id=fields.text("cl_ord_id"),
        expires=fields.moment("expire_time") if gtd else None,
        post_only=fields.get("post_only", False),
    )


def _trigger(fields: Fields) -> Decimal | None:
    """Return the trigger price, for an order that has no other price."""
    return Fields(fields.get("triggers", {})).decimal("price")


def _told(order_id: str, what: Order | Wish) -> Result:
    """Return the result for an order that was placed or, without an id, only checked."""
    name: Result = {"order_userref": what.userref} if what.cl_ord_id is None else {"cl_ord_id": what.cl_ord_id}
    return {"order_id": order_id, **name}


def _add(fields: Fields, desk: Desk) -> list[Done]:
    desk.may(MODIFY)
    wish = _wish(fields, fields.pair("symbol"), desk)
    if desk.checks_only(fields, "flag"):
        desk.check(wish)
        return [_told("", wish)]
    return [_told(desk.add(wish).id, wish)]


def _amend(fields: Fields, desk: Desk) -> list[Done]:
    desk.may(MODIFY, CLOSE, every=False)
    by_id = fields.text("order_id")
    order = desk.find(by_id or fields.needed("cl_ord_id"))
    desk.check_pair(order, fields, "symbol")
    desk.amend(order, fields.decimal("order_qty"), fields.decimal("limit_price"))
    name: Result = {"order_id": order.id} if by_id else {"cl_ord_id": order.cl_ord_id}
    return [{"amend_id": desk.amend_id(), **name}]


def _edit(fields: Fields, desk: Desk) -> list[Done]:
    desk.may(MODIFY, CLOSE)
    old = desk.find(fields.needed("order_id"))
    wish = Wish.edited(
        old,
        volume=fields.decimal("order_qty"),
        price=fields.decimal("limit_price"),
        userref=fields.get("order_userref"),
        pair=fields.pair("symbol"),
        post_only=fields.get("post_only", False),
    )
    check_only = desk.checks_only(fields, "flag")
    new = desk.edit(old, wish, check_only=check_only)
    return [{"order_id": "" if check_only else new.id, "original_order_id": old.id}]


def _cancel(fields: Fields, desk: Desk) -> list[Done]:
    desk.may(MODIFY, CLOSE, every=False)
    if len(given := [name for name in _NAMES if name in fields]) != 1:
        raise invalid((given or _NAMES)[0])
    if given == ["cl_ord_id"]:
        found = [desk.called(name) for name in fields.get("cl_ord_id", [])]
    elif given == ["order_id"]:
        found = [desk.named(name) for name in fields.get("order_id", [])]
    else:
        found = [desk.named(str(name)) for name in fields["order_userref"]]
    if not found:
        raise invalid(given[0])
    done: list[Done] = []
    for orders in found:
        for order in orders:
            desk.cancel(order)
            done.append({"cl_ord_id": order.cl_ord_id} if given == ["cl_ord_id"] else {"order_id": order.id})
        if not orders:
            done.append(Refusal("EOrder:Unknown order"))
    return done


def _batch_add(fields: Fields, desk: Desk) -> list[Done]:
    """Add a batch. It is checked as a whole; orders that the account cannot pay for are refused one by one."""
    desk.may(MODIFY, CLOSE)
    pair, rows = fields.pair("symbol"), fields.get("orders")
    if rows is None or not _BATCH_ADD[0] <= len(rows) <= _BATCH_ADD[1]:
        raise invalid("orders")
    wishes = []
    for row in rows:
        _check_types("batch_add", row, _ORDER)
        wishes.append(_wish(Fields(row), pair, desk))
    if desk.checks_only(fields, "flag"):
        for wish in wishes:
            desk.check(wish)
        return [[_told("", wish) for wish in wishes]]
    return [[_tried(wish, desk) for wish in wishes]]


def _tried(wish: Wish, desk: Desk) -> Result:
    try:
        return _told(desk.add(wish).id, wish)
    except Refusal as refusal:
        return {"error": str(refusal), "success": False}


def _batch_cancel(fields: Fields, desk: Desk) -> list[Done]:
    desk.may(MODIFY, CLOSE, every=False)
    names, called = fields.get("orders", []), fields.get("cl_ord_id", [])
    if not _BATCH_CANCEL[0] <= len(names) + len(called) <= _BATCH_CANCEL[1]:
        raise invalid("orders")
    orders = [order for name in names for order in desk.named(name)]
    orders += [order for name in called for order in desk.called(name)]
    if not orders:
        raise Refusal("EOrder:Unknown order")
    for order in orders:
        desk.cancel(order)
    return [{"orders_cancelled": len(orders)}]


_DO: dict[str, Callable[[Fields, Desk], list[Done]]] = {
    "add_order": _add,
    "amend_order": _amend,
    "edit_order": _edit,
    "cancel_order": _cancel,
    "cancel_all": lambda fields, desk: [{"count": desk.cancel_all()}],
    "cancel_all_orders_after": lambda fields, desk: [desk.cancel_after(fields.get("timeout"))],
    "batch_add": _batch_add,
    "batch_cancel": _batch_cancel,
}
