"""The wait for space on a full disk, and the sink meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.errors import OutputFailed
from kraken_feed.output.destination import HIGH_BYTES
from kraken_feed.output.disk import FIRST_TRY_S, LONGEST_TRY_S, DiskWait, retry_in
from kraken_feed.output.sink import Sink

from ...support import virtual_time
from ...support.outputs import Failures, Said, file_limit, record


@given(st.integers(0, 10_000), st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_try_is_never_at_once_never_far_and_never_after_patience(tries: int, waited: float, patience: float) -> None:
    wait = retry_in(tries, waited, patience)
    assert (wait is None) == (waited >= patience)
    if wait is not None:
        assert 0 < wait <= LONGEST_TRY_S
        assert wait >= min(FIRST_TRY_S, patience - waited)
        assert waited + wait <= patience or wait == pytest.approx(patience - waited)


def test_tries_get_rarer_until_they_come_every_five_seconds() -> None:
    assert [retry_in(tries, 0.0, 3600.0) for tries in range(6)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_an_hour_of_a_full_disk_is_tried_some_700_times_and_then_ends() -> None:
    async def hour() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        tries, ended = 0, asyncio.Event()

        def full() -> None:
            nonlocal tries
            tries += 1
            if not hold.refused(0.0):
                ended.set()

        hold = DiskWait(3600.0, full)
        full()
        await ended.wait()
        assert not hold.waiting
        return tries, loop.time()

    tries, seconds = virtual_time.run(hour())
    assert 720 <= tries <= 730
    assert seconds == pytest.approx(3600.0)


# ------------------------------------------------------------------------------------------------ the sink meanwhile


class Full:
    """A sink on a file that has no room for more than ``room`` bytes, in virtual time."""

    def __init__(self, path: Path, room: int, patience: float) -> None:
        self.path, self.said, self.failures = path, Said(), Failures()
        self.sink = Sink.open(str(path), self.failures, warn=self.said, patience=patience)
        self.lines = 0
        self._open: Sink | None = self.sink
        self._limit = contextlib.ExitStack()
        self.room(room)

    def room(self, size: int) -> None:
        """From now on there is room for so much."""
        self.free()
        self._limit.enter_context(file_limit(size))

    def free(self) -> None:
        """From now on there is room for everything."""
        self._limit.close()

    def close(self) -> None:
        """Close the sink, once."""
        sink, self._open = self._open, None
        if sink is not None:
            sink.close()

    def write(self, count: int) -> None:
        for _ in range(count):
            self.sink.write(record(self.lines))
            self.lines += 1

    def content(self) -> bytes:
        return self.path.read_bytes()

    @property
    def everything(self) -> bytes:
        return b"".join(map(record, range(self.lines)))


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs a story on a full disk in virtual time: ``full(story, room, patience)``."""
    disks: list[Full] = []

    def run(story: Callable[[Full], Awaitable[None]], *, room: int = 1000, patience: float = 3600.0) -> None:
        async def main() -> None:
            disks.append(Full(tmp_path / "out.jsonl", room, patience))
            await story(disks[0])
            disks[0].close()

        try:
            virtual_time.run(main())
        finally:  # before anything else of this process is written, as the dot for this test
            disks[0].free()

    yield run
    for disk in disks:
        disk.free()


def test_a_full_disk_is_waited_for_said_once_and_nothing_is_lost(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(10)
        await virtual_time.elapse(100)
        assert disk.content() == b"".join(map(record, range(3))), "whole lines only"
        assert disk.sink._disk_wait.since == 0.0
        pending = len(disk.everything) - len(disk.content())
        assert disk.said == [
            (
                "output_held",
                {
                    "output": str(disk.path),
                    "reason": os.strerror(errno.EFBIG),
                    "pending_bytes": pending,
                    "patience_s": 3600.0,
                },
            )
        ]
        disk.write(10)
        await virtual_time.elapse(100)
        disk.free()
        await virtual_time.elapse(LONGEST_TRY_S)
        assert disk.content() == disk.everything
        assert [event for event, _ in disk.said] == ["output_held", "output_resumed"]
        assert 200 <= float(str(disk.said[1][1]["held_s"])) <= 200 + LONGEST_TRY_S
        assert [disk.sink._disk_wait.since, disk.sink.blocked_since, *disk.failures] == [None, None]
        disk.write(1)
        await disk.sink.drained()
        assert disk.content() == disk.everything

    full(story)


def test_a_disk_that_is_full_again_is_said_again(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        for number in range(1, 4):
            disk.write(5)
            await virtual_time.elapse(10)
            disk.free()
            await disk.sink.drained()
            assert [event for event, _ in disk.said] == ["output_held", "output_resumed"] * number
            disk.room(len(disk.everything) + 500)

    full(story)


@pytest.mark.parametrize("patience", [0.0, 1.0, 60.0, 3600.0])
def test_when_patience_ends_the_output_fails_and_the_file_ends_in_a_whole_line(
    patience: float, full: Callable[..., None]
) -> None:
    async def story(disk: Full) -> None:
        disk.write(10)
        await disk.sink.drained()
        assert asyncio.get_running_loop().time() == pytest.approx(patience)
        assert disk.content() == b"".join(map(record, range(3)))
        assert [type(error) for error in disk.failures] == [OutputFailed]
        pending = len(disk.everything) - len(disk.content())
        assert f"{pending} bytes of records were not written" in disk.failures[0].why
        assert os.strerror(errno.EFBIG) in disk.failures[0].why
        assert [event for event, _ in disk.said] == (["output_held"] if patience else [])
        await virtual_time.elapse(100)
        disk.write(1)
        await disk.sink.drained()
        assert len(disk.failures) == 1

    full(story, patience=patience)


def test_patience_is_counted_from_the_last_line_that_was_taken(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(100)
        await virtual_time.elapse(50)
        disk.room(2000)
        await virtual_time.elapse(50)
        assert disk.failures == []
        assert disk.content() == b"".join(map(record, range(6)))
        await disk.sink.drained()
        assert len(disk.failures) == 1
        assert 110 <= asyncio.get_running_loop().time() <= 115
        assert len(disk.said) == 1

    full(story, patience=60.0)


def test_after_some_lines_were_taken_the_tries_begin_anew(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(100)
        await virtual_time.elapse(50)
        before = disk.content()
        disk.room(2000)
        while disk.content() == before:  # virtual time
            await virtual_time.elapse(FIRST_TRY_S / 4)
        disk.free()
        await virtual_time.elapse(FIRST_TRY_S)
        assert disk.content() == disk.everything

    full(story)


def test_a_sink_that_is_closed_does_not_try_again(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(10)
        await virtual_time.elapse(10)
        disk.close()
        disk.free()
        await virtual_time.elapse(100)
        assert disk.content() == b"".join(map(record, range(3)))
        assert disk.failures == []

    full(story)


def test_while_a_disk_is_full_memory_is_bounded_and_nobody_spins(
    full: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        return real(fd, data)

    async def story(disk: Full) -> None:
        nonlocal calls
        while not disk.sink.full:
            disk.write(100)
            await asyncio.sleep(0)
        assert disk.sink.pending < HIGH_BYTES + 100 * len(record(1000))
        room = asyncio.create_task(disk.sink.room())
        calls = 0
        for _ in range(1000):
            disk.write(1)
            await virtual_time.elapse(1)
        assert 400 <= calls <= 420, "two a try: what goes, and the reason why no more does"
        assert not room.done()
        disk.free()
        await room
        await disk.sink.drained()
        assert disk.content() == disk.everything

    monkeypatch.setattr(os, "write", write)
    full(story)


def test_who_waits_for_the_output_tries_a_full_disk_at_once(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(10)
        await virtual_time.elapse(100)
        disk.free()
        before = asyncio.get_running_loop().time()
        await disk.sink.synced()
        assert asyncio.get_running_loop().time() == before
        assert disk.content() == disk.everything

    full(story)


@pytest.mark.parametrize("wait", ["drained", "synced", "room"])
def test_a_wait_for_a_full_disk_can_be_given_up_and_says_what_it_waited_for(
    wait: str, full: Callable[..., None]
) -> None:
    async def story(disk: Full) -> None:
        while not disk.sink.full:
            disk.write(100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await getattr(disk.sink, wait)()
        error = disk.sink.undelivered()
        assert error.exit_code == 74
        assert f"full for 7.0 s; {disk.sink.pending} bytes" in error.why
        disk.free()
        await virtual_time.elapse(LONGEST_TRY_S)
        assert disk.content() == disk.everything

    full(story)


def test_reopening_while_the_disk_is_full_goes_on_in_the_new_file_at_once(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(5)  # and no file may be larger than three: a rotation helps
        await virtual_time.elapse(100)
        old = disk.path.rename(disk.path.with_name("old.jsonl"))
        disk.sink.reopen()
        assert disk.sink.pending == 0
        assert [event for event, _ in disk.said] == ["output_held", "output_resumed"]
        assert old.read_bytes() + disk.content() == disk.everything
        await disk.sink.synced()

    full(story)


def test_reopening_to_a_disk_that_is_full_as_well_holds_on(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        disk.write(5)
        await virtual_time.elapse(100)
        old = disk.path.rename(disk.path.with_name("old.jsonl"))
        disk.room(0)
        disk.sink.reopen()
        disk.write(1)
        await virtual_time.elapse(100)
        assert disk.content() == b""
        disk.free()
        await disk.sink.drained()
        assert [event for event, _ in disk.said] == ["output_held", "output_resumed"]
        assert old.read_bytes() + disk.content() == disk.everything

    full(story)


def test_two_writers_of_one_file_that_is_full_lose_and_tear_nothing_of_each_other(full: Callable[..., None]) -> None:
    async def story(disk: Full) -> None:
        other = Sink.open(str(disk.path), disk.failures, patience=3600.0)
        for number in range(1000, 1010):
            disk.write(1)
            await virtual_time.elapse(0.1)
            other.write(record(number))
            await virtual_time.elapse(0.1)
        disk.room(2000)
        await virtual_time.elapse(20)
        disk.free()
        await disk.sink.synced()
        await other.synced()
        assert disk.content().endswith(b"}\n")
        assert {json.loads(line)["n"] for line in disk.content().splitlines()} == {*range(10), *range(1000, 1010)}
        other.close()

    full(story)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ENODEV])
async def test_what_does_not_pass_is_not_waited_for(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(number, os.strerror(number))

    failures = Failures()
    sink = Sink.open(str(tmp_path / "out.jsonl"), failures, patience=3600.0)
    monkeypatch.setattr(os, "write", write)
    sink.write(record(1))
    sink.flush()
    assert [type(error) for error in failures] == [OutputFailed]
    sink.close()


async def test_a_full_device_is_not_waited_for_since_it_stays_full() -> None:
    failures = Failures()
    sink = Sink.open("/dev/full", failures, patience=3600.0)
    sink.write(record(1))
    await sink.drained()
    assert [type(error) for error in failures] == [OutputFailed]
    sink.close()
