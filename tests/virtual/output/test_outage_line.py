"""The line below the rows over an outage, second by second, with the figures of a real feed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from kraken_feed.config.schema import Config
from kraken_feed.feed.environment import Limits
from kraken_feed.output.last_line import last_line
from kraken_feed.output.zone import Zone
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario

from ...support import memory, virtual_time
from ...support.exchange_driver import T0

LOST_S, BACK_S = 20.0, 80.0  # the connection is cut, and upgrades are refused for a minute
FAULTS = (Fault("drop", at=LOST_S, code=1001), Fault("upgrade_refused", at=LOST_S, duration=BACK_S - LOST_S))


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    """The line at every second of two minutes."""

    async def main() -> list[str]:
        exchange = Exchange(now=T0, seed=1, rate=0.0, scenario=Scenario(faults=FAULTS), open_orders=3)
        with memory.running(exchange) as world:
            run = memory.Run(world, tmp_path / "out.jsonl", ("openOrders",), Config(), Limits(duration=120.0))
            said = list[str]()
            running = asyncio.create_task(run.feed.run())
            while not running.done():
                figures = [run.feed.figures()]
                said.append(last_line(figures, run.feed._shared.environment.unix_ns(), Zone(), 79).text.strip())
                await virtual_time.elapse(1.0)
            await running
            run.sink.close()
            return said

    return virtual_time.run(main())


def test_the_line_follows_an_outage(lines: list[str]) -> None:
    quiet, outage, after = lines[2 : int(LOST_S)], lines[int(LOST_S) + 1 : int(BACK_S)], lines[-10:]

    assert lines[0] == "connecting, 0s | Ctrl-C stops"
    assert {line.partition(" | last")[0] for line in quiet} == {"live since 08:53:20 | 3 open orders"}
    assert len({line.partition(" | last")[2] for line in quiet}) >= len(quiet) - 1, "each second shows a newer frame"

    found = [
        re.fullmatch(r"down (?:1m )?\d+s \| attempt (\d+) (?:in (\d+)s|now) \| (.*) \| Ctrl-C stops", line)
        for line in outage
    ]
    assert None not in found, outage
    lasted = [line.partition(" |")[0].removeprefix("down ") for line in outage]
    assert lasted[:3] == ["0s", "1s", "2s"] or lasted[:3] == ["1s", "2s", "3s"]
    attempts = [int(match[1]) for match in found if match]
    assert attempts == sorted(attempts)
    assert attempts[0] <= 2
    assert attempts[-1] >= 5
    for (number, wait), (later, shorter) in zip(_waits(found), _waits(found)[1:], strict=False):
        assert later != number or shorter == wait - 1, "it counts down once per second"
    assert {match[3] for match in found if match} <= {"connection closed", "refused by Kraken"}

    assert all(line.startswith("live since 08:5") and "| recovering |" in line for line in after), after


def _waits(found: list[re.Match[str] | None]) -> list[tuple[int, int]]:
    return [(int(match[1]), int(match[2])) for match in found if match and match[2]]
