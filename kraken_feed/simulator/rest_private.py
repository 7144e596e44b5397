"""The private REST methods, once the caller is known: permissions, parameters, results."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from kraken_feed.simulator.book import Book
from kraken_feed.simulator.key import ApiKey
from kraken_feed.simulator.number import ZERO, fixed
from kraken_feed.simulator.order import Order, Trade
from kraken_feed.simulator.pair import ASSETS
from kraken_feed.simulator.rest_history import (
    View,
    entry_object,
    order_object,
    page,
    trade_object,
    within,
)
from kraken_feed.simulator.token import LIFETIME_S

if TYPE_CHECKING:
    from kraken_feed.simulator.exchange import Exchange

_HISTORY = ("ClosedOrders", "TradesHistory", "QueryTrades", "Ledgers")
MAX_ORDERS, MAX_TRADES = 50, 20  # txids a query
Result = dict[str, object]


class RestError(Exception):
    """An error of Kraken's: the text is what goes on the wire."""


class Call(Struct, frozen=True):
    """An authenticated request."""

    exchange: "Exchange"
    key: ApiKey
    name: str
    params: Mapping[str, str]
    now: float

    @property
    def view(self) -> View:
        return View(self.book, self.now, self.exchange.rest_lag, self.key.limits)

    @property
    def book(self) -> Book:
        return self.key.account.book

    def need(self, permission: str) -> None:
        if permission not in self.key.permissions:
            raise RestError("EGeneral:Permission denied")

    def flag(self, name: str) -> bool:
        return self.params.get(name, "false").lower() in ("true", "1")

    def offset(self) -> int:
        text = self.params.get("ofs", "0")
        if not (text.isascii() and text.isdigit()):
            raise RestError("EGeneral:Invalid arguments:ofs")
        return int(text)

    def bound(self, view: View, name: str) -> float | None:
        try:
            return view.moment(self.params.get(name) or None)
        except ValueError as exc:
            raise RestError(f"EGeneral:Invalid arguments:{name}") from exc

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.params.get(name, default)
        if value not in choices:
            raise RestError(f"EGeneral:Invalid arguments:{name}")
        return value

    def txids(self, most: int) -> list[str]:
        ids = [ident.strip() for ident in self.params.get("txid", "").split(",") if ident.strip()]
        if not 0 < len(ids) <= most:
            raise RestError("EGeneral:Invalid arguments:txid")
        return ids


def cost(name: str) -> float:
    """What a call adds to the key's counter. ClosedOrders is taken for history, the dearer reading."""
    return 2.0 if name in _HISTORY else 1.0


def answer(call: Call) -> Result:
    """The result of a private method. Raises RestError."""
    return METHODS[call.name](call)


def _token(call: Call) -> Result:
    call.need("create-ws-token")
    return {"token": call.exchange.issue_token(call.key, call.now), "expires": int(LIFETIME_S)}


def _key_info(call: Call) -> Result:
    """In the spelling of a recording, or in that of the documentation, where the window is a number."""
    key, limits = call.key, call.key.limits
    camel = call.exchange.key_info_style == "camel"
    info: Result = {
        "api_key_name": "simulator",
        "api_key": key.key,
        "nonce": str(key.nonce),
        "nonce_window": limits.nonce_window if camel else str(limits.nonce_window),
        "permissions": key.permissions,
        "iban": "",
        "valid_until": str(limits.valid_until),
        "query_from": str(limits.query_from),
        "query_to": str(limits.query_to),
        "created_time": str(int(key.created)),
        "modified_time": str(int(key.created)),
        "ip_allowlist": limits.ip_allowlist,
        "last_used": str(int(key.last_used)),
    }
    return {_camel(name): value for name, value in info.items()} if camel else info


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def _balance(call: Call) -> Result:
    call.need("query-funds")
    balances = call.book.balances
    return {asset.rest: fixed(balances[asset.v2], asset.decimals) for asset in ASSETS}


def _balance_ex(call: Call) -> Result:
    """The balances, and what open orders hold of them."""
    call.need("query-funds")
    book = call.book
    held = {asset.rest: ZERO for asset in ASSETS}
    for order in book.open.values():
        asset = order.pair.quote if order.side == "buy" else order.pair.base
        held[asset.rest] += order.remaining * ((order.price or ZERO) if order.side == "buy" else 1)
    return {
        asset.rest: {
            "balance": fixed(book.balances[asset.v2], asset.decimals),
            "hold_trade": fixed(held[asset.rest], asset.decimals),
        }
        for asset in ASSETS
    }


def _open_orders(call: Call) -> Result:
    call.need("query-open-trades")
    return {"open": _objects(call, _filtered(call, call.view.open()))}


def _closed_orders(call: Call) -> Result:
    call.need("query-closed-trades")
    view = call.view
    start, end = call.bound(view, "start"), call.bound(view, "end")
    which = call.choice("closetime", "both", ("open", "close", "both"))

    def matches(order: Order) -> bool:
        by_open = which != "close" and within(order.opened, start, end)
        return by_open or (which != "open" and within(_closed(order), start, end))

    closed = _filtered(call, [order for order in view.orders() if order.terminal])
    rows = [order for order in closed if matches(order)]
    moment = _opened if which == "open" else _closed
    return {"closed": _objects(call, page(rows, moment, call.offset())), **_count(call, len(rows))}


def _query_orders(call: Call) -> Result:
    found: list[Order] = []
    for txid in call.txids(MAX_ORDERS):
        order = call.view.order(txid)
        if order is None:
            if call.exchange.quirks.refuse_unknown:
                raise RestError("EOrder:Invalid order")
            continue
        call.need("query-closed-trades" if order.terminal else "query-open-trades")
        found.append(order)
    return _objects(call, _filtered(call, found))


def _trades_history(call: Call) -> Result:
    call.need("query-closed-trades")
    view = call.view
    start, end = call.bound(view, "start"), call.bound(view, "end")
    kinds = ("all", "any position", "closed position", "closing position", "no position")
    spot = call.choice("type", "all", kinds) in ("all", "no position")
    rows = [trade for trade in view.trades() if spot and within(trade.at, start, end)]
    shown = page(rows, lambda trade: trade.at, call.offset())
    return {**_count(call, len(rows)), "trades": {trade.id: _trade(call, trade) for trade in shown}}


def _query_trades(call: Call) -> Result:
    call.need("query-closed-trades")
    found = [call.view.trade(txid) for txid in call.txids(MAX_TRADES)]
    if None in found and call.exchange.quirks.refuse_unknown:
        raise RestError("ETrade:Invalid request")
    return {trade.id: _trade(call, trade) for trade in found if trade is not None}


def _ledgers(call: Call) -> Result:
    call.need("query-ledger")
    view = call.view
    start, end = call.bound(view, "start"), call.bound(view, "end")
    rows = [entry for entry in view.entries() if within(entry.at, start, end)]
    shown = page(rows, lambda entry: entry.at, call.offset())
    return {"ledger": {entry.id: entry_object(entry) for entry in shown}, **_count(call, len(rows))}


METHODS: dict[str, Callable[[Call], Result]] = {
    "GetWebSocketsToken": _token,
    "GetApiKeyInfo": _key_info,
    "Balance": _balance,
    "BalanceEx": _balance_ex,
    "OpenOrders": _open_orders,
    "ClosedOrders": _closed_orders,
    "QueryOrders": _query_orders,
    "TradesHistory": _trades_history,
    "QueryTrades": _query_trades,
    "Ledgers": _ledgers,
}


def _opened(order: Order) -> float:
    return order.opened


def _closed(order: Order) -> float:
    return order.closed or order.opened


def _filtered(call: Call, orders: list[Order]) -> list[Order]:
    userref, client_id = call.params.get("userref"), call.params.get("cl_ord_id")
    if userref is not None:
        orders = [order for order in orders if order.cl_ord_id is None and str(order.userref) == userref]
    if client_id is not None:
        orders = [order for order in orders if order.cl_ord_id == client_id]
    return orders


def _objects(call: Call, orders: list[Order]) -> Result:
    return {order.id: order_object(order, with_trades=call.flag("trades")) for order in orders}


def _count(call: Call, count: int) -> Result:
    """The total of all pages; without_count leaves it out."""
    return {} if call.flag("without_count") else {"count": count}


def _trade(call: Call, trade: Trade) -> Result:
    if not call.flag("ledgers"):
        return trade_object(trade)
    entries = call.book.entries.values()
    return trade_object(trade, [entry.id for entry in entries if entry.ref == trade.id])
