"""Write the v1 feeds: openOrders and ownTrades, all strings, with updates that carry only what changed."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import islice

import msgspec

from ..market.book import Book
from ..market.ledger import FrameKind, Item
from ..market.number import VOLUME_PLACES, ZERO, fixed
from ..market.order import Change, Order, Trade
from ..market.stamp import unix_text
from ..quirks.quirk import Quirks
from ..quirks.shape import JsonObject, dress
from .dialect import SNAPSHOT_TRADES
from .subscription import Options


def frame(channel: str, kind: FrameKind, sequence: bytes, payload: bytes) -> bytes:
    """Return `[[item, …], "channel", {"sequence": n}]`; v1 does not say whether it is a snapshot."""
    return b'[%b,"%b",{"sequence":%b}]' % (payload, channel.encode(), sequence)


def notice(channel: str, sequence: bytes) -> bytes:
    """Return a frame with an object in place of the items."""
    return frame(channel, "update", sequence, b'{"notice":"something new"}')


def bare_end(channel: str, change: Change) -> list[Item]:
    """Return `{"status": …}` twice, as in the "status only" sample of the documents."""
    return [_item(change.order.id, {"status": change.order.status})] * 2 if channel == "openOrders" else []


def dressed(item: Item, quirks: Quirks) -> Item:
    """Return the item with additions to the object under the id."""
    head = len(item.ids[0]) + 4
    value = dress(item.data[head:-1], item.ids[0], quirks)
    return Item(item.ids, item.data[:head] + value + b"}")


def snapshot(channel: str, book: Book, options: Options) -> list[Item] | None:
    """Return all open orders, or the newest trades, newest first."""
    if channel == "openOrders":
        return [_item(order.id, full(order)) for order in book.open.values()]
    if not options.snapshot:
        return None
    newest = islice(reversed(book.trades.values()), SNAPSHOT_TRADES)
    return [_item(trade.id, _trade(trade)) for trade in newest]


def updates(channel: str, changes: Sequence[Change], options: Options) -> list[Item]:
    """Return the items of a frame for the changes; none if they do not concern the channel."""
    if channel == "openOrders":
        return [_item(change.order.id, _delta(change, options)) for change in changes]
    trades = [change.trade for change in changes if change.trade is not None]
    return [_item(trade.id, _trade(trade, update=True)) for trade in trades]


def _item(ident: str, value: JsonObject) -> Item:
    return Item((ident,), msgspec.json.encode({ident: value}))


def _delta(change: Change, options: Options) -> JsonObject:
    order = change.order
    count = {"ratecount": change.ratecount} if options.ratecounter else {}
    if change.kind == "pending":
        return {**full(order), **count}
    body: JsonObject
    if change.kind == "open":
        body = {"status": "open"}
    elif change.kind == "fill":
        body = _totals(order)
    elif change.kind == "amended":
        body = _amended(order)
    else:
        body = {"lastupdated": unix_text(change.at), "status": order.status, **_totals(order)}
    reason = {"cancel_reason": order.reason} if change.kind == "canceled" else {}
    return {**body, **_reference(order), **count, **reason}


def _amended(order: Order) -> JsonObject:
    body: JsonObject = {"amended": True, "amend_reason": "User requested"}
    body["vol"] = fixed(order.volume, VOLUME_PLACES)
    if order.price is not None:
        body["limitprice"] = _money(order, order.price)
        body["descr"] = _description(order)
    return body


def _reference(order: Order) -> JsonObject:
    return {"userref": order.userref} if order.cl_ord_id is None else {"cl_ord_id": order.cl_ord_id}


def _totals(order: Order) -> JsonObject:
    """Return the totals so far, not increments."""
    return {
        "vol_exec": fixed(order.vol_exec, VOLUME_PLACES),
        "cost": _money(order, order.cost),
        "fee": _money(order, order.fee),
        "avg_price": _money(order, order.average),
    }


def _money(order: Order, value: Decimal) -> str:
    """Return an amount with the pair's decimals, zeros included."""
    return fixed(value, order.pair.wide_decimals)


def _description(order: Order) -> JsonObject:
    price = _money(order, order.price or ZERO)
    what = f"{order.side} {fixed(order.volume, VOLUME_PLACES)} {order.pair.v1} @ {order.ordertype}"
    return {
        "close": None,
        "leverage": None,
        "order": what if order.price is None else f"{what} {price}",
        "ordertype": order.ordertype,
        "pair": order.pair.v1,
        "price": price,
        "price2": _money(order, ZERO),
        "type": order.side,
    }


def full(order: Order) -> JsonObject:
    """Return the complete order, as in a snapshot and when it is new."""
    return {
        "avg_price": _money(order, order.average),
        "cost": _money(order, order.cost),
        "descr": _description(order),
        **({} if order.cl_ord_id is None else {"cl_ord_id": order.cl_ord_id}),
        "expiretm": None if order.expires is None else unix_text(order.expires),
        "fee": _money(order, order.fee),
        "limitprice": _money(order, ZERO),
        "misc": "amended" if order.amended else "",
        "oflags": order.oflags,
        "opentm": unix_text(order.opened),
        "refid": None,
        "starttm": None,
        "status": order.status,
        "stopprice": _money(order, ZERO),
        "timeinforce": order.time_in_force,
        "userref": order.userref,
        "vol": fixed(order.volume, VOLUME_PLACES),
        "vol_exec": fixed(order.vol_exec, VOLUME_PLACES),
    }


def _trade(trade: Trade, *, update: bool = False) -> JsonObject:
    """Return one execution; only updates carry the client's reference."""
    order = trade.order
    with_client_id = update and order.cl_ord_id is not None
    with_userref = update and order.cl_ord_id is None
    return {
        **({"cl_ord_id": order.cl_ord_id} if with_client_id else {}),
        "cost": _money(order, trade.cost),
        "fee": _money(order, trade.fee),
        "margin": _money(order, ZERO),
        "ordertxid": order.id,
        "ordertype": order.ordertype,
        "pair": order.pair.v1,
        "postxid": trade.position,
        "price": _money(order, trade.price),
        "time": unix_text(trade.at),
        "type": order.side,
        **({"userref": order.userref} if with_userref else {}),
        "vol": fixed(trade.volume, VOLUME_PLACES),
    }
