"""Kraken's signature by its vectors, nonces that only rise, credentials that no form of printing shows."""

from __future__ import annotations

import base64
import copy
import itertools
import json
import pickle
import pprint
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.errors import ConfigError
from kraken_feed.protocol.signing import Credentials, Nonce, sign

from ...support.cases import each
from ...support.examples import examples

# The sample secret of Kraken's documentation: public, and no key's.
SECRET = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
ONES = base64.b64encode(b"\x01" * 32).decode()
KEY = "EXAMPLEKEYEXAMPLEKEYEXAMPLEKEYEXAMPLEKEYEXAMPLEKEYEXQRST"
OTP = "example-otp-7"
TOKEN_PATH = "/0/private/GetWebSocketsToken"

# Path, nonce, body, secret, API-Sign. The first is the documentation's, the last the one of Kraken's own SDK.
VECTORS = [
    (
        "/0/private/AddOrder",
        1616492376594,
        b"nonce=1616492376594&ordertype=limit&pair=XBTUSD&price=37500&type=buy&volume=1.25",
        SECRET,
        "4/dpxb3iT4tp/ZCVEwSnEsLxx0bqyhLpdfOpc6fn7OR8+UClSV5n9E6aSS8MPtnRfp32bAb0nmbRn6H8ndwLUQ==",
    ),
    (
        TOKEN_PATH,
        1616492376594,
        b"nonce=1616492376594",
        SECRET,
        "+mRDmY9Ks0Moc1zjv/BjfvYa98buO0x1yHChZR5onlfAzAUbfIYlLggUZzdQ0RsmXm4Sh+Q8iAIZdo2wSeHeiA==",
    ),
    (
        TOKEN_PATH,
        1616492376594,
        b"nonce=1616492376594&otp=123456",
        SECRET,
        "Ar/xaIFCxoB9vYgmMdFa96Q4kobeliKYcsJVL0e/9WCP8p+91eHqwusA7xAg4PaDXeGRBOWqOD4e7jxeWmvvDQ==",
    ),
    (
        TOKEN_PATH,
        1616492376594,
        b'{"nonce":1616492376594}',
        SECRET,
        "yl7HvQ7MH+jWgPjH8r2+qILii9+OjPXXmiYU0uJ3ZdoxQGQlSfjTrhVW8NhLKbAnVRjuuiqkn/lDVd8AhdBrfQ==",
    ),
    (
        TOKEN_PATH,
        1616492376594,
        b'{"nonce": 1616492376594}',
        SECRET,
        "Gmmjy+n4n8Qdf2t74cy2l/gOqSsfyu0pnTKZIo3BaklrCquCph0zBp5QHAoHwiwEkcp24pLgeRqpJhTL/2Dxgg==",
    ),
    (
        "/0/private/Balance",
        1700000000000000000,
        b"nonce=1700000000000000000",
        ONES,
        "6i7+cpXVLDDnDOekgsRcgFQhkYFyPDSSxhSVA8OrA6vjziXcy2K1DP3n7f9B/Kgni71WjBSQusZKxduRsdF20Q==",
    ),
]


def credentials(otp: str | None = OTP) -> Credentials:
    return Credentials(KEY, SECRET, otp, source="a test")


@each(("path", "nonce", "body", "secret", "signature"), VECTORS)
def test_signature_is_krakens(path: str, nonce: int, body: bytes, secret: str, signature: str) -> None:
    assert sign(path, nonce, body, Credentials(KEY, secret, source="a test").secret) == signature


def test_signature_covers_every_part() -> None:
    secret = base64.b64decode(SECRET)
    signatures = {
        sign("/0/private/Balance", 1, b"nonce=1", secret),
        sign("/0/private/Balance", 2, b"nonce=1", secret),
        sign("/0/private/Balance", 1, b"nonce=1 ", secret),
        sign("/0/private/Ledgers", 1, b"nonce=1", secret),
        sign("/0/private/Balance", 1, b"nonce=1", secret[:-1]),
    }
    assert len(signatures) == 5
    assert {len(signature) for signature in signatures} == {88}


# ------------------------------------------------------------------------------------------------ nonces


@settings(max_examples=examples(200))
@given(st.lists(st.integers(-(2**63), 2**63), min_size=2), st.integers(0, 2**62))
def test_nonce_rises_whatever_the_clock_does(clock: list[int], last: int) -> None:
    nonce = Nonce(last)
    taken = [last, *(nonce.next(now) for now in clock)]
    assert all(later > earlier for earlier, later in itertools.pairwise(taken))


def test_nonce_is_the_clock_while_that_goes_forward() -> None:
    nonce = Nonce()
    assert [nonce.next(now) for now in (1_760_000_000_000_000_000, 1_760_000_000_000_000_007)] == [
        1_760_000_000_000_000_000,
        1_760_000_000_000_000_007,
    ]


def test_a_clock_that_is_behind_does_not_repeat_nonces_that_were_used_and_not_saved() -> None:
    """The clock was set back, and a power cut took the last saves."""
    hour = 3_600_000_000_000
    nonce = Nonce(saved := 10 * hour)
    nonce.start(9 * hour)
    assert nonce.next(9 * hour) > saved + 0.9 * hour
    nonce = Nonce(saved)
    nonce.start(saved + 1)
    assert nonce.next(saved + 2) == saved + 2


def test_nonce_goes_on_by_one_when_the_clock_steps_back() -> None:
    nonce = Nonce(1000)
    assert [nonce.next(now) for now in (2000, 2000, 5, 2001, 3000)] == [2000, 2001, 2002, 2003, 3000]


# ------------------------------------------------------------------------------------------------ credentials

PRINTERS: list[Callable[[Credentials], str]] = [
    repr,
    str,
    ascii,
    format,
    pprint.pformat,
    "{}".format,
    "{0!r:>200}".format,
    lambda c: f"{c}",
    lambda c: "%s %r" % (c, c),  # noqa: UP031  # loggers still do it
    lambda c: repr([c, {"c": c}]),
]


@each("printer", PRINTERS)
def test_no_form_of_printing_shows_a_secret(printer: Callable[[Credentials], str]) -> None:
    said = printer(credentials())
    for secret in (KEY, SECRET, OTP, repr(base64.b64decode(SECRET)), base64.b64decode(SECRET).hex()):
        assert secret not in said
    assert "QRST" in said
    assert "a test" in said


def test_credentials_have_no_dictionary_to_dump() -> None:
    with pytest.raises(TypeError):
        vars(credentials())


@each(
    "store",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda c, p=p: pickle.dumps(c, p) for p in range(pickle.HIGHEST_PROTOCOL + 1)),
        lambda c: copy.deepcopy({"c": [c]}),
        json.dumps,
        msgspec.json.encode,
    ],
)
def test_credentials_are_not_copied_or_stored(store: Callable[[Credentials], object]) -> None:
    with pytest.raises(TypeError) as caught:
        store(credentials())
    said = "".join(traceback.format_exception(caught.value))
    assert not any(secret in said for secret in (KEY, SECRET, OTP))


def test_tail_of_a_short_key_is_not_shown() -> None:
    assert Credentials("SHORTKEY", SECRET, source="a test").tail == "????"
    assert credentials().tail == "QRST"


def test_secrets_are_listed_for_the_mask() -> None:
    assert set(credentials().secrets()) == {KEY, SECRET, OTP}
    assert set(credentials(otp=None).secrets()) == {KEY, SECRET}


def test_stray_blanks_and_line_breaks_are_stripped() -> None:
    found = Credentials(f" {KEY}\n", f"\t{SECRET[:44]}\r\n{SECRET[44:]}\n", " 123456\n", source="a test")
    assert (found.key, found.secret, found.otp) == (KEY, base64.b64decode(SECRET), "123456")


@each("otp", [None, "", "  ", "\n"])
def test_empty_password_is_none(otp: str | None) -> None:
    assert credentials(otp).otp is None


NOT_BASE64 = [
    "",
    " \n",
    "hunter2-is-not-base64",
    SECRET[:-1],
    SECRET[:-3],
    SECRET.replace("/", "_"),
    SECRET.replace("W", "é", 1),
    SECRET + "!",
    "=" + SECRET,
    "====",
    "\ud800" + SECRET,
    "\x00" + SECRET,
]


@each("secret", NOT_BASE64)
def test_secret_that_is_no_base64_is_refused_without_echo(secret: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials(KEY, secret, OTP, source="the file x")
    assert "the file x" in caught.value.what
    _assert_silent(caught.value, secret, KEY, OTP)


@each("key", ["", " ", "two words", "tab\there", "naïve-key-naïve", "line\nbreak", "\x1b[31m-key"])
def test_key_that_is_none_is_refused_without_echo(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials(key, SECRET, OTP, source="the file x")
    assert "the file x" in caught.value.what
    _assert_silent(caught.value, key, SECRET, OTP)


@settings(max_examples=examples(200))
@given(st.text(alphabet=st.characters(codec=None), max_size=100))
def test_any_secret_is_taken_or_refused_without_echo(secret: str) -> None:
    try:
        found = Credentials(KEY, secret, source="somewhere")
    except ConfigError as error:
        _assert_silent(error, secret)
    else:
        assert found.secret == base64.b64decode("".join(secret.split()))


def _assert_silent(error: ConfigError, *secrets: str) -> None:
    said = "".join(traceback.format_exception(error))
    for secret in secrets:
        if len(secret.strip()) > 6:  # shorter ones may stand in the words of any message
            assert secret not in said
            assert repr(secret)[1:-1] not in said


# ------------------------------------------------------------------------------------------------ shapes

KRAKENS_KEY = "EXAMPLE0" * 7
KRAKENS_SECRET = base64.b64encode(b"0123456789abcdef" * 4).decode()


@each(
    ("key", "secret", "says"),
    [
        (KRAKENS_SECRET, KRAKENS_KEY, "are swapped"),
        (f" {KRAKENS_SECRET}\n", f"{KRAKENS_KEY}\n", "are swapped"),
        (KRAKENS_SECRET, "short", "are swapped"),
        (KRAKENS_SECRET, KRAKENS_SECRET, "is a private key"),
        (KRAKENS_KEY, KRAKENS_KEY, "is an API key"),
    ],
)
def test_a_key_and_a_secret_in_each_others_place_are_refused_and_not_shown(key: str, secret: str, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Credentials(key, secret, source="the test")
    assert says in raised.value.what
    for text in (KRAKENS_SECRET, KRAKENS_KEY, KRAKENS_SECRET[-6:], KRAKENS_KEY[-6:]):
        assert text not in str(raised.value)


def test_a_key_and_a_secret_of_krakens_shape_are_taken() -> None:
    assert len(Credentials(KRAKENS_KEY, KRAKENS_SECRET).secret) == 64
