"""Answer order entry in v1: requests with numbers as strings, answers named after the request.

Sources: https://docs.kraken.com/exchange/api-reference/spot-websocket-v1/addorder , …/editorder , …/amendorder ,
…/cancelorder , …/cancelall , …/cancelallordersafter
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from ..market.number import VOLUME_PLACES, fixed
from .order_entry import (
    CLOSE,
    MODIFY,
    ORDER_TYPES,
    STP_TYPES,
    Desk,
    Fields,
    Refusal,
    Types,
    Wish,
    check_types,
    invalid,
    whole_number,
)

_AROUND = {"event", "token", "reqid"}
_KNOWN: dict[str, Types] = {
    "addOrder": {
        **dict.fromkeys(
            (
                "ordertype", "type", "pair", "price", "price2", "volume", "display_volume", "leverage", "oflags",
                "starttm", "expiretm", "deadline", "userref", "cl_ord_id", "sender_sub_id", "validate", "timeinforce",
                "trigger", "stp_type", "close[ordertype]", "close[price]", "close[price2]",
            ),
            "text",
        ),
        "margin": "flag", "reduce_only": "flag",
    },
    "editOrder": {
        **dict.fromkeys(("orderid", "pair", "price", "price2", "volume", "oflags", "newuserref"), "text"),
        "validate": "flag",
    },
    "amendOrder": {
        **dict.fromkeys(
            ("txid", "cl_ord_id", "volume", "display_volume", "limit_price", "trigger_price", "pair", "deadline"),
            "text",
        ),
        "post_only": "flag",
    },
    "cancelOrder": {"txid": "texts", "cl_ord_id": "texts"},
    "cancelAll": {},
    "cancelAllOrdersAfter": {"timeout": "integer"},
}  # fmt: skip
EVENTS = tuple(_KNOWN)
Answer = dict[str, object]


def order(event: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
    """Carry out a request, and return its answers in order: one, or one per order that was to be canceled."""
    number = {"reqid": message["reqid"]} if "reqid" in message else {}
    answers: list[Answer] = []
    try:
        check_types(event, message, _KNOWN[event], _AROUND)
        fields = Fields(message)
        fields.deadline(desk.now)
        answers = _DO[event](fields, desk)
    except Refusal as refusal:
        answers = [_error(str(refusal))]
    return [
        msgspec.json.encode(dict(sorted({"event": f"{event}Status", "status": "ok", **number, **each}.items())))
        for each in answers
    ]


def _error(text: str) -> Answer:
    return {"errorMessage": text, "status": "error"}


def _add(fields: Fields, desk: Desk) -> list[Answer]:
    desk.may(MODIFY)
    fields.text("stp_type", STP_TYPES)
    wish = Wish(
        pair=fields.pair("pair"),
        side=fields.side("type"),
        ordertype=fields.needed("ordertype", ORDER_TYPES),
        volume=fields.volume("volume"),
        price=_price(fields, "price"),
        userref=_userref(fields, "userref"),
        cl_ord_id=fields.text("cl_ord_id"),
        expires=_end(fields, desk),
        post_only="post" in (fields.text("oflags") or "").split(","),
    )
    answer: Answer = {"descr": _description(wish)}
    if wish.cl_ord_id is not None:
        answer["cl_ord_id"] = wish.cl_ord_id
    if desk.checks_only(fields, "text"):
        desk.check(wish)
        return [answer]
    return [{**answer, "txid": desk.add(wish).id}]


def _edit(fields: Fields, desk: Desk) -> list[Answer]:
    desk.may(MODIFY, CLOSE)
    old = desk.find(fields.needed("orderid"))
    if desk.quirks.edit_needs_volume and "volume" not in fields:
        raise invalid("volume")
    price = _price(fields, "price")
    wish = Wish.edited(
        old,
        pair=fields.pair("pair"),
        volume=fields.decimal("volume"),
        price=price,
        userref=_userref(fields, "newuserref"),
        post_only="post" in (fields.text("oflags") or "").split(","),
    )
    check_only = desk.checks_only(fields, "flag")
    new = desk.edit(old, wish, check_only=check_only)
    told = "" if price is None else f" price = {fixed(price, old.pair.price_decimals)}"
    answer: Answer = {"descr": f"order edited{told}", "originaltxid": old.id}
    return [answer if check_only else {**answer, "txid": new.id}]


def _amend(fields: Fields, desk: Desk) -> list[Answer]:
    desk.may(MODIFY, CLOSE, every=False)
    by_id = fields.text("txid")
    order = desk.find(by_id or fields.needed("cl_ord_id"))
    desk.check_pair(order, fields, "pair")
    desk.amend(order, fields.decimal("volume"), _price(fields, "limit_price"))
    name: Answer = {"txid": order.id} if by_id else {"cl_ord_id": order.cl_ord_id}
    return [{"amend_id": desk.amend_id(), **name}]


def _cancel(fields: Fields, desk: Desk) -> list[Answer]:
    desk.may(MODIFY, CLOSE, every=False)
    found = [desk.named(name) for name in fields.get("txid", [])]
    found += [desk.called(name) for name in fields.get("cl_ord_id", [])]
    if not found:
        raise invalid("txid")
    answers: list[Answer] = []
    for orders in found:
        for order in orders:
            desk.cancel(order)
            answers.append({})
        if not orders:
            answers.append(_error("EOrder:Unknown order"))
    return answers


_DO: dict[str, Callable[[Fields, Desk], list[Answer]]] = {
    "addOrder": _add,
    "editOrder": _edit,
    "amendOrder": _amend,
    "cancelOrder": _cancel,
    "cancelAll": lambda fields, desk: [{"count": desk.cancel_all()}],
    "cancelAllOrdersAfter": lambda fields, desk: [desk.cancel_after(fields.get("timeout"))],
}


def _price(fields: Fields, name: str) -> Decimal | None:
    """Return a price. Relative ones (+5, -1%, #2) are refused: this exchange does not support them."""
    text = fields.text(name)
    if text is not None and (text[:1] in "+-#" or text.endswith("%")):
        raise Refusal("EOrder:Invalid price")
    return fields.decimal(name)


def _userref(fields: Fields, name: str) -> int:
    text = fields.text(name)
    if text is not None and not whole_number(text):
        raise invalid(name)
    return int(text or 0)


def _end(fields: Fields, desk: Desk) -> float | None:
    """Return GTD's end: unix seconds, or `+` and seconds from now."""
    text = fields.text("expiretm")
    if desk.time_in_force(fields, "timeinforce", ("GTC", "IOC", "GTD", "FOK")) != "GTD" or text is None:
        return None
    if not whole_number(text.removeprefix("+")):
        raise invalid("expiretm")
    return int(text) + (desk.now if text.startswith("+") else 0.0)


def _description(wish: Wish) -> str:
    what = f"{wish.side} {fixed(wish.volume, VOLUME_PLACES)} {wish.pair.altname} @ {wish.ordertype}"
    return what if wish.price is None else f"{what} {fixed(wish.price, wish.pair.price_decimals)}"
