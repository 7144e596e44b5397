"""Both dialects: every recorded shape is read for what it is, and nothing that a peer sends makes decode raise."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kraken_feed.config.schema import DIALECTS
from kraken_feed.protocol import spot_v1, spot_v2
from kraken_feed.protocol.wire import (
    DEPTH,
    Ack,
    Data,
    EngineStatus,
    Heartbeat,
    Item,
    Pong,
    ServerError,
    Unknown,
    number,
    too_deep,
    unix_ns,
)
from kraken_feed.records import render
from tests.support.frame_files import DATA, FRAMES, FrameFile, frame, name_of

from ...support.cases import each
from ...support.examples import examples

EITHER = pytest.mark.parametrize("dialect", [spot_v1, spot_v2], ids=["v1", "v2"])
KINDS: dict[str, type] = {
    "systemStatus": EngineStatus,
    "heartbeat": Heartbeat,
    "pong": Pong,
    "ack": Ack,
    "ack-error": Ack,
    "error": ServerError,
    "snapshot": Data,
    "update": Data,
    "order-status": Unknown,  # nobody here enters orders
    "unknown": Unknown,
}
TOKEN = 'EXAMPLE+token/EXAMPLE"token'


def _decoded(file: FrameFile) -> Any:
    said = file.module.decode(file.frame)
    assert type(said) is KINDS[file.kind]
    return said


def _json(file: FrameFile) -> Any:
    """The frame as the standard library reads it, numbers as their digits."""
    return json.loads(file.frame, parse_float=str)


def _of(kind: str) -> pytest.MarkDecorator:
    files = [file for file in FRAMES if file.kind == kind]
    return pytest.mark.parametrize("file", files, ids=name_of)


def _entries(file: FrameFile) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """The items as the standard library reads them: v1's id and object, v2's object."""
    message = _json(file)
    if file.dialect == "v1":
        for entry in message[0]:
            yield from entry.items()
    else:
        for entry in message["data"]:
            yield None, entry


def _expected(file: FrameFile) -> list[tuple[str | None, str | None, str | None]]:
    """Order id, trade id, identity of each item."""
    expected: list[tuple[str | None, str | None, str | None]] = []
    for name, fields in _entries(file):
        if file.channel == "openOrders":
            ended = fields.get("status") in ("closed", "canceled", "expired")
            expected.append((name, None, f"{name}:end" if ended else None))
        elif file.channel == "ownTrades":
            expected.append((fields["ordertxid"], name, name))
        elif file.channel == "executions":
            order_id, kind = fields["order_id"], fields.get("exec_type")
            if kind == "trade":
                expected.append((order_id, fields["exec_id"], fields["exec_id"]))
            else:
                expected.append((order_id, None, f"{order_id}:end" if kind in spot_v2.TERMINAL else None))
        else:
            expected.append((None, None, fields.get("ledger_id")))
    return expected


# ------------------------------------------------------------------------------------------------ what frames say


@each("file", FRAMES, ids=name_of)
def test_frame_is_read_for_what_it_is(file: FrameFile) -> None:
    _decoded(file)


@each("file", DATA, ids=name_of)
def test_data_frame_has_its_channel_type_sequence_and_items(file: FrameFile) -> None:
    said, message = _decoded(file), _json(file)
    assert said.channel == file.channel
    assert len(said.items) == file.items
    if file.dialect == "v1":
        assert said.type is None
        assert said.sequence == (message[2]["sequence"] if len(message) > 2 else None)
    else:
        assert said.type == file.kind
        assert said.sequence == message.get("sequence")


@each("file", DATA, ids=name_of)
def test_items_have_their_ids(file: FrameFile) -> None:
    items: list[Item] = _decoded(file).items
    assert [(item.order_id, item.exec_id, item.identity) for item in items] == _expected(file)


@each("file", DATA, ids=name_of)
def test_item_bytes_are_the_frames(file: FrameFile) -> None:
    """Unchanged but for line breaks between tokens, which become blanks; in the frame's order."""
    frame = file.frame.replace(b"\r", b" ").replace(b"\n", b" ")
    position = 0
    for item, (_, fields) in zip(_decoded(file).items, _entries(file), strict=True):
        position = frame.index(item.data, position) + len(item.data)
        assert b"\n" in file.frame or item.data in file.frame
        assert json.loads(item.data, parse_float=str) == fields


def test_line_breaks_between_tokens_become_blanks_and_nothing_else_changes() -> None:
    (first, second) = _decoded(next(f for f in DATA if f.name == "v1-openOrders-delta-newlines")).items
    assert first.data == b'{ \t\t\t\t"status": "open", \t\t\t\t"userref": 0 \t\t\t}'
    assert second.data == b'{"vol_exec": "1.00000000", "userref" : 0 }'


@each("file", [file for file in DATA if file.dialect == "v1"], ids=name_of)
def test_v1_tells_changes_from_whole_objects(file: FrameFile) -> None:
    """A snapshot's items are whole; an update's may be, as a new order's or a trade without a reference."""
    mark = {"descr"} if file.channel == "openOrders" else {"userref", "cl_ord_id"}
    whole = [bool(mark & set(fields)) == (file.channel == "openOrders") for _, fields in _entries(file)]
    assert _decoded(file).partial == (not all(whole))
    assert all(whole) or file.kind == "update"


@_of("ack")
def test_acknowledgement_names_channel_request_and_verb(file: FrameFile) -> None:
    ack, message = _decoded(file), _json(file)
    assert ack.error is None
    assert ack.channel == file.channel
    assert ack.req_id == message.get("reqid" if file.dialect == "v1" else "req_id")
    verb = message["method"] if file.dialect == "v2" else message["status"].removesuffix("d")
    assert ack.verb == verb


@_of("ack-error")
def test_refused_subscription_carries_krakens_words(file: FrameFile) -> None:
    ack, message = _decoded(file), _json(file)
    assert ack.error == message.get("error", message.get("errorMessage"))
    assert ack.channel == file.channel
    assert ack.req_id == message.get("reqid" if file.dialect == "v1" else "req_id")


def test_warnings_of_an_acknowledgement_are_kept() -> None:
    file = next(f for f in FRAMES if f.name == "v2-executions-ack-warnings")
    assert _decoded(file).warnings == tuple(_json(file)["result"]["warnings"])


@_of("error")
def test_generic_error_carries_krakens_words(file: FrameFile) -> None:
    error, message = _decoded(file), _json(file)
    assert error.text == message.get("error", message.get("errorMessage", message.get("Error")))
    assert error.req_id == message.get("reqid", message.get("req_id"))


@_of("systemStatus")
def test_engine_state_comes_with_every_digit_of_the_connection_id(file: FrameFile) -> None:
    status, message = _decoded(file), _json(file)
    row = message if file.dialect == "v1" else message["data"][0]
    assert status.engine == row.get("status", row.get("system"))
    found = re.search(rb'"connection(?:ID|_id)":\s*(\d+)', file.frame)
    assert status.connection_id == (found[1].decode() if found else "")


@each("kind", ["unknown", "order-status"])
def test_frame_that_nobody_knows_is_still_json(kind: str) -> None:
    for file in FRAMES:
        if file.kind == kind:
            said = _decoded(file)
            assert said.json
            assert said.why


@EITHER
@each(
    "content",
    [
        b"",
        b" ",
        b"\x00",
        b"{",
        b"[",
        b"nonsense",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"a":"\xed\xa0\x80"}',
        b"{}}",
        b"NaN",
    ],
)
def test_what_is_no_json_is_said_to_be_none(dialect: ModuleType, content: bytes) -> None:
    said = dialect.decode(content)
    assert isinstance(said, Unknown)
    assert not said.json


@EITHER
@pytest.mark.parametrize("content", [b"null", b"1", b'"text"', b"{}", b"[]", b"[[]]", b'{"data":[]}', b'{"event":""}'])
def test_json_of_no_known_shape_is_unknown(dialect: ModuleType, content: bytes) -> None:
    said = dialect.decode(content)
    assert isinstance(said, Unknown)
    assert said.json


ORDER = b'{"status":"open","userref":0}'


@each(
    ("content", "ids"),
    [
        (b'[[{}],"openOrders",{"sequence":2}]', []),
        (b'[[null,{"OAAAAA-BBBBB-CCCCC1":%b}],"openOrders",{"sequence":2}]', ["OAAAAA-BBBBB-CCCCC1"]),
        (b'[[{"OAAAAA-BBBBB-CCCCC1":%b},{}],"openOrders",{"sequence":2}]', ["OAAAAA-BBBBB-CCCCC1"]),
        (b'[[{"O1":%b,"O2":7},"O3",4],"openOrders",{"sequence":2}]', ["O1"]),
        (b'[[{"TAAAAA-BBBBB-CCCCC1":null}],"ownTrades",{"sequence":2}]', []),
        (b'[[{"O1":%b}],"openOrders",{"sequence":2},{"more":1}]', ["O1"]),
        (b'[[{"O1":%b}],"openOrders",{"sequence":2},"more"]', ["O1"]),
        (b'[[{"O1":%b}],"openOrders","more",{"sequence":2}]', ["O1"]),
    ],
)
def test_v1_reads_the_good_items_of_an_odd_frame_and_says_that_it_is_odd(content: bytes, ids: list[str]) -> None:
    said = spot_v1.decode(content.replace(b"%b", ORDER))
    assert isinstance(said, Data)
    assert [(item.order_id, item.data) for item in said.items] == [(name, ORDER) for name in ids]
    assert (said.sequence, said.odd, said.partial) == (2, True, True)


@each(
    ("rows", "count", "odd"),
    [
        (b'null,{"order_id":"O1"}', 1, True),
        (b'{"order_id":"O1"},1,"two",[3]', 1, True),
        (b'{"order_id":"O1"},{"order_id":"O2","x":"\\ud800"}', 2, False),
    ],
)
def test_v2_reads_the_good_items_of_an_odd_frame_and_says_that_it_is_odd(rows: bytes, count: int, odd: bool) -> None:
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % rows)
    assert isinstance(said, Data)
    assert [item.order_id for item in said.items] == ["O1", "O2"][:count]
    assert (said.sequence, said.odd) == (2, odd)


def test_a_member_that_comes_twice_in_v2_is_odd_once_a_frame_is_read_part_by_part() -> None:
    frame = b'{"channel":"executions","type":"update","data":[{"order_id":"O1"}],"data":[],"sequence":2.0}'
    assert spot_v2.decode(frame) == Data("executions", [], 2, "update", odd=True)


@each(
    ("dialect", "content"),
    [
        (spot_v1, b'[{"OAAAAA-BBBBB-CCCCC1":{}},"openOrders",{"sequence":2}]'),
        (spot_v1, b'["ownTrades","openOrders",{"sequence":"2"}]'),
        (spot_v1, b'[7,[{"O1":{}}],"openOrders",{"sequence":2}]'),
        (spot_v1, b'["openOrders",{"sequence":2}]'),
        (spot_v2, b'{"channel":"executions","type":"correction","sequence":2,"data":[{"exec_id":"T1"}]}'),
        (spot_v2, b'{"channel":"executions","type":null,"sequence":2,"data":[]}'),
        (spot_v2, b'{"channel":"executions","type":["update"],"sequence":2,"data":[]}'),
        (spot_v2, b'{"channel":"executions","sequence":2.0,"data":null}'),
        (spot_v2, b'{"channel":"executions","type":"update","sequence":2}'),
        (spot_v2, b'{"channel":"executions","type":"update","sequence":2,"data":{"order_id":"O1"}}'),
        (spot_v2, b'{"channel":"executions","type":"snapshot","sequence":2,"data":"none"}'),
    ],
)
def test_a_frame_that_is_not_understood_still_tells_its_channel_and_sequence(
    dialect: ModuleType, content: bytes
) -> None:
    said = dialect.decode(content)
    assert isinstance(said, Unknown)
    channel = "openOrders" if dialect is spot_v1 else "executions"
    assert (said.json, said.channel, said.sequence) == (True, channel, 2)


@EITHER
@pytest.mark.parametrize("content", [b'["openOrders"]', b'{"channel":"executions"}', b"[]", b"{}", b'[0,"book-10"]'])
def test_a_frame_without_a_sequence_has_none(dialect: ModuleType, content: bytes) -> None:
    said = dialect.decode(content)
    assert isinstance(said, Unknown)
    assert said.sequence is None


@each("kind", ["snapshot", "update"])
@each("channel", ["executions", "balances"])
def test_v2_takes_null_for_an_empty_list_of_a_known_channel(kind: str, channel: str) -> None:
    said = spot_v2.decode(b'{"channel":"%b","type":"%b","sequence":1,"data":null}' % (channel.encode(), kind.encode()))
    assert said == Data(channel, [], 1, kind)  # type: ignore[arg-type]  # one of the two


@each("value", ["", "null", "0", "[]", "true", "{}"])
def test_a_sequence_that_is_no_number_is_none_and_odd(value: str) -> None:
    frame = b'{"channel":"executions","type":"update","sequence":%b,"data":[]}' % (value or '""').encode()
    said = spot_v2.decode(frame)
    assert isinstance(said, Data)
    assert (said.sequence, said.odd) == {"null": (None, False), "0": (0, False)}.get(value, (None, True))


# ------------------------------------------------------------------------------------------------ by value


@each("sequence", ["2", "2.0", "2e0", '"2"', '"2.0"', "20e-1", '"0.2e1"'])
@each(
    ("dialect", "shape"),
    [
        (spot_v1, '[[{"O1":{"status":"open"}}],"openOrders",{"sequence":%s}]'),
        (spot_v2, '{"channel":"executions","type":"update","sequence":%s,"data":[{"order_id":"O1"}]}'),
    ],
)
def test_a_sequence_is_read_by_its_value(dialect: ModuleType, shape: str, sequence: str) -> None:
    said = dialect.decode((shape % sequence).encode())
    assert isinstance(said, Data)
    assert (said.sequence, len(said.items), said.odd) == (2, 1, False)


@given(st.integers(-(10**20), 10**20))
def test_an_integer_is_its_value_in_every_spelling(value: int) -> None:
    assert number(value) == value
    assert number(str(value)) == value
    assert number(f"{value}.0") == value
    assert number(f"{value}e0") == value
    assert number(f"{value}0e-1") == value
    if abs(value) < 2**53:
        assert number(float(value)) == value


@each(
    "value",
    [None, True, False, "", " 1", "1.5", 1.5, "x", [], {}, float("inf"), float("nan"), "1e999999999", "9" * 41, "٣",
     "1_0", "+1", "15e-1"],
)  # fmt: skip
def test_what_is_no_integer_has_no_value(value: object) -> None:
    assert number(value) is None


@each(
    ("text", "ns"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("2025-10-09T09:05:10.123456Z", 1_760_000_710_123_456_000),
        ("2025-10-09T09:05:10.123456789123Z", 1_760_000_710_123_456_789),
        ("2025-10-09T11:05:10.5+02:00", 1_760_000_710_500_000_000),
        ("1969-12-31T23:59:59.5Z", -500_000_000),
        ("2025-13-09T09:05:10Z", None),
        ("2025-10-09T09:05:60Z", None),
        ("2025-10-09", None),
        ("", None),
        (None, None),
        (1.5, None),
    ],
)
def test_times_are_read_to_the_nanosecond(text: object, ns: int | None) -> None:
    assert unix_ns(text) == ns


def test_a_pong_of_v2_has_krakens_times() -> None:
    frame = (
        b'{"method":"pong","req_id":101,"time_in":"2025-10-09T09:05:10.123456Z",'
        b'"time_out":"2025-10-09T09:05:10.123470Z"}'
    )
    assert spot_v2.decode(frame) == Pong(101, 1_760_000_710_123_456_000, 1_760_000_710_123_470_000)


@each(
    "times",
    [
        "",
        ',"time_in":"2025-10-09T09:05:10Z"',
        ',"time_in":"x","time_out":"2025-10-09T09:05:10Z"',
        ',"time_in":"2025-10-09T09:05:11Z","time_out":"2025-10-09T09:05:10Z"',
        ',"time_in":7,"time_out":[]',
    ],
)
def test_a_pong_whose_times_are_odd_has_none(times: str) -> None:
    assert spot_v2.decode(b'{"method":"pong","req_id":1%b}' % times.encode()) == Pong(1)
    assert spot_v1.decode(b'{"event":"pong","reqid":1%b}' % times.encode()) == Pong(1)


# ------------------------------------------------------------------------------------------------ ids


@each("empty", ['""', "null"])
def test_an_empty_id_is_no_identity_in_v2(empty: str) -> None:
    rows = [
        f'{{"asset":"EUR","ledger_id":{empty}}}',
        f'{{"order_id":{empty},"exec_type":"filled"}}',
        f'{{"order_id":{empty},"exec_type":"trade","exec_id":{empty}}}',
    ]
    for more in (b"", b",null"):  # the fast way, and part by part
        data = ",".join(rows).encode()
        said = spot_v2.decode(b'{"channel":"balances","type":"update","data":[%b%b],"sequence":2}' % (data, more))
        assert isinstance(said, Data)
        assert said.items == [Item(row.encode()) for row in rows]


def test_an_empty_id_is_no_identity_in_v1() -> None:
    for more in (b"", b",null"):
        orders = spot_v1.decode(b'[[{"":{"status":"closed"}}%b],"openOrders",{"sequence":2}]' % more)
        assert isinstance(orders, Data)
        assert orders.items == [Item(b'{"status":"closed"}')]
        trades = spot_v1.decode(b'[[{"":{"ordertxid":""}},{"T1":{"ordertxid":null}}%b],"ownTrades"]' % more)
        assert isinstance(trades, Data)
        assert trades.items == [Item(b'{"ordertxid":""}'), Item(b'{"ordertxid":null}', None, "T1", "T1")]


@each("status", ["closed", "Canceled", "EXPIRED"])
def test_v1_ends_an_order_in_any_letter_case(status: str) -> None:
    for more in (b"", b",null"):
        said = spot_v1.decode(b'[[{"O1":{"status":"%b"}}%b],"openOrders",{"sequence":2}]' % (status.encode(), more))
        assert isinstance(said, Data)
        assert said.items[0].identity == "O1:end"


@each("status", ['"rejected"', '"open"', '"pending"', "null", "1", "[]"])
def test_any_other_state_leaves_the_order_open(status: str) -> None:
    said = spot_v1.decode(b'[[{"O1":{"status":%b}}],"openOrders",{"sequence":2}]' % status.encode())
    assert isinstance(said, Data)
    assert said.items[0].identity is None


# ------------------------------------------------------------------------------------------------ lone surrogates


@each("escape", [rb"\ud800", rb"\uDFFF", rb"\\\ud83d x", rb"\ud83d\ud83d"])
def test_a_lone_surrogate_in_an_item_changes_neither_its_bytes_nor_its_ids(escape: bytes) -> None:
    order = b'{"misc":"%b","status":"closed","vol":1.50}' % escape
    said = spot_v1.decode(b'[[{"O1":%b}],"openOrders",{"sequence":2}]' % order)
    assert said == Data("openOrders", [Item(order, "O1", None, "O1:end")], 2, None, True)
    row = b'{"order_id":"O1","exec_type":"Trade","exec_id":"T1","text":"%b"}' % escape
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % row)
    assert said == Data("executions", [Item(row, "O1", "T1", "T1")], 2, "update")


def test_an_id_with_a_lone_surrogate_stays_itself() -> None:
    said = spot_v2.decode(
        rb'{"channel":"executions","type":"update","data":[{"order_id":"\ud800"},{"order_id":"\ud801"}]}'
    )
    assert isinstance(said, Data)
    assert [item.order_id for item in said.items] == ["\ud800", "\ud801"]


def test_krakens_words_with_a_lone_surrogate_are_legible() -> None:
    said = spot_v1.decode(rb'{"errorMessage":"E\ud800","event":"subscriptionStatus","reqid":1,"status":"error"}')
    assert said == Ack("subscribe", 1, None, r"E\ud800")
    said = spot_v2.decode(rb'{"error":"E\ud800","method":"subscribe","req_id":1,"success":false}')
    assert said == Ack("subscribe", 1, None, r"E\ud800")


def test_an_item_keeps_a_number_of_more_digits_than_python_converts() -> None:
    row = b'{"order_id":"O1","q":%b}' % (b"9" * 5000)
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b,null],"sequence":2}' % row)
    assert said == Data("executions", [Item(row, "O1")], 2, "update", odd=True)


# ------------------------------------------------------------------------------------------------ the fast way, depth


@pytest.mark.parametrize("file", DATA, ids=name_of)
def test_recorded_data_is_read_the_fast_way(file: FrameFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file.module, "_decode_slowly", None)
    monkeypatch.setattr(file.module, "too_deep", None)
    assert isinstance(file.module.decode(file.frame), Data)


def _nested(levels: int, kind: bytes, filler: bytes = b"") -> bytes:
    opening, closing = {b"[": (b"[", b"]"), b"{": (b'{"a":', b"}")}[kind]
    return opening * levels + b"1" + filler + closing * levels


@EITHER
@pytest.mark.parametrize("kind", [b"[", b"{"])
def test_a_frame_that_nests_too_deep_is_not_decoded(dialect: ModuleType, kind: bytes) -> None:
    shape = b'{"channel":"executions","type":"update","sequence":2,"data":[{"a":%b}]}'
    if dialect is spot_v1:
        shape = b'[[{"O1":{"a":%b}}],"openOrders",{"sequence":2}]'
    outer = 3 if dialect is spot_v2 else 4
    assert isinstance(dialect.decode(shape % _nested(DEPTH - outer, kind)), Data)
    for levels in (DEPTH - outer + 1, 50_000):
        said = dialect.decode(shape % _nested(levels, kind))
        assert isinstance(said, Unknown)
        assert (said.json, said.why) == (False, "nested deeper than 500 levels")


@each("text", [b"[" * 1000, rb"\"" + b"[{" * 500, b"[" * 1000 + rb"\\", b'","[":"' + b"{" * 999])
def test_brackets_in_strings_are_no_levels(text: bytes) -> None:
    row = b'{"order_id":"O1","text":"%b"}' % text
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % row)
    assert said == Data("executions", [Item(row, "O1")], 2, "update")


def test_many_items_side_by_side_are_no_depth() -> None:
    entries = b",".join([b'{"O1":{"descr":{}}}'] * 1000)
    said = spot_v1.decode(b'[[%b],"openOrders",{"sequence":1}]' % entries)
    assert isinstance(said, Data)
    assert len(said.items) == 1000


_text = st.text(st.sampled_from('[]{}"\\a'), max_size=8)
_bracketed = st.recursive(
    st.none() | _text, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4)
)


def _levels(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_levels, value.values()), default=0)
    return 1 + max(map(_levels, value), default=0) if isinstance(value, list) else 0


@given(_bracketed, st.integers(-2, 2))
def test_the_depth_is_that_of_the_value(value: object, off: int) -> None:
    around = max(0, DEPTH - _levels(value) + off)
    frame = b"[" * around + json.dumps(value).encode() + b"]" * around
    assert too_deep(frame) == (around + _levels(value) > DEPTH)


@each("kind", ["", ',"type":"delta"', ',"type":null', ',"type":["update"]'])
def test_v2_data_that_is_neither_snapshot_nor_update_is_unknown(kind: str) -> None:
    assert isinstance(spot_v2.decode(b'{"channel":"executions"%b,"data":[]}' % kind.encode()), Unknown)


@each("success", ["", ',"success":null', ',"success":"true"', ',"success":1', ',"success":false'])
def test_v2_answer_without_a_plain_true_is_a_failure(success: str) -> None:
    said = spot_v2.decode(b'{"method":"subscribe","req_id":1%b}' % success.encode())
    assert isinstance(said, Ack)
    assert said.error


@each("kind", ["trade", "TRADE", "Trade"])
def test_v2_kinds_are_compared_without_regard_to_case(kind: str) -> None:
    row = b'{"exec_type":"%b","exec_id":"TAAAAA-BBBBB-CCCCC1"}' % kind.encode()
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % row)
    assert isinstance(said, Data)
    assert said.items == [Item(row, None, "TAAAAA-BBBBB-CCCCC1", "TAAAAA-BBBBB-CCCCC1")]


# ------------------------------------------------------------------------------------------------ requests


@each(
    ("channel", "request_"),
    [
        ("openOrders", {"event": "subscribe", "reqid": 7, "subscription": {"name": "openOrders", "token": TOKEN}}),
        (
            "ownTrades",
            {
                "event": "subscribe",
                "reqid": 7,
                "subscription": {"name": "ownTrades", "token": TOKEN, "snapshot": True, "consolidate_taker": True},
            },
        ),
        (
            "executions",
            {
                "method": "subscribe",
                "params": {
                    "channel": "executions",
                    "token": TOKEN,
                    "snap_orders": True,
                    "snap_trades": True,
                    "order_status": True,
                },
                "req_id": 7,
            },
        ),
        (
            "balances",
            {
                "method": "subscribe",
                "params": {"channel": "balances", "token": TOKEN, "snapshot": True},
                "req_id": 7,
            },
        ),
    ],
)
def test_subscription_is_asked_for_with_its_snapshot(channel: str, request_: dict[str, object]) -> None:
    dialect = next(dialect for dialect in DIALECTS.values() if channel in dialect.EVENT_NAMES)
    assert json.loads(dialect.subscribe(channel, TOKEN, 7)) == request_


def test_pings_are_numbered() -> None:
    assert json.loads(spot_v1.ping(8)) == {"event": "ping", "reqid": 8}
    assert json.loads(spot_v2.ping(8)) == {"method": "ping", "req_id": 8}


def test_dialects_name_their_channels_and_records() -> None:
    assert {name: dict(dialect.EVENT_NAMES) for name, dialect in DIALECTS.items()} == {
        "v1": {"openOrders": "order", "ownTrades": "trade"},
        "v2": {"executions": "execution", "balances": "balance"},
    }


# ------------------------------------------------------------------------------------------------ anything at all


def _check(content: bytes) -> None:
    """Decode never raises, gives a frame's type, and promises nothing that a line cannot keep."""
    for dialect in (spot_v1, spot_v2):
        said = dialect.decode(content)
        assert isinstance(said, Data | Ack | EngineStatus | Heartbeat | Pong | ServerError | Unknown)
        if isinstance(said, Data):
            for item in said.items:
                assert b"\n" not in item.data
                assert b"\r" not in item.data
                assert isinstance(_strict(item.data), dict)
        if isinstance(said, Unknown):
            line = render.render({"id": "x", **render.opaque(content, said.json)})
            assert line.count(b"\n") == 1
            assert isinstance(_strict(line), dict)


def _strict(text: bytes) -> object:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text.decode(), parse_float=str, parse_int=str, parse_constant=refuse)


_frames = st.sampled_from([file.frame for file in FRAMES])


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(_frames))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        match draw(st.sampled_from(["flip", "insert", "delete", "cut", "repeat"])):
            case "flip" if at < len(content):
                content[at] ^= draw(st.integers(1, 255))
            case "insert":
                content[at:at] = draw(st.sampled_from(_FRAGMENTS))
            case "delete":
                del content[at : at + draw(st.integers(1, 20))]
            case "cut":
                del content[at:]
            case "repeat":
                content[at:at] = content[at : at + 50]
    return bytes(content)


_FRAGMENTS = [
    b"\x00", b"\n", b"\r\n", b"\t", b"\x1b[2J", b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"null", b"true",
    b"-", b"1e999", b"-0", b"0" * 30, b"9" * 5000, b"1.", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\udc00",
    b"\xe2\x80\xa8",    b"[" * 60, b'{"a":' * 60, b'"sequence":1e2,', b'"status":[{}],',
]  # fmt: skip
_KEYS = """event status reqid channelName subscription errorMessage connectionID Error sequence descr ordertxid userref
channel type data method req_id success error result warnings order_id exec_id exec_type ledger_id system"""
_WORDS = """openOrders ownTrades executions balances status heartbeat subscribe unsubscribe pong subscriptionStatus
systemStatus error update snapshot trade filled closed subscribed unsubscribed"""
_keys = st.sampled_from(_KEYS.split())
_words = st.sampled_from(_WORDS.split())
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_shaped = st.dictionaries(_keys, _words | _values, max_size=8) | st.tuples(_values, _words, _values)


@settings(max_examples=examples(200))
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded(content: bytes) -> None:
    _check(content)


@settings(max_examples=examples(200))
@given(_values | _shaped)
@example({"event": "error", "errorMessage": 10**4000})
@example({"event": "subscriptionStatus", "status": {"a": [1]}, "subscription": {"name": 1}})
@example({"error": "\ud800"})
@example({"method": "subscribe", "result": {"warnings": [None, {"a": 1}, "\udfff"]}})
def test_any_json_is_decoded(value: object) -> None:
    _check(json.dumps(value).encode())


@settings(max_examples=examples(200))
@given(_mutated())
def test_damaged_frames_are_decoded(content: bytes) -> None:
    _check(content)


@each("depth", [100, 900, 1_100, 100_000])
@each(
    "shape",
    [
        b"%b",
        b'{"event":%b}',
        b'{"error":%b}',
        b'[[{"O":%b}],"openOrders",{"sequence":1}]',
        b'[[{"O":{"a":%b}}],"openOrders"]',
        b'{"channel":"executions","type":"update","data":[{"a":%b}]}',
        b'{"method":"subscribe","result":%b}',
    ],
)
@EITHER
def test_deep_nesting_is_decoded(dialect: ModuleType, shape: bytes, depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")):
        content = shape % (opening * depth + b"1" + closing * depth)
        assert isinstance(dialect.decode(content), Data | Ack | ServerError | Unknown)


@pytest.mark.parametrize("digits", [b"9" * 19, b"9" * 20, b"9" * 5000, b"1e400", b"-1e-400", b"0." + b"1" * 5000])
@EITHER
def test_huge_numbers_are_decoded(dialect: ModuleType, digits: bytes) -> None:
    for shape in (
        b'{"event":"pong","reqid":%b}',
        b'{"event":"error","errorMessage":%b}',
        b'{"event":"systemStatus","status":%b,"connectionID":%b}',
        b'[[{"O":{"status":%b,"vol":%b}}],"openOrders",{"sequence":1}]',
        b'[[],"openOrders",{"sequence":%b}]',
        b'{"method":"pong","req_id":%b}',
        b'{"error":%b}',
        b'{"channel":"executions","type":"update","sequence":%b,"data":[{"order_id":%b}]}',
    ):
        dialect.decode(shape.replace(b"%b", digits))


def test_digits_of_items_are_never_rounded() -> None:
    row = b'{"order_id":"OAAAAA-BBBBB-CCCCC1","order_qty":123456789.01234567890,"limit_price":1.50E+3,"cum_qty":1e-08}'
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % row)
    assert isinstance(said, Data)
    assert said.items[0].data == row


def test_frame_of_the_other_dialect_is_unknown() -> None:
    for file in DATA:
        other = spot_v2 if file.dialect == "v1" else spot_v1
        assert isinstance(other.decode(file.frame), Unknown)
    assert isinstance(spot_v1.decode(frame("v2-executions-ack")), Unknown)
