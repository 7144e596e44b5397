"""SIGTERM, whatever it comes into: within two seconds, everything written, the markers last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from kraken_feed.config.schema import Config
from kraken_feed.feed.environment import Limits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.state.store import Store

from ...support import memory, virtual_time
from ...support.exchange_driver import T0
from ...support.ledger_check import Published, check

CHANNELS = ("openOrders", "executions")
FOREVER = 1e9
PROMISED_S = 2.0

Prepare = Callable[[memory.Run, pytest.MonkeyPatch], None]


def nothing(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    pass


def never_answer(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    """The peer takes the connection and says nothing."""
    run.world.dialing = asyncio.Event()


def never_agree(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    """The peer does not answer the closing handshake."""

    async def close(self: memory.MemorySocket, code: int = 1000, reason: str = "") -> None:
        run.world.closed_by_us.append(code)
        await asyncio.Event().wait()

    patch.setattr(memory.MemorySocket, "close", close)
    patch.setattr(memory.MemorySocket, "transport", Mock())


def lose_and_never_agree(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    """A connection of which a channel is taken away, and whose peer does not answer the closing handshake then."""
    never_agree(run, patch)
    fault = Fault("unsubscribe", dialect="v1")
    asyncio.get_running_loop().call_later(30.0, run.world.exchange.inject, fault, T0 + 30.0)


def never_read(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    """After a minute, the output takes nothing any more."""
    takes_nothing = "kraken_feed.output.descriptor.FileOutlet.write", lambda outlet, data: 0
    asyncio.get_running_loop().call_later(60.0, patch.setattr, *takes_nothing)


def lose(run: memory.Run, patch: pytest.MonkeyPatch) -> None:
    """A outage to close."""
    asyncio.get_running_loop().call_later(30.0, run.world.exchange.inject, Fault("drop"), T0 + 30.0)


async def stopped(
    exchange: Exchange, path: Path, after: float, prepare: Prepare, patch: pytest.MonkeyPatch
) -> tuple[memory.Run, float]:
    """Stop a feed after some seconds; the run, and how long it took to stop."""
    with memory.running(exchange) as world:
        opened = Store.open(str(path.parent), "main", time.time_ns())
        run = memory.Run(world, path, CHANNELS, Config(), Limits(), store=opened.store)
        prepare(run, patch)
        task = asyncio.create_task(run.feed.run())
        await virtual_time.elapse(after)
        before = asyncio.get_running_loop().time()
        run.feed.stop("SIGTERM")
        assert await task == "SIGTERM"
        return run, asyncio.get_running_loop().time() - before


def exchange(*faults: Fault) -> Exchange:
    return Exchange(now=T0, seed=1, rate=2.0, scenario=Scenario(faults=faults))


PHASES: dict[str, tuple[tuple[Fault, ...], float, Prepare]] = {
    "connecting": ((), 1.0, never_answer),
    "waiting for the token": ((Fault("rest_timeout", at=0.0, duration=FOREVER),), 1.0, nothing),
    "subscribing": ((Fault("no_ack", at=0.0, duration=FOREVER),), 1.0, nothing),
    "live": ((), 100.0, nothing),
    "live, with a peer that is gone": ((), 100.0, never_agree),
    "closing what was lost": ((), 30.2, lose_and_never_agree),
    "backfilling": ((Fault("rest_timeout", at=0.0, duration=FOREVER, method="ClosedOrders"),), 40.0, lose),
    "backing off": ((Fault("upgrade_refused", at=0.0, duration=FOREVER, status=429),), 100.0, nothing),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_stop_is_obeyed_in_time_and_its_marker_is_last(
    phase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults, after, prepare = PHASES[phase]
    path = tmp_path / "out"
    run, took = virtual_time.run(stopped(exchange(*faults), path, after, prepare, monkeypatch))
    assert took < PROMISED_S
    last = run.lines[-2:]
    assert [line["event_name"] for line in last] == ["feed.stopped", "feed.stopped"]
    assert {line["channel"] for line in last} == set(CHANNELS)
    assert {line["reason"] for line in last} == {"SIGTERM"}
    if phase.startswith("live"):
        assert run.world.closed_by_us == [1000, 1000]
        published = [
            Published(item.connection_id, item.channel, item.sequence, item.value)
            for item in run.world.exchange.ledger.published
        ]
        assert check(path.read_bytes(), published, run.connections())["undelivered"] == 0
    if phase == "backfilling":
        assert {path for _, path, _ in run.world.calls if path.endswith("ClosedOrders")}, "it was backfilling"
        assert not run.named("feed.backfilled")
        assert not run.named("feed.gap")


def test_an_output_that_takes_nothing_does_not_keep_it_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, took = virtual_time.run(stopped(exchange(), tmp_path / "out", 100.0, never_read, monkeypatch))
    assert took < PROMISED_S
    (said,) = run.said("output_not_drained")
    assert said["bytes"] == run.sink.pending > 0
    assert run.lines[-1]["event_name"] != "feed.stopped"
