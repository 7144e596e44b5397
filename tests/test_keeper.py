"""The keeper against real files: a save that goes on when nobody waits for it, a rewrite that finds no room."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from kraken_feed import store as store_module
from kraken_feed import tables
from kraken_feed.auth import Nonce
from kraken_feed.checkpoint import Changes, ChannelState
from kraken_feed.errors import FeedError
from kraken_feed.keeper import Keeper
from kraken_feed.orders import Knowledge
from kraken_feed.store import Store
from kraken_feed.wire import Item


class Output:
    """An output that takes everything, until it is blocked."""

    error: FeedError | None = None

    def __init__(self) -> None:
        self.blocked = False
        self.asked = asyncio.Event()

    async def synced(self) -> None:
        if self.blocked:
            self.asked.set()
            await asyncio.Event().wait()


class Rest:
    """What else a keeper looks at: a tail and a recovery in one."""

    changed = False
    holes: tuple[()] = ()
    whole_ns = 100

    def whole(self) -> dict[str, int]:
        return {"ownTrades": self.whole_ns}


class Place:
    """A keeper, and what it keeps."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store.open(str(directory), "main", 0).store
        self.known = Knowledge("ownTrades")
        self.output, self.rest = Output(), Rest()
        self.log = structlog.testing.CapturingLogger()
        parts: dict[str, Any] = {"sink": self.output, "tails": [self.rest], "recovery": self.rest, "log": self.log}
        self.keeper = Keeper(
            self.store, None, knowledge={"ownTrades": self.known}, nonce=Nonce(), unix_ns=lambda: 1, **parts
        )

    def fill(self, name: str) -> None:
        self.known.update(Item(b"{}", None, name, name))

    def kept(self) -> ChannelState:
        """What a new process finds."""
        self.store.close()
        checkpoint = Store.open(str(self.directory), "main", 0).checkpoint
        assert checkpoint is not None
        return checkpoint.channels["ownTrades"]


async def test_a_save_that_a_stop_has_cancelled_takes_in_nothing_of_what_came_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on in its thread, while the output takes nothing more: what is there only is not called kept."""
    place = Place(tmp_path)
    go, there = threading.Event(), threading.Event()

    def slow(database: sqlite3.Connection, changes: Changes) -> int:
        there.set()
        go.wait(60.0)
        return write(database, changes)

    write = tables.write
    monkeypatch.setattr(tables, "write", slow)
    place.fill("WRITTEN")
    saving = asyncio.create_task(place.keeper.save())
    await asyncio.to_thread(there.wait)
    place.output.blocked, place.rest.whole_ns = True, 200
    place.fill("PENDING")
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    last = asyncio.create_task(place.keeper.save())
    await asyncio.sleep(0)
    go.set()
    await place.output.asked.wait()  # it has taken in what there is, and the output takes nothing
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    kept = place.kept()
    assert kept.seen == ["WRITTEN"]
    assert kept.whole_ns == 100


async def test_a_rewrite_that_finds_no_room_does_not_keep_small_saves_from_succeeding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "JOURNAL_BYTES", 20)
    place = Place(tmp_path)
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: bool(changes.anew)))
    rounds = 30
    for number in range(rounds):
        place.fill(f"T{number}")
        await place.keeper.save()
    failures = [call for call in place.log.calls if call.args == ("checkpoint_failed",)]
    assert 2 <= len(failures) <= 6, "it is tried again, ever more seldom"
    assert place.kept().seen == [f"T{number}" for number in range(rounds)]


def _without_room(refuses: Callable[[Changes], bool]) -> Callable[[sqlite3.Connection, Changes], int]:
    write = tables.write

    def full(database: sqlite3.Connection, changes: Changes) -> int:
        if not refuses(changes):
            return write(database, changes)
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_FULL, "SQLITE_FULL"
        raise error

    return full


async def test_what_was_rewritten_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "JOURNAL_BYTES", 60)
    place = Place(tmp_path)
    for number in range(40):
        place.fill(f"T{number}")
        await place.keeper.save()
    (rows,) = place.store._database.execute("SELECT count(*) FROM journal").fetchone()
    assert rows < 20
    assert place.kept().seen == [f"T{number}" for number in range(40)]
