"""The sink, on real descriptors: pipes, sockets, terminals, files and full disks."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import resource
import socket
import subprocess
import sys
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from kraken_feed.errors import FeedError, OutputFailed, ReaderGone
from kraken_feed.sink import HIGH_BYTES, LOW_BYTES, Sink, open_output


class Failures(list[FeedError]):
    """What the sink has reported."""

    def __call__(self, error: FeedError) -> None:
        self.append(error)


def record(number: int, size: int = 300) -> bytes:
    return b'{"n":%d,"pad":"%b"}\n' % (number, b"x" * size)


@pytest.fixture
def failures() -> Failures:
    return Failures()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so; the reader's thread or the kernel decides when."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # the kernel has no event to wait for
            await asyncio.sleep(0)


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
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(30):
        await waiting
    assert [type(error) for error in failures] == [ReaderGone]
    sink.close()
    os.close(writer)


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


FULL_DISK = """
import asyncio, os, resource, sys
from kraken_feed.sink import Sink, open_output
path, limit = sys.argv[1], int(sys.argv[2])
async def main():
    errors = []
    sink = Sink(open_output(path), path, errors.append, path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    for number in range(100):
        for line in range(10):
            sink.write(b'{"n":%d,"pad":"%b"}\\n' % (number * 10 + line, b"x" * 100))
        await asyncio.sleep(0)
    print(type(errors[0]).__name__, len(errors), sink.pending)
asyncio.run(main())
"""


@pytest.mark.parametrize("limit", [5000, 5001, 5050, 4999])
def test_a_file_that_cannot_grow_ends_in_a_whole_line(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "out.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path), str(limit)], capture_output=True, text=True, check=True
    )
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    assert content.endswith(b"}\n")
    assert [line.split(b",")[0] for line in lines] == [b'{"n":%d' % n for n in range(len(lines))]
    assert limit - 120 < len(content) <= limit
    name, count, pending = done.stdout.split()
    assert (name, count) == ("OutputFailed", "1")
    total = sum(len(b'{"n":%d,"pad":"%b"}\n' % (n, b"x" * 100)) for n in range(1000))
    assert int(pending) == total - len(content), "every line is either in the file or counted as not written"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


async def test_reopening_after_a_rename_loses_no_line(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink(open_output(str(path)), str(path), failures, str(path))
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


def test_a_file_that_cannot_be_opened_is_an_output_failure(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match="No such file"):
        open_output(str(tmp_path / "missing" / "out.jsonl"))


def test_a_torn_last_line_is_kept_beside_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(record(1) + b'{"n":2,"torn')
    fd = open_output(str(path))
    os.write(fd, record(3))
    os.close(fd)
    assert path.read_bytes() == record(1) + record(3)
    assert (tmp_path / "out.jsonl.torn").read_bytes() == b'{"n":2,"torn\n'
