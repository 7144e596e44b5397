"""Several accounts in one process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog
from structlog.testing import LogCapture
from websockets.exceptions import ConnectionClosedError

from kraken_feed.config.schema import Config
from kraken_feed.errors import CredentialsRefused, FeedError, OutputFailed, RequestRefused
from kraken_feed.feed.environment import UNLIMITED, Account, Environment, Limits, Quota
from kraken_feed.feed.feed import Feed
from kraken_feed.feed.supervisor import Supervisor
from kraken_feed.output.file import open_output
from kraken_feed.output.sink import Sink
from kraken_feed.protocol.signing import Credentials
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.telemetry.loggers import feed_logger
from kraken_feed.text import Secrets
from kraken_feed.transport.backoff import BURST, SPACING_S, Budget

from ...support import virtual_time
from ...support.exchange_driver import T0
from ...support.memory import Transport, World

NO_FAULTS: Mapping[str, tuple[Fault, ...]] = {}


class House:
    """Accounts, two by default, each at an exchange of its own, with one output and one budget."""

    def __init__(
        self,
        path: Path,
        *,
        wrong: tuple[str, ...] = (),
        limits: Limits = UNLIMITED,
        budget: int = 100,
        faults: Mapping[str, tuple[Fault, ...]] = NO_FAULTS,
        accounts: Sequence[str] = ("a", "b"),
    ) -> None:
        self.path = path
        self.diagnostics = LogCapture()
        log = structlog.wrap_logger(None, processors=[self.diagnostics])
        self.sink = Sink(open_output(str(path)), str(path), lambda error: self.supervisor.fail(error), str(path))
        self.worlds = {
            name: World(Exchange(now=T0, seed=seed, rate=1.0, scenario=Scenario(faults=faults.get(name, ()))))
            for seed, name in enumerate(accounts)
        }
        shared_budget, quota = Budget(budget, 600.0), Quota(limits.count)
        self.feeds = [
            Feed(
                Account(
                    name=name,
                    channels=("openOrders",),
                    credentials=Credentials(
                        world.exchange.key if name not in wrong else "x" * 56, world.exchange.secret, source="test"
                    ),
                ),
                Environment(
                    config=Config(),
                    sink=self.sink,
                    feed_log=feed_logger(self.sink),
                    log=log,
                    secrets=Secrets(),
                    limits=limits,
                    quota=quota,
                    budget=shared_budget,
                    transport=Transport(world),
                    dial=world.dial,
                    unix_ns=world.unix_ns,
                    boot_ns=world.boot_ns,
                    draw=lambda: 0.5,
                ),
            )
            for name, world in self.worlds.items()
        ]
        self.supervisor = Supervisor(self.feeds, log)
        self.reason = ""
        self.error: FeedError | None = None

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_bytes().splitlines()]

    def events(self, account: str) -> Counter[str]:
        return Counter(line["event_name"] for line in self.lines if line["account"] == account)

    def end(self) -> None:
        self.sink.close()
        for world in self.worlds.values():
            world.end()


def run(path: Path, script: Callable[[House], Coroutine[Any, Any, None]] | None = None, **options: Any) -> House:
    """Run both feeds to their end, with a script beside them."""

    async def main() -> House:
        house = House(path, **options)
        beside = asyncio.create_task(script(house)) if script is not None else None
        try:
            house.reason = await house.supervisor.run()
        except FeedError as error:
            house.error = error
        finally:
            if beside is not None:
                beside.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await beside
            house.end()
        return house

    with patch("os.fdatasync"):
        return virtual_time.run(main())


async def stop_after(house: House, seconds: float) -> None:
    await virtual_time.elapse(seconds)
    house.supervisor.stop("SIGTERM")


def test_each_account_has_its_records_under_its_name(tmp_path: Path) -> None:
    house = run(tmp_path / "out", limits=Limits(duration=60.0))
    for name, world in house.worlds.items():
        assert house.events(name)["order"] > 10
        assert house.events(name)["feed.live"] == house.events(name)["feed.stopped"] == 1
        for line in house.lines:
            if line["account"] == name and "order_id" in line:
                assert world.exchange.order(line["order_id"]).id == line["order_id"]  # and not the other's
    assert len({line["id"] for line in house.lines}) == len(house.lines)


def test_a_refused_key_stops_its_account_loudly_and_not_the_other(tmp_path: Path) -> None:
    house = run(tmp_path / "out", lambda house: stop_after(house, 200.0), wrong=("a",))
    (said,) = [entry for entry in house.diagnostics.entries if entry["event"] == "account_stopped"]
    assert said["account"] == "a"
    assert said["log_level"] == "error"
    assert "EAPI:Invalid key" in said["what"]
    assert house.events("a")["feed.live"] == 0
    assert house.events("a")["feed.stopped"] == 1
    assert house.events("b")["order"] > 30
    assert house.error is None
    assert house.reason == "SIGTERM"


@pytest.mark.parametrize("text", ["EGeneral:Permission denied", "ETrade:User Locked", "Service Unavailable"])
def test_no_refusal_of_one_account_ends_another(tmp_path: Path, text: str) -> None:
    fault = Fault("rest_error", at=0.0, duration=1e6, text=text)
    house = run(tmp_path / "out", lambda house: stop_after(house, 200.0), faults={"a": (fault,)})
    (said,) = [entry for entry in house.diagnostics.entries if entry["event"] == "account_stopped"]
    assert text in f"{said['what']} {said['why']}"
    assert house.events("b")["order"] > 30
    assert (house.error, house.reason) == (None, "SIGTERM")


def test_a_refused_subscription_of_one_account_does_not_end_another(tmp_path: Path) -> None:
    fault = Fault("refuse_token", at=0.0, duration=1e6, text="Malformed request")
    house = run(tmp_path / "out", lambda house: stop_after(house, 200.0), faults={"a": (fault,)})
    assert [entry["account"] for entry in house.diagnostics.entries if entry["event"] == "account_stopped"] == ["a"]
    assert house.events("b")["order"] > 30


def test_connects_of_many_accounts_are_spread_also_after_an_outage_of_the_network(tmp_path: Path) -> None:
    """All of them lose their connection in the same moment, and draw the same backoff."""
    names = [f"a{number}" for number in range(12)]
    drop = dict.fromkeys(names, (Fault("drop", at=60.0),))
    house = run(tmp_path / "out", lambda house: stop_after(house, 90.0), accounts=names, faults=drop)
    dialled = sorted(at for world in house.worlds.values() for at, _, _ in world.dials)
    first, second = dialled[: len(names)], dialled[len(names) :]
    assert len(second) == len(names)
    for begun in (first, second):
        gaps = [after - before for before, after in itertools.pairwise(begun[BURST + 1 :])]
        assert min(gaps) >= SPACING_S / 2 - 1e-6
        assert begun[-1] - begun[0] == pytest.approx(SPACING_S * (len(names) - 1 - BURST), abs=SPACING_S)
    assert not [entry for entry in house.diagnostics.entries if entry["event"] == "connect_postponed"]


def test_the_exit_code_tells_of_an_account_that_was_refused_when_nobody_asked_for_the_end(tmp_path: Path) -> None:
    fault = Fault("rest_error", at=0.0, duration=1e6, text="Service Unavailable")
    house = run(tmp_path / "out", limits=Limits(duration=100.0), faults={"a": (fault,)})
    assert isinstance(house.error, RequestRefused)


def test_the_last_refused_key_ends_the_process(tmp_path: Path) -> None:
    house = run(tmp_path / "out", wrong=("a", "b"))
    assert isinstance(house.error, CredentialsRefused)
    assert len([entry for entry in house.diagnostics.entries if entry["event"] == "account_stopped"]) == 1


def test_a_limit_that_one_account_could_not_meet_is_not_called_met(tmp_path: Path) -> None:
    house = run(tmp_path / "out", wrong=("a",), limits=Limits(once=True))
    assert isinstance(house.error, CredentialsRefused)
    assert house.events("b")["feed.live"] == 1


def test_the_accounts_share_the_count_of_items(tmp_path: Path) -> None:
    house = run(tmp_path / "out", limits=Limits(count=25))
    assert house.events("a")["order"] + house.events("b")["order"] == 25
    assert house.events("a")["order"] > 0
    assert house.events("b")["order"] > 0
    assert house.reason == "count"


def test_the_accounts_share_the_budget_of_connects(tmp_path: Path) -> None:
    async def refuse(house: House) -> None:
        for world in house.worlds.values():
            world.network = False
        await stop_after(house, 590.0)

    house = run(tmp_path / "out", refuse, budget=7)
    assert sum(len(world.dials) for world in house.worlds.values()) == 7
    assert all(world.dials for world in house.worlds.values())


def test_an_output_that_fails_ends_all_of_them(tmp_path: Path) -> None:
    async def fail(house: House) -> None:
        await virtual_time.elapse(5.0)
        house.supervisor.fail(OutputFailed("Cannot write to it."))

    house = run(tmp_path / "out", fail)
    assert isinstance(house.error, OutputFailed)
    assert {feed.reason for feed in house.feeds} == {"error: Cannot write to it."}


def test_figures_tell_of_every_account(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def look(house: House) -> None:
        await virtual_time.elapse(30.0)
        seen.extend((house.supervisor.figures(), house.supervisor.live))
        await stop_after(house, 1.0)

    run(tmp_path / "out", look)
    figures, live = seen
    assert live
    assert [one.account for one in figures] == ["a", "b"]
    for one in figures:
        assert one.live
        assert one.records["openOrders", "feed.live"] == 1
        assert one.calls == {("GetWebSocketsToken", "ok"): 1}
        assert one.open_orders["openOrders"] > 0
        assert one.last_record_ns <= one.last_frame_ns
        assert not one.overdue


def test_a_part_that_misses_its_deadline_is_named_and_a_dead_exchange_is_none(tmp_path: Path) -> None:
    seen: list[str] = []

    def overdue(house: House) -> str:
        return next((figures.overdue for figures in house.supervisor.figures() if figures.overdue), "")

    async def look(house: House) -> None:
        await virtual_time.elapse(30.0)
        session = house.feeds[0]._endpoints[0]._session
        assert session is not None
        with pytest.MonkeyPatch.context() as patch:  # an hour ago, and nobody has looked at it
            patch.setattr(session, "deadline", lambda: asyncio.get_running_loop().time() - 3600.0)
            seen.append(overdue(house))
        for world in house.worlds.values():
            world.network = False
            for socket in list(world.sockets):
                socket.hang_up(ConnectionClosedError(None, None))
        for _ in range(100):
            await virtual_time.elapse(10.0)
            seen.append(overdue(house))
        await stop_after(house, 1.0)

    run(tmp_path / "out", look)
    assert seen[0] == "endpoint v1"
    assert set(seen[1:]) == {""}
