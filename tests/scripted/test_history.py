"""What REST may answer about an outage, and that nothing of it is taken for complete without a reason."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from .exchange import Answer, result
from .play import Played, play
from .shapes import LEDGER, ORDERS, SOURCE_NAMES, SOURCES, TRADES, Source, lost_once, order

each_source = pytest.mark.parametrize(("channel", "source"), SOURCES, ids=SOURCE_NAMES)
a_source_of_each_kind = pytest.mark.parametrize(
    ("channel", "source"), [("openOrders", ORDERS), ("executions", TRADES), ("balances", LEDGER)]
)
each_channel_of_orders = pytest.mark.parametrize("channel", ["openOrders", "executions"])


async def recover(home: Path, channel: str, rest: Mapping[str, Sequence[Answer]], before: Sequence[str] = ()) -> Played:
    """Return what was written about one outage, once it is recovered or declared. ``before`` was in the snapshot."""
    return await play(home, lost_once(channel, rest, before), channel, to=lambda played: played.settled)


def numbers(played: Played) -> list[int]:
    """Return the numbers of the rows that were recovered."""
    found = (re.search(r"-(\d{6})", record["id"]) for record in played.of_type("backfill"))
    return sorted(int(match[1]) for match in found if match)


def all_of(played: Played, rows: int) -> None:
    """Assert that rows 1 to this were recovered, and that this was declared complete."""
    assert numbers(played) == list(range(1, rows + 1))
    assert played.gaps == []
    (recovered,) = played.recovered
    assert recovered["orders"] + recovered["trades"] == rows


def doubt(played: Played, *words: str) -> None:
    """Assert that nothing was declared complete, and that the gap's reason has one of these words."""
    assert played.recovered == []
    (gap,) = played.gaps
    assert any(word in gap["reason"] for word in words), gap["reason"]


# -- pages


@each_source
async def test_what_is_expected_is_recovered(tmp_path: Path, channel: str, source: Source) -> None:
    """The scripts' own rows are Kraken's: a full page, and an empty one."""
    all_of(await recover(tmp_path, channel, {source.method: [source.pages(50)]}), 50)


@each_source
async def test_a_short_page_is_not_the_last(tmp_path: Path, channel: str, source: Source) -> None:
    all_of(await recover(tmp_path, channel, {source.method: [source.pages(49, 10)]}), 59)


@a_source_of_each_kind
@pytest.mark.parametrize("sizes", [(1, 1, 1), (50, 50, 1)], ids=str)
async def test_only_an_empty_page_ends_a_list(
    tmp_path: Path, channel: str, source: Source, sizes: tuple[int, ...]
) -> None:
    all_of(await recover(tmp_path, channel, {source.method: [source.pages(*sizes)]}), sum(sizes))


@a_source_of_each_kind
async def test_a_count_that_the_pages_come_to_is_no_doubt(tmp_path: Path, channel: str, source: Source) -> None:
    all_of(await recover(tmp_path, channel, {source.method: [source.pages(49, 10, count="59")]}), 59)


@a_source_of_each_kind
async def test_rows_that_are_counted_and_not_given_are_a_gap(tmp_path: Path, channel: str, source: Source) -> None:
    played = await recover(tmp_path, channel, {source.method: [source.pages(49, count="59")]})
    assert numbers(played) == list(range(1, 50))
    doubt(played, "count", "59")


@pytest.mark.parametrize("count", ['"59"', "59.0"])
async def test_a_count_is_read_by_value(tmp_path: Path, count: str) -> None:
    doubt(await recover(tmp_path, "ownTrades", {"TradesHistory": [TRADES.pages(49, count=count)]}), "count", "59")


@a_source_of_each_kind
async def test_rows_that_are_given_later_than_counted_are_recovered(
    tmp_path: Path, channel: str, source: Source
) -> None:
    short, complete = source.pages(40, count="49"), source.pages(49, count="49")
    all_of(await recover(tmp_path, channel, {source.method: [short, short, complete]}), 49)  # two pages, one is empty


# -- answers of another shape


@each_source
async def test_a_missing_key_is_not_an_empty_list(tmp_path: Path, channel: str, source: Source) -> None:
    answers = {"ClosedOrders": '{"open":{}}', "TradesHistory": "{}", "Ledgers": '{"count":0}'}
    played = await recover(tmp_path, channel, {source.method: [result(answers[source.method])]})
    doubt(played, source.method)
    assert len(played.exchange.asked(source.method)) > 1


@pytest.mark.parametrize("rows", ['"none"', "7", "[1]", '{"TAAAAA-BBBBB-000001":null}'])
async def test_rows_of_another_shape_are_not_understood(tmp_path: Path, rows: str) -> None:
    doubt(await recover(tmp_path, "executions", {"TradesHistory": [result(f'{{"trades":{rows}}}')]}), "TradesHistory")


@a_source_of_each_kind
async def test_a_key_that_is_there_at_the_next_try_ends_the_doubt(tmp_path: Path, channel: str, source: Source) -> None:
    all_of(await recover(tmp_path, channel, {source.method: [result("{}"), source.pages(3)]}), 3)


@each_source
async def test_an_array_in_the_place_of_an_empty_object_is_empty(tmp_path: Path, channel: str, source: Source) -> None:
    played = await recover(tmp_path, channel, {source.method: [result(f'{{"{source.key}":[],"count":0}}')]})
    all_of(played, 0)
    assert "Expected `object`" not in played.log


# -- rows that look alike


@a_source_of_each_kind
async def test_two_rows_under_one_id_on_a_page_are_two(tmp_path: Path, channel: str, source: Source) -> None:
    rows = [source.row(1, ',"n":1'), source.row(1, ',"n":2')]
    played = await recover(tmp_path, channel, {source.method: [once(source.page(rows), source)]})
    assert sorted(row["n"] for row in played.data("backfill")) == [1, 2] or played.gaps
    assert played.repeated_ids == []


@a_source_of_each_kind
async def test_a_row_in_two_sizes_at_the_edge_of_two_pages_is_two(tmp_path: Path, channel: str, source: Source) -> None:
    first, second = source.page([source.row(1, ',"n":1')]), source.page([source.row(1, ',"n":2')])
    empty = source.page([])
    played = await recover(
        tmp_path, channel, {source.method: [lambda form: {"0": first, "1": second}.get(form.get("ofs", "0"), empty)]}
    )
    assert sorted(row["n"] for row in played.data("backfill")) == [1, 2] or played.gaps
    assert played.repeated_ids == []


@a_source_of_each_kind
async def test_a_row_that_is_the_same_byte_for_byte_is_written_once(
    tmp_path: Path, channel: str, source: Source
) -> None:
    page = source.page([source.row(1), source.row(1)])
    played = await recover(tmp_path, channel, {source.method: [once(page, source)]})
    assert numbers(played) == [1]
    assert played.repeated_ids == []


def once(page: bytes, source: Source) -> Answer:
    """Return an answer of one page."""
    return lambda form: page if form.get("ofs", "0") == "0" else source.page([])


# -- states of orders

GONE = 9
GONE_ID = f"OAAAAA-BBBBB-{GONE:06}"


def state(status: str | None, order_id: str = GONE_ID) -> bytes:
    """Return what QueryOrders says of one order; ``status`` is raw JSON."""
    of_status = "" if status is None else f'"status":{status},'
    return result(f'{{"{order_id}":{{{of_status}"vol":"1.0","vol_exec":"0.0","reason":"STP"}}}}')


@pytest.mark.parametrize(
    ("channel", "status"),
    [("openOrders", '"rejected"'), *(("executions", status) for status in ('"rejected"', '""', "null", "7", None))],
)
async def test_a_state_that_nobody_knows_is_written_or_declared(
    tmp_path: Path, channel: str, status: str | None
) -> None:
    played = await recover(tmp_path, channel, {"QueryOrders": [state(status)]}, [order(channel, GONE)])
    assert played.of_type("backfill") or played.gaps
    assert numbers(played) in ([], [GONE])
    assert played.repeated_ids == []


@pytest.mark.parametrize(
    ("channel", "status"), [("openOrders", '"Canceled"'), ("executions", '"CLOSED"'), ("executions", '"Expired"')]
)
async def test_a_final_state_is_final_in_any_case_of_letters(tmp_path: Path, channel: str, status: str) -> None:
    played = await recover(tmp_path, channel, {"QueryOrders": [state(status)]}, [order(channel, GONE)])
    (row,) = played.of_type("backfill")
    assert row["id"].endswith(f"{GONE_ID}:end")
    assert played.gaps == []


@each_channel_of_orders
async def test_an_unknown_state_in_the_list_of_closed_orders_is_written_or_declared(
    tmp_path: Path, channel: str
) -> None:
    page = ORDERS.page([ORDERS.row(3).replace('"canceled"', '"rejected"')])
    played = await recover(tmp_path, channel, {"ClosedOrders": [once(page, ORDERS)]})
    assert numbers(played) == [3] or played.gaps


@each_channel_of_orders
async def test_an_order_that_the_snapshot_lacks_and_rest_calls_open_is_asked_for_again(
    tmp_path: Path, channel: str
) -> None:
    answers = [state('"open"'), state('"open"'), state('"canceled"')]
    played = await recover(tmp_path, channel, {"QueryOrders": answers}, [order(channel, GONE)])
    assert [row["status"] for row in played.data("backfill")].count("canceled") == 1
    assert len(played.exchange.asked("QueryOrders")) >= 3
    assert played.gaps == []


@pytest.mark.parametrize(
    ("channel", "answer"),
    [
        ("openOrders", state('"open"')),
        ("openOrders", result("{}")),
        ("executions", state('"Pending"')),
        ("executions", result("[]")),
    ],
    ids=["still open", "unknown to REST", "still pending", "an empty array"],
)
async def test_an_order_whose_end_rest_never_tells_is_a_gap_that_names_it(
    tmp_path: Path, channel: str, answer: bytes
) -> None:
    played = await recover(tmp_path, channel, {"QueryOrders": [answer]}, [order(channel, GONE)])
    doubt(played, GONE_ID, "order")


# -- errors and warnings

ERRORS = [
    '{"code":1,"msg":"nope"}',
    '"EGeneral:nope"',
    '["Enope"]',
    '[{"msg":"nope"}]',
    '["WTrade:odd","EGeneral:nope"]',
]


@pytest.mark.parametrize(
    ("channel", "error"), [("openOrders", ERRORS[0]), *(("executions", error) for error in ERRORS)]
)
async def test_an_error_of_any_shape_beside_a_token_is_an_error(tmp_path: Path, channel: str, error: str) -> None:
    bad = f'{{"error":{error},"result":{{"token":"FICTIONAL-BAD","expires":900}}}}'.encode()
    script = lost_once(channel, {"GetWebSocketsToken": [bad]})
    played = await play(tmp_path, script, channel, to=lambda played: "nope" in played.log)
    assert played.exchange.tokens == []
    assert played.named("feed.live") == []


@a_source_of_each_kind
@pytest.mark.parametrize("error", ERRORS[:2])
async def test_an_error_of_any_shape_beside_rows_is_an_error(
    tmp_path: Path, channel: str, source: Source, error: str
) -> None:
    bad = f'{{"error":{error},"result":{{"{source.key}":{{}}}}}}'.encode()
    script = lost_once(channel, {source.method: [bad]})
    played = await play(tmp_path, script, channel, to=lambda played: played.settled or "nope" in played.log)
    assert played.recovered == []
    assert "nope" in played.log


@a_source_of_each_kind
async def test_a_warning_beside_a_result_is_a_diagnostic(tmp_path: Path, channel: str, source: Source) -> None:
    answer = f'{{"error":["WTrade:Something partial"],"result":{{"{source.key}":{{}}}}}}'.encode()
    played = await recover(tmp_path, channel, {source.method: [answer]})
    all_of(played, 0)
    assert "WTrade:Something partial" in played.log


@each_channel_of_orders
async def test_a_warning_beside_a_token_is_a_diagnostic(tmp_path: Path, channel: str) -> None:
    answer = b'{"error":["WGeneral:Something odd"],"result":{"token":"FICTIONAL-GOOD","expires":900}}'
    script = lost_once(channel, {"GetWebSocketsToken": [answer]})
    played = await play(tmp_path, script, channel, to=lambda played: played.named("feed.live"))
    assert played.exchange.tokens[0] == "FICTIONAL-GOOD"
    assert "WGeneral:Something odd" in played.log


# -- text that is JSON and not Unicode


@each_source
async def test_a_row_with_a_lone_surrogate_is_passed_on_as_it_is(tmp_path: Path, channel: str, source: Source) -> None:
    escape = "\\udfff" if source is LEDGER else "\\ud800"
    page = source.page([source.row(1, f',"odd":"{escape}"'), source.row(2)])
    played = await recover(tmp_path, channel, {source.method: [once(page, source)]})
    assert any(f'"odd":"{escape}"'.encode() in line for line in played.lines)
    all_of(played, 2)


@each_channel_of_orders
async def test_the_state_of_an_order_with_a_lone_surrogate_is_passed_on_as_it_is(tmp_path: Path, channel: str) -> None:
    answer = state('"canceled"').replace(b'"STP"', b'"\\ud800"')
    played = await recover(tmp_path, channel, {"QueryOrders": [answer]}, [order(channel, GONE)])
    assert any(b'"reason":"\\ud800"' in line for line in played.lines)
    assert played.gaps == []
