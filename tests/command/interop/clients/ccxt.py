"""ccxt: its kraken, from the markets over the signed REST calls to orders, trades and balances on v2."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import ccxt.pro  # type: ignore[import-not-found]  # not beside us

from tests.command.interop.clients.report import Ready, Report
from tests.support.timeouts import scaled

DEADLINE_S = scaled(40.0)
DELIVERIES = 5  # of each watch
STATUSES = {"open", "closed", "canceled", "expired", "rejected"}


def exchange_at(ready: Ready) -> Any:
    """The exchange, pointed at the simulator. Its own limiter would only slow this down."""
    options = {"apiKey": ready.key, "secret": ready.secret, "newUpdates": True, "enableRateLimit": False}
    exchange = ccxt.pro.kraken(options)
    api = exchange.urls["api"]
    api["public"] = api["private"] = ready.rest
    api["ws"]["private"] = ready.ws_v1
    api["ws"]["privateV2"] = ready.ws_v2
    return exchange


def check_orders(report: Report, orders: list[dict[str, Any]]) -> None:
    for order in orders:
        report.expect(order["id"] and order["status"] in STATUSES, f"order: {order['status']} of {order['info']}")
        report.received["orders"] += 1


def check_trades(report: Report, symbols: set[str], trades: list[dict[str, Any]]) -> None:
    for trade in trades:
        whole = trade["id"] and trade["order"] and trade["price"] > 0 and trade["amount"] > 0 and trade["timestamp"]
        known = trade["symbol"] in symbols and trade["side"] in {"buy", "sell"}
        report.expect(whole and known, f"trade: {trade['info']}")
        report.received["trades"] += 1


def check_balance(report: Report, balance: dict[str, Any]) -> None:
    total = balance["total"]
    report.expect(total and all(amount is not None for amount in total.values()), f"balance: {total}")
    report.seen["assets"] = sorted(total)
    report.received["balances"] += 1


async def rest(exchange: Any, report: Report) -> set[str]:
    """The markets, the funds and the histories, as ccxt understands them; the symbols are returned.

    It raises for Kraken's `error`.
    """
    symbols = set(await exchange.load_markets())
    report.received["markets"] = len(symbols)
    check_balance(report, await exchange.fetch_balance())
    check_orders(report, await exchange.fetch_open_orders())
    check_orders(report, await exchange.fetch_closed_orders())
    check_trades(report, symbols, await exchange.fetch_my_trades())
    return symbols


async def watch(report: Report, name: str, call: Callable[[], Awaitable[Any]]) -> list[Any]:
    """What several rounds of one watch delivered. An error acknowledgement raises in it."""
    delivered = []
    for _ in range(DELIVERIES):
        delivered.append(await call())
        report.received[name] += 1
    return delivered


async def feed(exchange: Any, report: Report, symbols: set[str]) -> None:
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        # trades first: both watches share a subscription, and only this one asks for trades in the snapshot
        trades = group.create_task(watch(report, "watch_my_trades", exchange.watch_my_trades))
        orders = group.create_task(watch(report, "watch_orders", exchange.watch_orders))
        balance = group.create_task(watch(report, "watch_balance", exchange.watch_balance))
    for delivery in trades.result():
        check_trades(report, symbols, delivery)
    for delivery in orders.result():
        check_orders(report, delivery)
    check_balance(report, balance.result()[-1])


async def main() -> int:
    ready, report = Ready.from_argv(), Report("ccxt")
    exchange = exchange_at(ready)
    try:
        await feed(exchange, report, await rest(exchange, report))
    except* Exception as errors:  # noqa: BLE001  # whatever the client raises is its verdict
        report.errors += [f"{type(error).__name__}: {error}" for error in errors.exceptions]
    finally:
        await exchange.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
