"""The installed `history` on real sockets: its outputs, its signals, its ends; against the exchange's ledger."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from kraken_feed.query.spreadsheet import COLUMNS

from ..support.cases import each
from ..support.history_runs import ledger_ids, records_of
from ..support.installed import Site, finish, logged, run, said, site, start
from ..support.on_terminal import ended, on_terminal

FAST = "[backfill]\nrest_counter = 10000\nrest_decay = 10000.0\n"
SLOW = "[backfill]\nrest_decay = 6.0\n"  # a page takes two thirds of a second: it can be interrupted
CHANNELS = ("openOrders", "ownTrades")
ORDERS = 130


@asynccontextmanager
async def traded(home: Path, *, orders: int = ORDERS, config: str = FAST) -> AsyncIterator[Site]:
    """An exchange whose account has so many orders, each with one fill, and whose calls cost nothing."""
    async with site(home, open_orders=0, past_trades=0) as place:
        place.exchange.keys[place.exchange.key].counter.decay = 1e9
        place.configure(config)
        for number in range(orders):
            place.server.tick()
            order = place.exchange.new_order(place.server.now(), volume="1", cl_ord_id=f"=order;@{number}")
            place.exchange.fill(order, "1", place.server.now())
        yield place


def expected(place: Site, *channels: str) -> Counter[str]:
    return Counter(ledger_ids(place.exchange, channels or CHANNELS, 0, float("inf")))


async def reads(process: Process, rows: int) -> None:
    """Wait until it has read so many rows. SIGUSR1 asks for its state, once it has begun."""
    await said(process, '"event":"history_')
    while True:
        process.send_signal(signal.SIGUSR1)
        if (await logged(process, "state"))["rows"] >= rows:
            return


async def test_it_writes_what_the_ledger_has_to_stdout_and_says_so_on_stderr(tmp_path: Path) -> None:
    async with traded(tmp_path) as place:
        done = await run("history", "--since", "2h", env=place.environment())
        assert done.code == 0
        assert Counter(line["id"] for line in done.lines) == expected(place)
        assert [entry["event"] for entry in done.log] == ["history_begun", "history_complete"]
        assert (done.log[-1]["order"], done.log[-1]["trade"]) == (ORDERS, ORDERS)
        quiet = await run("history", "--since", "2h", "--quiet", env=place.environment())
        assert (quiet.code, quiet.err, len(quiet.lines)) == (0, "", 2 * ORDERS)
        assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]


async def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    async with traded(tmp_path, orders=900) as place:
        process = await start("history", "--since", "2h", env=place.environment(), fresh=True)
        assert process.stdout is not None
        assert json.loads(await process.stdout.readline())["type"] == "backfill"
        process.stdout._transport.close()  # type: ignore[attr-defined]  # as `head` does
        assert await process.wait() == 0


async def test_a_reader_that_leaves_ends_it_before_everything_is_read(tmp_path: Path) -> None:
    async with traded(tmp_path, config="") as place:
        process = await start("history", "--since", "2h", env=place.environment(), fresh=True)
        assert process.stdout is not None
        await reads(process, 50)
        process.stdout._transport.close()  # type: ignore[attr-defined]  # as `head` does
        assert await process.wait() == 0


async def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    async with traded(tmp_path, orders=1) as place:
        for output in (str(tmp_path), str(tmp_path / "missing" / "x.jsonl")):
            done = await run("history", "--since", "2h", "--output", output, env=place.environment())
            assert (done.code, done.out) == (74, b"")
            assert [entry["event"] for entry in done.log] == ["exit"]


async def test_killed_terminated_and_interrupted_it_continues_and_writes_each_row_once(tmp_path: Path) -> None:
    async with traded(tmp_path, config=SLOW) as place:
        env, path = place.environment(), tmp_path / "x.jsonl"
        words = ("history", *CHANNELS, "--since", "2h", "--output", str(path))
        for rows, ending in ((100, signal.SIGKILL), (110, signal.SIGTERM), (180, signal.SIGINT)):
            process = await start(*words, env=env)
            await reads(process, rows)
            process.send_signal(ending)
            done = await finish(process)
            assert done.code == -ending
            assert "x.jsonl" not in os.listdir(tmp_path)
            assert "x.jsonl.partial" in os.listdir(tmp_path)
        place.configure(FAST)
        done = await run(*words, env=env)
        assert done.code == 0
        assert done.log[0]["event"] == "history_continued"
        assert Counter(record["id"] for record in records_of(path)) == expected(place)
        assert [name for name in os.listdir(tmp_path) if name.startswith("x.")] == ["x.jsonl"]


async def test_a_second_run_with_the_same_output_is_refused(tmp_path: Path) -> None:
    async with traded(tmp_path, config=SLOW) as place:
        words = ("history", "openOrders", "--since", "2h", "--output", str(tmp_path / "x.jsonl"))
        process = await start(*words, env=place.environment())
        await reads(process, 100)
        second = await run(*words, env=place.environment())
        assert second.code == 75
        assert "Another `kraken-feed history` is writing" in second.log[-1]["what"]
        process.terminate()
        await finish(process)


async def test_csv_opens_with_the_standard_library_and_has_no_formula(tmp_path: Path) -> None:
    async with traded(tmp_path, orders=20) as place:
        done = await run("history", *CHANNELS, "balances", "--since", "2h", "--format", "csv", env=place.environment())
        assert done.code == 0
        head, *rows = csv.reader(io.StringIO(done.out.decode(), newline=""))
        assert tuple(head) == COLUMNS
        assert {len(row) for row in rows} == {len(COLUMNS)}
        found = [dict(zip(head, row, strict=True)) for row in rows]
        assert Counter(row["id"] for row in found) == expected(place, *CHANNELS, "balances")
        clients = {row["cl_ord_id"] for row in found} - {""}
        assert clients == {f"'=order;'@{number}" for number in range(20)}
        # By a spreadsheet's rules, where commas and where semicolons separate.
        for separator in ",;":
            cells = [cell for row in csv.reader(io.StringIO(done.out.decode()), delimiter=separator) for cell in row]
            begin = [cell for cell in cells if cell.lstrip()[:1] in ("=", "+", "-", "@", "\t", "\r")]
            assert all(re.fullmatch(r"-[0-9]+(\.[0-9]+)?", cell) for cell in begin)
        # Numbers are those of the JSON, digit by digit.
        as_json = (await run("history", "ownTrades", "--since", "2h", env=place.environment())).lines
        fills = {row["trade_id"]: row for row in found if row["trade_id"]}
        for line in as_json:
            row, data = fills[line["exec_id"]], line["data"]
            assert [row[name] for name in ("price", "volume", "cost", "fee")] == [
                data[name] for name in ("price", "vol", "cost", "fee")
            ]


async def test_a_terminal_shows_the_progress_then_the_rows_then_how_complete_they_are(tmp_path: Path) -> None:
    async with (
        traded(tmp_path, config=SLOW) as place,
        on_terminal("history", "openOrders", "--since", "2h", env=place.environment()) as terminal,
    ):
        await terminal.shows("orders: 100 rows, back to ", "(call counter)")
        assert not any("row" in line for line in terminal.text.splitlines()[1:])
        place.configure(FAST)  # too late for this process
        os.write(terminal.master, b"\x03")
        await terminal.shows("kraken-feed: interrupted.")
        assert await ended(terminal) == -signal.SIGINT
        async with on_terminal("history", "--since", "2h", env=place.environment(), columns=120) as fast:
            await fast.shows(f"kraken-feed: {ORDERS} orders, {ORDERS} fills since ", "Complete up to ")
            assert await ended(fast) == 0
            assert b"waits" not in fast.raw
            rows = [line for line in fast.text.splitlines() if "XBT" in line]
            assert len(rows) > 10


async def test_a_missing_permission_is_named(tmp_path: Path) -> None:
    async with traded(tmp_path, orders=1) as place:
        place.exchange.keys[place.exchange.key].permissions = ("create-ws-token", "query-open-trades")
        done = await run("history", "--since", "2h", env=place.environment())
        assert done.code == 77
        assert '"Query closed orders & trades" (query-closed-trades)' in done.log[-1]["why"]


USAGE: list[tuple[tuple[str, ...], str]] = [
    ((), "--since"),
    (("--since", "tomorrow"), "--since"),
    (("--since", "2099-01-01"), "--since"),
    (("--since", "1h", "--until", "2h"), "not before"),
    (("--since", "1h", "openorders"), "Did you mean openOrders?"),
    (("--since", "1h", "--account", "a b"), "cannot name an account"),
]


@each(("words", "text"), USAGE)
async def test_a_wrong_command_line_is_refused(words: tuple[str, ...], text: str, tmp_path: Path) -> None:
    env = {"KRAKEN_API_KEY": "k" * 56, "KRAKEN_API_SECRET": "c2VjcmV0", "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    done = await run("history", *words, env={**env, "HOME": str(tmp_path)})
    assert (done.code, done.out) == (2, b"")
    assert text in done.err
