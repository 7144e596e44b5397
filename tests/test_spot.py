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

from kraken_feed import record, spot_v1, spot_v2
from kraken_feed.config import DIALECTS
from kraken_feed.wire import Ack, Data, EngineStatus, Heartbeat, Item, Pong, ServerError, Unknown
from tests.frame_files import DATA, FRAMES, FrameFile, frame, name_of

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


@pytest.mark.parametrize("file", FRAMES, ids=name_of)
def test_frame_is_read_for_what_it_is(file: FrameFile) -> None:
    _decoded(file)


@pytest.mark.parametrize("file", DATA, ids=name_of)
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


@pytest.mark.parametrize("file", DATA, ids=name_of)
def test_items_have_their_ids(file: FrameFile) -> None:
    items: list[Item] = _decoded(file).items
    assert [(item.order_id, item.exec_id, item.identity) for item in items] == _expected(file)


@pytest.mark.parametrize("file", DATA, ids=name_of)
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


@pytest.mark.parametrize("file", [file for file in DATA if file.dialect == "v1"], ids=name_of)
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


@pytest.mark.parametrize("kind", ["unknown", "order-status"])
def test_frame_that_nobody_knows_is_still_json(kind: str) -> None:
    for file in FRAMES:
        if file.kind == kind:
            said = _decoded(file)
            assert said.json
            assert said.why


@EITHER
@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    "content",
    [
        b'[[{}],"openOrders",{"sequence":2}]',
        b'[[{"OAAAAA-BBBBB-CCCCC1":{}},{}],"openOrders",{"sequence":2}]',
        b'[[{"OAAAAA-BBBBB-CCCCC1":"open"}],"openOrders",{"sequence":2}]',
        b'[[{"OAAAAA-BBBBB-CCCCC1":{}}],"openOrders",{"sequence":"2"}]',
        b'[[{"TAAAAA-BBBBB-CCCCC1":null}],"ownTrades",{"sequence":2}]',
        b'[{"OAAAAA-BBBBB-CCCCC1":{}},"openOrders",{"sequence":2}]',
    ],
)
def test_v1_data_of_another_shape_is_unknown_rather_than_half_read(content: bytes) -> None:
    assert isinstance(spot_v1.decode(content), Unknown)


@pytest.mark.parametrize("kind", ["", ',"type":"delta"', ',"type":null', ',"type":["update"]'])
def test_v2_data_that_is_neither_snapshot_nor_update_is_unknown(kind: str) -> None:
    assert isinstance(spot_v2.decode(b'{"channel":"executions"%b,"data":[]}' % kind.encode()), Unknown)


@pytest.mark.parametrize("success", ["", ',"success":null', ',"success":"true"', ',"success":1', ',"success":false'])
def test_v2_answer_without_a_plain_true_is_a_failure(success: str) -> None:
    said = spot_v2.decode(b'{"method":"subscribe","req_id":1%b}' % success.encode())
    assert isinstance(said, Ack)
    assert said.error


@pytest.mark.parametrize("kind", ["trade", "TRADE", "Trade"])
def test_v2_kinds_are_compared_without_regard_to_case(kind: str) -> None:
    row = b'{"exec_type":"%b","exec_id":"TAAAAA-BBBBB-CCCCC1"}' % kind.encode()
    said = spot_v2.decode(b'{"channel":"executions","type":"update","data":[%b],"sequence":2}' % row)
    assert isinstance(said, Data)
    assert said.items == [Item(row, None, "TAAAAA-BBBBB-CCCCC1", "TAAAAA-BBBBB-CCCCC1")]


# ------------------------------------------------------------------------------------------------ requests


@pytest.mark.parametrize(
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
    assert {dialect.NAME: dict(dialect.EVENT_NAMES) for dialect in DIALECTS.values()} == {
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
            line = record.render({"id": "x", **record.opaque(content, said.json)})
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


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded(content: bytes) -> None:
    _check(content)


@settings(max_examples=200)
@given(_values | _shaped)
@example({"event": "error", "errorMessage": 10**4000})
@example({"event": "subscriptionStatus", "status": {"a": [1]}, "subscription": {"name": 1}})
@example({"error": "\ud800"})
@example({"method": "subscribe", "result": {"warnings": [None, {"a": 1}, "\udfff"]}})
def test_any_json_is_decoded(value: object) -> None:
    _check(json.dumps(value).encode())


@settings(max_examples=200)
@given(_mutated())
def test_damaged_frames_are_decoded(content: bytes) -> None:
    _check(content)


@pytest.mark.parametrize("depth", [100, 900, 1_100, 100_000])
@pytest.mark.parametrize(
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
