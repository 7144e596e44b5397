"""Run the tail once: open the output, diagnostics and state, and handle signals."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from .. import __version__
from ..config.schema import Config
from ..errors import FeedError, OutputFailed
from ..feed.builder import Fail, Plan, assemble
from ..feed.environment import Limits
from ..feed.supervisor import Supervisor
from ..output.sink import Sink
from ..protocol.signing import Credentials
from ..state.place import kind_of, place_for
from ..telemetry.loggers import (
    FeedLogger,
    Level,
    diagnostics_logger,
    feed_logger,
    render_for_terminal,
    render_record,
    wants_color,
)
from ..telemetry.stats import Output, Program
from ..telemetry.status import state
from ..telemetry.stderr import Stderr, json_line
from ..text import Secrets
from . import rows, signals
from .systemd import Lifecycle, Notifier

if TYPE_CHECKING:
    from .listener import Listener
    from .row_output import RowOutput

STALE = 2  # times silence_s: the session ends a silent connection itself, and its timer may be late


async def serve(
    arguments: argparse.Namespace,
    config: Config,
    channels: Sequence[str],
    credentials: Mapping[str, Credentials],
    notifier: Notifier | None = None,
    watchdog: float | None = None,
) -> str:
    """Tail ``channels`` of every account until a signal, a limit or an error ends it; return the reason.

    ``notifier`` sends to systemd; ``watchdog`` is systemd's interval in seconds.

    Raises:
        FeedError: an error that ends the run.
    """
    service = Service(arguments, config, channels, credentials, notifier or Notifier(None), watchdog)
    signals.handle_signals(service)
    return await service.run()


@dataclass(eq=False, repr=False)
class Service:
    """The surroundings of a process's feeds: what they write to, and who is notified about them."""

    arguments: argparse.Namespace  # of ``tail`` or ``demo``
    config: Config
    channels: Sequence[str]  # of every account
    credentials: Mapping[str, Credentials]  # by account
    notifier: Notifier
    watchdog: float | None  # systemd's interval in seconds

    def __post_init__(self) -> None:
        self._stderr = Stderr(sys.stderr)
        self._log = diagnostics(self.arguments, self.credentials.values(), self._stderr)
        self._secrets: Secrets = self.arguments.secrets
        self._started_ns = time.time_ns()
        self._plan = _plan(self.arguments, self.config, self.channels, self.credentials)
        self._starting: asyncio.Task[Supervisor] | None = None
        self._feeds: Supervisor | None = None  # None until everything is open
        self._sink: Sink | None = None
        self._rows: RowOutput | None = None  # if rows are written
        self._unavailable = ""  # what the start waits for
        self._stopped = ""  # the signal that asked for the end
        self._lifecycle = Lifecycle(self.notifier, self.program, watchdog=self.watchdog, log=self._log)
        self._listener: Listener | None = None
        self._posts: asyncio.Task[None] | None = None

    async def run(self) -> str:
        """Run until a signal, a limit or an error ends it; return the reason.

        Raises:
            FeedError: an error that ends the run.
        """
        reason = ""
        try:
            feeds = await self._start()
            reason = self._stopped if feeds is None else await feeds.run()
            return reason
        except FeedError as error:
            reason = self._secrets.mask_long(error.what)
            raise
        finally:
            if self._rows is not None:
                await self._rows.end(reason)
            self._lifecycle.stopping(reason)
            if self._posts is not None:
                await self._posts
            if self._listener is not None:
                self._listener.close()
            if self._sink is not None:
                self._sink.close()

    # -- called by signals

    @property
    def reopens(self) -> bool:
        return bool(self.arguments.output != "-")

    def stop(self, reason: str) -> None:
        self._log.info("stopping", signal=reason)
        self._lifecycle.stopping(reason)
        self._stopped = reason
        if self._rows is not None:
            self._rows.stop()
        if self._feeds is not None:
            self._feeds.stop(reason)
        elif self._starting is not None:
            self._starting.cancel()

    def reopen(self) -> None:
        if self._sink is None or not self.reopens:
            self._log.info("nothing_to_reopen", output=self._name)
            return
        with self._lifecycle.reloading():
            try:
                self._sink.reopen()
            except OutputFailed as error:
                self._log.error("output_not_reopened", path=self._sink.path, reason=error.why)
            else:
                self._log.info("output_reopened", path=self._sink.path)

    def tell(self) -> None:
        self._stderr.info(json_line(sys.stderr, {"event": "state", **state(self.program())}))

    def program(self) -> Program:
        """Return everything there is to say about the process, for systemd, scrapers and SIGUSR1."""
        return Program(
            accounts=() if self._feeds is None else tuple(self._feeds.figures()),
            output=Output(self._name) if self._sink is None else self._sink.figures(),
            version=__version__,
            started_ns=self._started_ns,
            stopping=self._stopped if self._feeds is None else self._feeds.reason,
            held=self._unavailable,
        )

    # -- start

    @property
    def _name(self) -> str:
        return "stdout" if self.arguments.output == "-" else str(self.arguments.output)

    async def _start(self) -> Supervisor | None:
        """Open states and output, and wait for them if necessary; return None if a signal ends the wait."""
        self._starting = asyncio.create_task(
            assemble(
                self._plan,
                self._open_output,
                log=self._log,
                secrets=self._secrets,
                changed=self._lifecycle.changed,
                unavailable=self._note_unavailable,
            )
        )
        await asyncio.wait([self._starting])
        if self._starting.cancelled():
            return None
        self._feeds = self._starting.result()
        self._say_without_checkpoint()
        if self._stopped:  # a signal came after the task ended
            self._feeds.stop(self._stopped)
        if self._rows is not None:
            self._rows.begin()
        self._speak()
        return self._feeds

    def _say_without_checkpoint(self) -> None:
        """Say that a pipe has no checkpoint, and how to get one; or that a terminal has none."""
        arguments = self.arguments
        if self._plan.state is not None or getattr(arguments, "no_state", True) or arguments.once:
            return
        if kind_of(arguments.output) == "stream":
            self._log.warning(
                "no_checkpoint",
                output=self._name,
                what="what is missed between two runs is not recovered",
                remedy="name a directory with --state, or write to a file with --output",
            )
        elif arguments.state:
            self._log.warning("state_not_used", what="a terminal keeps no records, so it has no checkpoint")

    def _note_unavailable(self, error: FeedError | None) -> None:
        """Note what the start waits for, and report it."""
        self._unavailable = "" if error is None else self._secrets.mask_long(f"{error.what} {error.why}")
        self._speak()
        self._lifecycle.changed()

    def _speak(self) -> None:
        """Start to report to systemd and over HTTP, unless that has started. It starts when there is something to wait
        for, or when all is open, but only once it is clear that no other instance holds the state."""
        if self._posts is None:
            self._posts = asyncio.create_task(self._lifecycle.keep_posted())
            self._listen()

    def _listen(self) -> None:
        """Serve metrics and health, if they are configured."""
        config = self.config
        if not config.metrics.listen:
            return
        from .listener import Listener

        self._listener = Listener(config.metrics.listen, self.program, fresh_s=STALE * config.connection.silence_s)
        self._log.info("metrics_listening", url=self._listener.url)

    def _open_output(self, failed: Fail) -> tuple[Sink, FeedLogger]:
        """Open the output; return the sink, and the logger that writes records to it in the right format."""
        arguments, warn, patience = self.arguments, self._log.warning, self.config.output.patience_s
        if arguments.output == "-":
            sink = Sink(1, "stdout", failed, warn=warn, patience=patience)
        else:
            sink = Sink.open(arguments.output, failed, warn=warn, patience=patience)
        self._sink = sink
        if rows.wanted(arguments.format, sink.fd):
            from .row_output import RowOutput

            self._rows = RowOutput(sink, arguments, self.channels, list(self.credentials), lambda: self._feeds)
            self._stderr.before = self._rows.make_room
            return sink, self._rows.log
        return sink, feed_logger(sink, render_for_terminal if os.isatty(sink.fd) else render_record)


def _plan(
    arguments: argparse.Namespace, config: Config, channels: Sequence[str], credentials: Mapping[str, Credentials]
) -> Plan:
    """Return what to tail, from the command line and the configuration.

    The demo has no checkpoint, since its exchange ends with it, nor has ``--once``, which only looks.
    """
    place = None
    if not (getattr(arguments, "no_state", True) or arguments.once):
        place = place_for(
            arguments.output, asked=arguments.state, configured=config.state.directory, environ=os.environ
        )
    return Plan(
        config=config,
        channels=tuple(channels),
        credentials=credentials,
        state=place,
        backfill=not getattr(arguments, "no_backfill", False),
        snapshots=arguments.snapshots,
        since_ns=getattr(arguments, "since", None),
        limits=Limits(arguments.once, arguments.count, arguments.duration, arguments.timeout or Limits().timeout),
    )


def diagnostics(
    arguments: argparse.Namespace, credentials: Iterable[Credentials], stderr: Stderr | None = None
) -> FilteringBoundLogger:
    """Return the logger for stderr, which masks secrets."""
    for key in credentials:
        arguments.secrets.add(*key.secrets())
    fmt = arguments.log_format
    if fmt == "auto":
        fmt = "console" if sys.stderr.isatty() else "json"
    watched = os.isatty(1) and os.isatty(2)  # the rows on the same terminal show already what is live and what is lost
    level: Level = "error" if arguments.quiet else "debug" if arguments.verbose else "warning" if watched else "info"
    return diagnostics_logger(
        arguments.secrets, level=level, fmt=fmt, colors=wants_color(2, os.environ), stderr=stderr,
        hidden=rows.events_in_rows(arguments),
    )  # fmt: skip
