"""The installed command against the exchange on real sockets, with faults all the time: the ledger decides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kraken_feed.simulator.faults.scenario import LIKELY, RandomFaults, Scenario

from ..support.examples import some
from ..support.installed import Done, finish, run, site, start
from ..support.ledger_check import Published, check
from ..support.on_terminal import ended, on_terminal

ALL = ("openOrders", "ownTrades", "executions", "balances")
ITEMS = 3000

# A connection is known to the test by its greeting. Waits that are minutes long have their tests in virtual time.
KINDS = {kind: weight for kind, weight in LIKELY.items() if kind not in ("no_greeting", "http_502", "rest_error")}


def connections(done: Done) -> dict[str, int]:
    """The exchange's number of every connection, by its name in the output."""
    return {entry["connection"]: int(entry["kraken_connection"]) for entry in done.log if entry["event"] == "greeted"}


@pytest.mark.seeds
@pytest.mark.parametrize("seed", some(range(5)))
async def test_every_published_item_is_written_once_with_its_bytes_or_lies_in_a_declared_outage(
    seed: int, tmp_path: Path
) -> None:
    scenario = Scenario(random=RandomFaults(every=0.25, kinds=KINDS), tier="pro")
    async with site(tmp_path, rate=150.0, seed=seed, scenario=scenario) as place:
        # More reconnects a minute than any key's call counter allows; that limit has tests of its own.
        place.exchange.keys[place.exchange.key].counter.decay = 1e9
        process = await start(
            *ALL,
            "-v",
            "--snapshots",
            "all",
            "--no-backfill",
            "--count",
            str(ITEMS),
            env=place.environment(),
            fresh=True,
        )
        done = await finish(process)
        published = [
            Published(item.connection_id, item.channel, item.sequence, item.value)
            for item in place.exchange.ledger.published
        ]
    assert done.code == 0
    counts = check(done.out, published, connections(done))
    assert counts["written"] == ITEMS
    assert done.named("feed.lost") != []


async def test_json_is_escaped_on_a_terminal_and_byte_for_byte_in_a_pipe(tmp_path: Path) -> None:
    nasty = "\x7f\x9b31m\u202e"
    words = ("openOrders", "--once", "--no-state", "--format", "json", "--log-format", "json", "-v")
    async with site(tmp_path, open_orders=0, past_trades=0) as place:
        place.exchange.new_order(place.server.now(), cl_ord_id=nasty)
        piped = await run(*words, env=place.environment())
        async with on_terminal(*words, env=place.environment()) as terminal:
            assert await ended(terminal) == 0
            shown = bytes(terminal.raw).decode().replace("\r\n", "\n")
    assert f'"cl_ord_id":"{nasty}"' in piped.out.decode()
    assert '"cl_ord_id":"\\u007f\\u009b31m\\u202e"' in shown
    assert all(c.isprintable() or c == "\n" for c in shown)
    (order,) = piped.named("order")
    (seen,) = [line for line in map(json.loads, shown.splitlines()) if line.get("event_name") == "order"]
    assert seen["data"] == order["data"]
