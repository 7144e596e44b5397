"""Format records as rows for a terminal: one per record, aligned, coloured, escaped."""

from __future__ import annotations

from collections import defaultdict

from structlog.typing import EventDict, WrappedLogger

from ..records.open_orders import OpenOrders
from ..records.view import parse, read_execution, read_fill, value
from ..text import printable, word

HEADER = ("time", "pair", "side", "type", "price", "volume", "filled", "status")
WIDTHS = (12, 11, 4, 19, 13, 14, 14, 16)
ID_WIDTH = 19  # of Kraken's ids; they are left out where the terminal is too narrow for them
RIGHT = ("price", "volume", "filled")

_DIM, _GREEN, _RED, _YELLOW, _CYAN, _BOLD = "2", "32", "31", "33", "36", "1"
_COLORS = {
    "buy": _GREEN,
    "sell": _RED,
    "closed": _GREEN,
    "filled": _GREEN,
    "trade": _BOLD,
    "canceled": _YELLOW,
    "expired": _YELLOW,
}

# What a marker's row shows of it, and its colour.
_MARKERS = {
    "feed.live": (("engine", "attempt"), _CYAN),
    "feed.lost": (("cause", "detail"), _RED),
    "feed.status": (("engine",), _DIM),
    "feed.backfilled": (("orders", "trades", "from", "to"), _GREEN),
    "feed.gap": (("reason", "from", "to"), _RED),
    "feed.stopped": (("reason",), _DIM),
}


class Rows:
    """The processor that turns a record into a row. Unknown values are dashes. ``columns`` is the terminal's width."""

    def __init__(self, *, colors: bool, columns: int = 160) -> None:
        self._colors = colors
        self._ids = columns >= sum(WIDTHS) + 2 * len(WIDTHS) + ID_WIDTH
        self._orders: defaultdict[tuple[str, str], OpenOrders] = defaultdict(OpenOrders)  # by account and channel
        self._begun = False

    def __call__(self, logger: WrappedLogger, name: str, record: EventDict) -> bytes:
        """Return the row of a record, or one row per item, with line feeds. The first has a heading."""
        items = record.pop("items", None)
        if items is not None:
            keys = ("id", "sequence", "order_id", "exec_id", "data")
            return b"".join(self(logger, name, {**record, **dict(zip(keys, item, strict=True))}) for item in items)
        row = self._row(record)
        if not self._begun:
            self._begun = True
            row = self._paint(self._align(HEADER), _DIM) + "\n" + row
        return (row + "\n").encode("utf-8", "backslashreplace")

    def _row(self, record: EventDict) -> str:
        time = record["ts"][11:23]
        event = record["event"]
        if event.startswith("feed."):
            return self._marker(time, event, record)
        if event == "unknown":
            shown = record.get("data", b"").decode("utf-8", "replace") or record.get("data_base64", "")
            return self._paint(printable(f"{time:12}  unknown frame: {shown[:200]}"), _YELLOW)
        shape = "recovered" if record.get("type") == "backfill" else event
        cells = getattr(self, f"_{shape}")(record)
        name = record.get("exec_id") or record.get("order_id")
        return self._cells((time, *cells)) + (self._paint(f"  {printable(name)}", _DIM) if name and self._ids else "")

    def _marker(self, time: str, event: str, record: EventDict) -> str:
        if event == "feed.lost":
            # The next snapshot lists the orders that are open.
            self._orders.pop((record["account"], record["channel"]), None)
        keys, color = _MARKERS.get(event, ((), _DIM))
        details = "  ".join(f"{key}={record[key]}" for key in keys if record.get(key) is not None)
        return self._paint(
            printable(f"{time:12}  {event.removeprefix('feed.'):10}  {record['channel']}  {details}"), color
        )

    # -- one method per event_name

    def _order(self, record: EventDict) -> tuple[str, ...]:
        channel, kind = record["channel"], record.get("type", "update")
        order = self._orders[record["account"], channel].apply(
            channel, kind, record.get("order_id"), record["data"], record.get("connection")
        )
        return order.pair, order.side, order.kind, order.shown_price, order.volume, order.filled, order.status

    def _trade(self, record: EventDict) -> tuple[str, ...]:
        fill = read_fill(record["data"])
        return fill.pair, fill.side, fill.kind, fill.price, fill.volume, fill.volume, "trade"

    def _execution(self, record: EventDict) -> tuple[str, ...]:
        order = self._order(record)
        fill = read_execution(record["data"])
        if fill is None:
            return order
        so_far = value(parse(record["data"]), "cum_qty") or fill.volume
        return fill.pair, fill.side, fill.kind, fill.price, fill.volume, so_far, "trade"

    def _balance(self, record: EventDict) -> tuple[str, ...]:
        fields = parse(record["data"])
        asset, kind, amount, balance = (value(fields, name) for name in ("asset", "type", "amount", "balance"))
        return asset, "", kind, "", amount, balance, "balance"

    def _recovered(self, record: EventDict) -> tuple[str, ...]:
        """Return the cells of REST's object. Its fields are like v1's on every channel."""
        if record.get("exec_id") is not None:
            return self._trade(record)
        if record.get("order_id") is None:
            return self._balance(record)
        return self._order(record)

    # -- layout

    def _cells(self, cells: tuple[str, ...]) -> str:
        return self._align(tuple(printable(cell) or "-" for cell in cells), paint=True)

    def _align(self, cells: tuple[str, ...], *, paint: bool = False) -> str:
        aligned = []
        for name, width, cell in zip(HEADER, WIDTHS, cells, strict=True):
            padded = cell.rjust(width) if name in RIGHT else cell.ljust(width)
            aligned.append(self._paint(padded, _COLORS.get(word(cell), "")) if paint else padded)
        return "  ".join(aligned)

    def _paint(self, text: str, color: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._colors and color and text else text
