"""Define the columns of the tables on the screen: which ones fit, how wide they are, and their texts.

Only the terminal's width decides which columns are shown, not their content, so that no column comes and goes. Texts
of Kraken are escaped, and cut by their width in cells; markup is not interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, DecimalException
from typing import Generic, NamedTuple, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from ..records.render import timestamp
from ..records.view import nonzero
from ..telemetry.status import span
from ..text import displayed
from .model import Deal, Row

FLASH_NS = 1_500_000_000  # long enough to be seen from the corner of an eye
GAP = 2  # cells between two columns
LONGEST = 200  # characters of a text that are read
BAR = 8  # cells of a full bar
SIDES = {"buy": "green", "sell": "red"}

T = TypeVar("T")


class Column(NamedTuple, Generic[T]):
    """One column of a table.

    ``cell`` returns its text for an item, from the time and the width. ``need`` is its minimum width, ``most`` its
    maximum. ``order`` is the order in which columns are left out, the highest first. ``fields`` are an order's fields
    that make it flash.
    """

    heading: str
    cell: Callable[[T, int, int], str]
    need: int
    most: int
    order: int
    right: bool = False
    fields: tuple[str, ...] = ()


Widths = Sequence[tuple[Column[T], int]]


# ------------------------------------------------------------------------------------------------ which ones, how wide


def fitted(columns: Sequence[Column[T]], items: Sequence[T], width: int, now_ns: int) -> list[tuple[Column[T], int]]:
    """Return the columns that fit, with their widths. Each gets what it needs; the rest goes to longer texts."""
    chosen = list(columns)
    while len(chosen) > 1 and _total([column.need for column in chosen]) > width:
        chosen.remove(max(chosen, key=lambda column: column.order))
    widths = [min(column.need, width) for column in chosen]
    for column in sorted(chosen, key=lambda column: column.order):
        index = chosen.index(column)
        wanted = max((cell_len(plain(column.cell(item, now_ns, column.most))) for item in items), default=0)
        spare = max(0, width - _total(widths))
        widths[index] += min(spare, max(0, min(wanted, column.most) - widths[index]))
    return list(zip(chosen, widths, strict=True))


def heading(widths: Widths[T]) -> Text:
    cells = [cut(column.heading, width, right=column.right) for column, width in widths]
    return Text((" " * GAP).join(cells), style="dim", no_wrap=True)


def line(widths: Widths[T], item: T, now_ns: int, style: Callable[[T, Column[T]], str]) -> Text:
    text = Text(no_wrap=True)
    for column, width in widths:
        if text:
            text.append(" " * GAP)
        cell = plain(column.cell(item, now_ns, width)) or "-"
        text.append(cut(cell, width, right=column.right), style=style(item, column))
    return text


def cut(text: str, width: int, *, right: bool = False) -> str:
    """Return ``text`` in exactly ``width`` cells, with an ellipsis where it was cut. A number loses zeros first."""
    size = cell_len(text)
    if size > width and right and "." in text:
        text = text.rstrip("0").rstrip(".")
        size = cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…" if width > 1 else "…"[:width]
    return " " * (width - size) + text if right else text + " " * (width - size)


def plain(text: str) -> str:
    """Return ``text`` without characters that a terminal would interpret."""
    return displayed(text[:LONGEST])


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


# ------------------------------------------------------------------------------------------------ their texts


def clock(unix_ns: int, now_ns: int) -> str:
    """Return the time of day in UTC, or the date if it is not today's; empty if the time is not known."""
    if not unix_ns:
        return ""
    date, _, time = timestamp(unix_ns).partition("T")
    return time[:8] if date == timestamp(now_ns)[:10] else date


def age(unix_ns: int, now_ns: int) -> str:
    """Return how long ago a time was. Kraken's clock may be ahead of ours."""
    return span(max(0, now_ns - unix_ns) / 1e9) if unix_ns else ""


def share(filled: str, volume: str) -> float | None:
    """Return the filled part, from 0 to 1; None if it is unknown."""
    try:
        done, all_ = Decimal(filled or "0"), Decimal(volume)
        return float(min(max(done / all_, Decimal(0)), Decimal(1)))
    except DecimalException:
        return None


def bar(filled: str, volume: str, width: int) -> str:
    """Return a bar and the percentage, or only the percentage if there is no room. 0 % and 100 % are exact."""
    part = share(filled, volume)
    if part is None:
        return ""
    percent = "<1%" if 0 < part < 0.01 else ">99%" if 0.99 < part < 1 else f"{part * 100:.0f}%"
    if width < BAR + 5:
        return percent
    full = min(max(round(part * BAR), int(part > 0)), BAR - int(part < 1))
    return "█" * full + "░" * (BAR - full) + percent.rjust(5)


def flashes(row: Row, column: Column[Row], now_ns: int) -> bool:
    """Return whether the cell has just changed."""
    return any(0 <= now_ns - row.changed.get(name, -FLASH_NS) < FLASH_NS for name in column.fields)


def _of_order(heading: str, field: str, need: int, most: int, order: int, *, right: bool = False) -> Column[Row]:
    return Column(heading, lambda row, *_: getattr(row.order, field), need, most, order, right, (field,))


def order_columns(width: int) -> list[Column[Row]]:
    bar_width = BAR + 5 if width >= 60 else 4
    return [
        Column("age", lambda row, now, _: age(row.opened_ns, now), 4, 4, 5, right=True, fields=("opened",)),
        _of_order("pair", "pair", 8, 14, 1),
        _of_order("side", "side", 4, 4, 2),
        _of_order("type", "kind", 6, 19, 7),
        Column("price", lambda row, *_: row.order.shown_price, 10, 16, 3, right=True, fields=("price",)),
        _of_order("volume", "volume", 11, 20, 6, right=True),
        Column(
            "filled", lambda row, _, w: bar(row.order.filled, row.order.volume, w), bar_width, bar_width, 4,
            right=True, fields=("filled",),
        ),
        _of_order("executed", "filled", 11, 20, 10, right=True),
        Column("average", lambda row, *_: nonzero(row.order.average), 10, 16, 11, right=True, fields=("average",)),
        Column("cost", lambda row, *_: nonzero(row.order.cost), 11, 20, 12, right=True, fields=("cost",)),
        _of_order("status", "status", 16, 16, 9),
        Column("opened", lambda row, now, _: clock(row.opened_ns, now), 10, 10, 13, fields=("opened",)),
        Column("order", lambda row, *_: row.order_id, 19, 19, 8),
    ]  # fmt: skip


def _of_fill(heading: str, field: str, need: int, most: int, order: int, *, right: bool = False) -> Column[Deal]:
    return Column(heading, lambda deal, *_: getattr(deal.fill, field), need, most, order, right)


def deal_columns(several: bool) -> list[Column[Deal]]:
    """Return the columns of the last fills, with the account if there are several."""
    account: Column[Deal] = Column("account", lambda deal, *_: deal.account, 8, 16, 5)
    return [
        Column("time", lambda deal, now, _: clock(deal.time_ns, now), 8, 10, 4),
        *([account] if several else []),
        _of_fill("pair", "pair", 8, 14, 1),
        _of_fill("side", "side", 4, 4, 2),
        _of_fill("type", "kind", 6, 19, 8),
        _of_fill("price", "price", 10, 16, 3, right=True),
        _of_fill("volume", "volume", 11, 20, 6, right=True),
        _of_fill("cost", "cost", 12, 20, 7, right=True),
        _of_fill("fee", "fee", 14, 24, 10, right=True),
        _of_fill("role", "role", 5, 5, 11),
        _of_fill("order", "order_id", 19, 19, 9),
        Column("trade", lambda deal, *_: deal.name if deal.name.startswith("T") else "", 19, 19, 12),
    ]
