"""Kraken's history as a test wants it: rows that become visible late, short pages, refusals."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from kraken_feed.errors import FeedError

T0 = 1_760_000_000  # Kraken's unix time when the loop starts
NS = 1_000_000_000

TIMES = {"ClosedOrders": "closetm", "TradesHistory": "time", "Ledgers": "time"}
KEYS = {"ClosedOrders": "closed", "TradesHistory": "trades", "Ledgers": "ledger"}


def order(status: str = "closed", at: float = 0.0, **members: Any) -> dict[str, Any]:
    """Return an order as REST shows it; ``at`` is in seconds after T0."""
    return {"status": status, "opentm": T0 - 1000, "closetm": T0 + at, "vol": "1.0", "vol_exec": "0.0", **members}


def trade(order_id: str, at: float, vol: str = "1.0", **members: Any) -> dict[str, Any]:
    """Return a fill as REST shows it."""
    return {"ordertxid": order_id, "time": T0 + at, "vol": vol, **members}


class Answers:
    """What makes the calls: a :class:`kraken_feed.feed.backfill.Caller` that answers by itself.

    ``lag`` is in seconds, for all methods or by method; ``page`` rows are on a page; ``pace`` seconds pass after each
    call, as on a small call counter.
    """

    def __init__(self, lag: float = 0.0, page: int = 50, pace: float = 0.0) -> None:
        self.pace = pace
        self.orders: dict[str, dict[str, Any]] = {}  # what QueryOrders says
        self.rows: dict[str, dict[str, dict[str, Any]]] = {method: {} for method in TIMES}
        self.lag: dict[str, float] = defaultdict(lambda: lag)
        self.page = page
        self.span = {"query_from": "0", "query_to": "0"}
        self.calls: list[tuple[float, str, dict[str, str]]] = []
        self.fails: Callable[[str, dict[str, str]], FeedError | None] = lambda method, parameters: None
        self.changes: Callable[[str, dict[str, Any]], Any] = lambda method, result: result

    async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
        """Answer one call."""
        now = asyncio.get_running_loop().time()
        self.calls.append((now, method, parameters))
        await asyncio.sleep(0)
        error = self.fails(method, parameters)
        if error is not None:
            raise error
        result = self.changes(method, self._result(method, parameters, now))
        await asyncio.sleep(self.pace)
        return msgspec.Raw(result if isinstance(result, bytes) else json.dumps(result).encode())

    def asked(self, method: str) -> list[dict[str, str]]:
        """Return the parameters of every call of a method."""
        return [parameters for _, name, parameters in self.calls if name == method]

    def _result(self, method: str, parameters: dict[str, str], now: float) -> dict[str, Any]:
        if method == "GetApiKeyInfo":
            return {"permissions": [], **self.span}
        if method == "QueryOrders":
            ids = parameters["txid"].split(",")
            return {name: self.orders[name] for name in ids if name in self.orders}
        until = T0 + now - self.lag[method]
        start, end = float(parameters["start"]), float(parameters.get("end", "inf"))
        time = TIMES[method]
        rows = [
            (name, row) for name, row in self.rows[method].items() if start < row[time] <= end and row[time] <= until
        ]
        rows.sort(key=lambda one: one[1][time], reverse=True)
        offset = int(parameters["ofs"])
        return {KEYS[method]: dict(rows[offset : offset + self.page]), "count": len(rows)}
