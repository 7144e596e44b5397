"""What a type checker makes of the public names in a program: the types are there, and mistakes are seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import kraken_feed

from ..support.timeouts import scaled

RIGHT = """
import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_never, assert_type

import structlog

import kraken_feed
from kraken_feed import Credentials, Figures, Item, Marker, Record, Records


async def main() -> None:
    key = Credentials("key", "c2VjcmV0", "otp")
    tail = kraken_feed.tail(
        "executions", "balances", accounts=["a", "b"], config={"backfill": {"enabled": False}},
        credentials={"a": key, "b": key}, state=Path("state"), snapshots="all", since=timedelta(hours=2), count=3,
        duration=1.5, log=structlog.get_logger(),
    )
    assert_type(tail, Records)
    kraken_feed.tail(config=Path("config.toml"), credentials=key, state=False, log=logging.getLogger("mine"))
    async with tail as records:
        assert_type(records, Records)
        assert_type(records.live, bool)
        assert_type(records.figures(), tuple[Figures, ...])
        assert_type(records.figures()[0].endpoints[0].live_s, float | None)
        assert_type(records.figures()[0].outages.open, int)
        assert_type(records.stop(), None)
        iterator: AsyncIterator[Record] = records
        async for record in iterator:
            assert_type(record.line, bytes)
            assert_type(record.time, datetime)
            match record:
                case kraken_feed.Order() | kraken_feed.Trade() | kraken_feed.Execution() | kraken_feed.Balance():
                    item: Item = record
                    assert_type(item.data, bytes)
                    assert_type(item.fields, dict[str, Any])
                    assert_type(item.sequence, int | None)
                    assert_type(item.order_id, str | None)
                case kraken_feed.Unknown():
                    assert_type(record.json, bool)
                case kraken_feed.Live() | kraken_feed.Status() | kraken_feed.Stopped():
                    marker: Marker = record
                case kraken_feed.Lost():
                    assert_type(record.last_sequence, int | None)
                case kraken_feed.Backfilled():
                    assert_type(record.orders, int)
                case kraken_feed.Gap():
                    assert_type(record.start, str | None)
                case _:
                    assert_never(record)


try:
    asyncio.run(main())
except kraken_feed.FeedError as error:
    assert_type(error.remedy, str)
"""

MISTAKES = {  # by the error that they are
    "attr-defined": "kraken_feed.tial",
    "arg-type": 'kraken_feed.tail("executions", snapshots="some")',
    "call-arg": 'kraken_feed.tail("executions", sate=False)',
    "misc": "def change(record: kraken_feed.Order) -> None: record.data = b''",
    "union-attr": "def missed(record: kraken_feed.Record) -> object: return record.fields",
}


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(kraken_feed.__file__).parent / "py.typed").exists()


def test_a_program_is_checked_and_its_mistakes_are_seen(tmp_path: Path) -> None:
    (tmp_path / "right.py").write_text(RIGHT)
    (tmp_path / "wrong.py").write_text("import kraken_feed\n" + "\n".join(MISTAKES.values()) + "\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context", "--config-file", "",
         "--cache-dir", str(tmp_path / "cache"), "right.py", "wrong.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=scaled(600), check=False,
    )  # fmt: skip
    said = [line.partition(": error: ") for line in done.stdout.splitlines() if ": error: " in line]
    found = {place: text.rpartition("[")[2].rstrip("]") for place, _, text in said}
    assert found == {f"wrong.py:{line}": code for line, code in enumerate(MISTAKES, 2)}, done.stdout + done.stderr
