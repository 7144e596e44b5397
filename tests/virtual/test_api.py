"""Records for a Python program, in virtual time: what comes, how it ends, and what is said."""

from __future__ import annotations

import asyncio
import gc
import traceback
import weakref
from pathlib import Path

import pytest
import structlog
from structlog.testing import LogCapture

from kraken_feed.config.schema import Config, ReconnectConfig
from kraken_feed.errors import CredentialsRefused, OutageTooLong, StateHeld
from kraken_feed.feed.endpoint import EndpointFeed
from kraken_feed.feed.environment import Limits
from kraken_feed.output import destination, queue
from kraken_feed.protocol.signing import Credentials
from kraken_feed.records.types import Backfilled, Gap, Item, Live, Lost, Record, Stopped
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import RandomFaults, Scenario
from kraken_feed.state.store import Store

from ..support import virtual_time
from ..support.memory import World
from ..support.reader_programs import ALL, compared, play, reading, through

# ------------------------------------------------------------------------------------------------ what comes


def test_every_published_item_is_yielded_once_with_its_bytes_or_lies_in_a_declared_outage(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        wanted = {"limits": Limits(duration=450.0), "snapshots": "all", "backfill": False}
        async with reading(world, state, *ALL, **wanted) as records:
            taken = await through(records)
        counts = compared(world, taken)
        assert counts["written"] > 1000
        assert any(isinstance(record, Lost) for record in taken)

    play(script, tmp_path, scenario=Scenario(random=RandomFaults(every=30.0)))


def test_an_outage_is_closed_as_for_the_command(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        world.exchange.inject(Fault("drop", at=100.0, code=1001), world.now())
        async with reading(world, state, "executions", limits=Limits(duration=400.0)) as records:
            taken = await through(records)
        assert [type(record) for record in taken if not isinstance(record, Item)] == [
            Live, Lost, Live, Backfilled, Stopped,
        ]  # fmt: skip

    play(script, tmp_path)


@pytest.mark.parametrize(
    ("limits", "reason"), [(Limits(once=True), "once"), (Limits(count=7), "count"), (Limits(duration=5.0), "duration")]
)
def test_a_limit_ends_the_iteration(limits: Limits, reason: str, tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        async with reading(world, state, limits=limits) as records:
            taken = await through(records)
            assert [record async for record in records] == []
        assert isinstance(taken[-1], Stopped)
        assert taken[-1].reason == reason
        if limits.count:
            assert sum(isinstance(record, Item) for record in taken) == limits.count

    play(script, tmp_path)


def test_a_slow_program_is_waited_for_within_bounds_and_that_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    high = 40_000
    monkeypatch.setattr(destination, "HIGH_BYTES", high)
    monkeypatch.setattr(queue, "LOW_BYTES", high // 4)

    async def script(world: World, state: Path) -> None:
        taken: list[Record] = []
        async with reading(world, state, "openOrders", limits=Limits(duration=900.0)) as records:
            async for record in records:
                taken.append(record)
                waiting = records._inbox
                if len(taken) % 100 == 1:
                    await virtual_time.elapse(200.0 if len(taken) == 1 else 30.0)
                if len(taken) == 1:  # later what the kernel would hold comes at once: here it has no bound
                    assert high < waiting.pending < 2 * high
        assert len(taken) > 1000
        assert not any(isinstance(record, Lost | Gap) for record in taken)

    play(script, tmp_path, rate=3.0)


# ------------------------------------------------------------------------------------------------ errors


def test_a_state_that_somebody_has_is_refused_at_the_door(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        key = reading(world, state)._plan().credentials["main"]
        async with reading(world, state):
            with pytest.raises(StateHeld):
                async with reading(world, state, credentials={"first": key, "main": key}):
                    raise AssertionError("entered")
            Store.open(str(state), "first", 0).store.close()  # what was opened before it is free again

    play(script, tmp_path)


def test_a_refused_key_is_raised_after_the_last_record(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        world.exchange.inject(Fault("rest_error", at=0.0, duration=1e9, text="EAPI:Invalid key"), world.now())
        async with reading(world, state, *ALL) as records:
            assert [type(await anext(records)) for _ in ALL] == [Stopped] * 4
            with pytest.raises(CredentialsRefused, match="refused the API key") as raised:
                await anext(records)
            assert await through(records) == []
            assert world.exchange.key not in str(raised.value)

    play(script, tmp_path)


def test_a_refused_account_stops_alone(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        said, exchange = LogCapture(), world.exchange
        keys = {
            "main": Credentials(exchange.key, exchange.secret),
            "other": Credentials("x" * 56, exchange.secret),
        }
        log = structlog.wrap_logger(None, processors=[said])
        async with reading(world, state, credentials=keys, log=log) as records:
            asyncio.get_running_loop().call_later(60.0, records.stop)
            taken = await through(records)
        assert [entry["account"] for entry in said.entries if entry["event"] == "account_stopped"] == ["other"]
        reasons = {record.account: record.reason for record in taken if isinstance(record, Stopped)}
        assert reasons["main"] == "stop"
        assert "refused the API key" in reasons["other"]

    play(script, tmp_path)


def test_an_error_that_quotes_a_secret_is_raised_without_it(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        text = f"EGeneral:Permission denied for {world.exchange.key}"
        world.exchange.inject(Fault("rest_error", at=0.0, duration=1e9, text=text), world.now())
        async with reading(world, state) as records:
            with pytest.raises(CredentialsRefused, match="Permission denied for") as raised:
                await through(records)
        assert world.exchange.key not in str(raised.value)
        assert world.exchange.key not in "".join(traceback.format_exception(raised.value))

    play(script, tmp_path)


def test_nothing_waits_for_a_duration_that_is_not_over(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        records = reading(world, state, limits=Limits(duration=1e6))
        async with records:
            await through(records, 3)
        feeds = weakref.ref(records._feeds.feeds[0]) if records._feeds is not None else None
        assert feeds is not None
        del records
        gc.collect()
        assert feeds() is None

    play(script, tmp_path)


def test_a_defect_is_raised_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: EndpointFeed) -> None:
        raise ZeroDivisionError

    async def script(world: World, state: Path) -> None:
        monkeypatch.setattr(EndpointFeed, "_token", broken)
        async with reading(world, state) as records:
            with pytest.raises(ExceptionGroup) as raised:
                await through(records)
        assert raised.value.subgroup(ZeroDivisionError)
        with pytest.raises(ExceptionGroup):
            async with reading(world, state) as records:
                await virtual_time.elapse(60.0)

    play(script, tmp_path)


def test_an_error_that_the_program_does_not_wait_for_is_not_raised_when_it_leaves(tmp_path: Path) -> None:
    async def script(world: World, state: Path) -> None:
        world.network = False
        policy = Config(reconnect=ReconnectConfig(max_outage_s=20.0))
        async with reading(world, state, config=policy) as records:
            await virtual_time.elapse(60.0)
            assert records.figures()[0].stopped
        async with reading(world, state, config=policy) as records:
            with pytest.raises(OutageTooLong):
                await through(records)

    play(script, tmp_path)
