"""The benchmark measures what it says: its frames are Kraken's to every reader, and its arithmetic is right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from bench.contender import floor, kraken_feed
from bench.frames import DIALECTS, SHAPES, Dialect, Script, chunks, mark, phases, text_frame
from bench.process import running, serving
from bench.result import Bound, Row, quantile, table
from kraken_feed.config.schema import DIALECTS as OURS
from kraken_feed.feed.known_state import Knowledge
from kraken_feed.protocol.session import Live, Notice, Opaque, Session, Timing
from kraken_feed.protocol.wire import Data

from ..support.cases import each


def _payloads(script: Script) -> Iterator[bytes]:
    for phase in phases(script):
        yield from phase


def _records(dialect: Dialect, script: Script) -> list[Data]:
    """What a session makes of the whole conversation; anything that is no record fails."""
    channel = {"v1": "openOrders", "v2": "executions"}[dialect]
    session = Session(OURS[dialect], [channel], Timing(5.0, 10.0))
    session.connected(0.0)
    session.authorize("EXAMPLE+token", 0.0, 0)
    greeting, shapes = SHAPES[dialect].GREETING, SHAPES[dialect]
    (greeted,) = session.receive(greeting, 0.0)
    assert isinstance(greeted, Notice)
    assert session.receive(shapes.acknowledgement(1).encode(), 0.0) == ()
    records = []
    for payload in _payloads(script):
        for event in session.receive(payload, 0.0):
            assert not isinstance(event, Opaque | Notice), payload
            if isinstance(event, Data):
                records.append(event)
            else:
                assert isinstance(event, Live)
    assert session.failure is None
    assert session.live
    return records


@each("dialect", DIALECTS)
def test_script_is_a_whole_session_without_a_gap(dialect: Dialect) -> None:
    records = _records(dialect, Script(dialect, 20, (300, 200)))
    assert records[0].type == "snapshot"
    assert [frame.sequence for frame in records] == list(range(1, 1 + 1 + 300 + 200 + 2))


@each("dialect", DIALECTS)
def test_open_orders_stay_as_many(dialect: Dialect) -> None:
    """Else a script of 100,000 open orders would measure another number of them."""
    records = _records(dialect, Script(dialect, 400, (4000,)))
    knowledge = Knowledge(records[0].channel)
    list(knowledge.snapshot(records[0].items, "changes"))
    assert len(knowledge.orders) == 400
    for frame in records[1:]:
        for item in frame.items:
            assert knowledge.update(item)
    assert 340 < len(knowledge.orders) < 460


@each("dialect", DIALECTS)
def test_frames_are_json_of_kraken_sizes(dialect: Dialect) -> None:
    updates = list(_payloads(Script(dialect, 100, (2000,))))[1:-1]
    for payload in updates:
        json.loads(payload)
    sizes = [len(payload) for payload in updates]
    assert min(sizes) >= {"v1": 80, "v2": 190}[dialect]
    assert max(sizes) <= 600


@each("dialect", DIALECTS)
def test_all_stages_are_equally_frequent_whatever_the_size(dialect: Dialect) -> None:
    """Scripts of different sizes are compared with each other."""
    few, many = (
        [len(payload) for payload in list(_payloads(Script(dialect, count, (5000,))))[1:]] for count in (10, 4000)
    )
    assert sum(many) == pytest.approx(sum(few), rel=0.05)


def test_only_active_orders_have_events() -> None:
    (first, *updates) = _records("v1", Script("v1", 1000, (2000,), active=10))
    known = {item.order_id for item in first.items}
    touched = {item.order_id for frame in updates for item in frame.items} & known
    assert 0 < len(touched) <= 20


@each("dialect", DIALECTS)
def test_stamped_frame_is_an_update(dialect: Dialect) -> None:
    said = OURS[dialect].decode(SHAPES[dialect].stamped(123456789, 7).encode())
    assert isinstance(said, Data)
    assert said.sequence == 7
    assert b'"lastupdated":"123456789"' in said.items[0].data


@each(("size", "header"), [(125, 2), (126, 4), (65535, 4), (65536, 10)])
def test_text_frame_carries_its_length(size: int, header: int) -> None:
    frame = text_frame(b"x" * size)
    assert len(frame) == header + size
    coded = frame[1] if header == 2 else int.from_bytes(frame[2:header], "big")
    assert coded == size


def test_chunks_are_the_same_bytes() -> None:
    payloads = [b"x" * 1000] * 1000
    assert b"".join(chunks(iter(payloads))) == b"".join(map(text_frame, payloads))


# ------------------------------------------------------------------------------------------------ processes


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the benchmark reads what Linux tells of processes")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_frame_reaches_the_output(dialect: Dialect) -> None:
    """On real sockets. The floor writes frames: greeting, acknowledgement, snapshot; ours items, and feed.live."""
    script, updates_and_marks = Script(dialect, 8, (50, 70)), 50 + 1 + 70 + 1
    for contender, lines in ((floor(), 3 + updates_and_marks), (kraken_feed(), 8 + 1 + updates_and_marks)):
        with serving({"it": script}) as server, running(contender, server, "it") as run:
            output = b""
            while mark(0) not in output:
                output += run.read()
            server.go_on()
            while mark(1) not in output or not output.endswith(b"\n"):
                output += run.read()
            assert run.cpu_s() > 0
            now = run.memory_kib()
            assert run.memory_kib("VmHWM") >= now > 0
        assert output.count(b"\n") == lines, contender.name


# ------------------------------------------------------------------------------------------------ arithmetic


def test_ratio_is_the_median_of_pairs() -> None:
    row = Row("it", "µs", ("ours", [10.0, 40.0, 12.0]), ("floor", [5.0, 10.0, 10.0]), Bound(1.5))
    assert row.ratios == [2.0, 4.0, 1.2]
    assert row.figure == 2.0


@each(
    ("bound", "figure", "verdict"),
    [
        (Bound(1.5, 1.0), 1.6, "MISSED"),
        (Bound(1.5, 1.0), 1.5, "met"),
        (Bound(1.5, 1.0), 0.9, "aim met"),
        (Bound(4, 6, "at least"), 3.9, "MISSED"),
        (Bound(4, 6, "at least"), 4.0, "met"),
        (Bound(4, 6, "at least"), 7.0, "aim met"),
        (Bound(None, 1.0, "at least"), 0.5, "below aim"),
    ],
)
def test_verdicts(bound: Bound, figure: float, verdict: str) -> None:
    assert bound.verdict(figure) == verdict


def test_quantile_is_the_nearest_rank() -> None:
    figures = [float(n) for n in range(100, 0, -1)]
    assert [quantile(figures, share) for share in (0.01, 0.5, 0.99, 0.999, 1.0)] == [1, 50, 99, 100, 100]
    assert quantile([7.0], 0.5) == 7.0


def test_table_names_bar_aim_and_verdict() -> None:
    row = Row("CPU a frame", "µs", ("ours", [12.0]), ("floor", [10.0]), Bound(1.5, 1.0))
    line = table([row]).splitlines()[1].split()
    assert line[-6:] == ["1.20", "≤", "1.5", "≤", "1", "met"]
