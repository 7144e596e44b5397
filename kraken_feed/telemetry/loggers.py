"""Make the two loggers, both structlog: the feed's (records, stdout) and the diagnostics' (stderr).

The feed's logger binds the constant fields and renders a record to the line for the sink. The diagnostics' logger
masks secrets and escapes control characters. It also gets the libraries' logs, from WARNING on: at DEBUG, websockets
logs the subscribe request with the token. Text from outside is masked where it enters the program; the libraries'
texts enter here. Time, level, event name and field names come from this program, so they need no mask.

In another program, diagnostics go to the logger that it passes, masked too. None of its own loggers is changed:
websockets gets a private one.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from ..records import render
from ..records.render import Line
from ..text import Secrets, printable, printable_json, trace
from .events import EVENTS
from .stderr import Stderr, json_line

Level = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["json", "console"]

LIBRARIES = ("websockets", "httpx", "httpcore", "asyncio")
MAX_TEXT = 1000  # characters of one value: a peer's text may be of any length, our lines may not


# ------------------------------------------------------------------------------------------------ records: stdout


class LineWriter(Protocol):
    """The destination of rendered records, such as a sink."""

    def write(self, line: bytes, count: int = 1) -> None:
        """Accept one line, or several in one."""


class FeedLogger(structlog.BoundLoggerBase):
    def record(self, event_name: str, **fields: object) -> None:
        """Emit one record; ``event_name`` and the fields are its keys."""
        self._proxy_to_logger("write", event_name, **fields)

    def records(self, event_name: str, items: Sequence[Line], **fields: object) -> None:
        """Emit one record per item, all with the same fields. ``repeated`` says that the output held the items already:
        rows mark them, and lines of JSON do not have it."""
        self._proxy_to_logger("write", event_name, items=items, **fields)


def render_record(logger: WrappedLogger, name: str, event_dict: EventDict) -> bytes | tuple[tuple[bytes, int], Any]:
    """Render a record as a JSON line, or several items as several lines. A structlog processor."""
    event_dict["event_name"] = event_dict.pop("event")
    event_dict.pop("repeated", None)  # for rows
    items = event_dict.pop("items", None)
    if items is None:
        return render.render(event_dict)
    return (render.render_items(event_dict, event_dict.pop("ts"), items), len(items)), {}


def render_for_terminal(logger: WrappedLogger, name: str, event_dict: EventDict) -> Any:
    """Render the same lines for a terminal: control characters are escaped as in JSON."""
    rendered = render_record(logger, name, event_dict)
    if isinstance(rendered, bytes):
        return _for_terminal(rendered)
    (lines, count), further = rendered
    return (_for_terminal(lines), count), further


def _for_terminal(lines: bytes) -> bytes:
    return printable_json(lines.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def feed_logger(sink: LineWriter, *processors: Processor, **constant: object) -> FeedLogger:
    """Return the feed's logger, which writes to ``sink``. The last of ``processors`` returns the line as bytes."""
    logger: FeedLogger = structlog.wrap_logger(
        sink, processors=processors or (render_record,), wrapper_class=FeedLogger, context_class=dict
    ).bind(**constant)
    return logger


# ------------------------------------------------------------------------------------------------ diagnostics: stderr


OURS = ("ts", "level")  # fields of a diagnostic that are never masked


def _masked(secrets: Secrets) -> Processor:
    """Return a processor that masks long secrets in every value, in case a caller forgot to mask them."""

    def clean(value: object) -> object:
        if isinstance(value, str):
            value = secrets.mask_long(value)
            return value if len(value) <= MAX_TEXT else value[:MAX_TEXT] + "…"
        if isinstance(value, bool | int | float) or value is None:
            return value
        if isinstance(value, dict):
            return {clean(key): clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [clean(inner) for inner in value]
        return clean(str(value))

    def processor(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
        error = _exception(event_dict.pop("exc_info", None))
        event_dict = {key: value if _ours(key, value) else clean(value) for key, value in event_dict.items()}
        if error is not None:  # long, so it is masked and not cut
            event_dict["exception"] = secrets.mask_long(trace(error, secrets.mask))
        return event_dict

    return processor


def _without(hidden: Collection[str]) -> Processor:
    def processor(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
        if event_dict["event"] in hidden:
            raise structlog.DropEvent
        return event_dict

    return processor


def _ours(key: str, value: object) -> bool:
    """Return whether the field is our own text: the time, the level, or an event's name."""
    return key in OURS or (key == "event" and str(value) in EVENTS)


def _exception(given: object) -> BaseException | None:
    if isinstance(given, tuple):
        given = given[1]
    if isinstance(given, BaseException):
        return given
    return sys.exc_info()[1] if given else None


def _escaped(logger: WrappedLogger, name: str, event_dict: EventDict) -> EventDict:
    return {key: _printable(key, value) if isinstance(value, str) else value for key, value in event_dict.items()}


def _printable(key: str, value: str) -> str:
    """Escape control characters in a value. A traceback keeps its line breaks."""
    return "\n".join(map(printable, value.split("\n"))) if key == "exception" else printable(value)


def _json_renderer(stream: TextIO) -> Processor:
    def processor(logger: WrappedLogger, name: str, event_dict: EventDict) -> str:
        first = {key: event_dict.pop(key) for key in ("ts", "level", "event") if key in event_dict}
        return json_line(stream, {**first, **event_dict})

    return processor


class _ToStructlog(logging.Handler):
    """Turns the log records of libraries into diagnostics."""

    def __init__(self, diagnostics: Any, secrets: Secrets) -> None:
        super().__init__(logging.WARNING)  # also where a program lowers a child's level
        self._diagnostics = diagnostics
        self._secrets = secrets

    def emit(self, entry: logging.LogRecord) -> None:
        level = "error" if entry.levelno >= logging.ERROR else "warning"
        exc_info = entry.exc_info if entry.exc_info and entry.exc_info[0] else None
        if _is_left_over(entry):
            level, exc_info = "debug", None
        text = self._secrets.mask(entry.getMessage())
        getattr(self._diagnostics, level)("library", library=entry.name.partition(".")[0], text=text, exc_info=exc_info)


def _is_left_over(entry: logging.LogRecord) -> bool:
    """Return whether the log entry reports the end of a connection that was given up, so that nothing awaits it.

    asyncio logs it during garbage collection, so at any point of the program: no traceback is made there.
    """
    if entry.name != "asyncio" or not entry.getMessage().startswith("Future exception was never retrieved"):
        return False
    error = entry.exc_info[1] if entry.exc_info else None
    return isinstance(error, OSError) or type(error).__module__.startswith("websockets.")


def diagnostics_logger(
    secrets: Secrets,
    *,
    level: Level,
    fmt: LogFormat,
    colors: bool,
    stream: TextIO | None = None,
    stderr: Stderr | None = None,
    hidden: Collection[str] = (),
) -> structlog.typing.FilteringBoundLogger:
    """Return the diagnostics' logger, and send the libraries' logs to it. ``hidden`` events are not logged."""
    rendering: Sequence[Processor]
    stream = stream or sys.stderr
    if fmt == "json":
        rendering = [_masked(secrets), _json_renderer(stream)]
    else:
        console = structlog.dev.ConsoleRenderer(
            colors=colors, sort_keys=False, timestamp_key="ts", exception_formatter=structlog.dev.plain_traceback
        )
        rendering = [_masked(secrets), _escaped, console]
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        stderr or Stderr(stream),
        processors=[
            _without(hidden),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if fmt == "json" else "%H:%M:%S", utc=fmt == "json", key="ts"),
            *rendering,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        context_class=dict,
    ).bind()
    pin_libraries(logger, secrets)
    return logger


class Log(Protocol):
    """A logger for diagnostics: a structlog logger, or any object with the same methods."""

    def debug(self, event: str, /, **fields: Any) -> Any:
        """Log an event that helps to find a bug."""

    def info(self, event: str, /, **fields: Any) -> Any:
        """Log an event of normal operation."""

    def warning(self, event: str, /, **fields: Any) -> Any:
        """Log an event that a person may have to look at."""

    def error(self, event: str, /, **fields: Any) -> Any:
        """Log an event that a person has to look at."""


def program_logger(log: Log | logging.Logger | None, secrets: Secrets) -> structlog.typing.FilteringBoundLogger:
    """Return the diagnostics' logger for use in another program. It masks diagnostics and passes them to ``log``, which
    decides what is shown. If ``log`` is None, it is the standard library's logger ``kraken_feed``, which is silent
    until the program sets up logging."""
    if log is None:
        log = logging.getLogger("kraken_feed")
        if not log.handlers:
            log.addHandler(logging.NullHandler())  # else Python would print warnings of a program without logging
    masking: list[Processor] = [_masked(secrets), _escaped]
    processors = (
        [structlog.stdlib.filter_by_level, *masking, _as_text]
        if isinstance(log, logging.Logger)
        else [*masking, _handed_on]
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        log, processors=processors, wrapper_class=structlog.make_filtering_bound_logger("debug"), context_class=dict
    ).bind()
    return logger


def library_logger(diagnostics: structlog.typing.FilteringBoundLogger, secrets: Secrets) -> logging.Logger:
    """Return a private logger for websockets that sends its warnings to ``diagnostics``."""
    logger = logging.Logger("websockets", logging.WARNING)
    logger.addHandler(_ToStructlog(diagnostics, secrets))
    return logger


def _as_text(logger: WrappedLogger, name: str, event_dict: EventDict) -> str:
    event = str(event_dict.pop("event"))
    return " ".join([event, *(f"{key}={render.encode(value)}" for key, value in event_dict.items())])


def _handed_on(logger: WrappedLogger, name: str, event_dict: EventDict) -> tuple[tuple[object], EventDict]:
    return (event_dict.pop("event"),), event_dict


def pin_libraries(diagnostics: structlog.typing.FilteringBoundLogger, secrets: Secrets) -> None:
    """Send the libraries' logs to ``diagnostics``, in a process that is ours."""
    handler = _ToStructlog(diagnostics, secrets)
    for name in LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.propagate = False
        library.handlers = [handler]


def wants_color(fd: int, environ: Mapping[str, str]) -> bool:
    """Return whether to colour: the descriptor is a capable terminal, and NO_COLOR is not set
    (https://no-color.org)."""
    return os.isatty(fd) and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
