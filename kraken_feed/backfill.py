"""What to ask REST after a hole: the orders that ended in it, the fills, the ledger's entries.

Recipe: known-open orders that the new snapshot lacks are queried by id; orders that opened and ended in the hole come
from ClosedOrders by their closing time, fills from TradesHistory, balance changes from Ledgers. Pages are fifty rows,
newest first; the end is pinned, or new rows would shift them; the start is put before the hole by an overlap, since
clocks and REST's lag blur it. Rows that are known are recognised by their ids.

Sources: https://docs.kraken.com/api/docs/rest-api/get-closed-orders , …/get-trade-history , …/get-orders-info ,
…/get-ledgers
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from . import key_info
from .orders import END
from .spot_v1 import TERMINAL
from .wire import Item, one_line

PAGE = 50
QUERY = 50  # ids that QueryOrders takes at a time
RESERVE = 3.0  # points of the call counter that a backfill leaves to the tokens of reconnects


class Window(NamedTuple):
    """Unix seconds: from (exclusive) to (inclusive)."""

    start: int
    end: int


class Caller(Protocol):
    """What makes the calls; :class:`rest.Rest` does."""

    async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
        """The result of a private method."""


class _Order(msgspec.Struct):
    status: Any = None


class _Trade(msgspec.Struct):
    ordertxid: Any = None


_rows: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_order = msgspec.json.Decoder(_Order)
_trade = msgspec.json.Decoder(_Trade)


async def outside_of_key(rest: Caller, window: Window) -> str | None:
    """What of the window the key may not see, in words; None if it may see all of it.

    A key can be limited to a span of time; outside of it REST answers with nothing, and without an error.
    Source: https://docs.kraken.com/api/docs/rest-api/get-api-key-info
    """
    info = key_info.read(await rest.call("GetApiKeyInfo", cost=1.0, reserve=RESERVE))
    if info.query_from > window.start:
        return f"the API key may only query from unix time {info.query_from} on"
    if 0 < info.query_to < window.end:
        return f"the API key may only query up to unix time {info.query_to}"
    return None


async def named_orders(rest: Caller, order_ids: Iterable[str]) -> AsyncIterator[Item]:
    """The orders of these ids as they are now; ids that REST does not know are left out."""
    ids = sorted(order_ids)
    for start in range(0, len(ids), QUERY):
        some = ",".join(ids[start : start + QUERY])
        result = await rest.call("QueryOrders", cost=1.0, reserve=RESERVE, txid=some, consolidate_taker="true")
        for order_id, raw in _rows.decode(one_line(bytes(result))).items():
            yield _order_item(order_id, raw)


async def ended_orders(rest: Caller, window: Window) -> AsyncIterator[Item]:
    """The orders that ended in the window."""
    async for order_id, raw in _pages(rest, "ClosedOrders", "closed", window, closetime="close"):
        yield _order_item(order_id, raw)


async def fills(rest: Caller, window: Window) -> AsyncIterator[Item]:
    """The fills in the window, consolidated as the feed's are."""
    async for trade_id, raw in _pages(rest, "TradesHistory", "trades", window, consolidate_taker="true"):
        order_id = _trade.decode(raw).ordertxid
        yield Item(bytes(raw), order_id if isinstance(order_id, str) else None, trade_id, trade_id)


async def ledger_entries(rest: Caller, window: Window) -> AsyncIterator[Item]:
    """The ledger's entries in the window."""
    async for ledger_id, raw in _pages(rest, "Ledgers", "ledger", window):
        yield Item(bytes(raw), None, None, ledger_id)


def _order_item(order_id: str, raw: msgspec.Raw) -> Item:
    end = f"{order_id}{END}" if _order.decode(raw).status in TERMINAL else None
    return Item(bytes(raw), order_id, None, end)


async def _pages(
    rest: Caller, method: str, key: str, window: Window, **parameters: str
) -> AsyncIterator[tuple[str, msgspec.Raw]]:
    """All rows of a history method, the oldest of a page first."""
    offset = 0
    while True:
        result = await rest.call(
            method, cost=2.0, reserve=RESERVE, start=str(window.start), end=str(window.end), ofs=str(offset),
            without_count="true", **parameters,
        )  # fmt: skip
        envelope = _rows.decode(one_line(bytes(result)))
        rows = _rows.decode(envelope[key]) if key in envelope else {}
        for row in reversed(rows.items()):
            yield row
        if len(rows) < PAGE:
            return
        offset += len(rows)


def total(windows: Sequence[Window]) -> Window:
    """The window that holds all of these."""
    return Window(min(window.start for window in windows), max(window.end for window in windows))
