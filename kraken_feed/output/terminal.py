"""Write rows to a terminal, and keep a line below them that is rewritten in place.

Everything goes through the sink, in one order, and nothing waits: while the terminal takes nothing (Ctrl-S), the line
is not written. The cursor stays in the first cell of the line. So one sequence erases it, also if it takes two lines
since the terminal became narrower.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from .last_line import NO_LINE, LastLine
from .sink import Sink

ERASE = b"\r\x1b[J"  # from the line's beginning to the end of the screen
TURN_S = 1.0  # between two looks at the text
REDRAW_S = 0.1  # between two drawings while rows come: more cannot be read
USUAL = (80, 24)  # of a terminal that does not know its size
ALARM, CALM = "33", "2"  # yellow, dim


def can_redraw(fd: int, term: str) -> bool:
    """Return whether a line can be rewritten on this descriptor: it is a terminal that can move its cursor."""
    return os.isatty(fd) and term not in ("", "dumb", "unknown")


def terminal_size(fd: int) -> tuple[int, int]:
    """Return the columns and the lines of the terminal."""
    try:
        columns, lines = os.get_terminal_size(fd)
    except OSError:
        return USUAL
    return (columns, lines) if columns and lines else USUAL


@dataclass(eq=False, repr=False)
class TerminalRows:
    """Takes the lines of rows for the sink, and draws the last line below them, from :meth:`begin` to :meth:`end`."""

    sink: Sink
    text: Callable[[int], LastLine]  # makes the last line for a width
    colors: bool

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._line = NO_LINE
        self._shown = False  # whether the line is on the screen, or will be once the sink has written everything
        self._drawn_at = 0.0
        self._turn: asyncio.Handle | None = None  # while the line is drawn
        self._redraw: asyncio.Handle | None = None

    def begin(self) -> None:
        """Draw the line from now on. Look at its text once per second, and write it if it has changed."""
        self._turn = self._loop.call_later(TURN_S, self.begin)
        line = self.text(terminal_size(self.sink.fd)[0] - 1)  # some terminals wrap when a line is full
        if line != self._line or not self._shown:
            self._line = line
            self._draw()

    def end(self) -> None:
        """Erase the line, and draw none from now on."""
        for handle in (self._turn, self._redraw):
            if handle is not None:
                handle.cancel()
        self._turn = self._redraw = None
        self._line = NO_LINE
        if self._shown:
            self.sink.write(self._erased(), 0)

    def write(self, line: bytes, count: int = 1) -> None:
        """Write rows. The last line moves below them, if possible with the same write."""
        if line:
            self._redraw_soon()
            self.sink.write(self._erased() + line, count)

    def redraw(self, *, lost: bool = False) -> None:
        """Draw the line again: the terminal has another size, or another program has used it (``lost``)."""
        if self._turn is not None:
            self._turn.cancel()
            self._line, self._shown = NO_LINE, self._shown and not lost
            self.begin()

    def make_room(self) -> bytes | None:
        """Return what has to be written before a diagnostic on the same terminal; None if it cannot be written now,
        because rows are still waiting."""
        self.sink.flush()
        if self.sink.blocked_since is not None:
            return None
        self._redraw_soon()
        return self._erased()

    def _erased(self) -> bytes:
        shown, self._shown = self._shown, False
        return ERASE if shown else b""

    def _redraw_soon(self) -> None:
        if self._turn is None or self._redraw is not None:
            return
        wait = self._drawn_at + REDRAW_S - self._loop.time()
        if wait > 0:
            self._redraw = self._loop.call_later(wait, self._draw)
        else:  # in this iteration of the loop, before the sink writes
            self._redraw = self._loop.call_soon(self._draw)

    def _draw(self) -> None:
        self._redraw = None
        if self.sink.blocked_since is not None or not self._line.text or not self._in_foreground():
            return
        self._drawn_at, self._shown = self._loop.time(), True
        text = self._line.text.encode("utf-8", "backslashreplace")
        if self.colors:
            text = b"\x1b[%bm%b\x1b[0m" % ((ALARM if self._line.alarm else CALM).encode(), text)
        self.sink.write(b"\r%b\x1b[J\r" % text, 0)

    def _in_foreground(self) -> bool:
        """Return whether the terminal is ours. In the background, a shell or an editor has the last line."""
        try:
            return os.tcgetpgrp(self.sink.fd) == os.getpgrp()
        except OSError:  # it is not the terminal that controls this process
            return False
