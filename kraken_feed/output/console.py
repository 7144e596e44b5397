"""Format records as rows for a terminal: one per record, aligned, coloured, escaped, and no wider than the terminal.

``columns`` has the columns that fit, ``markers`` the sentences for markers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from structlog.typing import EventDict, WrappedLogger

from ..records.open_orders import OpenOrders
from ..records.pairs import slashed
from ..records.view import Fields, Fill, Order, event_ns, moment, parse, read_execution, read_fill, value
from ..text import cell_width, displayed, word
from .columns import LONG_STATUS, MARK, Layout, columns, wrapped
from .markers import Markers
from .selection import EVERYTHING, Selection
from .zone import Zone

# The marks in front of rows. They are explained in docs/rows.md.
LIVE, OLD, RECOVERED, MARKER, UNKNOWN = " ", "=", "+", "*", "?"

UNKNOWN_SHOWN = 200  # characters of a frame that cannot be read
# Columns that adapt to what comes, and those that adapt with them: what is filled grows up to the volume.
GROWING = {
    "pair": ("pair",), "price": ("price",), "volume": ("volume", "filled"), "filled": ("volume", "filled"),
    "asset": ("asset",), "change": ("change",), "balance": ("balance",),
}  # fmt: skip
GROWN, STEP = 40, 2  # cells to which they may want to grow, and by how many at a time: few new headings
SHORT = {"partially_filled": "partial", "pending_new": "pending"}  # where the column is narrow

DIM, GREEN, RED, YELLOW, CYAN, BOLD = "2", "32", "31", "33", "36", "1"
_COLORS = {
    "buy": GREEN,
    "sell": RED,
    "closed": GREEN,
    "filled": GREEN,
    "trade": BOLD,
    "canceled": YELLOW,
    "expired": YELLOW,
}
_MARKER_COLORS = {"feed.live": CYAN, "feed.lost": RED, "feed.backfilled": GREEN, "feed.gap": RED}

# The open orders that the output holds, by account and channel: by id, the complete object and its changes.
Known = Callable[[str, str], Mapping[str, Sequence[bytes]]]


def _nothing(account: str, channel: str) -> Mapping[str, Sequence[bytes]]:
    return {}


class Row(NamedTuple):
    """What a row shows of an item. A dash is a value that is not known, an empty text one that does not exist."""

    kind: str  # "order", "trade" or "balance"
    pair: str
    side: str
    type: str
    price: str
    volume: str
    filled: str
    status: str


class Shown(NamedTuple):
    """One row to show: its mark, when it happened and was received, its account and its ids."""

    row: Row
    mark: str
    happened_ns: int
    ts_ns: int
    account: str
    order_id: str
    trade_id: str

    def cells(self) -> dict[str, str]:
        """Return the cells whose texts do not depend on the width, by the headings of their columns."""
        cells = self.row._asdict() | {"account": self.account, "trade": self.trade_id}
        if self.row.kind == "balance":
            cells |= {"asset": self.row.pair, "change": self.row.volume, "balance": self.row.filled}
        return cells


class Rows:
    """The processor that turns a record into a row.

    Args:
        colors: whether to use colours.
        width: the terminal's width. :meth:`resize` changes it.
        height: the terminal's height: the heading is repeated after as many lines. 0: these rows are not on a terminal
            and may be read later. They begin with the date.
        accounts: the names of all accounts.
        channels: the channels of every account.
        zone: the zone of the times.
        known: returns the open orders that the output holds.
        selection: which rows to show.
        past: whether these are rows of the past, the oldest first. Then each belongs to its own day, and none is
            marked.
    """

    def __init__(
        self,
        *,
        colors: bool,
        width: int = 160,
        height: int = 0,
        accounts: Sequence[str] = (),
        channels: Sequence[str] = (),
        zone: Zone | None = None,
        known: Known = _nothing,
        selection: Selection = EVERYTHING,
        past: bool = False,
    ) -> None:
        self.shown: Counter[str] = Counter()  # rows of events by kind: "order", "trade", "balance", "unknown"
        self.recovered = 0  # those of them that were recovered
        self.hidden = 0  # rows that the selection leaves out
        self.zone = zone or Zone()
        self._colors = colors
        self._columns = columns(accounts, channels)
        self._several = len(accounts) > 1
        self._seen: dict[str, int] = {}  # the widest cells so far
        self._layout = Layout(width, self._columns)
        self._known = known
        self._selection = selection
        self._markers = Markers(channels, self.zone, self._open_orders)
        self._orders: defaultdict[tuple[str, str], OpenOrders] = defaultdict(OpenOrders)  # by account and channel
        self._begun: set[tuple[str, str]] = set()  # accounts and channels whose state is known
        self._height = height
        self._past = past
        self._date = None if height and not past else ""  # that was shown last; None: today's need not be shown
        self._heading = ""  # that was shown last
        self._since_heading = 0  # lines

    def learn(self, account: str, channel: str) -> None:
        """Take over the open orders that an earlier run has written."""
        orders = self._known(account, channel)
        self._orders[account, channel].sync(channel, orders)
        self._begun.add((account, channel))

    def resize(self, width: int, height: int) -> None:
        """Use another size from the next row on."""
        self._layout, self._height = Layout(width, self._columns, self._seen), height

    def __call__(self, logger: WrappedLogger, name: str, record: EventDict) -> tuple[tuple[bytes, int], Any]:
        """Return the lines of a record, or of several items, and how many records they are. They have line feeds."""
        items = record.pop("items", None)
        records = [record]
        if items is not None:
            keys = ("id", "sequence", "order_id", "exec_id", "data")
            records = [{**record, **dict(zip(keys, item, strict=True))} for item in items]
        parts = [part for one in records for part in self._parts(one)]
        self._adapt([part for part in parts if isinstance(part, Shown)])
        lines = [part if isinstance(part, str) else self._painted(part) for part in parts]
        if lines:
            first = parts[0].ts_ns if isinstance(parts[0], Shown) else moment(record["ts"])
            lines = self._head(first) + lines
            self._since_heading += len(lines)
        return (encoded(lines), len(records)), {}

    def sentence(self, text: str, now_ns: int, color: str = DIM, account: str = "", mark: str = MARKER) -> list[str]:
        """Return the lines of a sentence behind a mark and a time."""
        layout = self._layout
        gap, width = " " * layout.gap, layout.widths.get("time", 0) - MARK
        start = f"{mark} {self.zone.clock(now_ns, now_ns, width):{max(width, 8)}}{gap}"
        if account and self._several:
            start += f"{displayed(account):{layout.widths.get('account', 0)}}{gap}"
        lines = wrapped(f"{start}{displayed(text)}", layout.width, len(start))
        return [self._paint(line, color) for line in lines]

    # -- records

    def _parts(self, record: EventDict) -> list[str] | list[Shown]:
        """Return what to show of a record: the lines of a sentence, or a row."""
        ts_ns = moment(record["ts"])
        account, event = record["account"], record["event"]
        if event.startswith("feed."):
            if event == "feed.live":
                self.learn(account, record["channel"])
            said = self._markers.sentence(record)
            return self.sentence(said, ts_ns, _MARKER_COLORS.get(event, DIM), account) if said else []
        if event == "unknown":
            self.shown["unknown"] += 1
            shown = record.get("data", b"").decode("utf-8", "replace") or record.get("data_base64", "")
            return self.sentence(f"unknown frame: {shown[:UNKNOWN_SHOWN]}", ts_ns, YELLOW, account, UNKNOWN)
        return self._item(record, event, ts_ns)

    def _item(self, record: EventDict, event: str, ts_ns: int) -> list[Shown]:
        fields, order_id = parse(record["data"]), record.get("order_id") or ""
        known = self._orders[record["account"], record["channel"]].known(order_id)
        row = self._row(record, event, fields)
        if not self._selection.shows("" if row.pair == "-" else row.pair, event, row.kind, row.status):
            self.hidden += 1
            return []
        mark = self._mark(record)
        if row.kind == "order" and mark == RECOVERED and known and record["type"] == "snapshot":
            # A snapshot writes some members in another way than updates do. Nothing that a row shows has changed.
            mark = OLD if row == _order(known, v2=event == "execution") else mark
        if mark != OLD:
            self.shown[row.kind] += 1
            self.recovered += mark == RECOVERED
        trade_id = record.get("exec_id") or value(fields, "ledger_id")
        happened_ns = event_ns(fields, opening=known is None or mark == OLD) or ts_ns
        if self._past:
            mark, ts_ns = LIVE, happened_ns
        return [Shown(row, mark, happened_ns, ts_ns, record["account"], order_id, trade_id)]

    def _mark(self, record: EventDict) -> str:
        """Return the mark of an item: was it recovered, or is it older than the tail or repeated by a snapshot?"""
        if record.get("type") == "backfill":
            return RECOVERED
        if record.get("type") != "snapshot":
            return LIVE
        begun = (record["account"], record["channel"]) in self._begun
        return RECOVERED if begun and not record.get("repeated") else OLD

    def _row(self, record: EventDict, event: str, fields: Fields) -> Row:
        """Return the row of an item. REST's objects have v1's fields on every channel."""
        backfill, v2 = record.get("type") == "backfill", event == "execution"
        if event == "trade" or (backfill and record.get("exec_id") is not None):
            return _fill(read_fill(record["data"]), Order(), "", v2)
        if event == "balance" or (backfill and record.get("order_id") is None):
            return _balance(fields)
        order = self._orders[record["account"], record["channel"]].apply(
            record["channel"], record.get("type", "update"), record.get("order_id"), record["data"],
            record.get("connection"),
        )  # fmt: skip
        executed = read_execution(record["data"]) if event == "execution" and not backfill else None
        if executed is not None:
            return _fill(executed, order, value(fields, "cum_qty"), v2)
        return _order(order, v2=v2)

    def _open_orders(self, account: str, channel: str) -> int | None:
        return len(self._orders[account, channel].open) if channel in ("openOrders", "executions") else None

    # -- lines

    def _head(self, now_ns: int) -> list[str]:
        """Return the lines that have to come before the next row: a new date, and a new heading."""
        lines, date = list[str](), self.zone.date(now_ns)
        if date != self._date:
            if self._date is not None:
                lines.append(self._paint(f"{'':{MARK}}{date}", DIM))
            self._date = date
        zone, width = self.zone.name(now_ns), self._layout.widths.get("time", 0) - MARK
        heading = self._layout.heading(f"time {zone}" if len(f"time {zone}") <= width else zone)
        if heading != self._heading or 0 < self._height <= self._since_heading:
            self._heading, self._since_heading = heading, 0
            lines.append(self._paint(heading, DIM))
        return lines

    def _adapt(self, rows: Sequence[Shown]) -> None:
        """Make the columns as wide as these rows need, if there is room."""
        grown = False
        for cells in map(Shown.cells, rows):
            for name in GROWING.keys() & cells.keys():
                wanted = STEP * -(-min(cell_width(cells[name]), GROWN) // STEP)
                if wanted > self._seen.get(name, 0):
                    self._seen |= dict.fromkeys(GROWING[name], wanted)
                    grown = True
        if grown:
            self._layout = Layout(self._layout.width, self._columns, self._seen)

    def _painted(self, shown: Shown) -> str:
        row, mark, widths = shown.row, shown.mark, self._layout.widths
        time = self.zone.clock(shown.happened_ns, shown.ts_ns, widths.get("time", 0) - MARK)
        cells = shown.cells() | {"time": f"{mark} {time}"}
        cells["id"] = shown.order_id if "trade" in widths else shown.trade_id or shown.order_id
        if widths.get("status", 0) < LONG_STATUS:
            cells["status"] = SHORT.get(word(row.status), row.status)
        if row.kind == "balance" and "filled" not in widths and not row.volume:
            cells["volume"] = row.filled
        pieces = self._layout.row(cells)
        if mark == OLD:
            return self._paint("".join(text for _, text in pieces), DIM)
        colors = {"time": GREEN if mark == RECOVERED else "", "id": DIM, "trade": DIM, "account": DIM}
        colors |= {name: _COLORS.get(word(text), "") for name, text in pieces if name in ("side", "status")}
        return "".join(self._paint(text, colors.get(name, "")) for name, text in pieces)

    def _paint(self, text: str, color: str) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._colors and color and text else text


def encoded(lines: Sequence[str]) -> bytes:
    """Return lines as they are written. A lone surrogate, which UTF-8 cannot carry, becomes an escape."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace")


def _order(order: Order, *, v2: bool) -> Row:
    pair, price = slashed(order.pair, v2=v2), order.shown_price
    return Row(
        "order", pair or "-", order.side or "-", order.kind or "-", price or "-", order.volume or "-",
        order.filled or "-", order.status or "-",
    )  # fmt: skip


def _fill(fill: Fill, order: Order, so_far: str, v2: bool) -> Row:
    """Return the row of a fill. ``so_far`` is the executed volume of its order; what the fill lacks is its order's."""
    pair = slashed(fill.pair or order.pair, v2=v2)
    side, kind = fill.side or order.side, fill.kind or order.kind
    return Row("trade", pair or "-", side or "-", kind or "-", fill.price or "-", fill.volume or "-", so_far, "trade")


def _balance(fields: Fields) -> Row:
    """Return the row of a ledger entry, or of a balance in a snapshot: that has no change."""
    asset, kind, change, balance = (value(fields, name) for name in ("asset", "type", "amount", "balance"))
    return Row("balance", asset or "-", "", kind, "", change, balance or "-", "balance")
