"""python-kraken-sdk: its WebSocket client on v2, its token, and four of its signed REST calls."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from kraken.spot import SpotAsyncClient, SpotWSClient

from tests.command.interop.clients.report import Ready, Report
from tests.support.timeouts import scaled

DEADLINE_S = scaled(40.0)  # the client itself waits one to two seconds before it first connects
UPDATES = 5  # of each channel, beyond its snapshot
CHANNELS = ("executions", "balances")
METHODS = ("Balance", "OpenOrders", "ClosedOrders", "TradesHistory")


async def rest(ready: Ready, report: Report) -> None:
    """The client checks Kraken's `error` itself and raises an exception of its own for it."""
    client = SpotAsyncClient(key=ready.key, secret=ready.secret, url=ready.rest)
    try:
        for method in METHODS:
            answer: Any = await client.request("POST", f"/0/private/{method}")
            report.expect(isinstance(answer, dict), f"{method} is no object: {answer!r}")
            report.received[method] += 1
    finally:
        await client.close()


async def feed(ready: Ready, report: Report) -> None:
    """Subscribe both channels; listen until each has brought its ack, its snapshot and some updates."""
    enough = asyncio.Event()
    acks: set[str] = set()
    snapshots: dict[str, int] = {}
    updates = dict.fromkeys(CHANNELS, 0)
    sequences: dict[str, int] = {}

    async def on_message(message: dict[str, Any]) -> None:
        if "python-kraken-sdk" in message:
            report.errors.append(f"the client gave up: {message}")
            enough.set()
        method = message.get("method")
        if method is not None:
            report.received[method] += 1
            if method == "subscribe" and message.get("success") is True:
                acks.add(message["result"]["channel"])
            elif method != "pong":
                report.errors.append(f"refused: {message}")
                enough.set()
        channel = message.get("channel")
        if channel is not None:
            report.received[channel] += 1
        if channel in CHANNELS:
            sequence = message["sequence"]
            if message["type"] == "snapshot":
                snapshots[channel] = len(message["data"])
            else:
                updates[channel] += 1
                before = sequences.get(channel)
                report.expect(before is not None and sequence == before + 1, f"{channel}: {before} then {sequence}")
            sequences[channel] = sequence
        if acks == snapshots.keys() == set(CHANNELS) and min(updates.values()) >= UPDATES:
            enough.set()

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
        await client.subscribe(params={"channel": "balances"}, req_id=2)
        try:
            await asyncio.wait_for(enough.wait(), DEADLINE_S)
        except TimeoutError:
            report.errors.append(f"after {DEADLINE_S:.0f} s: acks {acks}, snapshots {snapshots}, updates {updates}")
        held = [subscription["channel"] for subscription in client.active_private_subscriptions]
        report.expect(set(held) == set(CHANNELS), f"the client holds the subscriptions {held}")
        report.expect(not client.exception_occur, "the client met an exception")
        report.expect(report.received["status"], "no status came")
        report.expect(report.received["pong"], "no pong came")
    report.seen["snapshots"] = snapshots


async def main() -> int:
    ready, report = Ready.from_argv(), Report("python-kraken-sdk")
    await rest(ready, report)
    await feed(ready, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
