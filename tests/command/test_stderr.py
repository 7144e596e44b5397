"""Stderr as the journal's: every line carries its level there, and nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

import pytest

from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.telemetry.loggers import LogFormat, diagnostics_logger
from kraken_feed.telemetry.stderr import Stderr, is_journal
from kraken_feed.text import Secrets

from ..support.installed import Done, finish, lines, named, run, site, start


def stream_of(end: socket.socket) -> dict[str, str]:
    """What systemd tells a service whose output ends there."""
    status = os.fstat(end.fileno())
    return {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}


class Journal:
    """A stand-in for journald: a stream socket, as the real one."""

    def __init__(self) -> None:
        self.end, self._ours = socket.socketpair()

    @property
    def environ(self) -> dict[str, str]:
        return stream_of(self.end)

    def stream(self) -> TextIO:
        return open(os.dup(self.end.fileno()), "w", encoding="utf-8")

    def fill(self) -> int:
        """Write until nothing more goes; how many bytes."""
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += self.end.send(b"x" * 4096, socket.MSG_DONTWAIT)
        return filled

    def take(self, size: int) -> None:
        """Read so many bytes."""
        self._ours.recv(size, socket.MSG_WAITALL)

    def read(self) -> list[str]:
        """Every line so far, once nobody writes any more."""
        self.end.close()
        with self._ours.makefile("rb") as file:
            return file.read().decode().splitlines()

    def close(self) -> None:
        self.end.close()
        self._ours.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    with contextlib.closing(Journal()) as stand_in:
        yield stand_in


def test_what_has_to_come_before_a_line_is_written_with_it_and_can_prevent_it(journal: Journal) -> None:
    with journal.stream() as stream:
        stderr = Stderr(stream, {})
        before = iter([b"[room]", None, b""])
        stderr.before = lambda: next(before)
        for text in ("a", "b", "c"):
            stderr.warning(text)
    assert journal.read() == ["[room]a", "(1 lines dropped: stderr was not read)", "c"]


def test_a_line_carries_its_level(journal: Journal) -> None:
    with journal.stream() as stream:
        stderr = Stderr(stream, journal.environ)
        stderr.debug("a")
        stderr.info("b")
        stderr.info("c")
        stderr.warning("d")
        stderr.error("e")
        stderr.error("f")
    assert journal.read() == ["<7>a", "<6>b", "<6>c", "<4>d", "<3>e", "<3>f"]


def test_every_line_of_a_message_carries_it(journal: Journal) -> None:
    with journal.stream() as stream:
        Stderr(stream, journal.environ).error("what\n  why\n<7>remedy")
    assert journal.read() == ["<3>what", "<3>  why", "<3><7>remedy"]


def test_what_was_dropped_is_a_warning_whatever_comes_after(journal: Journal) -> None:
    with journal.stream() as stream:
        stderr = Stderr(stream, journal.environ)
        filling = journal.fill()
        stderr.info("lost")
        stderr.info("lost")
        journal.take(filling)
        stderr.info("line")
    assert journal.read() == ["<4>(2 lines dropped: stderr was not read)", "<6>line"]


@pytest.mark.parametrize("environ", [{}, {"JOURNAL_STREAM": ""}, {"JOURNAL_STREAM": "8:15"}])
def test_elsewhere_lines_are_bare(environ: Mapping[str, str], journal: Journal) -> None:
    """The variable is inherited by programs whose stderr is somebody else's by then."""
    with journal.stream() as stream:
        Stderr(stream, environ).warning("line")
    assert journal.read() == ["line"]


def test_a_closed_descriptor_is_no_journal(journal: Journal) -> None:
    environ, fd = journal.environ, os.dup(journal.end.fileno())
    assert is_journal(fd, environ)
    os.close(fd)
    assert not is_journal(fd, environ)


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_diagnostics_carry_their_levels(fmt: LogFormat, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", journal.environ["JOURNAL_STREAM"])
    with journal.stream() as stream:
        log = diagnostics_logger(Secrets(), level="debug", fmt=fmt, colors=False, stream=stream)
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
        try:
            raise ValueError("e")
        except ValueError:
            log.exception("f")
    said = journal.read()
    assert [line[:3] for line in said[:4]] == ["<7>", "<6>", "<4>", "<3>"]
    assert {line[:3] for line in said[4:]} == {"<3>"}
    assert (len(said) > 5) == (fmt == "console")  # there a traceback has its lines


async def told(journal: Journal, *arguments: str, env: Mapping[str, str]) -> tuple[Done, list[str]]:
    """A run of the installed command with its stdout and stderr as the journal's."""
    process = await start(*arguments, env={**env, **journal.environ}, stderr=journal.end.fileno())
    return await finish(process), journal.read()


async def test_the_command_tells_the_journal_its_levels_and_writes_records_bare(
    tmp_path: Path, journal: Journal
) -> None:
    async with site(tmp_path) as place:
        env = {**place.environment(STATE_DIRECTORY=str(tmp_path / "state")), **journal.environ}
        process = await start("openOrders", env=env, stderr=journal.end.fileno())
        await lines(process, named("feed.live"))
        place.inject(Fault("drop", code=1001))
        await lines(process, named("feed.live"))
        process.send_signal(signal.SIGUSR1)
        process.terminate()
        done = await finish(process)
    said = [(line[:3], json.loads(line[3:])) for line in journal.read()]
    levels = {"<4>": "warning", "<6>": "info"}
    assert all(entry.get("level", "info") == levels[prefix] for prefix, entry in said)  # the state has none
    assert {"live", "connection_lost", "state", "stopping"} <= {entry["event"] for _, entry in said}
    assert all(record["event_name"] for record in done.lines)  # JSON, every one


async def test_the_command_tells_the_journal_why_it_ends_as_an_error(tmp_path: Path, journal: Journal) -> None:
    async with site(tmp_path) as place:
        env = {name: value for name, value in place.environment().items() if not name.startswith("KRAKEN_API")}
        done, said = await told(journal, "openOrders", env=env)
    assert done.code == 78
    (line,) = said
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["exit_code"] == 78


async def test_the_command_answers_a_usage_error_to_the_journal_line_by_line(tmp_path: Path, journal: Journal) -> None:
    async with site(tmp_path) as place:
        done, said = await told(journal, "--log-format", "console", "openorders", env=place.environment())
    assert done.code == 2
    assert said == ['<3>kraken-feed: There is no channel "openorders".', "<3>  Did you mean openOrders?"]


async def test_a_stderr_that_has_been_redirected_is_no_journal(tmp_path: Path, journal: Journal) -> None:
    async with site(tmp_path) as place:
        done = await run("openOrders", "--once", env={**place.environment(), **journal.environ})
    assert done.log != []
    assert all(line.startswith("{") for line in done.err.splitlines())
