"""Rows for a terminal: aligned, escaped, coloured only if asked, changes read with what is known of their order."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.output.console import HEADER, Rows
from kraken_feed.protocol import spot_v2
from kraken_feed.protocol.wire import Data
from tests.support.frame_files import DATA, DIRECTORY, FrameFile, frame, load, name_of

from ...support.cases import each
from ...support.examples import examples

TS = "2026-11-20T22:41:05.123456Z"
KINDS = ["market", "limit", "iceberg", "stop-loss", "take-profit", "stop-loss-limit", "take-profit-limit"]
KINDS += ["trailing-stop", "trailing-stop-limit", "settle-position"]
# Frames whose numbers are longer than any column, and are shown whole.
TOO_LONG = ("v1-ownTrades-snapshot-same-id", "v2-executions-exponent-numbers")
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

    def __init__(self, *, colors: bool = False) -> None:
        self._rows = Rows(colors=colors)
        self.heading = ""

    def row(self, record: dict[str, Any]) -> str:
        """The row of one record, without its line feed."""
        text = self._rows(None, "write", dict(record)).decode()
        assert text.endswith("\n")
        lines = text[:-1].split("\n")
        if not self.heading:
            self.heading = lines.pop(0)
        assert len(lines) == 1
        return lines[0]

    def cells(self, record: dict[str, Any]) -> dict[str, str]:
        """What stands under each heading; fails unless the row keeps to its columns."""
        row = self.row(record)
        starts, ends = _columns(self.heading)
        for name in HEADER:
            if name in RIGHT:
                assert row[ends[name] - 1] != " "
                assert row[ends[name] : ends[name] + 2] == "  "
            else:
                assert row[starts[name]] != " "
                assert row[max(starts[name] - 2, 0) : starts[name]] in ("  ", "")
        return dict(zip(HEADER, row.split(), strict=False))


def _columns(heading: str) -> tuple[dict[str, int], dict[str, int]]:
    """Where each word of the heading starts and ends."""
    starts = {name: heading.index(name) for name in HEADER}
    return starts, {name: start + len(name) for name, start in starts.items()}


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


def test_heading_comes_once() -> None:
    rows = Rows(colors=False)
    first, second = (rows(None, "write", _order(V1_NEW)).decode() for _ in range(2))
    assert first.count("\n") == 2
    assert second.count("\n") == 1
    assert first.split("\n")[0].split() == list(HEADER)


@each("file", [file for file in DATA if file.name not in TOO_LONG], ids=name_of)
def test_columns_stand_at_the_same_offsets_in_every_row(file: FrameFile) -> None:
    table = Table()
    for record in _records(file):
        table.cells(record)


@each("kind", KINDS)
def test_every_type_of_order_keeps_the_columns(kind: str) -> None:
    assert Table().cells(_order(V1_NEW.replace(b'"limit"', b'"%b"' % kind.encode())))["type"] == kind


def test_row_ends_with_the_id_of_the_fill_or_the_order() -> None:
    assert Table().row(_order(V1_NEW)).endswith(f"  {ORDER_ID}")
    row = Table().row(_execution(b'{"exec_type":"trade"}', exec_id="TAAAAA-BBBBB-CCCCC1"))
    assert row.endswith("  TAAAAA-BBBBB-CCCCC1")


def test_time_is_of_the_day_to_the_millisecond() -> None:
    assert Table().cells(_order(V1_NEW))["time"] == "22:41:05.123"


# ------------------------------------------------------------------------------------------------ what is known


def test_v1_change_is_read_with_its_order() -> None:
    table = Table()
    assert table.cells(_order(V1_NEW)) == {
        "time": "22:41:05.123",
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
    assert [cells[name] for name in HEADER] == ["22:41:05.123", "-", "-", "-", "-", "-", "-", status]


@each("status", ["closed", "canceled", "expired"])
def test_v1_order_that_ended_is_forgotten(status: str) -> None:
    table = Table()
    table.row(_order(V1_NEW))
    assert table.cells(_order(b'{"status":"%b"}' % status.encode()))["pair"] == "ETH/USD"
    assert table.cells(_order(b'{"status":"open"}'))["pair"] == "-"


def test_channel_that_is_lost_forgets_its_orders_only() -> None:
    table = Table()
    table.row(_order(V1_NEW))
    table.row(_execution(V2_NEW))
    table.row(_record("feed.lost", "openOrders", cause="silence", detail="no frame for 10 s"))
    assert table.cells(_order(b'{"status":"open"}'))["pair"] == "-"
    assert table.cells(_execution(b'{"exec_type":"new"}'))["pair"] == "ETH/USD"


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
    assert [cells[name] for name in HEADER] == ["22:41:05.123", *["-"] * 7]
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
        ("filled", b"vol"),
        ("pair", b"pair"),
        ("side", b"type"),
    ):
        found = re.search(rb'"%b":"([^"]*)"' % key, frame("v1-ownTrades-update"))
        assert found is not None
        assert cells[name] == found[1].decode()


def test_balance_shows_asset_change_and_balance() -> None:
    (record, *_) = _records(load(DIRECTORY / "v2-balances-update-deposit.json"))
    cells = Table().cells(record)
    for name, key in (("pair", b"asset"), ("volume", b"amount"), ("filled", b"balance")):
        found = re.search(rb'"%b":\s*"?([^",}]*)' % key, frame("v2-balances-update-deposit"))
        assert found is not None
        assert cells[name] == found[1].decode()


# ------------------------------------------------------------------------------------------------ markers, the unknown


@each(
    ("event", "fields", "said"),
    [
        ("feed.live", {"engine": "online", "attempt": 3}, ["live", "openOrders", "engine=online", "attempt=3"]),
        ("feed.live", {"engine": None, "attempt": 1}, ["live", "openOrders", "attempt=1"]),
        ("feed.lost", {"cause": "closed", "detail": "1006"}, ["lost", "openOrders", "cause=closed", "detail=1006"]),
        ("feed.status", {"engine": "maintenance"}, ["status", "openOrders", "engine=maintenance"]),
        ("feed.stopped", {"reason": "SIGTERM"}, ["stopped", "openOrders", "reason=SIGTERM"]),
        ("feed.something_new", {"further": 1}, ["something_new", "openOrders"]),
    ],
)
def test_marker_is_a_row(event: str, fields: dict[str, Any], said: list[str]) -> None:
    assert Table().row(_record(event, "openOrders", **fields)).split() == ["22:41:05.123", *said]


@each(
    ("fields", "said"),
    [
        ({"data": b'{"event":"brandNew"}'}, '{"event":"brandNew"}'),
        ({"data_base64": "/v8AAQ=="}, "/v8AAQ=="),
        ({"data": b'{"a":"\x7f\xc2\x9b"}'}, r'{"a":"\x7f\x9b"}'),
        ({"data": b'"%b"' % (b"x" * 100_000)}, "x" * 100),
    ],
)
def test_unknown_frame_is_a_row(fields: dict[str, Any], said: str) -> None:
    row = Table().row(_record("unknown", "-", **fields))
    assert "unknown frame" in row
    assert said in row
    assert len(row) < 1000


# ------------------------------------------------------------------------------------------------ escapes, colours

any_text = st.text(alphabet=st.characters(codec=None), max_size=20)


@settings(max_examples=examples(200))
@given(any_text, st.sampled_from(["order_id", "exec_id", "channel", "detail", "pair", "status"]))
def test_nothing_that_the_exchange_says_drives_the_terminal(text: str, place: str) -> None:
    rows = Rows(colors=False)
    if place == "detail":
        record = _record("feed.lost", "openOrders", cause="closed", detail=text)
    elif place == "channel":
        record = _record("feed.status", text, engine=text)
    elif place in ("order_id", "exec_id"):
        record = _execution(V2_NEW) | {place: text}
    else:
        old = b"ETH/USD" if place == "pair" else b"pending"
        record = _order(V1_NEW.replace(old, _json_text(text)))
    said = rows(None, "write", record).decode()
    assert said.count("\n") == 2
    assert said.replace("\n", "").isprintable()


def _json_text(text: str) -> bytes:
    """The inside of a JSON string, everything beyond ASCII escaped, lone surrogates left out."""
    carried = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return b"".join(b"\\u%04x" % unit for unit in memoryview(carried.encode("utf-16-le")).cast("H"))


def test_colours_only_if_asked() -> None:
    records = [_order(V1_NEW), _record("feed.live", "openOrders", engine="online", attempt=1), *_records(DATA[0])]
    plain, coloured = Rows(colors=False), Rows(colors=True)
    for record in records:
        without = plain(None, "write", dict(record)).decode()
        painted = coloured(None, "write", dict(record)).decode()
        assert "\x1b" not in without
        assert "\x1b[" in painted
        assert re.sub(r"\x1b\[\d+m", "", painted) == without
        assert painted.count("\x1b[") == 2 * painted.count("\x1b[0m")


@each(("side", "color"), [("buy", "32"), ("sell", "31")])
def test_sides_have_their_colours(side: str, color: str) -> None:
    row = Table(colors=True).row(_order(V1_NEW.replace(b'"sell"', b'"%b"' % side.encode())))
    assert f"\x1b[{color}m{side}" in row
