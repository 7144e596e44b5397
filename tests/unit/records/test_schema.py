"""The published schema takes every line that the program writes, and refuses what the contract rules out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator

from kraken_feed.config.schema import DIALECTS
from kraken_feed.protocol.wire import Data
from kraken_feed.records import render
from kraken_feed.records.schema import record_schema
from tests.support.frame_files import DATA, FRAMES, FrameFile, name_of

from ...support.cases import each

TS = "2026-11-20T22:41:05.123456Z"
COMMON: dict[str, Any] = {"id": "x", "ts": TS, "v": 1, "account": "main", "channel": "openOrders"}
ORDER: dict[str, Any] = {
    **COMMON,
    "event_name": "order",
    "type": "update",
    "connection": "run-1",
    "sequence": 17,
    "order_id": "OAAAAA-BBBBB-CCCCC3",
    "data": {"status": "open"},
}
MARKERS: list[dict[str, Any]] = [
    {"event_name": "feed.live", "connection": "run-1", "attempt": 1, "engine": "online"},
    {"event_name": "feed.live", "connection": "run-1", "attempt": 7, "engine": None},
    {
        "event_name": "feed.lost",
        "connection": "run-1",
        "cause": "silence",
        "detail": "no frame for 10 s",
        "last_sequence": 17,
        "last_ts": TS,
    },
    {
        "event_name": "feed.lost",
        "connection": "run-1",
        "cause": "closed",
        "detail": "",
        "last_sequence": None,
        "last_ts": TS,
    },
    {"event_name": "feed.status", "connection": "run-1", "engine": "maintenance"},
    {"event_name": "feed.stopped", "connection": "run-1", "reason": "SIGTERM"},
    {"event_name": "feed.stopped", "connection": None, "reason": "SIGTERM"},
]

VALIDATOR = Draft202012Validator(record_schema())


def _valid(fields: object) -> bool:
    return bool(VALIDATOR.is_valid(fields))


def _lines(file: FrameFile) -> Iterator[bytes]:
    """The records of a frame as the program writes them."""
    said = file.module.decode(file.frame)
    assert isinstance(said, Data)
    for index, item in enumerate(said.items):
        fields: dict[str, Any] = {
            **COMMON,
            "id": render.item_id("main", said.channel, item.identity, "run-1", said.sequence or "frame1", index),
            "event_name": DIALECTS[file.dialect].EVENT_NAMES[said.channel],
            "channel": said.channel,
            "type": file.kind,
            "connection": "run-1",
        }
        optional = {"sequence": said.sequence, "order_id": item.order_id, "exec_id": item.exec_id}
        fields.update({key: value for key, value in optional.items() if value is not None})
        yield render.render({**fields, "data": item.data})


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(record_schema())
    assert record_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_schema_is_json() -> None:
    assert json.loads(render.encode(record_schema())) == record_schema()


@each("file", DATA, ids=name_of)
def test_line_of_every_real_item_is_valid(file: FrameFile) -> None:
    for line in _lines(file):
        VALIDATOR.validate(json.loads(line))


def test_recovered_item_without_a_sequence_is_valid() -> None:
    recovered = {key: value for key, value in ORDER.items() if key != "sequence"} | {"type": "backfill"}
    VALIDATOR.validate(recovered)


@each("marker", MARKERS)
def test_line_of_every_marker_is_valid(marker: dict[str, Any]) -> None:
    VALIDATOR.validate(json.loads(render.render({**COMMON, **marker})))


@each("file", [file for file in FRAMES if file.kind == "unknown"])
def test_line_of_an_unknown_frame_is_valid(file: FrameFile) -> None:
    fields = {**COMMON, "event_name": "unknown", "connection": "run-1"}
    VALIDATOR.validate(json.loads(render.render({**fields, **render.opaque(file.frame, is_json=True)})))
    VALIDATOR.validate(json.loads(render.render({**fields, **render.opaque(b"\xff" + file.frame, is_json=False)})))


def test_fields_and_events_may_be_added_within_a_version() -> None:
    VALIDATOR.validate({**ORDER, "latency_us": 12})
    VALIDATOR.validate({**COMMON, "event_name": "feed.something_new", "further": True})


@each("key", ["id", "ts", "event_name", "v", "account", "channel"])
@each("line", [ORDER, {**COMMON, **MARKERS[0]}])
def test_common_keys_are_required(line: dict[str, Any], key: str) -> None:
    assert _valid(line)
    assert not _valid({name: value for name, value in line.items() if name != key})


@each("key", ["type", "data"])
def test_item_has_a_type_and_data(key: str) -> None:
    assert not _valid({name: value for name, value in ORDER.items() if name != key})


@each(
    ("event_name", "key"),
    [
        ("feed.live", "connection"),
        ("feed.live", "attempt"),
        ("feed.live", "engine"),
        ("feed.lost", "connection"),
        ("feed.lost", "cause"),
        ("feed.lost", "last_sequence"),
        ("feed.lost", "last_ts"),
        ("feed.status", "engine"),
        ("feed.stopped", "connection"),
        ("feed.stopped", "reason"),
    ],
)
def test_marker_has_its_further_keys(event_name: str, key: str) -> None:
    marker = next(marker for marker in MARKERS if marker["event_name"] == event_name)
    assert _valid({**COMMON, **marker})
    assert not _valid({**COMMON, **{name: value for name, value in marker.items() if name != key}})


@each(
    "wrong",
    [
        {"id": 7},
        {"ts": "2026-11-20T22:41:05Z"},
        {"ts": "2026-11-20T22:41:05.123456+00:00"},
        {"ts": "2026-11-20T22:41:05.123456789Z"},
        {"ts": 1_795_214_465.123456},
        {"v": 2},
        {"v": "1"},
        {"account": None},
        {"type": "delta"},
        {"type": None},
        {"connection": 1},
        {"sequence": "17"},
        {"sequence": 17.5},
        {"order_id": None},
        {"exec_id": 71234567},
        {"data": "text"},
        {"data": [{}]},
        {"channel": "ownTrades"},
        {"event_name": "trade"},
        {"event_name": "execution"},
        {"event_name": "balance"},
        {"event_name": "feed.live"},
        {"event_name": "feed.lost"},
        {"event_name": None},
    ],
    ids=repr,
)
def test_wrong_line_is_refused(wrong: dict[str, Any]) -> None:
    assert not _valid({**ORDER, **wrong})


@each("value", [[], "text", 1, None])
def test_line_that_is_no_object_is_refused(value: object) -> None:
    assert not _valid(value)


def test_every_key_of_a_record_is_described() -> None:
    properties = record_schema()["properties"]
    assert isinstance(properties, dict)
    assert {*render.KEYS, "data", "data_base64"} <= set(properties)
