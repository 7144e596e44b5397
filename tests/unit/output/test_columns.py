"""Rows fit every terminal: no row is wider than it, no number is cut, and what matters most stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.output.columns import NARROWEST, NUMBERS, Layout, columns, cut, wrapped
from kraken_feed.text import cell_width

from ...support.cases import each

WIDTHS = st.integers(60, 200)
ACCOUNTS = st.sampled_from([(), ("main", "treasury"), ("desk-1", "desk-2", "a-very-long-name-of-an-account")])
CHANNELS = st.sampled_from([("openOrders",), ("balances",)])
DIGITS = st.from_regex(r"-?[0-9]{1,12}(\.[0-9]{1,16})?(e-[0-9]{1,2})?", fullmatch=True)
TEXTS = st.sampled_from(["", "-", "trailing-stop-limit", "partially_filled", "比特币/USD", "x" * 200, "\x1b[2J\u0301"])
HEADINGS = ["time", "account", "pair", "side", "type", "price", "volume", "filled", "status", "id", "trade"]
HEADINGS += ["asset", "change", "balance"]
CELLS = st.fixed_dictionaries({name: DIGITS if name in NUMBERS else TEXTS | st.text(max_size=30) for name in HEADINGS})
SEEN = st.dictionaries(st.sampled_from(HEADINGS), st.integers(0, 40))


def row(layout: Layout, **cells: str) -> str:
    return "".join(text for _, text in layout.row(cells))


@given(WIDTHS, ACCOUNTS, CHANNELS, CELLS, SEEN)
def test_no_row_is_wider_than_the_terminal(
    width: int, accounts: tuple[str, ...], channels: tuple[str, ...], cells: dict[str, str], seen: dict[str, int]
) -> None:
    layout = Layout(width, columns(accounts, channels), seen)
    assert cell_width(row(layout, **cells)) <= width
    assert cell_width(layout.heading("UTC+5:30")) <= width
    assert row(layout, **cells).isprintable()


@given(WIDTHS, ACCOUNTS, CHANNELS, CELLS, SEEN)
def test_no_number_is_cut(
    width: int, accounts: tuple[str, ...], channels: tuple[str, ...], cells: dict[str, str], seen: dict[str, int]
) -> None:
    for name, text in Layout(width, columns(accounts, channels), seen).row(cells):
        if name in NUMBERS:
            assert text in (cells[name], "…")
            assert text == cells[name] or len(cells[name]) > width // 2


@given(WIDTHS, CELLS)
def test_cells_are_apart_from_each_other(width: int, cells: dict[str, str]) -> None:
    pieces = Layout(width, columns()).row(cells)
    for (_, blanks), (name, text) in zip(pieces[2::2], pieces[3::2], strict=True):
        assert name
        assert text
        assert blanks.strip() == ""
        assert blanks


@each("width", range(60, 201))
def test_usual_rows_have_everything_that_matters_at_every_width(width: int) -> None:
    usual = {
        "time": "  21:10:05", "pair": "XBT/USD", "side": "sell", "price": "60372.70000", "volume": "0.00090000",
        "status": "canceled",
    }  # fmt: skip
    assert row(Layout(width, columns()), **usual).split() == [text.strip() for text in usual.values()]
    wide = usual | {"price": "120372.70000", "volume": "166.11430000"}
    seen = {"price": 12, "volume": 12, "filled": 12}
    assert row(Layout(width, columns(), seen), **wide).split() == [text.strip() for text in wide.values()]


@each("width", range(60, 201))
def test_columns_are_aligned_over_rows(width: int) -> None:
    layout = Layout(width, columns())
    starts = set()
    for number in ("1.0", "0.25000000", "60372.7000"):
        text = row(layout, time="  21:10:05", pair="XBT/USD", side="buy", price=number, volume=number, status="open")
        starts.add(text.index("open"))
    assert len(starts) == 1


@each(("accounts", "width"), [(("main", "alt"), 60), (("main", "treasury"), 60), (("desk-eu", "desk-us"), 64)])
def test_accounts_are_told_apart_where_they_are_cut(accounts: tuple[str, ...], width: int) -> None:
    layout = Layout(width, columns(accounts))
    assert {"account", "side", "status"} <= layout.widths.keys()
    assert len({cut(name, layout.widths["account"]) for name in accounts}) == len(accounts)


@given(st.integers(-5, 59), CELLS)
def test_below_60_columns_rows_are_still_no_wider(width: int, cells: dict[str, str]) -> None:
    assert cell_width(row(Layout(width, columns()), **cells)) <= max(width, NARROWEST)


@each(
    ("width", "most"),
    [(60, "status"), (80, "type"), (101, "id"), (122, "trade")],
)
def test_wider_terminals_have_more_columns(width: int, most: str) -> None:
    assert most in Layout(width, columns()).widths
    assert most == "status" or most not in Layout(width - 5, columns()).widths


def test_what_has_come_makes_columns_wider_and_leaves_out_the_least_important() -> None:
    seen = {"volume": 12, "filled": 12}
    assert "type" in Layout(80, columns()).widths
    layout = Layout(80, columns(), seen)
    assert "type" not in layout.widths
    assert layout.widths["volume"] >= 12
    assert {"side", "status", "filled"} <= layout.widths.keys()


# ------------------------------------------------------------------------------------------------ sentences


@given(st.text(st.characters(exclude_categories=["C", "M"]), max_size=300), WIDTHS, st.integers(0, 40))
def test_a_sentence_is_wrapped_and_complete(text: str, width: int, indent: int) -> None:
    lines = wrapped(text, width, indent)
    assert max(map(cell_width, lines)) <= width
    assert "".join("".join(lines).split()) == "".join(text.split())


def test_a_sentence_is_broken_at_blanks() -> None:
    text = "* 21:10:05  lost: openOrders, ownTrades; connection closed: 1001"
    assert wrapped(text, 60, 12) == [text.removesuffix(" 1001"), f"{'':12}1001"]
