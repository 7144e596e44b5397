"""The installed command over restarts: SIGKILL, a second instance, a damaged state, --since, --snapshots."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from kraken_feed.records.render import timestamp
from kraken_feed.simulator.faults.fault import Fault

from ..support.examples import some
from ..support.installed import QUICK, Site, finish, lines, logged, named, run, site, start
from ..support.timeouts import TIMEOUT_S

ALL = ("openOrders", "ownTrades", "executions", "balances")
RECOVER = QUICK + "[backfill]\noverlap_s = 5.0\nsecond_pass_s = 0.5\nrest_counter = 1000\nrest_decay = 1000.0\n"


def prepare(place: Site) -> dict[str, str]:
    place.configure(RECOVER)
    place.exchange.keys[place.exchange.key].counter.decay = 1e9
    return place.environment(STATE_DIRECTORY=str(place.home / "state"))


def tick(place: Site) -> float:
    place.server.tick()
    return place.server.now()


async def test_what_happened_after_a_sigkill_is_on_the_output_of_the_next_run(tmp_path: Path) -> None:
    """What an audit log is for: orders open, fill and end while the process is dead."""
    async with site(tmp_path, open_orders=3) as place:
        env, path = prepare(place), tmp_path / "out.jsonl"
        arguments = (*ALL, "--state", str(tmp_path / "state"), "--output", str(path))
        exchange = place.exchange
        ours = exchange.new_order(tick(place), volume="1.0")
        process = await start(*arguments, env=env)
        for _ in ALL:
            await logged(process, "live")
        exchange.fill(ours, "0.25", tick(place))
        tick(place)
        async with asyncio.timeout(TIMEOUT_S):
            while b'"vol_exec":"0.25000000"' not in path.read_bytes():  # noqa: ASYNC110  # the file has no event
                await asyncio.sleep(0)
        filled = timestamp(round(tick(place) * 1e9))
        saved = ""
        while saved < filled:
            process.send_signal(signal.SIGUSR1)
            saved = (await logged(process, "state"))["checkpoint"] or ""
        process.kill()
        await finish(process)
        exchange.fill(ours, "0.75", tick(place))
        brief = exchange.new_order(tick(place), volume="2.0")
        exchange.fill(brief, "0.5", tick(place))
        exchange.cancel(brief, tick(place))
        process = await start(*arguments, env=env)
        for _ in ALL:
            await logged(process, "backfilled")
        process.terminate()
        assert (await finish(process)).code == 0
        records = [json.loads(line) for line in path.read_bytes().splitlines()]
    for channel in ("openOrders", "executions"):
        ends = {r["order_id"] for r in records if r["channel"] == channel and r["id"].endswith(":end")}
        assert {ours, brief} <= ends
    trades = {change.trade.id for change in exchange.ledger.changes if change.trade is not None}
    for channel in ("ownTrades", "executions"):
        assert trades <= {r.get("exec_id") for r in records if r["channel"] == channel}
    closed = [r for r in records if r["event_name"] == "feed.backfilled"]
    assert {r["channel"] for r in closed} == set(ALL)
    assert {r["cause"] for r in closed} == {"restart"}
    assert not any(r["event_name"] == "feed.gap" for r in records)


async def test_a_second_instance_on_the_same_account_is_told_with_75(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        first = await start("openOrders", env=env)
        await lines(first, named("feed.live"))
        connections = place.exchange.connections
        second = await run("openOrders", env=env)
        assert place.exchange.connections == connections
        third = await run("openOrders", "--no-state", "--once", env=env)
        first.terminate()
        await finish(first)
    assert second.code == 75
    assert "--no-state" in second.log[-1]["remedy"]
    assert str(first.pid) in second.log[-1]["what"] + second.log[-1]["why"]
    assert third.code == 0


async def test_a_damaged_state_is_set_aside_and_the_start_is_a_declared_outage(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        state = tmp_path / "state"
        state.mkdir(parents=True)
        (state / "main@stdout.sqlite3").write_bytes(b"this is no database, and long enough to be one" * 100)
        process = await start("openOrders", env=env)
        (*_, gap) = await lines(process, named("feed.gap"))
        process.terminate()
        done = await finish(process)
    assert done.code == 0
    assert gap["from"] is None
    assert "beginning" in gap["reason"]
    assert any(name.name.startswith("main@stdout.sqlite3.damaged") for name in state.iterdir())
    assert any(entry["event"] == "state_damaged" for entry in done.log)


@pytest.mark.seeds
@pytest.mark.parametrize("when", some(["1d", "2h"]))
async def test_since_recovers_what_happened_before_the_first_start(when: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        order = place.exchange.new_order(tick(place))
        place.exchange.cancel(order, tick(place))
        process = await start("openOrders", "--since", when, env=env)
        seen = await lines(process, named("feed.backfilled"))
        process.terminate()
        await finish(process)
    recovered = [record for record in seen if record.get("type") == "backfill"]
    assert order in {record["order_id"] for record in recovered}
    assert seen[-1]["cause"] == "since"


@pytest.mark.parametrize("when", ["yesterday", "2999-01-31", "2x", "2026-01-31T08:00:00"])
async def test_a_time_that_is_none_is_a_usage_error(when: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("openOrders", "--since", when, env=place.environment())
    assert done.code == 2
    assert "--since" in done.err


async def counted(place: Site, env: dict[str, str], *arguments: str) -> int:
    """Items of a second connection after a drop on a quiet account."""
    process = await start("openOrders", *arguments, env=env)
    first: list[dict[str, Any]] = await lines(process, named("feed.live"))
    place.inject(Fault("drop", code=1001))
    second = await lines(process, named("feed.live"))
    process.terminate()
    await finish(process)
    assert len([record for record in first if "data" in record]) == (0 if "none" in arguments else 4)
    return len([record for record in second if "data" in record])


@pytest.mark.parametrize(("policy", "items"), [("changes", 0), ("all", 4), ("none", 0)])
async def test_snapshots_are_written_as_asked(policy: str, items: int, tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=4) as place:
        env = prepare(place)
        assert await counted(place, env, "--snapshots", policy, "--no-state") == items


async def test_no_backfill_asks_rest_for_tokens_only(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        process = await start("openOrders", "--no-backfill", env=env)
        await lines(process, named("feed.live"))
        place.inject(Fault("drop", code=1001))
        (*_, gap) = await lines(process, named("feed.gap"))
        process.terminate()
        await finish(process)
    assert gap["reason"] == "backfill is switched off"
