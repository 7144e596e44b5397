"""What was written is brought to the disk, with disks that are slow, that fail, and that are rotated away meanwhile."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from kraken_feed.check import machine
from kraken_feed.config.schema import Config
from kraken_feed.errors import OutputFailed
from kraken_feed.feed.environment import Limits
from kraken_feed.output.disk import sync_file, sync_method
from kraken_feed.output.sink import Sink
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.state.checkpoint import Changes, Entry
from kraken_feed.state.store import Store

from ...support import memory, virtual_time
from ...support.exchange_driver import T0
from ...support.outputs import Failures, open_files, record, until


@pytest.fixture
def failures() -> Failures:
    return Failures()


class Disk:
    """Stands in for ``os.fdatasync``: notes what each file held, and can be told to wait or to fail."""

    def __init__(self) -> None:
        self.synced: list[tuple[int, int]] = []  # inode and size, when it began
        self.error: OSError | None = None
        self.free = threading.Event()
        self.free.set()

    def __call__(self, fd: int) -> None:
        status = os.fstat(fd)
        self.synced.append((status.st_ino, status.st_size))
        assert self.free.wait(60)
        if self.error is not None:
            raise self.error


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "fdatasync", disk)
    yield disk
    disk.free.set()


async def test_synced_means_written_first_and_then_on_the_disk(tmp_path: Path, failures: Failures, disk: Disk) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    for number in range(1, 4):
        sink.write(record(1))
        await sink.synced()
        assert disk.synced == [(path.stat().st_ino, n * len(record(1))) for n in range(1, number + 1)]
    assert sink.syncs == 3
    sink.close()


async def test_what_is_on_the_disk_is_not_brought_there_again(tmp_path: Path, failures: Failures, disk: Disk) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    sink.write(record(1))
    for _ in range(3):
        await sink.synced()
    assert len(disk.synced) == 1
    sink.close()


async def test_the_name_of_a_new_file_is_brought_to_the_disk_too(
    tmp_path: Path, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    inodes: list[int] = []
    directory = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(os, "fsync", lambda fd: inodes.append(os.fstat(fd).st_ino))
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    for number in range(4):
        sink.write(record(number))
        await sink.synced()
        if number == 1:
            (tmp_path / "out.jsonl").rename(tmp_path / "old.jsonl")
            sink.reopen()
    await sink.synced()
    assert inodes == [os.fstat(directory).st_ino] * 2
    os.close(directory)
    sink.close()


async def test_who_comes_while_the_disk_is_at_work_shares_the_next_turn(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    loop = asyncio.get_running_loop()
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    disk.free.clear()
    sink.write(record(0))
    first = asyncio.create_task(sink.synced())
    await until(lambda: len(disk.synced) == 1)
    began = sink.sync_started
    assert began is not None
    assert began <= loop.time()
    later = []
    for number in range(1, 9):
        sink.write(record(number))
        later.append(asyncio.create_task(sink.synced()))
        await asyncio.sleep(0)
    later[3].cancel()
    disk.free.set()
    await first
    assert not any(task.done() for task in later if not task.cancelled())
    await asyncio.gather(*later[:3], *later[4:])
    assert [size for _, size in disk.synced] == [len(record(0)), 9 * len(record(0))]
    assert [sink.syncs, sink.sync_started] == [2, None]
    sink.close()


async def test_a_caller_that_gives_up_leaves_the_disk_to_the_others(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    disk.free.clear()
    sink.write(record(0))
    tasks = [asyncio.create_task(sink.synced()) for _ in range(2)]
    await until(lambda: len(disk.synced) == 1)
    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert "fdatasync" in sink.undelivered().why
    assert not tasks[1].done()
    disk.free.set()
    await tasks[1]
    assert tasks[0].cancelled()
    sink.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_what_the_disk_has_refused_is_never_tried_again(
    number: int, tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures, patience=3600.0)
    disk.error = OSError(number, os.strerror(number))
    sink.write(record(0))
    await asyncio.gather(sink.synced(), sink.synced())
    assert [type(error) for error in failures] == [OutputFailed]
    assert sink.error is failures[0]
    assert os.strerror(number) in failures[0].why
    disk.error = None
    sink.write(record(1))
    await sink.synced()
    sink.reopen()
    assert len(disk.synced) == 1
    assert failures == [sink.error]
    sink.close()


async def test_a_file_system_that_knows_no_fdatasync_has_nothing_to_wait_for(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    disk.error = OSError(errno.EINVAL, os.strerror(errno.EINVAL))
    sink.write(record(0))
    await sink.synced()
    assert failures == []
    sink.close()


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal", "null"])
async def test_only_files_are_brought_to_the_disk(kind: str, failures: Failures, disk: Disk) -> None:
    reader, writer = {"pipe": os.pipe, "socket": _sockets, "terminal": pty.openpty, "null": _null}[kind]()
    sink = Sink(writer, "stdout", failures)
    sink.write(record(0))
    await sink.synced()
    assert (disk.synced, sink.pending, sink.sync_started) == ([], 0, None)
    sink.close()
    os.close(reader)
    os.close(writer)


def _sockets() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _null() -> tuple[int, int]:
    return os.open("/dev/null", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)


async def test_a_file_that_is_rotated_away_reaches_the_disk_before_it_is_closed(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    sink.write(record(1))
    await sink.drained()
    old = path.rename(tmp_path / "old.jsonl")
    sink.write(record(2))
    sink.reopen()
    sink.write(record(3))
    await sink.synced()
    last = dict(disk.synced)
    assert last == {old.stat().st_ino: 2 * len(record(1)), path.stat().st_ino: len(record(3))}
    sink.close()


async def test_synced_waits_for_a_file_that_is_rotated_away_meanwhile(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    disk.free.clear()
    sink.write(record(1))
    first = asyncio.create_task(sink.synced())
    await until(lambda: len(disk.synced) == 1)
    sink.write(record(2))
    old = path.rename(tmp_path / "old.jsonl")
    sink.reopen()
    second = asyncio.create_task(sink.synced())
    await asyncio.sleep(0)
    disk.free.set()
    await first
    assert not second.done(), "the second line is in the old file, and not on the disk yet"
    await second
    assert (old.stat().st_ino, 2 * len(record(1))) in disk.synced
    assert old.read_bytes() == record(1) + record(2)
    sink.close()


async def test_a_sink_that_is_closed_while_the_disk_is_at_work_closes_the_file_afterwards(
    tmp_path: Path, failures: Failures, disk: Disk
) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    disk.free.clear()
    sink.write(record(1))
    waiting = asyncio.create_task(sink.synced())
    await until(lambda: len(disk.synced) == 1)
    sink.close()
    assert open_files(tmp_path) == [str(tmp_path / "out.jsonl")]
    disk.free.set()
    await waiting
    await until(lambda: open_files(tmp_path) == [])


# ------------------------------------------------------------------------------------------------ the feed


class Busy:
    """A feed on a busy account in virtual time, and what happens to its disk: syncs and checkpoints, each with the
    size of the output then."""

    def __init__(self, tmp_path: Path, *, store: bool, error: OSError | None = None) -> None:
        self.events: list[tuple[str, int]] = []
        self.path = tmp_path / "out.jsonl"
        self._store = Store.open(str(tmp_path / "state"), "main", int(T0 * 1e9)).store if store else None
        self._error = error

    def _sync(self, fd: int) -> None:
        self.events.append(("sync", os.fstat(fd).st_size))
        if self._error is not None:
            raise self._error

    def _save(self, changes: Changes) -> None:
        """The first save of all says only from when on there is something to know."""
        if any(entry != Entry() for entry in changes.entries.values()):
            self.events.append(("save", self.path.stat().st_size))

    async def run(self, seconds: float) -> None:
        if self._store is not None:
            self._store.save = self._save  # type: ignore[method-assign]  # the test's look at it
        with memory.running(Exchange(now=T0, seed=1, rate=20.0)) as world, patch("os.fdatasync", self._sync):
            limits = Limits(duration=seconds)
            run = memory.Run(world, self.path, ("openOrders", "executions"), Config(), limits, store=self._store)
            try:
                await run.feed.run()
            finally:
                run.sink.close()


def test_a_checkpoint_follows_the_disk(tmp_path: Path) -> None:
    busy = Busy(tmp_path, store=True)
    virtual_time.run(busy.run(10.0))
    assert [event for event, _ in busy.events].count("save") >= 10
    synced = known = 0
    for event, size in busy.events:
        if event == "sync":
            synced = size
        else:
            assert synced >= known, "the checkpoint before may know of it"
            assert synced > 0
            known = size
    assert synced == busy.path.stat().st_size


def test_nothing_that_the_disk_has_refused_is_in_the_checkpoint(tmp_path: Path) -> None:
    busy = Busy(tmp_path, store=True, error=OSError(errno.EIO, os.strerror(errno.EIO)))
    with pytest.raises(OutputFailed, match="may not be on the disk"):
        virtual_time.run(busy.run(10.0))
    assert [event for event, _ in busy.events] == ["sync"]


def test_without_a_checkpoint_the_output_is_brought_to_the_disk_about_once_a_second_all_the_same(
    tmp_path: Path,
) -> None:
    busy = Busy(tmp_path, store=False)
    virtual_time.run(busy.run(10.0))
    assert 9 <= len(busy.events) <= 13
    assert busy.events[-1] == ("sync", busy.path.stat().st_size)


# ------------------------------------------------------------------------------------------------ platforms


@pytest.mark.parametrize(
    ("lacking", "method"), [((), "fdatasync"), (("fdatasync",), "fsync"), (("fdatasync", "full"), "F_FULLFSYNC")]
)
def test_a_platform_without_fdatasync_syncs_in_another_way_and_says_so(
    lacking: tuple[str, ...], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: called.append("fsync"))
    monkeypatch.setattr(os, "fdatasync", lambda fd: called.append("fdatasync"))
    if "fdatasync" in lacking:
        monkeypatch.delattr(os, "fdatasync")
    if "full" in lacking:  # as on macOS
        monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
        monkeypatch.setattr(fcntl, "fcntl", lambda fd, command: called.append("F_FULLFSYNC"))
    with open(tmp_path / "output", "wb") as file:
        sync_file(file.fileno())
    assert called == [method]
    assert sync_method() == method
    finding = machine.sync(method)
    assert finding.status == ("WARN" if method == "fsync" else "OK")
    assert method in finding.what
