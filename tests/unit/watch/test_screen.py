"""The screen as lines: what is on it at which size, what an outage makes of it, and nothing that drives a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from kraken_feed.telemetry.stats import Figures, OutageCounts
from kraken_feed.watch.model import Overview, Row
from kraken_feed.watch.screen import Painter, Said, View, allot, draw
from kraken_feed.watch.table import FLASH_NS, bar, cut

from ...support.cases import each
from ...support.figures import FIGURES, LOST, MAIN, V1
from ...support.repository import ROOT
from ...support.watch_models import BOTH, NOW_NS, crowd, figures, item, items, live, lost, overview, shown

PAGE = (ROOT / "docs" / "watch.md").read_text()
SIZES = [(80, 24), (160, 50), (40, 10), (20, 5), (1, 1)]
COLOR = re.compile(r"\x1b\[[0-9;]*m")
NASTY = "\x1b[2J\x9b31m\x07\x00\u202e\u200f\ud800[red]x[/red]\u0301e\u0301"


def busy() -> Overview:
    """A few orders and fills."""
    return overview("v2-executions-snapshot-mixed", "v2-executions-pending_new", "v2-executions-trade")


def painted(made: Overview, *, colors: bool = True, now_ns: int = NOW_NS, **options: Any) -> str:
    """What is written to the terminal for a screen."""
    view = View(made, (figures(),), options.get("notices", ()), options.get("width", 80), 24, now_ns)
    return "\n".join(Painter(colors=colors).paint(draw(view)))


def words(lines: Sequence[str], *wanted: str) -> list[str]:
    """The words of the one line that has these among them."""
    (line,) = [line for line in lines if set(wanted) <= set(line.split())]
    return line.split()


# ------------------------------------------------------------------------------------------------ what is on it


def test_an_order_and_its_fill_at_80_by_24() -> None:
    lines = shown(busy())
    order = ["100s", "ETH/USD", "sell", "limit", "3500.00", "1.00000000", "███░░░░░", "40%"]
    fill = ["09:05:30", "ETH/USD", "sell", "limit", "3500.00", "0.40000000", "1400.00000"]
    assert words(lines, "1.00000000") == order
    assert words(lines, "09:05:30") == fill
    assert "Open orders 2" in lines


def test_a_wide_screen_has_the_ids_the_cost_and_the_fee() -> None:
    lines = shown(busy(), 160, 50)
    assert {"OAAAAA-BBBBB-CCCCC3", "1400.00000", "partially_filled", "09:05:00"} <= set(words(lines, "1.00000000"))
    assert {"2.2400000000", "USD", "maker", "OAAAAA-BBBBB-CCCCC3"} <= set(words(lines, "TAAAAA-BBBBB-CCCCC9"))


def test_a_small_screen_has_what_matters_most() -> None:
    lines = shown(busy(), 40, 10)
    assert words(lines, "100s") == ["100s", "ETH/USD", "sell", "3500.00", "40%"]
    assert lines[1].startswith("main  live since 09:05:40")


@each(("width", "height"), SIZES)
def test_every_line_fits_the_screen_and_there_are_no_more_than_fit(width: int, height: int) -> None:
    notices = [Said(NOW_NS, "warning", "x" * 500)] * 3
    lines = shown(busy(), width, height, notices=notices)
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


@given(
    width=st.integers(1, 250),
    height=st.integers(1, 80),
    count=st.integers(0, 100),
    accounts=st.lists(FIGURES, max_size=4, unique_by=lambda one: one.account).map(tuple),
    said=st.text(max_size=300),
)
def test_any_screen_of_any_figures_fits(
    width: int, height: int, count: int, accounts: tuple[Figures, ...], said: str
) -> None:
    made = Overview(["openOrders", "ownTrades"])
    for account in accounts:
        for record in crowd(count, account.account):
            made.take(record, NOW_NS)
    lines = shown(made, width, height, accounts=accounts, notices=[Said(NOW_NS, "error", said)])
    assert len(lines) == height
    assert max(map(cell_len, lines)) <= width


def test_the_same_input_makes_the_same_screen() -> None:
    assert painted(busy()) == painted(busy())


# ------------------------------------------------------------------------------------------------ many orders


def test_of_500_orders_as_many_as_fit_are_shown_and_the_rest_are_counted() -> None:
    made = Overview(["openOrders"])
    for record in crowd(500):
        made.take(record, NOW_NS)
    made.take(live("openOrders"), NOW_NS)
    lines = shown(made, accounts=[figures(channel="openOrders")])
    rows = [line for line in lines if "61000.00000" in line]
    assert "Open orders 500" in lines
    assert f"+ {500 - len(rows)} more" in lines
    assert len(rows) > 8


def test_only_what_is_shown_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture costs what is on it, not what is open."""
    made = Overview(["openOrders"])
    asked: list[int] = []
    for record in crowd(500):
        made.take(record, NOW_NS)
    rows = made.rows

    def counted(account: str, most: int) -> list[Row]:
        asked.append(most)
        return rows(account, most)

    monkeypatch.setattr(made, "rows", counted)
    shown(made, 80, 24)
    assert asked
    assert sum(asked) <= 24


def test_every_account_has_its_orders_and_little_room_is_shared() -> None:
    made, names = Overview(["openOrders"]), ("main", "treasury", "desk")
    for name, count in zip(names, (500, 2, 0), strict=True):
        for record in crowd(count, name):
            made.take(record, NOW_NS)
        made.take(live("openOrders", account=name), NOW_NS)
    lines = shown(made, accounts=[figures(name, channel="openOrders") for name in names])
    assert [line for line in lines if re.fullmatch(r"(main|treasury|desk): \d+", line)] == [
        "main: 500", "treasury: 2", "desk: 0",
    ]  # fmt: skip
    after = lines[lines.index("treasury: 2") + 1 :]
    assert all("61000.00000" in line for line in after[:2])
    assert lines[lines.index("treasury: 2") - 1].startswith("+ 49")


def test_more_accounts_than_lines_are_counted() -> None:
    names = [f"account-{number}" for number in range(60)]
    downs = [figures(name, down=name == "account-59") for name in names]
    lines = shown(Overview(["executions"]), accounts=downs)
    assert any(re.fullmatch(r"\+ \d+ more accounts", line) for line in lines)
    assert any(re.fullmatch(r"\+ \d+ more, all live", line) for line in lines)
    assert lines[1].startswith("account-59")


@given(needs=st.lists(st.integers(0, 600), max_size=8), room=st.integers(-3, 100))
def test_room_is_shared_without_waste(needs: list[int], room: int) -> None:
    given_ = allot(needs, room)
    assert sum(given_) == min(max(room, 0), sum(needs))
    assert all(0 <= got <= need for got, need in zip(given_, needs, strict=True))
    short = [got for got, need in zip(given_, needs, strict=True) if got < need]
    assert all(got <= min(short) + 1 for got in given_ if short)


# ------------------------------------------------------------------------------------------------ the state of the feed


def test_a_live_feed_says_since_when_and_what_befell_it() -> None:
    line = shown(busy())[1]
    assert line == "main  live since 09:05:40 (60s)  frame 0.5s  2 reconnects  2 outages  1 gap  ex…"


def test_an_outage_is_said_with_its_cause_and_what_was_known_is_marked_as_of_then() -> None:
    made = busy()
    made.take(lost("executions"), NOW_NS)
    lines = shown(made, accounts=[figures(down=True)])
    assert lines[1].startswith("main  down since 09:06:27 (12s): silence  attempt 4 in 4.4s")
    assert "Open orders 2  as of 09:06:38" in lines
    assert words(lines, "1.00000000")[1] == "ETH/USD"


def test_what_is_stale_is_dimmed() -> None:
    made = busy()
    (before,) = [line for line in painted(made, now_ns=NOW_NS + FLASH_NS).split("\n") if "1.00000000" in line]
    made.take(lost("executions"), NOW_NS)
    (after,) = [line for line in painted(made, now_ns=NOW_NS + FLASH_NS).split("\n") if "1.00000000" in line]
    assert "\x1b[2m" not in before
    assert after.count("\x1b[2") >= 7


def test_before_the_snapshot_it_says_that_it_waits() -> None:
    connecting = msgspec.structs.replace(LOST, cause="", down_s=0.7, channels=("executions",))
    account = msgspec.structs.replace(figures(), endpoints=(connecting,))
    lines = shown(Overview(["executions"]), accounts=[account])
    assert lines[1].startswith("main  connecting (0.7s)")
    assert "Open orders 0  waiting for the snapshot" in lines


def test_each_connection_of_an_account_has_a_line_and_what_is_the_accounts_is_said_once() -> None:
    lines = shown(busy(), 160, 50, accounts=[BOTH])
    assert [line.split("  ")[0] for line in lines[1:3]] == ["main v1", "main v2"]
    assert ["reconnects" in line for line in lines[1:3]] == [True, False]


def test_an_account_that_stopped_says_why() -> None:
    stopped = msgspec.structs.replace(figures(), stopped="error: Kraken refused the API key")
    assert shown(busy(), accounts=[stopped])[1].startswith("main  stopped: error: Kraken refused the API key")


def test_open_outages_are_counted() -> None:
    account = msgspec.structs.replace(figures(), outages=OutageCounts(2, 1, 0, 1))
    assert "2 outages (1 open)" in shown(busy(), accounts=[account])[1]


def test_the_last_warning_is_on_the_last_line_and_a_tall_screen_has_three() -> None:
    notices = [Said(NOW_NS, "warning", f"warning_{number}") for number in (1, 2, 3)]
    assert shown(busy(), notices=notices)[-1] == "09:06:40 warning_3"
    assert [line[9:] for line in shown(busy(), 160, 50, notices=notices)[-3:]] == [
        "warning_1",
        "warning_2",
        "warning_3",
    ]


def test_only_fills_are_shown_where_no_channel_has_orders() -> None:
    made = overview("v1-ownTrades-snapshot", channels=["ownTrades"])
    lines = shown(made, accounts=[figures(channel="ownTrades")])
    assert "Last fills" in lines
    assert not any("Open orders" in line for line in lines)


# ------------------------------------------------------------------------------------------------ flashing


def test_a_cell_that_changed_flashes_and_then_does_not() -> None:
    made = overview("v1-openOrders-snapshot-one", channels=["openOrders"], now_ns=NOW_NS - 10 * FLASH_NS)
    (one,) = items("v1-openOrders-snapshot-one")
    made.take(item("openOrders", b'{"vol_exec":"0.05000000"}', one.order_id), NOW_NS)

    def reversed_(now_ns: int) -> list[str]:
        return re.findall(r"\x1b\[[0-9;]*7m([^\x1b]*)\x1b", painted(made, now_ns=now_ns).partition("Last fills")[0])

    assert [text.split() for text in reversed_(NOW_NS + FLASH_NS - 1)] == [["██░░░░░░", "20%"]]
    assert reversed_(NOW_NS + FLASH_NS) == []
    assert reversed_(NOW_NS - 1) == []  # a clock that was put back


def test_what_was_there_when_the_watch_began_does_not_flash() -> None:
    assert "7m" not in painted(overview("v2-executions-snapshot-mixed"))


def test_no_color_leaves_emphasis_only() -> None:
    plain, colored = painted(busy(), colors=False), painted(busy())
    codes = {code for found in re.findall(r"\x1b\[([0-9;]*)m", plain) for code in found.split(";")}
    assert codes <= {"0", "1", "2", "7"}
    assert "7" in codes
    assert re.search(r"\x1b\[[0-9;]*3[0-7]m", colored)
    assert COLOR.sub("", plain) == COLOR.sub("", colored)


# ------------------------------------------------------------------------------------------------ the exchange's words


def _texts(found: Any, nasty: str) -> Any:
    """The same JSON with every text made nasty, and every number left."""
    match found:
        case dict():
            return {key: _texts(value, nasty) for key, value in found.items()}
        case list():
            return [_texts(value, nasty) for value in found]
        case str():
            return nasty + found
    return found


@each("nasty", [NASTY, "\x1b[2J\x07[red]x[/red]"])
@each("name", ["v1-openOrders-delta-new", "v1-ownTrades-update", "v2-executions-pending_new", "v2-executions-trade"])
def test_nothing_that_the_exchange_sends_drives_the_terminal(name: str, nasty: str) -> None:
    (record,) = items(name)
    made = Overview([record.channel])
    for kind in ("trade", "new"):
        fields = _texts(json.loads(record.data), nasty) | {"exec_type": kind}
        made.take(
            msgspec.structs.replace(
                record,
                data=json.dumps(fields).encode(),
                order_id=nasty,
                exec_id=f"T{nasty}" if kind == "trade" else None,
            ),
            NOW_NS,
        )
    endpoints = (
        msgspec.structs.replace(LOST, cause=nasty),
        msgspec.structs.replace(V1, engine=nasty),
    )
    accounts = [
        msgspec.structs.replace(MAIN, endpoints=endpoints),
        msgspec.structs.replace(MAIN, account="other", stopped=nasty),
    ]
    view = View(made, accounts, [Said(NOW_NS, "error", nasty)], 300, 50, NOW_NS)
    left = COLOR.sub("", "\n".join(Painter(colors=True).paint(draw(view))))
    assert [c for c in left if c != "\n" and not c.isprintable()] == []
    assert "\u0301" not in left
    assert left.count(r"\x1b[2J") > 4  # the cause, the engine, the stop, the warning, and some cells
    assert "[red]x[/red]" in left


def test_a_wide_character_takes_two_cells() -> None:
    made = Overview(["openOrders"])
    for record in crowd(2):
        pair = b"XBT/USD" if record.order_id == "O00000-BBBBB-CCCCCC" else "日本円日本円日本円".encode()
        made.take(msgspec.structs.replace(record, data=record.data.replace(b"XBT/USD", pair)), NOW_NS)
    one, other = [line.partition("buy")[0] for line in shown(made) if "buy" in line]
    assert cell_len(one) == cell_len(other)
    assert "日本円日本円 … " in one + other  # nobody can cut one in half
    assert cell_len(cut("日本円", 4)) == 4


@each(
    ("filled", "volume", "expected"),
    [
        ("0", "1", "░░░░░░░░   0%"),
        ("0.004", "1", "█░░░░░░░  <1%"),
        ("0.5", "1.00", "████░░░░  50%"),
        ("0.999", "1", "███████░ >99%"),
        ("1.0", "1", "████████ 100%"),
        ("2", "1", "████████ 100%"),
        ("", "1", "░░░░░░░░   0%"),
        ("1", "", ""),
        ("1", "0", ""),
        ("NaN", "1", ""),
        ("1e999999", "1", "████████ 100%"),
        ("x", "1", ""),
    ],
)
def test_a_bar_is_full_only_if_all_is_filled_and_empty_only_if_nothing_is(
    filled: str, volume: str, expected: str
) -> None:
    assert bar(filled, volume, 13) == expected
    assert bar(filled, volume, 4) == expected[9:].strip()


def test_a_number_that_is_too_long_loses_zeros_before_it_is_cut() -> None:
    assert cut("0.25000000", 6, right=True) == "  0.25"
    assert cut("1234567.25000000", 6, right=True) == "12345…"
    assert cut("abc", 2) == "a…"
    assert cut("abc", 1) == "…"
    assert cut("abc", 0) == ""


# ------------------------------------------------------------------------------------------------ the page


def test_the_screen_of_the_page_is_one_that_is_drawn() -> None:
    made = overview("v2-executions-snapshot-mixed", "v2-executions-pending_new", "v2-executions-trade")
    for name in ("v2-executions-pending_new-triggers", "v2-executions-pending_new-cash"):
        for record in items(name):
            made.take(record, NOW_NS)
    said = [Said(NOW_NS - 70 * 10**9, "warning", "connection_lost cause=closed retry_in=0.413")]
    whole = [line for line in shown(made, notices=said) if line]
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.S)
    assert [line for line in block.splitlines() if line] == whole
