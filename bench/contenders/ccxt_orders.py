"""ccxt.pro: `watch_orders`, printing each order as JSON. `ccxt_orders.py REST WEBSOCKET`."""

import asyncio
import json
import os
import sys
from typing import Any

import ccxt.pro  # type: ignore[import-not-found]  # not beside us

SYMBOLS = ("BTC/USD", "ETH/USD", "SOL/USD")


def exchange_at(rest: str, websocket: str) -> Any:
    """The exchange, pointed at the server. The markets are given: loading them is another call's cost."""
    exchange = ccxt.pro.kraken(
        {
            "apiKey": os.environ["KRAKEN_API_KEY"],
            "secret": os.environ["KRAKEN_API_SECRET"],
            "newUpdates": True,
            "enableRateLimit": False,
        }
    )
    api = exchange.urls["api"]
    api["public"] = api["private"] = rest
    api["ws"]["private"] = api["ws"]["privateV2"] = websocket
    exchange.set_markets([market(symbol) for symbol in SYMBOLS])
    return exchange


def market(symbol: str) -> dict[str, object]:
    base, quote = symbol.split("/")
    return {
        "id": base + quote,
        "symbol": symbol,
        "base": base,
        "quote": quote,
        "baseId": base,
        "quoteId": quote,
        "type": "spot",
        "spot": True,
        "active": True,
        "precision": {"amount": 1e-8, "price": 0.01},
        "limits": {},
        "info": {},
    }


async def main(rest: str, websocket: str) -> None:
    exchange = exchange_at(rest, websocket)
    while True:
        for order in await exchange.watch_orders():
            print(json.dumps(order), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
