"""What an operator sees while Kraken refuses a key that has worked, and one that never did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kraken_feed.config.schema import Config
from kraken_feed.errors import CredentialsRefused, FeedError
from kraken_feed.feed.environment import Limits
from kraken_feed.protocol.signing import Credentials
from kraken_feed.service.health import unready
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.state.checkpoint import ChannelState, Checkpoint
from kraken_feed.telemetry.stats import EndpointFigures
from kraken_feed.telemetry.status import status_line

from ...support import memory, virtual_time
from ...support.exchange_driver import T0
from ...support.figures import WELL

ALL = ("openOrders", "ownTrades", "executions", "balances")
KNOWN = Checkpoint(channels={"openOrders": ChannelState(complete_ns=int((T0 - 60) * 1e9))})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def exchange(*faults: Fault) -> Exchange:
    return Exchange(now=T0, seed=1, rate=0.0, scenario=Scenario(faults=faults))


class Watched(msgspec.Struct):
    """A run, and what could be seen each second of it: status line, reasons of /readyz, endpoints."""

    run: memory.Run
    seen: list[tuple[str, list[str], tuple[EndpointFigures, ...]]]
    error: FeedError | None = None

    def while_down(self) -> list[tuple[str, list[str], tuple[EndpointFigures, ...]]]:
        return [row for row in self.seen if row[1]]


def watch(exchange: Exchange, path: Path, *channels: str, seconds: float, **options: Any) -> Watched:
    async def main() -> Watched:
        with memory.running(exchange) as world:
            limits = Limits(duration=seconds)
            run = memory.Run(world, path, channels or ("openOrders",), Config(), limits, **options)
            watched = Watched(run, [])
            beside = asyncio.create_task(look(watched))
            try:
                await run.feed.run()
            except FeedError as error:
                watched.error = error
            finally:
                beside.cancel()
                await asyncio.wait([beside])
                run.sink.close()
            return watched

    async def look(watched: Watched) -> None:
        while True:
            await virtual_time.elapse(1.0)
            figures = watched.run.feed.figures()
            program = msgspec.structs.replace(WELL, accounts=(figures,))
            reasons = [reason["reason"] for reason in unready(program, 1e9)]
            watched.seen.append((status_line([figures], WELL.output), reasons, figures.endpoints))

    return virtual_time.run(main())


def test_twenty_minutes_of_refusals_are_said_by_status_readiness_and_diagnostics(path: Path) -> None:
    trouble = Fault("rest_error", at=100.0, duration=1200.0, text="EAPI:Invalid key")
    watched = watch(exchange(Fault("drop", at=101.0), trouble), path, seconds=3600.0)
    down = watched.while_down()[10:]
    assert len(down) > 1200
    assert all(line.startswith("key refused, ") for line, _, _ in down)
    assert "key refused, next try in 240s" in {line.partition(" (")[0] for line, _, _ in down}
    assert all("key refused by Kraken" in reason for _, reasons, _ in down for reason in reasons)
    said = [entry for entry in watched.run.diagnostics.entries if entry.get("refused")]
    assert [(entry["log_level"], entry["refused"]) for entry in said] == [("warning", "key")] * len(said)
    jitter = [1.0, 2.0, 4.0, 8.0, 16.0]  # after the drop that was before
    assert [entry["retry_in"] - by for entry, by in zip(said, jitter, strict=True)] == [5.0, 30.0, 120.0, 300.0, 900.0]
    assert watched.seen[-1][1] == []  # it came back
    assert watched.error is None


def test_both_endpoints_of_a_refused_key_say_so(path: Path) -> None:
    trouble = Fault("rest_error", at=0.0, duration=1e6, text="EAPI:Invalid key")
    watched = watch(exchange(trouble), path, *ALL, seconds=600.0, checkpoint=KNOWN)
    assert {endpoint.refused for _, _, endpoints in watched.seen[60:] for endpoint in endpoints} == {"key"}


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (Fault("rest_error", at=100.0, duration=300.0, text="ETrade:User Locked"), "account"),
        (Fault("rest_error", at=100.0, duration=300.0, text="EGeneral:Permission denied"), "key"),
        (Fault("rest_error", at=100.0, duration=300.0, text="Service Unavailable"), "token"),
        (Fault("refuse_token", at=100.0, duration=300.0, text="Service Unavailable"), "subscription"),
    ],
)
def test_what_is_refused_is_said_in_a_word(path: Path, fault: Fault, word: str) -> None:
    watched = watch(exchange(Fault("drop", at=101.0), fault), path, seconds=700.0)
    assert f"{word} refused" in {line.partition(",")[0] for line, _, _ in watched.while_down()}
    assert watched.seen[-1][1] == []


@pytest.mark.parametrize("text", ["ETrade:User Locked", "EAuth:Account temporary disabled"])
def test_a_suspended_account_that_never_worked_ends_as_one_and_not_as_a_defect(path: Path, text: str) -> None:
    watched = watch(exchange(Fault("rest_error", at=0.0, duration=1e6, text=text)), path, seconds=3600.0)
    assert isinstance(watched.error, CredentialsRefused)
    assert watched.error.what.startswith("Kraken refused the account")
    assert "report" not in str(watched.error)


def test_a_key_that_never_worked_ends_within_seconds(path: Path) -> None:
    wrong = Credentials("K" * 56, "c2VjcmV0", source="the test")
    watched = watch(exchange(), path, seconds=3600.0, credentials=wrong)
    assert isinstance(watched.error, CredentialsRefused)
    assert watched.run.world.now() - T0 < 10.0


def test_an_account_of_which_nothing_was_ever_live_is_known_to_its_checkpoint_and_has_not_worked(path: Path) -> None:
    began = Checkpoint(nonce=int(T0 * 1e9), channels={"openOrders": ChannelState()})
    trouble = Fault("rest_error", at=0.0, duration=1e6, text="EAPI:Invalid key")
    watched = watch(exchange(trouble), path, seconds=3600.0, checkpoint=began)
    assert isinstance(watched.error, CredentialsRefused)
    assert watched.run.world.now() - T0 < 10.0
