"""Numbers, times and ids as Kraken writes them."""

import re
from decimal import Decimal
from random import Random

import pytest

from kraken_feed.simulator.market.ident import Idents, connection_id, token
from kraken_feed.simulator.market.number import fixed, number
from kraken_feed.simulator.market.pair import PAIRS, find
from kraken_feed.simulator.market.stamp import rfc3339, unix_number, unix_text

from ...support.cases import each


def test_numbers_have_their_decimals_and_never_an_exponent() -> None:
    assert fixed(Decimal("1E-8"), 8) == "0.00000001"
    assert fixed(Decimal("1E+5"), 2) == "100000.00"
    assert bytes(number(Decimal(0), 8)) == b"0.00000000"


def test_all_times_show_the_same_microsecond() -> None:
    at = 1760000000.123456
    assert unix_text(at) == "1760000000.123456"
    assert rfc3339(at) == "2025-10-09T08:53:20.123456Z"
    assert bytes(unix_number(at)) == b"1760000000.1234"
    assert bytes(unix_number(None)) == b"0"


def test_ids_have_the_documented_form_and_never_repeat() -> None:
    idents = Idents(Random(1))
    drawn = [idents.transaction("O") for _ in range(500)]
    assert len(set(drawn)) == 500
    assert all(re.fullmatch(r"O[A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{6}", ident) for ident in drawn)


def test_connection_ids_need_all_of_64_bits() -> None:
    drawn = [connection_id(Random(seed)) for seed in range(100)]
    assert all(2**63 <= ident < 2**64 for ident in drawn)


def test_tokens_are_base64_and_about_43_characters_long() -> None:
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}", token(Random(1)))


@each("pair", PAIRS)
def test_a_pair_is_found_by_each_of_its_names(pair: object) -> None:
    for known in PAIRS:
        if known is pair:
            assert {find(name) for name in (known.v1, known.v2, known.rest, known.altname)} == {known}


def test_an_unknown_pair_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        find("XBT/JPY")
