"""Programs that read records: in virtual time beside the simulated exchange, or each in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from kraken_feed.api import Records
from kraken_feed.config.schema import Config
from kraken_feed.errors import StateHeld
from kraken_feed.feed.builder import Plan
from kraken_feed.feed.environment import Account, Environment
from kraken_feed.feed.feed import Feed
from kraken_feed.protocol.signing import Credentials
from kraken_feed.records.types import Item, Live, Record
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.state.place import Place
from kraken_feed.state.store import Store

from . import virtual_time
from .exchange_driver import T0
from .installed import bare
from .ledger_check import Published, check
from .memory import Transport, World, running

ALL = ("openOrders", "ownTrades", "executions", "balances")
Script = Callable[[World, Path], Coroutine[Any, Any, None]]


def reading(world: World, state: Path | None, *channels: str, **wanted: Any) -> Records:
    """Records of that world's account, not yet entered. ``log`` takes diagnostics; the rest goes into the plan."""
    log = wanted.pop("log", None)
    key = Credentials(world.exchange.key, world.exchange.secret, source="the test")
    given: dict[str, Any] = {"config": Config(), "credentials": {"main": key}, **wanted}
    plan = Plan(
        channels=channels or ("openOrders",), state=None if state is None else Place(str(state), "program"), **given
    )
    network: dict[str, Any] = {
        "transport": Transport(world),
        "dial": world.dial,
        "unix_ns": world.unix_ns,
        "boot_ns": world.boot_ns,
        "draw": lambda: 0.5,
    }

    def make(account: Account, environment: Environment) -> Feed:
        return Feed(account, replace(environment, **network))

    return Records(lambda: plan, log, make)


async def through(records: Records, limit: int | None = None) -> list[Record]:
    """What it yields: all, or so many items at least and then no more is asked for."""
    taken, items = [], 0
    async for record in records:
        taken.append(record)
        items += isinstance(record, Item)
        if items == limit:
            break
    return taken


def play(script: Script, state: Path, **options: Any) -> None:
    """Run a script beside an exchange, and see that nothing is left of it: no task, no socket, no lock."""

    async def main() -> None:
        with running(Exchange(now=T0, seed=3, **{"rate": 2.0, **options})) as world:
            before = asyncio.all_tasks()
            await script(world, state)
            assert asyncio.all_tasks() == before
            assert not world.sockets

    virtual_time.run(main())
    assert not any(held(state, path.stem) for path in state.glob("*.lock"))


def held(state: Path, account: str = "main@program") -> bool:
    """Whether somebody has the account's state."""
    try:
        Store.open(str(state), account, 0).store.close()
    except StateHeld:
        return True
    return False


def compared(world: World, taken: list[Record]) -> dict[str, int]:
    """The records of one run against the exchange's ledger; see :mod:`tests.support.ledger_check`."""
    names = {record.connection for record in taken if isinstance(record, Item | Live)}
    (run,) = {name.rpartition("-")[0] for name in names if name}
    numbers = {f"{run}-{n}": peer.connection_id for n, (_, _, peer) in enumerate(world.dials, 1) if peer}
    items = world.exchange.ledger.published
    published = [Published(item.connection_id, item.channel, item.sequence, item.value) for item in items]
    return check(b"".join(record.line for record in taken), published, numbers)


async def started(text: str, home: Path, env: Mapping[str, str]) -> Process:
    """A program in a process of its own."""
    path = home / "program.py"
    path.write_text(text)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", str(path), cwd=home, env={**bare(home), **env}, stdout=PIPE, stderr=PIPE,
        limit=1 << 26,
    )  # fmt: skip
