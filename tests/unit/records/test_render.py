"""One line a record: the contract's key order, Kraken's bytes unchanged, times cut to microseconds, ids that last."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.config.schema import CHANNELS, DIALECTS
from kraken_feed.protocol.wire import Data
from kraken_feed.records import render
from tests.support.frame_files import DATA, FRAMES, FrameFile, name_of

from ...support.cases import each
from ...support.examples import examples

ORDER = ("id", "ts", "event_name", "v", "account", "channel", "type", "connection", "sequence", "order_id", "exec_id")
FIELDS: dict[str, Any] = {
    "id": "main:openOrders:run-1:17:0",
    "ts": "2026-11-20T22:41:05.123456Z",
    "event_name": "order",
    "v": 1,
    "account": "main",
    "channel": "openOrders",
    "type": "update",
    "connection": "run-1",
    "sequence": 17,
    "order_id": "OAAAAA-BBBBB-CCCCC3",
}

any_text = st.text(alphabet=st.characters(codec=None), max_size=20)  # surrogates included
hostile = st.sampled_from(
    ['"', "\\", "\n", "\r\n", "\x00", "\x1b[2J", "\ud800", "\udfff", "\u2028", "\x7f", "</script>", "🐙"]
)
texts = any_text | hostile | st.tuples(any_text, hostile, any_text).map("".join)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(max_size=10), values, max_size=5)


def _one_object(line: bytes) -> dict[str, Any]:
    """The line as a strict reader sees it: UTF-8, one line feed, at the end, and one object."""
    text = line.decode("utf-8")
    assert text.index("\n") == len(text) - 1
    assert "\r" not in text
    value = json.loads(text, parse_float=str, parse_int=str)
    assert isinstance(value, dict)
    return value


# ------------------------------------------------------------------------------------------------ lines


def test_line_is_the_contracts_example() -> None:
    line = render.render({"data": b'{"status":"open","userref":0}', **dict(reversed(FIELDS.items()))})
    assert line == (
        b'{"id":"main:openOrders:run-1:17:0","ts":"2026-11-20T22:41:05.123456Z","event_name":"order","v":1,'
        b'"account":"main","channel":"openOrders","type":"update","connection":"run-1","sequence":17,'
        b'"order_id":"OAAAAA-BBBBB-CCCCC3","data":{"status":"open","userref":0}}\n'
    )


@settings(max_examples=examples(100))
@given(st.permutations(ORDER), st.integers(0, len(ORDER)))
def test_keys_stand_in_the_contracts_order(shuffled: list[str], kept: int) -> None:
    fields = {key: FIELDS.get(key, "TAAAAA-BBBBB-CCCCC1") for key in shuffled[:kept]}
    line = render.render({"data": b"{}", "engine": "online", **fields})
    assert list(json.loads(line)) == [*(key for key in ORDER if key in fields), "engine", "data"]


def test_keys_of_a_marker_come_after_the_common_ones_as_given() -> None:
    line = render.render({"cause": "silence", "detail": "…", "last_sequence": None, **FIELDS})
    assert list(json.loads(line))[-3:] == ["cause", "detail", "last_sequence"]


@settings(max_examples=examples(200))
@given(objects, st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_data_stands_byte_for_byte(value: dict[str, Any], separators: tuple[str, str], ascii_only: bool) -> None:
    data = json.dumps(value, separators=separators, ensure_ascii=ascii_only).encode("utf-8")
    line = render.render({**FIELDS, "data": data})
    assert line.endswith(b',"data":' + data + b"}\n")
    assert line.count(b"\n") == 1
    assert _one_object(line)["data"] == json.loads(data, parse_float=str, parse_int=str)


@settings(max_examples=examples(200))
@given(st.dictionaries(st.sampled_from(ORDER) | texts.filter(lambda key: key != "data"), texts, max_size=6))
def test_any_text_makes_one_line_of_json(fields: dict[str, str]) -> None:
    line = render.render({**fields, "data": b'{"vol":"1.00"}'})
    assert line.count(b"\n") == 1
    found = _one_object(line)
    assert found.pop("data") == {"vol": "1.00"}
    assert set(found.values()) <= {_carried(value) for value in fields.values()}
    assert set(found) == {_carried(key) for key in fields}


def _carried(text: str) -> str:
    """What a line carries of a text: all of it, lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


@settings(max_examples=examples(100))
@given(texts)
def test_text_without_surrogates_comes_back_as_it_was(text: str) -> None:
    found = json.loads(render.text(text))
    assert found == _carried(text)
    if not re.search("[\ud800-\udfff]", text):
        assert found == text


@settings(max_examples=examples(100))
@given(st.integers(0, 2**64 - 1) | st.none())
def test_numbers_and_null_stand_as_they_are(value: int | None) -> None:
    assert json.loads(render.render({**FIELDS, "sequence": value}))["sequence"] == value


@each("file", DATA, ids=name_of)
def test_line_of_a_real_item_holds_its_bytes(file: FrameFile) -> None:
    said = file.module.decode(file.frame)
    assert isinstance(said, Data)
    for item in said.items:
        line = render.render({**FIELDS, "data": item.data})
        assert line.endswith(b',"data":' + item.data + b"}\n")
        assert _one_object(line)
        assert len(line) < 16 * 1024


@each("file", [file for file in FRAMES if file.kind == "unknown"])
def test_unknown_frame_is_carried_whole(file: FrameFile) -> None:
    line = render.render({**FIELDS, **render.opaque(file.frame, is_json=True)})
    assert json.loads(line)["data"] == json.loads(file.frame)
    assert file.frame.replace(b"\n", b" ").strip() in line


@settings(max_examples=examples(100))
@given(st.binary(max_size=100))
def test_frame_that_is_no_json_is_carried_as_base64(content: bytes) -> None:
    line = render.render({**FIELDS, **render.opaque(content, is_json=False)})
    assert msgspec.json.decode(json.dumps(_one_object(line)["data_base64"]), type=bytes) == content


@settings(max_examples=examples(100))
@given(texts)
def test_lines_that_are_no_records_take_any_text_too(text: str) -> None:
    """A path that is no UTF-8 comes with surrogates; saying so must not fail."""
    line = render.encode({"path": text})
    assert line.encode("utf-8").count(b"\n") == 0
    assert json.loads(line)["path"] in (text, _carried(text))


# ------------------------------------------------------------------------------------------------ times

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_NS = 253_402_300_799_999_999_999  # the end of 9999


@each(
    ("unix_ns", "text"),
    [
        (1_795_214_465_123_456_000, "2026-11-20T22:41:05.123456Z"),
        (1_795_214_465_123_456_999, "2026-11-20T22:41:05.123456Z"),  # cut, not rounded
        (1_795_214_465_999_999_999, "2026-11-20T22:41:05.999999Z"),
        (1_795_214_466_000_000_000, "2026-11-20T22:41:06.000000Z"),
        (1_795_214_466_000_000_999, "2026-11-20T22:41:06.000000Z"),
        (1_795_214_466_000_001_000, "2026-11-20T22:41:06.000001Z"),
        (1_709_164_800_000_000_000, "2024-02-29T00:00:00.000000Z"),
        (951_782_400_000_000_000, "2000-02-29T00:00:00.000000Z"),
        (4_107_542_400_000_000_000, "2100-03-01T00:00:00.000000Z"),  # 2100 is no leap year
        (1_483_228_799_999_999_999, "2016-12-31T23:59:59.999999Z"),  # a leap second followed
        (1_483_228_800_000_000_000, "2017-01-01T00:00:00.000000Z"),
        (2_147_483_648_000_000_000, "2038-01-19T03:14:08.000000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (_LAST_NS, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_time_is_utc_with_six_digits_cut(unix_ns: int, text: str) -> None:
    assert render.timestamp(unix_ns) == text


@settings(max_examples=examples(200))
@given(st.lists(st.integers(0, _LAST_NS), min_size=1, max_size=5))
def test_time_agrees_with_the_calendar(times: list[int]) -> None:
    for unix_ns in times:
        text = render.timestamp(unix_ns)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", text)
        assert datetime.fromisoformat(text) == _EPOCH + timedelta(microseconds=unix_ns // 1000)


@settings(max_examples=examples(100))
@given(st.integers(0, _LAST_NS), st.integers(0, _LAST_NS))
def test_texts_sort_as_times_do(one: int, other: int) -> None:
    earlier, later = sorted((one, other))
    assert render.timestamp(earlier) <= render.timestamp(later)


# ------------------------------------------------------------------------------------------------ ids

names = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789_.-", min_size=1, max_size=8)
places = st.tuples(names, st.sampled_from(sorted(CHANNELS)), st.none(), names, st.integers(1, 99), st.integers(0, 9))
identities = names | names.map(lambda name: f"{name}:end")
identified = st.tuples(
    names, st.sampled_from(sorted(CHANNELS)), identities, names, st.integers(1, 99), st.integers(0, 9)
)


@settings(max_examples=examples(200))
@given(st.lists(places | identified, min_size=2, max_size=8))
def test_ids_are_equal_only_for_the_same_item(items: list[tuple[str, str, str | None, str, int, int]]) -> None:
    meant = {item[:3] if item[2] else item for item in items}
    assert len({render.item_id(*item) for item in items}) == len(meant)


def test_fill_has_one_id_whichever_way_it_came() -> None:
    fill = "TAAAAA-BBBBB-CCCCC9"
    snapshot = render.item_id("main", "ownTrades", fill, "run-1", 1, 3)
    update = render.item_id("main", "ownTrades", fill, "run-1", 7, 0)
    backfill = render.item_id("main", "ownTrades", fill, "other-9", "frame1", 12)
    assert snapshot == update == backfill


def test_accounts_and_channels_never_share_an_id() -> None:
    fill = "TAAAAA-BBBBB-CCCCC9"
    ids = {render.item_id(a, c, fill, "run-1", 1, 0) for a in ("main", "other") for c in CHANNELS}
    assert len(ids) == 2 * len(CHANNELS)


def test_items_of_one_frame_have_ids_of_their_own() -> None:
    for file in DATA:
        said = DIALECTS[file.dialect].decode(file.frame)
        assert isinstance(said, Data)
        ids = [
            render.item_id("main", said.channel, item.identity, "run-1", said.sequence or "frame1", index)
            for index, item in enumerate(said.items)
        ]
        repeated = len(said.items) - len({item.identity or index for index, item in enumerate(said.items)})
        assert len(ids) - len(set(ids)) == repeated


def test_equal_changes_of_two_frames_are_two_records() -> None:
    assert render.item_id("main", "openOrders", None, "run-1", 3, 0) != render.item_id(
        "main", "openOrders", None, "run-1", 4, 0
    )
    assert render.item_id("main", "openOrders", None, "run-1", 3, 0) != render.item_id(
        "main", "openOrders", None, "run-2", 3, 0
    )


@given(
    st.lists(
        st.tuples(
            texts, st.none() | st.integers(0, 2**40), st.none() | texts, st.none() | texts, st.just(b'{"a":1.0}')
        ),
        max_size=5,
    ),
    texts,
    texts,
    st.sampled_from([1, 1.0, True]),
)
def test_several_items_are_rendered_as_each_of_them_would_be(
    items: list[render.Line], account: str, ts: str, version: float
) -> None:
    common = {
        "event_name": "order",
        "v": version,
        "account": account,
        "type": "100 %b",
        "connection": "c",
    }
    each = [
        render.render(
            {"ts": ts, **common, **{key: value for key, value in zip(_OF_ITEM, item, strict=True) if value is not None}}
        )
        for item in items
    ]
    assert render.render_items(common, ts, items) == b"".join(each)


_OF_ITEM = ("id", "sequence", "order_id", "exec_id", "data")
