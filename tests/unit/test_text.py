"""Masking: text from outside loses every secret, our own words lose nothing."""

from __future__ import annotations

import ast
import base64
import functools
import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kraken_feed
from kraken_feed.text import LONG, MASK, WORD, Secrets, trace

from ..support.cases import each

KRAKENS = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
PASSWORDS = ["2026", "on", "a", "1", "error", "key", "masked", "closed", "connection_lost", "not so secret", "0", "-"]


@functools.cache
def _ours() -> set[str]:
    """Every text constant of the package: whatever our messages and events are made of."""
    found: set[str] = set()
    for path in Path(kraken_feed.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def of(*texts: str) -> Secrets:
    secrets = Secrets()
    secrets.add(*texts)
    return secrets


# ------------------------------------------------------------------------------------------------ our own words


def test_no_word_of_ours_as_a_password_masks_what_we_say() -> None:
    for word in {word for text in _ours() for word in re.findall(r"[A-Za-z_-]{,23}", text)}:
        assert of(word).mask_long(f"the {word}, and {word}") == f"the {word}, and {word}"


@given(st.text(max_size=LONG - 1))
def test_no_short_password_masks_what_we_say(password: str) -> None:
    secrets = of(password)
    for text in ("2026-11-30T06:15:00.000000Z", "connection_lost", f"duration {password}"):
        assert secrets.mask_long(text) == text


def test_no_text_of_ours_is_touched_by_krakens_secrets() -> None:
    secrets = of(KRAKENS, KRAKENS[:56])
    assert all(secrets.mask_long(text) == text for text in _ours())


# ------------------------------------------------------------------------------------------------ text from outside


@each("password", PASSWORDS)
@each("place", ["{}", "({})", "otp={}&nonce=7", '{{"otp":"{}"}}', "the otp {} is wrong", "%3D{}%26"])
def test_a_password_is_masked_in_the_words_of_others(password: str, place: str) -> None:
    assert of(password).mask(place.format(password)) == place.format(MASK)


def test_a_short_password_is_masked_only_as_a_word() -> None:
    assert of("on", "a").mask("connection a at 10 on") == f"connection {MASK} at 10 {MASK}"
    assert of("2026").mask("2026-11-30 20261 x2026") == f"{MASK}-11-30 20261 x2026"


def test_a_longer_password_is_masked_wherever_it_stands() -> None:
    assert of("hunter2hunter2").mask("xhunter2hunter2y") == f"x{MASK}y"


def test_every_one_of_many_secrets_is_masked_in_a_text_that_has_several() -> None:
    known = [f"secret-{number:04d}-{'x' * (number % 7)}" for number in range(300)]
    text = " ".join(known)
    masked = of(*known).mask(text)
    assert masked == " ".join([MASK] * len(known))
    forgetful = of(*known)
    for secret in known[1:]:
        forgetful.discard(secret)
    assert forgetful.mask(" ".join(known[:2])) == f"{MASK} {known[1]}"


@given(st.lists(st.text(min_size=1, max_size=30), max_size=4), st.text(max_size=60))
def test_masking_again_changes_nothing(secrets: list[str], text: str) -> None:
    known = of(*secrets)
    once = known.mask(text)
    assert known.mask_long(known.mask(once)) == once


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4), st.text(max_size=20), st.text(max_size=20))
def test_no_secret_of_eight_characters_or_more_is_left(secrets: list[str], before: str, behind: str) -> None:
    known = of(*secrets)
    for secret in secrets:
        if len(secret) >= WORD and MASK not in secret:
            masked = known.mask(before + secret + behind).replace(MASK, "\0")
            assert secret not in masked or "\0" in secret


# ------------------------------------------------------------------------------------------------ long secrets


@given(st.text(max_size=9), st.text(max_size=9))
@pytest.mark.parametrize("secret", [KRAKENS, KRAKENS[:56], "password+1/2=0123456789"])
def test_a_long_secret_is_masked_anywhere_in_any_form(secret: str, before: str, behind: str) -> None:
    secrets, whole = of(secret), before + secret + behind
    small = re.sub("%..", lambda found: found[0].lower(), quote(secret, safe=""))
    for text in (whole, whole.replace("/", "\\/"), before + quote(secret, safe="") + behind, before + small + behind,
                 before + quote_plus(secret) + behind, json.dumps(whole), whole.encode().hex()):  # fmt: skip
        assert MASK in secrets.mask_long(text)
        assert secret not in secrets.mask_long(text)
    for code in (base64.b64encode, base64.urlsafe_b64encode):
        encoded = code(whole.encode()).decode()
        assert MASK in secrets.mask_long(encoded)


# ------------------------------------------------------------------------------------------------ tracebacks


def test_the_words_of_every_exception_are_masked_and_the_code_is_not() -> None:
    secrets = of("on", "2026")
    try:
        try:
            raise ValueError("2026 is on")
        except ValueError as error:
            raise ExceptionGroup("on", [KeyError("2026"), RuntimeError("first\n  on - the second")]) from error
    except ExceptionGroup as group:
        group.add_note("2026: a note")
        said = trace(group, secrets.mask)
    messages = [line for line in said.splitlines() if "raise" not in line and "File" not in line]
    assert not re.search(r"\bon\b|2026", "\n".join(messages))
    assert 'raise ValueError("2026 is on")' in said
    assert "in test_the_words_of_every_exception_are_masked_and_the_code_is_not" in said
