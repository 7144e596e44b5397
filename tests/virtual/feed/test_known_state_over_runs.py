"""What is known of the output, over runs that differ in what they want: nothing counts as written that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kraken_feed.config.schema import Config
from kraken_feed.feed.environment import Limits
from kraken_feed.state import store as store_module
from kraken_feed.state.store import Store

from ...support import memory, virtual_time
from ...support.exchange_driver import T0
from .test_recovery import Log, exchange


@pytest.mark.parametrize("snapshots", ["changes", "none"])
def test_a_run_without_a_channel_leaves_what_is_known_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshots: str
) -> None:
    """Even if it writes the journal anew, again and again."""
    monkeypatch.setattr(store_module, "JOURNAL_BYTES", 0)
    several, one = Log(tmp_path, exchange(), "executions", "balances"), Log(tmp_path, exchange(), "balances")
    one.exchange, one.path = several.exchange, several.path

    async def main() -> None:
        await several.run(120.0, snapshots=snapshots)
        await one.run(60.0, snapshots=snapshots)
        await several.run(200.0, snapshots=snapshots)

    virtual_time.run(main())
    assert several.missing(T0 + 1, T0 + 300) == {"executions": set(), "balances": set()}
    assert several.duplicated([line for line in several.lines() if line["channel"] == "executions"]) == []


def test_what_a_limited_run_did_not_write_is_the_next_ones(tmp_path: Path) -> None:
    log = Log(tmp_path, exchange(), "executions")

    async def limited(count: int) -> None:
        with memory.running(log.exchange) as world:
            opened = Store.open(str(tmp_path / "state"), "main", world.unix_ns())
            kept: dict[str, Any] = {"store": opened.store, "checkpoint": opened.checkpoint}
            run = memory.Run(world, log.path, ("executions",), Config(), Limits(count=count), **kept)
            await run.feed.run()
            run.sink.close()

    async def main() -> None:
        await log.run(60.0)
        await log.away(10.0)
        await limited(3)
        await log.run(300.0)

    virtual_time.run(main())
    assert log.missing(T0 + 1, T0 + 250) == {"executions": set()}


def test_a_channel_that_was_live_once_is_not_new_to_a_run_that_knows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the first two saves: the snapshot's news is written, whatever was asked for."""
    log = Log(tmp_path, exchange(), "executions")
    save = Store.save

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Store, "save", lambda store, changes: None if changes.entries else save(store, changes))
            await log.run(1.5, kill=True, snapshots="none")
        await log.away(10.0)
        await log.run(300.0, snapshots="none")

    virtual_time.run(main())
    assert log.missing(T0 + 1, T0 + 250) == {"executions": set()}
