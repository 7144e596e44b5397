"""The start: what is waited for, for how long, and what is an error at once."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import structlog
from structlog.testing import LogCapture

from kraken_feed.config.schema import Config, OutputConfig
from kraken_feed.errors import ConfigError, FeedError, OutputFailed, OutputUnavailable, StateFailed, StateUnavailable
from kraken_feed.feed.builder import Plan, assemble
from kraken_feed.feed.environment import UNLIMITED, Account, Environment, Limits
from kraken_feed.output.disk import passes
from kraken_feed.output.file import open_output
from kraken_feed.output.queue import Inbox
from kraken_feed.protocol.signing import Credentials
from kraken_feed.state.place import STDOUT, Place
from kraken_feed.state.store import Store
from kraken_feed.telemetry.loggers import feed_logger
from kraken_feed.text import Secrets

from ...support import virtual_time
from ...support.outputs import open_files

KEY = Credentials("KEY0123456789", "A" * 86 + "==")
HOUR = 3600.0


class Start:
    """One start, in virtual time, with a script beside it."""

    def __init__(self, state: Path | None, output: Path | None = None, *accounts: str, **options: Any) -> None:
        self.said = LogCapture()
        self.held: list[str] = []
        self.stores: list[Store] = []
        self.opened = 0  # outputs
        self.error: FeedError | None = None
        self.took = 0.0
        self._output = output
        self._plan = Plan(
            config=Config(output=OutputConfig(patience_s=options.get("patience_s", HOUR))),
            channels=("openOrders",),
            credentials=dict.fromkeys(accounts or ("main",), KEY),
            state=None if state is None else Place(str(state), STDOUT),
            limits=options.get("limits", UNLIMITED),
        )

    def run(self, after_s: float = 0.0, then: Callable[[], object] = lambda: None) -> Start:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            loop.call_later(after_s, then)
            log, began = structlog.wrap_logger(None, processors=[self.said]), loop.time()
            try:
                await assemble(
                    self._plan, self._open, log=log, secrets=Secrets(), make=self._make, unavailable=self._hold
                )
            except FeedError as error:
                self.error = error
            self.took = loop.time() - began

        virtual_time.run(main())
        for store in self.stores:
            store.close()
        return self

    def events(self) -> list[tuple[str, str]]:
        return [(entry["event"], entry["log_level"]) for entry in self.said.entries if "start" in entry["event"]]

    def _hold(self, error: FeedError | None) -> None:
        self.held.append("" if error is None else error.what)

    def _open(self, failed: Callable[[FeedError], None]) -> Any:
        if self._output is not None:
            os.close(open_output(str(self._output)))
        self.opened += 1
        inbox = Inbox()
        return inbox, feed_logger(inbox)

    def _make(self, account: Account, environment: Environment) -> Mock:
        if account.store is not None:
            self.stores.append(account.store)
        return Mock()


def test_a_state_whose_file_system_is_mounted_late_is_waited_for_loudly(tmp_path: Path) -> None:
    disk, state = tmp_path / "disk", tmp_path / "state"
    state.symlink_to(disk)
    start = Start(state).run(90.0, disk.mkdir)
    assert start.error is None
    assert 90.0 <= start.took < 96.0
    assert (disk / "main@stdout.sqlite3").exists()
    assert start.events() == [("start_held", "error"), ("start_resumed", "warning")]
    assert start.held[0].startswith("Cannot keep the checkpoint in ")
    assert start.held[-1] == ""


def test_an_output_whose_file_system_is_mounted_late_is_waited_for_with_the_states_held(tmp_path: Path) -> None:
    output = tmp_path / "mount" / "out.jsonl"
    state = tmp_path / "state"
    seen: list[list[str]] = []

    def mount() -> None:
        seen.append(open_files(state))
        output.parent.mkdir()

    start = Start(state, output).run(1800.0, mount)
    assert start.error is None
    assert 1800.0 <= start.took < 1806.0
    assert start.opened == 1
    assert any(name.endswith("main@stdout.lock") for name in seen[0])


def test_one_account_whose_state_is_away_does_not_open_the_others_twice(tmp_path: Path) -> None:
    """A state that is found damaged is set aside, and would be a new one at the next look."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "a@stdout.sqlite3").write_bytes(b"no database" * 100)
    (state / "b@stdout.sqlite3").symlink_to(tmp_path / "disk" / "b@stdout.sqlite3")
    start = Start(state, None, "a", "b").run(60.0, (tmp_path / "disk").mkdir)
    assert start.error is None
    assert [entry["account"] for entry in start.said.entries if entry["event"] == "state_damaged"] == ["a"]
    assert len(start.stores) == 2


@pytest.mark.parametrize(("what", "kind"), [("output", OutputUnavailable), ("state", StateUnavailable)])
def test_what_stays_away_ends_with_74_when_patience_does(tmp_path: Path, what: str, kind: type[FeedError]) -> None:
    (tmp_path / "state").symlink_to(tmp_path / "disk")
    away = {"output": (None, tmp_path / "mount" / "out"), "state": (tmp_path / "state", None)}[what]
    start = Start(*away).run()
    assert type(start.error) is kind
    assert start.error.exit_code == 74
    assert HOUR <= start.took < HOUR + 6.0
    assert open_files(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "seconds"),
    [
        ({"patience_s": 0.0}, 0.0),
        ({"limits": Limits(once=True)}, 0.0),
        ({"limits": Limits(duration=20.0)}, 20.0),
    ],
)
def test_nothing_is_waited_for_longer_than_the_answer_is(
    tmp_path: Path, options: dict[str, Any], seconds: float
) -> None:
    start = Start(None, tmp_path / "mount" / "out", **options).run()
    assert type(start.error) is OutputUnavailable
    assert seconds <= start.took < seconds + 6.0


def test_a_mistake_in_the_configuration_is_one_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    state = Start(tmp_path / "file" / "state").run()
    assert (type(state.error), state.took) == (ConfigError, 0.0)
    output = Start(tmp_path / "state", tmp_path / "file" / "out").run()
    assert (type(output.error), output.took) == (OutputFailed, 0.0)
    directory = Start(None, tmp_path).run()
    assert (type(directory.error), directory.took) == (OutputFailed, 0.0)


UNAVAILABLE = (
    "ENOSPC",
    "EDQUOT",
    "EROFS",
    "ENOENT",
    "ENODEV",
    "ENXIO",
    "EIO",
    "ESTALE",
    "ENOTCONN",
    "ETIMEDOUT",
    "EHOSTDOWN",
)
MISTAKES = ("EACCES", "EPERM", "EISDIR", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "EINVAL", "ETXTBSY")


@pytest.mark.parametrize(("name", "wanted"), [(name, name in UNAVAILABLE) for name in (*UNAVAILABLE, *MISTAKES)])
def test_a_start_waits_for_file_systems_and_not_for_mistakes(
    name: str, wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = getattr(errno, name)
    path = str(tmp_path / "out")
    error = OSError(number, os.strerror(number), path)
    assert passes(error) is wanted
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", Mock(side_effect=error))
        with pytest.raises(OutputFailed) as output:
            open_output(path)
        with pytest.raises((StateFailed, ConfigError)) as state:
            Store.open(str(tmp_path), "main", 0)
    assert isinstance(output.value, OutputUnavailable) is wanted
    assert isinstance(state.value, StateUnavailable) is wanted
    assert state.value.exit_code == (74 if wanted else 78)


def test_a_fifo_without_a_reader_is_no_file_system(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OutputFailed) as caught:
        open_output(str(tmp_path / "fifo"))
    assert type(caught.value) is OutputFailed
