"""What Kraken says about a key, in both of its spellings, and what follows for a tail."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.check.key_settings import ITEMS, Nonces, judge
from kraken_feed.check.report import CheckResult
from kraken_feed.config.schema import CHANNELS
from kraken_feed.protocol.key_info import KeyInfo, read
from kraken_feed.protocol.permissions import (
    CLOSED,
    CREATE_TOKEN,
    NEEDED,
    NEEDED_TO_RECOVER,
    OPEN,
    OTHERS,
    READING,
    needed_for,
    spelled,
)

from ...support.cases import each

NOW = 1_760_000_000
ALL = tuple(CHANNELS)
DAY = 86400
SNAKE: dict[str, Any] = {
    "api_key_name": "feed", "nonce_window": "7", "permissions": list(READING), "valid_until": "1770000000",
    "query_from": "5", "query_to": "6", "ip_allowlist": ["192.0.2.1"],
}  # fmt: skip
CAMEL = {
    "apiKeyName": "feed", "nonceWindow": 7, "permissions": list(READING), "validUntil": 1770000000,
    "queryFrom": "5", "queryTo": 6, "ipAllowlist": ["192.0.2.1"],
}  # fmt: skip
GOOD = KeyInfo(name="feed", permissions=tuple(READING), allow_list=("192.0.2.1",))


def found(info: KeyInfo, item: str, channels: tuple[str, ...] = ALL, **options: bool) -> list[CheckResult]:
    results = judge(info, channels, NOW, backfill=options.get("backfill", True))
    return [result for result in results if result.item == item]


def only(info: KeyInfo, item: str, channels: tuple[str, ...] = ALL, **options: bool) -> CheckResult:
    (result,) = found(info, item, channels, **options)
    return result


# ------------------------------------------------------------------------------------------------ reading


def test_both_spellings_say_the_same() -> None:
    assert read(json.dumps(SNAKE).encode()) == read(json.dumps(CAMEL).encode())
    assert read(json.dumps(SNAKE).encode()).query_to == 6


def test_numbers_are_read_by_value_and_others_are_named() -> None:
    info = read(b'{"query_from":5.0,"query_to":"6","valid_until":"soon","nonce_window":null}')
    assert (info.query_from, info.query_to, info.valid_until, info.nonce_window) == (5, 6, 0, 0)
    assert info.unreadable == {"valid_until"}


def test_an_allow_list_of_one_empty_string_is_empty() -> None:
    info = read(b'{"ip_allowlist":[""]}')
    assert info.allow_list == ()
    assert only(info, "addresses").status == "WARN"


@each("blank", ["[]", '[""]', '["",""]', '[" "]', "[null]", '["","\\t",null]'])
def test_an_allow_list_of_nothing_but_blanks_is_none(blank: str) -> None:
    info = read(f'{{"ip_allowlist":{blank}}}'.encode())
    assert info.allow_list == ()
    assert only(info, "addresses").status == "WARN"


@each("everywhere", ["0.0.0.0/0", "::/0"])
def test_an_allow_list_of_every_address_is_none(everywhere: str) -> None:
    info = msgspec.structs.replace(GOOD, allow_list=("192.0.2.1", everywhere))
    assert only(info, "addresses").status == "WARN"


# Of a check that has used the nonces from 100 to 102.
@each(
    ("nonce", "known", "status"),
    [
        (102, 0, "OK"),
        (101, 50, "OK"),
        (50, 50, "OK"),
        (40, 50, "OK"),
        (60, 0, "OK"),
        (0, 50, "OK"),
        (60, 50, "WARN"),
        (103, 0, "WARN"),
        (103, 50, "WARN"),
    ],
)
def test_a_nonce_that_is_nobodys_here_shows_another_program(nonce: int, known: int, status: str) -> None:
    info = msgspec.structs.replace(GOOD, nonce=nonce, last_used=NOW - 60)
    results = judge(info, ALL, NOW, backfill=True, nonces=Nonces(known, 100, 102))
    (result,) = [result for result in results if result.item == "other use"]
    assert result.status == status
    assert result.facts == {"nonce": nonce, "last_used": NOW - 60}
    assert ("60 s ago" in result.what) == (status == "WARN")


def test_a_lone_surrogate_in_a_name_costs_nothing() -> None:
    info = read(rb'{"api_key_name":"\ud800","query_from":"5"}')
    assert info.name.encode() == rb"\ud800"
    assert info.query_from == 5


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*SNAKE, *CAMEL]), json_values))
def test_whatever_stands_in_the_fields_is_read_and_judged(fields: dict[str, Any]) -> None:
    info = read(json.dumps(fields).encode())
    assert {result.item for result in judge(info, ALL, NOW, backfill=True)} == set(ITEMS)


@each("text", ["[]", "null", "7", "<html>"])
def test_what_is_no_object_is_not_read(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        read(text.encode())


# ------------------------------------------------------------------------------------------------ what it means


def test_a_key_for_tails_and_nothing_else_is_well() -> None:
    assert {result.status for result in judge(GOOD, ALL, NOW, backfill=True)} == {"OK"}


@each("right", READING)
def test_a_missing_right_fails_for_the_channels_that_need_it(right: str) -> None:
    less = tuple(name for name in READING if name != right)
    info = msgspec.structs.replace(GOOD, permissions=less)
    for channel in ALL:
        result = only(info, "permissions", (channel,))
        needed = right in (CREATE_TOKEN, *NEEDED[channel])
        assert (result.status, result.exit_code) == (("FAIL", 77) if needed else ("OK", 0))
        if needed:
            assert spelled(right) in result.what
        recovery = only(info, "backfill", (channel,))
        assert recovery.status == ("WARN" if right == NEEDED_TO_RECOVER[channel] else "OK")


def test_each_missing_right_is_said_by_itself() -> None:
    results = found(msgspec.structs.replace(GOOD, permissions=()), "permissions", ("executions",))
    assert [result.facts["missing"] for result in results] == [CREATE_TOKEN, OPEN, CLOSED]


@each("channel", CHANNELS)
def test_a_refusal_names_every_permission_that_the_channel_needs(channel: str) -> None:
    assert all(spelled(permission) in needed_for(channel) for permission in NEEDED[channel])


@each("right", [*OTHERS, "something-new"])
def test_a_right_beyond_reading_is_a_warning(right: str) -> None:
    result = only(msgspec.structs.replace(GOOD, permissions=(*READING, right)), "rights")
    assert result.status == "WARN"
    assert right in result.what


@each(
    ("left", "status", "says"),
    [(-1, "FAIL", "expired on 2025-10-09"), (3600, "WARN", "today"), (29 * DAY, "WARN", "in 29 days"),
     (31 * DAY, "OK", "2025-11-09")],
)  # fmt: skip
def test_a_key_that_expires_is_said_in_time(left: int, status: str, says: str) -> None:
    result = only(msgspec.structs.replace(GOOD, valid_until=NOW + left), "expiry")
    assert result.status == status
    assert says in result.what


def test_a_key_without_an_allow_list_is_a_warning() -> None:
    assert only(msgspec.structs.replace(GOOD, allow_list=()), "addresses").status == "WARN"


def test_a_nonce_window_is_a_warning() -> None:
    result = only(msgspec.structs.replace(GOOD, nonce_window=10_000), "nonce window")
    assert result.status == "WARN"
    assert "10000" in result.what


@each(("limit", "says"), [("query_from", "from 2025"), ("query_to", "up to 2025")])
def test_a_limit_of_what_may_be_queried_is_a_warning(limit: str, says: str) -> None:
    result = only(msgspec.structs.replace(GOOD, **{limit: NOW}), "backfill")
    assert result.status == "WARN"
    assert says in result.what


def test_no_backfill_needs_no_right_for_it() -> None:
    assert only(msgspec.structs.replace(GOOD, permissions=()), "backfill", backfill=False).status == "OK"


def test_what_kraken_does_not_say_is_no_failure() -> None:
    assert only(KeyInfo(), "permissions").status == "WARN"
    assert only(KeyInfo(), "backfill").status == "OK"
