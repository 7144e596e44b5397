"""The sink, on real descriptors: pipes, sockets, terminals, files.

Full disks are in test_hold.py, slow ones in test_sync.py.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import socket
import tty
from pathlib import Path

import pytest

from kraken_feed.errors import OutputFailed, ReaderGone
from kraken_feed.output.destination import HIGH_BYTES, LOW_BYTES
from kraken_feed.output.sink import Sink

from ...support import virtual_time
from ...support.outputs import Failures, Said, open_files, record, until
from ...support.timeouts import TIMEOUT_S


@pytest.fixture
def failures() -> Failures:
    return Failures()


async def test_a_burst_is_one_write(failures: Failures) -> None:
    reader, writer = os.pipe()
    sink = Sink(writer, "stdout", failures)
    for number in range(100):
        sink.write(record(number))
    await sink.drained()
    assert (sink.lines, sink.writes, sink.pending) == (100, 1, 0)
    assert os.read(reader, 1 << 20) == b"".join(record(n) for n in range(100))
    sink.close()
    os.close(reader)
    os.close(writer)


async def test_a_lone_line_is_out_when_the_loop_turns(failures: Failures) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    sink = Sink(writer, "stdout", failures)
    sink.write(b"{}\n")
    await asyncio.sleep(0)
    assert os.read(reader, 100) == b"{}\n"
    sink.close()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
async def test_a_stalled_reader_neither_blocks_the_loop_nor_loses_or_tears_a_line(
    kind: str, failures: Failures
) -> None:
    reader, writer = {"pipe": os.pipe, "socket": _socketpair, "terminal": _terminal}[kind]()
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    sink = Sink(writer, "stdout", failures)
    written = bytearray()
    number = 0
    while not sink.full:  # nobody reads: all of this goes through only if no write waits
        written += record(number)
        sink.write(record(number))
        number += 1
        if number % 50 == 0:
            await asyncio.sleep(0)
    assert sink.pending <= HIGH_BYTES + 50 * len(record(0))
    assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags, "others share this descriptor"
    read = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(reader, lambda: read.extend(os.read(reader, 1 << 16)))
    async with asyncio.timeout(TIMEOUT_S):
        await sink.room()
        assert sink.pending <= LOW_BYTES
        await sink.drained()
    await until(lambda: len(read) >= len(written))
    assert read == written
    assert failures == []
    loop.remove_reader(reader)
    sink.close()
    os.close(reader)
    os.close(writer)


def _socketpair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def _terminal() -> tuple[int, int]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave


async def test_what_a_full_pipe_holds_ends_at_a_line(failures: Failures) -> None:
    reader, writer = os.pipe()
    sink = Sink(writer, "stdout", failures)
    for number in range(2000):
        sink.write(record(number, size=777))
        await asyncio.sleep(0)
    os.set_blocking(reader, False)
    held = os.read(reader, 1 << 20)
    assert held.endswith(b"}\n")
    sink.close()
    os.close(reader)
    os.close(writer)


async def test_a_line_longer_than_a_pipe_takes_at_once_arrives_whole(failures: Failures) -> None:
    reader, writer = os.pipe()
    sink = Sink(writer, "stdout", failures)
    lines = record(1) + record(2, size=300_000) + record(3)
    sink.write(lines)
    read = bytearray()
    loop = asyncio.get_running_loop()
    loop.add_reader(reader, lambda: read.extend(os.read(reader, 5000)))
    await sink.drained()
    await until(lambda: len(read) >= len(lines))
    assert bytes(read) == lines
    loop.remove_reader(reader)
    sink.close()
    os.close(reader)
    os.close(writer)


async def test_a_reader_that_has_gone_is_noticed_without_a_write(failures: Failures) -> None:
    reader, writer = os.pipe()
    sink = Sink(writer, "stdout", failures)
    os.close(reader)
    await until(lambda: bool(failures))
    assert isinstance(failures[0], ReaderGone)
    assert failures[0].exit_code == 0
    sink.close()
    os.close(writer)


async def test_a_reader_that_goes_while_we_wait_for_it_ends_the_wait(failures: Failures) -> None:
    reader, writer = _socketpair()
    sink = Sink(writer, "stdout", failures)
    while not sink.full:
        sink.write(record(1, size=100_000))
    await asyncio.sleep(0)
    waiting = asyncio.create_task(sink.room())
    await asyncio.sleep(0)
    os.close(reader)
    async with asyncio.timeout(TIMEOUT_S):
        await waiting
    assert [type(error) for error in failures] == [OutputFailed]
    sink.close()
    os.close(writer)


async def test_the_reader_of_a_fifo_that_has_gone_is_a_failure(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = Sink.open(str(path), failures)
    sink.write(record(1))
    await sink.drained()
    os.close(reader)
    await until(lambda: bool(failures))
    (error,) = failures
    assert (error.exit_code, error.what) == (74, f"The reader of {path} has closed it.")
    assert error.remedy
    sink.close()


async def test_a_full_device_is_reported_once(failures: Failures) -> None:
    writer = os.open("/dev/full", os.O_WRONLY)
    sink = Sink(writer, "stdout", failures)
    sink.write(record(1))
    await sink.drained()
    sink.write(record(2))
    await sink.drained()
    assert [type(error) for error in failures] == [OutputFailed]
    assert failures[0].exit_code == 74
    assert os.strerror(errno.ENOSPC) in failures[0].why
    sink.close()
    os.close(writer)


async def test_reopening_after_a_rename_loses_no_line(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    sink.write(record(1))
    path.rename(tmp_path / "old.jsonl")
    sink.write(record(2))
    sink.reopen()
    sink.write(record(3))
    await sink.drained()
    assert (tmp_path / "old.jsonl").read_bytes() == record(1) + record(2)
    assert path.read_bytes() == record(3)
    assert path.stat().st_mode & 0o777 == 0o640 & ~_umask()
    sink.close()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


async def test_reopening_a_file_that_was_not_moved_writes_on_to_it(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    for number in range(3):
        sink.write(record(number))
        sink.reopen()
    await sink.synced()
    assert path.read_bytes() == b"".join(map(record, range(3)))
    sink.close()


async def test_when_a_file_cannot_be_reopened_the_old_one_is_written_on_and_the_error_says_so(
    tmp_path: Path, failures: Failures
) -> None:
    directory, moved = tmp_path / "log", tmp_path / "moved"
    directory.mkdir()
    sink = Sink.open(str(directory / "out.jsonl"), failures)
    sink.write(record(1))
    directory.rename(moved)
    with pytest.raises(OutputFailed, match=r"No such file or directory.*still go to the old file"):
        sink.reopen()
    sink.write(record(2))
    await sink.synced()
    assert (moved / "out.jsonl").read_bytes() == record(1) + record(2)
    assert failures == []
    sink.close()


async def test_a_torn_last_line_is_set_aside_counted_and_said(tmp_path: Path, failures: Failures) -> None:
    path, said = tmp_path / "out.jsonl", Said()
    path.write_bytes(record(1) + b'{"n":2,"torn')
    sink = Sink.open(str(path), failures, warn=said)
    sink.write(record(3))
    await sink.drained()
    assert path.read_bytes() == record(1) + record(3)
    assert said == [("output_repaired", {"output": str(path), "bytes": 12, "kept_as": f"{path}.torn"})]
    path.rename(tmp_path / "old.jsonl")
    path.write_bytes(b"\0" * 10)
    sink.reopen()
    assert [fields["bytes"] for _, fields in said] == [12, 10]
    assert sink.torn == 2
    sink.close()


async def test_a_reopened_sink_leaves_no_descriptor_open(tmp_path: Path, failures: Failures) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    for number in range(20):
        sink.write(record(number))
        sink.reopen()
        await sink.synced()
    sink.close()
    await until(lambda: open_files(tmp_path) == [])


async def test_writes_are_counted_and_timed(tmp_path: Path, failures: Failures) -> None:
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures)
    for number in range(10):
        sink.write(record(number))
        await sink.drained()
    assert (sink.lines, sink.writes) == (10, 10)
    assert sink.bytes_written == (tmp_path / "out.jsonl").stat().st_size
    assert sum(sink.write_latency.counts) == 10
    assert sink.write_latency.sum_s > 0
    sink.close()


def test_blocked_time_runs_while_lines_wait_and_starts_anew_when_some_are_taken() -> None:
    async def block() -> None:
        reader, writer = os.pipe()
        sink = Sink(writer, "stdout", lambda error: None)
        await virtual_time.elapse(10)
        while not sink.pending:
            sink.write(record(0))
            sink.flush()
        sink.write(b"x" * 10_000 + b"\n")
        assert sink.blocked_since == 10.0
        await virtual_time.elapse(5)
        assert (sink.blocked_since, sink.blocked_s) == (10.0, 0.0)
        os.read(reader, 8192)
        sink.flush()
        assert sink.pending > 0
        assert (sink.blocked_since, sink.blocked_s) == (15.0, 5.0)
        await virtual_time.elapse(2)
        while sink.pending:
            os.read(reader, 1 << 20)
            sink.flush()
        assert [sink.blocked_since, sink.blocked_s] == [None, 7.0]
        sink.close()
        os.close(reader)
        os.close(writer)

    virtual_time.run(block())
