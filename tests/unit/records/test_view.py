"""Orders and fills are read from whatever JSON lets through."""

from __future__ import annotations

from kraken_feed.records.view import event_ns, is_past_trade, moment, parse, read_execution, value

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


@each(
    ("text", "unix_ns"),
    [
        ("1795212065.250000", 1_795_212_065_250_000_000),
        ("1760000200.000009", 1_760_000_200_000_009_000),
        ("1760000200", 1_760_000_200_000_000_000),
        ("2025-10-09T08:56:40.000009Z", 1_760_000_200_000_009_000),
        ("2025-10-09T08:56:40.000009", 1_760_000_200_000_009_000),
        ("2025-10-09T10:56:40.000009+02:00", 1_760_000_200_000_009_000),
        *((text, 0) for text in ("", "x", "T", "-5", "0", "nan", "inf", "1e999999", "1900-01-01T00:00:00Z", "9e11")),
    ],
)
def test_a_time_is_exact_and_anything_else_is_none(text: str, unix_ns: int) -> None:
    assert moment(text) == unix_ns


@each(
    ("data", "opening", "seconds"),
    [
        (b'{"timestamp":"2025-10-09T08:56:40Z","time":1.0}', False, 1_760_000_200),
        (b'{"lastupdated":"1760000200.0","opentm":"1.0"}', True, 1_760_000_200),
        (b'{"closetm":1760000200.0,"opentm":1.0}', True, 1_760_000_200),
        (b'{"opentm":"1760000200.0"}', True, 1_760_000_200),
        (b'{"opentm":"1760000200.0"}', False, 0),
        (b'{"timestamp":"soon","time":"1760000200.0"}', False, 1_760_000_200),
        (b"{}", True, 0),
    ],
)
def test_an_items_own_time_is_krakens(data: bytes, opening: bool, seconds: int) -> None:
    assert event_ns(parse(data), opening=opening) == seconds * 10**9
