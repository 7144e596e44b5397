"""The programs of docs/api.md, whole and as they stand there, against the simulated exchange."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path

from kraken_feed.simulator.faults.fault import Fault

from ..support.completeness import Ended, Output, compare
from ..support.installed import QUICK, finish, lines, named, site
from ..support.reader_programs import started
from ..support.repository import ROOT
from ..support.timeouts import TIMEOUT_S

PAGE = (ROOT / "docs" / "api.md").read_text()
FILLS, ORDERS, QUEUE, PAST = (
    text for text in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "asyncio.run(main())" in text
)
RECOVER = QUICK + "[backfill]\noverlap_s = 5.0\nsecond_pass_s = 0.5\nrest_counter = 1000\nrest_decay = 1000.0\n"

# Before a program, so that each line that it has committed to its queue is told on stdout. A kill is no power cut, so
# commits need not wait for a disk that other tests share.
TOLD = """
import sqlite3, sys
class Told(sqlite3.Connection):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        super().execute("PRAGMA synchronous = OFF")
    def execute(self, statement, values=()):
        self.line = values[1] if values else b""
        return super().execute(statement, values)
    def __exit__(self, *error):
        super().__exit__(*error)
        sys.stdout.buffer.write(self.line)
        sys.stdout.buffer.flush()
connect = sqlite3.connect
sqlite3.connect = lambda *path, **options: connect(*path, **options) if options else connect(*path, factory=Told)
"""


async def printed(process: asyncio.subprocess.Process, count: int) -> list[str]:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        lines = [await process.stdout.readline() for _ in range(count)]
    if not all(lines):
        raise AssertionError((await finish(process)).err)
    return [line.decode().rstrip("\n") for line in lines]


async def test_the_program_that_prints_fills_prints_every_fill(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=2) as place:
        process = await started(FILLS, tmp_path, place.environment())
        known = len([change for change in place.exchange.ledger.changes if change.trade])
        order = place.exchange.new_order(place.server.now(), volume="1.50000000")
        place.exchange.fill(order, "0.25000000", place.server.now())
        place.exchange.fill(order, "1.25000000", place.server.now())
        place.server.tick()
        trades = [change.trade for change in place.exchange.ledger.changes if change.trade]
        lines = await printed(process, len(trades))
        process.send_signal(signal.SIGINT)
        done = await finish(process)
    assert len(trades) == known + 2
    said = []
    for line in lines:
        side, volume, pair, _, price = line.split()
        said.append((side, Decimal(volume), pair, Decimal(price)))
    happened = [(trade.order.side, trade.volume, trade.order.pair.v1, trade.price) for trade in trades]
    assert sorted(said) == sorted(happened)
    assert done.err.rstrip().endswith("KeyboardInterrupt")
    assert "destroyed" not in done.err


async def test_the_program_that_keeps_the_open_orders_has_the_exchanges(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3) as place:
        exchange, server = place.exchange, place.server
        process = await started(ORDERS, tmp_path, place.environment())
        (line,) = await printed(process, 1)
        held = set(line.split()[1:])
        assert len(held) == 3

        async def until(wanted: set[str]) -> None:
            while set((await printed(process, 1))[0].split()[1:]) != wanted:
                pass

        new = exchange.new_order(server.now(), volume="1.0")
        server.tick()
        await until(held | {new})
        gone = held.pop()
        exchange.cancel(gone, server.now())
        server.tick()
        await until(held | {new})
        place.inject(Fault("drop", code=1001))
        exchange.fill(new, "1.0", server.now())
        server.tick()
        await until(held)
        process.kill()
        await finish(process)


async def test_the_program_that_forwards_has_everything_once_through_kills(tmp_path: Path) -> None:
    """SIGKILL in the middle of a busy account, three times; what happens meanwhile is in the queue, too.

    A line is printed once it is in the queue. So what is not there yet is still to be printed, and can be waited for.
    """
    ends: list[Ended] = []

    def rows() -> list[tuple[str, bytes]]:
        with closing(sqlite3.connect(tmp_path / "queue.sqlite3")) as database:
            return database.execute("SELECT id, line FROM queue ORDER BY rowid").fetchall()

    def output() -> Output:
        (tmp_path / "out").write_bytes(b"".join(line for _, line in rows()))
        output = Output(tmp_path / "out", ends)
        output.read()
        return output

    def missed() -> set[str]:
        counts = compare(output(), place.exchange.ledger.changes)
        assert min(counts["fill"].ledger, counts["entry"].ledger, counts["end"].ledger) > 20
        names = [name for count in counts.values() for name in count.lost]
        return {name for name in names if name.split(":")[1] in ("executions", "balances")}

    async with site(tmp_path, rate=60.0) as place:
        place.configure(RECOVER)
        place.exchange.keys[place.exchange.key].counter.decay = 1e9
        for _ in range(3):
            process = await started(TOLD + QUEUE, tmp_path, place.environment())
            for event in ["feed.live"] * 2 + ["execution"] * 40:
                await lines(process, named(event))
            process.kill()
            await finish(process)
            ends.append(Ended("SIGKILL", place.server.now(), sum(len(line) for _, line in rows()), b""))
        process = await started(TOLD + QUEUE, tmp_path, place.environment())
        for event in ["feed.live"] * 2 + ["execution"] * 20:
            await lines(process, named(event))
        while output().unclosed():
            await lines(process, lambda line: line["event_name"] in ("feed.backfilled", "feed.gap"))
        for account in place.exchange.accounts:
            account.engine.rate = 0.0
        left = missed()
        while left:
            (line,) = await lines(process, lambda line: True)
            left.discard(line["id"])
        assert missed() == set()
        process.send_signal(signal.SIGTERM)
        done = await finish(process)
    assert (done.code, done.err) == (0, "")
    names, last = [name for name, _ in rows()], json.loads(rows()[-1][1])
    assert last["event_name"] == "feed.stopped"
    assert len(set(names)) == len(names)
    assert output().torn == []


async def test_the_program_that_asks_for_the_past_prints_what_was_traded(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=0, past_trades=0) as place:
        place.server.tick()
        for volume in ("0.25", "0.5"):
            order = place.exchange.new_order(place.server.now(), volume=volume)
            place.exchange.fill(order, volume, place.server.now())
        done = await finish(await started(PAST, tmp_path, place.environment()))
        assert (done.code, done.err) == (0, "")
        *fills, last = done.out.decode().splitlines()
        assert [line.rpartition(" XXBTZUSD ")[2] for line in fills] == ["0.25000000", "0.50000000"]
        assert last.startswith("complete up to 20")
