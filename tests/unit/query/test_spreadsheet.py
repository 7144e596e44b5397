"""CSV for spreadsheets: what any text in any cell becomes, and that numbers stay as Kraken wrote them."""

from __future__ import annotations

import csv
import io
import json
import re
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.query.spool import SpooledRow
from kraken_feed.query.spreadsheet import COLUMNS, harmless, header, line

from ...support.cases import each

T0 = 1_760_000_000
NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")  # their wide forms
RECORD = {"account": "main", "channel": "ownTrades", "id": "main:ownTrades:T1"}

numbers = st.from_regex(NUMBER, fullmatch=True)
texts = st.one_of(
    st.text(),
    st.builds(
        str.__add__, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", " =", ";=", ";", '"', ","]), st.text()
    ),
    st.sampled_from(["=cmd|' /C calc'!A0", '","=1+1', "=HYPERLINK(1)", "-1+1", "+5%", "a;=1+1", "@SUM(1)", "-", "--1"]),
)


def cells(data: bytes, delimiter: str = ",") -> list[str]:
    (row,) = csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter)
    return row


def rendered(kind: str, fields: dict[str, Any], **of_row: Any) -> dict[str, str]:
    """Return the cells of a row of Kraken's, by column, as the standard library reads them."""
    given_row = {"identity": "T1", "order_id": "O1", "exec_id": "T1", "time_ns": T0 * 10**9, "ts_ns": 0, **of_row}
    row = SpooledRow(kind=kind, data=json.dumps(fields).encode(), **given_row)
    return dict(zip(COLUMNS, cells(line(row, RECORD)), strict=True))


@given(texts)
def test_no_cell_is_a_formula(text: str) -> None:
    cell = harmless(text)
    assert NUMBER.fullmatch(cell) or not cell.lstrip().startswith(FORMULA)
    assert cell.isprintable()


@given(st.lists(texts, min_size=3, max_size=3))
def test_any_text_in_any_cell_is_read_back_harmless_and_in_its_column(three: list[str]) -> None:
    fields = {"ordertxid": three[0], "pair": three[1], "type": three[2], "vol": "1.0"}
    found = rendered("trade", fields)
    assert [found["order_id"], found["pair"], found["side"]] == [harmless(text) for text in three]
    assert found["volume"] == "1.0"


@given(st.lists(texts, min_size=2, max_size=2))
def test_no_cell_is_a_formula_either_where_semicolons_separate(two: list[str]) -> None:
    """As in many countries: there the whole line is in other cells."""
    row = SpooledRow(
        "trade", "T1", "O1", "T1", None, 0, json.dumps(dict(zip(("pair", "type"), two, strict=True))).encode()
    )
    for cell in line(row, RECORD).decode().rstrip("\n").split(";"):
        assert NUMBER.fullmatch(cell) or not cell.lstrip(' "').startswith(FORMULA)


@given(numbers)
def test_a_number_is_unchanged(number: str) -> None:
    fields = {"amount": number, "fee": number, "balance": number}
    found = rendered("ledger", fields, identity="L1")
    assert found["amount"] == found["fee"] == found["balance"] == number


def test_a_number_that_is_no_string_keeps_its_digits() -> None:
    data = b'{"time":1760000005.43210,"vol":0.10000000,"price":61000.0}'
    row = SpooledRow("trade", "T1", "O1", "T1", 1_760_000_005_432_100_000, 0, data)
    found = dict(zip(COLUMNS, cells(line(row, RECORD)), strict=True))
    assert (found["kraken_time"], found["volume"], found["price"]) == ("1760000005.43210", "0.10000000", "61000.0")


def test_a_fill_has_what_a_traders_spreadsheet_wants() -> None:
    fields = {
        "ordertxid": "O1", "pair": "XXBTZUSD", "time": T0 + 5.4321, "type": "buy", "ordertype": "limit",
        "price": "61000.00000", "cost": "6100.00000", "fee": "9.76000", "vol": "0.10000000", "maker": True,
    }  # fmt: skip
    found = rendered("trade", fields, time_ns=1_760_000_005_432_100_000)
    assert {name: cell for name, cell in found.items() if cell} == {
        "time_utc": "2025-10-09 08:53:25.432", "kind": "trade", "pair": "XXBTZUSD", "side": "buy",
        "order_type": "limit", "price": "61000.00000", "volume": "0.10000000", "executed": "0.10000000",
        "cost": "6100.00000", "fee": "9.76000", "role": "maker", "order_id": "O1", "trade_id": "T1",
        "kraken_time": "1760000005.4321", **RECORD,
    }  # fmt: skip


def test_an_order_has_what_a_traders_spreadsheet_wants() -> None:
    fields = {
        "status": "canceled", "reason": "User requested", "opentm": T0 - 60, "closetm": T0, "vol": "2.0",
        "vol_exec": "0.5", "cost": "30500.0", "fee": "9.76", "price": "61000.0", "userref": 7, "cl_ord_id": None,
        "descr": {"pair": "XBTUSD", "type": "sell", "ordertype": "limit", "price": "61000.1", "price2": "0"},
    }  # fmt: skip
    found = rendered("order", fields, exec_id=None, identity="O1:end")
    assert {name: cell for name, cell in found.items() if cell and name not in RECORD} == {
        "time_utc": "2025-10-09 08:53:20.000", "kind": "order", "pair": "XBTUSD", "side": "sell",
        "order_type": "limit", "price": "61000.0", "limit_price": "61000.1", "volume": "2.0", "executed": "0.5",
        "cost": "30500.0", "fee": "9.76", "status": "canceled", "reason": "User requested",
        "opened_utc": "2025-10-09 08:52:20.000", "order_id": "O1", "userref": "7", "kraken_time": "1760000000",
    }  # fmt: skip


def test_a_ledger_entry_has_what_a_traders_spreadsheet_wants() -> None:
    fields = {
        "refid": "T1", "time": T0, "type": "trade", "subtype": "tradespot", "aclass": "currency", "asset": "ZUSD",
        "amount": "-6100.0000", "fee": "9.7600", "balance": "1500.2500",
    }  # fmt: skip
    found = rendered("ledger", fields, order_id=None, exec_id=None, identity="L1~0a0b0c0d")
    assert {name: cell for name, cell in found.items() if cell and name not in RECORD} == {
        "time_utc": "2025-10-09 08:53:20.000", "kind": "ledger", "entry_type": "trade tradespot", "asset": "ZUSD",
        "amount": "-6100.0000", "fee": "9.7600", "balance": "1500.2500", "ledger_id": "L1", "ref_id": "T1",
        "kraken_time": "1760000000",
    }  # fmt: skip


@each("fields", [{}, {"descr": 7, "vol": [1]}, {"price": None}])
def test_an_object_of_another_shape_has_empty_cells(fields: dict[str, Any]) -> None:
    for kind in ("order", "trade", "ledger"):
        found = rendered(kind, fields, time_ns=None, identity="row-0a0b0c0d")
        assert found["time_utc"] == found["price"] == found["ledger_id"] == found["balance"] == ""


@each("ns", [0, 253_402_300_800 * 10**9, 1 << 62])
def test_a_time_that_no_calendar_has_is_empty_or_readable(ns: int) -> None:
    found = rendered("trade", {}, time_ns=ns)
    assert found["time_utc"] in ("", "1970-01-01 00:00:00.000", "2116-02-20 23:53:38.427")


def test_the_header_names_each_column_once() -> None:
    assert cells(header()) == list(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in COLUMNS)


def test_decimals_add_up_as_they_were_written() -> None:
    found = rendered("trade", {"vol": "0.10000000"})
    assert Decimal(found["volume"]) * 3 == Decimal("0.3")
