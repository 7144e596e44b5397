"""What REST may answer about an outage, and that nothing of it is taken for complete without a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from .exchange import Answer, result
from .play import Played, play, settled
from .shapes import CHANNELS, HISTORIES, LEDGER, OF_ONE_SOURCE, OF_ORDERS, ORDERS, SOURCES, TRADES, Source, lost_once
from .shapes import order as open_order


async def recover(
    home: Path,
    rest: Mapping[str, Sequence[Answer]],
    channels: Sequence[str] = OF_ONE_SOURCE,
    before: Mapping[str, Sequence[str]] | None = None,
) -> Played:
    """Return what was written about one outage, once it is recovered or declared. ``before`` was in the snapshots."""
    return await play(home, lost_once(channels, rest, before), *channels, to=settled)


def numbers(played: Played) -> list[int]:
    """Return the numbers of the rows that were recovered."""
    found = (re.search(r"-(\d{6})", record["id"]) for record in played.of_type("backfill"))
    return sorted(int(match[1]) for match in found if match)


def all_of(played: Played, rows: int) -> None:
    """Assert of every channel that rows 1 to this were recovered from each source, and declared complete."""
    for one in played.each:
        sources = len(HISTORIES[one.channel])
        assert numbers(one) == sorted([*range(1, rows + 1)] * sources)
        assert one.gaps == []
        (recovered,) = one.recovered
        assert recovered["orders"] + recovered["trades"] == rows * sources


def doubt(played: Played, *words: str) -> None:
    """Assert of every channel that nothing was declared complete, and that the gap's reason has one of these words."""
    for one in played.each:
        assert one.recovered == []
        (gap,) = one.gaps
        assert any(word in gap["reason"] for word in words), gap["reason"]


def once(page: bytes, source: Source) -> Answer:
    """Return an answer of one page."""
    return lambda form: page if form.get("ofs", "0") == "0" else source.page([])


# -- pages


async def test_what_is_expected_is_recovered(tmp_path: Path) -> None:
    """The scripts' own rows are Kraken's: a full page, and an empty one."""
    all_of(await recover(tmp_path, {source.method: [source.pages(50)] for source in SOURCES}, CHANNELS), 50)


async def test_a_short_page_is_not_the_last(tmp_path: Path) -> None:
    all_of(await recover(tmp_path, {source.method: [source.pages(49, 10)] for source in SOURCES}, CHANNELS), 59)


async def test_only_an_empty_page_ends_a_list(tmp_path: Path) -> None:
    all_of(await recover(tmp_path, {source.method: [source.pages(1, 50, 1, 2)] for source in SOURCES}), 54)


async def test_a_count_that_the_pages_come_to_is_no_doubt(tmp_path: Path) -> None:
    all_of(await recover(tmp_path, {source.method: [source.pages(49, 10, count="59")] for source in SOURCES}), 59)


async def test_rows_that_are_counted_and_not_given_are_a_gap(tmp_path: Path) -> None:
    """In whatever way the number is written."""
    counts = {ORDERS: "59", TRADES: '"59"', LEDGER: "59.0"}
    played = await recover(
        tmp_path, {source.method: [source.pages(49, count=count)] for source, count in counts.items()}
    )
    assert [numbers(one) for one in played.each] == [[*range(1, 50)]] * 3
    doubt(played, "count", "59")


async def test_rows_that_are_given_later_than_counted_are_recovered(tmp_path: Path) -> None:
    rest = {}
    for source in SOURCES:
        short, complete = source.pages(40, count="49"), source.pages(49, count="49")
        rest[source.method] = [short, short, complete]  # two pages, one is empty
    all_of(await recover(tmp_path, rest), 49)


# -- answers of another shape


async def test_a_missing_key_is_not_an_empty_list(tmp_path: Path) -> None:
    played = await recover(tmp_path, {"TradesHistory": [result("{}")]}, ["executions"])
    doubt(played, "TradesHistory")
    assert len(played.exchange.asked("TradesHistory")) > 1


async def test_a_key_that_is_there_at_the_next_try_ends_the_doubt(tmp_path: Path) -> None:
    all_of(await recover(tmp_path, {"ClosedOrders": [result('{"open":{}}'), ORDERS.pages(3)]}, ["openOrders"]), 3)


async def test_an_array_in_the_place_of_an_empty_object_is_empty(tmp_path: Path) -> None:
    rest = {source.method: [result(f'{{"{source.key}":[],"count":0}}')] for source in SOURCES}
    played = await recover(tmp_path, rest, CHANNELS)
    all_of(played, 0)
    assert "Expected `object`" not in played.log


# -- rows that look alike


async def test_two_rows_under_one_id_on_a_page_are_two(tmp_path: Path) -> None:
    rest = {
        source.method: [once(source.page([source.row(1, ',"n":1'), source.row(1, ',"n":2')]), source)]
        for source in SOURCES
    }
    both_or_declared(await recover(tmp_path, rest))


async def test_a_row_in_two_sizes_at_the_edge_of_two_pages_is_two(tmp_path: Path) -> None:
    def answer(source: Source) -> Answer:
        pages = {str(offset): source.page([source.row(1, f',"n":{offset + 1}')]) for offset in (0, 1)}
        return lambda form: pages.get(form.get("ofs", "0"), source.page([]))

    both_or_declared(await recover(tmp_path, {source.method: [answer(source)] for source in SOURCES}))


def both_or_declared(played: Played) -> None:
    """Assert of every channel that rows 1 and 2 were written, or a gap was, and that no id came twice."""
    for one in played.each:
        assert sorted(row["n"] for row in one.data("backfill")) == [1, 2] or one.gaps
    assert played.repeated_ids == []


async def test_a_row_that_is_the_same_byte_for_byte_is_written_once(tmp_path: Path) -> None:
    rest = {source.method: [once(source.page([source.row(1), source.row(1)]), source)] for source in SOURCES}
    played = await recover(tmp_path, rest)
    assert [numbers(one) for one in played.each] == [[1]] * 3
    assert played.repeated_ids == []


# -- states of orders

GONE = 9
GONE_ID = ORDERS.id(GONE)


def states(*statuses: str | None) -> bytes:
    """Return what QueryOrders says of the orders from number GONE on; each is raw JSON, or None for no state."""
    rows = []
    for number, status in enumerate(statuses, GONE):
        member = "" if status is None else f'"status":{status},'
        rows.append(f'"{ORDERS.id(number)}":{{{member}"vol":"1.0","vol_exec":"0.0","reason":"STP"}}')
    return result(f"{{{','.join(rows)}}}")


async def vanish(home: Path, *answers: Answer, orders: int = 1, channels: Sequence[str] = OF_ORDERS) -> Played:
    """Return what was written about so many orders that a snapshot lacked, of which QueryOrders says this."""
    before = {channel: [open_order(channel, GONE + number) for number in range(orders)] for channel in channels}
    return await recover(home, {"QueryOrders": answers}, channels, before)


async def test_a_state_that_nobody_knows_is_written_or_declared(tmp_path: Path) -> None:
    odd = ('"rejected"', '""', "null", "7", None)
    played = await vanish(tmp_path, states(*odd), orders=len(odd))
    for one in played.each:
        declared = "".join(gap["reason"] for gap in one.gaps)
        for number in range(GONE, GONE + len(odd)):
            assert number in numbers(one) or ORDERS.id(number) in declared, number
    assert played.repeated_ids == []


async def test_a_final_state_is_final_in_any_case_of_letters(tmp_path: Path) -> None:
    played = await vanish(tmp_path, states('"Canceled"', '"CLOSED"', '"Expired"'), orders=3)
    for one in played.each:
        assert numbers(one) == [GONE, GONE + 1, GONE + 2]
        assert all(row["id"].endswith(":end") for row in one.of_type("backfill"))
        assert one.gaps == []


async def test_an_unknown_state_in_the_list_of_closed_orders_is_written_or_declared(tmp_path: Path) -> None:
    page = ORDERS.page([ORDERS.row(3).replace('"canceled"', '"rejected"')])
    played = await recover(tmp_path, {"ClosedOrders": [once(page, ORDERS)]}, OF_ORDERS)
    assert all(numbers(one) == [3] or one.gaps for one in played.each)


async def test_an_order_that_the_snapshot_lacks_and_rest_calls_open_is_asked_for_again(tmp_path: Path) -> None:
    played = await vanish(tmp_path, states('"open"'), states('"open"'), states('"canceled"'), channels=["executions"])
    assert [row["status"] for row in played.data("backfill")].count("canceled") == 1
    assert len(played.exchange.asked("QueryOrders")) >= 3
    assert played.gaps == []


async def test_an_order_whose_end_rest_never_tells_is_a_gap_that_names_it(tmp_path: Path) -> None:
    """Still open, still pending, or unknown to REST."""
    doubt(await vanish(tmp_path, states('"open"', '"Pending"'), orders=3), GONE_ID, "order")


async def test_an_order_of_which_rest_says_an_empty_array_is_a_gap_that_names_it(tmp_path: Path) -> None:
    doubt(await vanish(tmp_path, result("[]")), GONE_ID, "order")


# -- errors and warnings


async def test_an_error_of_any_shape_beside_a_token_is_an_error(tmp_path: Path) -> None:
    bad = b'{"error":{"code":1,"msg":"nope"},"result":{"token":"FICTIONAL-BAD","expires":900}}'
    script = lost_once(CHANNELS, {"GetWebSocketsToken": [bad]})
    played = await play(tmp_path, script, *CHANNELS, to=lambda played: "nope" in played.log)
    assert played.exchange.tokens == []
    assert played.named("feed.live") == []


async def test_an_error_of_any_shape_beside_rows_is_an_error(tmp_path: Path) -> None:
    errors = {ORDERS: '{"code":1,"msg":"nope"}', TRADES: '"EGeneral:nope"', LEDGER: '["WTrade:odd","EGeneral:nope"]'}
    rest = {
        source.method: [f'{{"error":{error},"result":{{"{source.key}":{{}}}}}}'.encode()]
        for source, error in errors.items()
    }
    script = lost_once(OF_ONE_SOURCE, rest)
    played = await play(tmp_path, script, *OF_ONE_SOURCE, to=lambda played: played.log.count("nope") >= 3)
    assert played.recovered == []


async def test_a_warning_beside_a_result_is_a_diagnostic(tmp_path: Path) -> None:
    rest: dict[str, list[Answer]] = {
        source.method: [f'{{"error":["W{source.method}:Partial"],"result":{{"{source.key}":{{}}}}}}'.encode()]
        for source in SOURCES
    }
    rest["GetWebSocketsToken"] = [
        b'{"error":["WGeneral:Something odd"],"result":{"token":"FICTIONAL-GOOD","expires":900}}'
    ]
    played = await recover(tmp_path, rest)
    all_of(played, 0)
    assert set(played.exchange.tokens) == {"FICTIONAL-GOOD"}
    warnings = ["WGeneral:Something odd", *(f"W{source.method}:Partial" for source in SOURCES)]
    assert [warning for warning in warnings if warning not in played.log] == []


# -- text that is JSON and not Unicode


async def test_a_row_with_a_lone_surrogate_is_passed_on_as_it_is(tmp_path: Path) -> None:
    rest = {
        source.method: [once(source.page([source.row(1, ',"odd":"\\udfff\\ud800"'), source.row(2)]), source)]
        for source in SOURCES
    }
    played = await recover(tmp_path, rest, CHANNELS)
    for one in played.each:
        sources = len(HISTORIES[one.channel])
        assert sum(b'"odd":"\\udfff\\ud800"' in line for line in one.lines) == sources
    all_of(played, 2)


async def test_the_state_of_an_order_with_a_lone_surrogate_is_passed_on_as_it_is(tmp_path: Path) -> None:
    answer = states('"canceled"').replace(b'"STP"', b'"\\ud800"')
    played = await vanish(tmp_path, answer)
    for one in played.each:
        assert any(b'"reason":"\\ud800"' in line for line in one.lines)
        assert one.gaps == []
