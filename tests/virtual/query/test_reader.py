"""What a query reads of Kraken's history, and what it says is missing, against the exchange's ledger."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from kraken_feed.config.schema import BackfillConfig, Config
from kraken_feed.errors import CredentialsRefused, Transient, UsageError
from kraken_feed.feed.environment import Limits
from kraken_feed.query.spool import Spool
from kraken_feed.simulator.access.key import Limits as KeyLimits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.market.counter import TIERS
from kraken_feed.simulator.quirks.quirk import Quirks

from ...support import virtual_time
from ...support.cases import each
from ...support.exchange_driver import T0
from ...support.history_runs import ALL, Read, ago, at, item_time, ledger_ids, read
from ...support.memory import World, running, tail

T = TypeVar("T")
FAST = Config(backfill=BackfillConfig(rest_counter=10_000, rest_decay=10_000.0))


def play(script: Callable[[World], Coroutine[Any, Any, T]], exchange: Exchange) -> T:
    async def main() -> T:
        with running(exchange) as world:
            return await script(world)

    return virtual_time.run(main())


def trading(*, orders: int = 60, fills: int = 2, pair: str = "XBT/USD", lag: float = 0.0, **quirks: Any) -> Exchange:
    """An exchange whose account has a history of some minutes before T0: orders a second apart, each filled in parts.
    Calls cost nothing."""
    scenario = Scenario(rest_lag=lag, quirks=Quirks(**{"history_cost": 0.0, **quirks}))
    exchange = Exchange(now=T0 - 1000, seed=1, rate=0.0, open_orders=0, past_trades=0, scenario=scenario)
    traded(exchange, T0 - 990, orders=orders, fills=fills, pair=pair)
    return exchange


def traded(exchange: Exchange, start: float, *, orders: int, fills: int = 1, pair: str = "XBT/USD") -> None:
    """Let orders be placed and filled in parts, one order each second."""
    for number in range(orders):
        opened = start + number
        order = exchange.new_order(opened, pair=pair, volume=str(fills))
        for part in range(fills):
            exchange.fill(order, "1", opened + 0.1 + part * 0.01)


def complete(found: Read, exchange: Exchange, *channels: str, since: float = 0.0, until: float = T0) -> None:
    """Assert that the answer has what the ledger has, each once, the oldest first."""
    assert Counter(found.ids) == Counter(ledger_ids(exchange, channels, since, until))
    times = [item_time(line) for line in found.lines]
    assert times == sorted(times)


# -- what is read


@each("channels", [("openOrders",), ("ownTrades",), ("executions",), ("balances",), ALL])
def test_a_channels_history_is_what_the_ledger_has(channels: tuple[str, ...]) -> None:
    exchange = trading()
    found = play(lambda world: read(world, *channels, since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete
    complete(found, exchange, *channels)


QUIRKS: list[dict[str, Any]] = [
    {"short_pages": True},
    {"merged_pages": True},
    {"count": "always"},
    {"count": "null"},
    {"empty_as_list": True},
    {"unknown_members": True},
    {"surrogates": 0.5},
    {"integers": "float"},
    {"errors": "warning"},
    {"short_pages": True, "unknown_members": True, "surrogates": 0.2, "count": "always", "asset_classes": True},
]


@each("quirks", QUIRKS)
def test_what_kraken_leaves_open_does_not_change_the_answer(quirks: dict[str, Any]) -> None:
    exchange = trading(**quirks)
    found = play(lambda world: read(world, *ALL, since=ago(3600), config=FAST), exchange)
    assert found.answer.missing == ()
    complete(found, exchange, *ALL)


def test_rows_that_stand_twice_with_other_bytes_are_both_written_with_ids_of_their_own() -> None:
    exchange = trading(repeated_rows=0.3)
    found = play(lambda world: read(world, *ALL, since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete
    assert len(set(found.ids)) == len(found.ids)
    assert {name.partition("~")[0] for name in found.ids} == ledger_ids(exchange, ALL, 0, T0)


def test_the_period_has_both_of_its_ends_and_nothing_else() -> None:
    exchange = trading(orders=0)
    for second in (-500, -400, -300):
        exchange.fill(exchange.new_order(T0 + second - 1, volume="1"), "1", T0 + second)
    found = play(lambda world: read(world, "ownTrades", since=at(-500), until=at(-400), config=FAST), exchange)
    assert [item_time(line) - T0 for line in found.lines] == [-500, -400]


def test_the_ledger_of_tokenized_assets_is_read_too() -> None:
    exchange = trading(orders=10, pair="XBT/USD", asset_classes=True)
    traded(exchange, T0 - 500, orders=10, pair="SOLx/USD")
    found = play(lambda world: read(world, "balances", since=ago(3600), config=FAST), exchange)
    assert "tokenized_asset" in {line["data"]["aclass"] for line in found.lines}
    complete(found, exchange, "balances")


@each("quirks", [{}, {"shared_ledger_ids": 0.5}, {"asset_classes": True}, {"repeated_rows": 0.3}])
def test_the_ids_are_those_of_the_feed(quirks: dict[str, Any], tmp_path: Path) -> None:
    exchange = trading(orders=20, **quirks)
    found = play(lambda world: read(world, *ALL, since=ago(3600), config=FAST), trading(orders=20, **quirks))
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    since_ns = round((T0 - 3600) * 1e9)
    run = virtual_time.run(tail(exchange, path, *ALL, since_ns=since_ns, limits=Limits(duration=3000.0), config=FAST))
    backfilled = {(line["id"], str(line["data"])) for line in run.lines if line.get("type") == "backfill"}
    assert len(backfilled) > 60
    ours = {(line["id"], str(line["data"])) for line in found.lines}
    assert backfilled <= ours


def test_an_empty_ledger_id_is_no_identity() -> None:
    exchange = trading(empty_ledger_ids=0.5)
    found = play(lambda world: read(world, "balances", since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete
    assert len(set(found.ids)) == len(found.ids) == 240
    assert sum(":row-" in name for name in found.ids) > 50


# -- the call counter


def test_a_starter_key_is_never_refused_and_waits_no_longer_than_its_counter_demands() -> None:
    exchange = trading(orders=300, fills=1, history_cost=4.0)
    found = play(lambda world: read(world, since=ago(3600)), exchange)
    complete(found, exchange, "openOrders", "ownTrades")
    assert found.logged("history_postponed") == []
    points = 2 * 4.0 * (300 / 50 + 1) + 2
    assert found.took == pytest.approx((points - 8) / TIERS["starter"].rest_decay, rel=0.05)


def test_a_refused_call_is_waited_for_and_repeated() -> None:
    exchange = trading(orders=100, history_cost=4.0)
    exchange.inject(Fault("rest_error", at=2.0, text="EAPI:Rate limit exceeded", duration=60.0), T0)
    found = play(lambda world: read(world, since=ago(3600)), exchange)
    assert found.logged("history_postponed")
    complete(found, exchange, "openOrders", "ownTrades")


@each("kind", ["http_502", "rest_timeout", "http_429"])
def test_an_outage_of_minutes_is_waited_for(kind: str) -> None:
    exchange = trading()
    exchange.inject(Fault(kind, at=0.0, duration=120.0), T0)
    found = play(lambda world: read(world, since=ago(3600)), exchange)
    assert found.took > 100
    complete(found, exchange, "openOrders", "ownTrades")


def test_a_longer_outage_ends_the_query_with_its_reason() -> None:
    exchange = trading()
    exchange.inject(Fault("http_502", at=0.0, duration=10_000.0), T0)
    with pytest.raises(Transient, match="did not answer in time") as raised:
        play(lambda world: read(world, since=ago(3600)), exchange)
    assert "502" in raised.value.why
    assert raised.value.exit_code == 69


def test_a_wait_that_is_longer_than_patience_ends_the_query_at_once() -> None:
    exchange = trading()
    exchange.inject(
        Fault("rest_error", at=0.0, duration=1e5, method="GetApiKeyInfo", text="EGeneral:Temporary lockout"), T0
    )
    with pytest.raises(Transient, match="did not answer in time") as raised:
        play(lambda world: read(world, since=ago(3600)), exchange)
    assert "Try again in 15 minutes" in raised.value.remedy


# -- completeness


def test_rows_that_kraken_counts_and_never_returns_are_declared() -> None:
    exchange = trading(withheld_rows=0.1, count="always")
    found = play(lambda world: read(world, "balances", since=ago(3600), config=FAST), exchange)
    (reason,) = found.answer.missing
    assert reason == f"Ledgers counts {240 - len(found.ids)} rows more than it returns"
    assert not found.answer.is_complete
    assert len(found.logged("history_doubted")) == 3


def test_rows_that_are_missing_at_first_are_requested_again() -> None:
    exchange = trading(withheld_rows=0.1, withheld_s=1020.0, count="always")
    found = play(lambda world: read(world, *ALL, since=ago(3600), config=FAST), exchange)
    assert found.logged("history_doubted")
    assert found.answer.is_complete
    complete(found, exchange, *ALL)


def test_fills_that_do_not_add_up_are_declared() -> None:
    exchange = trading(withheld_rows=0.05)
    found = play(lambda world: read(world, "executions", since=ago(3600), config=FAST), exchange)
    withheld = ledger_ids(exchange, ["executions"], 0, T0) - set(found.ids)
    fills = {name for name in withheld if not name.endswith(":end")}
    assert fills
    assert any("do not add up" in reason for reason in found.answer.missing)


def test_fills_from_before_the_period_are_not_missed() -> None:
    exchange = trading(orders=0)
    order = exchange.new_order(T0 - 800, volume="2")
    exchange.fill(order, "1", T0 - 700)
    exchange.fill(order, "1", T0 - 300)
    found = play(lambda world: read(world, since=at(-500), config=FAST), exchange)
    assert found.answer.is_complete
    assert len(found.lines) == 2


def test_unknown_states_are_written_and_declared() -> None:
    exchange = trading(odd_states=0.3)
    found = play(lambda world: read(world, "openOrders", since=ago(3600), config=FAST), exchange)
    odd = [line for line in found.lines if line["data"]["status"] == "rejected"]
    assert odd
    assert {line["id"].rpartition(":")[2] for line in odd} == {"rejected"}
    assert len(found.lines) == 60
    (reason,) = found.answer.missing
    assert "in a state that this version does not know (rejected)" in reason


@each("shape", ["[]", '{"closed": 7}', '{"open": {}}', '{"closed": {}, "count": -1}'])
def test_an_answer_that_is_not_understood_is_requested_again_then_declared(shape: str) -> None:
    pages = itertools.count()

    async def script(world: World) -> Read:
        answer = world.exchange.rest

        def spoiled(method: str, path: str, headers: Any, body: bytes, now: float) -> Any:
            reply = answer(method, path, headers, body, now)
            if path.endswith("ClosedOrders") and next(pages) >= 1:
                reply = replace(reply, body=b'{"error":[],"result":%b}' % shape.encode())
            return reply

        world.exchange.rest = spoiled  # type: ignore[method-assign]
        return await read(world, since=ago(3600), config=FAST)

    exchange = trading()
    found = play(script, exchange)
    (reason,) = found.answer.missing
    assert reason.startswith("ClosedOrders: ClosedOrders: ")
    assert next(pages) == 5  # the first page, and four times the second
    assert set(found.ids) > ledger_ids(exchange, ["ownTrades"], 0, T0)


# -- how late history is


def test_without_an_end_the_answer_is_proven_up_to_the_newest_row() -> None:
    exchange = trading(lag=60.0)
    traded(exchange, T0 - 120, orders=110)
    found = play(lambda world: read(world, "ownTrades", since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete
    proven = found.answer.proven_ns / 1e9
    assert T0 - 63 < proven < T0 - 58
    assert ledger_ids(exchange, ["ownTrades"], 0, proven - 0.001) <= set(found.ids)


def test_without_rows_the_answer_is_proven_up_to_a_quarter_of_an_hour_ago() -> None:
    exchange = trading(orders=0)
    found = play(lambda world: read(world, since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete
    assert found.lines == []
    assert found.answer.proven_ns / 1e9 == pytest.approx(T0 - 900, abs=3)


def test_a_period_of_the_last_minutes_without_rows_is_not_proven() -> None:
    exchange = trading(orders=0)
    found = play(lambda world: read(world, since=ago(300), config=FAST), exchange)
    assert not found.answer.is_complete
    assert found.answer.missing == ()
    assert found.answer.provable_ns / 1e9 == pytest.approx(T0 + 600, abs=3)


@each(("second", "proven"), [(-200, False), (-200.0 - 900, True)])
def test_an_end_that_was_asked_for_has_to_be_proven(second: float, proven: bool) -> None:
    exchange = Exchange(now=T0 - 5000, seed=1, rate=0.0, open_orders=0, past_trades=0)
    traded(exchange, T0 + second - 100, orders=10)
    found = play(lambda world: read(world, since=ago(3600), until=at(second), config=FAST), exchange)
    assert found.answer.is_proven is proven
    assert len(found.lines) == 20


def test_a_row_behind_the_end_proves_it() -> None:
    exchange = trading()
    traded(exchange, T0 - 50, orders=3)
    found = play(lambda world: read(world, since=ago(3600), until=at(-100), config=FAST), exchange)
    assert found.answer.is_complete
    assert found.answer.complete_ns == round((T0 - 100) * 1e9)
    complete(found, exchange, "openOrders", "ownTrades", until=T0 - 100)


def test_rows_that_become_visible_meanwhile_do_not_shift_the_pages() -> None:
    exchange = trading(orders=0, lag=40.0, history_cost=4.0)
    exchange.engine.rate = 0.0

    async def script(world: World) -> Read:
        traded(world.exchange, T0, orders=0)
        return await read(world, since=ago(3600))

    for second in range(400):
        exchange.fill(exchange.new_order(T0 - 401 + second, volume="1"), "1", T0 - 400.5 + second)
    found = play(script, exchange)
    assert found.answer.is_complete
    proven = found.answer.proven_ns / 1e9
    wanted = ledger_ids(exchange, ["openOrders", "ownTrades"], 0, proven - 0.001)
    assert wanted <= set(found.ids)
    assert len(wanted) > 600


# -- the key


@each("mode", ["silent", "outside", "overlap"])
def test_what_the_key_may_not_query_is_declared(mode: str) -> None:
    exchange = trading(key_span=mode)
    key = exchange.add_key(limits=KeyLimits(query_from=int(T0 - 970)))
    found = play(lambda world: read(world, since=ago(3600), key=key, config=FAST), exchange)
    (reason,) = found.answer.missing
    assert reason == "the API key may only query from 2025-10-09T08:37:10.000000Z on"
    assert set(found.ids) == ledger_ids(exchange, ["openOrders", "ownTrades"], T0 - 969.99, T0)


def test_a_key_whose_span_has_ended_is_declared_without_a_query() -> None:
    exchange = trading(key_span="outside")
    key = exchange.add_key(limits=KeyLimits(query_to=int(T0 - 5000)))
    found = play(lambda world: read(world, since=ago(3600), key=key, config=FAST), exchange)
    assert found.answer.missing == ("the API key may only query up to 2025-10-09T07:30:00.000000Z",)
    assert found.lines == []


def test_a_limit_that_was_removed_between_two_runs_still_counts() -> None:
    exchange = trading(history_cost=4.0, orders=200)
    key = exchange.add_key(limits=KeyLimits(query_from=int(T0 - 970)))

    async def script(world: World) -> Read:
        with contextlib.closing(Spool.temporary()) as spool:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(30.0):
                    await read(world, since=ago(3600), key=key, spool=spool)
            key.limits = KeyLimits()
            return await read(world, since=ago(3600), key=key, spool=spool)

    found = play(script, exchange)
    assert found.answer.missing == ("the API key may only query from 2025-10-09T08:37:10.000000Z on",)


def test_a_refused_source_is_tried_again_by_the_next_run() -> None:
    exchange = trading()

    async def script(world: World) -> Read:
        with contextlib.closing(Spool.temporary()) as spool:
            fault = Fault("rest_error", at=0.0, duration=5.0, text="EGeneral:Invalid arguments", method="ClosedOrders")
            world.exchange.inject(fault, world.now())
            first = await read(world, since=ago(3600), spool=spool, config=FAST)
            assert first.answer.missing == (
                "ClosedOrders: Kraken refused ClosedOrders, and would refuse it again. EGeneral:Invalid arguments: "
                "Kraken calls this request malformed.",
            )
            spool.answer = None  # as after an interruption
            await virtual_time.elapse(10.0)
            return await read(world, since=ago(3600), spool=spool, config=FAST)

    complete(play(script, exchange), exchange, "openOrders", "ownTrades")


PERMISSIONS = [
    (("openOrders",), '"Query closed orders & trades" (query-closed-trades)'),
    (("ownTrades", "balances"), '"Query closed orders & trades" (query-closed-trades) and "Query ledger entries"'),
    (("balances",), '"Query ledger entries" (query-ledger)'),
]


@each(("channels", "names"), PERMISSIONS)
def test_a_missing_permission_is_named_before_anything_is_read(channels: tuple[str, ...], names: str) -> None:
    exchange = trading()
    key = exchange.add_key(permissions=["query-open-trades", "query-funds", "create-ws-token"])
    with pytest.raises(CredentialsRefused, match="lacks a permission") as raised:
        play(lambda world: read(world, *channels, since=ago(3600), key=key), exchange)
    assert names in raised.value.why
    assert raised.value.exit_code == 77


def test_no_websocket_permission_is_needed() -> None:
    exchange = trading()
    key = exchange.add_key(permissions=["query-closed-trades", "query-ledger"])
    found = play(lambda world: read(world, *ALL, since=ago(3600), key=key, config=FAST), exchange)
    complete(found, exchange, *ALL)


# -- times


def test_times_are_krakens_whatever_this_machines_clock_says() -> None:
    exchange = trading()

    async def script(world: World) -> Read:
        world.unix_ns = lambda: round((world.now() + 40 * 86400) * 1e9)  # type: ignore[method-assign]
        return await read(world, since=ago(2000), config=FAST)

    found = play(script, exchange)
    complete(found, exchange, "openOrders", "ownTrades")
    assert found.answer.period.until_ns / 1e9 == pytest.approx(T0, abs=3)


def test_a_period_without_a_length_is_refused() -> None:
    exchange = trading(orders=0)
    with pytest.raises(UsageError, match="is not before the time of --until"):
        play(lambda world: read(world, since=at(-100), until=at(-100)), exchange)


def test_a_time_before_1970_means_everything() -> None:
    exchange = trading(orders=2)
    found = play(lambda world: read(world, since=ago(1e12), config=FAST), exchange)
    assert found.answer.period.since_ns == 0
    complete(found, exchange, "openOrders", "ownTrades")


def test_volumes_are_compared_exactly() -> None:
    exchange = trading(orders=0)
    order = exchange.new_order(T0 - 500, volume="0.3")
    for second, part in enumerate(("0.1", "0.1", "0.1")):
        exchange.fill(order, Decimal(part), T0 - 400 + second)
    found = play(lambda world: read(world, since=ago(3600), config=FAST), exchange)
    assert found.answer.is_complete


def test_a_row_that_stands_twice_does_not_hide_a_missing_one() -> None:
    exchange = trading(withheld_rows=0.1, repeated_rows=0.5, count="always")
    found = play(lambda world: read(world, "openOrders", since=ago(3600), config=FAST), exchange)
    missing = 60 - len({line["order_id"] for line in found.lines})
    assert missing
    assert found.answer.missing == (f"ClosedOrders counts {missing} rows more than it returns",)
