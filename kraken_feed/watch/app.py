"""Run `kraken-feed watch`: a tail whose records are shown on the screen of a terminal.

It is a separate tail without a state: it holds no lock, writes no checkpoint, and does not disturb a service for the
same account. While the screen is shown, nothing else is written to the terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..api import Records
from ..config.schema import Config
from ..errors import UsageError
from ..feed.builder import Plan
from ..feed.environment import Limits
from ..protocol.signing import Credentials
from ..service.signals import end_by_signal
from ..telemetry.loggers import pin_libraries, program_logger
from .model import Overview
from .screen import NOTICES, Painter, Said, View, draw
from .terminal import Terminal

CHANNELS = ("executions",)  # orders and fills in one, over one connection
FRAME_S = 0.2  # between two pictures: faster changes cannot be read
UNSHOWN = ("connection", "exception")  # fields of a diagnostic that are only for the log, or need many lines
AGES_S = 1.0  # after which the picture is redrawn even without news, to update the ages


class Notices:
    """Keeps the last warnings and errors of the diagnostics for the screen. They come masked and escaped."""

    def __init__(self) -> None:
        self.last: deque[Said] = deque(maxlen=NOTICES)

    def debug(self, event: str, /, **fields: Any) -> None:
        """Ignore the event: it is not for the screen."""

    def info(self, event: str, /, **fields: Any) -> None:
        """Ignore the event: the screen shows normal operation itself."""

    def warning(self, event: str, /, **fields: Any) -> None:
        self._keep("warning", event, fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._keep("error", event, fields)

    def _keep(self, level: str, event: str, fields: dict[str, Any]) -> None:
        said = [f"{key}={value}" for key, value in fields.items() if value not in ("", None) and key not in UNSHOWN]
        self.last.append(Said(time.time_ns(), level, " ".join([event, *said])))


def check(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``channels`` if ``watch`` can show each of them; else raise UsageError."""
    if "balances" in channels:
        raise UsageError("watch shows orders and fills, but balances has neither.", remedy="Leave out balances.")
    return channels


async def watch(
    arguments: argparse.Namespace, config: Config, channels: tuple[str, ...], credentials: Mapping[str, Credentials]
) -> str:
    """Watch ``channels`` of every account until a signal, the key ``q``, a limit or an error; return the reason.

    Raises:
        FeedError: an error that ends the run.
    """
    plan = Plan(
        config=config,
        channels=channels,
        credentials=credentials,
        state=None,
        backfill=not arguments.no_backfill,
        snapshots="all",
        limits=Limits(duration=arguments.duration),
    )
    notices, colors = Notices(), not os.environ.get("NO_COLOR")
    pin_libraries(program_logger(notices, arguments.secrets), arguments.secrets)
    async with Records(lambda: plan, notices, secrets=arguments.secrets) as records:
        with Terminal(1) as terminal:
            return await Watch(records, Overview(channels), notices, terminal, Painter(colors=colors)).run()


@dataclass(eq=False, repr=False)
class Watch:
    """Puts records on an overview, and draws the overview on the screen."""

    records: Records  # entered, with complete snapshots
    overview: Overview  # for their channels
    notices: Notices  # receives their diagnostics
    terminal: Terminal  # entered
    painter: Painter
    reason: str = ""  # why it ends
    news: bool = True  # whether anything changed since the last picture
    drawn: float = 0.0

    async def run(self) -> str:
        """Draw until a signal, a key, a limit or an error ends it; return the reason."""
        with self._signals():
            reading = asyncio.create_task(self._read())
            try:
                while not reading.done():
                    self._draw()
                    if self.terminal.gone:
                        self._end("SIGHUP")
                    await asyncio.wait([reading], timeout=FRAME_S)
            finally:
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([reading])
            reading.result()
        return self.reason

    async def _read(self) -> None:
        async for record in self.records:
            self.overview.take(record, time.time_ns())
            self.news = True

    def _draw(self) -> None:
        """Draw the screen, if something new is on it or the ages have to be updated."""
        now = time.monotonic()
        if self.terminal.busy or not (self.news or now - self.drawn >= AGES_S):
            return
        width, height = self.terminal.size()
        view = View(self.overview, self.records.figures(), tuple(self.notices.last), width, height, time.time_ns())
        self.terminal.show(self.painter.paint(draw(view)))
        self.news, self.drawn = False, now

    # -- keys and signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop, fd = asyncio.get_running_loop(), self.terminal.fd
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        loop.add_signal_handler(signal.SIGWINCH, self._resize)
        loop.add_reader(fd, self._key)
        try:
            yield
        finally:
            loop.remove_reader(fd)
            for number in (signal.SIGTSTP, signal.SIGWINCH):  # the screen is gone
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        """Stop after what was received is taken. A second signal, or SIGQUIT, ends it at once."""
        if self.reason or number == signal.SIGQUIT:
            self.terminal.leave()
            end_by_signal(number)
        self._end(signal.Signals(number).name)

    def _end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.records.stop()

    def _suspend(self) -> None:
        """Give the terminal back to the shell on Ctrl-Z, and take it again when the program continues."""
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGTSTP)  # so that the system's default applies: nothing, without a shell
        self.terminal.leave()
        os.kill(os.getpid(), signal.SIGTSTP)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        self.terminal.enter()
        self._resize()

    def _resize(self) -> None:
        self.terminal.renew()
        self.news = True

    def _key(self) -> None:
        if b"q" in self.terminal.keys().lower():
            self._end("q")
        if self.terminal.gone:
            asyncio.get_running_loop().remove_reader(self.terminal.fd)
