"""The rows of a tail, and on a terminal the last line below them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..output.console import Rows, encoded
from ..output.last_line import NO_LINE, LastLine, last_line, summary
from ..output.selection import EVERYTHING
from ..output.terminal import TerminalRows, can_redraw, terminal_size
from ..output.zone import Zone
from ..telemetry.loggers import feed_logger, wants_color
from .rows import same_terminal

if TYPE_CHECKING:
    from ..feed.supervisor import Supervisor
    from ..output.sink import Sink

WIDTH = 160  # of rows that go to a file or a pipe, unless $COLUMNS says otherwise
LAST_S = 0.5  # for the terminal to take the summary: a stop takes two seconds at most, and most of them are used up


def _local_offset(second: int) -> int:
    """Return by how many seconds this machine's zone is ahead of UTC at a time."""
    try:
        return time.localtime(second).tm_gmtoff
    except (ValueError, OverflowError, OSError):
        return 0


def make_rows(fd: int, environ: Mapping[str, str], *, utc: bool, **options: Any) -> Rows:
    """Return rows for a descriptor: as wide as its terminal, or as $COLUMNS says. ``options`` are those of Rows."""
    columns = environ.get("COLUMNS", "")
    width, height = int(columns) if columns.isdecimal() else WIDTH, 0
    if os.isatty(fd):
        width, height = terminal_size(fd)
    zone = Zone() if utc else Zone(_local_offset)
    return Rows(colors=wants_color(fd, environ), width=width, height=height, zone=zone, **options)


class RowOutput:
    """The rows of a tail, and the last line below them if they go to a terminal.

    Args:
        sink: where rows go.
        arguments: of ``tail`` or ``demo``.
        channels: the channels of every account.
        accounts: the names of all accounts.
        feeds: returns the feeds; None while they are not there yet.
    """

    def __init__(
        self,
        sink: Sink,
        arguments: argparse.Namespace,
        channels: Sequence[str],
        accounts: Sequence[str],
        feeds: Callable[[], Supervisor | None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._sink, self._feeds = sink, feeds
        self._rows = make_rows(
            sink.fd,
            environ,
            utc=arguments.utc,
            accounts=accounts,
            channels=channels,
            known=self._known,
            selection=arguments.selection or EVERYTHING,
        )
        self._on_terminal = os.isatty(sink.fd)
        self._began = time.monotonic()
        self._line: TerminalRows | None = None
        if can_redraw(sink.fd, environ.get("TERM", "")):
            self._line = TerminalRows(sink, self._last_line, wants_color(sink.fd, environ))
        self.log = feed_logger(self._line or sink, self._rows)

    def begin(self) -> None:
        """Take over what earlier runs have written, and show the last line. The feeds are there, and do not run yet."""
        feeds = self._feeds()
        assert feeds is not None
        for feed in feeds.feeds:
            for channel in feed.continued:
                self._rows.learn(feed.account, channel)
        if self._on_terminal:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGWINCH, self._resize)
            loop.add_signal_handler(signal.SIGCONT, self._resume)
        if self._line is not None:
            self._line.begin()

    def make_room(self) -> bytes | None:
        """Return what to write before a diagnostic; see :meth:`TerminalRows.make_room`."""
        if self._line is None or not same_terminal(self._sink.fd, 2):
            return b""
        return self._line.make_room()

    def stop(self) -> None:
        """Show the last line no more."""
        if self._line is not None:
            self._line.end()

    async def end(self, reason: str) -> None:
        """Write the row that sums up the run, which ended for this reason."""
        self.stop()
        feeds = self._feeds()
        if feeds is None or reason == "once" or self._sink.error is not None:
            return
        text = summary(
            feeds.figures(), reason, time.monotonic() - self._began,
            self._rows.shown, self._rows.recovered, self._rows.hidden,
        )  # fmt: skip
        self._sink.write(encoded(self._rows.sentence(text, time.time_ns())), 0)
        with contextlib.suppress(TimeoutError):  # the terminal is stopped
            async with asyncio.timeout(LAST_S):
                await self._sink.drained()

    def _known(self, account: str, channel: str) -> Mapping[str, Sequence[bytes]]:
        feeds = self._feeds()
        return {} if feeds is None else feeds.orders(account, channel)

    def _last_line(self, width: int) -> LastLine:
        feeds = self._feeds()
        return NO_LINE if feeds is None else last_line(feeds.figures(), time.time_ns(), self._rows.zone, width)

    def _resize(self) -> None:
        self._rows.resize(*terminal_size(self._sink.fd))
        if self._line is not None:
            self._line.redraw()

    def _resume(self) -> None:
        """Handle the end of a Ctrl-Z: the shell has used the terminal."""
        self._rows.resize(*terminal_size(self._sink.fd))
        if self._line is not None:
            self._line.redraw(lost=True)
