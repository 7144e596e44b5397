"""Answer the private REST methods, once the caller is authenticated: permissions, parameters, results."""

from collections.abc import Callable, Mapping

from msgspec import Raw

from ..access.token import LIFETIME_S
from ..market.number import ZERO, fixed
from ..market.order import Order, Trade
from ..market.pair import CURRENCY, TOKENIZED
from ..market.timeline import Timeline
from ..quirks.quirk import Quirks
from ..quirks.shape import JsonObject, integer, table
from .call import Call, RestError
from .history import Rows, closed, collected, opened
from .row import entry_object, order_object, state, trade_object

_HISTORY = ("ClosedOrders", "TradesHistory", "QueryTrades", "Ledgers")
MAX_ORDERS, MAX_TRADES = 50, 20  # txids per query
Result = Mapping[str, object] | Raw


def cost(name: str, quirks: Quirks) -> float:
    """Return the points that a call adds to the key's counter. Kraken's pages disagree about those of history."""
    if name == "ClosedOrders" and quirks.closed_orders_cost is not None:
        return quirks.closed_orders_cost
    return quirks.history_cost if name in _HISTORY else 1.0


def answer(call: Call) -> Result:
    """Return the result of a private method. Raises RestError."""
    return METHODS[call.name](call)


def _token(call: Call) -> Result:
    call.need("create-ws-token")
    return {"token": call.world.issue_token(call.key, call.now), "expires": int(LIFETIME_S)}


def _key_info(call: Call) -> Result:
    """Return the key's settings, as in a recording, or as documented: with other names, and the window as a number."""
    key, limits = call.key, call.key.limits
    camel = call.world.key_info_style == "camel"
    info: JsonObject = {
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
    book = call.book
    return {asset.rest_balance: fixed(book.balances[asset.key], asset.decimals) for asset in book.assets}


def _balance_ex(call: Call) -> Result:
    """Return the balances, and the amounts that open orders hold."""
    call.need("query-funds")
    book = call.book
    held = {asset.key: ZERO for asset in book.assets}
    for order in book.open.values():
        asset = order.pair.quote if order.side == "buy" else order.pair.base
        held[asset.key] += order.remaining * ((order.price or ZERO) if order.side == "buy" else 1)
    return {
        asset.rest_balance: {
            "balance": fixed(book.balances[asset.key], asset.decimals),
            "hold_trade": fixed(held[asset.key], asset.decimals),
        }
        for asset in book.assets
    }


def _open_orders(call: Call) -> Result:
    call.need("query-open-trades")
    orders = [order for order in call.view.open() if _wanted(call, order)]
    return {"open": _orders(call, orders)}


def _closed_orders(call: Call) -> Result:
    call.need("query-closed-trades")
    view, span = call.view, call.span()
    which = call.choice("closetime", "both", ("open", "close", "both"))
    rows = view.ended(span, which)
    if "userref" in call.params or "cl_ord_id" in call.params:
        found = [order for order in rows.timeline.rows[rows.low : rows.high] if _wanted(call, order)]
        rows = collected(Timeline(opened if which == "open" else closed), found)
    shown = call.pager.cut(rows, call.offset(), _ident, closed)
    return {"closed": _orders(call, shown, call.quirks.odd_states), **_count(call, len(rows))}


def _query_orders(call: Call) -> Result:
    found: list[Order] = []
    for txid in call.txids(MAX_ORDERS):
        order = call.view.order(txid)
        if call.refuses(txid) or (order is None and call.quirks.refuse_unknown):
            raise RestError("EOrder:Invalid order")
        if order is None:
            call.check_outside(txid)
            continue
        call.need("query-closed-trades" if order.terminal else "query-open-trades")
        found.append(order)
    return _orders(call, [order for order in found if _wanted(call, order)], call.quirks.odd_query_states)


def _trades_history(call: Call) -> Result:
    call.need("query-closed-trades")
    kinds = ("all", "any position", "closed position", "closing position", "no position")
    spot = call.choice("type", "all", kinds) in ("all", "no position")
    rows = call.view.trades(call.span())
    if not spot:
        rows = Rows(rows.timeline, rows.low, rows.low)
    shown = call.pager.cut(rows, call.offset(), _ident, lambda trade: trade.at)
    return {**_count(call, len(rows)), "trades": _trades(call, shown)}


def _query_trades(call: Call) -> Result:
    call.need("query-closed-trades")
    found = [call.view.trade(txid) for txid in call.txids(MAX_TRADES)]
    if None in found and call.quirks.refuse_unknown:
        raise RestError("ETrade:Invalid request")
    return _trades(call, [trade for trade in found if trade is not None])


def _ledgers(call: Call) -> Result:
    """Return entries of one asset class, by default of currencies."""
    call.need("query-ledger")
    aclass = call.choice("aclass", CURRENCY, (CURRENCY, TOKENIZED))
    rows = call.view.entries(call.span(), aclass)
    shown = call.pager.cut(rows, call.offset(), lambda entry: f"{entry.ref} {entry.asset.key}", lambda entry: entry.at)
    ledger = table(((entry.id, entry_object(entry)) for entry in shown), call.quirks)
    return {"ledger": ledger, **_count(call, len(rows))}


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


def _ident(row: Order | Trade) -> str:
    return row.id


def _wanted(call: Call, order: Order) -> bool:
    userref, client_id = call.params.get("userref"), call.params.get("cl_ord_id")
    if userref is not None and (order.cl_ord_id is not None or str(order.userref) != userref):
        return False
    return client_id is None or order.cl_ord_id == client_id


def _orders(call: Call, orders: list[Order], odd: float = 0.0) -> Raw:
    """Return the orders by id; a share (`odd`) of the ended ones has an odd state."""
    trades = call.flag("trades")
    rows = ((order.id, order_object(order, with_trades=trades, status=state(order, odd))) for order in orders)
    return table(rows, call.quirks)


def _count(call: Call, count: int) -> JsonObject:
    """Return the total over all pages, unless without_count leaves it out."""
    how = call.quirks.count
    if how == "null":
        return {"count": None}
    return {} if how == "asked" and call.flag("without_count") else {"count": integer(count, call.quirks)}


def _trades(call: Call, trades: list[Trade]) -> Raw:
    legs = call.book.legs if call.flag("ledgers") else None
    rows = ((trade.id, trade_object(trade, legs(trade.id) if legs else None)) for trade in trades)
    return table(rows, call.quirks)
