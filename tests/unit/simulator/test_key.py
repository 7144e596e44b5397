"""Keys: their limits, and signatures with Kraken's documented vectors as known answers."""

import base64

import pytest

from kraken_feed.simulator.access.key import Limits, signature, signed

from ...support.cases import each

SECRET = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
NONCE = "1616492376594"
TOKEN = "/0/private/GetWebSocketsToken"
VECTORS = [
    (
        "/0/private/AddOrder",
        b"nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
        "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==",
    ),
    (
        TOKEN,
        b"nonce=1616492376594",
        "+mRDmY9Ks0Moc1zjv/BjfvYa98buO0x1yHChZR5onlfAzAUbfIYlLggUZzdQ0RsmXm4Sh+Q8iAIZdo2wSeHeiA==",
    ),
    (
        TOKEN,
        b"nonce=1616492376594&otp=123456",
        "Ar/xaIFCxoB9vYgmMdFa96Q4kobeliKYcsJVL0e/9WCP8p+91eHqwusA7xAg4PaDXeGRBOWqOD4e7jxeWmvvDQ==",
    ),
    (
        TOKEN,
        b'{"nonce":1616492376594}',
        "yl7HvQ7MH+jWgPjH8r2+qILii9+OjPXXmiYU0uJ3ZdoxQGQlSfjTrhVW8NhLKbAnVRjuuiqkn/lDVd8AhdBrfQ==",
    ),
    (
        TOKEN,
        b'{"nonce": 1616492376594}',
        "Gmmjy+n4n8Qdf2t74cy2l/gOqSsfyu0pnTKZIo3BaklrCquCph0zBp5QHAoHwiwEkcp24pLgeRqpJhTL/2Dxgg==",
    ),
]


@each(("path", "body", "expected"), VECTORS)
def test_documented_signatures_are_accepted(path: str, body: bytes, expected: str) -> None:
    assert signature(SECRET, path, NONCE, body) == expected
    assert signed(SECRET, path, NONCE, body, expected)


def test_the_sdk_vector_with_a_nanosecond_nonce_is_accepted() -> None:
    secret = base64.b64encode(b"\x01" * 32).decode()
    nonce = "1700000000000000000"
    expected = "6i7+cpXVLDDnDOekgsRcgFQhkYFyPDSSxhSVA8OrA6vjziXcy2K1DP3n7f9B/Kgni71WjBSQusZKxduRsdF20Q=="
    assert signed(secret, "/0/private/Balance", nonce, f"nonce={nonce}".encode(), expected)


@each("wrong", ["", "é", "4/dpxb3iT4tp=="])
def test_other_signatures_are_refused(wrong: str) -> None:
    assert not signed(SECRET, TOKEN, NONCE, b"nonce=1616492376594", wrong)


def test_an_address_that_is_none_is_not_taken_for_a_limit() -> None:
    with pytest.raises(ValueError, match="somewhere"):
        Limits(ip_allowlist=("127.0.0.1", "somewhere"))


def test_without_limits_everything_is_admitted_and_shown() -> None:
    limits = Limits()
    assert limits.admit("198.51.100.7")
    assert limits.shows(0.0)
    assert not limits.expired(4e9)
