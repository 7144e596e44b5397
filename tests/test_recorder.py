"""What a marker quotes is masked, and nothing else of it."""

from __future__ import annotations

from typing import Any

import msgspec

from kraken_feed import spot_v1
from kraken_feed.log import feed_logger
from kraken_feed.recorder import Recorder
from kraken_feed.text import Secrets

NOON_NS = 1_763_726_400_000_000_000  # 2025-11-21T12:00:00Z


class _Lines:
    """An output in memory."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, line: bytes, count: int = 1) -> None:
        self.records.append(msgspec.json.decode(line))


def recorder(lines: _Lines, *hidden: str) -> Recorder:
    secrets = Secrets()
    secrets.add(*hidden)
    made = Recorder(
        "main", spot_v1, "run", knowledge={}, snapshots="changes", feed_log=feed_logger(lines, v=1, account="main"),
        mask=secrets.mask, unix_ns=lambda: NOON_NS, more=lambda: True,
    )  # fmt: skip
    made.connected("run-1", ["openOrders"])
    return made


def test_what_a_marker_quotes_of_the_exchange_is_masked() -> None:
    lines = _Lines()
    made = recorder(lines, "hunter2")
    made.mark("openOrders", "feed.lost", cause="closed", detail="1001 hunter2")
    made.mark_outage("openOrders", "feed.gap", None, NOON_NS, reason="EQuery:Unknown hunter2")
    made.mark("openOrders", "feed.stopped", reason="error: hunter2")
    assert [record.get("detail") or record["reason"] for record in lines.records] == [
        "1001 [masked]", "EQuery:Unknown [masked]", "error: [masked]",
    ]  # fmt: skip


def test_a_password_that_is_a_number_takes_nothing_out_of_times_and_ids() -> None:
    lines, plain = _Lines(), _Lines()
    for made in (recorder(lines, "2025", "1", "main"), recorder(plain)):
        made.mark("openOrders", "feed.lost", cause="closed", last_ts="2025-11-21T11:59:59.000000Z", last_sequence=1)
        made.mark_outage("openOrders", "feed.gap", 0, NOON_NS, reason="switched off")
    assert lines.records == plain.records
