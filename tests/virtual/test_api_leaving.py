"""Every way out of a program's loop: all is closed in time, and the next run recovers what was not taken."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from kraken_feed.api import Records
from kraken_feed.feed.environment import Limits
from kraken_feed.records.types import Gap, Record, Stopped

from ..support import memory, virtual_time
from ..support.completeness import Ended, Output, compare
from ..support.examples import some
from ..support.memory import World
from ..support.reader_programs import ALL, compared, held, play, reading, through

PROMISED_S = 2.0


# ------------------------------------------------------------------------------------------------ the ways out


def test_stop_ends_after_what_was_received_and_the_checkpoint_has_all_of_it(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        async with reading(world, state, *ALL) as records:
            first = await through(records, 50)
            await virtual_time.elapse(30.0)
            records.stop()
            received = records._inbox.pending
            first += await through(records)
            assert received > 1000
        assert [type(record) for record in first[-4:]] == [Stopped] * 4
        assert world.closed_by_us == [1000, 1000]
        async with reading(world, state, *ALL, limits=Limits(duration=200.0)) as records:
            again = await through(records)
        assert not {record.id for record in first} & {record.id for record in again}
        assert not any(isinstance(record, Gap) for record in again)

    play(script, tmp_path)


def test_after_a_stop_a_program_may_take_its_time(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        async with reading(world, state, *ALL) as records:
            await virtual_time.elapse(20.0)
            records.stop()
            first = []
            async for record in records:
                first.append(record.id)
                await virtual_time.elapse(7.0)
                assert held(state)
        async with reading(world, state, *ALL, limits=Limits(duration=200.0)) as records:
            assert not set(first) & {record.id for record in await through(records)}

    play(script, tmp_path)


async def leave_by_break(records: Records) -> None:
    async with records:
        await through(records, 5)


async def leave_by_exception(records: Records) -> None:
    async def program() -> None:
        async with records:
            await anext(records)
            raise KeyError("the program's")

    with pytest.raises(KeyError):
        await program()


async def leave_by_deadline(records: Records) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(40.0), records:
            await through(records)


async def leave_by_cancelling(records: Records) -> None:
    async def program() -> None:
        async with records:
            await through(records)

    task = asyncio.create_task(program())
    await virtual_time.elapse(40.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def leave_by_cancelling_while_leaving(records: Records) -> None:
    async def program() -> None:
        async with records:
            await virtual_time.elapse(40.0)

    task = asyncio.create_task(program())
    await virtual_time.elapse(40.0)
    while not task.done():
        task.cancel()
        await virtual_time.elapse(0.1)
    assert task.cancelled()


async def leave_at_once(records: Records) -> None:
    async with records:
        pass


async def leave_after_stop(records: Records) -> None:
    async with records:
        await virtual_time.elapse(40.0)
        records.stop()
        records.stop()


WITH_RECORDS = [leave_by_break, leave_by_exception]
WAYS = [
    leave_by_deadline, leave_by_cancelling, leave_by_cancelling_while_leaving, leave_at_once, leave_after_stop,
]  # fmt: skip


def nothing(world: World, patch: pytest.MonkeyPatch) -> None:
    pass


def never_answer(world: World, patch: pytest.MonkeyPatch) -> None:
    """The peer takes the connection and says nothing."""
    world.dialing = asyncio.Event()


def never_agree(world: World, patch: pytest.MonkeyPatch) -> None:
    """The peer does not answer the closing handshake."""

    async def close(self: memory.MemorySocket, code: int = 1000, reason: str = "") -> None:
        world.closed_by_us.append(code)
        world.sockets.discard(self)
        await asyncio.Event().wait()

    patch.setattr(memory.MemorySocket, "close", close)
    patch.setattr(memory.MemorySocket, "transport", Mock())


def no_network(world: World, patch: pytest.MonkeyPatch) -> None:
    world.network = False


@pytest.mark.parametrize(
    ("way", "peer"),
    [
        *itertools.product(WAYS, [nothing, never_answer, never_agree, no_network]),
        *itertools.product(WITH_RECORDS, [nothing, never_agree]),
    ],
)
def test_every_way_out_closes_everything_in_time(
    way: Callable[[Records], Coroutine[Any, Any, None]],
    peer: Callable[[World, pytest.MonkeyPatch], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script(world: World, state: Path) -> None:
        peer(world, monkeypatch)
        records = reading(world, state, *ALL)
        loop, leaving = asyncio.get_running_loop(), Records.__aexit__
        spent: list[float] = []

        async def timed(*arguments: Any) -> None:
            since = loop.time()
            try:
                await leaving(*arguments)
            finally:
                spent.append(loop.time() - since)

        monkeypatch.setattr(Records, "__aexit__", timed)
        await way(records)
        assert len(spent) == 1
        assert spent[0] <= PROMISED_S

    play(script, tmp_path)


@pytest.mark.parametrize("seconds", [0.0, 0.3, 30.0], ids=["at once", "connecting", "live"])
def test_a_task_that_iterates_while_another_leaves_comes_to_its_end(tmp_path: Path, seconds: float) -> None:
    async def script(world: World, state: Path) -> None:
        async with reading(world, state, *ALL) as records:
            iterating = asyncio.create_task(through(records))
            await virtual_time.elapse(seconds)
        await iterating

    play(script, tmp_path)


def test_a_loop_that_cancels_all_of_its_tasks_closes_everything(tmp_path: Path) -> None:
    """As ``asyncio.run`` does at its end, also to a tail whose context nobody leaves."""

    async def script(world: World, state: Path) -> None:
        records = reading(world, state, *ALL)
        await records.__aenter__()
        await virtual_time.elapse(40.0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        async with asyncio.timeout(PROMISED_S):
            await asyncio.wait(others)
        with pytest.raises(asyncio.CancelledError):
            await through(records)

    play(script, tmp_path)


# ------------------------------------------------------------------------------------------------ nothing is lost


def test_a_wait_that_is_cancelled_loses_nothing(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        taken: list[Record] = []
        async with reading(world, state, *ALL, limits=Limits(duration=60.0), snapshots="all") as records:
            over = False
            while not over:
                try:
                    async with asyncio.timeout(0.05):
                        async for record in records:
                            taken.append(record)
                        over = True
                except TimeoutError:
                    continue
        counts = compared(world, taken)
        assert counts["undelivered"] == 0
        assert counts["written"] > 100

    play(script, tmp_path, rate=10.0)


def test_a_body_that_is_cancelled_can_go_on_with_the_next_record(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        taken: list[Record] = []
        async with reading(world, state, *ALL, limits=Limits(duration=60.0), snapshots="all") as records:
            while not (taken and isinstance(taken[-1], Stopped) and records._inbox._ended):
                try:
                    async with asyncio.timeout(2.5):
                        async for record in records:
                            taken.append(record)
                            await virtual_time.elapse(0.9)
                except TimeoutError:
                    continue
        assert compared(world, taken)["undelivered"] == 0

    play(script, tmp_path, rate=0.5)


@pytest.mark.seeds
@pytest.mark.parametrize("seed", some(range(3)))
def test_what_a_program_leaves_behind_is_recovered_by_its_next_run(seed: int, tmp_path: Path) -> None:
    """Runs that take a while, fall behind, and leave in the middle of what they have; the last one takes it all."""
    path, ends = tmp_path / "out", list[Ended]()

    async def script(world: World, state: Path) -> None:
        with path.open("ab") as out:
            for run in range(5):
                await virtual_time.elapse(30.0)
                limits = Limits(duration=700.0) if run == 4 else Limits()
                async with reading(world, state, *ALL, limits=limits) as records:
                    count = 0
                    async for record in records:
                        if run < 4 and count == 40 + 17 * seed:
                            break  # with this record in hand: it is not done with
                        out.write(record.line)
                        count += 1
                        await virtual_time.elapse(0.0 if run == 4 else 0.3 * seed)
                if run < 4:
                    ends.append(Ended("left", world.now(), out.tell(), b""))
        output = Output(path, ends)
        output.read()
        counts = compare(output, world.exchange.ledger.changes)
        assert all(count.lost == [] for count in counts.values()), counts
        assert all(count.declared == 0 and count.ledger > 20 for count in counts.values())
        assert output.unclosed() == []
        assert output.torn == []
        assert output.within == []

    play(script, tmp_path / "state", rate=1.0)
