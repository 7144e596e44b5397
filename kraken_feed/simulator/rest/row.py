"""Write orders, trades and ledger entries as REST does.

Sources: https://docs.kraken.com/api/docs/rest-api/get-open-orders , …/get-trade-history , …/get-ledgers
"""

from collections.abc import Sequence
from decimal import Decimal

from ..market.number import VOLUME_PLACES, ZERO, fixed
from ..market.order import Entry, Order, Trade
from ..market.stamp import unix_number
from ..quirks.quirk import draw, share
from ..quirks.shape import JsonObject

_NOTHING = "0.00000"


def _average(order: Order, value: Decimal) -> str:
    return fixed(value, order.pair.price_decimals) if value else _NOTHING


def state(order: Order, odd: float) -> str:
    """Return the order's state. For a share (`odd`) of ended orders it is undocumented, or in another case."""
    if not (order.terminal and share(odd, "odd state", order.id)):
        return order.status
    words = ("rejected", order.status.capitalize(), order.status.upper())
    return words[int(draw("odd state word", order.id) * len(words))]


def order_object(order: Order, *, with_trades: bool, status: str | None = None) -> JsonObject:
    """Return an order as JSON. `price` is the average fill price, `descr.price` the limit, `status` a state to show."""
    pair = order.pair
    price = "0" if order.price is None else fixed(order.price, pair.price_decimals)
    what = f"{order.side} {fixed(order.volume, VOLUME_PLACES)} {pair.altname} @ {order.ordertype}"
    closing: JsonObject = {}
    if order.terminal:
        closing = {"reason": order.reason, "closetm": unix_number(order.closed)}
    return {
        "refid": None,
        "userref": order.userref if order.cl_ord_id is None else None,
        "cl_ord_id": order.cl_ord_id,
        "status": status or order.status,
        **closing,
        "opentm": unix_number(order.opened),
        "starttm": 0,
        "expiretm": unix_number(order.expires),
        "descr": {
            "pair": pair.altname,
            "aclass": "forex",
            "type": order.side,
            "ordertype": order.ordertype,
            "price": price,
            "price2": "0",
            "leverage": "none",
            "order": what if order.price is None else f"{what} {price}",
            "close": "",
        },
        "vol": fixed(order.volume, VOLUME_PLACES),
        "vol_exec": fixed(order.vol_exec, VOLUME_PLACES),
        "cost": fixed(order.cost, pair.wide_decimals),
        "fee": fixed(order.fee, pair.wide_decimals),
        "price": _average(order, order.average),
        "stopprice": _NOTHING,
        "limitprice": _NOTHING,
        "misc": "amended" if order.amended else "",
        "oflags": order.oflags,
        **({"trades": order.trades} if with_trades and order.trades else {}),
    }


def trade_object(trade: Trade, ledgers: Sequence[str] | None = None) -> JsonObject:
    """Return a trade as JSON; the pair has its REST name."""
    order = trade.order
    return {
        "ordertxid": order.id,
        "postxid": trade.position,
        "pair": order.pair.rest,
        "aclass": "forex",
        "time": unix_number(trade.at),
        "type": order.side,
        "ordertype": order.ordertype,
        "price": fixed(trade.price, order.pair.wide_decimals),
        "cost": fixed(trade.cost, order.pair.wide_decimals),
        "fee": fixed(trade.fee, order.pair.wide_decimals),
        "vol": fixed(trade.volume, VOLUME_PLACES),
        "margin": fixed(ZERO, order.pair.wide_decimals),
        "leverage": "0",
        "misc": "",
        "trade_id": trade.number,
        "maker": trade.maker,
        **({} if ledgers is None else {"ledgers": ledgers}),
    }


def entry_object(entry: Entry) -> JsonObject:
    """Return an entry of the account's ledger as JSON."""
    return {
        "refid": entry.ref,
        "time": unix_number(entry.at),
        "type": "trade",
        "subtype": "",
        "aclass": entry.asset.aclass,
        "asset": entry.asset.rest,
        "amount": fixed(entry.amount, entry.asset.decimals),
        "fee": fixed(entry.fee, entry.asset.decimals),
        "balance": fixed(entry.balance, entry.asset.decimals),
    }
