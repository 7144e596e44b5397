"""What a check says, to people and to programs, and the exit code that it comes to."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed import errors
from kraken_feed.check.report import PRECEDENCE, CheckResult, Report, Status, exit_code, failed
from kraken_feed.errors import ConfigError, FeedError, OutputFailed
from kraken_feed.text import Secrets

from ...support.cases import each

STATUSES: tuple[Status, ...] = ("OK", "WARN", "FAIL", "SKIP")
texts = st.text(max_size=200)
results = st.builds(
    CheckResult,
    status=st.sampled_from(STATUSES),
    item=st.sampled_from(["configuration", "key", "openOrders"]),
    what=texts,
    why=texts,
    remedy=texts,
    account=st.sampled_from([None, "main", "other"]),
    channel=st.sampled_from([None, "openOrders"]),
    facts=st.dictionaries(texts, texts | st.integers() | st.lists(texts), max_size=3),
    exit_code=st.sampled_from([0, *PRECEDENCE]),
)


def skipped(item: str, needs: str) -> CheckResult:
    return CheckResult("SKIP", item, f"not checked: needs {needs}")


def said(*several: CheckResult, secrets: Secrets | None = None, **options: Any) -> tuple[list[str], int]:
    """The lines of a report, and its exit code."""
    texts: list[str] = []
    report = Report(texts.append, secrets or Secrets(), **options)
    for result in several:
        report.add(result)
    code = report.end()
    return "\n".join(texts).split("\n"), code


# ------------------------------------------------------------------------------------------------ the exit code


@each("status", ["OK", "WARN", "SKIP"])
def test_only_a_failure_counts(status: Status) -> None:
    assert exit_code([CheckResult(status, "key", "", exit_code=77)]) == 0


@given(st.lists(st.sampled_from(PRECEDENCE), min_size=1))
def test_the_code_does_not_depend_on_the_order_of_failures(codes: list[int]) -> None:
    one = exit_code([CheckResult("FAIL", "key", "", exit_code=code) for code in codes])
    assert one == exit_code([CheckResult("FAIL", "key", "", exit_code=code) for code in sorted(codes)])
    assert one in codes


@each(
    ("codes", "worst"),
    [([69, 77], 77), ([77, 78], 78), ([74, 69], 74), ([75, 74], 75), ([69, 1], 1), ([69], 69), ([77, 74, 69], 77)],
)
def test_what_no_restart_mends_comes_before_what_may_pass(codes: list[int], worst: int) -> None:
    assert exit_code([CheckResult("FAIL", "key", "", exit_code=code) for code in codes]) == worst


def test_every_error_that_can_end_a_tail_has_its_place_in_the_precedence() -> None:
    codes = {c.exit_code for c in vars(errors).values() if isinstance(c, type) and issubclass(c, FeedError)}
    assert codes - {0, 2, 65, 76} == set(PRECEDENCE), "65 and 76 are of `call` alone"


def test_a_failure_never_counts_as_none() -> None:
    """An error that ends a tail with 0 (the reader of a pipe has enough) is a failure here all the same."""
    assert failed("key", errors.ReaderGone("Gone.")).exit_code != 0


# ------------------------------------------------------------------------------------------------ for people


def test_a_finding_is_its_status_item_what_why_and_remedy() -> None:
    lines, _ = said(CheckResult("FAIL", "state", "It is full.", "0 bytes are free.", "Make room.", exit_code=74))
    assert lines[:3] == [
        "FAIL  state          It is full.",
        "                     0 bytes are free.",
        "                     > Make room.",
    ]


def test_the_verdict_counts_and_names_what_is_to_be_looked_at() -> None:
    ok, warn = CheckResult("OK", "rest", "fine"), CheckResult("WARN", "clock", "late")
    fail = failed("key", ConfigError("No."))
    lines, code = said(ok, warn, fail, skipped("token", "the key"))
    assert lines[-1] == "FAIL  1 failed (key), 1 warning (clock), 1 not checked, 1 OK; exit code 78."
    assert code == 78


def test_all_well_is_said_too() -> None:
    lines, code = said(CheckResult("OK", "rest", "fine"))
    assert (lines[-1], code) == (" OK   1 OK; exit code 0.", 0)


def test_what_was_skipped_for_one_reason_is_one_line() -> None:
    lines, _ = said(skipped("key", "rest"), skipped("token", "rest"), skipped("openOrders", "the token"))
    assert lines[0] == "SKIP  2 items        not checked: needs rest: key, token"
    assert lines[1] == "SKIP  openOrders     not checked: needs the token"


def test_the_account_is_named_where_there_are_several() -> None:
    result = CheckResult("OK", "key", "accepted").about(account="desk")
    assert "desk: accepted" in said(result, several=True)[0][0]
    assert "desk" not in said(result)[0][0]


@given(results, st.integers(min_value=60, max_value=300))
def test_lines_fit_the_terminal_unless_a_word_does_not(result: CheckResult, columns: int) -> None:
    for line in said(result, columns=columns)[0]:
        assert len(line) <= columns or " " not in line[23:].strip()


@given(results)
def test_nothing_that_is_shown_can_drive_a_terminal(result: CheckResult) -> None:
    for line in said(result, result)[0]:
        assert line.isprintable()


def test_colours_are_there_only_when_asked_for() -> None:
    result = failed("key", ConfigError("No."))
    assert "\x1b[1;31mFAIL\x1b[0m" in said(result, colors=True)[0][0]
    assert "\x1b" not in "".join(said(result)[0])


# ------------------------------------------------------------------------------------------------ for programs


def test_a_line_of_json_has_the_keys_that_are_promised() -> None:
    result = CheckResult("WARN", "clock", "late", "why", "remedy", facts={"offset_s": [2.0, 3.0]})
    lines, _ = said(result, result.about(account="main", channel="openOrders"), as_json=True)
    assert json.loads(lines[0]) == {
        "status": "WARN", "item": "clock", "what": "late", "why": "why", "remedy": "remedy", "account": None,
        "facts": {"offset_s": [2.0, 3.0]}, "exit_code": 0,
    }  # fmt: skip
    assert json.loads(lines[1])["channel"] == "openOrders"
    assert json.loads(lines[2]) == {"verdict": "WARN", "ok": 0, "warn": 2, "fail": 0, "skip": 0, "exit_code": 0}


@given(st.lists(results, max_size=5))
def test_every_finding_is_a_line_of_json_and_the_verdict_the_last(several: list[CheckResult]) -> None:
    lines, code = said(*several, as_json=True)
    assert len(lines) == len(several) + 1
    assert [json.loads(line)["item"] for line in lines[:-1]] == [result.item for result in several]
    assert json.loads(lines[-1])["exit_code"] == code == exit_code(several)


# ------------------------------------------------------------------------------------------------ secrets


@each("as_json", [True, False])
def test_secrets_are_masked_wherever_they_turn_up(as_json: bool) -> None:
    secrets = Secrets()
    secrets.add("s3cr/et+0123456789")
    error = OutputFailed("what s3cr/et+0123456789", why="why s3cr/et+0123456789", remedy="remedy s3cr/et+0123456789")
    result = failed("key", error)
    result = CheckResult(
        "FAIL", "key", result.what, result.why, result.remedy, facts={"s3cr/et+0123456789": ["s3cr/et+0123456789"]}
    )
    text = "\n".join(said(result, secrets=secrets, as_json=as_json)[0])
    assert "s3cr" not in text
    assert text.count("[masked]") >= 3
