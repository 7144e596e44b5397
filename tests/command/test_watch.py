"""The installed command on a pseudo terminal: it draws, it follows, and it leaves the terminal as it was."""

from __future__ import annotations

import asyncio
import signal
import termios
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from kraken_feed.simulator.exchange import Refused
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.wire.peer import Peer

from ..support.installed import bare, run, site
from ..support.on_terminal import CLEAR, ENTER, LEAVE, OnTerminal, ended, on_terminal
from ..support.timeouts import TIMEOUT_S

DOWN = Refused(503, {}, b"down")

# Drivers: the command's own entry point, with a part of it broken.

CRASH = """
import os, sys
from kraken_feed.watch import app as watch
from kraken_feed.cli.main import main
draw = watch.draw
def broken(view):
    if view.overview.rows("main", 1):
        raise RuntimeError("the pencil broke", os.environ["KRAKEN_API_SECRET"])
    return draw(view)
watch.draw = broken
main(sys.argv[1:])
"""

CRASHED_READER = """
import sys
from kraken_feed.watch import model as overview
from kraken_feed.cli.main import main
def broken(self, record, now_ns):
    raise RuntimeError("the overview broke")
overview.Overview.take = broken
main(sys.argv[1:])
"""

LOUD = """
import sys
from kraken_feed.watch import terminal
from kraken_feed.cli.main import main
def broken(self):
    import os
    os.read(self.fd, 1)
    raise RuntimeError("the keys are stuck")
terminal.Terminal.keys = broken
main(sys.argv[1:])
"""

NO_RICH = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "rich":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from kraken_feed.cli.main import main
main(sys.argv[1:])
"""


# ------------------------------------------------------------------------------------------------ what it shows


async def test_the_screen_follows_the_account(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3) as place:
        exchange, server = place.exchange, place.server
        async with on_terminal("watch", env=place.environment()) as terminal:
            await terminal.shows("Open orders 3", "main  live since")
            order = exchange.new_order(server.now(), volume="1.50000000")
            server.tick()
            await terminal.shows("Open orders 4", "1.50000000")
            exchange.fill(order, "0.37500000", server.now())
            server.tick()
            await terminal.shows("██░░░░░░  25%", "0.37500000")
            exchange.cancel(order, server.now())
            server.tick()
            await terminal.shows("Open orders 3")
            assert "1.50000000" not in terminal.text
            terminal.process.terminate()
            assert await ended(terminal) == 0
        assert place.exchange.connections == 1


async def test_an_outage_and_its_end_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with (
        site(tmp_path, open_orders=3) as place,
        on_terminal("watch", env=place.environment(), columns=160, lines=50) as terminal,
    ):
        await terminal.shows("live since", "Open orders 3")
        up = place.exchange.connect
        monkeypatch.setattr(place.exchange, "connect", lambda dialect, now: DOWN)
        place.inject(Fault("drop", code=1001, reason="restarting"))
        await terminal.shows("down since", ": upgrade", "attempt", "Open orders 3  as of", "connection_lost")
        monkeypatch.setattr(place.exchange, "connect", up)
        await terminal.shows("live since", "1 reconnect", "1 outage", "Open orders 3")
        assert "as of" not in terminal.text
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


async def test_500_open_orders_are_counted_and_some_are_shown(tmp_path: Path) -> None:
    async with (
        site(tmp_path, open_orders=500) as place,
        on_terminal("watch", "openOrders", "ownTrades", env=place.environment()) as terminal,
    ):
        await terminal.shows("Open orders 500", "more", "Last fills")
        terminal.process.terminate()
        assert await ended(terminal) == 0


async def test_all_accounts_are_shown_account_by_account(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3, accounts=2) as place:
        place.configure(place.accounts("main", "treasury"))
        async with on_terminal("watch", "--account", "all", env=place.environment()) as terminal:
            await terminal.shows("main      live", "treasury  live", "main: 3", "treasury: 3", "Open orders 6")
            terminal.process.terminate()
            assert await ended(terminal) == 0


async def test_a_resize_draws_the_screen_anew_for_its_size(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=3) as place, on_terminal("watch", env=place.environment()) as terminal:
        await terminal.shows("Open orders 3", "volume")
        for columns, lines in ((160, 50), (40, 10), (80, 24)):
            cleared = terminal.raw.count(CLEAR)
            terminal.resize(columns, lines)
            await terminal.until(partial(fills, terminal, columns))
            await terminal.shows("Open orders 3", "buy")
            assert terminal.raw.count(CLEAR) > cleared
            assert ("status" in terminal.text, "volume" in terminal.text) == (columns == 160, columns >= 80)
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


def fills(terminal: OnTerminal, columns: int) -> bool:
    """Whether the first line goes from one side to the other."""
    line: str = terminal.screen.display[0]
    return line.startswith("kraken-feed watch") and line.endswith("UTC") and len(line) == columns


async def test_it_can_be_looked_at_without_an_account(tmp_path: Path) -> None:
    async with on_terminal("watch", "--demo", env=bare(tmp_path)) as terminal:
        await terminal.shows("demo  live since", "Open orders", "Last fills")
        terminal.type(b"q")
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


async def test_it_ends_after_so_long_if_that_is_said(tmp_path: Path) -> None:
    async with site(tmp_path) as place, on_terminal("watch", "--duration", "0.1", env=place.environment()) as terminal:
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


async def test_it_keeps_no_state_and_holds_no_lock(tmp_path: Path) -> None:
    def files() -> list[str]:
        return sorted(str(path) for path in tmp_path.rglob("*"))

    async with site(tmp_path, open_orders=3) as place, on_terminal("watch", env=place.environment()) as terminal:
        before = files()
        await terminal.shows("Open orders 3")
        beside = await run("executions", "--once", "--state", str(tmp_path / "state"), env=place.environment())
        assert beside.code == 0
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert [path for path in files() if not path.startswith(str(tmp_path / "state"))] == before


# ------------------------------------------------------------------------------------------------ how it ends


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGINT, -2), (signal.SIGQUIT, -3)]
)
async def test_a_signal_ends_it_and_the_terminal_is_as_it_was(number: int, code: int, tmp_path: Path) -> None:
    async with site(tmp_path, rate=20.0) as place, on_terminal("watch", env=place.environment()) as terminal:
        await terminal.shows("live since")
        assert not termios.tcgetattr(terminal.slave)[3] & termios.ECHO
        terminal.process.send_signal(number)
        assert await ended(terminal) == code
        assert terminal.is_as_it_was()
        assert terminal.after() == ""


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"xQ", 0), (b"\x03", -2)])
async def test_a_key_ends_it_and_no_key_is_left_to_the_shell(key: bytes, code: int, tmp_path: Path) -> None:
    async with site(tmp_path) as place, on_terminal("watch", env=place.environment()) as terminal:
        await terminal.shows("live since")
        terminal.type(key)
        assert await ended(terminal) == code
        assert terminal.is_as_it_was()
        assert terminal.after() == ""


@pytest.mark.parametrize(("driver", "said"), [(CRASH, "the pencil broke"), (CRASHED_READER, "the overview broke")])
async def test_a_crash_leaves_the_terminal_as_it_was_before_it_says_what_broke(
    driver: str, said: str, tmp_path: Path
) -> None:
    async with site(tmp_path) as place, on_terminal("watch", env=place.environment(), driver=driver) as terminal:
        assert await ended(terminal) == 1
        assert terminal.is_as_it_was()
        assert said in terminal.after()
        assert "This is a bug in kraken-feed." in terminal.after()
        assert place.exchange.secret not in terminal.raw.decode()


async def test_what_a_library_says_is_on_the_last_line_and_not_across_the_screen(tmp_path: Path) -> None:
    async with (
        site(tmp_path) as place,
        on_terminal("watch", env=place.environment(), driver=LOUD, columns=120) as terminal,
    ):
        await terminal.shows("live since")
        terminal.type(b"x")
        await terminal.until(
            lambda: "library library=asyncio text=Exception in callback" in terminal.screen.display[-1]
        )
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()
        assert b"Traceback" not in terminal.raw


async def test_what_ends_a_tail_is_said_after_the_screen(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.exchange.keys[place.exchange.key].permissions = ()
        async with on_terminal("watch", env=place.environment()) as terminal:
            code = await ended(terminal)
            assert code == 77
            assert terminal.is_as_it_was()
            assert "Kraken refused the API key" in terminal.after()


async def test_a_terminal_that_stands_still_stops_neither_the_feed_nor_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        site(tmp_path, rate=50.0) as place,
        on_terminal("watch", env=place.environment(), columns=200, lines=60) as terminal,
    ):
        await terminal.shows("live since")
        place.exchange.keys[place.exchange.key].counter.decay = 1e9
        terminal.type(b"\x13")  # Ctrl-S
        connect, connected = place.exchange.connect, asyncio.Queue[str]()

        def told(dialect: Literal["v1", "v2"], now: float) -> Peer | Refused:
            connected.put_nowait(dialect)
            return connect(dialect, now)

        monkeypatch.setattr(place.exchange, "connect", told)
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(15):  # much longer than until the next picture
                place.inject(Fault("drop", code=1001))
                await connected.get()
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


async def test_ctrl_z_gives_the_terminal_back_and_takes_it_again(tmp_path: Path) -> None:
    """Without a shell around it the system does not stop it: it goes on at once."""
    async with site(tmp_path, open_orders=3) as place, on_terminal("watch", env=place.environment()) as terminal:
        await terminal.shows("Open orders 3")
        terminal.type(b"\x1a")
        await terminal.until(lambda: terminal.raw.count(ENTER) == 2)
        assert terminal.raw.count(LEAVE) == 1
        await terminal.shows("Open orders 3")
        terminal.process.terminate()
        assert await ended(terminal) == 0
        assert terminal.is_as_it_was()


# ------------------------------------------------------------------------------------------------ what it refuses


async def test_on_a_pipe_it_names_what_to_use_instead(tmp_path: Path) -> None:
    done = await run("watch", "openOrders", "ownTrades", env=bare(tmp_path))
    assert done.code == 2
    assert done.out == b""
    assert "kraken-feed openOrders ownTrades --format json" in done.err


async def test_a_dumb_terminal_is_refused(tmp_path: Path) -> None:
    async with on_terminal("watch", env={**bare(tmp_path), "TERM": "dumb"}) as terminal:
        assert await ended(terminal) == 2
        assert "TERM" in terminal.raw.decode()
        assert ENTER not in terminal.raw


async def test_without_rich_the_extra_is_named(tmp_path: Path) -> None:
    async with on_terminal("watch", env=bare(tmp_path), driver=NO_RICH) as terminal:
        assert await ended(terminal) == 78
        assert "pip install 'kraken-feed[watch]'" in terminal.raw.decode()


async def test_balances_have_nothing_to_show(tmp_path: Path) -> None:
    async with on_terminal("watch", "executions", "balances", env=bare(tmp_path)) as terminal:
        assert await ended(terminal) == 2
        assert "balances" in terminal.raw.decode()


async def test_no_color_is_honoured(tmp_path: Path) -> None:
    async with (
        site(tmp_path, open_orders=3) as place,
        on_terminal("watch", env=place.environment(NO_COLOR="1")) as terminal,
    ):
        await terminal.shows("Open orders 3")
        assert b"\x1b[1m" in terminal.raw
        assert b"\x1b[32m" not in terminal.raw
        assert b"\x1b[1;32m" not in terminal.raw
        terminal.process.terminate()
        await ended(terminal)
