"""Rows can be narrowed where a person reads them, and nowhere else."""

from __future__ import annotations

import argparse
import os
import pty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kraken_feed.cli.arguments import parse
from kraken_feed.cli.commands import COMMANDS
from kraken_feed.errors import UsageError
from kraken_feed.output.selection import Selection
from kraken_feed.service.rows import choose, events_in_rows, wanted

from ...support.cases import each


@pytest.fixture
def terminal() -> Iterator[str]:
    master, slave = pty.openpty()
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def arguments(*words: str) -> argparse.Namespace:
    return parse(["tail", "executions", *words], COMMANDS)


def refusal(*words: str, channels: tuple[str, ...] = ("executions",)) -> str:
    with pytest.raises(UsageError) as raised:
        choose(arguments(*words), channels)
    assert raised.value.remedy
    return raised.value.what


def test_without_a_selection_every_output_is_allowed(tmp_path: Path) -> None:
    assert choose(arguments("--output", str(tmp_path / "x.jsonl")), ("executions",)) is None


def test_rows_on_a_terminal_are_selected(terminal: str) -> None:
    words = ("--pair", "BTC/USD", "--pair", "xethzeur", "--event", "trade", "--event", "canceled", "--output", terminal)
    assert choose(arguments(*words), ("executions",)) == Selection({"XBTUSD", "ETHEUR"}, {"trade", "canceled"})


def test_rows_in_a_pipe_are_selected_if_they_are_asked_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ("--pair", "BTC/USD", "--output", str(pipe))
    assert choose(arguments(*words, "--format", "console"), ("executions",)) is not None
    assert "JSON" in refusal(*words)


@each("fmt", ["auto", "json", "console"])
@each("exists", [True, False])
def test_a_file_gets_every_record(exists: bool, fmt: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("out") / "x.jsonl"
    if exists:
        path.touch()
    assert "A file gets every record" in refusal("--event", "trade", "--output", str(path), "--format", fmt)


def test_json_on_a_terminal_has_every_record(terminal: str) -> None:
    assert "JSON" in refusal("--event", "trade", "--output", terminal, "--format", "json")


def test_what_is_hidden_cannot_be_counted(terminal: str) -> None:
    assert "--count" in refusal("--event", "trade", "--output", terminal, "--count", "3")


def test_balances_have_no_pair(terminal: str) -> None:
    assert "--pair" in refusal("--pair", "BTC/USD", "--output", terminal, channels=("balances",))
    assert choose(arguments("--pair", "BTC/USD", "--output", terminal), ("balances", "executions"))


@each(
    ("words", "message"),
    [
        (("--pair", "BTC"), "'BTC' is not a pair"),
        (("--event", "trades"), "Did you mean trade?"),
        (("--event", "Closed"), "Did you mean closed?"),
    ],
)
def test_a_wrong_word_is_refused_with_the_nearest(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        arguments(*words)


@each("pair", ["BTC-USD", "btc_usd"])
def test_other_separators_are_understood(pair: str, terminal: str) -> None:
    assert choose(arguments("--pair", pair, "--output", terminal), ("executions",)) == Selection(
        {"XBTUSD"}, frozenset()
    )


@each(("fmt", "terminal_is_rows"), [("auto", True), ("console", True), ("json", False)])
def test_rows_are_wanted_on_a_terminal_or_if_asked_for(fmt: Any, terminal_is_rows: bool, terminal: str) -> None:
    reader, writer = os.pipe()
    fd = os.open(terminal, os.O_WRONLY | os.O_NOCTTY)
    try:
        assert wanted(fmt, fd) is terminal_is_rows
        assert wanted(fmt, writer) is (fmt == "console")
    finally:
        for each_fd in (reader, writer, fd):
            os.close(each_fd)


def test_diagnostics_are_complete_where_no_rows_are_shown() -> None:
    assert events_in_rows(arguments()) == ()
