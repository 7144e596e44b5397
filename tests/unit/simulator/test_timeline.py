"""Rows by time: the places that bisection finds are those that a look at every row finds."""

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.simulator.market.timeline import Timeline
from kraken_feed.simulator.rest.history import Rows

Row = tuple[float, int]  # its time, and how many raw rows it stands for
rows = st.lists(st.tuples(st.integers(0, 20).map(float), st.integers(1, 3)), max_size=30)
bounds = st.integers(-1, 21).map(float)


def timeline(of: list[Row]) -> Timeline[Row]:
    made = Timeline[Row](lambda row: row[0], lambda row: row[1])
    for row in of:
        made.add(row)
    return made


@given(rows, bounds, bounds, bounds)
def test_a_span_holds_the_rows_within_its_bounds_in_order(
    given_rows: list[Row], after: float, first: float, last: float
) -> None:
    made = timeline(given_rows)
    low, high = made.span(after, first, last)
    wanted = [row for row in given_rows if after < row[0] and first <= row[0] <= last]
    assert made.rows[low:high] == sorted(wanted, key=lambda row: row[0])


@given(rows, bounds, bounds, st.integers(0, 70), st.integers(1, 50))
def test_a_page_holds_the_rows_of_its_raw_rows_newest_first(
    given_rows: list[Row], after: float, last: float, offset: int, size: int
) -> None:
    made = timeline(given_rows)
    span = Rows(made, *made.span(after, 0.0, last))
    raw = [place for place in reversed(range(span.low, span.high)) for _ in range(made.rows[place][1])]
    window = dict.fromkeys(raw[offset : offset + size])
    assert span.page(offset, size) == [made.rows[place] for place in window]
