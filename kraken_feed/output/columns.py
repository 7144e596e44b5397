"""Lay out rows: which columns fit a terminal, where they stand, and what a row leaves out that does not fit.

No number is ever cut. Widths are in cells: a wide character takes two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..text import cell_width, displayed

MARK = 2  # cells of the mark before the time, blank included
TIME, LONG_TIME = 8, 12  # cells of 21:10:05, and with milliseconds
LONGEST = 40  # characters of a text that are shown; Kraken's longest, references, have 30
NARROWEST = 20  # cells; where a terminal has fewer, it wraps


class Column(NamedTuple):
    """One column: its heading, the cells that it needs, and those it takes if there is room.

    ``rank`` is the order in which columns are left out, the highest first.
    """

    heading: str
    need: int
    most: int
    rank: int
    right: bool = False


LONG_STATUS = 16  # cells of the longest status, partially_filled
NUMBERS = ("price", "volume", "filled", "change", "balance")
ESSENTIAL = 5  # columns up to this rank are left out only if there is no other way


def columns(accounts: Sequence[str] = (), channels: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return all columns, from left to right. Several accounts have one for the account, balances alone their own."""
    most = min(max(map(cell_width, (*accounts, "account"))), 16)
    account = Column("account", _distinct(accounts, most), most, -1)
    first = [Column("time", MARK + TIME, MARK + LONG_TIME, 3), *([account] if len(accounts) > 1 else [])]
    if set(channels) == {"balances"}:
        return (
            *first,
            Column("asset", 7, 11, 0),
            Column("type", 8, 17, 5),
            Column("change", 14, 18, 1, right=True),
            Column("balance", 14, 20, 2, right=True),
            Column("id", 19, 19, 8),
        )
    return (
        *first,
        Column("pair", 7, 11, 0),
        Column("side", 4, 4, 5),
        Column("type", 6, 17, 7),
        Column("price", 11, 13, 1, right=True),
        Column("volume", 10, 14, 2, right=True),
        Column("filled", 10, 14, 6, right=True),
        Column("status", 8, LONG_STATUS, 4),
        Column("id", 19, 19, 8),
        Column("trade", 19, 19, 9),
    )


def _distinct(names: Sequence[str], most: int) -> int:
    """Return to how many cells these names can be cut and still be told apart."""
    return next((width for width in range(4, most) if len({cut(name, width) for name in names}) == len(names)), most)


class Layout:
    """The columns that fit ``width`` cells. ``widths`` has the cells of each by heading, from left to right. ``gap``
    blanks are between two.

    ``seen`` are the widths of cells that have come: their columns need as much, up to their ``most``. So rows stay
    aligned, and a column is left out of all rows rather than of some.
    """

    def __init__(self, width: int, every: Sequence[Column], seen: Mapping[str, int] | None = None) -> None:
        self.width = max(width, NARROWEST)
        grown = every
        if seen:
            grown = [
                column._replace(need=min(max(column.need, seen.get(column.heading, 0)), column.most))
                for column in every
            ]
        # Rather than without an essential column, rows are closer, and then less aligned.
        for wanted, gap in ((grown, 2), (grown, 1), (every, 2), (every, 1)):
            chosen = _fitting(wanted, self.width, gap)
            if not any(column.rank <= ESSENTIAL for column in wanted if column not in chosen):
                break
        self.gap = gap
        self.widths = {column.heading: column.need for column in chosen}
        # A column gets all that it would take, or no more than it needs: half a time is of no use.
        for column in sorted(chosen, key=lambda column: column.rank):
            if column.most - column.need <= self.width - self._total():
                self.widths[column.heading] = column.most
        self._columns = chosen

    def _total(self) -> int:
        return sum(self.widths.values()) + self.gap * (len(self.widths) - 1)

    def heading(self, time: str) -> str:
        """Return the line with the headings; ``time`` is that of the first column."""
        texts = {name: name for name in self.widths} | {"time": f"{'':{MARK}}{time}"}
        if "trade" in texts:
            texts["id"] = "order"
        return "".join(text for _, text in self.row(texts))

    def row(self, cells: Mapping[str, str]) -> list[tuple[str, str]]:
        """Return the pieces of a row: the texts of its columns, each with its heading, and the blanks in between.

        A cell that is longer than its column moves those behind it. If the row does not fit then, its least important
        cells are left out.
        """
        texts = {name: self._text(name, cells.get(name, "")) for name in self.widths}
        kept = [column for column in self._columns if texts[column.heading]]
        pieces = list(self._placed(kept, texts, self.gap))
        while _length(pieces) > self.width:
            pieces = list(self._placed(kept, texts, 1))
            if _length(pieces) > self.width:
                kept.remove(max(kept, key=lambda column: column.rank))
        return pieces

    def _text(self, name: str, text: str) -> str:
        text = displayed(text)
        room = self.width // 2
        if name in NUMBERS:
            return text if cell_width(text) <= room else "…"
        if name == "account":
            room = self.widths[name]
        return cut(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…", room)

    def _placed(self, kept: Sequence[Column], texts: Mapping[str, str], gap: int) -> Iterator[tuple[str, str]]:
        """Yield the pieces of a row. Each cell is in its column, or as close to that as the cells before allow."""
        at = start = 0  # where the row ends so far, and where the column starts
        places = {}
        for name, width in self.widths.items():
            places[name] = start, start + width
            start += width + self.gap
        for column in kept:
            text = texts[column.heading]
            left, right = places[column.heading]
            place = right - cell_width(text) if column.right else left
            place = max(place, at + gap if at else 0)
            yield "", " " * (place - at)
            yield column.heading, text
            at = place + cell_width(text)


def _fitting(every: Sequence[Column], width: int, gap: int) -> list[Column]:
    chosen = list(every)
    while len(chosen) > 1 and sum(column.need for column in chosen) + gap * (len(chosen) - 1) > width:
        chosen.remove(max(chosen, key=lambda column: column.rank))
    return chosen


def _length(pieces: Sequence[tuple[str, str]]) -> int:
    return sum(cell_width(text) for _, text in pieces)


def cut(text: str, width: int) -> str:
    """Return the beginning of ``text`` that fits ``width`` cells, with an ellipsis where it was cut."""
    if cell_width(text) <= width:
        return text
    while text and cell_width(text) > width - 1:
        text = text[:-1]
    return f"{text}…"


def wrapped(text: str, width: int, indent: int) -> list[str]:
    """Return ``text`` in lines of at most ``width`` cells. They are broken at blanks behind the first ``indent`` cells,
    or within a word that is too long. All but the first begin with that many blanks."""
    width = max(width, NARROWEST)
    indent, lines = min(indent, width // 2), list[str]()
    while cell_width(text) > width:
        end = len(text)
        while cell_width(text[:end]) > width:
            end -= 1
        end = max(text.rfind(" ", indent + 1, end + 1), 0) or end
        lines.append(text[:end].rstrip())
        text = " " * indent + text[end:].lstrip()
    return [*lines, text]
