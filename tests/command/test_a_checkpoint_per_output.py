"""A newcomer's day: terminals, queries, files, redirections and pipes, of one account, in any order."""

from __future__ import annotations

import json
import os
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.state.checkpoint import Changes
from kraken_feed.state.store import Store

from ..support.installed import Done, Site, finish, logged, run, said, site, start
from ..support.on_terminal import on_terminal

RECOVER = "[backfill]\nsecond_pass_s = 0.3\nrest_decay = 1000.0\n"


def prepare(place: Site) -> dict[str, str]:
    place.configure(RECOVER)
    place.exchange.keys[place.exchange.key].counter.decay = 1e9
    return place.environment()


def happen(place: Site) -> tuple[str, str]:
    """Let an order be opened, and another one be opened and end: the ids of both."""
    place.server.tick()
    now = place.server.now()
    stays, ends = place.exchange.new_order(now), place.exchange.new_order(now)
    place.exchange.cancel(ends, now)
    return stays, ends


async def tail_once(*arguments: str, env: dict[str, str], recovers: bool = False, stdout: int = PIPE) -> Done:
    """Tail until it is live, or has recovered what was missed; then stop it."""
    process = await start("openOrders", *arguments, env=env, stdout=stdout)
    before = await said(process, '"event":"backfilled"' if recovers else '"event":"live"')
    process.terminate()
    done: Done = await finish(process)
    assert done.code == 0, done.err
    return Done(done.code, done.out, before + done.err)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def opened(records: Sequence[dict[str, Any]]) -> set[str]:
    return {r["order_id"] for r in records if r.get("type") == "snapshot"}


def ended(records: Sequence[dict[str, Any]]) -> set[str]:
    return {r["order_id"] for r in records if r["id"].endswith(":end")}


async def test_looking_elsewhere_makes_no_output_miss_a_record(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3) as place:
        env = prepare(place)
        first = set(place.exchange.accounts[0].book.open)

        # Two runs on a terminal, and two queries: each shows every open order.
        for _ in range(2):
            async with on_terminal("openOrders", env=env) as terminal:
                await terminal.until(lambda: terminal.text.count(" open") >= 3)
            done = await run("openOrders", "--once", env=env)
            assert (done.code, opened(done.lines)) == (0, first)
        assert not (tmp_path / ".local").exists()  # nothing of this is an output with a checkpoint

        # A file has all of them, and what ends while it is not written to; the same for a redirected one.
        path, redirected = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
        await tail_once("--output", str(path), env=env)
        with redirected.open("wb") as file:
            await tail_once(env=env, stdout=file.fileno())
        stays, ends = happen(place)
        done = await run("openOrders", "--once", env=env)
        assert opened(done.lines) == {*first, stays}
        await tail_once("--output", str(path), env=env, recovers=True)
        with redirected.open("ab") as file:
            await tail_once(env=env, stdout=file.fileno(), recovers=True)
        for written in (path, redirected):
            records = read(written)
            assert opened(records) == {*first, stays}
            assert ended(records) == {ends}
            assert len({r["id"] for r in records}) == len(records)

        # A file that was emptied gets every open order again, and what was missed.
        stays2, ends2 = happen(place)
        with redirected.open("wb") as file:
            await tail_once(env=env, stdout=file.fileno(), recovers=True)
        assert opened(read(redirected)) == {*first, stays, stays2}
        assert ended(read(redirected)) == {ends2}
        states = {name.removesuffix(".sqlite3") for name in os.listdir(tmp_path / ".local/state/kraken-feed")}
        assert {f"main@{str(p).replace('/', '%')}" for p in (path, redirected)} <= states


async def test_a_pipe_has_a_checkpoint_only_with_a_directory_and_says_so(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3) as place:
        env = prepare(place)
        first = set(place.exchange.accounts[0].book.open)
        without = [await tail_once(env=env), await tail_once(env=env)]
        assert [opened(done.lines) for done in without] == [first, first]
        (notice,) = [entry for entry in without[0].log if entry["event"] == "no_checkpoint"]
        assert "--state" in notice["remedy"]

        state = ("--state", str(tmp_path / "state"))
        done = await tail_once(*state, env=env)
        assert opened(done.lines) == first
        assert "no_checkpoint" not in {entry["event"] for entry in done.log}
        stays, ends = happen(place)
        done = await tail_once(*state, env=env, recovers=True)
        assert (opened(done.lines), ended(done.lines)) == ({stays}, {ends})
        assert (tmp_path / "state" / "main@stdout.sqlite3").exists()


async def test_two_outputs_run_side_by_side_and_one_output_is_written_once(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        one, other = (str(tmp_path / name) for name in ("one.jsonl", "other.jsonl"))
        running = [await start("openOrders", "--output", path, env=env) for path in (one, other)]
        for process in running:
            await logged(process, "live")
        second = await run("openOrders", "--output", one, env=env)
        for process in running:
            process.terminate()
            assert (await finish(process)).code == 0
    assert second.code == 75
    assert str(running[0].pid) in second.log[-1]["what"]


async def test_since_is_refused_where_a_checkpoint_exists_with_what_it_needs(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        output = ("--output", str(tmp_path / "x.jsonl"))
        await tail_once(*output, "--since", "1h", env=env, recovers=True)
        done = await run("openOrders", *output, "--since", "1h", env=env)
    assert done.code == 2
    assert "--since needs an output that has no checkpoint" in done.err
    assert "history --since" in done.err


async def test_a_services_earlier_state_is_taken_over_and_any_other_is_set_aside(tmp_path: Path) -> None:
    def earlier(directory: Path) -> None:
        store = Store.open(str(directory), "main", 0).store
        changes = Changes(nonce=1, saved_ns=2, complete={"openOrders": (int(place.server.now()) - 60) * 10**9})
        store.save(changes)
        store.close()

    async with site(tmp_path) as place:
        env = prepare(place)
        _, ends = happen(place)
        earlier(tmp_path / "service")
        output = ("--output", str(tmp_path / "x.jsonl"))
        await tail_once(*output, env=env | {"STATE_DIRECTORY": str(tmp_path / "service")}, recovers=True)
        assert ends in ended(read(tmp_path / "x.jsonl"))
        assert not (tmp_path / "service" / "main.sqlite3").exists()

        earlier(tmp_path / "own")
        done = await tail_once("--output", str(tmp_path / "y.jsonl"), "--state", str(tmp_path / "own"), env=env)
        (notice,) = [entry for entry in done.log if entry["event"] == "state_of_earlier_version"]
        assert Path(notice["kept_as"]).name.startswith("main.sqlite3.earlier-")
        assert not (tmp_path / "own" / "main.sqlite3").exists()
        assert ended(read(tmp_path / "y.jsonl")) == set()


async def test_once_that_cannot_answer_ends_with_69_and_the_reason(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = prepare(place)
        place.inject(Fault("upgrade_refused", duration=600.0))
        done = await run("openOrders", "--once", "--timeout", "0.5s", env=env)
    assert done.code == 69
    assert "did not come within 0.5 s" in done.err
    assert "openOrders" in done.err
    assert done.named("order") == []


async def test_a_count_that_is_not_reached_within_the_duration_ends_with_69(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=2) as place:
        env = prepare(place)
        done = await run("openOrders", "--count", "5", "--duration", "1s", env=env)
        enough = await run("openOrders", "--count", "2", "--duration", "1m", env=env)
    assert done.code == 69
    assert "Only 2 of 5 items came within 1 s." in done.err
    assert (enough.code, len(enough.named("order"))) == (0, 2)
