"""Rows on a pseudo terminal and the line below them: it moves down, is rewritten in place, and delays nothing."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
import tty
from unittest.mock import patch

import pyte

from kraken_feed.output.last_line import LastLine
from kraken_feed.output.sink import Sink
from kraken_feed.output.terminal import ERASE, TURN_S, TerminalRows, can_redraw, terminal_size

from ...support import virtual_time
from ...support.outputs import Failures

COLUMNS, LINES = 60, 8


class Window:
    """A terminal of 60 columns, rows on it, and what it shows."""

    def __init__(self, *, foreground: bool = True) -> None:
        self.master, self.slave = pty.openpty()
        tty.setraw(self.slave, termios.TCSANOW)
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.set_blocking(self.master, False)
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.screen.set_mode(pyte.modes.LNM)
        self._stream = pyte.ByteStream(self.screen)
        self.text = "live"
        self.alarm = False
        self.widths = list[int]()
        self.sink = Sink(self.slave, "stdout", Failures())
        self.rows = TerminalRows(self.sink, self._line, colors=False)
        self._patch = patch.object(TerminalRows, "_in_foreground", lambda rows: foreground)

    def _line(self, width: int) -> LastLine:
        self.widths.append(width)
        return LastLine(self.text, self.alarm)

    def __enter__(self) -> Window:
        self._patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.stop()
        self.rows.end()
        self.sink.close()
        for fd in (self.master, self.slave):
            os.close(fd)

    def read(self) -> bytes:
        """What was written since the last call."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                data += os.read(self.master, 65536)
        self._stream.feed(data)
        return data

    @property
    def shown(self) -> list[str]:
        """The lines on the screen, without the empty ones below."""
        self.read()
        return [line.rstrip() for line in "\n".join(self.screen.display).rstrip().split("\n")]

    def fill(self) -> None:
        """Write until the terminal takes nothing more."""
        while self.sink.blocked_since is None:
            self.rows.write(b"x" * 4000 + b"\n")
            self.sink.flush()


def test_the_line_stays_below_the_rows() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(0.01)
            assert window.shown == ["live"]
            for number in range(3):
                window.rows.write(b"row %d\n" % number)
                await virtual_time.elapse(0.5)
                assert window.shown == [*[f"row {n}" for n in range(number + 1)], "live"]
            assert window.screen.cursor.x == 0, "so that it can be erased, however wide the terminal is by then"

    virtual_time.run(main())


def test_rows_and_the_line_below_them_are_one_write() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(0.5)
            writes = window.sink.writes
            window.rows.write(b"one\n")
            window.rows.write(b"two\n")
            await virtual_time.elapse(0.0)
            assert window.sink.writes == writes + 1
            assert window.shown == ["one", "two", "live"]

    virtual_time.run(main())


def test_many_bursts_are_not_slowed_by_the_line() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            drawn = 0
            for _ in range(1000):
                window.rows.write(b"row\n")
                await virtual_time.elapse(0.001)
                drawn += window.read().count(b"live")
            assert 5 <= drawn <= 12

    virtual_time.run(main())


def test_an_unchanged_line_is_not_written_again() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(1.5)
            writes = window.sink.writes
            await virtual_time.elapse(3600.0)
            assert window.sink.writes == writes
            assert len(window.widths) <= 3603 / TURN_S
            window.text = "down"
            await virtual_time.elapse(TURN_S)
            assert window.sink.writes == writes + 1
            assert window.shown == ["down"]

    virtual_time.run(main())


def test_a_stalled_terminal_gets_no_line_and_keeps_the_rows() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(0.5)
            window.fill()
            window.rows.write(b"last\n")
            pending = window.sink.pending
            assert window.rows.make_room() is None
            for number in range(10):
                window.text = f"number {number}"
                window.rows.begin()
            assert window.sink.pending == pending
            while window.sink.pending:
                window.read()
                window.sink.flush()
            await virtual_time.elapse(TURN_S)
            assert window.shown[-2:] == ["last", "number 9"]

    virtual_time.run(main())


def test_the_line_makes_room_for_a_diagnostic() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(0.5)
            window.rows.write(b"row\n")
            room = window.rows.make_room()
            assert room is not None
            os.write(window.slave, room + b"[warning] careful\n")
            assert window.shown == ["row", "[warning] careful"]
            await virtual_time.elapse(0.5)
            assert window.shown == ["row", "[warning] careful", "live"]
            assert window.rows.make_room() == ERASE

    virtual_time.run(main())


def test_the_line_is_erased_at_the_end() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            window.rows.write(b"row\n")
            await virtual_time.elapse(0.5)
            window.rows.end()
            window.rows.write(b"stopped\n")
            await virtual_time.elapse(10.0)
            assert window.shown == ["row", "stopped"]

    virtual_time.run(main())


def test_in_the_background_there_are_rows_and_no_line() -> None:
    async def main() -> None:
        with Window(foreground=False) as window:
            window.rows.begin()
            window.rows.write(b"row\n")
            await virtual_time.elapse(5.0)
            assert window.read() == b"row\n"

    virtual_time.run(main())


def test_a_terminal_that_was_lent_keeps_what_another_program_wrote() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            await virtual_time.elapse(0.5)
            os.write(window.slave, b"\n$ fg\n")
            window.rows.redraw(lost=True)
            await virtual_time.elapse(0.5)
            assert window.shown == ["live", "$ fg", "live"]

    virtual_time.run(main())


def test_a_resized_terminal_gets_a_line_that_fits() -> None:
    async def main() -> None:
        with Window() as window:
            window.rows.begin()
            fcntl.ioctl(window.slave, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, 30, 0, 0))
            window.rows.redraw()
            await virtual_time.elapse(0.1)
            assert window.widths == [COLUMNS - 1, 29]
            assert window.shown == ["live"]

    virtual_time.run(main())


def test_what_can_redraw_a_line() -> None:
    reader, writer = os.pipe()
    master, slave = pty.openpty()
    try:
        assert can_redraw(slave, "xterm")
        assert not any(can_redraw(slave, term) for term in ("", "dumb", "unknown"))
        assert not can_redraw(writer, "xterm")
        assert terminal_size(writer) == terminal_size(slave) == (80, 24), "a terminal that does not know its size"
    finally:
        for fd in (reader, writer, master, slave):
            os.close(fd)
