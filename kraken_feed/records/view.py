"""Read orders and fills for display, from v1, v2 or REST.

Updates carry only what changed: v1's have no pair and no side, v2's often no symbol. Values stay the text that Kraken
sent, digits and trailing zeros included.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, DecimalException

import msgspec

from ..json_members import NotJson, elements, members, scalar
from ..text import word

Fields = dict[str, msgspec.Raw]

_fields: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(Fields)
_items: msgspec.json.Decoder[list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw])

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_LAST_S = 253_402_300_800  # the year 10000, which datetime cannot express


class Order(msgspec.Struct):
    """The known fields of one order; an empty text means unknown. ``filled``, ``cost`` and ``average`` cover all of its
    fills so far; ``opened`` is as :func:`moment` reads it."""

    pair: str = ""
    side: str = ""
    kind: str = ""
    price: str = ""
    volume: str = ""
    filled: str = ""
    status: str = ""
    cost: str = ""
    average: str = ""
    opened: str = ""

    @property
    def ended(self) -> bool:
        """Whether the order was filled, canceled or has expired."""
        return word(self.status) in _ENDED

    @property
    def shown_price(self) -> str:
        """The price to display. For a market order, it is the average of the fills; empty if that is unknown."""
        return nonzero(self.average) if word(self.kind) in _WITHOUT_PRICE else self.price


class Fill(msgspec.Struct, frozen=True):
    """One fill. ``time`` is as :func:`moment` reads it; ``fee`` includes its currency if that is known."""

    order_id: str
    pair: str
    side: str
    kind: str
    price: str
    volume: str
    cost: str
    time: str
    fee: str = ""
    role: str = ""


# Where each dialect keeps what an Order or a Fill holds. v1's `descr.price` is the limit; `price` would be the average.
# Sources: https://docs.kraken.com/api/docs/websocket-v1/openorders, …/websocket-v1/owntrades and
# …/websocket-v2/executions; REST: https://docs.kraken.com/api/docs/rest-api/get-trade-history
_V1 = {
    "vol": "volume", "vol_exec": "filled", "status": "status", "cost": "cost", "avg_price": "average",
    "opentm": "opened",
}  # fmt: skip
_V1_DESCR = {"pair": "pair", "type": "side", "ordertype": "kind", "price": "price"}
_V2 = {
    "symbol": "pair", "side": "side", "order_type": "kind", "limit_price": "price", "order_qty": "volume",
    "cum_qty": "filled", "order_status": "status", "cum_cost": "cost", "avg_price": "average",
}  # fmt: skip
_V1_FILL = {
    "ordertxid": "order_id", "pair": "pair", "type": "side", "ordertype": "kind", "price": "price", "vol": "volume",
    "cost": "cost", "fee": "fee", "time": "time",
}  # fmt: skip
_V2_FILL = {
    "order_id": "order_id", "symbol": "pair", "side": "side", "order_type": "kind", "last_price": "price",
    "last_qty": "volume", "cost": "cost", "timestamp": "time",
}  # fmt: skip
_TIMES = ("timestamp", "lastupdated", "closetm", "time")  # of v2; of v1 and REST, the latest first
_ENDED = ("closed", "canceled", "expired", "filled")
_WITHOUT_PRICE = ("market", "settle-position")  # v1 writes 0 there, v2 nothing


def read_order(data: bytes) -> Order:
    """Read an order from REST. Its fields are v1's, except the average, which REST calls ``price``."""
    fields = parse(data)
    order = Order()
    _take_v1(order, fields)
    order.average = order.average or value(fields, "price")
    return order


def take(order: Order, channel: str, fields: Fields) -> None:
    """Merge an item of ``openOrders`` or ``executions`` into ``order``: a complete one, or only changes."""
    if channel == "openOrders":
        _take_v1(order, fields)
        return
    _take(order, fields, _V2)
    order.opened = order.opened or value(fields, "timestamp")  # the event's time: the first event opened the order
    if not order.price and "triggers" in fields:
        trigger = parse(fields["triggers"])
        order.price = value(trigger, "price") + ("%" if value(trigger, "price_type") == "pct" else "")


def read_fill(data: bytes) -> Fill:
    """Read a trade of ``ownTrades`` or REST, whose fields are the same."""
    fields = parse(data)
    return Fill(**{ours: value(fields, theirs) for theirs, ours in _V1_FILL.items()})


def read_execution(data: bytes) -> Fill | None:
    """Read a fill of ``executions``; return None if the item is something else."""
    fields = parse(data)
    if word(value(fields, "exec_type")) != "trade":
        return None
    fee = parse(next(iter(_list(fields.get("fees"))), b""))
    return Fill(
        **{ours: value(fields, theirs) for theirs, ours in _V2_FILL.items()},
        fee=" ".join(filter(None, (value(fee, "qty"), value(fee, "asset")))),
        role={"m": "maker", "t": "taker"}.get(word(value(fields, "liquidity_ind")), ""),
    )


def event_ns(fields: Fields, *, opening: bool) -> int:
    """Return when the item happened by Kraken's clock, in unix nanoseconds; 0 if the item does not say.

    v2's items have the time of the event. A v1 order has the time of its last change or of its end, but only in some
    frames; a complete one has at least the time when it was opened, which counts if the item is the ``opening``.
    """
    names = (*_TIMES, "opentm") if opening else _TIMES
    return next(filter(None, (moment(value(fields, name)) for name in names)), 0)


def moment(text: str) -> int:
    """Return the unix nanoseconds of a time in v1's and REST's seconds or in v2's RFC 3339; 0 if it is not a time."""
    try:
        if "T" in text:
            at = datetime.fromisoformat(text)
            return max(0, (at - (_EPOCH if at.tzinfo else _EPOCH.replace(tzinfo=None))) // _MICROSECOND * 1000)
        seconds = Decimal(text)  # a float would be exact to some hundred nanoseconds only
        return int(seconds * 1_000_000_000) if 0 < seconds < _LAST_S else 0
    except (ValueError, OverflowError, DecimalException):
        return 0


def nonzero(text: str) -> str:
    """Return the text of a number, or the empty text if the number is zero."""
    try:
        return text if Decimal(text) else ""
    except DecimalException:
        return text


def _take_v1(order: Order, fields: Fields) -> None:
    _take(order, fields, _V1)
    if "descr" in fields:
        _take(order, parse(fields["descr"]), _V1_DESCR)
    limit = value(fields, "limitprice")
    if nonzero(limit):  # set for an amended or triggered order, else absent or zero
        order.price = limit


def is_past_trade(fields: Fields) -> bool:
    """Return whether the item is one of the last trades in a v2 snapshot: an old fill, with the order's final state."""
    return word(value(fields, "exec_type")) == "trade" and "cum_qty" not in fields


def _take(order: Order, fields: Fields, names: Mapping[str, str]) -> None:
    for theirs, ours in names.items():
        text = value(fields, theirs)
        if text:
            setattr(order, ours, text)


def parse(data: bytes | msgspec.Raw) -> Fields:
    """Return the members of a JSON object, each as the bytes that were sent. Return none if it is not an object, or is
    nested too deeply.

    Of several members with one name, the last counts. Lone surrogates are accepted.
    """
    try:
        return _fields.decode(data)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return {name: msgspec.Raw(raw) for name, raw in members(bytes(data))}
    except NotJson:
        return {}


def _list(raw: msgspec.Raw | None) -> list[msgspec.Raw]:
    if raw is None:
        return []
    try:
        return _items.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return [msgspec.Raw(element) for element in elements(bytes(raw))]
    except NotJson:
        return []


def value(fields: Fields, name: str) -> str:
    """Return a member as text: the content of a string, the digits of a number, else the empty text."""
    raw = bytes(fields[name]) if name in fields else b""
    if raw.startswith(b'"'):
        try:
            return msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError:
            return _lenient(raw)
    return raw.decode() if raw[:1] in (b"-", *(b"%d" % digit for digit in range(10))) else ""


def _lenient(raw: bytes) -> str:
    """Return a string's content, lone surrogates included."""
    try:
        return str(scalar(raw))
    except NotJson:
        return ""
