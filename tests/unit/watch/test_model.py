"""The overview: what is open, what was filled and what has changed, from records in any order that a feed can bring."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.protocol import spot_v2
from kraken_feed.protocol.wire import Data
from kraken_feed.records.open_orders import ENDED_KEPT
from kraken_feed.records.view import moment
from kraken_feed.watch.model import FILLS_KEPT, Overview
from kraken_feed.watch.table import order_columns

from ...support.cases import each
from ...support.watch_models import NOW_NS, crowd, item, items, live, lost, overview

# ------------------------------------------------------------------------------------------------ against a plain model

IDS = ("OA", "OB", "OC", "OD")
SHOWN = ("pair", "side", "kind", "price", "volume", "filled", "status")
V2_NAMES = {
    "pair": "symbol", "side": "side", "kind": "order_type", "price": "limit_price", "volume": "order_qty",
    "filled": "cum_qty", "status": "order_status",
}  # fmt: skip


class Step(NamedTuple):
    """Something that a feed brings: a snapshot (of several orders), a change, an end, one that REST tells, a loss."""

    kind: str
    orders: dict[str, dict[str, str]]


def _whole(draw: st.DrawFn) -> dict[str, str]:
    return {
        "pair": draw(st.sampled_from(("XBT/USD", "ETH/USD"))),
        "side": draw(st.sampled_from(("buy", "sell"))),
        "kind": "limit",
        "price": f"{draw(st.integers(1, 9))}.50",
        "volume": "9.00",
        "filled": f"{draw(st.integers(0, 9))}.00",
        "status": "open",
    }


@st.composite
def steps(draw: st.DrawFn) -> list[Step]:
    made = []
    for kind in draw(st.lists(st.sampled_from(("snapshot", "change", "change", "end", "told", "lost")), max_size=30)):
        names = draw(st.sets(st.sampled_from(IDS), max_size=4)) if kind == "snapshot" else {draw(st.sampled_from(IDS))}
        orders = {name: _whole(draw) for name in sorted(names)}
        if kind == "change":
            keep = draw(st.sets(st.sampled_from(SHOWN)))
            orders = {name: {key: order[key] for key in keep} for name, order in orders.items()}
        made.append(Step(kind, orders))
    return made


def _data(channel: str, order: dict[str, str]) -> bytes:
    """An order, or some of its fields, as that dialect writes them."""
    if channel == "executions":
        return msgspec.json.encode({"exec_type": "status"} | {V2_NAMES[name]: text for name, text in order.items()})
    inner = {"pair": "pair", "side": "type", "kind": "ordertype", "price": "price"}
    outer = {"volume": "vol", "filled": "vol_exec", "status": "status"}
    fields: dict[str, Any] = {outer[name]: text for name, text in order.items() if name in outer}
    descr = {inner[name]: text for name, text in order.items() if name in inner}
    return msgspec.json.encode(fields | ({"descr": descr} if descr else {}))


class Model:
    """The same without a thought for speed: what each order is, and which are open."""

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, str]] = {}
        self.open: set[str] = set()
        self.ended: set[str] = set()

    def snapshot(self, orders: dict[str, dict[str, str]]) -> None:
        for name, order in orders.items():
            if name not in self.ended and float(order["filled"]) >= float(self.seen.get(name, order)["filled"]):
                self.seen[name] = order
        self.open = set(orders) - self.ended

    def change(self, name: str, fields: dict[str, str]) -> None:
        if name not in self.ended:
            self.seen[name] = dict.fromkeys(SHOWN, "") | {"filled": "0"} | self.seen.get(name, {}) | fields
            self.open.add(name)

    def end(self, name: str) -> None:
        self.ended.add(name)
        self.open.discard(name)

    def now(self) -> dict[str, list[str]]:
        return {name: [self.seen[name][field] for field in SHOWN] for name in self.open}


@pytest.mark.parametrize("channel", ["openOrders", "executions"])
@given(made=steps())
def test_the_board_has_the_orders_of_a_plain_model(channel: str, made: list[Step]) -> None:
    ours, model, number = Overview([channel]), Model(), 0
    ended = "filled" if channel == "executions" else "closed"
    for step in made:
        connection = f"c{number}"
        for name, order in step.orders.items():
            fields = _data(channel, order)
            if step.kind == "change":
                ours.take(item(channel, fields, name, connection=connection), NOW_NS)
                model.change(name, order)
            elif step.kind == "end":
                ours.take(item(channel, _data(channel, {"status": ended}), name, connection=connection), NOW_NS)
                model.end(name)
            elif step.kind == "told":
                ours.take(item(channel, b'{"status":"canceled"}', name, kind="backfill"), NOW_NS)
                model.end(name)
        if step.kind == "lost":
            ours.take(lost(channel), NOW_NS)
        if step.kind == "snapshot":
            number += 1
            for name, order in step.orders.items():
                ours.take(item(channel, _data(channel, order), name, kind="snapshot", connection=f"c{number}"), NOW_NS)
            ours.take(live(channel, f"c{number}"), NOW_NS)
            model.snapshot(step.orders)
        rows = {row.order_id: [getattr(row.order, name) for name in SHOWN] for row in ours.rows("main", 100)}
        expected = model.now()
        for name, values in rows.items():  # an unknown volume and none at all are the same
            values[SHOWN.index("filled")] = values[SHOWN.index("filled")] or "0"
            assert values == expected[name]
        assert rows.keys() == expected.keys()


# ------------------------------------------------------------------------------------------------ orders


def test_what_a_new_snapshot_does_not_have_is_gone_when_it_is_whole() -> None:
    made = overview("v1-openOrders-snapshot-many", channels=["openOrders"])
    before = {row.order_id for row in made.rows("main", 100)}
    assert len(before) > 1
    (kept, *_) = items("v1-openOrders-snapshot-many", connection="c2")
    made.take(lost("openOrders"), NOW_NS)
    made.take(kept, NOW_NS)
    assert {row.order_id for row in made.rows("main", 100)} == before
    made.take(live("openOrders", "c2"), NOW_NS)
    assert [row.order_id for row in made.rows("main", 100)] == [kept.order_id]


def test_a_snapshot_that_repeats_an_order_changes_nothing_about_it() -> None:
    made = overview("v1-openOrders-snapshot-one", channels=["openOrders"])
    for record in items("v1-openOrders-snapshot-one", connection="c2"):
        made.take(record, NOW_NS)
    (row,) = made.rows("main", 10)
    assert (row.changed, row.turn) == ({}, 0)


def test_an_order_that_ended_does_not_come_back_with_an_old_snapshot() -> None:
    made = overview("v2-executions-snapshot-orders")
    (first, *_) = items("v2-executions-snapshot-orders")
    made.take(item("executions", b'{"exec_type":"canceled","order_status":"canceled"}', first.order_id), NOW_NS)
    made.take(first, NOW_NS)
    assert first.order_id not in {row.order_id for row in made.rows("main", 100)}


def test_what_changed_last_comes_first_and_below_it_the_youngest() -> None:
    made = Overview(["openOrders"])
    for number, order in enumerate(("OA", "OB", "OC")):
        data = b'{"opentm":"176000000%d.0","vol":"1.0","vol_exec":"0.0","status":"open"}' % number
        made.take(item("openOrders", data, order, kind="snapshot"), NOW_NS)
    made.take(live("openOrders"), NOW_NS)
    assert [row.order_id for row in made.rows("main", 3)] == ["OC", "OB", "OA"]
    made.take(item("openOrders", b'{"vol_exec":"0.5"}', "OA"), NOW_NS)
    assert [row.order_id for row in made.rows("main", 2)] == ["OA", "OC"]


def test_only_the_fields_that_changed_are_marked() -> None:
    made = overview("v1-openOrders-delta-new", channels=["openOrders"], now_ns=NOW_NS - 10)
    for record in items("v1-openOrders-delta-fill"):
        made.take(record, NOW_NS)
    (row,) = made.rows("main", 1)
    assert {name for name, when in row.changed.items() if when == NOW_NS} == {"filled", "cost", "average"}


def test_an_amended_limit_is_the_price_although_the_description_stays() -> None:
    made = overview("v1-openOrders-delta-new", channels=["openOrders"])
    (amended,) = items("v1-openOrders-delta-amended")
    made.take(msgspec.structs.replace(amended, order_id="OAAAAA-BBBBB-CCCCC3"), NOW_NS)
    (row,) = made.rows("main", 1)
    assert (row.order.price, row.order.volume) == ("3090.00000", "0.40000000")


def test_an_order_is_as_old_as_its_first_event() -> None:
    """v2 has the time of the event on every one."""
    made = overview("v2-executions-pending_new", "v2-executions-new", "v2-executions-trade")
    (row,) = made.rows("main", 1)
    assert row.opened_ns == moment("2025-10-09T09:05:00.000001Z")


def test_a_reconnect_makes_no_order_younger() -> None:
    made = overview("v2-executions-pending_new", "v2-executions-new")
    data = b'{"exec_type":"new","order_status":"new","timestamp":"2025-10-09T09:06:00.000001Z"}'
    made.take(item("executions", data, "OAAAAA-BBBBB-CCCCC3", kind="snapshot", connection="c2"), NOW_NS)
    (row,) = made.rows("main", 1)
    assert row.opened_ns == moment("2025-10-09T09:05:00.000001Z")


@each("text", ["", "0.000000", "null", "nan", "-1", "1e999", "9" * 400, "T", "2025-13-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert moment(text) == 0


# ------------------------------------------------------------------------------------------------ fills


def test_a_fill_is_there_once_whichever_way_and_however_often_it_comes() -> None:
    made = overview("v2-executions-snapshot-trades", "v2-executions-snapshot-trades", "v2-executions-trade")
    told = b'{"ordertxid":"OAAAAA-BBBBB-CCCCC3","pair":"XETHZUSD","time":1760000730.1,"type":"sell","vol":"0.4"}'
    exec_id = "TAAAAA-BBBBB-CCCCC9"
    made.take(item("executions", told, "OAAAAA-BBBBB-CCCCC3", kind="backfill", exec_id=exec_id), NOW_NS)
    names = [deal.name for deal in made.deals(100)]
    assert len(set(names)) == len(names) > 2
    (deal,) = [deal for deal in made.deals(100) if deal.name == exec_id]
    assert deal.fill.volume == "0.40000000"


def test_the_newest_fill_comes_first_wherever_it_was_in_its_frame() -> None:
    made = overview("v1-ownTrades-snapshot", "v1-ownTrades-update", channels=["ownTrades"])
    times = [deal.time_ns for deal in made.deals(100)]
    assert len(times) > 1
    assert times == sorted(times, reverse=True)


def test_a_fill_that_rest_tells_reads_as_v1s() -> None:
    made = Overview(["executions"])
    told = (
        b'{"ordertxid":"OA","pair":"XXBTZUSD","time":1760000010.36144,"type":"buy","ordertype":"market",'
        b'"price":"61000.00000","cost":"122.00000","fee":"0.31720","vol":"0.00200000"}'
    )
    made.take(item("executions", told, "OA", kind="backfill", exec_id="TA"), NOW_NS)
    (deal,) = made.deals(1)
    assert (deal.fill.pair, deal.fill.price, deal.fill.volume, deal.fill.fee) == (
        "XXBTZUSD", "61000.00000", "0.00200000", "0.31720",
    )  # fmt: skip
    assert deal.time_ns // 10**9 == 1760000010
    assert made.rows("main", 1) == []


def test_without_a_channel_of_fills_the_growth_of_an_order_is_one() -> None:
    made = overview("v1-openOrders-delta-new", "v1-openOrders-delta-fill", channels=["openOrders"])
    end = b'{"status":"closed","vol_exec":"1.00000000","cost":"3490.00000","avg_price":"3490.00000"}'
    made.take(item("openOrders", end, "OAAAAA-BBBBB-CCCCC3"), NOW_NS)
    fills = {(deal.fill.volume, deal.fill.price, deal.fill.cost) for deal in made.deals(10)}
    assert fills == {("0.40000000", "3500.00000", "1400.00000"), ("0.60000000", "3483.33333", "2090.00000")}


def test_an_order_that_was_filled_in_an_outage_grows_from_where_it_was() -> None:
    made = overview("v1-openOrders-delta-new", "v1-openOrders-delta-fill", channels=["openOrders"])
    made.take(lost("openOrders"), NOW_NS)
    made.take(live("openOrders", "c2"), NOW_NS)
    end = b'{"status":"closed","vol_exec":"1.00000000","cost":"3500.00000","vol":"1.00000000"}'
    made.take(item("openOrders", end, "OAAAAA-BBBBB-CCCCC3", kind="backfill"), NOW_NS)
    assert sorted(deal.fill.volume for deal in made.deals(10)) == ["0.40000000", "0.60000000"]


def test_late_news_of_an_order_that_has_ended_is_no_fill() -> None:
    made = overview("v1-openOrders-delta-new", "v1-openOrders-delta-fill", channels=["openOrders"])
    made.take(item("openOrders", b'{"status":"canceled"}', "OAAAAA-BBBBB-CCCCC3"), NOW_NS)
    for record in items("v1-openOrders-delta-fill"):
        made.take(msgspec.structs.replace(record, data=record.data.replace(b"0.40000000", b"0.50000000")), NOW_NS)
    assert [deal.fill.volume for deal in made.deals(10)] == ["0.40000000"]


def test_what_an_order_had_filled_before_the_watch_is_no_fill() -> None:
    made = overview("v1-openOrders-snapshot-iceberg", channels=["openOrders"])
    assert made.rows("main", 1)
    assert made.deals(10) == []


@each("volume", ["x", "1e999999", "NaN", "Infinity", "-1"])
def test_a_volume_that_is_none_makes_no_trouble(volume: str) -> None:
    made = overview("v1-openOrders-delta-new", channels=["openOrders"])
    made.take(item("openOrders", b'{"vol_exec":"%b"}' % volume.encode(), "OAAAAA-BBBBB-CCCCC3"), NOW_NS)
    assert all(len(deal.fill.volume) < 50 for deal in made.deals(10))


@each(
    ("channels", "orders", "fills"),
    [
        (("executions",), "executions", "executions"),
        (("openOrders", "ownTrades", "executions"), "executions", "executions"),
        (("ownTrades", "openOrders"), "openOrders", "ownTrades"),
        (("ownTrades",), None, "ownTrades"),
        (("openOrders",), "openOrders", "openOrders"),
    ],
)
def test_nothing_is_shown_of_two_channels(channels: tuple[str, ...], orders: str | None, fills: str) -> None:
    made = Overview(channels)
    assert (made.orders_from, made.fills_from) == (orders, fills)
    frames = ("v1-openOrders-snapshot-one", "v1-ownTrades-update", "v2-executions-snapshot-mixed")
    for record in (one for name in frames for one in items(name)):
        made.take(record, NOW_NS)
    assert len(made.rows("main", 10)) == (0 if orders is None else 1)
    assert {deal.name[0] for deal in made.deals(10)} <= {"T"}
    assert len(made.deals(10)) == (0 if fills == "openOrders" else 1)


def test_what_is_remembered_is_bounded() -> None:
    made = Overview(["executions"])
    for number in range(3 * FILLS_KEPT):
        made.take(item("executions", b'{"exec_type":"trade"}', None, exec_id=f"T{number}"), NOW_NS)
    assert len(made.deals(10**6)) <= 2 * FILLS_KEPT
    for number in range(ENDED_KEPT + 9):
        made.take(item("executions", b'{"order_status":"canceled"}', f"O{number}"), NOW_NS)
    assert len(made.account("main").orders.ended) == ENDED_KEPT


def test_accounts_are_apart() -> None:
    made = Overview(["openOrders"])
    for name, count in (("main", 3), ("treasury", 2)):
        for record in crowd(count, name):
            made.take(record, NOW_NS)
        made.take(live("openOrders", account=name), NOW_NS)
    assert [len(made.account(name).rows) for name in ("main", "treasury")] == [3, 2]
    made.take(lost("openOrders", account="main"), NOW_NS)
    assert [made.account(name).live["openOrders"] for name in ("main", "treasury")] == [False, True]


# ------------------------------------------------------------------------------------------------ words of Kraken


@each("kind", ["trade", "Trade", "TRADE"])
def test_a_fill_is_a_fill_in_any_case(kind: str) -> None:
    frame = (
        b'{"channel":"executions","type":"update","sequence":2,"data":[{"order_id":"OA","exec_type":"%b","exec_id":"TA",'
        b'"symbol":"BTC/USD","side":"sell","order_type":"limit","last_qty":0.4,"last_price":1.0,"cost":0.4,'
        b'"cum_qty":0.4,"order_qty":1.0,"order_status":"partially_filled","liquidity_ind":"M",'
        b'"timestamp":"2026-11-29T10:00:01Z"}]}' % kind.encode()
    )
    said = spot_v2.decode(frame)
    assert isinstance(said, Data)
    made = overview()
    for one in said.items:
        made.take(item("executions", one.data, one.order_id, exec_id=one.exec_id), NOW_NS)
    (deal,) = made.deals(2)
    assert (deal.fill.pair, deal.fill.price, deal.fill.volume, deal.fill.role) == ("BTC/USD", "1.0", "0.4", "maker")


@each(
    ("channel", "data"),
    [
        ("executions", b'{"exec_type":"Filled","order_status":"Filled"}'),
        ("openOrders", b'{"status":"Canceled"}'),
    ],
)
def test_an_order_ends_in_any_case(channel: str, data: bytes) -> None:
    made = Overview([channel])
    made.take(item(channel, b'{"vol":"1","order_qty":1}', "OA"), NOW_NS)
    assert len(made.rows("main", 2)) == 1
    made.take(item(channel, data, "OA"), NOW_NS)
    assert made.rows("main", 2) == []


@each(
    ("channel", "new", "filled"),
    [
        (
            "openOrders",
            b'{"descr":{"pair":"XBT/USD","type":"buy","ordertype":"market","price":"0.00000"},"status":"open","vol":"1",'
            b'"avg_price":"0.00000"}',
            b'{"vol_exec":"0.5","avg_price":"61000.50000"}',
        ),
        (
            "executions",
            b'{"symbol":"BTC/USD","side":"buy","order_type":"market","order_qty":1,"order_status":"new"}',
            b'{"order_status":"partially_filled","cum_qty":0.5,"avg_price":61000.50000}',
        ),
    ],
)
def test_a_market_order_shows_its_average_price_on_the_screen(channel: str, new: bytes, filled: bytes) -> None:
    made = Overview([channel])
    made.take(item(channel, new, "OA"), NOW_NS)
    columns = [column for column in order_columns(200) if column.heading == "price"]
    (price,) = columns
    assert [price.cell(row, NOW_NS, 16) for row in made.rows("main", 1)] == [""]  # drawn as a dash
    made.take(item(channel, filled, "OA"), NOW_NS)
    assert [price.cell(row, NOW_NS, 16) for row in made.rows("main", 1)] == ["61000.50000"]
