"""The installed command writes rows: on a terminal with a last line below them, into a file over restarts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kraken_feed.simulator.exchange import Refused
from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import QUICK, finish, site, start, until
from ..support.on_terminal import OnTerminal, ended, on_terminal

DOWN = Refused(503, {}, b"down")
STYLES = re.compile(r"\x1b\[[0-9;]*[mJ]")


def written(terminal: OnTerminal) -> list[str]:
    """All lines that were written, as they are after what was erased."""
    text = bytes(terminal.raw).decode()
    lines = [line.rpartition("\r\x1b[J")[2] for line in text.replace("\r\n", "\n").split("\n")]
    return [STYLES.sub("", line) for line in lines]


async def test_a_terminal_shows_rows_that_fit_and_a_last_line_over_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        site(tmp_path, open_orders=3) as place,
        on_terminal(
            "openOrders", "ownTrades", "--utc", "--no-state", env=place.environment(), columns=70, lines=40
        ) as terminal,
    ):
        exchange, server = place.exchange, place.server
        await terminal.shows("live: openOrders, ownTrades; 3 open orders", "live since", "| 3 open orders |")
        order = exchange.new_order(server.now(), volume="1.50000000")
        exchange.fill(order, "0.37500000", server.now())
        server.tick()
        await terminal.shows("1.50000000  open", "0.37500000  trade", "live since")

        up = exchange.connect
        monkeypatch.setattr(exchange, "connect", lambda dialect, now: DOWN)
        place.inject(Fault("drop", code=1001, reason="restarting"))
        await terminal.shows("lost: openOrders, ownTrades; connection closed: 1001", "  down ", "| refused by Kraken")
        monkeypatch.setattr(exchange, "connect", up)
        await terminal.shows("live again after", "| recovering |")
        exchange.cancel(order, server.now())
        server.tick()
        await terminal.shows("canceled")
        canceled = next(line for line in terminal.text.split("\n") if "canceled" in line)
        assert {"XBT/USD", "buy", "1.50000000"} <= set(canceled.split()), "rows stay full over a reconnect"

        terminal.resize(60, 40)
        await terminal.shows("| recovering | 3 open | Ctrl-C stops")
        exchange.new_order(server.now(), volume="2.50000000")
        server.tick()
        await terminal.shows("2.50000000")
        terminal.type(b"\x03")
        assert await ended(terminal) == -2
        lines = written(terminal)
    assert max(map(len, lines)) <= 70
    assert sum("lost:" in line for line in lines) == 1, "a disconnect is reported once"
    assert not any("connection_lost" in line for line in lines)
    assert lines[-1] == "", "the last line is erased"
    summary = " ".join("".join(lines[-3:]).split())
    assert re.search(
        r"stopped by Ctrl-C after \d+s; \d+ order changes, 1 trade; 1 reconnect; 2 outages; 2 gaps", summary
    )


async def test_a_dumb_terminal_gets_rows_only(tmp_path: Path) -> None:
    async with (
        site(tmp_path, open_orders=1) as place,
        on_terminal("openOrders", "--no-state", env=place.environment(TERM="dumb")) as terminal,
    ):
        await terminal.shows("live: openOrders; 1 open order")
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert b"\x1b" not in terminal.raw
        assert "last frame" not in terminal.text
        assert terminal.text.count("open order") == 1


async def test_rows_in_a_file_are_full_after_a_restart_and_recovered_ones_are_marked(tmp_path: Path) -> None:
    output = tmp_path / "rows.txt"
    async with site(tmp_path, open_orders=1) as place:
        place.configure(QUICK + "[backfill]\nrest_decay = 1000.0\n")
        command = ("openOrders", "ownTrades", "--output", str(output), "--format", "console")
        exchange, server = place.exchange, place.server
        ends, stays = (exchange.new_order(server.now(), volume=volume) for volume in ("1.50000000", "2.50000000"))
        first = await start(*command, env=place.environment())
        assert await until(lambda: output.exists() and b"live: openOrders, ownTrades" in output.read_bytes())
        first.terminate()
        assert (await finish(first)).code == 0
        exchange.fill(ends, "0.37500000", server.now())
        exchange.cancel(ends, server.now())
        server.tick()
        size = output.stat().st_size
        second = await start(*command, env=place.environment())
        assert await until(lambda: b"live: openOrders, ownTrades" in output.read_bytes()[size:])
        exchange.fill(stays, "1.00000000", server.now())
        server.tick()
        wanted = (b"canceled", b" trade ", b"2.50000000      1.00000000  open")
        assert await until(lambda: all(text in output.read_bytes()[size:] for text in wanted))
        second.terminate()
        assert (await finish(second)).code == 0
    rows = [line for line in output.read_bytes()[size:].decode().splitlines() if line[:2] in ("  ", "+ ", "= ")]
    of_orders = [line for line in rows if " O" in line]
    assert of_orders
    assert not any(" - " in line for line in of_orders)
    (canceled,) = [line for line in rows if "canceled" in line]
    assert canceled.startswith("+ ")
    assert {"XBT/USD", "buy", "1.50000000", "0.37500000"} <= set(canceled.split())
