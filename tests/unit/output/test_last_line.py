"""The line below the rows, and the row at the end: what they say, and that they fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kraken_feed.output.last_line import NO_LINE, last_line, summary
from kraken_feed.output.zone import NS, Zone
from kraken_feed.telemetry.causes import STOP_REASONS
from kraken_feed.telemetry.stats import EndpointFigures, Figures, OutageCounts
from kraken_feed.text import cell_width

from ...support.cases import each
from ...support.figures import FIGURES, LOST, MAIN, V1, V2

NOW_NS = 1_795_262_400 * NS  # 2026-11-21T12:00:00Z
LIVE = replace(V1, live_s=3600.0, last_frame_s=0.4)
WELL = replace(MAIN, endpoints=(LIVE,), outages=OutageCounts(0, 0, 0, 0))
CONNECTING = replace(V1, live=False, live_s=None, down_s=0.4, last_frame_s=None, attempts=1, cause="", engine=None)
BEGINNING = replace(WELL, records={}, endpoints=(CONNECTING,))


def line(*accounts: Figures, width: int = 120) -> str:
    return last_line(accounts, NOW_NS, Zone(), width).text.strip()


def down(endpoint: EndpointFigures = LOST, **changes: object) -> Figures:
    return replace(WELL, endpoints=(replace(endpoint, **changes),))


@each(
    ("account", "said"),
    [
        (WELL, "live since 11:00:00 | 3 open orders | last frame 11:59:59 | Ctrl-C stops"),
        (replace(WELL, open_orders={}), "live since 11:00:00 | last frame 11:59:59 | Ctrl-C stops"),
        (
            replace(WELL, endpoints=(replace(LIVE, engine="post_only", late_s=40.0),), open_orders={}),
            "live since 11:00:00 | engine post_only | records may be 40s late | last frame 11:59:59 | Ctrl-C stops",
        ),
        (
            replace(WELL, outages=OutageCounts(2, 0, 0, 2), open_orders={"openOrders": 1}),
            "live since 11:00:00 | recovering 2 outages | 1 open order | last frame 11:59:59 | Ctrl-C stops",
        ),
        (down(), "down 12s | attempt 4 in 5s | no data | Ctrl-C stops"),
        (down(retry_s=None), "down 12s | attempt 3 now | no data | Ctrl-C stops"),
        (down(retry_s=0.0, down_s=4000.0, cause="token"), "down 1h 6m | attempt 4 now | no token | Ctrl-C stops"),
        (down(refused="key", retry_s=240.0), "down 12s | attempt 4 in 4m 0s | Kraken refused the key | Ctrl-C stops"),
        (BEGINNING, "connecting, 0s | Ctrl-C stops"),
        (
            replace(BEGINNING, endpoints=(replace(CONNECTING, cause="token", attempts=2, retry_s=1.1),)),
            "not live yet, 0s | attempt 3 in 2s | no token | Ctrl-C stops",
        ),
        (
            replace(WELL, endpoints=(LOST, V2)),
            "openOrders,ownTrades down 12s | attempt 4 in 5s | no data | 1 of 2 connections live | Ctrl-C stops",
        ),
    ],
)  # fmt: skip
def test_the_line_of_one_account(account: Figures, said: str) -> None:
    assert line(account) == said


def test_the_line_of_several_accounts_names_the_one_that_is_down() -> None:
    other = replace(WELL, account="treasury")
    assert line(WELL, other) == "2 accounts live since 11:00:00 | 6 open orders | last frame 11:59:59 | Ctrl-C stops"
    lost = replace(other, endpoints=(LOST,))
    assert line(WELL, lost) == (
        "treasury down 12s | attempt 4 in 5s | no data | 1 of 2 connections live | Ctrl-C stops"
    )
    stopped = replace(other, stopped="error: x")
    assert line(WELL, stopped) == (
        "1 account live since 11:00:00 | 3 open orders | last frame 11:59:59 | treasury has stopped | Ctrl-C stops"
    )


def test_there_is_no_line_when_nothing_runs() -> None:
    assert last_line([], NOW_NS, Zone(), 80) == NO_LINE
    assert last_line([replace(WELL, stopped="SIGTERM")], NOW_NS, Zone(), 80) == NO_LINE


def test_an_outage_is_an_alarm() -> None:
    assert not last_line([WELL], NOW_NS, Zone(), 80).alarm
    assert last_line([down()], NOW_NS, Zone(), 80).alarm


@each(
    ("account", "width", "said"),
    [
        (WELL, 59, "live 11:00:00 | 3 open | frame 11:59:59 | Ctrl-C stops"),
        (WELL, 79, "live since 11:00:00 | 3 open orders | last frame 11:59:59 | Ctrl-C stops"),
        (down(cause="upgrade"), 59, "down 12s | attempt 4 in 5s | refused by Kraken"),
        (down(cause="no_ack"), 40, "down 12s | attempt 4 in 5s"),
    ],
)
def test_narrow_terminals_have_the_most_important_parts(account: Figures, width: int, said: str) -> None:
    assert line(account, width=width) == said


@given(st.lists(FIGURES, max_size=4), st.integers(0, 2**62), st.integers(10, 200))
def test_any_line_fits_and_drives_no_terminal(accounts: list[Figures], now_ns: int, width: int) -> None:
    text = last_line(accounts, now_ns, Zone(), width).text
    assert cell_width(text) <= width
    assert text.isprintable()


@each(
    ("reason", "seconds", "shown", "recovered", "hidden", "said"),
    [
        (
            "SIGINT", 312.0, {"order": 29, "trade": 12}, 3, 0,
            "stopped by Ctrl-C after 5m 12s; 29 order changes, 12 trades (3 recovered); 2 reconnects; 2 outages; 1 gap",
        ),
        ("duration", 5.0, {}, 0, 0, "stopped by --duration after 5s; nothing happened; 2 reconnects; 2 outages; 1 gap"),
        (
            "SIGTERM", 5.0, {"balance": 1, "unknown": 2}, 0, 0,
            "stopped by SIGTERM after 5s; 1 balance change, 2 unknown frames; 2 reconnects; 2 outages; 1 gap",
        ),
        (
            "The disk is full.", 5.0, {}, 0, 1,
            "stopped by an error after 5s; 1 row not selected; 2 reconnects; 2 outages; 1 gap",
        ),
    ],
)  # fmt: skip
def test_the_last_row_sums_up(
    reason: str, seconds: float, shown: dict[str, int], recovered: int, hidden: int, said: str
) -> None:
    assert summary([MAIN], reason, seconds, shown, recovered, hidden) == said


@each("reason", STOP_REASONS)
def test_every_reason_has_its_words(reason: str) -> None:
    assert "an error" not in summary([MAIN], reason, 1.0, {}, 0, 0)
