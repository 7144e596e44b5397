"""kraky: its WebSocket client on v1, its token, and three of its signed REST calls."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from kraky import KrakyApiClient, KrakyWsClient  # type: ignore[import-not-found]  # not beside us

from tests.command.interop.clients.report import Ready, Report
from tests.support.timeouts import scaled

DEADLINE_S = scaled(30.0)
UPDATES = 5  # of each channel, beyond its snapshot
CHANNELS = ("openOrders", "ownTrades")


class Complaints(logging.Handler):
    """The client hands no error to its handler: it logs it. So its log is listened to."""

    def __init__(self, report: Report) -> None:
        super().__init__(logging.ERROR)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        self.report.errors.append(record.getMessage())


def rest(ready: Ready, report: Report) -> str:
    """The client raises for Kraken's `error`. Returns the token."""
    api = KrakyApiClient(ready.key, ready.secret)
    api.base_url = ready.rest
    calls = {
        "Balance": api.get_account_balance,
        "OpenOrders": api.get_open_orders,
        "TradesHistory": api.get_trades_history,
    }
    for method, call in calls.items():
        report.expect(isinstance(call(), dict), f"{method} is no object")
        report.received[method] += 1
    token = api.get_web_sockets_token()
    report.received["GetWebSocketsToken"] += 1
    text: str = token["token"] if isinstance(token, dict) else token
    return text


async def feed(ready: Ready, report: Report, token: str) -> None:
    """Subscribe both channels; listen until each has brought its ack, its snapshot and some updates."""
    client = KrakyWsClient(ready.ws_v1 + "/")
    logging.getLogger("kraky.ws").addHandler(Complaints(report))
    enough = asyncio.Event()
    acks: set[str] = set()
    frames = dict.fromkeys(CHANNELS, 0)

    async def handler(message: Any) -> None:
        if isinstance(message, dict):
            event = message["event"]
            report.received[event] += 1
            if event == "subscriptionStatus":
                report.expect(message["status"] == "subscribed", f"refused: {message}")
                acks.add(message["channelName"])
        else:
            items, channel, detail = message
            report.received[channel] += 1
            frames[channel] += 1
            report.expect(detail == {"sequence": frames[channel]}, f"{channel}: frame {frames[channel]} is {detail}")
            report.expect(all(len(item) == 1 for item in items), f"{channel}: an item with several keys")
        if acks == set(CHANNELS) and min(frames.values()) > UPDATES:
            enough.set()

    connection = asyncio.create_task(client.connect(handler))
    for reqid, channel in enumerate(CHANNELS, 1):
        await client.subscribe({"name": channel, "token": token}, reqid=reqid)
    await client.ping(reqid=9)
    stopped = asyncio.create_task(enough.wait())
    await asyncio.wait({connection, stopped}, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
    if not enough.is_set():
        report.errors.append(f"not enough within {DEADLINE_S:.0f} s: acks {acks}, frames {frames}")
    stopped.cancel()
    if connection.done():
        report.errors.append(f"the connection ended: {connection.exception()!r}")
    else:
        await client.disconnect()
        await asyncio.wait_for(connection, DEADLINE_S)
    report.expect(report.received["systemStatus"], "no systemStatus came")
    report.expect(report.received["pong"], "no pong came")


def main() -> int:
    ready, report = Ready.from_argv(), Report("kraky")
    token = rest(ready, report)
    asyncio.run(feed(ready, report, token))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
