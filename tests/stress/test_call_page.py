"""docs/call.md is true: every method has its example, and every example runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from kraken_feed.order_entry.methods import METHODS
from kraken_feed.protocol.permissions import needed_for
from kraken_feed.simulator.access.key import READ_PERMISSIONS, TRADING_PERMISSIONS
from kraken_feed.simulator.faults.fault import ORDER_KINDS

from ..support.installed import COMMAND, bare, finish, site
from ..support.repository import ROOT

PAGE = (ROOT / "docs" / "call.md").read_text()
EXAMPLES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()]


def test_every_method_has_an_example() -> None:
    assert {match[1] for line in EXAMPLES if (match := re.search(r"kraken-feed call (\w+)", line))} == set(METHODS)


@pytest.mark.parametrize("line", EXAMPLES)
async def test_an_example_runs(line: str, tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=0, past_trades=0) as place:
        orders = [place.exchange.new_order(place.server.now(), volume="0.5") for _ in range(2)]
        for number, order_id in enumerate(orders, 1):
            line = line.replace(f"OAAAAA-BBBBB-CCCCC{number}", order_id)
        before = len(place.exchange.ledger.changes)
        key = place.exchange.add_key(permissions=(*READ_PERMISSIONS, *TRADING_PERMISSIONS))
        path = f"{Path(COMMAND).parent}:{bare(tmp_path)['PATH']}"
        env = place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret, PATH=path)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", line, env=env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
        changed = len(place.exchange.ledger.changes) > before
        timed = place.exchange.accounts[0].cancel_at != float("inf")
    assert done.code == 0, done.err
    assert (changed or timed) is line.endswith("--live")


def test_the_permissions_are_those_of_the_messages() -> None:
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", PAGE.partition("## Permissions")[2], re.M)
    said = {name: needs for names, needs in rows for name in re.findall(r"`(\w+)`", names)}
    others = dict(rows)["the others"]
    assert {name: said.get(name, others) for name in METHODS} == {name: needed_for(name) for name in METHODS}
    assert dict(rows)["all"] == needed_for("GetWebSocketsToken")


def test_the_faults_that_it_names_exist() -> None:
    assert set(re.findall(r"`(\w+_(?:answer|order))`", PAGE.rpartition("`kraken-feed simulate")[2])) == ORDER_KINDS
