"""``kraken_feed.tail`` as a program calls it, on real sockets: what it takes, where it runs, what it says."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import logging
import os
import pkgutil
import re
import traceback
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

import kraken_feed
from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import Site, finish, site
from ..support.reader_programs import ALL, started
from ..support.repository import ROOT
from ..support.timeouts import TIMEOUT_S
from .test_secrets import OTP, Watched, keys, leaks

PAGE = (ROOT / "docs" / "api.md").read_text()


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without anything of the person who runs the tests."""
    for name in list(os.environ):
        if name.startswith(("KRAKEN_", "XDG_")) or name in ("CREDENTIALS_DIRECTORY", "STATE_DIRECTORY"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


def endpoints(place: Site) -> dict[str, Any]:
    server = place.server
    return {"endpoints": {"rest": server.rest_url, "ws_v1": server.ws_v1_url, "ws_v2": server.ws_v2_url}}


def credentials(place: Site, account: int = 0) -> kraken_feed.Credentials:
    key = place.exchange.world.first_key(place.exchange.accounts[account])
    return kraken_feed.Credentials(key.key, key.secret)


# ------------------------------------------------------------------------------------------------ names


def test_every_public_name_is_there_and_documented() -> None:
    for name in kraken_feed.__all__:
        assert getattr(kraken_feed, name) is not None
        assert name in dir(kraken_feed)
        assert name == "__version__" or re.search(rf"\b{name}\b", PAGE), name
    with pytest.raises(AttributeError, match="has no attribute 'tial'"):
        _ = kraken_feed.tial  # type: ignore[attr-defined]  # that is the claim


def test_no_module_hides_a_public_name() -> None:
    """A module that is imported becomes an attribute of the package."""
    for module in pkgutil.iter_modules(kraken_feed.__path__):
        if module.name != "__main__":
            importlib.import_module(f"kraken_feed.{module.name}")
            assert module.name not in kraken_feed.__all__
    assert callable(kraken_feed.tail)


# ------------------------------------------------------------------------------------------------ what it takes


@pytest.mark.usefixtures("alone")
async def test_without_arguments_it_finds_what_the_command_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site(tmp_path, rate=20.0) as place:
        place.configure(before='channels = ["executions"]')
        for name, value in place.environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
        async with kraken_feed.tail() as records:
            assert (await anext(records)).channel == "executions"
    assert (tmp_path / "state/main@program.sqlite3").exists()


@pytest.mark.usefixtures("alone")
async def test_two_accounts_and_two_handles_run_in_one_process(tmp_path: Path) -> None:
    async with site(tmp_path, rate=20.0, accounts=2) as place:
        both = {"first": credentials(place), "second": credentials(place, 1)}
        options: dict[str, Any] = {"config": endpoints(place), "duration": 1.0}
        state = tmp_path / "a"
        state = tmp_path / "a"
        async with (
            kraken_feed.tail("openOrders", credentials=both, state=state, **options) as one,
            kraken_feed.tail(
                "executions", accounts="first", credentials=both, state=(tmp_path / "a", "own"), **options
            ) as two,
        ):
            taken = [[record async for record in one], [record async for record in two]]
    assert {(record.account, record.channel) for record in taken[0]} == {
        ("first", "openOrders"), ("second", "openOrders"),
    }  # fmt: skip
    assert {(record.account, record.channel) for record in taken[1]} == {("first", "executions")}
    assert {name for name in os.listdir(tmp_path / "a") if name.endswith("3")} == {
        "first@program.sqlite3", "second@program.sqlite3", "first@own.sqlite3",
    }  # fmt: skip


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("wanted", "error", "says"),
    [
        ({"channels": ["openorders"]}, kraken_feed.UsageError, "Did you mean openOrders"),
        ({"accounts": "no name"}, kraken_feed.UsageError, "cannot name an account"),
        ({"accounts": ["main", "mian"]}, kraken_feed.ConfigError, "No API key for the account 'mian'"),
        ({"credentials": {}}, kraken_feed.ConfigError, "No API key for the account 'main'"),
        ({"credentials": None}, kraken_feed.ConfigError, "No API key for the account 'main'"),
        ({"credentials": "twice"}, kraken_feed.ConfigError, "have the same API key"),
        ({"config": "/nowhere/config.toml"}, kraken_feed.ConfigError, "Cannot read the configuration"),
        ({"config": {"endpoints": {"rset": ""}}}, kraken_feed.ConfigError, "Did you mean endpoints.rest"),
        ({"config": {"account": 1}}, kraken_feed.ConfigError, "account has a wrong value"),
        ({"since": datetime(2026, 1, 1)}, kraken_feed.UsageError, "no time zone"),  # that is the claim
        (
            {"since": datetime(2999, 1, 1, tzinfo=UTC)},
            kraken_feed.UsageError,
            "since must be a time between 1970 and now",
        ),
        ({"since": datetime(1, 1, 1, tzinfo=UTC)}, kraken_feed.UsageError, "since must be a time between 1970 and now"),
        ({"since": timedelta.max}, kraken_feed.UsageError, "since must be a time between 1970 and now"),
        ({"snapshots": "some"}, kraken_feed.UsageError, "snapshots must be one of changes, all, none"),
        ({"count": 0}, kraken_feed.UsageError, "count must be a number above zero"),
        ({"duration": float("nan")}, kraken_feed.UsageError, "duration must be a number above zero"),
        ({"state": "/dev/null/nowhere"}, kraken_feed.ConfigError, "Cannot use the state file"),
    ],
)
async def test_what_makes_no_sense_is_said_on_entering(
    wanted: dict[str, Any], error: type[kraken_feed.FeedError], says: str
) -> None:
    key = kraken_feed.Credentials("KEY0123456789", "A" * 86 + "==")
    given: dict[str, Any] = {"credentials": {"main": key}, "config": {}, "state": False, **wanted}
    if wanted.get("credentials") == "twice":
        given["credentials"] = {"a": key, "b": kraken_feed.Credentials("KEY0123456789", "B" * 86 + "==")}
    records = kraken_feed.tail(*given.pop("channels", ["openOrders"]), **given)
    with pytest.raises(error, match=re.escape(says)):
        await records.__aenter__()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.usefixtures("alone")
async def test_since_recovers_what_was_before_a_first_start(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.exchange.keys[place.exchange.key].counter.decay = 1e9
        place.server.tick()
        order = place.exchange.new_order(place.server.now(), volume="1.0")
        place.exchange.fill(order, "1.0", place.server.now())
        place.server.tick()
        config = {**endpoints(place), "backfill": {"second_pass_s": 0.1, "rest_counter": 1000, "rest_decay": 1000.0}}
        async with kraken_feed.tail(
            "executions", config=config, credentials=credentials(place), state=tmp_path, since=timedelta(minutes=5)
        ) as records:
            taken = []
            async with asyncio.timeout(TIMEOUT_S):
                async for record in records:
                    taken.append(record)
                    if isinstance(record, kraken_feed.Backfilled):
                        records.stop()
    assert any(
        record.order_id == order and record.id.endswith(":end")
        for record in taken
        if isinstance(record, kraken_feed.Item)
    )


async def test_it_is_used_once_and_only_inside(tmp_path: Path) -> None:
    key = kraken_feed.Credentials("KEY0123456789", "A" * 86 + "==")
    config = {"endpoints": {"rest": "http://127.0.0.1:9", "ws_v1": "ws://127.0.0.1:9", "ws_v2": "ws://127.0.0.1:9"}}
    records = kraken_feed.tail("openOrders", config=config, credentials=key, state=False)
    for outside in (records.stop, records.figures, lambda: records.live):
        with pytest.raises(RuntimeError, match="async with"):
            outside()
    with pytest.raises(RuntimeError, match="async with"):
        await anext(records)
    async with records:
        assert not records.live
        assert [figures.account for figures in records.figures()] == ["main"]
    with pytest.raises(RuntimeError, match="once"):
        await records.__aenter__()
    assert [record async for record in records] == []


# ------------------------------------------------------------------------------------------------ where it runs


@pytest.mark.usefixtures("alone")
async def test_it_lives_in_the_lifespan_of_a_web_application(tmp_path: Path) -> None:
    """As on the page: entered by one task, iterated by another, stopped by the first."""
    taken: list[kraken_feed.Record] = []

    async with site(tmp_path, rate=50.0) as place:

        @contextlib.asynccontextmanager
        async def lifespan() -> AsyncIterator[kraken_feed.Records]:
            async with (
                kraken_feed.tail(
                    "executions", config=endpoints(place), credentials=credentials(place), state=tmp_path
                ) as records,
                asyncio.TaskGroup() as tasks,
            ):
                tasks.create_task(consume(records))
                yield records
                records.stop()

        enough = asyncio.Event()

        async def consume(records: kraken_feed.Records) -> None:
            async for record in records:
                taken.append(record)
                if records.live and len(taken) > 20:
                    enough.set()

        async with asyncio.timeout(TIMEOUT_S), lifespan() as records:
            await enough.wait()
            (figures,) = records.figures()
            assert figures.live
            assert figures.endpoints[0].channels == ("executions",)
    assert isinstance(taken[-1], kraken_feed.Stopped)


@pytest.mark.usefixtures("alone")
def test_it_lives_in_a_notebook_cell_by_cell(tmp_path: Path) -> None:
    """Each cell is a task of its own in a loop that is there before and after."""
    with asyncio.Runner() as notebook:
        cells, loop = contextlib.AsyncExitStack(), notebook.get_loop()
        place = notebook.run(cells.enter_async_context(site(tmp_path, rate=50.0)))
        records = kraken_feed.tail(
            "executions", config=endpoints(place), credentials=credentials(place), state=tmp_path
        )
        assert notebook.run(records.__aenter__()) is records
        taken = [notebook.run(records.__anext__()) for _ in range(10)]
        assert asyncio.all_tasks(loop)
        notebook.run(records.__aexit__(None, None, None))
        assert not asyncio.all_tasks(loop)
        notebook.run(cells.aclose())
    assert len({record.id for record in taken}) == 10


# ------------------------------------------------------------------------------------------------ what it says


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Everything that is logged in the process, at DEBUG, with tracebacks: as after ``logging.basicConfig``."""
    stream, root = io.StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(stream), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("given", [False, True])
async def test_no_secret_is_in_a_program_that_logs_everything(
    given: bool, tmp_path: Path, logged: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    """With connections that break, acknowledgements that echo the token, and a key that is refused in the end."""
    said = LogCapture()
    log = structlog.wrap_logger(None, processors=[said]) if given else None
    server_says = logging.getLogger("websockets.server")  # the exchange's, in the same process: not ours to silence
    server_says.setLevel(logging.WARNING)
    async with site(tmp_path, rate=50.0) as place:
        env = keys(place)
        watched = Watched(place.exchange)
        key = kraken_feed.Credentials(env["KRAKEN_API_KEY"], env["KRAKEN_API_SECRET"], env["KRAKEN_API_OTP"])
        config = {**endpoints(place), "reconnect": {"initial_s": 0.02, "max_s": 0.05}}
        errors = []
        for fault in (Fault("drop", code=1001), Fault("refuse_token", duration=1e9, text="EGeneral:Permission denied")):
            async with kraken_feed.tail(
                *ALL, config=config, credentials=key, state=False, log=log, duration=20.0
            ) as records:
                try:
                    async for record in records:
                        if isinstance(record, kraken_feed.Live):
                            place.inject(fault)
                        if isinstance(record, kraken_feed.Lost) and fault.kind == "drop":
                            break
                        if isinstance(record, kraken_feed.Lost):
                            continue
                        if fault.kind != "drop" and isinstance(record, kraken_feed.Live):
                            place.inject(Fault("drop", code=1001))
                except kraken_feed.FeedError as error:
                    errors += traceback.format_exception(error)
    server_says.setLevel(logging.NOTSET)
    out, err = capfd.readouterr()
    content = "".join([logged.getvalue(), out, err, *errors, *map(str, said.entries)])
    assert "connection_lost" in content
    assert "CredentialsRefused" in content
    assert len(watched.seen) >= 4
    whole = {*watched.seen, env["KRAKEN_API_SECRET"], OTP}
    assert leaks(content.encode(), whole | {secret[-12:] for secret in whole}) == []  # libraries cut long texts
    assert out == ""


QUIET = """
import asyncio, logging, sys
import kraken_feed

async def main():
    before = {name: (l.level, l.propagate, list(l.handlers)) for name, l in logging.root.manager.loggerDict.items()
              if isinstance(l, logging.Logger)}
    key = kraken_feed.Credentials("KEY0123456789", "A" * 86 + "==")
    config = {"endpoints": {"rest": "http://127.0.0.1:9", "ws_v1": "ws://127.0.0.1:9", "ws_v2": "ws://127.0.0.1:9"}}
    async with kraken_feed.tail("openOrders", config=config, credentials=key, state=False, duration=0.2) as records:
        print([type(record).__name__ async for record in records])
    for name in ("", "websockets", "websockets.client", "httpx", "httpcore", "asyncio"):
        logger = logging.getLogger(name)
        assert (logger.handlers, logger.propagate, logger.level) == ([], True, 30 if not name else 0), name

asyncio.run(main())
unwanted = ("kraken_feed.cli.main", "kraken_feed.service.run", "kraken_feed.output.sink")
assert not [m for m in unwanted if m in sys.modules]
"""


async def test_a_program_that_configured_nothing_hears_nothing(tmp_path: Path) -> None:
    done = await finish(await started(QUIET, tmp_path, {}))
    assert (done.out, done.err, done.code) == (b"['Stopped']\n", "", 0)
