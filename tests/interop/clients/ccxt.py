"""ccxt: its kraken on v2 (watch_orders, watch_my_trades, watch_balance), with a token it signs for itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro  # type: ignore[import-not-found]  # not beside us

from tests.interop.clients.report import Ready, Report

DEADLINE_S = 40.0
DELIVERIES = 5  # of each watch
STATUSES = {"open", "closed", "canceled", "expired", "rejected"}


def exchange_at(ready: Ready) -> Any:
    """The exchange, pointed at the simulator, without its markets: those are public and not served."""
    exchange = ccxt.pro.kraken({"apiKey": ready.key, "secret": ready.secret, "newUpdates": True})
    api = exchange.urls["api"]
    api["public"] = api["private"] = ready.rest
    api["ws"]["private"] = ready.ws_v1
    api["ws"]["privateV2"] = ready.ws_v2

    async def no_markets(*_arguments: object, **_options: object) -> dict[str, Any]:
        return {}

    exchange.load_markets = no_markets
    return exchange


async def watch(report: Report, name: str, call: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What several rounds of one watch delivered. An error acknowledgement raises in it."""
    delivered = []
    for _ in range(DELIVERIES):
        delivered.append(await call())
        report.received[name] += 1
    return delivered


async def feed(exchange: Any, report: Report) -> None:
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        # trades first: both watches share a subscription, and only this one asks for trades in the snapshot
        trades = group.create_task(watch(report, "watch_my_trades", exchange.watch_my_trades))
        orders = group.create_task(watch(report, "watch_orders", exchange.watch_orders))
        balance = group.create_task(watch(report, "watch_balance", exchange.watch_balance))
    for trade in (trade for delivery in trades.result() for trade in delivery):
        whole = trade["id"] and trade["order"] and trade["symbol"] and trade["price"] > 0 and trade["amount"] > 0
        report.expect(whole and trade["side"] in {"buy", "sell"} and trade["timestamp"], f"trade: {trade['info']}")
        report.received["trades"] += 1
    for order in (order for delivery in orders.result() for order in delivery):
        report.expect(order["id"] and order["status"] in STATUSES, f"order: {order['status']} of {order['info']}")
        report.received["orders"] += 1
    total = balance.result()[-1]["total"]
    report.expect(total and all(amount is not None for amount in total.values()), f"balance: {total}")
    report.seen["assets"] = sorted(total)


async def main() -> int:
    ready, report = Ready.from_argv(), Report("ccxt")
    exchange = exchange_at(ready)
    try:
        await feed(exchange, report)
    except* Exception as errors:  # noqa: BLE001  # whatever the client raises is its verdict
        report.errors += [f"{type(error).__name__}: {error}" for error in errors.exceptions]
    finally:
        await exchange.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
