"""The line that says how far a query has come: it fits any terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.query.progress import Progress, line

from ...support.cases import each

AT = 1_760_000_000_000_000_000
WAITING = Progress("fills", 12_345, AT, 107.2, "call counter")


@given(
    st.builds(
        Progress,
        st.sampled_from(["", "key", "orders", "ledger"]),
        st.integers(0, 10**12),
        st.none() | st.integers(0, 1 << 62),
        st.none() | st.floats(0, 1e6),
        st.text(),
    ),
    st.integers(1, 300),
)
def test_it_is_one_line_that_fits(progress: Progress, columns: int) -> None:
    text = line(progress, 100.0, columns)
    assert len(text) < columns
    assert text.isprintable()


WIDTHS = {
    160: "fills: 12,345 rows, back to 2025-10-09 08:53 UTC, waits 8 s (call counter)",
    80: "fills: 12,345 rows, back to 2025-10-09 08:53 UTC, waits 8 s (call counter)",
    70: "12,345 rows, back to 2025-10-09 08:53, waits 8 s (call counter)",
    60: "12,345 rows, back to 2025-10-09, waits 8 s",
    40: "12,345 rows, 2025-10-09, waits 8 s",
    20: "12,345 rows, 2025-1",
}


@each(("columns", "text"), WIDTHS.items())
def test_what_matters_least_is_left_out_first(columns: int, text: str) -> None:
    assert line(WAITING, 100.0, columns) == text


def test_a_wait_that_is_over_is_not_shown() -> None:
    assert line(WAITING, 200.0, 80) == "fills: 12,345 rows, back to 2025-10-09 08:53 UTC"


def test_nothing_is_known_at_first() -> None:
    assert line(Progress(), 0.0, 80) == "0 rows"
    assert line(Progress(rows=1), 0.0, 80) == "1 row"
