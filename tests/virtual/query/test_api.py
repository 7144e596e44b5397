"""A period of the past for a Python program, in virtual time: what is yielded, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from structlog.testing import LogCapture

import kraken_feed
from kraken_feed import Balance, ConfigError, Execution, HistoryIncomplete, Order, Trade, UsageError
from kraken_feed.config.schema import BackfillConfig, Config
from kraken_feed.query.reader import HistoryReader
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.quirks.quirk import Quirks

from ...support import virtual_time
from ...support.exchange_driver import T0
from ...support.history_runs import ALL, credentials, ledger_ids, network
from ...support.memory import World, running

FAST = {"backfill": {"rest_counter": 10_000, "rest_decay": 10_000.0}}
SINCE = datetime.fromtimestamp(T0 - 3600, UTC)


def play(script: Callable[[World], Coroutine[Any, Any, None]], **quirks: Any) -> None:
    exchange = Exchange(
        now=T0 - 3000, seed=2, rate=0.0, open_orders=0, past_trades=0,
        scenario=Scenario(quirks=Quirks(history_cost=0.0, **quirks)),
    )  # fmt: skip
    for number in range(20):
        order = exchange.new_order(T0 - 2900 + number, volume="1")
        exchange.fill(order, "1", T0 - 2899.5 + number)

    async def main() -> None:
        with running(exchange) as world:
            await script(world)

    virtual_time.run(main())


def history(world: World, *channels: str, **given: Any) -> kraken_feed.History:
    """``kraken_feed.history`` on that world."""
    asked = {"config": FAST, "credentials": credentials(world.exchange), "since": SINCE, **given}
    found = kraken_feed.history(*channels, **asked)
    found._make = partial(HistoryReader, **network(world))
    return found


def test_it_yields_typed_records_oldest_first_with_the_feeds_ids() -> None:
    async def script(world: World) -> None:
        found = history(world, *ALL)
        taken = [record async for record in found]
        assert {type(record) for record in taken} == {Balance, Execution, Order, Trade}
        assert {record.id for record in taken} == ledger_ids(world.exchange, ALL, 0, T0)
        times = [record.fields.get("closetm") or record.fields["time"] for record in taken]  # type: ignore[union-attr]
        assert times == sorted(times)
        assert {record.type for record in taken} == {"backfill"}  # type: ignore[union-attr]
        assert found.complete_until is not None
        assert abs(found.complete_until.timestamp() - (T0 - 900)) < 5

    play(script)


def test_without_channels_it_answers_what_was_traded() -> None:
    async def script(world: World) -> None:
        taken = [record async for record in history(world)]
        assert {record.channel for record in taken} == {"openOrders", "ownTrades"}
        taken = [record async for record in history(world, config={"channels": ["openOrders"], **FAST})]
        assert {record.channel for record in taken} == {"openOrders"}

    play(script)


def test_an_incomplete_answer_is_raised_after_the_last_record() -> None:
    async def script(world: World) -> None:
        taken: list[kraken_feed.Record] = []

        async def take() -> None:
            async for record in history(world, "openOrders"):
                taken.append(record)

        with pytest.raises(HistoryIncomplete, match="not complete") as raised:
            await take()
        assert 0 < len(taken) < 20
        assert "ClosedOrders counts" in raised.value.why

    play(script, withheld_rows=0.5, count="always")


def test_a_time_span_counts_by_krakens_clock() -> None:
    async def script(world: World) -> None:
        taken = [record async for record in history(world, "ownTrades", since=timedelta(seconds=2891))]
        assert len(taken) == 11

    play(script)


def test_an_end_bounds_it() -> None:
    async def script(world: World) -> None:
        until = datetime.fromtimestamp(T0 - 2895, UTC)
        found = history(world, "ownTrades", until=until)
        assert len([record async for record in found]) == 5
        assert found.complete_until == until

    play(script)


def test_leaving_early_frees_everything() -> None:
    async def script(world: World) -> None:
        found = history(world)
        async with contextlib.aclosing(found):
            async for _ in found:
                break
        assert [record async for record in found] == []
        assert len(asyncio.all_tasks()) == 1

    play(script)


ARGUMENTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"since": datetime(2025, 1, 1)}, UsageError, "since has no time zone"),
    ({"until": timedelta(days=-1)}, UsageError, "until must be a time between"),
    ({"until": SINCE}, UsageError, "not before"),
    ({"account": "a b"}, UsageError, "cannot name an account"),
    ({"config": {"nothing": 1}}, ConfigError, "unknown key"),
]


def test_a_wrong_argument_is_raised_when_the_iteration_begins() -> None:
    async def script(world: World) -> None:
        for given, error, text in ARGUMENTS:
            with pytest.raises(error, match=text):
                await anext(history(world, **given))
        with pytest.raises(UsageError, match="There is no channel"):
            await anext(history(world, "openorders"))

    play(script)


def test_errors_and_diagnostics_have_no_secret() -> None:
    async def script(world: World) -> None:
        log = LogCapture()
        text = f"EGeneral:Permission denied for {world.exchange.key}"
        world.exchange.inject(Fault("rest_error", at=0.0, duration=1e9, method="TradesHistory", text=text), world.now())
        found = history(world, "ownTrades", log=structlog.wrap_logger(None, processors=[log]))
        with pytest.raises(kraken_feed.CredentialsRefused, match="Permission denied for") as raised:
            await anext(found)
        assert world.exchange.key not in f"{raised.value}{log.entries}"

    play(script)


def test_the_default_configuration_is_that_of_the_command() -> None:
    async def script(world: World) -> None:
        config = Config(backfill=BackfillConfig(rest_counter=10_000, rest_decay=10_000.0))
        with patch("kraken_feed.api.load", lambda path, environ: (config, None)):
            assert len([record async for record in history(world, config=None)]) == 40

    play(script)
