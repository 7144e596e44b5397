"""`history` into a file: interrupted, continued, written once; against the exchange's ledger, in virtual time."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from kraken_feed.config.schema import BackfillConfig, Config
from kraken_feed.errors import HistoryIncomplete, OutputHeld, Transient, UsageError
from kraken_feed.output.sink import Sink
from kraken_feed.query import spreadsheet
from kraken_feed.query.spool import Spool
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.quirks.quirk import Quirks

from ...support import virtual_time
from ...support.exchange_driver import T0
from ...support.history_runs import command, item_time, ledger_ids, records_of
from ...support.memory import World, running

FAST = Config(backfill=BackfillConfig(rest_counter=10_000, rest_decay=10_000.0))
SINCE = "2025-10-09T07:00:00Z"  # about two hours before T0


def exchange_with(orders: int, fills: int, **scenario: Any) -> Exchange:
    """An exchange with a Starter key, and orders that were filled in parts within the last two hours."""
    exchange = Exchange(
        now=T0 - 6000, seed=2, rate=0.0, open_orders=0, past_trades=0, scenario=Scenario(tier="starter", **scenario)
    )
    for number in range(orders):
        opened = T0 - 5900 + number * 5000 / orders
        order = exchange.new_order(opened, volume=str(fills))
        for part in range(fills):
            exchange.fill(order, "1", opened + 0.1 + part * 0.01)
    return exchange


def play(script: Callable[[World], Coroutine[Any, Any, None]], exchange: Exchange | None = None) -> None:
    free = Scenario(quirks=Quirks(history_cost=0.0))
    made = exchange or Exchange(now=T0 - 6000, seed=2, rate=0.0, open_orders=0, past_trades=0, scenario=free)
    if exchange is None:
        for number in range(40):
            order = made.new_order(T0 - 5000 + number, volume="2", cl_ord_id=f"grid-{number}")
            made.fill(order, "1", T0 - 4999.5 + number)
            made.fill(order, "1", T0 - 4999.4 + number)

    async def main() -> None:
        with running(made) as world:
            await script(world)

    virtual_time.run(main())


def parameters(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode()))


async def interrupted(world: World, after: float, *words: str) -> str:
    """Run the command, and interrupt it after so many seconds as Ctrl-C does; return the signal that ended it."""
    one = command(world, *words)
    asyncio.get_running_loop().call_later(after, one.stop, "SIGINT")
    return await one.run()


# -- the whole


def test_2000_fills_on_a_starter_key_are_those_of_the_ledger_after_two_interruptions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exchange, path = exchange_with(400, 5), tmp_path / "fills.jsonl"
    words = ("ownTrades", "openOrders", "--since", SINCE, "--output", str(path))

    async def script(world: World) -> None:
        begun, paused = world.now(), 20.0 + 500.0
        assert await interrupted(world, 100.0, *words) == "SIGINT"
        assert not path.exists()
        await virtual_time.elapse(20.0)
        assert await interrupted(world, 150.0, *words) == "SIGINT"
        await virtual_time.elapse(500.0)
        assert await command(world, *words).run() == ""
        took = world.now() - begun - paused

        # Each page was requested once: 8 of orders, 40 of fills, and an empty one of each list.
        asked = [(route.rpartition("/")[2], parameters(body).get("ofs")) for _, route, body in world.calls]
        pages = [call for call in asked if call[1] is not None]
        assert Counter(pages) == {
            **{("ClosedOrders", str(offset)): 1 for offset in range(0, 401, 50)},
            **{("TradesHistory", str(offset)): 1 for offset in range(0, 2001, 50)},
        }
        # The counter went on as it was: no call was refused (see below), and no wait was longer than it demands. The
        # pauses have emptied it, of 14 points at most.
        points = 4.0 * len(pages) + asked.count(("GetApiKeyInfo", None))
        assert points - 8 - 6.6 - 14 <= took * 0.33 <= points - 8

    play(script, exchange)
    written = records_of(path)
    assert [record["type"] for record in written] == ["backfill"] * 2400
    assert Counter(record["id"] for record in written) == Counter(
        ledger_ids(exchange, ["ownTrades", "openOrders"], 0, T0)
    )
    times = [item_time(record) for record in written]
    assert times == sorted(times)
    assert {record["connection"] for record in written} == {written[0]["connection"]}
    log = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [entry["event"] for entry in log if entry["level"] != "info"] == []
    assert [entry["event"] for entry in log] == [
        "history_begun", "history_interrupted", "history_continued", "history_interrupted", "history_continued",
        "history_complete",
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["fills.jsonl"]


@pytest.mark.parametrize("fmt", ["json", "csv", "console"])
def test_an_interruption_while_the_result_is_written_neither_tears_nor_repeats_a_line(
    fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("executions", "--since", SINCE, "--format", fmt, "--output")
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    async def script(world: World) -> None:
        assert await command(world, *words, str(whole), config=FAST).run() == ""
        expected = whole.read_bytes().splitlines(keepends=True)
        written, write = 0, Sink.write

        def failing(sink: Sink, line: bytes, count: int = 1) -> None:
            nonlocal written
            written += 1
            if written == 50:
                sink.flush()
                os.write(sink.fd, line[: len(line) // 2])  # as a power cut does
                raise KeyboardInterrupt
            write(sink, line, count)

        monkeypatch.setattr(Sink, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            await command(world, *words, str(broken), config=FAST).run()
        monkeypatch.undo()
        assert len(broken.read_bytes().splitlines()) == 50
        assert await command(world, *words, str(broken), config=FAST).run() == ""
        found = broken.read_bytes().splitlines(keepends=True)
        if fmt == "json":  # each query has a name and times of its own
            assert [json.loads(line)["id"] for line in found] == [json.loads(line)["id"] for line in expected]
        else:
            assert len(found) == len(expected)
        assert sorted(os.listdir(tmp_path)) == ["broken", "broken.torn", "whole"]

    play(script)


def test_lines_of_other_programs_in_between_stay_and_nothing_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, write = tmp_path / "x.jsonl", Sink.write
    path.write_text('{"id":"before"}\n')
    words = ("executions", "--since", SINCE, "--output", str(path))

    async def script(world: World) -> None:
        written = 0

        def failing(sink: Sink, line: bytes, count: int = 1) -> None:
            nonlocal written
            written += 1
            if written in (30, 60):
                sink.flush()
                with path.open("a") as file:
                    file.write('{"id":"other"}\n')
            if written == 60:
                raise KeyboardInterrupt
            write(sink, line, count)

        monkeypatch.setattr(Sink, "write", failing)
        with pytest.raises(KeyboardInterrupt):
            await command(world, *words, config=FAST).run()
        monkeypatch.undo()
        await command(world, *words, config=FAST).run()
        ids = [record["id"] for record in records_of(path)]
        ours = [name for name in ids if name not in ("before", "other")]
        assert Counter(ours) == Counter(ledger_ids(world.exchange, ["executions"], 0, T0))
        assert ids.count("other") == 2
        assert ids[0] == "before"

    play(script)


def test_a_result_whose_file_was_removed_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl"
    words = ("executions", "--since", SINCE, "--output", str(path))

    async def script(world: World) -> None:
        path.write_text("{}\n" * 3)
        monkeypatch.setattr(Spool, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            await command(world, *words, config=FAST).run()
        monkeypatch.undo()
        path.unlink()
        await command(world, *words, config=FAST).run()
        assert len(records_of(path)) == 120

    play(script)


def test_the_same_command_after_the_end_asks_again_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"

    async def script(world: World) -> None:
        for _ in range(2):
            await command(world, "openOrders", "--since", SINCE, "--output", str(path), config=FAST).run()
        ids = Counter(record["id"] for record in records_of(path))
        assert set(ids.values()) == {2}

    play(script)


# -- what is refused


OTHER_WORDS = [
    ("ownTrades", "--since", SINCE),
    ("openOrders", "--since", "2025-10-09T07:00:01Z"),
    ("openOrders", "--since", SINCE, "--until", "2025-10-09T08:00:00Z"),
    ("openOrders", "--since", SINCE, "--account", "other"),
    ("openOrders", "--since", SINCE, "--format", "csv"),
]


def test_other_words_do_not_continue_an_interrupted_query(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"

    async def script(world: World) -> None:
        first = ("openOrders", "--since", SINCE, "--output", str(path))
        assert await interrupted(world, 30.0, *first) == "SIGINT"
        for words in OTHER_WORDS:
            with pytest.raises(UsageError, match="has an unfinished history: openOrders --since") as raised:
                await command(world, *words, "--output", str(path)).run()
            assert f"remove {path}.partial" in raised.value.remedy
            assert raised.value.why.startswith("This one differs in: ")
        assert await command(world, *first).run() == ""

    play(script, exchange_with(200, 1))


def test_a_second_run_with_the_same_output_is_refused(tmp_path: Path) -> None:
    words = ("openOrders", "--since", SINCE, "--output", str(tmp_path / "x.jsonl"))

    async def script(world: World) -> None:
        first = asyncio.create_task(command(world, *words).run())
        await virtual_time.elapse(20.0)
        with pytest.raises(OutputHeld, match=r"Another `kraken-feed history` is writing .*x\.jsonl") as raised:
            await command(world, *words).run()
        assert raised.value.exit_code == 75
        await first

    play(script, exchange_with(200, 1))


@pytest.mark.parametrize("content", [b"text", b"SQLite format 3\0" + bytes(200)])
def test_a_file_of_another_program_in_the_spools_place_is_not_touched(content: bytes, tmp_path: Path) -> None:
    partial = tmp_path / "x.jsonl.partial"
    partial.write_bytes(content)

    async def script(world: World) -> None:
        with pytest.raises(UsageError, match="is not a file of kraken-feed"):
            await command(world, "--since", SINCE, "--output", str(tmp_path / "x.jsonl")).run()

    play(script)
    assert partial.read_bytes() == content


def test_a_database_of_another_program_in_the_spools_place_is_not_touched(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "x.jsonl.partial") as database:
        database.execute("CREATE TABLE mine (n)")

    async def script(world: World) -> None:
        with pytest.raises(UsageError, match="is not a file of kraken-feed"):
            await command(world, "--since", SINCE, "--output", str(tmp_path / "x.jsonl")).run()

    play(script)


# -- csv


def test_csv_has_one_header_and_is_appended_to_only_its_own_kind(tmp_path: Path) -> None:
    path, other = tmp_path / "x.csv", tmp_path / "other.csv"
    other.write_text("date,amount\n")

    async def script(world: World) -> None:
        for channel in ("openOrders", "ownTrades", "balances"):
            await command(world, channel, "--since", SINCE, "--output", str(path), config=FAST).run()
        with pytest.raises(UsageError, match="does not begin with the columns"):
            await command(world, "--since", SINCE, "--output", str(other), config=FAST).run()
        with pytest.raises(UsageError, match="is a CSV"):
            await command(world, "--since", SINCE, "--output", str(path), "--format", "json").run()

    play(script)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == spreadsheet.COLUMNS
    assert Counter(row["kind"] for row in rows) == {"order": 40, "trade": 80, "ledger": 160}
    assert path.read_bytes().count(b"time_utc") == 1


def test_a_torn_header_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(spreadsheet.header()[:20])

    async def script(world: World) -> None:
        await command(world, "openOrders", "--since", SINCE, "--output", str(path), config=FAST).run()

    play(script)
    assert path.read_bytes().startswith(spreadsheet.header())
    assert path.read_bytes().count(b"\n") == 41


# -- the end


def test_what_is_missing_is_said_and_what_was_found_is_written(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    quirks = Quirks(history_cost=0.0, withheld_rows=0.1, count="always")
    exchange = exchange_with(100, 1, quirks=quirks)

    async def script(world: World) -> None:
        with pytest.raises(HistoryIncomplete, match="The history is not complete") as raised:
            await command(world, "openOrders", "--since", SINCE, "--output", str(path), config=FAST).run()
        assert "ClosedOrders counts" in raised.value.why
        assert f"written: {len(records_of(path))} orders" in raised.value.what
        assert os.listdir(tmp_path) == ["x.jsonl"]

    play(script, exchange)


def test_a_period_that_is_not_proven_says_when_to_run_it_again(tmp_path: Path) -> None:
    async def script(world: World) -> None:
        words = ("--since", "2025-10-09T08:50:00Z", "--until", "2025-10-09T08:52:00Z")
        with pytest.raises(HistoryIncomplete) as raised:
            await command(world, *words, "--output", str(tmp_path / "x"), config=FAST).run()
        assert raised.value.remedy == (
            "Run it again after 2025-10-09 09:07:00 UTC, with --since 2025-10-09T08:50:00Z "
            "--until 2025-10-09T08:52:00Z. Then give another --output: this file has the records of now."
        )
        assert "Nothing proves that it had caught up with 2025-10-09 08:52:00 UTC" in raised.value.why

    play(script)


def test_an_outage_says_that_the_same_command_continues(tmp_path: Path) -> None:
    exchange, path = exchange_with(200, 1), tmp_path / "x.jsonl"
    exchange.inject(Fault("http_502", at=40.0, duration=1000.0), T0)

    async def script(world: World) -> None:
        words = ("openOrders", "--since", SINCE)
        with pytest.raises(Transient, match="did not answer in time") as raised:
            await command(world, *words, "--output", str(path)).run()
        assert "The same command continues (" in raised.value.remedy
        await virtual_time.elapse(1000.0)
        assert await command(world, *words, "--output", str(path)).run() == ""
        assert len(records_of(path)) == 200

    play(script, exchange)


def test_a_relative_time_is_resolved_once(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    exchange = exchange_with(200, 1)

    async def script(world: World) -> None:
        words = ("openOrders", "--since", "1h", "--output", str(path))
        assert await interrupted(world, 30.0, *words) == "SIGINT"
        await virtual_time.elapse(7200.0)
        assert await command(world, *words).run() == ""

    play(script, exchange)
    assert {record["id"] for record in records_of(path)} == ledger_ids(exchange, ["openOrders"], T0 - 3600, T0)
