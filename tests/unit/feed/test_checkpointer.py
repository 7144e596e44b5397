"""The checkpointer against real files: a save that goes on when nobody waits for it, a rewrite that finds no room."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from kraken_feed.errors import FeedError, OutputFailed
from kraken_feed.feed.checkpointer import MOVED, Checkpointer
from kraken_feed.feed.known_state import Knowledge
from kraken_feed.protocol.signing import Nonce
from kraken_feed.protocol.wire import Item
from kraken_feed.state import store as store_module
from kraken_feed.state import tables
from kraken_feed.state.checkpoint import Changes, ChannelState, Checkpoint, Known, Outage, Scan
from kraken_feed.state.store import Store
from kraken_feed.transport.backoff import CallCounter
from kraken_feed.transport.kraken_clock import KrakenClock


def names(ids: list[Known]) -> list[str]:
    return [known if isinstance(known, str) else known[0] for known in ids]


def empty(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()


class Output:
    """An output that takes everything, until it is blocked."""

    error: FeedError | None = None
    position = 0
    unrescued = 0
    name = "the output"

    def __init__(self) -> None:
        self.blocked = False
        self.found = "ok"
        self.rescued = 0
        self.reopened = 0
        self.keeps: list[int] = []
        self.asked = asyncio.Event()
        self.meanwhile: Callable[[], None] = lambda: None  # happens while it waits for the disk

    async def synced(self) -> None:
        self.meanwhile()
        if self.blocked:
            self.asked.set()
            await asyncio.Event().wait()

    def check(self) -> str:
        return self.found

    def rescue(self) -> int:
        self.found = "ok"
        self.rescued += 1
        return 7

    def reopen(self) -> None:
        self.found = "ok"
        self.reopened += 1

    def covered(self, position: int) -> None:
        self.keeps.append(position)


class Rest:
    """What else a checkpointer looks at: a tail and a recovery in one."""

    changed = False
    complete_ns = 100

    def __init__(self) -> None:
        self.outages: list[Outage] = []
        self.scanner = self
        self.scans: dict[str, Scan] = {}
        self.opened: list[tuple[str, int | None, str]] = []
        self.ended: list[tuple[str, int]] = []

    def complete(self) -> dict[str, int]:
        return {"ownTrades": self.complete_ns} if self.complete_ns else {}

    def open(self, channel: str, start_ns: int | None, cause: str) -> None:
        self.opened.append((channel, start_ns, cause))

    def end(self, channel: str, end_ns: int) -> None:
        self.ended.append((channel, end_ns))


opened: list[Store] = []  # by the test that runs


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """Close every store that a test has opened."""
    yield
    while opened:
        opened.pop().close()


def saved(directory: Path) -> Checkpoint | None:
    """Return what a new process finds."""
    found = Store.open(str(directory), "main", 0)
    opened.append(found.store)
    return found.checkpoint


class Place:
    """A checkpointer, and what it keeps."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = Store.open(str(directory), "main", 0).store
        opened.append(self.store)
        self.known = Knowledge("ownTrades")
        self.output, self.rest = Output(), Rest()
        self.log = structlog.testing.CapturingLogger()
        self.clock = KrakenClock(lambda: 0)
        self.clock.sample(0, 0, 500, 500)
        self.counter = CallCounter(14, 0.33)
        self.failures: list[FeedError] = []
        parts: dict[str, Any] = {"sink": self.output, "endpoints": [self.rest], "recovery": self.rest, "log": self.log}
        self.checkpointer = Checkpointer(
            self.store,
            None,
            knowledge={"ownTrades": self.known},
            nonce=Nonce(),
            counter=self.counter,
            clock=self.clock,
            unix_ns=lambda: 1,
            fail=self.failures.append,
            **parts,
        )

    def fill(self, name: str) -> None:
        self.known.update(Item(b"{}", None, name, name))

    def kept(self) -> ChannelState:
        """What a new process finds."""
        self.store.close()
        checkpoint = saved(self.directory)
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
    saving = asyncio.create_task(place.checkpointer.save())
    await asyncio.to_thread(there.wait)
    place.output.blocked, place.rest.complete_ns = True, 200
    place.fill("PENDING")
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    last = asyncio.create_task(place.checkpointer.save())
    await asyncio.sleep(0)
    go.set()
    await place.output.asked.wait()  # it has taken in what there is, and the output takes nothing
    last.cancel()
    await asyncio.gather(last, return_exceptions=True)
    kept = place.kept()
    assert names(kept.seen) == ["WRITTEN"]
    assert kept.complete_ns == 100


async def test_a_rewrite_that_finds_no_room_does_not_keep_small_saves_from_succeeding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "JOURNAL_BYTES", 20)
    place = Place(tmp_path)
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: bool(changes.replaced)))
    rounds = 30
    for number in range(rounds):
        place.fill(f"T{number}")
        await place.checkpointer.save()
    failures = [call for call in place.log.calls if call.args == ("checkpoint_failed",)]
    assert 2 <= len(failures) <= 6, "it is tried again, ever more seldom"
    assert names(place.kept().seen) == [f"T{number}" for number in range(rounds)]


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
        await place.checkpointer.save()
    (rows,) = place.store._database.execute("SELECT count(*) FROM journal").fetchone()
    assert rows < 20
    assert names(place.kept().seen) == [f"T{number}" for number in range(40)]


async def test_a_first_mark_whose_save_failed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next run would take an account that was live for one that never was."""
    place = Place(tmp_path)
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: True))
    place.checkpointer.begin("ownTrades", 40)
    assert place.checkpointer.saved_complete_ns == {}
    monkeypatch.undo()
    place.checkpointer.begin("ownTrades", 50)
    assert place.checkpointer.saved_complete_ns == {"ownTrades": 50}
    place.checkpointer.begin("ownTrades", 60)
    assert place.kept().complete_ns == 50


async def test_the_first_mark_is_saved_with_the_outage_that_it_ends(tmp_path: Path) -> None:
    """The state was gone, so the outage is known only from the output. A crash right after must not lose it."""
    place = Place(tmp_path)
    place.rest.outages.append(Outage("ownTrades", 10, "state_missing"))
    place.checkpointer.begin("ownTrades", 40)
    assert [(outage.start_ns, outage.end_ns) for outage in place.kept().outages] == [(10, None)]


async def test_nothing_is_saved_before_the_output_is_on_the_disk(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.output.blocked = True
    place.fill("PENDING")
    saving = asyncio.create_task(place.checkpointer.save())
    await place.output.asked.wait()
    saving.cancel()
    await asyncio.gather(saving, return_exceptions=True)
    assert place.checkpointer.saved_ns is None
    place.store.close()
    assert saved(tmp_path) is None


async def test_nothing_is_saved_for_an_output_that_was_removed_until_it_is_written_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill("T1")
    place.output.found = "removed"
    await place.checkpointer.save()
    assert (place.output.rescued, place.output.keeps, place.checkpointer.saved_ns) == (1, [], None)
    await place.checkpointer.save()
    assert place.output.keeps == [0]
    assert names(place.kept().seen) == ["T1"]


async def test_what_cannot_be_written_again_is_an_outage_from_the_last_save_on(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await place.checkpointer.save()
    place.rest.complete_ns = 300
    place.output.unrescued = 1  # another account that writes to the same file has noticed first
    await place.checkpointer.save()
    assert place.rest.opened == [("ownTrades", 100, "output_removed")]
    assert place.rest.ended == [("ownTrades", place.clock.latest())]
    place.store.close()


async def test_an_output_whose_path_names_another_file_for_long_is_opened_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for _ in range(MOVED):
        assert place.output.reopened == 0
        place.output.found = "moved"
        await place.checkpointer.save()
    assert place.output.reopened == 1
    place.store.close()


async def test_a_state_that_was_removed_is_made_again_with_everything_in_it(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill("T1")
    place.rest.changed = True
    place.rest.outages.append(Outage("ownTrades", 1, "closed", 2))
    await place.checkpointer.save()
    empty(tmp_path)
    place.fill("T2")
    await place.checkpointer.save()
    kept = place.kept()
    assert (names(kept.seen), kept.complete_ns) == (["T1", "T2"], 100)
    assert [(outage.start_ns, outage.end_ns) for outage in kept.outages] == [(1, 2)]
    assert place.rest.opened == []


async def test_another_state_in_its_place_says_since_when_records_may_be_missing(tmp_path: Path) -> None:
    """A file system that is mounted late: what is there ends where an earlier run stopped."""
    elsewhere = Place(tmp_path / "elsewhere")
    elsewhere.rest.complete_ns = 10
    await elsewhere.checkpointer.save()
    elsewhere.store.save(Changes(complete={"openOrders": 5}))  # nobody tails that now
    elsewhere.store.close()
    place = Place(tmp_path / "here")
    await place.checkpointer.save()
    empty(tmp_path / "here")
    (tmp_path / "here").rmdir()
    (tmp_path / "elsewhere").rename(tmp_path / "here")
    await place.checkpointer.save()
    assert place.rest.opened == [("ownTrades", 10, "state_replaced")]
    assert place.rest.ended == [("ownTrades", place.clock.latest())]
    assert place.kept().complete_ns == 100


async def test_what_happens_while_the_output_is_brought_to_the_disk_is_kept_with_the_next_save(tmp_path: Path) -> None:
    place = Place(tmp_path)
    outage = Outage("ownTrades", 1, "closed", 90, complete={"TradesHistory": 10}, missing={"O1"})
    place.rest.outages += [outage, Outage("openOrders", 1, "closed", 90)]
    place.rest.changed = True
    place.fill("T1")

    def meanwhile() -> None:
        place.fill("T2")
        place.output.position = 5
        place.rest.complete_ns = 200
        outage.complete["TradesHistory"] = 80
        outage.missing.clear()

    place.output.meanwhile = meanwhile
    await place.checkpointer.save()
    assert place.output.keeps == [0]
    kept = place.kept()
    assert (names(kept.seen), kept.complete_ns) == (["T1"], 100)
    assert [(known.complete, known.missing) for known in kept.outages] == [({"TradesHistory": 10}, {"O1"})]


async def test_a_save_that_fails_keeps_nothing_and_the_next_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    await place.checkpointer.save()
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: True))
    place.fill("T1")
    place.rest.changed, place.rest.complete_ns, place.output.position = True, 200, 7
    place.rest.outages.append(Outage("ownTrades", 1, "closed", 90))
    await place.checkpointer.save()
    assert (place.output.keeps, place.checkpointer.saved_complete_ns) == ([0], {"ownTrades": 100})
    monkeypatch.undo()
    place.fill("T2")
    await place.checkpointer.save()
    assert (place.output.keeps, place.checkpointer.saved_complete_ns) == ([0, 7], {"ownTrades": 200})
    kept = place.kept()
    assert names(kept.seen) == ["T1", "T2"]
    assert len(kept.outages) == 1


async def test_nothing_is_saved_for_an_output_that_has_failed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.fill("T1")
    place.output.error = OutputFailed("No space.")
    await place.checkpointer.save()
    assert (place.output.keeps, place.checkpointer.saved_ns) == ([], None)
    place.store.close()


async def test_what_cannot_be_written_again_is_one_outage_from_the_last_save_that_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    await place.checkpointer.save()
    place.rest.complete_ns = 300
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: True))
    await place.checkpointer.save()
    monkeypatch.undo()
    place.output.unrescued = 1
    await place.checkpointer.save()
    await place.checkpointer.save()
    assert place.rest.opened == [("ownTrades", 100, "output_removed")]
    place.store.close()


async def test_what_may_be_missing_of_a_channel_that_is_not_live_lasts_until_it_is(tmp_path: Path) -> None:
    place = Place(tmp_path)
    await place.checkpointer.save()
    place.rest.complete_ns = 0
    place.output.unrescued = 1
    await place.checkpointer.save()
    assert place.rest.opened == [("ownTrades", 100, "output_removed")]
    assert place.rest.ended == []
    place.store.close()


async def test_only_looks_in_a_row_at_another_file_open_the_output_again(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for found in [*["moved"] * (MOVED - 1), "ok", *["moved"] * (MOVED - 1)]:
        place.output.found = found
        await place.checkpointer.save()
    assert place.output.reopened == 0
    place.output.found = "moved"
    await place.checkpointer.save()
    assert place.output.reopened == 1
    place.output.found = "moved"
    await place.checkpointer.save()
    assert place.output.reopened == 1
    place.store.close()


async def test_a_state_that_was_removed_is_made_again_though_the_first_save_to_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The channel is not live meanwhile: up to when it is complete was known before."""
    place = Place(tmp_path)
    place.fill("T1")
    place.rest.changed = True
    place.rest.outages.append(Outage("ownTrades", 1, "closed", 2))
    place.rest.scans["TradesHistory"] = Scan("TradesHistory", 1, 2, 3, {"ownTrades": 2}, offset=50)
    await place.checkpointer.save()
    empty(tmp_path)
    place.rest.complete_ns = 0
    monkeypatch.setattr(tables, "write", _without_room(lambda changes: True))
    await place.checkpointer.save()
    monkeypatch.undo()
    await place.checkpointer.save()
    place.store.close()
    checkpoint = saved(tmp_path)
    assert checkpoint is not None
    kept = checkpoint.channels["ownTrades"]
    assert (names(kept.seen), kept.complete_ns, len(kept.outages)) == (["T1"], 100, 1)
    assert [scan.offset for scan in checkpoint.scans] == [50]


async def test_a_query_under_way_and_the_call_counter_are_kept(tmp_path: Path) -> None:
    place = Place(tmp_path)
    now = asyncio.get_running_loop().time()
    place.counter.send(5.0, now)
    place.rest.changed = True
    place.rest.scans["TradesHistory"] = Scan("TradesHistory", 1, 2, 3, {"ownTrades": 2}, offset=50)
    await place.checkpointer.save()
    place.store.close()
    checkpoint = saved(tmp_path)
    assert checkpoint is not None
    assert checkpoint.counter is not None
    assert checkpoint.counter.level == pytest.approx(5.0)
    assert checkpoint.counter.at_ns == place.clock.latest()
    assert checkpoint.scans == list(place.rest.scans.values())
