"""What REST says of an interval: sources, pages, rows; and what is not understood."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.config.schema import CHANNELS
from kraken_feed.errors import CredentialsRefused, NotUnderstood, RequestRefused, Transient
from kraken_feed.feed.backfill import (
    CLOSED_ORDERS,
    LEDGERS,
    RESERVE,
    TRADES,
    Row,
    Source,
    Span,
    key_span,
    named_orders,
    page,
    read_page,
    sources_of,
    state,
    unix_ns,
)
from kraken_feed.protocol import spot_v1
from kraken_feed.protocol.signing import Credentials, Nonce
from kraken_feed.transport.backoff import CallCounter
from kraken_feed.transport.rest import Rest

from ...support.cases import each

SOURCES = (CLOSED_ORDERS, TRADES, LEDGERS)
ORDER, TRADE = "OAAAAA-BBBBB-CCCCC1", "TAAAAA-BBBBB-CCCCC1"
Query = tuple[str, dict[str, str]]


class Kraken:
    """A REST API that answers each call by what ``answer`` makes of method and parameters."""

    def __init__(self, answer: Callable[[str, dict[str, str]], str]) -> None:
        self.queries: list[Query] = []
        self._answer = answer
        credentials = Credentials("K" * 56, "c2VjcmV0", source="the test")
        counter = CallCounter(1e9, 1.0)
        transport = httpx.MockTransport(self._handle)
        self.rest = Rest("http://127.0.0.1", credentials, Nonce(), counter, transport=transport)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        method = request.url.path.rpartition("/")[2]
        parameters = dict(parse_qsl(request.content.decode()))
        del parameters["nonce"]
        self.queries.append((method, parameters))
        body = self._answer(method, parameters).encode("utf-8", "surrogatepass")
        return httpx.Response(200, stream=httpx.ByteStream(body))


def saying(result: str) -> Kraken:
    return Kraken(lambda method, parameters: f'{{"error":[],"result":{result}}}')


def order(status: str, **more: object) -> dict[str, object]:
    return {"status": status, "closetm": 1760000000.5, **more}


def query_orders(
    states: dict[str, str], refused: frozenset[str] = frozenset(), text: str = "EOrder:Invalid order"
) -> Callable[[str, dict[str, str]], str]:
    """QueryOrders of an exchange that refuses a batch for a single id."""

    def answer(method: str, parameters: dict[str, str]) -> str:
        ids = parameters["txid"].split(",")
        assert len(ids) <= 50
        if refused & set(ids):
            return json.dumps({"error": [text]})
        return json.dumps({"error": [], "result": {name: order(states[name]) for name in ids if name in states}})

    return answer


# ------------------------------------------------------------------------------------------------ sources


def test_each_channel_has_the_sources_that_hold_all_of_it() -> None:
    names = {channel: [source.name for source in sources_of(channel, ())] for channel in CHANNELS}
    assert names == {
        "openOrders": ["ClosedOrders"],
        "ownTrades": ["TradesHistory"],
        "executions": ["ClosedOrders", "TradesHistory"],
        "balances": ["Ledgers"],
    }


def test_the_ledger_of_every_asset_class_beyond_currency_is_a_source_of_its_own() -> None:
    sources = sources_of("balances", {"tokenized_asset", "currency", "other"})
    assert [source.name for source in sources] == ["Ledgers", "Ledgers:other", "Ledgers:tokenized_asset"]
    assert [dict(source.parameters) for source in sources] == [{}, {"aclass": "other"}, {"aclass": "tokenized_asset"}]
    assert {(source.method, source.key) for source in sources} == {("Ledgers", "ledger")}


def test_a_channel_without_history_is_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="ticker"):
        sources_of("ticker")


# ------------------------------------------------------------------------------------------------ calls


async def test_fills_are_consolidated_as_the_feed_is_subscribed() -> None:
    """Otherwise the ids and sizes of REST's fills are not the feed's."""
    subscription = json.loads(spot_v1.subscribe("ownTrades", "TOKEN", 1))["subscription"]
    expected = json.dumps(subscription["consolidate_taker"])
    kraken = saying('{"closed":{},"trades":{}}')
    await page(kraken.rest, CLOSED_ORDERS, 0, None, 0)
    await page(kraken.rest, TRADES, 0, None, 0)
    await named_orders(kraken.rest, [ORDER])
    assert [method for method, _ in kraken.queries] == ["ClosedOrders", "TradesHistory", "QueryOrders"]
    assert [parameters["consolidate_taker"] for _, parameters in kraken.queries] == [expected] * 3


async def test_a_page_is_asked_for_by_its_bounds_and_offset() -> None:
    kraken = saying('{"closed":{},"trades":{},"ledger":{}}')
    for source in SOURCES:
        await page(kraken.rest, source, 100, 200, 50)
        await page(kraken.rest, source, 100, None, 0)
    assert [{name: query.get(name) for name in ("start", "end", "ofs")} for _, query in kraken.queries] == [
        {"start": "100", "end": "200", "ofs": "50"},
        {"start": "100", "end": None, "ofs": "0"},
    ] * 3
    assert {method: query.get("closetime") for method, query in kraken.queries} == {
        "ClosedOrders": "close", "TradesHistory": None, "Ledgers": None,
    }  # fmt: skip


async def test_rows_are_counted_except_fills_whose_count_may_be_of_unmerged_ones() -> None:
    kraken = saying('{"closed":{},"trades":{},"ledger":{}}')
    for source in SOURCES:
        await page(kraken.rest, source, 0, None, 0)
    assert {method: query.get("without_count") for method, query in kraken.queries} == {
        "ClosedOrders": None, "TradesHistory": "true", "Ledgers": None,
    }  # fmt: skip


async def test_every_call_leaves_the_reserve_and_counts_its_cost() -> None:
    counted: list[tuple[str, float, float]] = []

    class Counting:
        async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
            counted.append((method, cost, reserve))
            return msgspec.Raw(b'{"closed":{},"trades":{},"ledger":{}}' if method != "QueryOrders" else b"{}")

    rest = Counting()
    for source in SOURCES:
        await page(rest, source, 0, None, 0)
    await named_orders(rest, [ORDER])
    await key_span(rest)
    assert counted == [
        ("ClosedOrders", 4.0, RESERVE),
        ("TradesHistory", 4.0, RESERVE),
        ("Ledgers", 4.0, RESERVE),
        ("QueryOrders", 1.0, RESERVE),
        ("GetApiKeyInfo", 1.0, RESERVE),
    ]


# ------------------------------------------------------------------------------------------------ pages


@each(("source", "result"), [
    (TRADES, "{}"),
    (CLOSED_ORDERS, '{"open":{}}'),
    (LEDGERS, '{"ledgers":{}}'),
    (TRADES, '{"count":0}'),
])  # fmt: skip
async def test_an_answer_without_its_key_is_not_an_empty_page(source: Source, result: str) -> None:
    with pytest.raises(NotUnderstood, match=f"{source.method}: the answer has no `{source.key}`") as caught:
        await page(saying(result).rest, source, 0, None, 0)
    assert caught.value.cause == "history"
    assert caught.value.retry


@each("source", SOURCES)
@each("result", ["[]", "null", "7", '"x"', "[{}]"])
async def test_a_result_that_is_not_an_object_is_not_understood(source: Source, result: str) -> None:
    with pytest.raises(NotUnderstood, match=f"{source.method}: the answer is not an object"):
        await page(saying(result).rest, source, 0, None, 0)


@each("source", SOURCES)
@each("rows", ["{}", "[]", " [ ] "])
async def test_an_empty_array_is_an_empty_object(source: Source, rows: str) -> None:
    found = await page(saying(f'{{"{source.key}":{rows},"count":0}}').rest, source, 0, None, 0)
    assert (found.rows, found.count) == ([], 0)


@each("source", SOURCES)
@each("rows", ["null", "7", '"x"', "[{}]", "[null]", "false"])
async def test_rows_in_another_shape_are_not_understood(source: Source, rows: str) -> None:
    with pytest.raises(NotUnderstood, match=f"{source.method}: `{source.key}` is not an object"):
        await page(saying(f'{{"{source.key}":{rows}}}').rest, source, 0, None, 0)


@each("row", ["null", "7", '"x"', "[]", "[{}]"])
async def test_a_row_that_is_not_an_object_is_not_understood(row: str) -> None:
    with pytest.raises(NotUnderstood, match="TradesHistory: a row is not an object"):
        await page(saying(f'{{"trades":{{"{TRADE}":{row}}}}}').rest, TRADES, 0, None, 0)


async def test_the_same_id_twice_on_a_page_is_two_rows() -> None:
    kraken = saying(f'{{"trades":{{"{TRADE}":{{"vol":"1.0"}},"{TRADE}":{{"vol":"2.0"}}}},"count":2}}')
    found = await page(kraken.rest, TRADES, 0, None, 0)
    assert [row.item.data for row in found.rows] == [b'{"vol":"2.0"}', b'{"vol":"1.0"}']
    assert {row.item.identity for row in found.rows} == {TRADE}


async def test_the_rows_of_a_repeated_key_are_all_there() -> None:
    kraken = saying('{"trades":{"T1":{"time":2}},"trades":{"T2":{"time":1}}}')
    assert [row.item.exec_id for row in (await page(kraken.rest, TRADES, 0, None, 0)).rows] == ["T2", "T1"]


async def test_a_row_with_a_lone_surrogate_passes_unchanged() -> None:
    row = rb'{"ordertxid":"O1", "misc":"\ud800","vol":"1e-8"}'.decode()
    found = await page(saying(f'{{"trades":{{"{TRADE}":{row}}}}}').rest, TRADES, 0, None, 0)
    assert [item.item.data.decode() for item in found.rows] == [row]


async def test_an_id_with_a_lone_surrogate_can_be_written() -> None:
    found = await page(saying(r'{"closed":{"O\ud800":{"status":"closed\udfff"}}}').rest, CLOSED_ORDERS, 0, None, 0)
    (row,) = found.rows
    for text in (row.item.identity, row.item.order_id, row.status):
        assert text is not None
        assert text.encode()


async def test_line_breaks_between_tokens_become_blanks_and_nothing_else_changes() -> None:
    kraken = saying('{"ledger":{"L1":{\n"time":1.50,\r\n "amount" : "1.000",\t"x":1E+2}}}')
    found = await page(kraken.rest, LEDGERS, 0, None, 0)
    assert found.rows[0].item.data == b'{ "time":1.50,   "amount" : "1.000",\t"x":1E+2}'


async def test_rows_come_oldest_first() -> None:
    rows = {f"T{number}": {"time": 1760000000 + number} for number in (5, 4, 3, 2, 1)}
    found = await page(saying(json.dumps({"trades": rows})).rest, TRADES, 0, None, 0)
    assert [row.item.exec_id for row in found.rows] == ["T1", "T2", "T3", "T4", "T5"]


@each(("count", "expected"), [("59", 59), ('"59"', 59), ("59.0", 59), ("5.9e1", 59), ("0", 0), ("null", None)])
def test_a_count_is_read_by_its_value(count: str, expected: int | None) -> None:
    assert read_page(LEDGERS, f'{{"ledger":{{}},"count":{count}}}'.encode()).count == expected
    assert read_page(LEDGERS, b'{"ledger":{}}').count is None


@each("count", ['"many"', "-1", "1.5", "{}", "true", '""', "1e400"])
def test_a_count_that_is_none_is_not_understood(count: str) -> None:
    with pytest.raises(NotUnderstood, match="Ledgers: `count`"):
        read_page(LEDGERS, f'{{"ledger":{{}},"count":{count}}}'.encode())


def test_items_have_the_identity_of_the_feed_s() -> None:
    (fill,) = read_page(TRADES, f'{{"trades":{{"{TRADE}":{{"ordertxid":"{ORDER}","time":1}}}}}}'.encode()).rows
    assert (fill.item.order_id, fill.item.exec_id, fill.item.identity) == (ORDER, TRADE, TRADE)
    (entry,) = read_page(LEDGERS, b'{"ledger":{"L1":{"refid":"R","time":1}}}').rows
    assert (entry.item.order_id, entry.item.exec_id, entry.item.identity) == (None, None, "L1")


@each("source", SOURCES)
def test_rows_with_an_empty_id_are_told_apart_by_their_bytes(source: Source) -> None:
    raw = '"":{"status":"closed","ordertxid":""}'
    page = read_page(source, f'{{"{source.key}":{{{raw},"":{{"status":"closed","vol":"1"}},{raw}}}}}'.encode())
    assert {(row.item.order_id, row.item.exec_id) for row in page.rows} == {(None, None)}
    assert len({row.item.identity for row in page.rows}) == page.length == 2
    assert all(row.item.identity for row in page.rows)


@each("source", SOURCES)
def test_rows_without_an_id_count_once_for_the_next_offset_if_they_have_the_same_time(source: Source) -> None:
    """A row can stand on its page twice, with other bytes. An offset that counted both would skip another one."""
    rows = ",".join(f'"":{{"{source.time}":{1 + number // 2},"revision":{number}}}' for number in range(4))
    page = read_page(source, f'{{"{source.key}":{{"X":{{"{source.time}":1}},{rows}}}}}'.encode())
    assert (len(page.rows), page.length) == (5, 3)


def test_an_open_order_with_an_empty_id_is_nothing_to_write() -> None:
    (row,) = read_page(CLOSED_ORDERS, b'{"closed":{"":{"status":"open"}}}').rows
    assert row.item.identity is None


@each("source", SOURCES)
def test_rows_that_share_an_id_count_once_for_the_next_offset(source: Source) -> None:
    """A row can stand on its page twice. An offset that counted both would skip another one."""
    rows = ",".join(f'"X{number % 2}":{{"revision":{number}}}' for number in range(4))
    page = read_page(source, f'{{"{source.key}":{{{rows}}}}}'.encode())
    assert (len(page.rows), page.length) == (4, 2)


# ------------------------------------------------------------------------------------------------ states of orders


def closed(status: object) -> Row:
    (row,) = read_page(CLOSED_ORDERS, json.dumps({"closed": {ORDER: {"status": status}}}).encode()).rows
    return row


@each("status", ["open", "pending", "Open", "PENDING"])
def test_an_order_that_is_open_has_no_identity(status: str) -> None:
    row = closed(status)
    assert (state(row), row.item.identity, row.item.order_id) == ("open", None, ORDER)


@each("status", ["closed", "canceled", "expired", "Canceled", "CLOSED", " expired "])
def test_an_order_that_ended_is_its_end(status: str) -> None:
    row = closed(status)
    assert (state(row), row.item.identity) == ("ended", f"{ORDER}:end")


@each(
    ("status", "shown"),
    [("rejected", "rejected"), ("Rejected", "Rejected"), ("filled", "filled"), ("", "empty"), (None, "null"),
     (7, "7"), (["closed"], '["closed"]')],
)  # fmt: skip
def test_a_state_that_nobody_knows_is_neither_open_nor_an_end(status: object, shown: str) -> None:
    row = closed(status)
    assert (state(row), row.status) == ("unknown", shown)
    assert row.item.identity == f"{ORDER}:{shown.casefold()}"


def test_an_order_without_a_state_is_in_an_unknown_one() -> None:
    (row,) = read_page(CLOSED_ORDERS, b'{"closed":{"O1":{}}}').rows
    assert (state(row), row.item.identity) == ("unknown", "O1:absent")


@given(st.text())
def test_no_unknown_state_looks_like_an_end(status: str) -> None:
    row = closed(status)
    if state(row) == "unknown":
        assert row.item.identity is not None
        assert not re.search(r":end(~|$)", row.item.identity)
        row.item.identity.encode()


@each("status", ["end", "END", "x:end", "end~1", ":end", "end:end"])
def test_not_even_a_state_called_end_looks_like_one(status: str) -> None:
    row = closed(status)
    assert state(row) == "unknown"
    assert not re.search(r":end(~|$)", row.item.identity or ":end")


# ------------------------------------------------------------------------------------------------ times


@each(
    ("digits", "expected"),
    [
        ("1760000000", 1_760_000_000_000_000_000),
        ("1760000005.4321", 1_760_000_005_432_100_000),
        ("1760000005.123456789", 1_760_000_005_123_456_789),
        ("1760000005.1234567899", 1_760_000_005_123_456_789),
        ("1760000005." + "9" * 60, 1_760_000_005_999_999_999),
        ("1.7600000054321e9", 1_760_000_005_432_100_000),
        ('"1760000005.4321"', 1_760_000_005_432_100_000),
        ("0", None),
        ("0.0", None),
        ("-1", None),
        ("null", None),
        ('"soon"', None),
        ("1e999999999", None),
        ("1e99999999999999999999", None),
        ("[]", None),
        ('"NaN"', None),
        ('"1_0"', None),
    ],
)
def test_times_are_exact(digits: str, expected: int | None) -> None:
    assert unix_ns(digits.encode()) == expected


@given(st.integers(1, 10**13), st.integers(0, 10**9 - 1))
def test_every_nanosecond_is_kept(seconds: int, ns: int) -> None:
    assert unix_ns(f"{seconds}.{ns:09d}".encode()) == seconds * 10**9 + ns


@given(st.decimals(min_value=Decimal("0.000000001"), max_value=10**12, allow_nan=False, allow_infinity=False))
def test_any_spelling_of_a_time_is_read_by_its_value(seconds: Decimal) -> None:
    expected = int(seconds * 10**9)
    assert unix_ns(str(seconds).encode()) == expected
    assert unix_ns(f"{seconds:e}".encode()) == expected


def test_each_source_has_its_own_time() -> None:
    row = {"time": 1, "closetm": 2, "opentm": 3}
    times = [read_page(source, json.dumps({source.key: {"X": row}}).encode()).rows[0].time_ns for source in SOURCES]
    assert times == [2_000_000_000, 1_000_000_000, 1_000_000_000]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from(SOURCES),
    st.dictionaries(
        st.text(max_size=8),
        st.dictionaries(st.sampled_from(["status", "time", "closetm", "ordertxid", "x"]), json_values) | json_values,
        max_size=4,
    ),
)
def test_any_rows_are_read_as_they_are_or_not_understood(source: Source, rows: dict[str, Any]) -> None:
    result = json.dumps({source.key: rows}).encode()
    if not all(isinstance(row, dict) for row in rows.values()):
        with pytest.raises(NotUnderstood, match=source.method):
            read_page(source, result)
    else:
        found = read_page(source, result)
        assert sorted(row.item.data for row in found.rows) == sorted(json.dumps(row).encode() for row in rows.values())


# ------------------------------------------------------------------------------------------------ named orders


def names(count: int) -> list[str]:
    return [f"O{number:05d}-AAAAA-BBBBBB" for number in range(count)]


@each("count", [0, 1, 2, 49, 50, 51, 99, 100, 101, 149, 150, 151, 199, 200])
async def test_every_order_is_asked_for_exactly_once(count: int) -> None:
    ids = names(count)
    kraken = Kraken(query_orders(dict.fromkeys(ids, "closed")))
    found = await named_orders(kraken.rest, ids)
    assert sorted(name for _, query in kraken.queries for name in query["txid"].split(",")) == ids
    assert list(found) == ids
    assert len(kraken.queries) == -(-count // 50)


@given(st.sets(st.integers(0, 400), max_size=200))
def test_no_order_is_left_out_of_the_batches(numbers: set[int]) -> None:
    asked: list[str] = []

    class Noting:
        async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
            asked.extend(parameters["txid"].split(","))
            return msgspec.Raw(b"{}")

    ids = [f"O{number}" for number in numbers]
    with pytest.raises(StopIteration):
        named_orders(Noting(), ids).send(None)  # nothing in it waits
    assert sorted(asked) == sorted(ids)


async def test_orders_come_in_the_state_that_kraken_gives_and_unknown_ones_not_at_all() -> None:
    kraken = Kraken(query_orders({"O1": "open", "O2": "canceled", "O3": "rejected"}))
    found = await named_orders(kraken.rest, {"O1", "O2", "O3", "O4"})
    assert {name: (state(row), row.item.identity) for name, row in found.items()} == {
        "O1": ("open", None), "O2": ("ended", "O2:end"), "O3": ("unknown", "O3:rejected"),
    }  # fmt: skip
    assert found["O2"].time_ns == 1_760_000_000_500_000_000


@each("text", ["EOrder:Invalid order", "EQuery:Unknown order", "EGeneral:Invalid arguments:txid"])
@each("refused", [{0}, {49}, {50}, {0, 1, 2}, {3, 60, 119}, set(range(120))])
async def test_a_refused_id_costs_the_others_nothing(text: str, refused: set[int]) -> None:
    ids = names(120)
    bad = frozenset(ids[number] for number in refused)
    kraken = Kraken(query_orders(dict.fromkeys(ids, "closed"), bad, text))
    assert set(await named_orders(kraken.rest, ids)) == set(ids) - bad


async def test_an_id_that_cannot_be_asked_for_is_left_out() -> None:
    kraken = Kraken(query_orders({"O1": "open"}))
    assert list(await named_orders(kraken.rest, ["", "O1", "O2,O3"])) == ["O1"]
    assert [query["txid"] for _, query in kraken.queries] == ["O1"]


async def test_orders_that_nobody_asked_for_are_left_out() -> None:
    assert await named_orders(saying('{"O9":{"status":"closed"}}').rest, ["O1"]) == {}


@each("result", ["{}", "[]"])
async def test_no_orders_are_an_empty_object_or_array(result: str) -> None:
    assert await named_orders(saying(result).rest, ["O1"]) == {}


@each("result", ["null", "7", '[{"O1":{}}]', '{"O1":null}'])
async def test_orders_in_another_shape_are_not_understood(result: str) -> None:
    with pytest.raises(NotUnderstood, match="QueryOrders"):
        await named_orders(saying(result).rest, ["O1"])


async def test_two_rows_of_one_order_are_not_understood_unless_they_are_the_same() -> None:
    with pytest.raises(NotUnderstood, match="two different rows of order O1"):
        await named_orders(saying('{"O1":{"status":"open"},"O1":{"status":"closed"}}').rest, ["O1"])
    same = await named_orders(saying('{"O1":{"status":"open"},"O1":{"status":"open"}}').rest, ["O1"])
    assert list(same) == ["O1"]


@each(
    ("text", "error"),
    [("EGeneral:Permission denied", CredentialsRefused), ("EAPI:Invalid key", Transient),
     ("EService:Unavailable", Transient), ("EAPI:Rate limit exceeded", Transient)],
)  # fmt: skip
async def test_what_is_not_about_an_order_is_raised(text: str, error: type[Exception]) -> None:
    kraken = Kraken(query_orders({}, frozenset({"O1"}), text))
    with pytest.raises(error):
        await named_orders(kraken.rest, ["O1", "O2"])
    assert len(kraken.queries) == 1


# ------------------------------------------------------------------------------------------------ the key's span


@each(
    ("result", "span"),
    [
        ('{"query_from":"0","query_to":"0"}', Span(0, 0)),
        ('{"query_from":"5","query_to":"6"}', Span(5, 6)),
        ('{"queryFrom":5,"queryTo":6.0}', Span(5, 6)),
        ('{"query_from":null,"query_to":""}', Span(0, 0)),
        ("{}", Span(0, 0)),
        (r'{"api_key_name":"\ud800","query_from":"5"}', Span(5, 0)),
    ],
)
async def test_the_span_of_a_key_is_read_by_value(result: str, span: Span) -> None:
    assert await key_span(saying(result).rest) == span


@each(
    ("result", "says"),
    [
        ('{"query_from":"yesterday"}', "GetApiKeyInfo: `query_from` is not a time"),
        ('{"query_to":-1}', "GetApiKeyInfo: `query_to` is not a time"),
        ('{"query_to":{"until":5}}', "GetApiKeyInfo: `query_to` is not a time"),
        ("[]", "GetApiKeyInfo: the answer is not an object"),
        ("null", "GetApiKeyInfo: the answer is not an object"),
    ],
)
async def test_a_limit_that_cannot_be_read_is_not_no_limit(result: str, says: str) -> None:
    with pytest.raises(NotUnderstood, match=says):
        await key_span(saying(result).rest)


async def test_a_refusal_names_the_method_and_keeps_kraken_s_text() -> None:
    kraken = Kraken(lambda method, parameters: '{"error":["EGeneral:Invalid arguments"]}')
    with pytest.raises(RequestRefused, match="TradesHistory") as refused:
        await page(kraken.rest, TRADES, 0, None, 0)
    assert refused.value.why.startswith("EGeneral:Invalid arguments")
    kraken = Kraken(lambda method, parameters: '{"error":["EGeneral:Permission denied"]}')
    with pytest.raises(CredentialsRefused) as denied:
        await page(kraken.rest, LEDGERS, 0, None, 0)
    assert "Ledgers needs the permission" in denied.value.why
