"""What a REST answer says: errors of any shape, warnings apart from them, and the result's bytes as they were sent."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.transport.envelope import NotAnEnvelope, read

from ...support.cases import each

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@each("error", [b"[]", b"null", b'""', b"{}", b" [ ] "])
def test_an_empty_error_of_any_shape_is_none(error: bytes) -> None:
    envelope = read(b'{"error":%b,"result":{}}' % error)
    assert (envelope.errors, envelope.warnings) == ((), ())


@each(
    ("error", "text"),
    [
        (b'["EAPI:Invalid key"]', "EAPI:Invalid key"),
        (b'"EAPI:Invalid key"', "EAPI:Invalid key"),
        (b'{"code": 1, "msg": "nope"}', '{"code":1,"msg":"nope"}'),
        (b'[{"code": 1}]', '{"code":1}'),
        (b"7", "7"),
        (b"true", "true"),
        (b"[null]", "null"),
        (b'[""]', ""),
        (b'["Wrong key"]', "Wrong key"),
        (b'["\\ud800"]', "\\ud800"),
        ('["Clé"]'.encode(), "Clé"),
    ],
)
def test_an_error_of_any_shape_that_is_not_empty_is_an_error(error: bytes, text: str) -> None:
    envelope = read(b'{"error":%b,"result":{"token":"T"}}' % error)
    assert (envelope.errors, envelope.warnings) == ((text,), ())


def test_an_error_that_nests_too_deeply_to_be_read_is_an_error() -> None:
    assert read(b'{"error":' + b"[" * 500 + b"]" * 500 + b',"result":{}}').errors
    for depth in (100_000, 1_000_000):
        body = b'{"error":' + b"[" * depth + b"]" * depth + b',"result":{}}'
        with contextlib.suppress(NotAnEnvelope):
            assert read(body).errors


def test_warnings_are_told_apart_from_errors_in_any_order() -> None:
    for texts in (["WTrade:Partial", "EAPI:Invalid key"], ["EAPI:Invalid key", "WTrade:Partial"]):
        envelope = read(json.dumps({"error": texts, "result": {}}).encode())
        assert (envelope.errors, envelope.warnings) == (("EAPI:Invalid key",), ("WTrade:Partial",))


def test_a_lone_surrogate_passes_and_the_bytes_of_the_result_stay() -> None:
    result = rb'{ "misc" : "\ud800", "vol":1.000, "vol":2e0 }'
    envelope = read(b'{"error":[],"result":' + result + b' ,"\\udfff":1}')
    assert envelope.result is not None
    assert bytes(envelope.result) == result


@each(
    "body",
    [
        b"", b"<html>", b"[]", b"null", b'{"result":{}}', b'{"errors":[],"result":{}}', b'{"error":[],"result":{}} x',
        b'{"error":[],"result":{"a":NaN}}', b'{"error":[],"result":{"a":"\xff"}}',
        b'{"error":[],"result":{"a":"\\ud8"}}',
        b'{"error":[],"result":' + b"[" * 100_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_not_an_envelope_is_refused(body: bytes) -> None:
    with pytest.raises(NotAnEnvelope):
        read(body)


def test_no_result_is_not_an_empty_one() -> None:
    assert read(b'{"error":["WGeneral:Deprecated"]}').result is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(NotAnEnvelope):
        read(body)


@given(JSON, JSON)
def test_any_error_and_result_are_read(error: object, result: object) -> None:
    envelope = read(json.dumps({"error": error, "result": result}).encode())
    assert bool(envelope.errors or envelope.warnings) == bool(error)
    assert envelope.result is not None
    assert json.loads(bytes(envelope.result)) == result
    for text in (*envelope.errors, *envelope.warnings):
        text.encode()
