"""Write the v2 feeds: executions and balances, JSON numbers that keep their zeros, RFC 3339 times."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import islice

import msgspec
from msgspec import Raw

from ..market.book import Book
from ..market.ledger import FrameKind, Item
from ..market.number import SNAPSHOT_PLACES, VOLUME_PLACES, ZERO, number
from ..market.order import Change, Entry, Order, Trade
from ..market.pair import Asset
from ..market.stamp import rfc3339
from ..quirks.quirk import Quirks
from ..quirks.shape import dress
from .dialect import SNAPSHOT_TRADES
from .subscription import Options

_USER = "AA00 N84G AAAA AAAA"
_TRANSITIONS = {"open": "new", "closed": "filled", "canceled": "canceled", "expired": "expired"}
Event = dict[str, object]


def frame(channel: str, kind: FrameKind, sequence: bytes, payload: bytes) -> bytes:
    """Return `{"channel": …, "type": …, "data": [item, …], "sequence": n}`."""
    return b'{"channel":"%b","type":"%b","data":%b,"sequence":%b}' % (
        channel.encode(),
        kind.encode(),
        payload,
        sequence,
    )


def notice(channel: str, sequence: bytes) -> bytes:
    """Return a frame with a type that is neither snapshot nor update."""
    data = b'[{"text":"something new"}]'
    return b'{"channel":"%b","type":"notice","data":%b,"sequence":%b}' % (channel.encode(), data, sequence)


def bare_end(channel: str, change: Change) -> list[Item]:
    """Return the end of an order without volumes, costs and references."""
    if channel != "executions":
        return []
    state = _TRANSITIONS[change.kind]
    event: Event = {"timestamp": rfc3339(change.at), "order_status": state, "exec_type": state}
    return [_item({**event, "order_id": change.order.id}, change.order.id)]


def dressed(item: Item, quirks: Quirks) -> Item:
    """Return the item with additions to the object."""
    return Item(item.ids, dress(item.data, item.ids[-1], quirks))


def snapshot(channel: str, book: Book, options: Options) -> list[Item] | None:
    """Return balances by asset, or open orders and, if asked for, the newest trades."""
    if options.all_users:
        return None
    if channel == "balances":
        return [_balance(asset, book.balances[asset.key]) for asset in book.assets] if options.snapshot else None
    if not (options.snap_orders or options.snap_trades):
        return None
    items: list[Item] = []
    if options.snap_orders:
        items += [_item(_full(order), order.id) for order in book.open.values()]
    if options.snap_trades:
        newest = islice(reversed(book.trades.values()), SNAPSHOT_TRADES)
        items += [_past_trade(book, trade) for trade in newest]
    return items


def updates(channel: str, changes: Sequence[Change], options: Options) -> list[Item]:
    """Return the items of a frame for the changes; none if they do not concern the channel."""
    user: Event = {"user": _USER} if options.all_users else {}
    if channel == "balances":
        return [_item({**_entry(entry), **user}, entry.id) for change in changes for entry in change.entries]
    return [item for change in changes for item in _executions(change, options, user)]


def _item(event: Event, *ids: str) -> Item:
    return Item(ids, msgspec.json.encode(event))


def _executions(change: Change, options: Options, user: Event) -> Iterator[Item]:
    if not options.order_status and change.kind not in _TRANSITIONS:
        return
    count: Event = {"ratecount": change.ratecount} if options.ratecounter else {}
    ids = (change.order.id,) if change.trade is None else (change.order.id, change.trade.id)
    yield _item({**_event(change), **count, **user}, *ids)


def _event(change: Change) -> Event:
    order = change.order
    if change.kind == "pending":
        return _pending(order)
    if change.trade is not None:
        return _trade(change.trade, "partially_filled", totals=True)
    if change.kind == "amended":
        return _amended(change)
    state = _TRANSITIONS[change.kind]
    event: Event = {"timestamp": rfc3339(change.at), "order_status": state, "exec_type": state}
    if change.kind != "open":
        event.update(_totals(order), fee_usd_equiv=_money(order, order.fee_usd))
        event["avg_price"] = _price(order, order.average)
    event.update(_reference(order))
    if order.amended and order.terminal:
        event["amended"] = True
    if order.post_only and change.kind != "closed":
        event["post_only"] = True
    if change.kind == "canceled":
        event.update(cancel_reason=order.reason, reason=order.reason)
    event["order_id"] = order.id
    return event


def _amended(change: Change) -> Event:
    order = change.order
    return {
        "timestamp": rfc3339(change.at),
        "exec_type": "amended",
        "order_status": _state(order),
        "cum_qty": number(order.vol_exec, VOLUME_PLACES),
        "reason": "User requested",
        "amended": True,
        "order_qty": number(order.volume, VOLUME_PLACES),
        **_limit(order, price_first=True),
        **_reference(order),
        "order_id": order.id,
    }


def _state(order: Order) -> str:
    if order.status == "pending":
        return "pending_new"
    if order.status == "closed":
        return "filled"
    if order.terminal:
        return order.status
    return "partially_filled" if order.vol_exec else "new"


def _reference(order: Order) -> Event:
    return {"order_userref": order.userref} if order.cl_ord_id is None else {"cl_ord_id": order.cl_ord_id}


def _price(order: Order, value: Decimal) -> Raw:
    return number(value, order.pair.price_decimals)


def _money(order: Order, value: Decimal) -> Raw:
    return number(value, order.pair.wide_decimals)


def _summed(order: Order, value: Decimal) -> Raw:
    """Return a sum as snapshots print it: with more decimals than updates, unless it is zero."""
    return number(value, SNAPSHOT_PLACES) if value else _money(order, value)


def _limit(order: Order, *, price_first: bool = False) -> Event:
    if order.price is None:
        return {}
    kind, price = ("limit_price_type", "static"), ("limit_price", _price(order, order.price))
    return dict((price, kind) if price_first else (kind, price))


def _totals(order: Order) -> Event:
    return {"cum_qty": number(order.vol_exec, VOLUME_PLACES), "cum_cost": _money(order, order.cost)}


def _head(order: Order) -> Event:
    return {
        "order_id": order.id,
        "symbol": order.pair.v2,
        "order_qty": number(order.volume, VOLUME_PLACES),
        "cum_cost": _summed(order, order.cost),
    }


def _tail(order: Order, exec_type: str) -> Event:
    return {
        "time_in_force": order.time_in_force,
        **({} if order.expires is None else {"expire_time": rfc3339(order.expires)}),
        "exec_type": exec_type,
        "side": order.side,
        "order_type": order.ordertype,
        **_reference(order),
        **_limit(order),
        "stop_price": _price(order, ZERO),
        **({"post_only": True} if order.post_only else {}),
        "order_status": _state(order),
        "fee_usd_equiv": _summed(order, order.fee_usd),
        "fee_ccy_pref": "fciq",
        **({"amended": True} if order.amended else {}),
        "timestamp": rfc3339(order.opened),
    }


def _pending(order: Order) -> Event:
    """Return a new order: with its cost, but without executed volume and average price."""
    return {**_head(order), **_tail(order, "pending_new")}


def _full(order: Order) -> Event:
    """Return an open order as in a snapshot."""
    return {
        **_head(order),
        "cum_qty": number(order.vol_exec, VOLUME_PLACES),
        "avg_price": _price(order, order.average),
        **_tail(order, "pending_new" if order.status == "pending" else "new"),
    }


def _past_trade(book: Book, trade: Trade) -> Item:
    """Return a trade as in a snapshot: without totals, and with its order's present state."""
    event = _trade(trade, _state(book.order(trade.order.id)), totals=False)
    return _item(event, trade.order.id, trade.id)


def _trade(trade: Trade, state: str, *, totals: bool) -> Event:
    """Return one execution; the one that completes the order still says `partially_filled`."""
    order = trade.order
    event: Event = {
        "order_id": order.id,
        **_reference(order),
        "exec_id": trade.id,
        "exec_type": "trade",
        "trade_id": trade.number,
        "symbol": order.pair.v2,
        "side": order.side,
        "last_qty": number(trade.volume, VOLUME_PLACES),
        "last_price": number(trade.price, order.pair.price_decimals),
        "liquidity_ind": "m" if trade.maker else "t",
        "cost": _money(order, trade.cost),
    }
    kind: Event = {"order_type": order.ordertype, "timestamp": rfc3339(trade.at)}
    if totals:
        event.update(kind, order_status=state, **_totals(order))
        event["avg_price"] = _price(order, order.average)
    else:
        event.update(order_status=state, **kind)
    event["fee_usd_equiv"] = _money(order, trade.fee_usd)
    event["fees"] = [{"asset": order.pair.quote.v2, "qty": _money(order, trade.fee)}]
    return event


def _balance(asset: Asset, amount: Decimal) -> Item:
    balance = number(amount, asset.decimals)
    wallet = {"type": "spot", "id": "main", "balance": balance}
    event: Event = {"asset": asset.v2, "asset_class": asset.aclass, "balance": balance, "wallets": [wallet]}
    return _item(event, asset.v2)


def _entry(entry: Entry) -> Event:
    return {
        "ledger_id": entry.id,
        "ref_id": entry.ref,
        "timestamp": rfc3339(entry.at),
        "type": "trade",
        "asset": entry.asset.v2,
        "asset_class": entry.asset.aclass,
        "category": "trade",
        "wallet_type": "spot",
        "wallet_id": "main",
        "amount": number(entry.amount, entry.asset.decimals),
        "fee": number(entry.fee, entry.asset.decimals),
        "balance": number(entry.balance, entry.asset.decimals),
    }
