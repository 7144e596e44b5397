"""What an output file says of the time before a start that has no checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.feed import last_records as module
from kraken_feed.feed.last_records import LastRecord, last_records
from kraken_feed.records.render import render, timestamp

S = 1_000_000_000
T0 = 1_795_214_465 * S


def line(
    second: int, event_name: str, *, channel: str = "openOrders", account: str = "main", **fields: object
) -> bytes:
    known = {"id": f"{account}:{second}", "ts": timestamp(T0 + second * S), "event_name": event_name, "v": 1}
    return render({**known, "account": account, "channel": channel, "connection": "c1", **fields})


def update(second: int, data: bytes = b'{"userref":0}', **fields: object) -> bytes:
    return line(second, "order", **{"type": "update", **fields}, data=data)  # type: ignore[arg-type]  # names of a line


def live(second: int, connection: str = "c1") -> bytes:
    return line(second, "feed.live", attempt=1, engine="online", connection=connection)


def lost(second: int, last: int) -> bytes:
    return line(second, "feed.lost", cause="network", last_sequence=7, last_ts=timestamp(T0 + last * S))


def answered(
    second: int, start: int | None, end: int, event_name: str = "feed.backfilled", cause: str = "network"
) -> bytes:
    since = None if start is None else timestamp(T0 + start * S)
    fields: dict[str, Any] = {"from": since, "to": timestamp(T0 + end * S), "cause": cause}
    return line(second, event_name, **fields)


def found(path: Path, *lines: bytes) -> LastRecord | None:
    path.write_bytes(b"".join(lines))
    return last_records(str(path), "main", ["openOrders"]).get("openOrders")


def seconds(last: LastRecord | None) -> tuple[int, int | None] | None:
    """Seconds since T0 of the record, and of Kraken's time."""
    if last is None:
        return None
    kraken = None if last.kraken_ns is None else round((last.kraken_ns - T0) / S)
    return round((last.ts_ns - T0) / S), kraken


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


# ------------------------------------------------------------------------------------------------ the newest record


def test_the_newest_record_of_each_channel_is_found_in_one_pass(path: Path) -> None:
    path.write_bytes(
        update(1)
        + line(2, "trade", channel="ownTrades", type="update", data=b"{}")
        + update(3)
        + update(4, account="b")
    )
    both = last_records(str(path), "main", ["openOrders", "ownTrades", "balances"])
    assert {channel: seconds(last) for channel, last in both.items()} == {
        "openOrders": (3, None),
        "ownTrades": (2, None),
    }
    assert both["openOrders"].connection == "c1"
    assert seconds(last_records(str(path), "b", ["openOrders"])["openOrders"]) == (4, None)


@pytest.mark.parametrize(
    ("data", "second"),
    [
        (b'{"lastupdated":"1795214470.5","opentm":"1795214460.1"}', 6),
        (b'{"opentm":1795214460.25,"closetm":1795214468}', 3),
        (b'{"time":"1795214470.9999"}', 6),
        (b'{"timestamp":"2026-11-20T22:41:12.123456Z"}', 7),
    ],
)
def test_krakens_own_time_of_the_newest_item_is_read_in_v1_and_v2(path: Path, data: bytes, second: int) -> None:
    assert seconds(found(path, update(60, data), update(61))) == (61, second)


def test_records_without_a_time_do_not_hide_an_older_one_that_has_it(path: Path) -> None:
    dated = update(5, b'{"time":"1795214469"}')
    assert seconds(found(path, dated, update(6), update(7))) == (7, 4)


def test_what_is_written_before_a_channel_is_live_is_no_sign_of_it(path: Path) -> None:
    """A run that was killed before it was live can have left a state, a snapshot and even an update."""
    status = line(60, "feed.status", engine="online", connection="c2")
    shown = line(61, "order", type="snapshot", data=b"{}", connection="c2")
    early = update(62, connection="c2")
    before = [live(0), update(4)]
    assert seconds(found(path, *before, status, shown)) == (4, None)
    assert seconds(found(path, *before, status, shown, early)) == (4, None)
    assert seconds(found(path, *before, lost(5, 5), status, shown, early)) == (5, None)
    assert seconds(found(path, *before, early, live(70, "c3"), update(71, connection="c3"))) == (4, None)
    assert seconds(found(path, *before, early, live(70, "c2"))) == (4, None), "an early one on the one that lived"
    assert found(path, status, shown) is None


def test_updates_before_a_connection_was_live_are_no_sign_of_it_at_the_beginning_of_a_file_either(path: Path) -> None:
    """But if the file was rotated meanwhile, its first connection can have been live before."""
    first, second, later = (update(second, sequence=number) for second, number in ((5, 1), (6, 2), (7, 40)))
    assert found(path, first, second, later) is None
    assert found(path, second, later) is None, "the snapshot had nothing new"
    assert seconds(found(path, later, update(8, sequence=41))) == (8, None)
    assert seconds(found(path, first, second, live(7), later)) == (7, None)


def test_a_snapshot_does_not_hide_a_newer_time_of_an_update_before_it(path: Path) -> None:
    """An order in a snapshot may have been opened years ago."""
    old = line(7, "order", type="snapshot", data=b'{"opentm":"1700000000"}')
    assert seconds(found(path, update(5, b'{"time":"1795214469"}'), old)) == (5, 4)


def test_what_rest_has_added_says_nothing_of_when_it_was_complete(path: Path) -> None:
    """Its newest rows can be in the file while older ones are missing."""
    added = line(7, "order", type="backfill", data=b'{"closetm":"1795214471"}')
    assert seconds(found(path, update(2, b'{"time":"1795214466"}'), added)) == (2, 1)


def test_the_outage_begins_at_the_earlier_of_the_two_clocks() -> None:
    assert LastRecord(10, None, None).start_ns() == 10
    assert LastRecord(10, 7, None).start_ns() == 7
    assert LastRecord(10, 3600, None).start_ns() == 10


# ------------------------------------------------------------------------------------------------ pending outages


@pytest.mark.parametrize("answer", ["feed.backfilled", "feed.gap"])
def test_an_outage_that_was_answered_is_over(path: Path, answer: str) -> None:
    before = [live(0), update(1), lost(3, 2), live(9)]
    assert seconds(found(path, *before, update(10), answered(20, 2, 9, answer))) == (10, None)
    assert seconds(found(path, *before, answered(20, 1, 12, answer), update(30))) == (30, None), "an overlap"
    assert seconds(found(path, *before, answered(20, None, 9, answer), update(30))) == (30, None)


def test_an_outage_that_nothing_answers_begins_when_kraken_was_last_heard(path: Path) -> None:
    dated = update(1, b'{"time":"1795214466"}'), update(12, b'{"time":"1795214477"}')
    assert seconds(found(path, live(0), dated[0], lost(5, 3), live(9), dated[1])) == (3, 1)
    assert seconds(found(path, live(0), dated[0], lost(5, 3))) == (3, 1), "it is not even live again"


def test_an_outage_after_a_kill_begins_at_the_last_record_before_it(path: Path) -> None:
    assert seconds(found(path, live(0), update(4), live(60), update(70))) == (4, None)
    assert seconds(found(path, live(0), update(4), live(60), live(80), update(90))) == (4, None), "killed twice"


def test_a_first_start_has_no_outage_before_it(path: Path) -> None:
    assert seconds(found(path, live(0), update(4), update(9))) == (9, None)
    since = answered(10, -900, 0, cause="since")
    assert seconds(found(path, live(0), update(4), since, live(60), update(61))) == (4, None)


def test_the_answer_to_a_later_outage_does_not_answer_an_earlier_one(path: Path) -> None:
    """A query can be refused, or contradict itself, while the next outage is recovered."""
    lines = [live(0), update(1), lost(3, 2), live(9), update(14), lost(15, 14), live(25), update(30)]
    assert seconds(found(path, *lines, answered(40, 14, 25), update(50))) == (2, None)
    assert seconds(found(path, *lines, answered(40, 2, 9), update(50))) == (14, None)
    assert seconds(found(path, *lines, answered(40, 14, 25), answered(41, 2, 9), update(50))) == (50, None)


def test_the_answer_to_a_loss_does_not_answer_a_kill(path: Path) -> None:
    lines = [live(0), update(4), live(60), update(61), lost(70, 69), live(75), update(80)]
    assert seconds(found(path, *lines, answered(90, 69, 75))) == (4, None)
    assert seconds(found(path, *lines, answered(90, 4, 60, cause="restart"))) == (69, None)
    assert seconds(found(path, *lines, answered(90, 4, 60, cause="restart"), answered(91, 69, 75))) == (80, None)


def test_an_unreadable_frame_that_was_recovered_answers_no_kill(path: Path) -> None:
    lines = [live(0), update(4), live(60), update(61)]
    assert seconds(found(path, *lines, answered(90, 61, 62, cause="unreadable"), update(91))) == (4, None)


def test_an_answer_that_is_written_before_the_channel_is_live_is_no_sign_of_life(path: Path) -> None:
    gap = answered(60, 1, 2, "feed.gap")
    assert seconds(found(path, live(0), update(4), gap)) == (4, None)
    assert seconds(found(path, live(0), update(4), gap, live(61), update(70))) == (4, None)


@given(st.lists(st.sampled_from(["update", "live", "lost", "killed", "answer", "answer the newest"]), max_size=15))
def test_nothing_newer_than_the_first_outage_without_an_answer_is_believed(events: list[str]) -> None:
    """A model plays the file forwards. Kills without a loss between them may be told apart, or not."""
    lines, newest = [live(0), update(1)], 1
    unanswered: list[tuple[int, int, str]] = []  # outages that are over: start, end, cause
    down: tuple[int, str] | None = None
    for second, event in enumerate(events, 2):
        if event.startswith("answer") and unanswered:
            start, end, cause = unanswered.pop(-1 if event == "answer the newest" else 0)
            lines.append(answered(second, start, end, cause=cause))
        elif event == "live" and down is not None:
            lines.append(live(second))
            unanswered, down, newest = [*unanswered, (down[0], second, down[1])], None, second
        elif event == "update" and down is None:
            lines.append(update(second))
            newest = second
        elif event == "lost" and down is None:
            lines.append(lost(second, newest))
            down = newest, "network"
        elif event == "killed" and down is None:
            down = newest, "restart"
    with TemporaryDirectory() as directory:
        last = found(Path(directory) / "out.jsonl", *lines)
    assert last is not None
    believed, right = round((last.ts_ns - T0) / S), min([*(start for start, _, _ in unanswered), newest])
    kills = sum(cause == "restart" for _, _, cause in unanswered)
    assert believed == right or (kills and believed < right)


# ------------------------------------------------------------------------------------------------ foreign lines


def test_what_is_not_ours_or_is_torn_is_passed_over(path: Path) -> None:
    mark = b'"account":"main","channel":"openOrders"'
    strange = [
        b"\n",
        b"plain text " + mark + b"\n",
        b'{"other":{' + mark + b"}}\n",
        b'{"ts":"yesterday","event_name":"order",' + mark + b"}\n",
        b'{"ts":5,"event_name":"order",' + mark + b"}\n",
        update(7, data=b'{"x":{"account":"main","channel":"openOrders"}}', account="b"),
        b"[" * 100_000 + mark + b"\n",
        b"\0" * 5000 + b"\n",
        update(9)[:-40],  # torn
    ]
    assert seconds(found(path, update(3), *strange)) == (3, None)
    assert found(path, *strange[:-1]) is None


def test_files_that_are_missing_empty_or_not_files_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    for name in ("missing", "empty", "fifo", ".", "/dev/null"):
        assert last_records(str(tmp_path / name), "main", ["openOrders"]) == {}


def test_no_more_than_the_limit_is_read(path: Path) -> None:
    path.write_bytes(update(1) + update(2, account="b") * 100)
    assert last_records(str(path), "main", ["openOrders"], 1000) == {}
    assert seconds(last_records(str(path), "main", ["openOrders"])["openOrders"]) == (1, None)


@given(st.lists(st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")), max_size=20), st.integers(1, 9))
def test_lines_are_read_backwards_wherever_blocks_begin(lines: list[bytes], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as directory:
        patch.setattr(module, "BLOCK", block)
        path = Path(directory) / "out"
        path.write_bytes(b"\n".join(lines))
        read = list(module._lines_backwards(str(path), 10_000))
        assert read[::-1] == (lines or [b""])
        limited = list(module._lines_backwards(str(path), 30))
        assert limited == read[: len(limited)]
