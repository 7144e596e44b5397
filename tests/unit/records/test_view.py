"""Orders and fills are read from whatever JSON lets through."""

from __future__ import annotations

from kraken_feed.records.view import is_past_trade, parse, read_execution, value

from ...support.cases import each


@each(
    ("data", "members"),
    [
        (b'{"a":"\\ud800","b":1.00}', {"a": b'"\\ud800"', "b": b"1.00"}),
        (b'{"\\ud800":1}', {"\ud800": b"1"}),
        (b'{"a":1,"b":2,"a":3}', {"a": b"3", "b": b"2"}),
        (b'{"a":"\\ud800","a":[ "\\udfff" ]}', {"a": b'[ "\\udfff" ]'}),
        (b'{"a":' + b"[" * 200 + b"]" * 200 + b',"b":"\\ud800"}', {"a": b"[" * 200 + b"]" * 200, "b": b'"\\ud800"'}),
        (b"{}", {}),
        (b"[]", {}),
        (b"null", {}),
        (b"", {}),
        (b'{"a":', {}),
        (b"[" * 100_000, {}),
    ],
)
def test_members_are_the_bytes_that_were_sent(data: bytes, members: dict[str, bytes]) -> None:
    assert {name: bytes(raw) for name, raw in parse(data).items()} == members


def test_a_text_with_a_lone_surrogate_is_its_text() -> None:
    assert value(parse(b'{"a":"x\\ud800"}'), "a") == "x\ud800"


def test_a_fill_is_recognised_in_any_letter_case() -> None:
    fill = b'{"exec_type":"Trade","order_id":"O","fees":[{"asset":"\\ud800","qty":1.0}]}'
    assert is_past_trade(parse(fill))
    read = read_execution(fill)
    assert read is not None
    assert read.fee == "1.0 \ud800"
