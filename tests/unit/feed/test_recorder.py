"""Different items have different ids, whatever the exchange does; what a marker quotes is masked."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.feed.known_state import Knowledge
from kraken_feed.feed.recorder import Recorder
from kraken_feed.protocol import spot_v1, spot_v2
from kraken_feed.protocol.session import Opaque
from kraken_feed.protocol.wire import Data, Item
from kraken_feed.telemetry.loggers import feed_logger
from kraken_feed.text import Secrets

from ...support.cases import each
from ...support.examples import examples

NOON_NS = 1_763_726_400_000_000_000  # 2025-11-21T12:00:00Z
ORDER_ID = "OAAAAA-BBBBB-CCCCC1"


class _Lines:
    """An output in memory."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, line: bytes, count: int = 1) -> None:
        self.records += [msgspec.json.decode(each) for each in line.splitlines()]

    @property
    def ids(self) -> list[str]:
        return [record["id"] for record in self.records]


def recorder(lines: _Lines, *hidden: str, channel: str = "openOrders") -> Recorder:
    secrets = Secrets()
    secrets.add(*hidden)
    made = Recorder(
        "main", spot_v1 if channel in spot_v1.EVENT_NAMES else spot_v2, "run",
        knowledge={channel: Knowledge(channel)}, snapshots="changes", feed_log=feed_logger(lines, v=1, account="main"),
        mask=secrets.mask, unix_ns=lambda: NOON_NS, blank=False,
        more=lambda: True,
    )  # fmt: skip
    made.connected("run-1", [channel])
    return made


# ------------------------------------------------------------------------------------------------ markers


def test_what_a_marker_quotes_of_the_exchange_is_masked() -> None:
    lines = _Lines()
    made = recorder(lines, "hunter2")
    made.write_marker("openOrders", "feed.lost", cause="closed", detail="1001 hunter2")
    made.write_outage("openOrders", "feed.gap", None, NOON_NS, reason="EQuery:Unknown hunter2")
    made.write_marker("openOrders", "feed.stopped", reason="error: hunter2")
    assert [record.get("detail") or record["reason"] for record in lines.records] == [
        "1001 [masked]", "EQuery:Unknown [masked]", "error: [masked]",
    ]  # fmt: skip


def test_a_password_that_is_a_number_takes_nothing_out_of_times_and_ids() -> None:
    lines, plain = _Lines(), _Lines()
    for made in (recorder(lines, "2025", "1", "main"), recorder(plain)):
        made.write_marker(
            "openOrders", "feed.lost", cause="closed", last_ts="2025-11-21T11:59:59.000000Z", last_sequence=1
        )
        made.write_outage("openOrders", "feed.gap", 0, NOON_NS, reason="switched off")
    assert lines.records == plain.records


def test_an_outage_of_unknown_beginning_says_so() -> None:
    lines = _Lines()
    recorder(lines).write_outage("openOrders", "feed.gap", None, NOON_NS, reason="x")
    (record,) = lines.records
    assert record["from"] is None
    assert record["to"] == "2025-11-21T12:00:00.000000Z"
    assert record["id"] == "main:openOrders:feed.gap:None:2025-11-21T12:00:00.000000Z"


def test_two_outages_of_the_same_interval_have_ids_of_their_own() -> None:
    lines = _Lines()
    made = recorder(lines)
    for _ in range(3):
        made.write_outage("openOrders", "feed.gap", None, NOON_NS, reason="x")
        made.write_outage("openOrders", "feed.backfilled", None, NOON_NS)
    assert len(set(lines.ids)) == 6
    assert lines.ids[2] == f"{lines.ids[0]}:2"


def test_a_channel_that_is_live_twice_on_one_connection_has_two_markers() -> None:
    lines = _Lines()
    made = recorder(lines)
    for _ in range(2):
        made.write_marker("openOrders", "feed.live")
        made.write_marker("openOrders", "feed.lost", cause="resnapshot")
    assert len(set(lines.ids)) == 4


def test_the_ids_of_markers_that_are_remembered_are_bounded() -> None:
    lines = _Lines()
    made = recorder(lines)
    for number in range(1, 3000):
        made.connected(f"run-{number}", ["openOrders"])
        made.write_marker("openOrders", "feed.live")
    assert len(made._marked) == 1000
    assert len(set(lines.ids)) == 2999


# ------------------------------------------------------------------------------------------------ items


@each("identity", [None, ""])
def test_rows_of_rest_without_an_identity_have_ids_of_their_own(identity: str | None) -> None:
    lines = _Lines()
    made = recorder(lines)
    for _ in range(3):
        made.write_backfill("openOrders", Item(b"{}", ORDER_ID, None, identity))
    assert len(set(lines.ids)) == 3


def test_a_second_item_under_an_identity_is_recorded_under_its_own() -> None:
    lines = _Lines()
    made = recorder(lines)
    items = [Item(b'{"n":%d}' % n, ORDER_ID, None, f"{ORDER_ID}:end") for n in (1, 2, 2, 1)]
    made.write(Data("openOrders", items, 2, "update"), NOON_NS)
    made.flush()
    assert lines.ids == ["main:openOrders:OAAAAA-BBBBB-CCCCC1:end", f"main:openOrders:{items[1].identity}"]
    assert [record["data"]["n"] for record in lines.records] == [1, 2]


@each("channel", ["openOrders", "executions", "balances"])
def test_a_sequence_that_begins_again_with_a_second_snapshot_repeats_no_id(channel: str) -> None:
    lines = _Lines()
    made = recorder(lines, channel=channel)
    for epoch in (0, 1, 2):
        for number, type in enumerate(("snapshot", "update", "update"), 1):
            items = [Item(b'{"asset":"A%d","n":%d,"epoch":%d}' % (n, number, epoch), f"O{n}") for n in (1, 2)]
            made.write(Data(channel, items, number, type, epoch=epoch), NOON_NS)  # type: ignore[arg-type]  # one of them
    made.flush()
    assert len(set(lines.ids)) == len(lines.ids) == 18
    assert lines.ids[2] == f"main:{channel}:run-1:u2:0"
    assert lines.ids[8] == f"main:{channel}:run-1:1.u2:0"


@each("number", [1, 4, 5])
def test_a_frame_whose_number_was_there_before_repeats_no_id(number: int) -> None:
    """The session fails at it, but what came is written."""
    lines = _Lines()
    made = recorder(lines)
    for sequence in (4, 5, number):
        made.write(Data("openOrders", [Item(b'{"n":1}', ORDER_ID)], sequence, "update"), NOON_NS)
    made.flush()
    assert len(set(lines.ids)) == 3


FRAMES = st.tuples(
    st.sampled_from(["update", "update", "update", "snapshot", "resnapshot"]),
    st.none() | st.integers(0, 4),
    st.lists(st.tuples(st.sampled_from(["O1", "O1:end", "T1", None, ""]), st.integers(0, 2)), max_size=3),
)
ROWS = st.tuples(st.just("rest"), st.none(), FRAMES.map(lambda frame: frame[2]))
SCRIPTS = st.lists(
    FRAMES | ROWS | st.tuples(st.sampled_from(["connect", "opaque", "engine", "live"]), st.none(), st.just([])),
    max_size=25,
)


@settings(max_examples=examples(400))
@given(st.sampled_from(["openOrders", "ownTrades", "executions", "balances"]), SCRIPTS)
def test_no_two_records_of_an_output_have_one_id_whatever_comes(channel: str, script: list[Any]) -> None:
    """Any frames in any order, with numbers that repeat, fall and are missing, and ids that repeat with other bytes."""
    lines, epoch, connection = _Lines(), 0, 1
    made = recorder(lines, channel=channel)
    for what, number, told in script:
        items = [
            Item(b'{"n":%d}' % n, identity and identity[:2], identity if identity == "T1" else None, identity)
            if identity != "O1" else Item(b'{"n":%d}' % n, "O1")
            for identity, n in told
        ]  # fmt: skip
        match what:
            case "connect":
                epoch, connection = 0, connection + 1
                made.disconnected()
                made.connected(f"run-{connection}", [channel])
            case "live":
                made.went_live()
                made.write_marker(channel, "feed.live")
            case "opaque":
                made.write_opaque(Opaque(b"{}", json=True), "")
            case "engine":
                made.engine_changed([channel], "online")
            case "rest":
                made.knowledge[channel].begin_pass()
                for item in items:
                    if made.knowledge[channel].backfilled(item) or not item.identity:
                        made.write_backfill(channel, item)
            case _:
                epoch += what == "resnapshot"
                made.write(
                    Data(channel, items, number, "update" if what == "update" else "snapshot", epoch=epoch), NOON_NS
                )
    made.flush()
    assert len(set(lines.ids)) == len(lines.ids), script


# ------------------------------------------------------------------------------------------------ what is repeated


class _Events:
    """A logger that keeps its events: the items' data, and whether they are repeated."""

    def __init__(self) -> None:
        self.seen: list[tuple[list[bytes], bool]] = []

    def bind(self, **fields: object) -> _Events:
        return self

    def records(self, name: str, items: list[Any], **fields: object) -> None:
        self.seen.append(([item[-1] for item in items], fields.get("repeated", False) is True))


def test_items_that_a_snapshot_repeats_are_logged_apart_and_the_json_does_not_change() -> None:
    known, new = b'{"status":"open","vol":"1"}', b'{"status":"open","vol":"2"}'
    items = [Item(known, "A"), Item(new, "B"), Item(new, "C"), Item(known, "A")]
    events, lines = _Events(), _Lines()
    for log in (events, feed_logger(lines, v=1, account="main")):
        knowledge = Knowledge("openOrders", {"A": [known]}, before_first_snapshot=False)
        made = Recorder(
            "main", spot_v1, "run", knowledge={"openOrders": knowledge}, snapshots="all", feed_log=log,  # type: ignore[arg-type]  # a part of one
            mask=str, unix_ns=lambda: NOON_NS, blank=False, more=None,
        )  # fmt: skip
        made.connected("run-1", ["openOrders"])
        made.write(Data("openOrders", items, 1, "snapshot"), NOON_NS)
        made.write(Data("openOrders", [Item(new, "A")], 2, "update"), NOON_NS)
        made.flush()
    assert events.seen == [([known], True), ([new, new], False), ([known], True), ([new], False)]
    assert [record["data"]["vol"] for record in lines.records] == ["1", "2", "2", "1", "2"]
    assert all("repeated" not in record for record in lines.records)
