"""`history` in virtual time beside the simulated exchange: its reader, or the command without its process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from structlog.testing import LogCapture

from kraken_feed.cli.arguments import parse
from kraken_feed.cli.commands import COMMANDS
from kraken_feed.cli.history import HistoryCommand
from kraken_feed.cli.times import when
from kraken_feed.config.schema import Config
from kraken_feed.protocol.signing import Credentials
from kraken_feed.query.progress import Progress
from kraken_feed.query.reader import HistoryReader
from kraken_feed.query.records import records
from kraken_feed.query.spool import Answer, Spool
from kraken_feed.simulator.access.key import ApiKey
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.text import Secrets

from .completeness import expected
from .exchange_driver import T0
from .memory import Transport, World

ALL = ("openOrders", "ownTrades", "executions", "balances")
CHANNELS = {"end": ("openOrders", "executions"), "fill": ("ownTrades", "executions"), "entry": ("balances",)}


class Read(NamedTuple):
    """What a reader has found, and what it logged."""

    answer: Answer
    lines: list[dict[str, Any]]
    log: LogCapture
    took: float  # seconds of the loop's time

    @property
    def ids(self) -> list[str]:
        return [line["id"] for line in self.lines]

    def logged(self, event: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.log.entries if entry["event"] == event]


def network(world: World) -> dict[str, Any]:
    """What a reader needs to run on that world instead of the real network and clocks."""
    return {"transport": Transport(world), "unix_ns": world.unix_ns, "boot_ns": world.boot_ns}


def ago(seconds: float) -> Callable[[int], int]:
    """Return the moment so many seconds before now."""
    return lambda now_ns: now_ns - round(seconds * 1e9)


def at(seconds: float) -> Callable[[int], int]:
    """Return the moment so many seconds after T0."""
    return lambda now_ns: round((T0 + seconds) * 1e9)


async def read(
    world: World,
    *channels: str,
    since: Callable[[int], int],
    until: Callable[[int], int] | None = None,
    key: ApiKey | None = None,
    config: Config | None = None,
    spool: Spool | None = None,
) -> Read:
    """Read a history; ``key`` is another one than the exchange's first."""
    log, loop_time, own = LogCapture(), world.now(), spool is None
    spool = spool or Spool.temporary()
    reader = HistoryReader(
        config=config or Config(),
        channels=channels or ("openOrders", "ownTrades"),
        since=since,
        until=until,
        credentials=credentials(world.exchange, key),
        spool=spool,
        log=structlog.wrap_logger(None, processors=[log]),
        mask=str,
        progress=Progress(),
        **network(world),
    )
    answer = await reader.run()
    lines = [record | {"data": json.loads(record["data"])} for _, record in records(spool, "main", reader.channels)]
    if own:
        spool.close()
    return Read(answer, lines, log, world.now() - loop_time)


def credentials(exchange: Exchange, key: ApiKey | None = None) -> Credentials:
    chosen = (exchange.key, exchange.secret) if key is None else (key.key, key.secret)
    return Credentials(*chosen, source="the test")


def command(world: World, *words: str, config: Config | None = None) -> HistoryCommand:
    """Return the command for this command line, ready to run."""
    arguments = parse(["history", *words], COMMANDS)
    arguments.secrets = Secrets()
    return HistoryCommand(
        arguments,
        config or Config(),
        arguments.account or "main",
        arguments.channels or ("openOrders", "ownTrades"),
        partial(when, arguments.since),
        None if arguments.until is None else partial(when, arguments.until),
        credentials(world.exchange),
        partial(HistoryReader, **network(world)),
    )


def ledger_ids(exchange: Exchange, channels: Sequence[str], since: float, until: float) -> set[str]:
    """Return the ids that the records of a period must have, by the exchange's ledger. Times are unix seconds."""
    changes = [change for change in exchange.ledger.changes if since <= change.at <= until]
    return {
        f"main:{channel}:{identity}"
        for kind, identity, _ in expected(changes)
        for channel in CHANNELS[kind]
        if channel in channels
    }


def item_time(line: dict[str, Any]) -> float:
    """Return the time of a record's item in unix seconds."""
    data = line["data"]
    return float(data["closetm"] if "closetm" in data else data["time"])


def records_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]
