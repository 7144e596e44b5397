"""docs/errors.md and the code in step: every message, event, cause, reason and exit code, in both directions."""

from __future__ import annotations

import re

import pytest

from kraken_feed.check.key_findings import ITEMS
from kraken_feed.check.report import PRECEDENCE
from kraken_feed.errors import CallRefused, CredentialsRefused, OutcomeUnknown, ReaderGone, RequestRefused
from kraken_feed.protocol import refusals
from kraken_feed.protocol.refusals import LOCKOUT_S, SERVICE_S, Verdict
from kraken_feed.service.signals import INTERRUPTED
from kraken_feed.telemetry.stats import CAUSES

from ..support.messages import ERRORS, HOLE, LEVELS, diagnostics, endings, outage_causes, plain, reasons, stops
from ..support.repository import ROOT
from ..support.supervised import Unit, printed

PAGE = (ROOT / "docs" / "errors.md").read_text()
CHECK = (ROOT / "docs" / "check.md").read_text()

Row = list[str]


def table(heading: str) -> list[Row]:
    """The rows below a heading, cell by cell, without the backquotes around a first cell, one or two."""
    _, found, rest = PAGE.partition(f"\n{heading}\n")
    assert found, f"no heading {heading!r}"
    section = re.split(r"^##? ", rest, flags=re.M)[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in section.splitlines() if line[:1] == "|"
    ]
    return [[row[0].strip("` "), *row[1:]] for row in rows if not set(row[0]) <= set("-|")][1:]


ERROR_ROWS = table("## Errors that end a command")
EVENT_ROWS = table("## Diagnostics")
KRAKEN_ROWS = table("## What Kraken says")


# ------------------------------------------------------------------------------------------------ errors


def test_every_error_is_in_the_table_with_its_exit_code_and_no_other() -> None:
    said = {(said.text, ERRORS[said.kind].exit_code) for said in endings()}
    assert {(row[0], int(row[3])) for row in ERROR_ROWS} == said


def test_the_errors_are_sorted_by_exit_code_and_none_is_there_twice() -> None:
    codes = [int(row[3]) for row in ERROR_ROWS]
    assert codes == sorted(codes)
    assert len({(row[0], row[3]) for row in ERROR_ROWS}) == len(ERROR_ROWS)


def test_every_class_of_errors_is_made_somewhere() -> None:
    """The reader of the code would not notice a way to make errors that it does not know."""
    made = {said.kind for said in endings()}
    assert made == set(ERRORS)


@pytest.mark.parametrize("rows", [ERROR_ROWS, EVENT_ROWS, KRAKEN_ROWS], ids=["errors", "events", "Kraken's"])
def test_no_cell_is_empty(rows: list[Row]) -> None:
    assert rows
    assert {len(row) for row in rows} == {len(rows[0])}
    assert all(cell for row in rows for cell in row)


def test_the_exit_codes_are_those_of_the_errors_and_the_unit_knows_which_to_restart() -> None:
    rows = {int(code): restarted for code, _, restarted in table("## Exit codes")}
    assert set(rows) == {cls.exit_code for cls in ERRORS.values()} | {INTERRUPTED}
    left = {int(code) for code in Unit(printed()).one("RestartPreventExitStatus").split()}
    assert {code for code, restarted in rows.items() if restarted == "no"} == left
    of_call = {CallRefused.exit_code, OutcomeUnknown.exit_code}  # which no service runs and no check meets
    codes = set(rows) - of_call - {0, INTERRUPTED}
    assert {code for code, restarted in rows.items() if restarted == "yes"} == codes - left
    assert codes - {2} == set(PRECEDENCE)
    assert ReaderGone.exit_code == 0


# ------------------------------------------------------------------------------------------------ diagnostics


def test_every_event_is_in_the_table_with_its_level_and_no_other() -> None:
    found = diagnostics()
    assert {row[0]: {level.strip() for level in row[1].split(",")} for row in EVENT_ROWS} == found
    assert {level for levels in found.values() for level in levels} == set(LEVELS)


def test_the_events_are_sorted_by_how_bad_they_are() -> None:
    worst = [max(LEVELS.index(level.strip()) for level in row[1].split(",")) for row in EVENT_ROWS]
    assert worst == sorted(worst, reverse=True)


def test_what_is_said_in_plain_words_is_there() -> None:
    assert {row[0] for row in table("## Plain words on stderr")} == plain()


# ------------------------------------------------------------------------------------------------ records


def test_every_cause_of_a_loss_is_there_and_no_other() -> None:
    assert [row[0] for row in table("## `feed.lost`: its causes")] == list(CAUSES)


def test_every_reason_of_a_gap_is_there_and_no_other() -> None:
    rows = {row[0] for row in table("## `feed.gap`: its reasons")}
    assert rows == reasons() | {HOLE}  # the last: what Kraken has said


def test_every_other_cause_of_an_outage_is_there_and_no_other() -> None:
    assert {row[0] for row in table("## Outages that no loss began: their causes")} == outage_causes()


def test_every_reason_of_a_stop_is_there_and_no_other() -> None:
    signals = {"SIGTERM", "SIGINT", "SIGHUP"}
    assert {row[0] for row in table("## `feed.stopped`: its reasons")} == stops() | signals | {f"error: {HOLE}"}


# ------------------------------------------------------------------------------------------------ Kraken's words


def kraken_row(text: str, verdict: Verdict) -> Row:
    """How an error string of Kraken's stands in the table."""
    return [text, verdict.meaning, _does(text, verdict)]


def _does(text: str, verdict: Verdict) -> str:
    wait, code = f"{verdict.delay:g} s", verdict.error.exit_code
    if text == "EService:Throttled":
        return f"makes no call until the time that Kraken names ({SERVICE_S:g} s to {LOCKOUT_S:g} s), then tries again"
    if verdict == refusals.NONCE:
        return f"takes its nonces further ahead and tries again, a few times within a minute, then ends ({code})"
    if verdict.kind in ("throttled", "locked_out"):
        return f"makes no call for {wait}, then tries again"
    if verdict.attempts is None:
        return f"tries again after {wait} or more" if verdict.delay else "tries again"
    if verdict.attempts == 1:
        return f"ends ({code})"
    assert verdict.attempts == 2
    return f"tries again once, after {wait} or more, then ends ({code})"


def test_every_error_string_of_krakens_is_there_with_its_verdict_and_no_other() -> None:
    expected = [kraken_row(text, verdict) for text, verdict in refusals._TABLE.items()]
    expected += [kraken_row("E…:…", refusals._UNKNOWN_CODE), kraken_row(HOLE, refusals._UNKNOWN_TEXT)]
    assert expected == KRAKEN_ROWS


def test_what_ends_because_of_krakens_words_is_in_the_table_of_errors() -> None:
    codes = {int(code) for row in KRAKEN_ROWS for code in re.findall(r"ends \((\d+)\)", row[2])}
    assert codes == {CredentialsRefused.exit_code, RequestRefused.exit_code}


# ------------------------------------------------------------------------------------------------ check


def test_every_item_of_a_check_is_named() -> None:
    (line,) = re.findall(r"^Items: (.*)$", PAGE, re.M)
    named = re.findall(r"`([^`]+)`", line)
    columns = re.findall(r"^\| (`.*?) \|", CHECK, re.M)
    assert named == [item for column in columns for item in re.findall(r"`([^`-]+)`", column)]
    assert set(ITEMS) < set(named)
