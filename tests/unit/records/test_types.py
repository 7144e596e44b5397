"""Typed records: nothing of a line is lost in them, and a number is the digits that were sent."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.protocol.wire import Data
from kraken_feed.records import types
from kraken_feed.records.render import KEYS, opaque, render, render_items
from kraken_feed.records.schema import record_schema
from kraken_feed.records.types import Execution, Gap, Item, Live, Order, Record, Trade, Unknown, read
from tests.support.frame_files import DATA, FRAMES, FrameFile, frame, name_of

from ...support.cases import each

TS = "2026-11-20T22:41:05.123456Z"
COMMON: dict[str, Any] = {"v": 1, "account": "main"}
MARKERS: list[dict[str, Any]] = [
    {"event_name": "feed.live", "connection": "run-1", "attempt": 2, "engine": None},
    {"event_name": "feed.live", "connection": "run-1", "attempt": 1, "engine": "online"},
    {
        "event_name": "feed.lost", "connection": "run-1", "cause": "closed", "detail": 'so "be" it', "last_sequence": 4,
        "last_ts": TS,
    },
    {
        "event_name": "feed.lost", "connection": "run-1", "cause": "silence", "detail": "", "last_sequence": None,
        "last_ts": TS,
    },
    {"event_name": "feed.backfilled", "from": TS, "to": TS, "orders": 3, "trades": 0, "cause": "restart"},
    {"event_name": "feed.gap", "from": None, "to": TS, "reason": "backfill is switched off", "cause": "state_damaged"},
    {"event_name": "feed.gap", "from": TS, "to": TS, "reason": "…", "cause": "closed"},
    {"event_name": "feed.status", "connection": "run-1", "engine": "cancel_only"},
    {"event_name": "feed.stopped", "connection": None, "reason": "SIGTERM"},
]  # fmt: skip


def lines_of(file: FrameFile) -> list[bytes]:
    """The lines that come of a frame."""
    frame = file.module.decode(file.frame)
    assert isinstance(frame, Data)
    name = file.module.EVENT_NAMES[frame.channel]
    fields = {**COMMON, "event_name": name, "channel": frame.channel, "type": file.kind, "connection": "r-1"}
    items = [(f"main:{n}", frame.sequence, one.order_id, one.exec_id, one.data) for n, one in enumerate(frame.items)]
    return render_items(fields, TS, items).splitlines(keepends=True)


def item(data: bytes, channel: str = "openOrders", **fields: Any) -> Item:
    """An item of that channel, by way of its line."""
    name = {"openOrders": "order", "ownTrades": "trade", "executions": "execution", "balances": "balance"}[channel]
    given = {"id": "x", "ts": TS, "event_name": name, "channel": channel, "type": "update", "connection": "r-1"}
    found = read(render({**COMMON, **given, **fields, "data": data}))
    assert isinstance(found, Item)
    return found


# ------------------------------------------------------------------------------------------------ lines


@each("file", DATA, ids=name_of)
def test_an_item_has_the_bytes_and_all_that_its_line_says(file: FrameFile) -> None:
    lines = lines_of(file)
    assert len(lines) == file.items
    for line in lines:
        found = read(line)
        assert isinstance(found, Item)
        raw = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
        assert found.data == bytes(raw["data"])
        assert found.line == line
        for key in raw.keys() - {"v", "data"}:
            assert getattr(found, key) == json.loads(bytes(raw[key]))


@each("fields", MARKERS)
def test_a_marker_says_what_its_line_says(fields: dict[str, Any]) -> None:
    line = render({"id": "m", "ts": TS, **COMMON, "channel": "openOrders", **fields})
    found = read(line)
    assert found.line == line
    assert isinstance(found, types.Marker)
    names = {"from": "start", "to": "end"}
    assert {key: getattr(found, names.get(key, key)) for key in fields} == fields


@each("frame", [b'{"channel":"new","x":1.50}', b'[1, "\xc3\xa9"]', b"\xff\x00 no JSON"])
def test_an_unknown_frame_is_whole(frame: bytes) -> None:
    is_json = frame[:1] in b"{["
    fields = {**COMMON, "id": "u", "ts": TS, "event_name": "unknown", "channel": "unknown", "connection": "r-1"}
    line = render({**fields, **opaque(frame, is_json)})
    found = read(line)
    assert isinstance(found, Unknown)
    assert (found.data, found.json) == (frame, is_json)
    assert found.line == line


def test_every_event_name_of_the_schema_has_its_type() -> None:
    schema: Any = record_schema()
    assert {kind.event_name for kind in Record.__args__} == set(schema["properties"]["event_name"]["examples"])


def test_every_key_of_the_schema_is_in_its_type() -> None:
    schema: Any = record_schema()
    kinds = {kind.event_name: kind for kind in Record.__args__}
    for branch in schema["allOf"]:
        name = branch["if"]["properties"]["event_name"]["const"]
        keys = {{"from": "start", "to": "end"}.get(key, key) for key in branch["then"].get("properties", {})}
        assert keys <= set(kinds[name].__struct_fields__)
    assert set(KEYS) - {"event_name", "v"} <= set(Trade.__struct_fields__)


def test_a_record_cannot_be_changed_and_equals_its_like() -> None:
    one, other = item(b'{"vol":"1.0"}'), item(b'{"vol":"1.0"}')
    assert one == other
    assert len({one, other}) == 1
    with pytest.raises(AttributeError):
        one.data = b"{}"  # type: ignore[misc]  # as a program without a type checker would


def test_the_time_is_in_utc() -> None:
    assert item(b"{}").time == datetime(2026, 11, 20, 22, 41, 5, 123456, UTC)


def test_records_are_told_apart_by_type() -> None:
    line = render({"id": "m", "ts": TS, **COMMON, "channel": "openOrders", **MARKERS[0]})
    match read(line):
        case Live(attempt=attempt):
            assert attempt == 2
        case other:
            raise AssertionError(other)
    assert isinstance(item(b"{}"), Order)
    assert isinstance(item(b"{}", "executions"), Execution)
    assert not isinstance(read(line), Item | Gap)


# ------------------------------------------------------------------------------------------------ numbers


@each("name", ["displayvol", "displayvolremain", "display_volume", "display_volume_remain", "vol", "vol_exec"])
@each("kind", ["update", "backfill"])
def test_the_volumes_of_an_order_are_numbers_in_every_spelling(name: str, kind: str) -> None:
    """An iceberg's are ``display_volume`` on the feed and ``displayvol`` in REST."""
    value = item(b'{"%b":"0.05000000"}' % name.encode(), type=kind).fields[name]
    assert isinstance(value, Decimal)
    assert f"{value:f}" == "0.05000000"
    v2 = item(b'{"%b":"0.05000000"}' % name.encode(), "executions", type="backfill").fields[name]
    assert isinstance(v2, Decimal)


class Number(msgspec.Struct):
    """A number as it is written, and what its digits mean, put together without reading the text."""

    text: str
    sign: int
    digits: str
    exponent: int

    @property
    def tuple(self) -> tuple[int, tuple[int, ...], int]:
        return self.sign, tuple(map(int, self.digits.lstrip("0") or "0")), self.exponent


@st.composite
def numbers(draw: st.DrawFn, signed: bool = True) -> Number:
    sign = draw(st.integers(0, 1)) if signed else 0
    whole = draw(st.just("0") | st.from_regex(r"[1-9][0-9]{0,30}", fullmatch=True))
    fraction = draw(st.none() | st.from_regex(r"[0-9]{1,30}", fullmatch=True))
    exponent = draw(st.none() | st.integers(-400, 400))
    text = ("-" if sign else "") + whole + ("" if fraction is None else f".{fraction}")
    if exponent is not None:
        plus = draw(st.sampled_from(("", "+"))) if exponent >= 0 else ""
        text += f"{draw(st.sampled_from('eE'))}{plus}{exponent}"
    return Number(text, sign, whole + (fraction or ""), (exponent or 0) - len(fraction or ""))


def is_number(value: object, number: Number) -> bool:
    """Whether it is a Decimal with these digits; ``==`` would not see trailing zeros."""
    return isinstance(value, Decimal) and value.as_tuple() == number.tuple


@given(numbers(), st.sampled_from(("openOrders", "ownTrades", "executions", "balances")))
def test_a_json_number_is_the_decimal_of_its_digits_wherever_it_stands(number: Number, channel: str) -> None:
    text = number.text.encode()
    fields = item(b'{"a":%b,"b":{"c":[%b,{"d":%b}]},"fees":[{"qty":%b}]}' % (text, text, text, text), channel).fields
    found = [fields["a"], fields["b"]["c"][0], fields["b"]["c"][1]["d"], fields["fees"][0]["qty"]]
    assert all(is_number(value, number) for value in found)


@given(numbers(), st.sampled_from(sorted(types.NUMBERS)))
def test_a_number_that_v1_and_rest_send_as_a_string_is_the_decimal_of_its_digits(number: Number, name: str) -> None:
    data = f'{{"{name}":"{number.text}","inside":{{"{name}":"{number.text}"}}}}'.encode()
    for found in (item(data), item(data, "ownTrades"), item(data, "balances", type="backfill")):
        assert is_number(found.fields[name], number)
        assert found.fields["inside"] == {name: number.text}
        assert found.data == data
    assert item(data, "executions").fields[name] == number.text  # v2 has numbers: a string there is one


@given(numbers(signed=False), st.sampled_from(sorted(types.INNER)), st.sampled_from(("price", "price2")))
def test_a_price_inside_is_a_decimal_unless_it_is_relative(number: Number, place: str, name: str) -> None:
    def inside(text: str) -> object:
        return item(f'{{"{place}":{{"{name}":"{text}","order":"{number.text}"}}}}'.encode()).fields[place][name]

    assert is_number(inside(number.text), number)
    for relative in (f"+{number.text}", f"-{number.text}", f"{number.text}%", f"#{number.text}"):
        assert inside(relative) == relative


@each("text", ["", "NaN", "Infinity", "1_000", " 1", "1 ", "+1", "0x1", "1.", ".5", "١", "true"])
def test_what_is_no_number_stays_a_string(text: str) -> None:
    assert item(json.dumps({"vol": text}).encode()).fields == {"vol": text}


@each("value", [None, True, {"a": "1"}, ["1"]])
def test_what_is_no_string_stays_what_it_is(value: object) -> None:
    data = json.dumps({"margin": value, "descr": value, "contingent": value}).encode()
    assert item(data).fields == {"margin": value, "descr": value, "contingent": value}


@each("file", [file for file in DATA if file.dialect == "v1"], ids=name_of)
def test_no_string_with_a_decimal_point_is_left_of_v1(file: FrameFile) -> None:
    def left(fields: dict[str, Any]) -> list[str]:
        inside = [name for value in fields.values() if isinstance(value, dict) for name in left(value)]
        # A leverage is a proportion: `5:1`, in old samples `0.1`.
        texts = [name for name, value in fields.items() if isinstance(value, str) and name != "leverage"]
        return inside + [name for name in texts if re.fullmatch(r"-?[0-9]+\.[0-9]+", fields[name])]

    for line in lines_of(file):
        found = read(line)
        assert isinstance(found, Item)
        assert left(found.fields) == []


def test_fields_are_read_once() -> None:
    found = item(b'{"vol":"1.0"}')
    assert found.fields is found.fields


def test_a_whole_order_of_v1_reads_as_documented() -> None:
    (line, *_) = lines_of(next(file for file in FRAMES if file.name == "v1-openOrders-snapshot-one"))
    found = read(line)
    assert isinstance(found, Order)
    fields, kept = found.fields, json.loads(found.data)
    assert str(fields["vol"]) == kept["vol"]
    assert str(fields["descr"]["price"]) == kept["descr"]["price"]
    assert str(fields["opentm"]) == kept["opentm"]
    assert isinstance(fields["descr"]["price"], Decimal)
    assert fields["descr"]["order"] == kept["descr"]["order"]
    assert fields["status"] == kept["status"]


def test_more_digits_than_a_float_holds_are_kept() -> None:
    (line,) = lines_of(next(file for file in FRAMES if file.name == "v2-executions-exponent-numbers"))
    found = read(line)
    assert isinstance(found, Execution)
    assert b"123456789.0123456789" in frame("v2-executions-exponent-numbers")
    assert found.fields["cum_qty"] == Decimal("123456789.0123456789")
    assert str(found.fields["cost"]) == "10.6250000000"
    assert found.fields["trade_id"] == 9007199254740993
