"""What is known of the open orders, from snapshots and the changes since: enough to read a change that stands alone.

Updates carry only what changed: v1's have no pair and no side, v2's often no symbol. Values stay the text that Kraken
sent, digits and trailing zeros included.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

Fields = dict[str, msgspec.Raw]

_fields: msgspec.json.Decoder[Fields] = msgspec.json.Decoder(Fields)


class Order(msgspec.Struct):
    """One order as far as it is known; an empty text is not known. ``filled`` is cumulative."""

    pair: str = ""
    side: str = ""
    kind: str = ""
    price: str = ""
    volume: str = ""
    filled: str = ""
    status: str = ""


# Where each dialect keeps what an Order holds. v1's `descr.price` is the limit; `price` would be the average.
_V1 = {"vol": "volume", "vol_exec": "filled", "status": "status"}
_V1_DESCR = {"pair": "pair", "type": "side", "ordertype": "kind", "price": "price"}
_V2 = {
    "symbol": "pair",
    "side": "side",
    "order_type": "kind",
    "limit_price": "price",
    "order_qty": "volume",
    "cum_qty": "filled",
    "order_status": "status",
}
_ENDED = ("closed", "canceled", "expired", "filled")


class Orders:
    """The open orders of one account, by channel and id."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], Order] = {}

    def __len__(self) -> int:
        return len(self._known)

    def apply(self, channel: str, order_id: str, data: bytes) -> Order:
        """Take in an item of ``openOrders`` or ``executions``, and return the order as it is now.

        An order that has ended is forgotten. Values of an unexpected type are passed over.
        """
        key, fields = (channel, order_id), parse(data)
        if _is_past_trade(fields):
            return self._known.get(key, Order())
        order = self._known.setdefault(key, Order())
        if channel == "openOrders":
            _take_v1(order, fields)
        else:
            _take(order, fields, _V2)
        if order.status in _ENDED:
            del self._known[key]
        return order

    def clear(self, channel: str) -> None:
        """Forget a channel's orders: its next snapshot says anew which are open."""
        for key in [key for key in self._known if key[0] == channel]:
            del self._known[key]


def read_order(data: bytes) -> Order:
    """An order of REST, whose fields are v1's."""
    order = Order()
    _take_v1(order, parse(data))
    return order


def _take_v1(order: Order, fields: Fields) -> None:
    _take(order, fields, _V1)
    if "descr" in fields:
        _take(order, parse(fields["descr"]), _V1_DESCR)


def _is_past_trade(fields: Fields) -> bool:
    """Whether this is one of the last trades in a v2 snapshot: old news, with the order's final state on it."""
    return value(fields, "exec_type") == "trade" and "cum_qty" not in fields


def _take(order: Order, fields: Fields, names: Mapping[str, str]) -> None:
    for theirs, ours in names.items():
        text = value(fields, theirs)
        if text:
            setattr(order, ours, text)


def parse(data: bytes | msgspec.Raw) -> Fields:
    """The members of a JSON object, each still the bytes that were sent; none if it is no object."""
    try:
        return _fields.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return {}


def value(fields: Fields, name: str) -> str:
    """A member as text: a string's content, a number's digits as they stand, else the empty text."""
    raw = bytes(fields[name]) if name in fields else b""
    if raw.startswith(b'"'):
        try:
            return msgspec.json.decode(raw, type=str)
        except msgspec.DecodeError:
            return ""
    return raw.decode() if raw[:1] in (b"-", *(b"%d" % digit for digit in range(10))) else ""
