"""JSON whose numbers stay as they were written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.order_entry.request import MAX_DEPTH, Number, decode, encode

from ...support.cases import each

TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | TEXT | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)
DIGITS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)


@given(JSON)
def test_what_is_encoded_is_compact_json_of_the_same(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert encode(decode(text)) == text


@given(DIGITS)
def test_a_number_keeps_every_character(digits: str) -> None:
    read = decode(f'{{"a":[{digits}]}}')
    assert isinstance(read["a"][0], Number)
    assert encode(read) == f'{{"a":[{digits}]}}'


def test_a_string_of_digits_stays_a_string() -> None:
    assert encode(decode('["0.10",0.10]')) == '["0.10",0.10]'


@each(("opened", "closed"), [("[", "]"), ('{"a":', "}")])
def test_what_is_nested_is_written_again_to_a_fixed_depth_and_refused_beyond(opened: str, closed: str) -> None:
    deep = opened * MAX_DEPTH + "1" + closed * MAX_DEPTH
    assert encode(decode(deep)) == deep
    with pytest.raises(ValueError, match="nested too deeply"):
        decode(opened + deep + closed)


@each("text", ["", "{", "NaN", "[Infinity]", '{"a":1,"a":2}', "01", "[" * 100_000, "[" * 450 + "]" * 450])
def test_what_is_no_json_or_says_two_things_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(text)
