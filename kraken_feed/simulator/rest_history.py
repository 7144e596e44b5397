"""Orders and trades as REST shows them: objects, bounds, pages.

Sources: https://docs.kraken.com/api/docs/rest-api/get-open-orders , …/get-closed-orders , …/get-trade-history
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TypeVar

from kraken_feed.simulator.book import Book
from kraken_feed.simulator.key import NO_LIMITS, Limits
from kraken_feed.simulator.number import VOLUME_PLACES, ZERO, fixed
from kraken_feed.simulator.order import Entry, Order, Trade
from kraken_feed.simulator.stamp import unix_number

PAGE = 50
_NOTHING = "0.00000"
Row = TypeVar("Row")


class View:
    """The book as REST knows it: fills and terminal states come `lag` seconds late.

    What lies outside the span that the key is limited to is left out without a word: trades, entries, and orders by
    their end. Open orders are no history.
    """

    def __init__(self, book: Book, now: float, lag: float, limits: Limits = NO_LIMITS) -> None:
        self._book = book
        self._limits = limits
        self._until = now - lag if lag else float("inf")

    def order(self, order_id: str) -> Order | None:
        """The order's state, if the key may see it."""
        order = self._state(order_id)
        seen = order is None or order.closed is None or self._limits.shows(order.closed)
        return order if seen else None

    def _state(self, order_id: str) -> Order | None:
        """The state; one that is younger than the lag is shown as it came onto the book."""
        states = self._book.states.get(order_id)
        if states is None:
            return None
        known = [order for at, order in states if at <= self._until]
        if known and known[-1].status != "pending":
            return known[-1]
        fresh = [order for _, order in states if order.status in ("pending", "open") and not order.vol_exec]
        return fresh[-1]

    def orders(self) -> list[Order]:
        return [order for order_id in self._book.states if (order := self.order(order_id)) is not None]

    def open(self) -> list[Order]:
        return [order for order in self.orders() if not order.terminal]

    def trades(self) -> list[Trade]:
        return [trade for trade in self._book.trades.values() if self._known(trade.at)]

    def trade(self, trade_id: str) -> Trade | None:
        trade = self._book.trades.get(trade_id)
        return trade if trade is not None and self._known(trade.at) else None

    def entries(self) -> list[Entry]:
        return [entry for entry in self._book.entries.values() if self._known(entry.at)]

    def _known(self, at: float) -> bool:
        return at <= self._until and self._limits.shows(at)

    def moment(self, bound: str | None) -> float | None:
        """A bound as unix seconds: a number, or the opening time of an order, or the time of a trade.

        Raises ValueError for anything else.
        """
        if bound is None:
            return None
        if bound in self._book.states:
            return self._book.order(bound).opened
        if bound in self._book.trades:
            return self._book.trades[bound].at
        if bound in self._book.entries:
            return self._book.entries[bound].at
        return float(bound)


def within(moment: float, start: float | None, end: float | None) -> bool:
    """`start` is exclusive, `end` inclusive."""
    return (start is None or moment > start) and (end is None or moment <= end)


def page(rows: Iterable[Row], moment: Callable[[Row], float], offset: int) -> list[Row]:
    """Fifty rows, newest first."""
    ordered = sorted(rows, key=moment, reverse=True)
    return ordered[offset : offset + PAGE]


def _average(order: Order, value: Decimal) -> str:
    return fixed(value, order.pair.price_decimals) if value else _NOTHING


def order_object(order: Order, *, with_trades: bool) -> dict[str, object]:
    """An order; `price` is the average fill price, `descr.price` the limit."""
    pair = order.pair
    price = "0" if order.price is None else fixed(order.price, pair.price_decimals)
    what = f"{order.side} {fixed(order.volume, VOLUME_PLACES)} {pair.altname} @ {order.ordertype}"
    closing: dict[str, object] = {}
    if order.terminal:
        closing = {"reason": order.reason, "closetm": unix_number(order.closed)}
    return {
        "refid": None,
        "userref": order.userref if order.cl_ord_id is None else None,
        "cl_ord_id": order.cl_ord_id,
        "status": order.status,
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


def trade_object(trade: Trade, ledgers: list[str] | None = None) -> dict[str, object]:
    """A trade; the pair has its REST name."""
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


def entry_object(entry: Entry) -> dict[str, object]:
    """A line of the account's ledger."""
    return {
        "refid": entry.ref,
        "time": unix_number(entry.at),
        "type": "trade",
        "subtype": "",
        "aclass": "currency",
        "asset": entry.asset.rest,
        "amount": fixed(entry.amount, entry.asset.decimals),
        "fee": fixed(entry.fee, entry.asset.decimals),
        "balance": fixed(entry.balance, entry.asset.decimals),
    }
