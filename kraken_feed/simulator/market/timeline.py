"""Keep rows in the order of their times, so that a page of a long history costs no more than one of a short history."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Row = TypeVar("Row")


@dataclass(eq=False, repr=False)
class Timeline(Generic[Row]):
    """Rows, oldest first; rows of the same time stay in the order in which they were added.

    A row can be the merger of several raw rows (`weigh`); `ends` counts the raw rows up to and with each row.
    """

    moment: Callable[[Row], float]
    weigh: Callable[[Row], int] = lambda row: 1
    rows: list[Row] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a row. Almost all come in order, so this is an append."""
        rows, at = self.rows, self.moment(row)
        if not rows or self.moment(rows[-1]) <= at:
            rows.append(row)
            self.ends.append((self.ends[-1] if self.ends else 0) + self.weigh(row))
            return
        place = bisect_right(rows, at, key=self.moment)
        insort(rows, row, key=self.moment)
        del self.ends[place:]
        for late in rows[place:]:
            self.ends.append((self.ends[-1] if self.ends else 0) + self.weigh(late))

    def span(self, after: float, first: float, last: float) -> tuple[int, int]:
        """Return the places of the rows later than `after`, not before `first` and not later than `last`."""
        low = max(bisect_right(self.rows, after, key=self.moment), bisect_left(self.rows, first, key=self.moment))
        return low, max(low, bisect_right(self.rows, last, key=self.moment))
