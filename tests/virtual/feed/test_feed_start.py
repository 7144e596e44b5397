"""What a feed begins with: the outages that an earlier run has left, the one since it ended, and the call counter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kraken_feed.config.schema import BackfillConfig, Config
from kraken_feed.errors import UsageError
from kraken_feed.feed.environment import Limits
from kraken_feed.feed.last_records import LastRecord
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.state.checkpoint import CallLevel, ChannelState, Checkpoint, Outage
from kraken_feed.state.store import Store
from kraken_feed.transport.backoff import HISTORY_COST

from ...support import memory, virtual_time
from ...support.exchange_driver import T0

NS = 1_000_000_000
NOW = round(T0) * NS
THEN = NOW - 7 * 86400 * NS  # when the earlier run ended
HISTORY_LATE_S = 900  # ten times second_pass_s: an outage that was pending is declared by then
WRONG_CLOCK_S = 3600


def start(tmp_path: Path, look: Callable[[memory.Run], Any], *, state: bool = True, **options: Any) -> Any:
    """Make a feed of openOrders, and return what ``look`` finds before it runs."""

    async def main() -> Any:
        with memory.running(Exchange(now=T0, seed=1)) as world:
            store = Store.open(str(tmp_path / "state"), "main", NOW).store if state else None
            config = Config(backfill=BackfillConfig(second_pass_s=90.0, rest_counter=20, rest_decay=0.5))
            run = memory.Run(world, tmp_path / "out", ("openOrders",), config, Limits(), store=store, **options)
            found = look(run)
            found = await found if hasattr(found, "__await__") else found
            run.sink.close()
            if store is not None:
                store.close()
            return found

    return virtual_time.run(main())


def opened(run: memory.Run) -> list[tuple[int | None, str]]:
    """Return beginning and cause of every outage."""
    return [(outage.start_ns, outage.cause) for outage in run.feed._recovery.outages]


def checkpoint(complete_ns: int = THEN, **options: Any) -> Checkpoint:
    return Checkpoint(saved_ns=THEN, channels={"openOrders": ChannelState(complete_ns)}, **options)


def test_a_restart_opens_an_outage_where_the_checkpoint_ends(tmp_path: Path) -> None:
    assert start(tmp_path, opened, checkpoint=checkpoint()) == [(THEN, "restart")]


def test_a_checkpoint_by_a_wall_clock_is_an_hour_short_of_its_time(tmp_path: Path) -> None:
    early = THEN - WRONG_CLOCK_S * NS
    assert start(tmp_path, opened, checkpoint=checkpoint(legacy=True)) == [(early, "restart")]


def test_an_outage_that_an_earlier_run_has_left_is_recovered_beside_the_one_since(tmp_path: Path) -> None:
    known = checkpoint()
    known.channels["openOrders"].outages.append(Outage("openOrders", THEN - 50 * NS, "closed", THEN - 40 * NS))
    assert start(tmp_path, opened, checkpoint=known) == [(THEN - 50 * NS, "closed"), (THEN, "restart")]


def test_an_outage_without_an_end_goes_on_from_where_it_began(tmp_path: Path) -> None:
    known = checkpoint()
    known.channels["openOrders"].outages.append(Outage("openOrders", THEN - 50 * NS, "closed"))
    assert start(tmp_path, opened, checkpoint=known) == [(THEN - 50 * NS, "closed")]


def test_what_the_checkpoint_says_comes_before_what_the_output_says(tmp_path: Path) -> None:
    last = {"openOrders": LastRecord(THEN + 5 * NS, THEN + 5 * NS, None)}
    found = start(tmp_path, opened, checkpoint=checkpoint(), last=last, found="lost")
    assert found == [(THEN, "restart")]


def test_since_is_refused_where_the_output_has_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--since") as caught:
        start(tmp_path, opened, checkpoint=checkpoint(), since_ns=THEN + NS)
    assert "openOrders" in caught.value.why
    assert "history --since" in caught.value.remedy


def test_a_first_start_with_since_is_an_outage_from_then_on(tmp_path: Path) -> None:
    assert start(tmp_path, opened, since_ns=THEN) == [(THEN, "since")]


@pytest.mark.parametrize("channels", [{}, {"openOrders": ChannelState()}])
@pytest.mark.parametrize(
    ("ts_ns", "kraken_ns", "begin"),
    [
        (THEN, THEN - 5 * NS, THEN - (5 + HISTORY_LATE_S) * NS),
        (THEN - 5 * NS, THEN, THEN - (5 + HISTORY_LATE_S) * NS),
        (THEN, None, THEN - (WRONG_CLOCK_S + HISTORY_LATE_S) * NS),
    ],
)
def test_without_a_checkpoint_the_outage_begins_a_quarter_of_an_hour_before_the_last_record(
    tmp_path: Path, channels: dict[str, ChannelState], ts_ns: int, kraken_ns: int | None, begin: int
) -> None:
    """A record without Kraken's time has only that of a wall clock, which may be an hour off."""
    last = {"openOrders": LastRecord(ts_ns, kraken_ns, None)}
    found = start(tmp_path, opened, checkpoint=Checkpoint(channels=channels), last=last, found="lost")
    assert found == [(begin, "state_missing")]


def test_a_lost_state_without_a_record_is_an_outage_whose_beginning_is_not_known(tmp_path: Path) -> None:
    last = {"ownTrades": LastRecord(THEN, THEN, None)}
    assert start(tmp_path, opened, last=last, found="lost") == [(None, "state_lost")]


@pytest.mark.parametrize(
    ("before", "first"),
    [
        ({}, True),
        ({"since_ns": THEN}, False),
        ({"last": {"openOrders": LastRecord(THEN, THEN, None)}, "found": "lost"}, False),
        ({"found": "lost"}, False),
        ({"checkpoint": checkpoint()}, False),
    ],
)
def test_what_the_first_snapshot_shows_is_known_only_if_nothing_was_missed_before_it(
    tmp_path: Path, before: dict[str, Any], first: bool
) -> None:
    """With `--snapshots none` it is not written then; a fill in it may be one that was missed."""
    assert (
        start(tmp_path, lambda run: run.feed._shared.knowledge["openOrders"].before_first_snapshot, **before) is first
    )


def test_a_first_start_says_that_nothing_is_known_of_the_time_before(tmp_path: Path) -> None:
    def look(run: memory.Run) -> object:
        return opened(run), [entry["channel"] for entry in run.said("first_start")]

    assert start(tmp_path, look) == ([], ["openOrders"])


def test_without_a_state_nothing_is_promised_for_the_time_before(tmp_path: Path) -> None:
    last = {"openOrders": LastRecord(THEN, THEN, None)}
    assert start(tmp_path, opened, state=False, last=last, found="lost") == []


# -- the call counter


@pytest.mark.parametrize(
    ("ago_s", "level"),
    [
        (0.0, 10.0 + HISTORY_COST),  # a call that the kill came after was not saved
        (10.0, 10.0 + HISTORY_COST - 5.0),
        (1000.0, 0.0),
        (-1000.0, 10.0 + HISTORY_COST),  # saved by another clock: it does not grow
    ],
)
def test_the_call_counter_goes_on_where_the_run_before_left_it(tmp_path: Path, ago_s: float, level: float) -> None:
    async def look(run: memory.Run) -> float:
        await run.feed._shared.restore_counter()
        await run.feed._shared.restore_counter()  # once is enough
        return run.feed._shared.counter.level(0.0)

    known = checkpoint(counter=CallLevel(10.0, NOW - round(ago_s * NS)))
    # Kraken's time is known to a second, and the latest that it may be counts.
    assert start(tmp_path, look, checkpoint=known) == pytest.approx(level, abs=0.9)


def test_a_checkpoint_that_does_not_know_the_counter_leaves_room_for_tokens_only(tmp_path: Path) -> None:
    async def look(run: memory.Run) -> float:
        await run.feed._shared.restore_counter()
        return run.feed._shared.counter.level(0.0)

    known = Checkpoint(saved_ns=NOW, channels={"openOrders": ChannelState(THEN)})
    assert start(tmp_path, look, checkpoint=known) == pytest.approx(19.0 - 6.0 + HISTORY_COST, abs=0.9)
