"""The status line: trouble first, short, and nothing in it that a peer could use."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.telemetry.stats import EndpointFigures, Figures, Histogram, OutageCounts, Output
from kraken_feed.telemetry.status import MAX_LINE, span, status_line

from ...support.cases import each


def output(pending: int = 0, blocked_s: float | None = None) -> Output:
    return Output("out", 0, 0, 0, pending, False, blocked_s, blocked_s or 0.0, 0, 0, Histogram((), [0]))


OK = output()


def endpoint(*channels: str, live: bool = True, **facts: Any) -> EndpointFigures:
    usual = {"live_s": None, "down_s": None, "last_frame_s": None, "attempts": 0, "retry_s": None, "cause": ""}
    return EndpointFigures(
        **{"dialect": "v1", "channels": channels, "live": live, "engine": "online", **usual, **facts}
    )


def account(*endpoints: EndpointFigures, name: str = "main", outages: int = 0, **facts: Any) -> Figures:
    usual = {"open_orders": {}, "records": {}, "losses": {}, "reconnects": 0, "calls": {}}
    times = {"last_frame_ns": 0, "last_record_ns": 0, "checkpoint_ns": 0}
    return Figures(
        **{
            "account": name,
            "endpoints": endpoints,
            "outages": OutageCounts(9, 9, 9, outages),
            **usual,
            **times,
            **facts,
        }
    )


LIVE = endpoint("openOrders", "ownTrades", last_frame_s=0.4)
V2 = endpoint("balances", last_frame_s=2.0)
CONNECTING = endpoint("openOrders", live=False, down_s=120.0, attempts=4, cause="closed", engine=None)
WAITING = endpoint("openOrders", live=False, down_s=65.0, attempts=2, retry_s=31.2, cause="closed")
REFUSED = endpoint("openOrders", live=False, down_s=1200.0, attempts=6, retry_s=240.0, cause="refused", refused="key")


@each(
    ("figures", "line"),
    [
        (account(LIVE), "live openOrders,ownTrades; last frame 0.4s; output ok"),
        (
            account(LIVE, open_orders={"openOrders": 3, "executions": 2}, reconnects=2),
            "live openOrders,ownTrades; 3 open orders; last frame 0.4s; 2 reconnects; output ok",
        ),
        (
            account(LIVE, open_orders={"openOrders": 1}, reconnects=1, outages=1),
            "live openOrders,ownTrades; 1 outage to recover; 1 open order; last frame 0.4s; 1 reconnect; output ok",
        ),
        (account(LIVE, V2), "live openOrders,ownTrades,balances; last frame 2.0s; output ok"),
        (account(endpoint("balances", engine=None)), "live balances; output ok"),
        (account(endpoint("balances", engine="maintenance")), "live balances; engine maintenance; output ok"),
        (account(CONNECTING), "connecting (down 120s, attempt 4): openOrders; output ok"),
        (account(WAITING), "next attempt in 31s, after closed (down 65s, attempt 2): openOrders; output ok"),
        (
            account(REFUSED),
            "key refused, next try in 240s (down 20m, attempt 6): openOrders; output ok",
        ),
        (
            account(msgspec.structs.replace(REFUSED, retry_s=None, refused="account")),
            "account refused, connecting (down 20m, attempt 6): openOrders; output ok",
        ),
        (
            account(endpoint("openOrders", live=False, attempts=1, retry_s=0.3)),
            "next attempt in 0.3s (down 0.0s, attempt 1): openOrders; output ok",
        ),
        (
            account(V2, CONNECTING),
            "connecting (down 120s, attempt 4): openOrders; live balances; last frame 2.0s; output ok",
        ),
    ],
)
def test_line_of_one_account(figures: Figures, line: str) -> None:
    assert status_line([figures], OK) == line


@each(
    ("sink", "end"),
    [
        (OK, "; output ok"),
        (output(pending=100), "; output ok"),
        (output(blocked_s=12.3, pending=4_000_000), "; output blocked 12s, 4.0 MB waiting"),
    ],
)
def test_line_ends_with_the_output(sink: Output, end: str) -> None:
    assert status_line([account(V2)], sink) == f"live balances; last frame 2.0s{end}"


def test_accounts_are_named_and_the_one_in_trouble_comes_first() -> None:
    line = status_line([account(V2), account(CONNECTING, name="b")], OK)
    assert line == "b: connecting (down 120s, attempt 4): openOrders | main: live balances; last frame 2.0s; output ok"


def test_an_account_that_has_stopped_says_so_first() -> None:
    stopped = account(
        CONNECTING, name="b", stopped="error: Kraken refused the API key …L4a0 (from [accounts.b] (files))"
    )
    assert status_line([account(V2), stopped], OK) == (
        "b: stopped: error: Kraken refused the API key …L4a0… | main: live balances; last frame 2.0s; output ok"
    )


def test_live_accounts_are_counted_when_there_is_no_room_for_them() -> None:
    many = [account(V2, name=f"account{n}") for n in range(9)]
    assert status_line([*many, account(WAITING, name="b")], OK) == (
        "9 of 10 live | b: next attempt in 31s, after closed (down 65s, attempt 2): openOrders; output ok"
    )
    assert status_line(many, OK) == "9 of 9 live; output ok"


@each(
    ("seconds", "text"),
    [
        (-1.0, "0.0s"), (0.04, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (599.4, "599s"), (599.6, "10m"), (1000.0, "17m"),
        (10_790.0, "3h"), (18_000.0, "5h"), (71.4 * 3600, "71h"), (71.6 * 3600, "3d"), (1e7, "116d"),
    ],
)  # fmt: skip
def test_span_is_short(seconds: float, text: str) -> None:
    assert span(seconds) == text


spans = st.floats(min_value=0, max_value=1e9)
endpoints = st.builds(
    EndpointFigures,
    dialect=st.just("v1"),
    channels=st.lists(st.sampled_from(["openOrders", "ownTrades", "executions", "balances"]), min_size=1).map(tuple),
    live=st.booleans(),
    live_s=st.none() | spans,
    down_s=st.none() | spans,
    last_frame_s=st.none() | spans,
    attempts=st.integers(min_value=0),
    retry_s=st.none() | spans,
    cause=st.text(),
    engine=st.none() | st.text(),
    refused=st.text(),
)
accounts = st.builds(
    account,
    name=st.from_regex(r"[A-Za-z0-9_.-]{1,64}", fullmatch=True),
    endpoints=st.lists(endpoints, min_size=1, max_size=3).map(tuple),
    open_orders=st.dictionaries(st.sampled_from(["openOrders", "executions"]), st.integers(min_value=0)),
    reconnects=st.integers(min_value=0),
    outages=st.integers(min_value=0),
)
outputs = st.builds(output, blocked_s=st.none() | spans, pending=st.integers(0, 2**40))


@given(st.lists(accounts, min_size=1, max_size=12), outputs)
def test_line_is_short_and_one_line_whatever_the_figures(figures: list[Figures], sink: Output) -> None:
    line = status_line(figures, sink)
    assert len(line) <= MAX_LINE
    assert line.isprintable()
    assert "; output " in line
