"""Rows for a terminal: aligned, escaped, coloured only if asked, changes read with what is known of their order."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.output.console import Rows
from kraken_feed.output.selection import Selection
from kraken_feed.output.zone import Zone
from kraken_feed.protocol import spot_v2
from kraken_feed.protocol.wire import Data
from kraken_feed.text import cell_width
from tests.support.frame_files import DATA, DIRECTORY, FrameFile, frame, load, name_of

from ...support.cases import each
from ...support.examples import examples

TS = "2026-11-20T22:41:05.123456Z"
KINDS = ["market", "limit", "iceberg", "stop-loss", "take-profit", "stop-loss-limit", "take-profit-limit"]
KINDS += ["trailing-stop", "trailing-stop-limit", "settle-position"]
HEADER = ("time", "pair", "side", "type", "price", "volume", "filled", "status", "order", "trade")  # at 160 columns
VALUES = ("pair", "side", "type", "price", "volume", "filled", "status")
RIGHT = ("price", "volume", "filled")
ORDER_ID = "OAAAAA-BBBBB-CCCCC3"

V1_NEW = (
    b'{"descr":{"pair":"ETH/USD","type":"sell","ordertype":"limit","price":"3500.00000","close":null},'
    b'"status":"pending","vol":"1.00000000","vol_exec":"0.00000000","avg_price":"0.00000","price":"7.7"}'
)
V2_NEW = (
    b'{"order_id":"OAAAAA-BBBBB-CCCCC3","symbol":"ETH/USD","side":"sell","order_type":"limit","limit_price":3500.00,'
    b'"order_qty":1.00000000,"order_status":"pending_new","exec_type":"pending_new","cum_cost":0.0}'
)


def _record(event: str, channel: str, data: bytes = b"", **fields: Any) -> dict[str, Any]:
    given_ = {"event": event, "channel": channel, "ts": TS, "id": "x", "v": 1, "account": "main", **fields}
    return {**given_, "data": data} if data else given_


def _order(data: bytes, order_id: str = ORDER_ID) -> dict[str, Any]:
    return _record("order", "openOrders", data, order_id=order_id)


def _execution(data: bytes, order_id: str = ORDER_ID, **fields: Any) -> dict[str, Any]:
    return _record("execution", "executions", data, order_id=order_id, **fields)


class Table:
    """Rows, and the cells that a reader finds in them by the heading's columns."""

    def __init__(self, *, colors: bool = False, **options: Any) -> None:
        self._rows = Rows(colors=colors, height=1000, **options)
        self.heading = ""

    def lines(self, record: dict[str, Any]) -> list[str]:
        """The lines of one record. Headings are kept apart."""
        (text, count), _ = self._rows(None, "write", dict(record))
        assert count == len(record.get("items", "1"))
        lines = text.decode().splitlines()
        for heading in [line for line in lines if " pair " in line]:
            self.heading = heading
            lines.remove(heading)
        return lines

    def row(self, record: dict[str, Any]) -> str:
        """The row of one record."""
        (line,) = self.lines(record)
        return line

    def cells(self, record: dict[str, Any]) -> dict[str, str]:
        """What stands under each heading, "" for nothing. ``mark`` is in front of the time."""
        row = self.row(record)
        words = list(re.finditer(r"\S+", self.heading.replace("time UTC", "time____")))
        found = {"mark": row[0]}
        for word, name in zip(words, HEADER, strict=True):
            if name in RIGHT:
                assert row[word.end() :][:2] in ("  ", "")
                found[name] = row[: word.end()].rpartition("  ")[2].strip()
            else:
                assert row[word.start() - 2 : word.start()].strip(" =+*") == ""
                found[name] = row[word.start() :].partition("  ")[0].strip()
        return found

    def values(self, record: dict[str, Any]) -> dict[str, str]:
        """The cells between the time and the ids."""
        return {name: cell for name, cell in self.cells(record).items() if name in VALUES}


def _records(file: FrameFile) -> list[dict[str, Any]]:
    """The records of a frame, as they come to the rows."""
    said = file.module.decode(file.frame)
    assert isinstance(said, Data)
    records = []
    for item in said.items:
        ids = {"order_id": item.order_id, "exec_id": item.exec_id}
        event = file.module.EVENT_NAMES[said.channel]
        records.append(
            _record(event, said.channel, item.data, **{key: value for key, value in ids.items() if value is not None})
        )
    return records


# ------------------------------------------------------------------------------------------------ shape


def test_the_heading_comes_once() -> None:
    rows = Rows(colors=False, height=1000)
    (first, _), (second, _) = (rows(None, "write", _order(V1_NEW))[0] for _ in range(2))
    assert first.count(b"\n") == 2
    assert second.count(b"\n") == 1
    assert first.decode().split("\n")[0].replace("UTC", "").split() == list(HEADER)


def test_the_heading_comes_again_with_every_screen_and_with_another_width() -> None:
    rows = Rows(colors=False, height=5)
    texts = [rows(None, "write", _order(V1_NEW))[0][0].decode() for _ in range(12)]
    assert [number for number, text in enumerate(texts) if "pair" in text] == [0, 4, 8]
    rows.resize(80, 5)
    assert "pair" in rows(None, "write", _order(V1_NEW))[0][0].decode()


@each("file", DATA, ids=name_of)
def test_columns_stand_at_the_same_offsets_in_every_row(file: FrameFile) -> None:
    table = Table()
    for record in _records(file):
        if max(map(len, re.findall(rb"[0-9.]+", record["data"])), default=0) < 14:
            table.cells(record)


@each("kind", KINDS)
def test_every_type_of_order_keeps_the_columns(kind: str) -> None:
    assert Table().cells(_order(V1_NEW.replace(b'"limit"', b'"%b"' % kind.encode())))["type"] == kind


def test_a_wide_terminal_has_the_ids_of_order_and_fill_and_a_narrower_one_the_fills() -> None:
    trade = _execution(b'{"exec_type":"trade"}', exec_id="TAAAAA-BBBBB-CCCCC1")
    assert Table().row(_order(V1_NEW)).endswith(f"  {ORDER_ID}")
    assert Table().row(trade).endswith(f"  {ORDER_ID}  TAAAAA-BBBBB-CCCCC1")
    assert Table(width=120).row(_order(V1_NEW)).endswith(f"  {ORDER_ID}")
    assert Table(width=120).row(trade).endswith(" trade     TAAAAA-BBBBB-CCCCC1")


@each(("width", "left_out"), [(140, []), (120, ["trade"]), (100, ["id", "trade"]), (79, ["type", "id", "trade"])])
def test_columns_are_left_out_by_importance(width: int, left_out: list[str]) -> None:
    table = Table(width=width)
    row = table.row(_order(V1_NEW.replace(b'"sell"', b'"buy"')))
    names = [*HEADER[:-2], "order" if "trade" not in left_out else "id", "trade"]
    assert table.heading.replace("time", "").split()[1:] == [name for name in names[1:] if name not in left_out]
    assert {"ETH/USD", "buy", "3500.00000", "1.00000000", "pending"} <= set(row.split())


def test_several_accounts_are_told_apart_at_every_width() -> None:
    names = ("main", "treasury")
    for width in range(60, 201):
        for name in names:
            row = Table(width=width, accounts=names).row(_order(V1_NEW) | {"account": name})
            assert {"sell", "ETH/USD", "3500.00000", "pending"} <= set(row.split()), width
            assert row.split()[1] in (name, "tre…")
            said = Table(width=width, accounts=names).lines(
                _record("feed.lost", "openOrders", cause="closed", detail="1006") | {"account": name}
            )
            assert said == []  # it was not live


# ------------------------------------------------------------------------------------------------ times


def test_a_row_shows_the_items_own_time() -> None:
    table = Table()
    assert (
        table.cells(_execution(V2_NEW[:-1] + b',"timestamp":"2026-11-20T21:00:01.500000Z"}'))["time"] == "21:00:01.500"
    )
    changed = b'{"status":"canceled","lastupdated":"1795212065.250000"}'
    table.row(_order(V1_NEW))
    assert table.cells(_order(changed))["time"] == "22:01:05.250"
    trade = b'{"pair":"XBT/USD","time":"1795212065.250000"}'
    assert table.cells(_record("trade", "ownTrades", trade, order_id=ORDER_ID, exec_id="T"))["time"] == "22:01:05.250"


def test_an_item_without_a_time_shows_when_it_was_received() -> None:
    assert Table().cells(_order(V1_NEW))["time"] == "22:41:05.123"
    assert Table().cells(_order(b'{"opentm":"never"}'))["time"] == "22:41:05.123"


def test_the_time_of_opening_is_not_the_time_of_a_change() -> None:
    opened = V1_NEW[:-1] + b',"opentm":"1795212000.5"}'
    table = Table()
    assert table.cells(_order(opened) | {"type": "snapshot"})["time"] == "22:00:00.500"
    table.row(_record("feed.live", "openOrders", attempt=1))
    changed = opened.replace(b'"vol_exec":"0.00000000"', b'"vol_exec":"0.50000000"')
    assert table.cells(_order(changed) | {"type": "snapshot"})["time"] == "22:41:05.123"


def test_the_heading_names_the_zone_and_all_times_are_in_it() -> None:
    table = Table(zone=Zone(lambda second: 19800))
    row = table.row(_order(V1_NEW))
    assert table.heading.startswith("  UTC+5:30 ")
    assert row[2:14] == "04:11:05.123"


def test_an_item_of_another_day_shows_its_date() -> None:
    old = V1_NEW[:-1] + b',"opentm":"1790000000.5"}'
    assert Table().cells(_order(old) | {"type": "snapshot"})["time"] == "Sep 21 14:13"
    assert Table(width=80).row(_order(old) | {"type": "snapshot"})[:10] == "= Sep 21  "


def test_a_new_day_is_a_line_of_its_own() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    assert table.lines(_order(V1_NEW) | {"ts": "2026-11-21T00:00:00.000000Z"})[0] == "  2026-11-21"
    assert len(table.lines(_order(V1_NEW) | {"ts": "2026-11-21T00:00:01.000000Z"})) == 1


def test_rows_that_are_read_later_begin_with_the_date() -> None:
    (text, _), _ = Rows(colors=False)(None, "write", _order(V1_NEW))
    assert text.decode().splitlines()[0] == "  2026-11-20"


# ------------------------------------------------------------------------------------------------ marks


def test_what_was_before_the_start_is_marked_as_old_and_later_snapshots_bring_what_was_missed() -> None:
    table = Table()
    assert table.row(_order(V1_NEW) | {"type": "snapshot"})[0] == "="
    table.row(_record("feed.live", "openOrders", attempt=1))
    assert table.row(_order(b'{"status":"open"}'))[0] == " "
    other = _order(V1_NEW, "OAAAAA-BBBBB-CCCCC4") | {"type": "snapshot"}
    assert table.row(other)[0] == "+"
    assert table.row(other | {"repeated": True})[0] == "="


def test_an_order_of_a_snapshot_that_looks_as_before_is_marked_as_old() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    table.row(_record("feed.live", "openOrders", attempt=1))
    again = V1_NEW[:-1] + b',"misc":"amended"}'
    assert table.row(_order(again) | {"type": "snapshot"})[0] == "="
    assert table.row(_order(again.replace(b"pending", b"open")) | {"type": "snapshot"})[0] == "+"


def test_what_rest_recovers_is_marked() -> None:
    assert Table().row(_order(V1_NEW) | {"type": "backfill"})[0] == "+"


def test_marks_need_no_colours_and_old_rows_are_dim() -> None:
    old = Table(colors=True).row(_order(V1_NEW) | {"type": "snapshot"})
    assert old.startswith("\x1b[2m= ")
    assert old.count("\x1b[") == 2


# ------------------------------------------------------------------------------------------------ restarts, reconnects


def test_rows_stay_full_over_a_reconnect() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    table.row(_record("feed.live", "openOrders", attempt=1))
    table.row(_record("feed.lost", "openOrders", cause="silence"))
    assert table.values(_order(b'{"status":"open"}')) == {
        "pair": "ETH/USD", "side": "sell", "type": "limit", "price": "3500.00000", "volume": "1.00000000",
        "filled": "0.00000000", "status": "open",
    }  # fmt: skip


def test_rows_are_full_after_a_restart_with_a_checkpoint() -> None:
    known = {ORDER_ID: [V1_NEW, b'{"vol_exec":"0.25000000","status":"open"}']}
    rows = Rows(colors=False, height=99, known=lambda account, channel: known)
    rows.learn("main", "openOrders")
    text = rows(None, "write", _order(b'{"vol_exec":"0.50000000"}'))[0][0].decode()
    assert text.split()[-9:] == [
        "22:41:05.123", "ETH/USD", "sell", "limit", "3500.00000", "1.00000000", "0.50000000", "open", ORDER_ID,
    ]  # fmt: skip
    snapshot = _order(V1_NEW, "OAAAAA-BBBBB-CCCCC4") | {"type": "snapshot"}
    assert rows(None, "write", snapshot)[0][0].decode()[0] == "+"  # it was opened in between


def test_orders_that_a_snapshot_has_and_no_row_has_shown_are_learnt_when_the_channel_is_live() -> None:
    known: dict[str, list[bytes]] = {}
    table = Table(known=lambda account, channel: known)
    known[ORDER_ID] = [V1_NEW]
    assert table.row(_record("feed.live", "openOrders", attempt=1)).endswith("live: openOrders; 1 open order")
    assert table.values(_order(b'{"status":"open"}'))["pair"] == "ETH/USD"


def test_orders_that_the_output_no_longer_knows_are_forgotten() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    assert table.row(_record("feed.live", "openOrders", attempt=1)).endswith("live: openOrders; 0 open orders")


def test_a_recovered_fill_has_the_feeds_spelling_of_the_pair() -> None:
    trade = b'{"ordertxid":"O","pair":"XXBTZUSD","type":"buy","ordertype":"limit","price":"1.0","vol":"2.0","time":1}'
    for event, channel, pair in (("trade", "ownTrades", "XBT/USD"), ("execution", "executions", "BTC/USD")):
        record = _record(event, channel, trade, exec_id="T1", order_id="O", type="backfill")
        values = Table().values(record)
        assert list(values.values()) == [pair, "buy", "limit", "1.0", "2.0", "", "trade"]


def test_a_fill_without_pair_and_side_has_those_of_its_order() -> None:
    table = Table()
    table.row(_execution(V2_NEW))
    fill = b'{"exec_type":"trade","last_price":3500.00,"last_qty":1.0,"cum_qty":1.0,"order_status":"filled"}'
    values = table.values(_execution(fill, exec_id="T1"))
    assert list(values.values()) == ["ETH/USD", "sell", "limit", "3500.00", "1.0", "1.0", "trade"]


# ------------------------------------------------------------------------------------------------ selection

TRADE = b'{"exec_type":"trade","symbol":"BTC/USD","side":"buy","last_qty":1.0,"last_price":2.0,"cum_qty":1.0}'


@each(
    ("selection", "shown"),
    [
        (Selection(events={"trade"}), ["trade"]),
        (Selection(events={"order"}), ["pending_new", "canceled"]),
        (Selection(events={"execution"}), ["pending_new", "trade", "canceled"]),
        (Selection(events={"canceled", "trade"}), ["trade", "canceled"]),
        (Selection(pairs={"XBTUSD"}), ["trade"]),
        (Selection(pairs={"ETHUSD"}), ["pending_new", "canceled"]),
        (Selection(pairs={"ETHUSD"}, events={"canceled"}), ["canceled"]),
        (Selection(pairs={"SOLUSD"}), []),
    ],
)
def test_rows_are_selected_by_pair_and_event(selection: Selection, shown: list[str]) -> None:
    rows = Rows(colors=False, height=99, selection=selection)
    records = [
        _execution(V2_NEW),
        _execution(TRADE, "OAAAAA-BBBBB-CCCCC4", exec_id="T1"),
        _execution(b'{"exec_type":"canceled","order_status":"canceled"}'),
    ]
    texts = [rows(None, "write", record)[0][0].decode() for record in records]
    words = [set(text.split()) & {"pending_new", "trade", "canceled"} for text in texts if text]
    assert [(found - {"trade"} or found).pop() for found in words] == shown
    assert rows.hidden == 3 - len(shown)


def test_a_selection_never_hides_markers_unknown_frames_and_unknown_pairs() -> None:
    table = Table(selection=Selection(pairs={"XBTUSD"}))
    assert table.lines(_record("feed.gap", "executions", to=TS, reason="x"))
    assert table.lines(_record("unknown", "-", data=b"{}"))
    assert table.lines(_execution(b'{"order_status":"new","exec_type":"new"}'))
    assert not table.lines(_record("balance", "balances", b'{"asset":"BTC","balance":1.0}'))


# ------------------------------------------------------------------------------------------------ what is known


def test_v1_change_is_read_with_its_order() -> None:
    table = Table()
    assert table.values(_order(V1_NEW)) == {
        "pair": "ETH/USD",
        "side": "sell",
        "type": "limit",
        "price": "3500.00000",
        "volume": "1.00000000",
        "filled": "0.00000000",
        "status": "pending",
    }
    opened = table.cells(_order(b'{"status":"open","userref":0}'))
    assert (opened["pair"], opened["side"], opened["price"], opened["status"]) == (
        "ETH/USD",
        "sell",
        "3500.00000",
        "open",
    )
    filled = table.cells(_order(b'{"vol_exec":"0.40000000","avg_price":"3499.9","userref":0}'))
    assert (filled["filled"], filled["status"], filled["price"]) == ("0.40000000", "open", "3500.00000")
    amended = table.cells(_order(b'{"vol":"0.80000000","amended":true}'))
    assert (amended["volume"], amended["filled"]) == ("0.80000000", "0.40000000")


def test_v2_change_is_read_with_its_order() -> None:
    table = Table()
    new = table.cells(_execution(V2_NEW))
    assert (new["pair"], new["price"], new["volume"], new["filled"]) == ("ETH/USD", "3500.00", "1.00000000", "-")
    opened = table.cells(_execution(b'{"order_status":"new","exec_type":"new"}'))
    assert (opened["pair"], opened["side"], opened["price"], opened["status"]) == ("ETH/USD", "sell", "3500.00", "new")
    trade = table.cells(
        _execution(
            b'{"exec_type":"trade","symbol":"ETH/USD","side":"sell","order_type":"limit","last_price":3500.00,'
            b'"last_qty":0.40000000,"cum_qty":0.40000000,"order_status":"partially_filled"}',
            exec_id="TAAAAA-BBBBB-CCCCC1",
        )
    )
    assert (trade["volume"], trade["filled"], trade["status"]) == ("0.40000000", "0.40000000", "trade")
    ended = table.cells(_execution(b'{"exec_type":"filled","order_status":"filled","cum_qty":1.00000000}'))
    assert (ended["pair"], ended["filled"], ended["status"]) == ("ETH/USD", "1.00000000", "filled")


@each(
    ("record", "status"),
    [
        (_order(b'{"status":"open","userref":0}'), "open"),
        (_execution(b'{"order_status":"new","exec_type":"new"}'), "new"),
    ],
)
def test_change_of_an_unknown_order_shows_dashes(record: dict[str, Any], status: str) -> None:
    cells = Table().cells(record)
    assert [cells[name] for name in HEADER[:8]] == ["22:41:05.123", "-", "-", "-", "-", "-", "-", status]


@each("status", ["closed", "canceled", "expired"])
def test_v1_order_that_ended_is_forgotten(status: str) -> None:
    table = Table()
    table.row(_order(V1_NEW))
    assert table.cells(_order(b'{"status":"%b"}' % status.encode()))["pair"] == "ETH/USD"
    assert table.cells(_order(b'{"status":"open"}'))["pair"] == "-"


def test_orders_are_told_apart() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    table.row(_order(V1_NEW.replace(b"ETH/USD", b"XBT/USD"), "OAAAAA-BBBBB-CCCCC4"))
    assert table.cells(_order(b'{"status":"open"}'))["pair"] == "ETH/USD"
    assert table.cells(_order(b'{"status":"open"}', "OAAAAA-BBBBB-CCCCC4"))["pair"] == "XBT/USD"


def test_past_trade_of_a_snapshot_does_not_end_a_known_order() -> None:
    table = Table()
    table.row(_execution(V2_NEW))
    past = (
        b'{"exec_type":"trade","symbol":"ETH/USD","side":"sell","last_qty":0.1,"last_price":1,"order_status":"filled"}'
    )
    table.row(_execution(past, exec_id="TAAAAA-BBBBB-CCCCC1"))
    assert table.cells(_execution(b'{"exec_type":"new","order_status":"new"}'))["pair"] == "ETH/USD"


@given(
    st.lists(
        st.sampled_from(
            [
                b'{"exec_type":"status","symbol":"BTC/USD","side":"sell","order_qty":5.0,"order_status":"new"}',
                b'{"exec_type":"trade","symbol":"ETH/USD","side":"buy","last_qty":1.0,"last_price":2.0}',
                b'{"order_id":"","exec_type":"status","order_type":"limit","limit_price":7.0}',
                b'{"order_id":7,"exec_type":"filled","order_status":"filled"}',
            ]
        )
    ),
    st.booleans(),
)
def test_an_item_without_an_id_shows_nothing_of_another(before: list[bytes], empty: bool) -> None:
    table = Table()
    for data in before:
        table.row(_record("execution", "executions", data) | ({"order_id": ""} if empty else {}))
    cells = table.cells(_record("execution", "executions", b'{"exec_type":"status","ext_order_id":"Z"}'))
    assert [cells[name] for name in HEADER[:8]] == ["22:41:05.123", *["-"] * 7]
    assert table.cells(_record("order", "openOrders", b'{"status":"open"}'))["pair"] == "-"


# ------------------------------------------------------------------------------------------------ market orders

V1_MARKET = V1_NEW.replace(b'"limit"', b'"market"').replace(b"3500.00000", b"0.00000")
V2_MARKET = V2_NEW.replace(b'"limit"', b'"market"').replace(b'"limit_price":3500.00,', b"")


def test_a_market_order_shows_its_average_price_and_a_dash_before_its_first_fill() -> None:
    table = Table()
    assert table.cells(_order(V1_MARKET))["price"] == "-"
    filled = table.cells(_order(b'{"vol_exec":"0.4","avg_price":"3499.90000"}'))
    assert (filled["price"], filled["status"]) == ("3499.90000", "pending")
    assert table.cells(_order(b'{"status":"closed","vol_exec":"1.0","avg_price":"3499.80"}'))["price"] == "3499.80"
    assert table.cells(_execution(V2_MARKET))["price"] == "-"
    ended = b'{"exec_type":"filled","order_status":"filled","avg_price":3499.8,"cum_qty":1.0}'
    assert table.cells(_execution(ended))["price"] == "3499.8"


def test_a_recovered_market_order_shows_its_average_price() -> None:
    """REST calls the average ``price``."""
    data = V1_MARKET.replace(b',"avg_price":"0.00000"', b"").replace(b'"7.7"', b'"3499.7"')
    assert Table().cells(_order(data) | {"type": "backfill"})["price"] == "3499.7"
    assert Table().cells(_order(data.replace(b'"3499.7"', b'"0.00000"')) | {"type": "backfill"})["price"] == "-"
    assert Table().cells(_order(V1_NEW) | {"type": "backfill"})["price"] == "3500.00000"


@each("kind", ["Market", "settle-position"])
@each("average", ["0", "0.0000", "0e-8", ""])
def test_a_market_order_without_an_average_shows_a_dash(kind: str, average: str) -> None:
    data = V1_MARKET.replace(b'"market"', b'"%b"' % kind.encode())
    data = data.replace(b'"avg_price":"0.00000"', b'"avg_price":"%b"' % average.encode())
    assert Table().cells(_order(data))["price"] == "-"


# ------------------------------------------------------------------------------------------------ upper and lower case


@each("kind", ["trade", "Trade", "TRADE"])
def test_a_fill_is_a_row_of_a_fill_in_any_case(kind: str) -> None:
    data = (
        b'{"order_id":"OAAAAA-BBBBB-CCCC01","exec_type":"%b","exec_id":"TAAAAA-BBBBB-CCCC01","symbol":"BTC/USD",'
        b'"side":"sell","order_type":"limit","last_qty":0.4,"last_price":1.0,"cum_qty":0.4}' % kind.encode()
    )
    said = spot_v2.decode(b'{"channel":"executions","type":"update","sequence":2,"data":[%b]}' % data)
    assert isinstance(said, Data)
    (item,) = said.items
    cells = Table().cells(_execution(item.data, item.order_id or "", exec_id=item.exec_id))
    assert (cells["price"], cells["volume"], cells["filled"], cells["status"]) == ("1.0", "0.4", "0.4", "trade")


@each("status", ["Closed", "CANCELED", "Expired"])
def test_an_order_that_ended_is_forgotten_in_any_case(status: str) -> None:
    table = Table()
    table.row(_order(V1_NEW))
    table.row(_order(b'{"status":"%b"}' % status.encode()))
    assert table.cells(_order(b'{"status":"open"}'))["pair"] == "-"


# ------------------------------------------------------------------------------------------------ digits


@each("digits", ["0.25000000", "61000.0", "1e-08", "8.5E-05", "-0.4000000000", "0", "0.00", "1.2345678901", "100"])
def test_digits_are_krakens(digits: str) -> None:
    row = Table().cells(_execution(V2_NEW.replace(b"3500.00", digits.encode())))
    assert row["price"] == digits
    row = Table().cells(_order(V1_NEW.replace(b"3500.00000", digits.encode())))
    assert row["price"] == digits


def test_digits_too_many_for_the_column_are_shown_all_the_same() -> None:
    digits = "123456789012345678901234567890.123456789012345678901234567890"
    assert digits in Table().row(_execution(V2_NEW.replace(b"3500.00", digits.encode())))


def test_own_trade_shows_its_price_and_volume() -> None:
    (record, *_) = _records(load(DIRECTORY / "v1-ownTrades-update.json"))
    cells = Table().cells(record)
    for name, key in (
        ("price", b"price"),
        ("volume", b"vol"),
        ("pair", b"pair"),
        ("side", b"type"),
    ):
        found = re.search(rb'"%b":"([^"]*)"' % key, frame("v1-ownTrades-update"))
        assert found is not None
        assert cells[name] == found[1].decode()


def test_balance_shows_asset_change_and_balance() -> None:
    (record, *_) = _records(load(DIRECTORY / "v2-balances-update-deposit.json"))
    cells = Table().cells(record)
    assert cells["trade"] == "LAAAAA-BBBBB-CCCCC4"
    for name, key in (("pair", b"asset"), ("volume", b"amount"), ("filled", b"balance")):
        found = re.search(rb'"%b":\s*"?([^",}]*)' % key, frame("v2-balances-update-deposit"))
        assert found is not None
        assert cells[name] == found[1].decode()


# ------------------------------------------------------------------------------------------------ markers, the unknown


def test_balances_alone_have_columns_of_their_own() -> None:
    rows = Rows(colors=False, height=99, width=60, channels=("balances",))
    lines = []
    for name in ("v2-balances-snapshot", "v2-balances-update-deposit"):
        for record in _records(load(DIRECTORY / f"{name}.json")):
            lines += rows(None, "write", record)[0][0].decode().splitlines()
    assert lines[0].split() == ["time", "UTC", "asset", "type", "change", "balance"]
    assert lines[1].split() == ["22:41:05", "BTC", "1.5"]  # received now: a balance has no time
    assert lines[-1].split() == ["Oct", "2025", "BTC", "deposit", "0.02", "1.522"]


@each("width", range(60, 201))
def test_the_balance_of_a_snapshot_is_shown_at_every_width(width: int) -> None:
    for record in _records(load(DIRECTORY / "v2-balances-snapshot.json")):
        text = Table(width=width).row(record)
        (balance,) = re.findall(rb'"balance":([0-9.]+),', record["data"])[:1]
        assert balance.decode() in text.split()


@each(
    ("fields", "said"),
    [
        ({"data": b'{"event":"brandNew"}'}, '{"event":"brandNew"}'),
        ({"data_base64": "/v8AAQ=="}, "/v8AAQ=="),
        ({"data": b'{"a":"\x7f\xc2\x9b"}'}, r'{"a":"\x7f\x9b"}'),
        ({"data": b'"%b"' % (b"x" * 100_000)}, "x" * 100),
    ],
)
def test_an_unknown_frame_is_shown(fields: dict[str, Any], said: str) -> None:
    table = Table()
    lines = table.lines(_record("unknown", "-", **fields))
    assert lines[0].startswith("? 22:41:05.123  unknown frame:")
    assert said in "".join(lines)
    assert max(map(len, lines)) <= 160
    assert len("".join(lines)) < 300


@each("event", ["feed.live", "feed.lost", "feed.gap", "feed.backfilled"])
def test_a_marker_is_a_sentence_behind_a_mark(event: str) -> None:
    table = Table(width=60)
    table.lines(_record("feed.live", "openOrders", attempt=1))
    fields = {"from": TS, "to": TS, "reason": "no " * 50, "cause": "closed", "detail": "too " * 50}
    lines = table.lines(_record(event, "openOrders") | fields)
    assert lines[0].startswith("* 22:41:05  ")
    assert all(line.startswith(" " * 12) for line in lines[1:])
    assert max(map(len, lines)) <= 60


# ------------------------------------------------------------------------------------------------ escapes, colours

any_text = st.text(alphabet=st.characters(codec=None), max_size=20)


@settings(max_examples=examples(200))
@given(any_text, st.sampled_from(["order_id", "exec_id", "channel", "detail", "pair", "status"]))
def test_nothing_that_the_exchange_says_drives_the_terminal(text: str, place: str) -> None:
    rows = Rows(colors=False)
    if place == "detail":
        rows(None, "write", _record("feed.live", "openOrders", attempt=1))
        record = _record("feed.lost", "openOrders", cause="closed", detail=text)
    elif place == "channel":
        record = _record("feed.status", text, engine=text)
    elif place in ("order_id", "exec_id"):
        record = _execution(V2_NEW) | {place: text}
    else:
        old = b"ETH/USD" if place == "pair" else b"pending"
        record = _order(V1_NEW.replace(old, _json_text(text)))
    said = rows(None, "write", record)[0][0].decode()
    assert said.count("\n") >= 1
    assert said.replace("\n", "").isprintable()
    assert all(cell_width(line) <= 160 for line in said.split("\n"))


def _json_text(text: str) -> bytes:
    """The inside of a JSON string, everything beyond ASCII escaped, lone surrogates left out."""
    carried = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return b"".join(b"\\u%04x" % unit for unit in memoryview(carried.encode("utf-16-le")).cast("H"))


def test_colours_only_if_asked() -> None:
    records = [_order(V1_NEW), _record("feed.live", "openOrders", engine="online", attempt=1), *_records(DATA[0])]
    plain, coloured = Rows(colors=False), Rows(colors=True)
    for record in records:
        without = plain(None, "write", dict(record))[0][0].decode()
        painted = coloured(None, "write", dict(record))[0][0].decode()
        assert "\x1b" not in without
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[\d+m", "", painted) == without
        assert painted.count("\x1b[") == 2 * painted.count("\x1b[0m")


@each(("side", "color"), [("buy", "32"), ("sell", "31")])
def test_sides_have_their_colours(side: str, color: str) -> None:
    row = Table(colors=True).row(_order(V1_NEW.replace(b'"sell"', b'"%b"' % side.encode())))
    assert f"\x1b[{color}m{side}" in row
