"""A reader that stalls: what is read afterwards has been waiting, and the outage of a loss begins before all that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kraken_feed.output.sink import Sink
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.transport import connection

from ...support import memory, virtual_time
from ...support.examples import some
from ...support.exchange_driver import T0
from .test_recovery import Log, exchange

STALL, RELIEF = 60.0, 660.0  # seconds of the loop's clock between which nobody takes anything


@pytest.fixture(autouse=True)
def _stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(sink: Sink) -> bool:
        return STALL < asyncio.get_running_loop().time() < RELIEF

    async def room(sink: Sink) -> None:
        await virtual_time.elapse(RELIEF - asyncio.get_running_loop().time())

    monkeypatch.setattr(Sink, "full", property(full))
    monkeypatch.setattr(Sink, "room", room)


def covered(log: Log) -> None:
    """Everything is on the output, and the outage began before the stall."""
    assert log.missing(T0 + 1, T0 + 900) == {"ownTrades": set()}
    assert log.named("feed.gap") == []
    (lost,), (closed,) = log.named("feed.lost"), log.named("feed.backfilled")
    assert lost["last_ts"] == closed["from"] < "2025-10-09T08:54:30"  # the stall begins at 08:54:20


@pytest.mark.seeds
@pytest.mark.parametrize("batch", some([connection.BATCH, 1, 1_000_000]))
def test_a_connection_that_was_closed_during_the_stall_is_lost_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(connection, "BATCH", batch)
    log = Log(tmp_path, exchange(Fault("drop", at=120.0)), "ownTrades")
    virtual_time.run(log.run(1000.0))
    covered(log)


@pytest.mark.seeds
@pytest.mark.parametrize("number", some([255, 5, 700]))
def test_a_frame_that_is_missing_in_the_backlog_is_asked_for_from_the_stall_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """In the first batch of the backlog, in the second, and in a later one."""
    burst = memory.MemorySocket.burst
    taken: list[bytes] = []

    async def lossy(socket: memory.MemorySocket) -> list[bytes]:
        frames = await burst(socket)
        found = [place for place, frame in enumerate(frames) if place >= number and b'"ownTrades"' in frame]
        if len(frames) > 300 and found and not taken:
            taken.append(frames.pop(found[0]))
        return frames

    monkeypatch.setattr(memory.MemorySocket, "burst", lossy)
    log = Log(tmp_path, exchange(), "ownTrades")
    virtual_time.run(log.run(1000.0))
    covered(log)


@pytest.mark.seeds
@pytest.mark.parametrize("after", some([0.5, 0.0, 5.0]))
def test_a_kill_just_after_the_stall_loses_nothing_of_the_backlog(tmp_path: Path, after: float) -> None:
    """It is on the way to the output; the checkpoint does not call it complete before a ping behind it is answered."""
    log = Log(tmp_path, exchange(), "ownTrades")

    async def main() -> None:
        await log.run(RELIEF + after, kill=True)
        await log.run(300.0)

    virtual_time.run(main())
    assert log.missing(T0 + 1, T0 + 800) == {"ownTrades": set()}
    assert log.named("feed.gap") == []


def test_long_after_the_stall_a_loss_begins_where_it_was_heard(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange(Fault("drop", at=900.0)), "ownTrades")
    virtual_time.run(log.run(930.0))
    (lost,) = log.named("feed.lost")
    assert lost["last_ts"] > "2025-10-09T09:08"  # 900 s after 08:53:20
