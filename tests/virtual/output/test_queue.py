"""Lines to a program in the same process: none is lost, and one has arrived when the next is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from kraken_feed.errors import ReaderGone
from kraken_feed.output.destination import HIGH_BYTES, LOW_BYTES
from kraken_feed.output.queue import Inbox

from ...support import virtual_time
from ...support.outputs import record

LINES = [record(number) for number in range(6)]


def run(main: Coroutine[Any, Any, None]) -> None:
    virtual_time.run(main)


async def taken(inbox: Inbox) -> list[bytes]:
    """All that is left, to the end."""
    lines = []
    while (line := await inbox.take()) is not None:
        lines.append(line)
    return lines


def test_lines_are_taken_as_they_were_handed_in_however_they_were_bundled() -> None:
    async def main() -> None:
        inbox = Inbox()
        inbox.write(LINES[0])
        inbox.write(b"".join(LINES[1:4]), 3)
        inbox.write(b"".join(LINES[4:]), 2)
        assert inbox.lines == 6
        inbox.end()
        assert await taken(inbox) == LINES
        assert inbox.pending == 0

    run(main())


def test_a_line_has_arrived_when_the_next_one_is_asked_for() -> None:
    async def main() -> None:
        inbox = Inbox()
        inbox.write(b"".join(LINES[:2]), 2)
        arrived = asyncio.create_task(inbox.synced())
        for held in (2, 1):
            assert await inbox.take() is not None
            await virtual_time.elapse(60)
            assert inbox.pending == held * len(LINES[0])
            assert not arrived.done()
        waiting = asyncio.create_task(inbox.take())
        await arrived
        assert inbox.pending == 0
        inbox.write(LINES[2])
        assert await waiting == LINES[2]

    run(main())


def test_what_comes_later_is_not_waited_for() -> None:
    async def main() -> None:
        inbox = Inbox()
        inbox.write(LINES[0])
        arrived = asyncio.create_task(inbox.synced())
        await asyncio.sleep(0)
        inbox.write(LINES[1])
        await inbox.take()
        await inbox.take()
        async with asyncio.timeout(1):
            await arrived
        assert inbox.pending

    run(main())


def test_a_call_that_is_cancelled_takes_nothing() -> None:
    async def main() -> None:
        for turns in range(6):
            inbox = Inbox()
            waiting = asyncio.create_task(inbox.take())
            inbox.write(LINES[0])
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            got = [] if waiting.cancelled() else [waiting.result()]
            inbox.end()
            assert [*got, *await taken(inbox)] == [LINES[0]]

    run(main())


def test_a_line_that_comes_while_the_call_is_being_cancelled_stays() -> None:
    async def main() -> None:
        inbox = Inbox()
        waiting = asyncio.create_task(inbox.take())
        await virtual_time.elapse(1)
        inbox.write(LINES[0])
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert await inbox.take() == LINES[0]

    run(main())


def test_who_makes_lines_waits_for_room_between_two_marks() -> None:
    async def main() -> None:
        inbox = Inbox()
        while not inbox.full:
            inbox.write(record(0, 100_000))
        assert inbox.pending > HIGH_BYTES
        room = asyncio.create_task(inbox.room())
        while not room.done():
            assert inbox.pending > LOW_BYTES
            await inbox.take()
            await asyncio.sleep(0)
        assert inbox.pending <= LOW_BYTES

    run(main())


def test_what_is_abandoned_has_not_arrived_and_nobody_waits_for_it() -> None:
    async def main() -> None:
        inbox = Inbox()
        for _ in range(20):
            inbox.write(record(0, 400_000))
        assert await inbox.take() is not None
        waiting = [asyncio.create_task(inbox.synced()), asyncio.create_task(inbox.room())]
        await virtual_time.elapse(1)
        pending = inbox.pending
        inbox.abandon()
        await asyncio.wait(waiting, timeout=1)
        assert all(task.done() for task in waiting)
        assert isinstance(inbox.error, ReaderGone)
        assert inbox.pending == pending
        inbox.write(LINES[0])
        assert inbox.pending == pending
        assert await inbox.take() is None

    run(main())


def test_after_the_end_there_is_nothing_to_abandon() -> None:
    async def main() -> None:
        inbox = Inbox()
        inbox.write(LINES[0])
        inbox.end()
        assert await taken(inbox) == LINES[:1]
        inbox.abandon()
        assert inbox.error is None
        assert await inbox.take() is None

    run(main())


def test_two_cannot_wait_at_once() -> None:
    async def main() -> None:
        inbox = Inbox()
        first = asyncio.create_task(inbox.take())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await inbox.take()
        inbox.write(LINES[0])
        assert await first == LINES[0]

    run(main())


def test_a_program_that_waits_for_nothing_leaves_turns_to_others() -> None:
    async def main() -> None:
        inbox = Inbox()
        for line in LINES:
            inbox.write(line)
        inbox.end()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        await taken(inbox)
        beside.cancel()
        assert turns >= len(LINES)

    run(main())
