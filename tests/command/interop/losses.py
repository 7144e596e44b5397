"""python-kraken-sdk under the faults of `losses.toml`: which fills and ends of orders reach its callback."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import sys
import time
from typing import Any

from kraken.spot import SpotWSClient

from tests.command.interop.clients.report import Ready
from tests.support.timeouts import scaled

WINDOW_S = 30.0  # what happens from the first snapshot on and within these has to arrive …
GRACE_S = 15.0  # … with so much time to reconnect and be told by a snapshot
FIRST_S = scaled(20.0)  # for the first snapshot
TERMINAL = ("filled", "canceled", "expired")


async def main() -> int:
    """Print one line: version, when the first snapshot came, ids of fills and of ended orders, in order of arrival."""
    ready = Ready.from_argv()
    started = asyncio.Event()
    fills: set[str] = set()
    ends: set[str] = set()
    said: list[str] = []

    async def on_message(message: dict[str, Any]) -> None:
        if "python-kraken-sdk" in message or message.get("success") is False:
            said.append(str(message)[:200])
        if message.get("channel") != "executions":
            return
        for item in message["data"]:
            if "exec_id" in item:
                fills.add(item["exec_id"])
            if item.get("order_status") in TERMINAL and "order_id" in item:
                ends.add(item["order_id"])
        started.set()

    client = SpotWSClient(
        key=ready.key,
        secret=ready.secret,
        callback=on_message,
        no_public=True,
        rest_url=ready.rest,
        auth_ws_url=ready.ws_v2.removesuffix("/v2"),  # the client appends it
    )
    async with client:
        await client.subscribe(params={"channel": "executions", "snap_trades": True, "snap_orders": True}, req_id=1)
        await asyncio.wait_for(started.wait(), FIRST_S)
        since = time.time()
        await asyncio.sleep(WINDOW_S + GRACE_S)
        line = {
            "version": importlib.metadata.version("python-kraken-sdk"),
            "since": since,
            "until": since + WINDOW_S,
            "fills": sorted(fills),
            "ends": sorted(ends),
            "said": said,
        }
        print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
