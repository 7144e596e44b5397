"""The installed command on a disk that fills up under load: a small file system, and a bound on the size of files."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.completeness import Ended, Output, compare
from ..support.load import ALL, Load, load
from ..support.small_disk import Disk, FileSize, small_disk
from ..support.timeouts import TIMEOUT_S

MIB = 1 << 20
RATE = 500.0
PATIENT = "[output]\npatience_s = 600.0\n"
RECOVER = "[backfill]\noverlap_s = 5.0\nsecond_pass_s = 0.5\nrest_counter = 1000\nrest_decay = 1000.0\n"


@pytest.fixture(params=["file system", "file size"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk | FileSize]:
    if request.param == "file size":
        (tmp_path / "disk").mkdir()
        yield FileSize(tmp_path / "disk")
    else:
        with small_disk(64 * MIB, tmp_path / "disk") as directory:
            yield Disk(directory)


def reason(disk: Disk | FileSize) -> str:
    return os.strerror(errno.ENOSPC if isinstance(disk, Disk) else errno.EFBIG)


def whole(path: Path) -> int:
    """The number of lines in a file of which every line is one."""
    content = path.read_bytes()
    assert content.endswith(b"}\n")
    return len([json.loads(line) for line in content.splitlines()])


async def held(run: Load, disk: Disk | FileSize, count: int = 1) -> None:
    disk.leave(100_000, run.process.pid)
    entry = await run.until_said("output_held", count)
    assert entry["reason"] == reason(disk)
    assert entry["pending_bytes"] > 0


async def test_a_full_disk_is_waited_for_and_then_everything_is_on_it(tmp_path: Path, disk: Disk | FileSize) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, rate=RATE, config=PATIENT) as run:
        for count in (1, 2):
            await run.until_published(200)
            await held(run, disk, count)
            lines = whole(path)
            await run.until_published(500)
            assert whole(path) == lines, "nothing more fits"
            disk.free(run.process.pid)
            await run.until_said("output_resumed", count)
        await run.until_published(200)
        state = await run.calm(lambda: [path])
        assert await run.end() == 0
        found = run.compare([path.read_bytes()])
        assert found.good, found
        assert found.lines == state["output"]["lines"] + len(ALL)
        assert [len(run.said(event)) for event in ("output_held", "output_resumed")] == [2, 2]
        assert run.said("connection_lost") == []


async def test_more_than_memory_may_hold_waits_in_the_sockets_and_nothing_is_lost(
    tmp_path: Path, disk: Disk | FileSize
) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, rate=4 * RATE, config=PATIENT) as run:
        await held(run, disk)
        while not (await run.state())["output"]["blocked"]:
            await run.until_published(500)
        await run.until_published(500)
        run.place.exchange.engine.rate = 0.0
        disk.free(run.process.pid)
        await run.until_said("output_resumed")
        await run.calm(lambda: [path])
        assert await run.end() == 0
        found = run.compare([path.read_bytes()])
    assert found.good, found


async def test_when_patience_ends_the_exit_is_74_and_the_file_ends_in_a_whole_line(
    tmp_path: Path, disk: Disk | FileSize
) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, rate=RATE, config="[output]\npatience_s = 1.0\n") as run:
        await held(run, disk)
        async with asyncio.timeout(TIMEOUT_S):
            assert await run.process.wait() == 74
        assert whole(path) > len(ALL)
        (entry,) = run.said("exit")
        assert reason(disk) in entry["why"]
        assert "bytes of records were not written" in entry["why"]
        assert run.compare([path.read_bytes()]).torn == 0


async def test_without_patience_there_is_no_wait(tmp_path: Path, disk: Disk | FileSize) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, rate=RATE, config="[output]\npatience_s = 0\n") as run:
        disk.leave(100_000, run.process.pid)
        async with asyncio.timeout(TIMEOUT_S):
            assert await run.process.wait() == 74
        assert whole(path) > len(ALL)
        assert run.said("output_held") == []


async def test_sigterm_ends_the_wait_with_74_if_no_state_is_kept(tmp_path: Path, disk: Disk | FileSize) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, "--no-state", rate=RATE, config=PATIENT) as run:
        await held(run, disk)
        assert await run.end() == 74
        (entry,) = run.said("exit")
        assert "The disk has been full for" in entry["why"]
        assert whole(path) > len(ALL)


async def test_what_sigterm_has_left_behind_on_a_full_disk_the_next_run_recovers(
    tmp_path: Path, disk: Disk | FileSize
) -> None:
    path = disk.directory / "out.jsonl"
    async with load(tmp_path, path, rate=RATE, config=PATIENT + RECOVER, backfill=True) as run:
        exchange = run.place.exchange
        exchange.keys[exchange.key].counter.decay = 1e9
        await held(run, disk)
        await run.until_published(200)
        assert await run.end() == 0
        (left,) = run.said("output_not_drained")
        assert left["bytes"] > 0
        assert "The disk has been full for" in left["why"]
        ended = Ended("SIGTERM", time.time(), path.stat().st_size, b"")
        assert whole(path) > len(ALL)
        disk.free(run.process.pid)
        exchange.engine.rate = 20.0
        await run.start()
        output = Output(path, [ended])

        def recovered() -> bool:
            output.read()
            return sum(map(len, output.closed.values())) >= len(ALL) and not output.unclosed()

        assert await run.until(recovered)
        assert await run.end() == 0
        counts = compare(output, [change for change in exchange.ledger.changes if change.at < ended.at])
    assert not output.torn
    assert not output.within
    assert not any(output.gaps.values())
    assert {kind: count.lost for kind, count in counts.items()} == {"end": [], "fill": [], "entry": []}
    assert all(count.ledger for count in counts.values())


@pytest.mark.parametrize("disk", ["file system"], indirect=True)  # the other bound goes for every file
async def test_a_rotation_to_a_disk_with_room_ends_the_wait(tmp_path: Path, disk: Disk) -> None:
    path, moved = disk.directory / "out.jsonl", tmp_path / "moved"
    moved.mkdir()
    link = tmp_path / "out.jsonl"
    link.symlink_to(path)
    async with load(tmp_path, link, rate=RATE, config=PATIENT) as run:
        await held(run, disk)
        link.unlink()
        link.symlink_to(moved / "out.jsonl")
        run.reopen()
        await run.until_said("output_reopened")
        await run.until_said("output_resumed")
        await run.until_published(200)
        await run.calm(lambda: [path, moved / "out.jsonl"])
        assert await run.end() == 0
        whole(path)
        found = run.compare(file.read_bytes() for file in (path, moved / "out.jsonl"))
    assert found.good, found
