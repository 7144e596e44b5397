"""Nothing lost: every order's end and every fill is on the output, across disconnects and restarts, or in a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from kraken_feed.config.schema import BackfillConfig, Config
from kraken_feed.feed.environment import Limits
from kraken_feed.records import render
from kraken_feed.records.view import moment
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import LIKELY, RandomFaults, Scenario
from kraken_feed.simulator.rest.reply import Reply
from kraken_feed.state.checkpoint import Changes
from kraken_feed.state.store import Store

from ...support import memory, virtual_time
from ...support.examples import examples
from ...support.exchange_driver import T0

ALL = ("openOrders", "ownTrades", "executions", "balances")
PRO = Config(backfill=BackfillConfig(rest_counter=20, rest_decay=1.0))  # the tier of the exchange


class Log:
    """Runs of the feed against one exchange, appended to one output, with or without state between them."""

    def __init__(self, tmp_path: Path, exchange: Exchange, *channels: str, config: Config | None = None) -> None:
        self.exchange = exchange
        self.runs: list[memory.Run] = []
        self.path = tmp_path / "out.jsonl"
        self._directory = str(tmp_path / "state")
        self._channels = channels or ALL
        self._config = config or PRO

    async def run(self, seconds: float, *, kill: bool = False, state: bool = True, **options: Any) -> None:
        """One run for so long. A killed one is ended in the middle of everything, and nothing of it is saved."""
        await self._run(lambda run: virtual_time.elapse(seconds), kill=kill, state=state, **options)

    async def recover(self, *, least: float = 300.0, most: float = 1300.0, after: float = 200.0) -> None:
        """One run until every outage is closed or declared, and for ``after`` seconds more."""

        async def recovered(run: memory.Run) -> None:
            await virtual_time.elapse(least)
            ends = run.world.now() + most - least
            while run.feed.figures().outages.open and run.world.now() < ends:
                await virtual_time.elapse(20.0)
            await virtual_time.elapse(after)

        await self._run(recovered)

    async def _run(
        self,
        script: Callable[[memory.Run], Coroutine[Any, Any, None]],
        *,
        kill: bool = False,
        state: bool = True,
        **options: Any,
    ) -> None:
        with memory.running(self.exchange) as world:
            opened = Store.open(self._directory, "main", world.unix_ns()) if state else None
            if opened is not None:
                options |= {"store": opened.store, "checkpoint": opened.checkpoint, "found": opened.found}
            run = memory.Run(world, self.path, self._channels, self._config, Limits(), **options)
            self.runs.append(run)
            task = asyncio.create_task(run.feed.run())
            await script(run)
            if kill:
                if opened is not None:
                    opened.store.save = lambda changes: None  # type: ignore[method-assign]  # a dead process saves nothing
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                run.feed.stop("SIGTERM")
                await task
            run.sink.close()
            for socket in list(world.sockets):
                socket.peer.disconnect()

    async def away(self, seconds: float) -> None:
        """Nobody tails for so long, and the exchange goes on."""
        with memory.running(self.exchange):
            await virtual_time.elapse(seconds)

    def lines(self) -> list[dict[str, Any]]:
        return self.runs[-1].lines

    def named(self, event_name: str) -> list[dict[str, Any]]:
        return self.runs[-1].named(event_name)

    def missing(self, since: float, until: float) -> dict[str, set[str]]:
        """What happened in that time and is not on the output, by channel."""
        ends, fills = set(), set()
        for change in self.exchange.ledger.changes:
            if since <= change.at <= until:
                if change.order.terminal:
                    ends.add(change.order.id)
                if change.trade is not None:
                    fills.add(change.trade.id)
        lines = self.lines()
        missing: dict[str, set[str]] = {}
        for channel in self._channels:
            mine = [line for line in lines if line["channel"] == channel and "data" in line]
            ended = {line["order_id"] for line in mine if line["id"].endswith(":end")}
            filled = {line["exec_id"] for line in mine if "exec_id" in line}
            missing[channel] = set()
            if channel in ("openOrders", "executions"):
                missing[channel] |= ends - ended
            if channel in ("ownTrades", "executions"):
                missing[channel] |= fills - filled
        return missing

    def duplicated(self, lines: list[dict[str, Any]]) -> list[str]:
        ids = [line["id"] for line in lines]
        return sorted({name for name in ids if ids.count(name) > 1}) if len(set(ids)) < len(ids) else []


def exchange(*faults: Fault, rate: float = 1.0, seed: int = 1, **scenario: Any) -> Exchange:
    options = {"tier": "pro", **scenario}
    return Exchange(now=T0, seed=seed, rate=rate, scenario=Scenario(faults=faults, **options))


def test_what_ended_while_disconnected_is_recovered_and_the_outage_is_closed(tmp_path: Path) -> None:
    outage = Fault("upgrade_refused", at=60.0, duration=60.0)
    log = Log(tmp_path, exchange(Fault("drop", at=60.0), outage, rate=2.0))
    virtual_time.run(log.run(350.0))
    now = log.runs[-1].world.now()
    assert log.missing(T0 + 1, now - 100) == {channel: set() for channel in ALL}
    assert len(log.named("feed.lost")) == len(log.named("feed.backfilled")) == 4
    assert log.named("feed.gap") == []
    closed = {line["channel"]: line for line in log.named("feed.backfilled")}
    assert closed["openOrders"]["orders"] > 0
    assert closed["ownTrades"]["trades"] > 0
    for lost in log.named("feed.lost"):
        recovered = closed[lost["channel"]]
        assert recovered["from"] == lost["last_ts"]
        live = [x["ts"] for x in log.named("feed.live") if x["channel"] == lost["channel"]][1]
        assert live <= recovered["to"] <= render.timestamp(moment(live) + 2 * 10**9)
    assert log.duplicated(log.lines()) == []


def test_what_rest_learns_late_comes_with_the_second_pass(tmp_path: Path) -> None:
    log = Log(
        tmp_path, exchange(Fault("drop", at=60.0), Fault("upgrade_refused", at=60.0, duration=30.0), rest_lag=60.0)
    )
    virtual_time.run(log.run(350.0))
    assert log.missing(T0 + 1, log.runs[-1].world.now() - 100) == {channel: set() for channel in ALL}
    assert log.named("feed.gap") == []


def test_a_restart_closes_the_outage_between_the_runs(tmp_path: Path) -> None:
    async def main() -> Log:
        log = Log(tmp_path, exchange())
        await log.run(60.0)
        await log.away(120.0)
        await log.run(250.0)
        return log

    log = virtual_time.run(main())
    assert log.missing(T0 + 1, log.runs[-1].world.now() - 100) == {channel: set() for channel in ALL}
    assert {line["cause"] for line in log.named("feed.backfilled")} == {"restart"}
    assert log.duplicated(log.lines()) == []


def test_a_killed_run_repeats_at_most_what_it_wrote_after_its_last_checkpoint(tmp_path: Path) -> None:
    async def main() -> Log:
        log = Log(tmp_path, exchange())
        await log.run(60.7, kill=True)
        await log.away(100.0)
        await log.run(250.0)
        return log

    log = virtual_time.run(main())
    assert log.missing(T0 + 1, log.runs[-1].world.now() - 100) == {channel: set() for channel in ALL}
    first, second = log.runs
    again = log.duplicated(log.lines())
    stamps = {line["id"]: line["ts"] for line in reversed(log.lines())}
    killed = max(
        line["ts"] for line in log.lines() if (line.get("connection") or "").startswith(first.feed._shared.run)
    )
    assert all(stamps[name][:19] >= killed[:17] for name in again)
    assert second.named("feed.gap") == []


def test_a_first_start_has_no_outage(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange())
    virtual_time.run(log.run(150.0))
    assert log.named("feed.backfilled") == log.named("feed.gap") == []
    assert {line["type"] for line in log.lines() if "data" in line} == {"snapshot", "update"}


def test_since_recovers_the_history_before_a_first_start(tmp_path: Path) -> None:
    async def main() -> Log:
        log = Log(tmp_path, exchange())
        await log.away(300.0)
        await log.run(300.0, since_ns=round((T0 + 10) * 1e9))
        return log

    log = virtual_time.run(main())
    assert log.missing(T0 + 10, log.runs[-1].world.now() - 100) == {channel: set() for channel in ALL}
    assert {line["cause"] for line in log.named("feed.backfilled")} == {"since"}


def test_without_state_every_outage_is_closed_or_declared_when_the_process_stops(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange(Fault("drop", at=60.0)))
    virtual_time.run(log.run(80.0, state=False))
    assert len(log.named("feed.gap")) + len(log.named("feed.backfilled")) == 4
    assert len(log.named("feed.gap")) >= 3


def test_without_backfill_every_outage_is_a_gap(tmp_path: Path) -> None:
    config = Config(backfill=BackfillConfig(enabled=False))
    log = Log(tmp_path, exchange(Fault("drop", at=60.0)), config=config)
    virtual_time.run(log.run(120.0))
    assert {line["reason"] for line in log.named("feed.gap")} == {"backfill is switched off"}
    assert len(log.named("feed.gap")) == 4


def test_a_missing_permission_makes_gaps_that_name_it_and_stops_nothing(tmp_path: Path) -> None:
    world = exchange(Fault("drop", at=60.0))
    key = world.add_key(permissions=("create-ws-token", "query-open-trades", "query-closed-trades", "query-funds"))
    from kraken_feed.protocol.signing import Credentials

    log = Log(tmp_path, world)
    virtual_time.run(log.run(250.0, credentials=Credentials(key.key, key.secret, source="the test")))
    (gap,) = log.named("feed.gap")
    assert gap["channel"] == "balances"
    assert "query-ledger" in gap["reason"]
    assert len(log.named("feed.backfilled")) == 3


def test_a_rest_outage_longer_than_patience_is_a_gap_with_the_reason(tmp_path: Path) -> None:
    outage = Fault("rest_error", at=70.0, duration=1e9, text="EService:Unavailable", method="ClosedOrders")
    log = Log(tmp_path, exchange(Fault("drop", at=60.0), outage, rate=0.2), "openOrders")
    virtual_time.run(log.run(1200.0))
    (gap,) = log.named("feed.gap")
    assert "ClosedOrders" in gap["reason"]


def test_a_short_rest_outage_is_waited_out(tmp_path: Path) -> None:
    outage = Fault("rest_error", at=60.0, duration=200.0, text="EService:Unavailable", method="ClosedOrders")
    log = Log(tmp_path, exchange(Fault("drop", at=60.0), outage), "openOrders")
    virtual_time.run(log.run(700.0))
    assert log.named("feed.gap") == []
    assert len(log.named("feed.backfilled")) == 1


def test_maintenance_is_an_outage_from_its_beginning(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange(Fault("maintenance", at=60.0, maintenance=60.0)), "openOrders")
    virtual_time.run(log.run(300.0))
    (outage,) = log.named("feed.backfilled")
    assert outage["cause"] == "maintenance"
    down = next(line for line in log.named("feed.status") if line["engine"] == "maintenance")
    assert outage["from"] <= down["ts"]


@pytest.mark.parametrize("snapshots", ["changes", "none"])
def test_a_reconnect_writes_only_the_orders_that_have_changed(tmp_path: Path, snapshots: str) -> None:
    log = Log(tmp_path, exchange(Fault("drop", at=60.0, code=1001), rate=0.0), "openOrders", "executions", "balances")
    virtual_time.run(log.run(300.0, snapshots=snapshots))
    items = [line for line in log.lines() if "data" in line]
    first = {line["connection"] for line in log.named("feed.live")[:3]}
    assert {line["connection"] for line in items} <= first
    assert bool(items) == (snapshots == "changes")


def test_a_starter_keys_counter_is_never_exceeded(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange(Fault("drop", every=45.0), rate=0.5, tier="starter"), config=Config())
    virtual_time.run(log.run(600.0))
    limited = [e for e in log.runs[-1].diagnostics.entries if "Rate limit" in str(e)]
    assert limited == []
    assert len(log.named("feed.lost")) > 20
    assert log.named("feed.gap") == []


_KINDS = dict(LIKELY) | {"no_greeting": 1.0, "maintenance": 0.3}


def test_the_pages_of_a_window_are_asked_for_with_one_pinned_end(tmp_path: Path) -> None:
    """Rows are newest first: with an open end, rows that come while paging would shift the others."""
    log = Log(
        tmp_path,
        exchange(Fault("drop", at=60.0), Fault("upgrade_refused", at=60.0, duration=400.0), rate=3.0),
        "ownTrades",
    )
    virtual_time.run(log.run(700.0))
    pages = [parse_qs(body.decode()) for _, path, body in log.runs[-1].world.calls if path.endswith("TradesHistory")]
    first = pages[: next(number for number, page in enumerate(pages) if number and page["ofs"] == ["0"])]
    assert len(first) > 4
    assert len({page["end"][0] for page in first[1:]}) == 1, "the newest row's, as the first page shows it"
    (outage,) = log.named("feed.backfilled")
    assert abs(int(pages[0]["end"][0]) - datetime.fromisoformat(outage["to"]).timestamp()) <= 12


def test_the_checkpoint_is_written_after_the_output(tmp_path: Path) -> None:
    """A reader that stalls holds the checkpoint back: what is not out is not called known."""

    async def main() -> tuple[list[Changes], list[Changes]]:
        world = exchange(rate=5.0)
        log = Log(tmp_path, world, "openOrders")
        saves: list[Changes] = []
        with memory.running(world) as place:
            opened = Store.open(str(tmp_path / "state"), "main", place.unix_ns())
            run = memory.Run(place, log.path, ("openOrders",), Config(), Limits(), store=opened.store)
            really_save, really_drain = opened.store.save, run.sink.drained
            opened.store.save = lambda changes: saves.append(changes) or really_save(changes)  # type: ignore[method-assign, func-returns-value]
            reading = asyncio.Event()

            async def drained() -> None:
                await reading.wait()
                await really_drain()

            run.sink.drained = drained  # type: ignore[method-assign]
            task = asyncio.create_task(run.feed.run())
            await virtual_time.elapse(30.0)
            before = list(saves)
            reading.set()
            await virtual_time.elapse(5.0)
            run.feed.stop("SIGTERM")
            await task
            run.sink.close()
        return before, saves

    before, after = virtual_time.run(main())
    (first,) = before
    assert first.complete, "from when on the channel is complete"
    assert not first.entries
    assert len(after) >= 3
    assert any(changes.entries["openOrders"].orders for changes in after[1:])


@pytest.mark.parametrize("spelling", ["query_from", "queryFrom"])
def test_a_key_limited_in_time_makes_gaps_that_say_so(tmp_path: Path, spelling: str) -> None:
    world = exchange(Fault("drop", at=60.0))
    answer = world.rest

    def limited(method: str, path: str, headers: Any, body: bytes, now: float) -> Reply:
        reply = answer(method, path, headers, body, now)
        if path.endswith("GetApiKeyInfo"):
            text = b'{"error":[],"result":{"%b":"%d","permissions":[]}}' % (spelling.encode(), T0 + 1000)
            return Reply(200, {"content-type": "application/json"}, text)
        return reply

    world.rest = limited  # type: ignore[method-assign]
    log = Log(tmp_path, world)
    virtual_time.run(log.run(250.0))
    assert len(log.named("feed.gap")) == 4
    assert all("may only query from" in line["reason"] for line in log.named("feed.gap"))


def calm(exchange: Exchange) -> None:
    """No more faults by chance."""
    exchange.world.schedule._random_due = float("inf")


@settings(max_examples=examples(12), phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 2**31),
    lag=st.sampled_from([0.0, 20.0, 60.0]),
    runs=st.lists(st.tuples(st.floats(5, 120), st.booleans(), st.floats(0, 200)), max_size=3),
    every=st.sampled_from([3.0, 10.0, 40.0]),
    rate=st.sampled_from([0.5, 1.0, 2.0]),
)
@example(
    seed=1714, lag=60.0, runs=[], every=3.0, rate=2.0
)  # an early outage's second pass, and orders that went missing after it
def test_for_any_faults_and_restarts_ends_and_fills_equal_the_ledgers(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lag: float, runs: list[Any], every: float, rate: float
) -> None:
    scenario = Scenario(random=RandomFaults(every=every, kinds=_KINDS), tier="pro", rest_lag=lag)

    async def main() -> Log:
        log = Log(tmp_path_factory.mktemp("log"), Exchange(now=T0, seed=seed, rate=rate, scenario=scenario))
        await log.run(60.0)
        for seconds, kill, away in runs:
            await log.away(away)
            await log.run(seconds, kill=kill)
        calm(log.exchange)
        await log.recover()
        return log

    log = virtual_time.run(main())
    assert log.named("feed.gap") == []
    missing = log.missing(T0 + 60, log.runs[-1].world.now() - 200)
    assert missing == {channel: set() for channel in ALL}
