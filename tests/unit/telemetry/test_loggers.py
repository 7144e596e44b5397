"""Diagnostics: nothing secret leaves in any form, nothing drives a terminal, and a stalled reader stops nobody."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidProxyMessage

from kraken_feed.telemetry import loggers as logs
from kraken_feed.telemetry.loggers import (
    LIBRARIES,
    LogFormat,
    diagnostics_logger,
    feed_logger,
    library_logger,
    program_logger,
    wants_color,
)
from kraken_feed.telemetry.stderr import Stderr
from kraken_feed.text import MASK, Secrets, without

from ...support.cases import each

TOKEN = "EXAMPLE+token/EXAMPLE+token/EXAMPLE+token/1"
KEY = "EXAMPLEKEYEXAMPLEKEYEXAMPLEKEY"

Log = structlog.typing.FilteringBoundLogger
FORMATS = pytest.mark.parametrize("fmt", ["json", "console"])


@pytest.fixture(autouse=True)
def _libraries_as_before() -> Iterator[None]:
    """The libraries' loggers belong to the process: put them back."""
    known = [logging.getLogger(name) for name in ("", *LIBRARIES)]
    before = [(logger, logger.level, logger.propagate, logger.handlers[:]) for logger in known]
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers = handlers


def _logger(fmt: LogFormat, *, level: logs.Level = "debug") -> tuple[Log, io.StringIO]:
    stream, secrets = io.StringIO(), Secrets()
    secrets.add(TOKEN, KEY)
    return diagnostics_logger(secrets, level=level, fmt=fmt, colors=False, stream=stream), stream


def _assert_silent(said: str) -> None:
    for secret in (TOKEN, KEY):
        assert secret not in said
        assert secret.replace("/", "\\/") not in said


# ------------------------------------------------------------------------------------------------ secrets


class _Speaking:
    def __repr__(self) -> str:
        return f"<{TOKEN}>"


@FORMATS
@each(
    "value",
    [
        TOKEN,
        f"Bearer {TOKEN}, and {KEY}",
        TOKEN.replace("/", "\\/"),
        [TOKEN],
        (1, (TOKEN, {"a": [KEY]})),
        {"deep": {"deeper": [{"deepest": TOKEN}]}},
        {TOKEN},
        TOKEN.encode(),
        bytearray(KEY.encode()),
        ValueError(TOKEN),
        _Speaking(),
        [_Speaking()],
        json.dumps({"event": "subscribe", "subscription": {"token": TOKEN}}),
        "x" * 990 + TOKEN,  # across the place where long texts are cut
    ],
    ids=lambda value: type(value).__name__,
)
def test_secret_is_masked_in_every_field(fmt: LogFormat, value: object) -> None:
    log, stream = _logger(fmt)
    log.warning("something", value=value)
    _assert_silent(stream.getvalue())
    assert "[mask" in stream.getvalue()


@FORMATS
def test_secret_is_masked_in_the_event_itself(fmt: LogFormat) -> None:
    log, stream = _logger(fmt)
    log.warning(f"sent {TOKEN}")
    log.bind(bound=KEY).warning("something")
    _assert_silent(stream.getvalue())


@FORMATS
def test_secret_is_masked_as_the_key_of_a_nested_field(fmt: LogFormat) -> None:
    log, stream = _logger(fmt)
    log.warning("something", value={TOKEN: 1})
    _assert_silent(stream.getvalue())


@FORMATS
def test_secret_is_masked_in_an_exception_and_its_causes(fmt: LogFormat) -> None:
    log, stream = _logger(fmt)
    try:
        try:
            raise ValueError(f"refused: {TOKEN}")
        except ValueError as error:
            raise RuntimeError(KEY) from error
    except RuntimeError:
        log.exception("something")
    said = stream.getvalue()
    _assert_silent(said)
    assert "Traceback" in said
    assert said.count(MASK) >= 2


def test_mask_of_a_longer_secret_comes_first() -> None:
    secrets = Secrets()
    secrets.add("abcdef")
    secrets.add("abcdefghij", "cde")
    assert secrets.mask("<abcdefghij><abcdef><cde>") == f"<{MASK}><{MASK}><{MASK}>"


def test_slashes_that_json_escapes_are_masked_too() -> None:
    secrets = Secrets()
    secrets.add(TOKEN)
    frame = ('{"token":"' + TOKEN.replace("/", "\\/") + '"}').encode()
    assert without(frame, TOKEN) == b'{"token":"%b"}' % MASK.encode()
    assert secrets.mask(frame.decode()) == f'{{"token":"{MASK}"}}'


def test_discarded_token_is_not_masked_any_more() -> None:
    secrets = Secrets()
    secrets.add(TOKEN, KEY)
    secrets.discard(TOKEN)
    assert secrets.mask(TOKEN) == TOKEN
    assert secrets.mask(TOKEN.replace("/", "\\/")) == TOKEN.replace("/", "\\/")
    assert secrets.mask(KEY) == MASK
    secrets.discard("")
    secrets.discard("never added")
    assert secrets.mask(KEY) == MASK


def test_empty_secret_masks_nothing() -> None:
    secrets = Secrets()
    secrets.add("")
    assert secrets.mask("text") == "text"


# ------------------------------------------------------------------------------------------------ libraries


@pytest.fixture
def root_records() -> list[logging.LogRecord]:
    """What reaches the root logger, which listens to everything."""
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(Keep())
    return records


@FORMATS
@pytest.mark.parametrize("name", ["websockets", "websockets.client", "httpx", "httpcore", "httpcore.http11", "asyncio"])
def test_library_says_nothing_below_warning(fmt: LogFormat, name: str, root_records: list[logging.LogRecord]) -> None:
    _, stream = _logger(fmt, level="debug")
    library = logging.getLogger(name)
    library.debug("> TEXT '%s' [%d bytes]", json.dumps({"token": TOKEN}), 99)
    library.info("POST https://api.kraken.com %s", TOKEN)
    assert stream.getvalue() == ""
    assert root_records == []
    assert not library.isEnabledFor(logging.INFO)


@FORMATS
@pytest.mark.parametrize("name", ["websockets.client", "httpx", "asyncio"])
def test_warning_of_a_library_is_a_masked_diagnostic(
    fmt: LogFormat, name: str, root_records: list[logging.LogRecord]
) -> None:
    _, stream = _logger(fmt, level="warning")
    try:
        raise ValueError(TOKEN)
    except ValueError:
        logging.getLogger(name).warning("failed with %s", TOKEN, exc_info=True)
    said = stream.getvalue()
    _assert_silent(said)
    assert name.partition(".")[0] in said
    assert f"failed with {MASK}" in said
    assert root_records == []


@each(
    ("error", "said"),
    [
        (ConnectionResetError("reset"), []),
        (InvalidProxyMessage("closed"), []),
        (ValueError("a defect"), ["error"]),
    ],
)
async def test_end_of_a_connection_that_was_given_up_is_no_news(error: Exception, said: list[str]) -> None:
    _, stream = _logger("json", level="info")
    nobody = asyncio.get_running_loop().create_future()
    nobody.set_exception(error)
    del nobody
    gc.collect()
    assert [json.loads(line)["level"] for line in stream.getvalue().splitlines()] == said


def test_second_logger_replaces_the_first() -> None:
    _, first = _logger("json")
    _, second = _logger("json")
    logging.getLogger("websockets").warning("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


# ------------------------------------------------------------------------------------------------ lines


def test_json_line_begins_with_time_level_and_event() -> None:
    log, stream = _logger("json")
    log.warning("connection_lost", cause="silence", retry_in=4.2)
    fields = json.loads(stream.getvalue())
    assert list(fields) == ["ts", "level", "event", "cause", "retry_in"]
    assert fields["ts"].endswith("Z")
    assert (fields["level"], fields["event"], fields["retry_in"]) == ("warning", "connection_lost", 4.2)


@FORMATS
def test_line_below_the_level_is_not_written(fmt: LogFormat) -> None:
    log, stream = _logger(fmt, level="warning")
    log.info("something")
    log.debug("something")
    assert stream.getvalue() == ""


HOSTILE = [
    "\x1b[2J\x1b]0;title\x07",
    "line\nfake line",
    "\r overwritten",
    "\u202e reversed",
    "\x9b31m",
    "\x00\x08",
    "\u2028",
]


@each("text", HOSTILE, ids=ascii)
@each("wrap", [lambda t: t, lambda t: [t], lambda t: {"a": t}, lambda t: {t: 1}])
def test_control_characters_are_escaped_before_a_terminal(text: str, wrap: Callable[[str], object]) -> None:
    log, stream = _logger("console")
    log.warning("kraken_error", error=wrap(text))
    said = stream.getvalue()
    assert said.endswith("\n")
    assert said[:-1].isprintable()


@each("text", HOSTILE)
def test_control_characters_of_an_exception_are_escaped_before_a_terminal(text: str) -> None:
    """An exception may quote the exchange; its own lines stay lines."""
    log, stream = _logger("console")
    try:
        raise ValueError(f"closed: {text}")
    except ValueError:
        log.exception("something")
    said = stream.getvalue()
    assert "Traceback" in said
    assert said.replace("\n", "").isprintable()


@each("text", [*HOSTILE, "\ud800", "/path/\udcff"])
def test_json_line_takes_any_text(text: str) -> None:
    log, stream = _logger("json")
    log.warning("output_reopened", path=text)
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue())["event"] == "output_reopened"


@FORMATS
def test_long_text_of_a_peer_is_cut(fmt: LogFormat) -> None:
    log, stream = _logger(fmt)
    log.warning("kraken_error", error="x" * 100_000, nested=["y" * 100_000])
    assert len(stream.getvalue()) < 2 * logs.MAX_TEXT + 500


# ------------------------------------------------------------------------------------------------ a reader that stalls


class _Pipe:
    """A pipe with a :class:`Stderr` on it, and nobody reading."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()
        self.stream = os.fdopen(self._write_end, "w")
        self.stderr = Stderr(self.stream)

    def fill(self, leave: int = 0) -> None:
        """Write until nothing more goes in, then make room for ``leave`` bytes."""
        os.set_blocking(self._write_end, False)
        try:
            while True:
                os.write(self._write_end, b"." * 4096)
        except BlockingIOError:
            os.set_blocking(self._write_end, True)
        if leave:
            os.read(self.read_end, leave)

    def drain(self) -> str:
        """Everything that is in it."""
        os.set_blocking(self.read_end, False)
        parts = []
        try:
            while part := os.read(self.read_end, 1 << 20):
                parts.append(part)
        except BlockingIOError:
            pass
        return b"".join(parts).decode().lstrip(".")

    def close(self) -> None:
        """Close both ends."""
        self.drain()
        self.stream.close()
        os.close(self.read_end)


@pytest.fixture
def pipe() -> Iterator[_Pipe]:
    made = _Pipe()
    yield made
    made.close()


def test_lines_that_nobody_reads_are_dropped_and_counted(pipe: _Pipe) -> None:
    pipe.stderr.info("read")
    assert pipe.drain() == "read\n"
    pipe.fill()
    for _ in range(3):
        pipe.stderr.info("dropped")
    assert pipe.drain() == ""
    pipe.stderr.info("read again")
    pipe.stderr.info("and again")
    assert pipe.drain() == "(3 lines dropped: stderr was not read)\nread again\nand again\n"


def test_line_longer_than_the_room_that_is_left_does_not_block(pipe: _Pipe) -> None:
    """A traceback is longer than a page; a pipe says it can be written to as soon as one page is free."""
    pipe.fill(leave=4096)
    writer = threading.Thread(target=pipe.stderr.info, args=("x" * 100_000,), daemon=True)
    writer.start()
    writer.join(0.5)
    blocked = writer.is_alive()
    while writer.is_alive():
        pipe.drain()
    assert not blocked


def test_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    Stderr(stream).info("line")
    assert stream.getvalue() == "line\n"


def test_stream_that_fails_does_not_stop_the_feed() -> None:
    class Broken(io.StringIO):
        broken = True

        def write(self, text: str) -> int:
            if self.broken:
                raise OSError(5, "Input/output error")
            return super().write(text)

    stream = Broken()
    stderr = Stderr(stream)
    stderr.info("lost")
    stream.broken = False
    stderr.info("line")
    assert stream.getvalue().endswith("\nline\n")
    assert "1 lines dropped" in stream.getvalue()


# ------------------------------------------------------------------------------------------------ a program's loggers


class _Heard(logging.Handler):
    """A handler of the program's."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        self.texts.append(f"{entry.levelname} {self.format(entry)}")


@pytest.fixture
def heard() -> Iterator[_Heard]:
    """What the standard library's logger of the package is told, at INFO."""
    handler, ours = _Heard(), logging.getLogger("kraken_feed")
    before = ours.level, ours.handlers[:]
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    yield handler
    ours.setLevel(before[0])
    ours.handlers = before[1]


def _known() -> Secrets:
    secrets = Secrets()
    secrets.add(TOKEN, KEY)
    return secrets


def test_a_program_is_told_masked_text_by_default(heard: _Heard) -> None:
    log = program_logger(None, _known()).bind(account="main")
    log.debug("connecting")
    log.warning("connection_lost", detail=f"%s {TOKEN}", retry_in=1.5, text="\x1b[2J")
    assert heard.texts == [f'WARNING connection_lost account="main" detail="%s {MASK}" retry_in=1.5 text="\\\\x1b[2J"']


def test_a_program_with_a_structlog_logger_is_told_masked_fields() -> None:
    with structlog.testing.capture_logs() as entries:
        log = program_logger(structlog.get_logger(), _known()).bind(account="main")
        log.error("gap", reason=f"about {KEY}", inner={"token": [TOKEN]})
    assert entries == [
        {"account": "main", "event": "gap", "log_level": "error", "reason": f"about {MASK}", "inner": {"token": [MASK]}}
    ]


def test_a_traceback_is_handed_on_as_masked_text(heard: _Heard) -> None:
    try:
        raise ValueError(TOKEN)
    except ValueError:
        program_logger(None, _known()).error("library", exc_info=True)
    (text,) = heard.texts
    assert "ValueError" in text
    _assert_silent(text)


def test_the_librarys_own_logger_says_warnings_only_and_to_nobody_else(
    heard: _Heard, root_records: list[logging.LogRecord]
) -> None:
    library = library_logger(program_logger(None, _known()), _known())
    assert not library.isEnabledFor(logging.DEBUG)
    library.info("sent %s", TOKEN)
    library.warning("sent %s", TOKEN)
    assert heard.texts == [f'WARNING library library="websockets" text="sent {MASK}"']
    assert library is not logging.getLogger("websockets")
    assert [entry.name for entry in root_records] == ["kraken_feed"]


# ------------------------------------------------------------------------------------------------ records


class _Lines:
    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, line: bytes, count: int = 1) -> None:
        self.lines.append(line)


def test_record_is_rendered_with_what_is_constant() -> None:
    sink = _Lines()
    log = feed_logger(sink, v=1, account="main").bind(channel="openOrders")
    log.record("order", id="x", data=b'{"vol":"1.00"}', ts="2026-11-20T22:41:05.123456Z")
    assert sink.lines == [
        b'{"id":"x","ts":"2026-11-20T22:41:05.123456Z","event_name":"order","v":1,"account":"main",'
        b'"channel":"openOrders","data":{"vol":"1.00"}}\n'
    ]


def test_binding_leaves_the_logger_it_came_from() -> None:
    sink = _Lines()
    log = feed_logger(sink, v=1)
    log.bind(channel="openOrders")
    log.record("order", id="x")
    assert json.loads(sink.lines[0]) == {"id": "x", "event_name": "order", "v": 1}


def test_records_are_rendered_by_the_processors_given() -> None:
    def render(logger: Any, name: str, event: structlog.typing.EventDict) -> bytes:
        return repr(sorted(event)).encode()

    sink = _Lines()
    feed_logger(sink, render, v=1).record("order", id="x")
    assert sink.lines == [b"['event', 'id', 'v']"]


# ------------------------------------------------------------------------------------------------ JSON on a terminal

NASTY = "\x7f\x80\x9b31m\u061c\u200f\u2028\u202e\u2066\ufeff\U000e0001"


def _steers(text: str) -> str:
    """What a terminal could obey, of lines of JSON."""
    return "".join(c for c in text if not c.isprintable() and c not in "\t\n")


@given(st.text(alphabet=st.sampled_from(NASTY) | st.characters(codec="utf-8"), max_size=30), st.booleans())
def test_json_on_a_terminal_steers_nothing_and_says_the_same(text: str, several: bool) -> None:
    data = f'{{"a":\t{msgspec.json.encode(text).decode()}}}'.encode()
    plain, shown = _Lines(), _Lines()
    for sink, render in ((plain, logs.render_record), (shown, logs.render_for_terminal)):
        log = feed_logger(sink, render, v=1, account=text)
        if several:
            log.records("order", [(text, 1, "O", None, data), (text, None, None, None, data)], ts="")
        else:
            log.record("order", id=text, data=data)
    (bytes_,), (escaped,) = plain.lines, shown.lines
    assert _steers(escaped.decode()) == ""
    assert [json.loads(line) for line in escaped.splitlines()] == [
        json.loads(line) for line in bytes_.split(b"\n")[:-1]
    ]
    if not _steers(bytes_.decode()):
        assert escaped == bytes_
    assert data in bytes_


@each("terminal", [True, False])
def test_diagnostics_in_json_steer_no_terminal(terminal: bool) -> None:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]  # a terminal of a test
    log = diagnostics_logger(Secrets(), level="info", fmt="json", colors=False, stream=stream)
    log.info("said", text=NASTY)
    said = stream.getvalue()
    assert json.loads(said)["text"] == NASTY
    assert _steers(said) == ("" if terminal else _steers(NASTY))


# ------------------------------------------------------------------------------------------------ colours


@pytest.mark.parametrize(
    ("terminal", "environ", "colors"),
    [
        (True, {}, True),
        (True, {"TERM": "xterm-256color"}, True),
        (True, {"NO_COLOR": ""}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colours_are_for_terminals_whose_owner_wants_them(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environ: dict[str, str], colors: bool
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: terminal)
    assert wants_color(1, environ) is colors


def test_hidden_events_are_not_logged() -> None:
    stream = io.StringIO()
    log = diagnostics_logger(Secrets(), level="info", fmt="json", colors=False, stream=stream, hidden=("gap",))
    log.error("gap", reason="x")
    log.error("exit")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["exit"]
