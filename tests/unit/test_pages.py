"""The generated parts of docs/ are fresh, and the tables behind them list everything that the code says."""

from __future__ import annotations

import re
from pathlib import Path

import kraken_feed
from kraken_feed.check.key_settings import ITEMS
from kraken_feed.telemetry.causes import OUTAGE_CAUSES, STOP_REASONS
from kraken_feed.telemetry.events import EVENTS

from ..support.cases import each
from ..support.pages import COMMAND, ERRORS, PARTS, current, exit_codes, fresh

PACKAGE = Path(kraken_feed.__file__).parent
CODE = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if "simulator" not in path.parts)
LEVELS = ("error", "warning", "info", "debug")
SIGNALS = {"SIGTERM", "SIGINT", "SIGHUP"}


@each("page", PARTS)
def test_a_page_has_what_the_code_says(page: str) -> None:
    assert current(page) == fresh(page), f"docs/{page} is stale: run `{COMMAND}`"


def test_every_event_in_the_code_is_in_the_table_with_its_level() -> None:
    logged = set(re.findall(r'\.(debug|info|warning|error)[(,]\s*"(\w+)"', CODE))
    logged |= {("warning", name) for name in re.findall(r'\b_?warn\(\s*"(\w+)"', CODE)}
    other = set(re.findall(r'(?:Notice|\bsay|, level\))\(\s*"(\w+)"|"event": "(exit|state)"', CODE))
    assert {name for _, name in logged} | {name for pair in other for name in pair if name} == set(EVENTS)
    assert {name for level, name in logged if level not in EVENTS[name].levels} == set()


def test_events_are_sorted_by_their_worst_level() -> None:
    worst = [min(map(LEVELS.index, event.levels)) for event in EVENTS.values()]
    assert worst == sorted(worst)


def test_every_cause_of_an_outage_in_the_code_is_in_the_table() -> None:
    assert set(re.findall(r'\b_?(?:recovery\.open|open_outage)\(.*, "(\w+)"\)', CODE)) == set(OUTAGE_CAUSES)


def test_every_reason_of_a_stop_in_the_code_is_in_the_table() -> None:
    assert set(re.findall(r'\bstop(?:\(|, )"(\w+)"\)', CODE)) | SIGNALS == set(STOP_REASONS)


def test_every_error_class_says_what_to_do_first() -> None:
    assert [cls.__name__ for cls in ERRORS if "first_step" not in vars(cls)] == []


def test_no_cell_of_the_errors_is_empty() -> None:
    rows = [line.strip("|").split(" | ") for line in exit_codes().splitlines()]
    assert {len(row) for row in rows if "---" not in row[0]} == {6}
    assert all(cell.strip() for row in rows for cell in row)


def test_every_item_about_a_key_is_on_the_page_of_check() -> None:
    assert {item for item in ITEMS if f"| `{item}` |" not in current("check.md")} == set()
