"""Run `history`: where the result goes, what is shown meanwhile, and how it ends."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import select
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from structlog.typing import FilteringBoundLogger

from ..config.schema import Config
from ..errors import FeedError, OutputFailed, Transient, UsageError
from ..output.sink import Sink
from ..protocol.signing import Credentials
from ..query import progress, spreadsheet
from ..query.evidence import incomplete, summary
from ..query.progress import Progress
from ..query.reader import HistoryReader, Moment, period_of
from ..query.records import records
from ..query.spool import Question, Spool, SpooledRow, Written
from ..records import render
from ..records.render import timestamp
from ..service import signals
from ..service.row_output import make_rows
from ..service.run import diagnostics
from ..telemetry.loggers import program_logger
from ..telemetry.stderr import Stderr, json_line
from ..text import counted, printable_json
from .stdout import STDOUT

DRAW_S = 0.5  # between two looks at the progress: it shows whole seconds
BURST = 200  # lines between two looks at signals
HEAD_BYTES = 4096  # enough for the names of the columns

Line = Callable[[SpooledRow, dict[str, Any]], bytes]  # renders a record, as one line or, the first row, as two


async def history(
    arguments: argparse.Namespace,
    config: Config,
    account: str,
    channels: Sequence[str],
    since: Moment,
    until: Moment | None,
    credentials: Credentials,
) -> str:
    """Write an account's history of a period; return the signal that ended it, or the empty text.

    Raises:
        FeedError: an error that ends the run; HistoryIncomplete if the answer is not proven to be complete.
    """
    period_of(since, until, time.time_ns(), time.time_ns())  # refuse it before anything is opened
    command = HistoryCommand(arguments, config, account, channels, since, until, credentials)
    signals.handle_signals(command)
    return await command.run()


@dataclass(eq=False, repr=False)
class HistoryCommand:
    """One run of `history`."""

    arguments: argparse.Namespace
    config: Config
    account: str
    channels: Sequence[str]
    since: Moment
    until: Moment | None
    credentials: Credentials
    make: Callable[..., HistoryReader] = HistoryReader  # tests replace the network

    def __post_init__(self) -> None:
        output = self.arguments.output
        self.progress = Progress()
        self._line = _ProgressLine(self.progress, wanted=not self.arguments.quiet)
        self._stderr = Stderr(sys.stderr)
        fmt = self.arguments.log_format
        self._in_sentences = fmt == "console" or (fmt == "auto" and sys.stderr.isatty())
        log = diagnostics(self.arguments, [self.credentials])
        above = _Above(self._line, log, events=self.arguments.verbose or not self._in_sentences)
        self._log = program_logger(above, self.arguments.secrets)
        self._format = _format(self.arguments.format, output)
        self._file = output if _is_file(output) else None  # a query that writes to a file can continue
        self._stopped = ""  # the signal that asked for the end
        self._failure: FeedError | None = None  # of the output
        self._task: asyncio.Task[Any] | None = None

    async def run(self) -> str:
        """Read and write the history; return the signal that ended it, or the empty text."""
        self._task = asyncio.current_task()
        try:
            await self._run()
        except asyncio.CancelledError:
            if self._failure is not None:
                raise self._failure from None
            if not self._stopped:
                raise
            if not self._say(f"interrupted. {self._what_next()}"):
                self._log.info("history_interrupted", rows=self.progress.rows)
        except Transient as error:
            error.remedy = " ".join(filter(None, (error.remedy, self._what_next())))
            raise
        finally:
            self._line.clear()
        return self._stopped

    # -- called by signals

    reopens = False

    def stop(self, reason: str) -> None:
        self._stopped = reason
        if self._task is not None:
            self._task.cancel()

    def reopen(self) -> None:
        self._log.info("nothing_to_reopen", output=self.arguments.output)

    def tell(self) -> None:
        state = {"event": "state", "rows": self.progress.rows, "reading": self.progress.reading}
        reached = self.progress.reached_ns
        state |= {"reached": None if reached is None else timestamp(reached), "waits_for": self.progress.cause}
        self._line.clear()
        self._stderr.info(json_line(sys.stderr, state))

    # -- the run

    async def _run(self) -> None:
        if source := self._file or _redirected(self.arguments.output):
            _check_file(source, self._format)
        with contextlib.ExitStack() as closing:
            # A file is opened when there is something to write. Another output is opened now: its reader may leave.
            sink = self._open_output(closing) if self._file is None else None
            spool = self._open_spool()
            closing.callback(spool.close)
            drawing = asyncio.create_task(self._line.run())
            closing.callback(drawing.cancel)
            reader = self.make(
                config=self.config,
                channels=self.channels,
                since=self.since,
                until=self.until,
                credentials=self.credentials,
                spool=spool,
                log=self._log,
                mask=self.arguments.secrets.mask,
                progress=self.progress,
            )
            answer = await reader.run()
            drawing.cancel()
            self._line.clear()
            await self._write(spool, sink or self._open_output(closing))
            spool.remove()
        if not answer.is_complete:
            error = incomplete(answer)
            if self._file is not None:
                error.remedy += " Then give another --output: this file has the records of now."
            raise error
        if not self._say(summary(answer)):
            since, until = timestamp(answer.period.since_ns), timestamp(answer.complete_ns)
            self._log.info("history_complete", since=since, complete_until=until, **answer.counts)

    def _open_spool(self) -> Spool:
        if self._file is None:
            return Spool.temporary()
        question = Question(
            account=self.account,
            channels=tuple(self.channels),
            since=self.arguments.since,
            until=self.arguments.until,
            format=self._format,
            rest=self.config.endpoints.rest,
        )
        spool = Spool.open(self._file, question)
        if spool.period is not None:
            since = timestamp(spool.period.since_ns)
            if not self._say(f"continues after {counted(spool.rows, 'row')} (history since {since}, interrupted)."):
                self._log.info("history_continued", since=since, rows=spool.rows)
        return spool

    def _open_output(self, closing: contextlib.ExitStack) -> Sink:
        output, patience = self.arguments.output, self.config.output.patience_s
        if output == "-":
            sink = Sink(1, "stdout", self._fail, warn=self._log.warning, patience=patience)
        else:
            sink = Sink.open(output, self._fail, warn=self._log.warning, patience=patience)
        closing.callback(sink.close)
        return sink

    def _fail(self, error: FeedError) -> None:
        """End the run, because the output has failed."""
        self._failure = error
        if self._task is not None:
            self._task.cancel()

    async def _write(self, spool: Spool, sink: Sink) -> None:
        """Write the result, or what an interrupted run has not written of it."""
        size, place = os.fstat(sink.fd).st_size, spool.written
        if place is None or size < place.size:  # not begun, or the file was replaced since
            place = Written(size, header=self._format == "csv" and not _has_header(sink.source))
            spool.begin_result(place)
        lines = self._lines(spool, sink, header=place.header)
        if self._file is not None and size > place.size:
            lines = _not_in(self._file, place.size, lines)
        for number, line in enumerate(lines):
            sink.write(line)
            if number % BURST == 0:
                await asyncio.sleep(0)
            if sink.full:
                await sink.room()
        await (sink.drained() if self._file is None else sink.synced())
        if sink.error is not None:  # it may have failed without a wait, in which the cancellation would have come
            raise sink.error

    def _lines(self, spool: Spool, sink: Sink, *, header: bool) -> Iterator[bytes]:
        """Yield the lines of the result, one at a time."""
        if header:
            yield spreadsheet.header()
        render_line = _renderer(self._format, sink.fd, self.channels, utc=self.arguments.utc)
        for row, record in records(spool, self.account, self.channels):
            yield from io.BytesIO(render_line(row, record))

    # -- what is said

    def _say(self, text: str) -> bool:
        """Say something in a sentence; return False if stderr is for programs, which need an event."""
        if self._in_sentences and not self.arguments.quiet:
            self._line.clear()
            self._stderr.info(f"kraken-feed: {text}")
        return self._in_sentences

    def _what_next(self) -> str:
        """Return what happens to the rows that were read, if the run ends before they are written."""
        if self._file is not None:
            return f"The same command continues ({counted(self.progress.rows, 'row')} read so far)."
        return "With --output FILE, the same command would continue."


# ------------------------------------------------------------------------------------------------ the output


def _is_file(output: str) -> bool:
    """Return whether the output is a file at a path of its own, or will be: not stdout, a FIFO or a device."""
    return output not in STDOUT and (os.path.isfile(output) or not os.path.exists(output))


def _redirected(output: str) -> str | None:
    """Return the path of the regular file that stdout was redirected to; None if it is something else."""
    return "/proc/self/fd/1" if output == "-" and os.path.isfile("/proc/self/fd/1") else None


def _format(wanted: str, output: str) -> str:
    """Return the format: by default rows on a terminal, CSV in a file of that name, else JSON."""
    if wanted != "auto":
        return wanted
    if output == "-":
        return "console" if os.isatty(1) else "json"
    return "csv" if output.lower().endswith(".csv") else "json"


def _check_file(path: str, fmt: str) -> None:
    """Raise an error unless records in this format can be appended to the file and what it has."""
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise OutputFailed(f"Cannot write to {path}.", remedy="Check its permissions, or give another --output.")
    begins, ours = _first_line(path), _has_header(path)
    if fmt == "csv" and begins.endswith(b"\n") and not ours:  # a torn line will be set aside
        raise UsageError(
            f"{path} does not begin with the columns of a history as CSV.",
            why="Lines of another kind could not be told apart.",
            remedy="Give another --output, or another --format.",
        )
    if fmt != "csv" and ours:
        raise UsageError(f"{path} is a CSV.", remedy="Add --format csv, or give another --output.")


def _has_header(path: str | None) -> bool:
    """Return whether the file begins with our columns, as we or a spreadsheet wrote them."""
    return path is not None and _first_line(path).lstrip(b"\xef\xbb\xbf").strip() == spreadsheet.header().strip()


def _first_line(path: str) -> bytes:
    """Return the beginning of the file's first line; empty if there is none, or if we may not read it."""
    try:
        with open(path, "rb") as file:
            return file.readline(HEAD_BYTES)
    except OSError:
        return b""


def _not_in(path: str, start: int, lines: Iterable[bytes]) -> Iterator[bytes]:
    """Yield those lines that the file does not have from the offset ``start`` on.

    They are in the same order there. Other programs may have appended lines in between.
    """
    rest = iter(lines)
    wanted = next(rest, None)
    with open(path, "rb") as file:
        file.seek(start)
        for found in file:
            if found == wanted:
                wanted = next(rest, None)
    if wanted is not None:
        yield wanted
        yield from rest


def _renderer(fmt: str, fd: int, channels: Sequence[str], *, utc: bool) -> Line:
    if fmt == "csv":
        return spreadsheet.line
    if fmt == "json":
        on_terminal = os.isatty(fd)
        return lambda row, record: _for_terminal(render.render(record)) if on_terminal else render.render(record)
    rows = make_rows(fd, os.environ, utc=utc, channels=channels, past=True)

    def as_row(row: SpooledRow, record: dict[str, Any]) -> bytes:
        name = record.pop("event_name")
        (lines, _), _ = rows(None, name, {"event": name, **record})
        return lines

    return as_row


def _for_terminal(line: bytes) -> bytes:
    return printable_json(line.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


# ------------------------------------------------------------------------------------------------ the progress


class _ProgressLine:
    """The last line of the terminal that stderr is: how far the query has come. It never waits for the terminal.

    Nothing is shown if stderr is something else, or a terminal that cannot erase a line.
    """

    def __init__(self, shown: Progress, *, wanted: bool) -> None:
        self._progress = shown
        self._wanted = wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._text = ""
        self._poll = select.poll()
        self._poll.register(2, select.POLLOUT)

    async def run(self) -> None:
        """Draw until cancelled."""
        now = asyncio.get_running_loop().time
        while self._wanted:
            text = progress.line(self._progress, now(), shutil.get_terminal_size((80, 24)).columns)
            if text != self._text:
                self._write(f"\r\x1b[2K{text}", text)
            await asyncio.sleep(DRAW_S)

    def clear(self) -> None:
        """Erase the line, because something else is written."""
        if self._text:
            self._write("\r\x1b[2K", "")

    def _write(self, data: str, text: str) -> None:
        if self._poll.poll(0):
            with contextlib.suppress(OSError):  # the terminal has gone
                os.write(2, data.encode())
                self._text = text


class _Above:
    """A logger that erases the progress before it writes. ``events``: also events of normal operation."""

    def __init__(self, line: _ProgressLine, log: FilteringBoundLogger, *, events: bool) -> None:
        self._line = line
        self._log = log
        self._events = events

    def debug(self, event: str, /, **fields: Any) -> None:
        self._line.clear()
        self._log.debug(event, **fields)

    def info(self, event: str, /, **fields: Any) -> None:
        if self._events:
            self._line.clear()
            self._log.info(event, **fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._line.clear()
        self._log.warning(event, **fields)

    def error(self, event: str, /, **fields: Any) -> None:
        self._line.clear()
        self._log.error(event, **fields)
