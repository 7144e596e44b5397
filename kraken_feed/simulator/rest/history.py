"""Show an account's history as REST knows it at a moment: lags, a key's span, bounds, and pages.

Sources: https://docs.kraken.com/api/docs/rest-api/get-open-orders , …/get-closed-orders , …/get-trade-history
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from msgspec import Struct

from ..access.key import Limits
from ..market.book import Book
from ..market.order import Entry, Order, Trade
from ..market.timeline import Timeline
from ..quirks.quirk import Quirks, draw, share

PAGE = 50
Row = TypeVar("Row")


class Span(Struct, frozen=True):
    """The bounds of a query: `start` is exclusive, `end` inclusive."""

    start: float | None = None
    end: float | None = None

    def holds(self, moment: float) -> bool:
        return (self.start is None or moment > self.start) and (self.end is None or moment <= self.end)


class Rows(Struct, Generic[Row], frozen=True):
    """The rows that answer a query, oldest first: `low` to `high` of a timeline."""

    timeline: Timeline[Row]
    low: int
    high: int

    def __len__(self) -> int:
        return self.high - self.low

    def page(self, offset: int, size: int) -> list[Row]:
        """Return the rows in a window of raw rows, newest first; skip the raw rows before it."""
        ends = self.timeline.ends
        bottom = ends[self.low - 1] if self.low else 0
        top = (ends[self.high - 1] if self.high else 0) - offset
        if len(self) == 0 or top <= bottom:
            return []
        first = bisect_right(ends, max(bottom, top - size), self.low, self.high)
        last = bisect_left(ends, top, self.low, self.high)
        return self.timeline.rows[first : last + 1][::-1]


class View(Struct, frozen=True):
    """The book as REST knows it: what happened later than `until` is not known yet.

    Rows outside the span that the key is limited to are left out silently: trades, entries, and orders by their end.
    Open orders do not count as history.
    """

    book: Book
    until: float
    limits: Limits
    late_orders: bool

    def order(self, order_id: str) -> Order | None:
        """Return the order's state, if the key may see it."""
        order = self._state(order_id)
        seen = order is None or order.closed is None or self.limits.shows(order.closed)
        return order if seen else None

    def _state(self, order_id: str) -> Order | None:
        """Return the order's state. One that is younger than the lag is shown as it was accepted, or not at all."""
        states = self.book.states.get(order_id)
        if states is None or (self.late_orders and states[0][0] > self.until):
            return None
        if states[-1][0] <= self.until and states[-1][1].status != "pending":
            return states[-1][1]
        known = [order for at, order in states if at <= self.until]
        if known and known[-1].status != "pending":
            return known[-1]
        fresh = [order for _, order in states if order.status in ("pending", "open") and not order.vol_exec]
        return fresh[-1]

    def open(self) -> list[Order]:
        """Return the orders that REST believes to be open, oldest first, also those whose end it does not know yet."""
        ended = self.book.ended
        late = ended.rows[ended.span(self.until, -math.inf, math.inf)[0] :] if self.until < math.inf else []
        states = [self._state(order.id) for order in (*self.book.open.values(), *late)]
        return sorted((order for order in states if order is not None and not order.terminal), key=opened)

    def ended(self, span: Span, by: str) -> Rows[Order]:
        """Return the orders that ended, selected by the time of their opening, of their end, or of either."""
        if by == "close":
            return self._rows(self.book.ended, span)
        timeline = self.book.ended
        low, high = self._span(timeline, Span(span.start))  # no order in the span ended before it
        rows = timeline.rows[low:high]
        if by == "open":
            found = Timeline[Order](opened)
            rows = [order for order in rows if span.holds(order.opened)]
        else:
            found = Timeline[Order](closed)
            rows = [order for order in rows if span.holds(order.opened) or span.holds(closed(order))]
        return collected(found, rows)

    def trades(self, span: Span) -> Rows[Trade]:
        return self._rows(self.book.fills, span)

    def trade(self, trade_id: str) -> Trade | None:
        trade = self.book.trades.get(trade_id)
        known = trade is not None and trade.at <= self.until and self.limits.shows(trade.at)
        return trade if known else None

    def entries(self, span: Span, aclass: str) -> Rows[Entry]:
        return self._rows(self.book.entries[aclass], span)

    def _rows(self, timeline: Timeline[Row], span: Span) -> Rows[Row]:
        return Rows(timeline, *self._span(timeline, span))

    def _span(self, timeline: Timeline[Row], span: Span) -> tuple[int, int]:
        last = min(self.until, self.limits.query_to or math.inf, math.inf if span.end is None else span.end)
        return timeline.span(-math.inf if span.start is None else span.start, self.limits.query_from, last)

    def moment(self, bound: str | None) -> float | None:
        """Return a bound as unix seconds: a number, the opening time of an order, or the time of a trade.

        Raises ValueError for anything else.
        """
        if bound is None:
            return None
        if bound in self.book.states:
            return self.book.order(bound).opened
        if bound in self.book.trades:
            return self.book.trades[bound].at
        if bound in self.book.entry_times:
            return self.book.entry_times[bound]
        return float(bound)


class Pager(Struct, frozen=True):
    """Cuts the history into pages: usually fifty rows each, newest first."""

    quirks: Quirks
    question: str  # the same query gets the same page
    now: float

    def cut(
        self, rows: Rows[Row], offset: int, ident: Callable[[Row], str], moment: Callable[[Row], float]
    ) -> list[Row]:
        """Return the rows of a page. It is empty only when no further row will be shown."""
        size = 1 + int(PAGE * draw("page", self.question)) if self.quirks.short_pages else PAGE
        while True:
            found = rows.page(offset, size)
            shown = [row for row in found if not self._withheld(ident(row), moment(row))]
            if shown or not found:
                return shown
            offset, size = offset + size, PAGE

    def _withheld(self, ident: str, at: float) -> bool:
        quirks = self.quirks
        over = quirks.withheld_s and self.now >= at + quirks.withheld_s
        return not over and share(quirks.withheld_rows, "withheld", ident)


def collected(timeline: Timeline[Row], rows: Iterable[Row]) -> Rows[Row]:
    """Put rows into a timeline of their own."""
    for row in rows:
        timeline.add(row)
    return Rows(timeline, 0, len(timeline.rows))


def opened(order: Order) -> float:
    return order.opened


def closed(order: Order) -> float:
    return order.closed or order.opened
