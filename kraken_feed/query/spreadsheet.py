"""Write records as CSV for spreadsheets: one set of columns for orders, fills and ledger entries.

Numbers are as Kraken wrote them. A cell that a spreadsheet would calculate as a formula gets an apostrophe in front.
"""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime
from typing import Any

from ..feed.backfill import unix_ns
from ..records.view import Fields, nonzero, parse, read_fill, read_order, value
from ..text import printable
from .spool import ENTRY_KIND, ORDER_KIND, TRADE_KIND, SpooledRow

COLUMNS = (
    "time_utc",  # as spreadsheets read a time, in milliseconds; `kraken_time` has all of its digits
    "kind",  # order, trade or ledger
    "pair",
    "side",
    "order_type",
    "price",  # of a fill, or an order's average
    "limit_price",
    "volume",
    "executed",
    "cost",
    "fee",
    "role",  # maker or taker
    "status",
    "reason",
    "opened_utc",
    "entry_type",
    "asset",
    "amount",
    "balance",
    "order_id",
    "trade_id",
    "ledger_id",
    "ref_id",
    "userref",
    "cl_ord_id",
    "kraken_time",
    "account",
    "channel",
    "id",
)
NS = 1_000_000_000
_LAST_S = 253_402_300_800  # the year 10000, which datetime cannot express

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
# Spreadsheets calculate a cell that begins like this, some also after blanks, or with the wide forms of the characters.
# Where the semicolon separates cells, a cell can begin behind one.
_FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\t\r\n＝＋－＠])")


def line(row: SpooledRow, record: dict[str, Any]) -> bytes:
    """Return a record's line."""
    cells = _cells(row, parse(row.data))
    common = {name: record[name] for name in ("account", "channel", "id")}
    common |= {"kind": row.kind, "time_utc": _time(row.time_ns)}
    values = cells | common
    return _write([harmless(values.get(name, "")) for name in COLUMNS])


def header() -> bytes:
    """Return the line with the names of the columns."""
    return _write(COLUMNS)


def harmless(text: str) -> str:
    """Return a cell's text as a spreadsheet may read it: a plain number is unchanged, control characters are escaped,
    and what would begin a formula gets an apostrophe in front."""
    return text if _NUMBER.fullmatch(text) else _FORMULA.sub(r"\1'", printable(text))


def _write(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cells(row: SpooledRow, fields: Fields) -> dict[str, str]:
    """Return the cells of Kraken's object.

    Source: https://docs.kraken.com/api/docs/rest-api/get-closed-orders , …/get-trade-history , …/get-ledgers
    """
    if row.kind == TRADE_KIND:
        fill, maker = read_fill(row.data), bytes(fields.get("maker", b""))
        return {
            "pair": fill.pair, "side": fill.side, "order_type": fill.kind, "price": fill.price, "volume": fill.volume,
            "executed": fill.volume, "cost": fill.cost, "fee": fill.fee, "kraken_time": fill.time,
            "role": {b"true": "maker", b"false": "taker"}.get(maker, ""), "order_id": fill.order_id,
            "trade_id": row.exec_id or "",
        }  # fmt: skip
    if row.kind == ORDER_KIND:
        order = read_order(row.data)
        return {
            "pair": order.pair, "side": order.side, "order_type": order.kind, "price": nonzero(order.average),
            "limit_price": nonzero(order.price), "volume": order.volume, "executed": order.filled, "cost": order.cost,
            "fee": value(fields, "fee"), "status": order.status, "reason": value(fields, "reason"),
            "opened_utc": _time(unix_ns(order.opened.encode())), "order_id": row.order_id or "",
            "userref": value(fields, "userref"), "cl_ord_id": value(fields, "cl_ord_id"),
            "kraken_time": value(fields, "closetm"),
        }  # fmt: skip
    assert row.kind == ENTRY_KIND
    kind, subtype = value(fields, "type"), value(fields, "subtype")
    return {
        "entry_type": " ".join(filter(None, (kind, subtype))), "asset": value(fields, "asset"),
        "amount": value(fields, "amount"), "fee": value(fields, "fee"), "balance": value(fields, "balance"),
        "ref_id": value(fields, "refid"), "ledger_id": row.ledger_id, "kraken_time": value(fields, "time"),
    }  # fmt: skip


def _time(ns: int | None) -> str:
    """Return a time in the form that every spreadsheet reads as one."""
    if ns is None or ns // NS >= _LAST_S:
        return ""
    second = datetime.fromtimestamp(ns // NS, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{second}.{ns % NS // 1_000_000:03d}"
