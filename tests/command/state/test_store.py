"""The checkpoint on real files: killed processes, full disks, damaged files, newer and older versions."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import Mock

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.errors import ConfigError, StateFailed, StateHeld
from kraken_feed.state import store as module
from kraken_feed.state.checkpoint import CallLevel, Changes, ChannelState, Checkpoint, Entry, Known, Outage, Scan
from kraken_feed.state.store import Store

from ...support.examples import examples, some
from ...support.repository import ROOT

NOW_NS = 1_795_214_465_123_456_789  # 2026-11-20T22:41:05Z
STAMP = "20261120T224105Z"


def reopened(directory: Path, account: str = "main") -> Checkpoint | None:
    """What a new process would find; the file must not need to be set aside."""
    opened = Store.open(str(directory), account, NOW_NS)
    opened.store.close()
    assert opened.set_aside is None
    return opened.checkpoint


def saved(directory: Path, *several: Changes, account: str = "main") -> None:
    opened = Store.open(str(directory), account, NOW_NS)
    for changes in several:
        opened.store.save(changes)
    opened.store.close()


def some_changes(orders: int = 200, seen: int = 1000) -> Changes:
    changes = Changes(
        nonce=7, saved_ns=8, counter=CallLevel(2.5, 10), scans=[Scan("trades", 1, None, 3, {"ownTrades": 4}, 50)]
    )
    changes.complete["openOrders"] = 9
    changes.outages["openOrders"] = [
        Outage("openOrders", None, "network", 5, {"O00001", "O00002"}, {"O00003"}, {"trades": 4}, tries=3),
        Outage("openOrders", 6, ""),
    ]
    for number in range(orders):
        changes.entry("openOrders").set_order(f"O{number:05}", [b"{" + b"x" * 200 + b"}", b'{"vol_exec":"0.10"}'])
        changes.entry("openOrders").ended.append(f"E{number:05}")
    for number in range(seen):
        changes.entry("ownTrades").seen.append(f"T{number:06}")
    return changes


def expected(changes: Changes) -> Checkpoint:
    """What is found after one save of :func:`some_changes`."""
    return Checkpoint(
        7,
        8,
        {
            "openOrders": ChannelState(
                9,
                changes.entries["openOrders"].orders,
                changes.entries["openOrders"].ended,
                [],
                changes.outages["openOrders"],
            ),
            "ownTrades": ChannelState(seen=changes.entries["ownTrades"].seen),
        },
        changes.counter,
        changes.scans or [],
    )


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


# ------------------------------------------------------------------------------------------------ what is kept


def test_a_new_account_has_no_checkpoint(tmp_path: Path) -> None:
    assert reopened(tmp_path) is None
    assert reopened(tmp_path) is None, "opening it is not saving"


def test_an_empty_save_is_a_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, Changes(saved_ns=5))
    assert reopened(tmp_path) == Checkpoint(saved_ns=5)


def test_everything_saved_is_found_again(tmp_path: Path) -> None:
    changes = some_changes()
    saved(tmp_path, changes)
    assert reopened(tmp_path) == expected(changes)


def test_what_is_not_named_stays(tmp_path: Path) -> None:
    changes = some_changes()
    saved(tmp_path, changes, Changes(saved_ns=8))
    assert reopened(tmp_path) == expected(changes)


def test_ids_keep_the_checksums_they_came_with(tmp_path: Path) -> None:
    first, second = Changes(), Changes()
    first.entry("ownTrades").seen = [("A", 1), "B", ("C", 3)]
    second.entry("ownTrades").seen = ["A", ("B", 2), ("C", 4)]
    saved(tmp_path, first, second)
    checkpoint = reopened(tmp_path)
    assert checkpoint is not None
    assert checkpoint.channels["ownTrades"].seen == [("A", 1), ("B", 2), ("C", 4)]


def test_text_that_is_not_unicode_does_not_fail_a_save(tmp_path: Path) -> None:
    """JSON of Kraken's can hold lone surrogates; they are kept as they stand in the output."""
    changes = Changes(scans=[Scan("\ud800", 1, None, 1, {})])
    changes.entry("openOrders").set_order("O\ud800", [b"{}"])
    changes.entry("openOrders").ended = [("E\udfff", 5)]
    changes.outages["openOrders"] = [Outage("openOrders", 1, "\ud800", missing={"O\ud800"})]
    saved(tmp_path, changes)
    checkpoint = reopened(tmp_path)
    assert checkpoint is not None
    state = checkpoint.channels["openOrders"]
    assert state.orders == {"O\\ud800": [b"{}"]}
    assert state.ended == [("E\\udfff", 5)]
    assert state.outages == [Outage("openOrders", 1, "\\ud800", missing={"O\\ud800"})]
    assert checkpoint.scans == [Scan("\\ud800", 1, None, 1, {})]


def test_accounts_are_apart(tmp_path: Path) -> None:
    saved(tmp_path, Changes(nonce=1), account="a")
    saved(tmp_path, Changes(nonce=2), account="b")
    assert reopened(tmp_path, "a") == Checkpoint(nonce=1)


def test_saves_from_several_threads_wait_for_each_other(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)

    def save(number: int) -> None:
        changes = Changes()
        for n in range(100):
            changes.entry("ownTrades").seen.append(f"T{number}-{n}")
        opened.store.save(changes)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(save, range(200))) == [None] * 200
    opened.store.close()
    checkpoint = reopened(tmp_path)
    assert checkpoint is not None
    seen = checkpoint.channels["ownTrades"].seen
    assert sorted(map(str, seen)) == sorted(f"T{number}-{n}" for number in range(200) for n in range(100))
    assert [seen[at] for at in range(100)] == [f"{str(seen[0]).partition('-')[0]}-{n}" for n in range(100)]


def test_closing_twice_is_harmless_and_leaves_one_file_and_the_lock(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    opened.store.save(some_changes())
    opened.store.close()
    opened.store.close()
    assert names(tmp_path) == {"main.sqlite3", "main.lock"}


# One step: what is called, on Changes and on a model of plain lists and dicts alike.
CHANNEL = st.sampled_from(["openOrders", "ownTrades"])
ID = st.sampled_from(["A", "B", "C"]) | st.text(max_size=2)
NS = st.integers(0, 2**63 - 1)
OBJECTS = st.lists(st.binary(max_size=5), max_size=3)
KNOWN = st.none() | st.integers(0, 2**32 - 1)  # the checksum that an id comes with
OUTAGE = st.builds(
    Outage,
    channel=st.just(""),
    start_ns=st.none() | NS,
    cause=st.text(max_size=3),
    end_ns=st.none() | NS,
    missing=st.sets(ID, max_size=3),
    complete=st.dictionaries(ID, NS, max_size=2),
    orders=st.integers(0, 5),
    declared_ns=NS,
)
SCAN = st.builds(Scan, st.text(max_size=3), NS, st.none() | NS, NS, st.dictionaries(ID, NS, max_size=2), NS, NS)
COUNTER = st.builds(CallLevel, st.floats(0, 100), NS)
STEP = st.one_of(
    st.tuples(st.sampled_from(["seen", "ended"]), CHANNEL, ID, KNOWN),
    st.tuples(st.just("forget"), CHANNEL, ID, st.none()),
    st.tuples(st.just("set"), CHANNEL, ID, OBJECTS),
    st.tuples(st.just("grow"), CHANNEL, ID, st.binary(max_size=5)),
    st.tuples(st.just("complete"), CHANNEL, st.just(""), NS),
    st.tuples(st.just("outages"), CHANNEL, st.just(""), st.lists(OUTAGE, max_size=3)),
    st.tuples(st.just("nonce"), st.just(""), st.just(""), NS),
    st.tuples(st.just("counter"), st.just(""), st.just(""), COUNTER),
    st.tuples(st.just("scans"), st.just(""), st.just(""), st.lists(SCAN, max_size=3)),
)
Step = tuple[str, str, str, object]


def known_as(identity: str, checksum: object) -> Known:
    return identity if checksum is None else (identity, msgspec.convert(checksum, int))


def of_channel(channel: str, outages: list[Outage]) -> list[Outage]:
    return [msgspec.structs.replace(outage, channel=channel) for outage in outages]


def record(changes: Changes, step: Step) -> None:
    match step:
        case "set", channel, identity, list(objects):
            changes.entry(channel).set_order(identity, objects)
        case "grow", channel, identity, bytes(change):
            changes.entry(channel).grow_order(identity, [change])
        case "forget", channel, identity, _:
            changes.entry(channel).set_order(identity, [])
        case "complete", channel, _, int(ns):
            changes.complete[channel] = ns
        case "outages", channel, _, list(outages):
            changes.outages[channel] = of_channel(channel, outages)
        case "nonce", _, _, int(nonce):
            changes.nonce = nonce
        case "counter", _, _, CallLevel() as counter:
            changes.counter = counter
        case "scans", _, _, list(scans):
            changes.scans = scans
        case name, channel, identity, checksum:
            getattr(changes.entry(channel), name).append(known_as(identity, checksum))


def model(model: Checkpoint, step: Step) -> None:
    name, channel, identity, value = step
    match name, value:
        case "nonce", int(nonce):
            model.nonce = nonce
            return
        case "counter", CallLevel() as counter:
            model.counter = counter
            return
        case "scans", list(scans):
            model.scans = scans
            return
    state = model.channels.setdefault(channel, ChannelState())
    ids = state.seen if name == "seen" else state.ended
    match name, value:
        case "set", list(objects):
            state.orders[identity] = list(objects)
        case "grow", bytes(change):
            state.orders[identity] = [*state.orders.get(identity, []), change]
        case "forget", _:
            state.orders.pop(identity, None)
        case "complete", int(ns):
            state.complete_ns = ns
        case "outages", list(outages):
            state.outages = of_channel(channel, outages)
        case (("seen" | "ended"), checksum):
            before = [known for known in ids if (known if isinstance(known, str) else known[0]) == identity]
            ids[:] = [known for known in ids if known not in before]
            ids.append(known_as(identity, checksum) if checksum is not None or not before else before[0])


def everything(known: Checkpoint) -> dict[str, Entry]:
    """Return what a model knows of orders and ids, for a journal that replaces all before."""
    return {
        channel: Entry(
            {order_id: list(objects) for order_id, objects in state.orders.items() if objects},
            ended=list(state.ended),
            seen=list(state.seen),
        )
        for channel, state in known.channels.items()
    }


END = st.sampled_from(["save", "fail", "reopen"])


@settings(max_examples=examples(120))
@given(st.lists(st.tuples(st.lists(STEP, max_size=12), st.booleans(), END), max_size=8))
def test_any_sequence_of_saves_failures_and_restarts_ends_where_a_plain_model_does(
    bursts: list[tuple[list[Step], bool, str]],
) -> None:
    """After a failed save the next one brings the merged changes; some say everything."""
    wanted = Checkpoint()
    with TemporaryDirectory() as directory:
        opened = Store.open(directory, "main", NOW_NS)
        kept = Changes()
        for saved_ns, (steps, anew, end) in enumerate([*bursts, ([], False, "reopen")], 1):
            changes = Changes(saved_ns=saved_ns)
            for step in steps:
                record(changes, step)
                model(wanted, step)
            if anew:
                changes.entries = everything(wanted)
                changes.replaced = set(changes.entries)
            kept.merge(changes)
            if end == "fail":
                continue
            opened.store.save(kept)
            kept = Changes()
            if end == "reopen":
                opened.store.close()
                opened = Store.open(directory, "main", NOW_NS)
        opened.store.close()
    wanted.saved_ns = len(bursts) + 1
    for state in wanted.channels.values():
        state.orders = {order_id: objects for order_id, objects in state.orders.items() if objects}
    assert opened.checkpoint == wanted


def test_merging_leaves_the_later_changes_alone() -> None:
    first, later = Changes(), Changes()
    later.entry("openOrders").set_order("O", [b"{}"])
    first.merge(later)
    first.entry("openOrders").grow_order("O", [b"[]"])
    first.entry("openOrders").seen.append("T")
    assert later.entries == {"openOrders": Entry({"O": [b"{}"]})}


# What is added to a list that holds A, B and C; what it holds then.
ON_IDS = [("A", "BCA"), ("D", "ABCD"), ("DED", "ABCED"), ("", "ABC"), ("CBA", "CBA")]


@pytest.mark.parametrize("kind", ["seen", "ended"])
@pytest.mark.parametrize("merged", [False, True], ids=["saved", "merged"])
@pytest.mark.parametrize(("added", "left"), ON_IDS)
def test_an_id_stands_where_it_came_last(tmp_path: Path, kind: str, merged: bool, added: str, left: str) -> None:
    first, together = Changes(), Changes()
    getattr(first.entry("ownTrades"), kind).extend("ABC")
    for identity in added:
        one = Changes()
        getattr(one.entry("ownTrades"), kind).append(identity)
        together.merge(one)
    if merged:
        first.merge(together)
    saved(tmp_path, first, *([] if merged else [together]))
    checkpoint = reopened(tmp_path)
    assert checkpoint is not None
    assert getattr(checkpoint.channels["ownTrades"], kind) == list(left)


def test_the_journal_is_long_when_it_has_doubled_and_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOURNAL_BYTES", 5_000)
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    rounds = []
    for number in range(60):
        changes = Changes(saved_ns=number, replaced={"openOrders"} if opened.store.long else set())
        kept = range(number + 1) if changes.replaced else [number]
        for n in kept:
            changes.entry("openOrders").set_order(f"O{n}", [b"x" * 1000])
        if changes.replaced:
            rounds.append(number)
        opened.store.save(changes)
        assert not (changes.replaced and opened.store.long)
    assert rounds == [5, 12, 26, 54]
    opened.store.close()
    checkpoint = reopened(tmp_path)
    assert checkpoint is not None
    assert checkpoint.channels["openOrders"].orders == {f"O{n}": [b"x" * 1000] for n in range(60)}


def test_a_save_costs_what_has_changed_and_not_what_the_account_has(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    database = opened.store._database
    opened.store.save(some_changes(orders=10_000, seen=100_000))
    opened.store.save(Changes())
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    changes = Changes(nonce=8, saved_ns=9)
    changes.complete["openOrders"] = 10
    changes.entry("openOrders").grow_order("O05000", [b"{}"])
    changes.entry("openOrders").set_order("O07000", [b"{}"])
    changes.entry("openOrders").set_order("O09000", [])
    changes.entry("ownTrades").seen.append("T999999")
    before = database.total_changes
    opened.store.save(changes)
    rows = {"account": 1, "complete": 1, "replaced and forgotten": 1, "grown": 1, "ids": 1}
    assert database.total_changes - before == sum(rows.values())
    assert (tmp_path / "main.sqlite3-wal").stat().st_size < 100_000
    opened.store.close()


def test_the_wal_stays_small_however_much_is_saved(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    wal = tmp_path / "main.sqlite3-wal"
    largest = 0
    for number in range(300):
        changes = Changes()
        changes.replaced = {"openOrders"} if opened.store.long else set()
        changes.entry("openOrders").set_order("O", [b"x" * 100_000])
        if number == 150:
            changes.entry("openOrders").set_order("large", [b"x" * 4 * module.WAL_BYTES])
        opened.store.save(changes)
        if number != 150:
            largest = max(largest, wal.stat().st_size)
    opened.store.close()
    assert largest <= module.WAL_BYTES + 200_000
    assert (tmp_path / "main.sqlite3").stat().st_size < 5 * module.WAL_BYTES, "freed pages are used again"


# ------------------------------------------------------------------------------------------------ killed


def nth(number: int) -> Changes:
    """Changes that differ from save to save: a torn one, or a mix of two, equals no state between saves."""
    changes = Changes(nonce=number, saved_ns=number)
    changes.complete["openOrders"] = number
    orders = changes.entry("openOrders")
    orders.set_order(f"O{number % 20}", [b"%d " % number * 2000])
    orders.grow_order(f"O{(number + 7) % 20}", [b"%d" % number])
    orders.set_order(f"O{(number + 13) % 20}", [])
    changes.entry("ownTrades").seen.append(f"T{number}")
    changes.outages["ownTrades"] = [Outage("ownTrades", number, "killed")] * (number % 3)
    return changes


SAVER = f"""
import sys
from kraken_feed.state.checkpoint import Changes, Outage
from kraken_feed.state.store import Store
{inspect.getsource(nth)}
print("opening", flush=True)
opened = Store.open(sys.argv[1], "main", 0)
assert opened.set_aside is None
number = opened.checkpoint.saved_ns if opened.checkpoint else 0
while True:
    print(number, flush=True)
    number += 1
    opened.store.save(nth(number))
"""


def apply(state: Checkpoint, number: int) -> None:
    """The same on a plain model, written apart from the code under test."""
    state.nonce = state.saved_ns = number
    orders = state.channels.setdefault("openOrders", ChannelState())
    trades = state.channels.setdefault("ownTrades", ChannelState())
    orders.complete_ns = number
    orders.orders[f"O{number % 20}"] = [b"%d " % number * 2000]
    orders.orders.setdefault(f"O{(number + 7) % 20}", []).append(b"%d" % number)
    orders.orders.pop(f"O{(number + 13) % 20}", None)
    trades.seen.append(f"T{number}")
    trades.outages = [Outage("ownTrades", number, "killed")] * (number % 3)


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    root = str(ROOT)
    environment = {**os.environ, "PYTHONPATH": root}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.seeds
def test_a_kill_at_any_point_leaves_all_that_was_acknowledged_and_no_half_save(tmp_path: Path) -> None:
    """The lives of one file, each ended by SIGKILL while it opens, recovers, saves or copies the -wal back.

    After every other one the next life finds what the kill has left, without a clean opening in between.
    """
    draw = random.Random(20)
    wanted, acknowledged = Checkpoint(), 0
    lives = examples(32)
    for life in range(lives):
        with python(SAVER, tmp_path) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "opening\n"
            lines = [process.stdout.readline() for _ in range(0 if life % 4 == 3 else draw.randrange(1, 120))]
            process.kill()
            lines += process.stdout.readlines()
        assert process.returncode == -signal.SIGKILL
        numbers = [int(line) for line in lines]
        assert numbers[:1] >= [acknowledged] or not numbers
        acknowledged = max([acknowledged, *numbers])
        if life % 2:
            found = reopened(tmp_path) or Checkpoint()
            assert found.saved_ns >= acknowledged
            for number in range(wanted.saved_ns + 1, found.saved_ns + 1):
                apply(wanted, number)
            assert found == wanted
            assert not numbers or found.saved_ns <= acknowledged + 1
            acknowledged = found.saved_ns
    assert acknowledged > 15 * lives
    assert names(tmp_path) == {"main.sqlite3", "main.lock"}, "nothing was set aside"


# ------------------------------------------------------------------------------------------------ held

HOLDER = """
import sys
from kraken_feed.state.store import Store
opened = Store.open(sys.argv[1], "main", 0)
print("held", flush=True)
sys.stdin.read()
"""


def test_one_process_at_a_time_has_an_account_and_the_other_is_told_who(tmp_path: Path) -> None:
    with python(HOLDER, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StateHeld) as caught:
            Store.open(str(tmp_path), "main", NOW_NS)
        assert (caught.value.exit_code, caught.value.retry) == (75, False)
        assert f"(pid {process.pid})" in caught.value.what
        assert str(tmp_path / "main.lock") in caught.value.why
        assert "--no-state" in caught.value.remedy
        assert "--state" in caught.value.remedy
        saved(tmp_path, Changes(), account="other")
        process.kill()
    saved(tmp_path, Changes())


@pytest.mark.parametrize("content", [b"", b"no pid", b"\xff\x1b[31m", b"1" * 100])
def test_a_lock_file_that_names_nobody_is_not_quoted(tmp_path: Path, content: bytes) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    (tmp_path / "main.lock").write_bytes(content)
    with pytest.raises(StateHeld) as caught:
        Store.open(str(tmp_path), "main", NOW_NS)
    opened.store.close()
    assert ("pid" in caught.value.what) is content.isdigit()
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 120


def test_a_lock_that_a_dead_process_has_left_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "main.lock").write_text("1\n")
    saved(tmp_path, Changes())


# ------------------------------------------------------------------------------------------------ versions

# Version 1 as it was released: this text is never changed.
VERSION_1 = """
PRAGMA journal_mode = WAL;
CREATE TABLE account (one INTEGER PRIMARY KEY CHECK (one = 1), nonce INTEGER NOT NULL, saved_ns INTEGER NOT NULL);
CREATE TABLE channel (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, whole_ns INTEGER NOT NULL DEFAULT 0);
CREATE TABLE object (
    n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, order_id TEXT NOT NULL, bytes BLOB NOT NULL
);
CREATE INDEX object_of_order ON object (channel, order_id);
CREATE TABLE ended (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (channel, id));
CREATE TABLE seen (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (channel, id));
CREATE TABLE hole (
    n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, start_ns INTEGER, end_ns INTEGER, cause TEXT NOT NULL,
    connection TEXT NOT NULL
);
PRAGMA application_id = 1802660710;
PRAGMA user_version = 1;
INSERT INTO account VALUES (1, 7, 8);
INSERT INTO channel VALUES (1, 'openOrders', 9), (2, 'ownTrades', 0);
INSERT INTO object VALUES (1, 1, 'O', x'7b7d'), (2, 1, 'O', x'5b5d');
INSERT INTO ended VALUES (1, 1, 'E');
INSERT INTO seen VALUES (1, 2, 'T2'), (2, 2, 'T1');
INSERT INTO hole VALUES (1, 2, NULL, 5, 'network', 'c');
"""
IN_VERSION_1 = Checkpoint(
    7,
    8,
    {
        "openOrders": ChannelState(9, {"O": [b"{}", b"[]"]}, ["E"]),
        "ownTrades": ChannelState(seen=["T2", "T1"], outages=[Outage("ownTrades", None, "network", 5)]),
    },
    legacy=True,
)


# What version 2 changed in a file of version 1, as it was released: this text is never changed.
VERSION_2 = """
CREATE TABLE journal (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, checksum INTEGER NOT NULL, entry BLOB NOT NULL);
INSERT INTO journal VALUES
    (1, 1, 4248164157, x'82a66f726465727381a14f92c4027b7dc4025b5da5656e64656491a145'),
    (2, 2, 75010605, x'81a47365656e92a25432a25431');
DROP TABLE object;
DROP TABLE ended;
DROP TABLE seen;
PRAGMA user_version = 2;
"""


def query(path: Path, script: str) -> list[tuple[object, ...]]:
    """Run a script on the file with plain SQLite; what its last statement gives."""
    database = sqlite3.connect(path, isolation_level=None)
    rows: list[tuple[object, ...]] = []
    for statement in script.split(";\n"):
        rows = database.execute(statement).fetchall()
    database.close()
    return rows


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    path = tmp_path / "main.sqlite3"
    query(path, VERSION_1)
    return path


def test_a_file_of_version_1_is_read(version_1: Path) -> None:
    assert reopened(version_1.parent) == IN_VERSION_1


@pytest.fixture
def version_2(version_1: Path) -> Path:
    query(version_1, VERSION_2)
    return version_1


def test_a_file_of_version_2_is_read_with_its_outages(version_2: Path) -> None:
    assert reopened(version_2.parent) == IN_VERSION_1
    assert reopened(version_2.parent) == IN_VERSION_1, "and still says that its times are the wall clock's"


def test_a_migrated_file_is_legacy_until_the_time_of_each_channel_was_saved(version_2: Path) -> None:
    def legacy() -> bool:
        checkpoint = reopened(version_2.parent)
        assert checkpoint is not None
        return checkpoint.legacy

    saved(version_2.parent, Changes(saved_ns=9, outages={"openOrders": []}))
    assert legacy()
    saved(version_2.parent, Changes(complete={"openOrders": 10}))
    assert legacy(), "the other channel's time is still the wall clock's"
    saved(version_2.parent, Changes(complete={"ownTrades": 11}))
    assert not legacy()


def test_an_old_file_comes_to_the_layout_of_a_new_one(version_1: Path) -> None:
    saved(version_1.parent, Changes(), account="new")
    assert reopened(version_1.parent) == IN_VERSION_1
    layout = "SELECT type, name, tbl_name, replace(replace(replace(sql, char(10), ''), '    ', ''), ', ', ',') "
    layout += "FROM sqlite_master ORDER BY name"

    def words(path: Path) -> list[str]:
        return [str(row).replace(" ", "") for row in query(path, layout)]

    assert words(version_1.parent / "new.sqlite3") == words(version_1)
    assert query(version_1.parent / "new.sqlite3", "PRAGMA user_version") == [(len(module.MIGRATIONS),)]
    assert reopened(version_1.parent) == IN_VERSION_1, "and stays what it was"


def test_an_older_file_is_brought_up_step_by_step(version_1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fourth = ("ALTER TABLE scan ADD COLUMN reason TEXT NOT NULL DEFAULT 'unknown'", "UPDATE account SET nonce = 70")
    fifth = ("UPDATE account SET nonce = nonce + 1",)
    monkeypatch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, fourth, fifth))
    checkpoint = reopened(version_1.parent)
    assert checkpoint is not None
    assert checkpoint.nonce == 71
    assert checkpoint.channels == IN_VERSION_1.channels
    assert query(version_1, "PRAGMA user_version") == [(5,)]
    assert query(version_1, "SELECT reason FROM scan") == []
    assert reopened(version_1.parent) == checkpoint, "and not once more"
    saved(version_1.parent, Changes(), account="new")
    assert query(version_1.parent / "new.sqlite3", "PRAGMA user_version") == [(5,)]


def test_a_migration_that_fails_changes_nothing_and_is_nobodys_damage(
    version_1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", (*module.MIGRATIONS, ("UPDATE account SET nonce = 70", "nonsense")))
        with pytest.raises(sqlite3.OperationalError, match="nonsense"):
            Store.open(str(version_1.parent), "main", NOW_NS)
    assert reopened(version_1.parent) == IN_VERSION_1


def test_a_newer_file_is_refused_and_not_touched(version_1: Path) -> None:
    query(version_1, "PRAGMA user_version = 99")
    before, listed = version_1.read_bytes(), names(version_1.parent)
    for _ in range(2):  # the second time too: the lock was let go
        with pytest.raises(ConfigError) as caught:
            Store.open(str(version_1.parent), "main", NOW_NS)
    assert caught.value.exit_code == 78
    assert "newer version" in caught.value.what
    assert "99" in caught.value.why
    assert f"up to {len(module.MIGRATIONS)}" in caught.value.why
    assert "--state" in caught.value.remedy
    assert version_1.read_bytes() == before
    assert names(version_1.parent) == listed | {"main.lock"}


# ------------------------------------------------------------------------------------------------ damaged


def assert_set_aside(directory: Path, before: bytes | None, suffix: str = "") -> None:
    """A start is fresh, works, and what was there is found under the name that was reported."""
    opened = Store.open(str(directory), "main", NOW_NS)
    assert opened.set_aside == str(directory / f"main.sqlite3.damaged-{STAMP}{suffix}")
    assert opened.checkpoint is None
    if before is not None:
        assert Path(opened.set_aside).read_bytes() == before
    opened.store.save(Changes(nonce=1))
    opened.store.close()
    assert reopened(directory) == Checkpoint(nonce=1)


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    saved(tmp_path, some_changes())
    return tmp_path / "main.sqlite3"


@pytest.mark.parametrize("content", [b"garbage", b"\0" * 4096, b"SQLite format 3\0", b"SQLite format 3\0" * 1000])
def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "main.sqlite3").write_bytes(content)
    assert_set_aside(tmp_path, content)


@pytest.mark.parametrize("size", [1, 2, 50, 99, 100, 1000, 4096, 8192, -4096, -100, -1])
def test_a_file_that_was_cut_is_set_aside(complete: Path, size: int) -> None:
    content = complete.read_bytes()[:size]
    complete.write_bytes(content)
    assert_set_aside(complete.parent, content)


def test_a_file_with_any_page_flipped_is_set_aside(complete: Path) -> None:
    content = complete.read_bytes()
    for page in range(len(content) // 4096):
        start, end = page * 4096, page * 4096 + 4096
        flipped = content[:start] + bytes(byte ^ 0xFF for byte in content[start:end]) + content[end:]
        complete.write_bytes(flipped)
        assert_set_aside(complete.parent, flipped, f"-{page + 1}" if page else "")
    assert len(content) // 4096 > 15


def test_a_flipped_bit_in_an_object_or_an_id_is_seen(complete: Path) -> None:
    """SQLite does not look into what a row holds; the entry's checksum does."""
    content = complete.read_bytes()
    for number, found in enumerate((b"x" * 200, b"vol_exec", b"O00007", b"E00100", b"T000500"), 1):
        flipped = content.replace(found, bytes([found[0] ^ 1]) + found[1:])
        complete.write_bytes(flipped)
        assert_set_aside(complete.parent, flipped, f"-{number}" if number > 1 else "")


@functools.cache
def bytes_of_version_1() -> bytes:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "main.sqlite3"
        query(path, VERSION_1)
        return path.read_bytes()


@settings(max_examples=examples(80))
@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3))
def test_no_flipped_bytes_keep_it_from_starting(flips: list[tuple[float, int]]) -> None:
    """Not every flip is seen: within an id or an object it makes another one of the same length."""
    content = bytearray(bytes_of_version_1())
    used = [at for at, byte in enumerate(content) if byte or at % 4096 < 16]
    for where, bits in flips:
        content[used[int(where * len(used))]] ^= bits
    with TemporaryDirectory() as directory:
        (Path(directory) / "main.sqlite3").write_bytes(content)
        try:
            opened = Store.open(directory, "main", NOW_NS)
        except ConfigError as error:  # a flip in the version
            refused = error.what
        else:
            refused = ""
            opened.store.close()
            assert opened.set_aside is None or opened.checkpoint is None
    assert not refused or "newer version" in refused


@pytest.mark.parametrize(
    "script",
    [
        "UPDATE journal SET entry = CAST(entry AS TEXT) WHERE n = 1",
        "UPDATE journal SET entry = substr(entry, 2) WHERE n = 1",
        "UPDATE journal SET entry = x'c0', checksum = 1231433021 WHERE n = 1",
        "UPDATE journal SET checksum = 'x' WHERE n = 1",
        "UPDATE channel SET complete_ns = 5.5",
        "UPDATE outage SET outage = substr(outage, 2) WHERE n = 1",
        "UPDATE outage SET channel = 2 WHERE n = 1",
        "UPDATE scan SET checksum = checksum + 1",
        "UPDATE account SET level = 'x'",
        "UPDATE channel SET number = 77 WHERE number = 2",
        "DROP TABLE outage",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "PRAGMA application_id = 1",
    ],
    ids=[
        "a text",
        "cut",
        "no entry",
        "no checksum",
        "no integer",
        "an outage that was cut",
        "an outage of another channel",
        "a scan's checksum",
        "no level",
        "no such channel",
        "no such table",
        "version 0",
        "version -1",
        "not ours",
    ],
)
def test_a_sound_database_that_is_not_what_we_wrote_is_set_aside(complete: Path, script: str) -> None:
    query(complete, script)
    assert_set_aside(complete.parent, complete.read_bytes())


def test_an_object_is_read_as_it_stands_whatever_its_type(version_1: Path) -> None:
    query(version_1, "UPDATE object SET bytes = 'e30='")
    checkpoint = reopened(version_1.parent)
    assert checkpoint is not None
    assert checkpoint.channels["openOrders"].orders == {"O": [b"e30=", b"e30="]}


def test_an_empty_file_beside_a_wal_was_cut_and_the_wal_is_kept(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    opened.store.save(some_changes())
    opened.store.save(some_changes())
    (kept := tmp_path / "kept").write_bytes((tmp_path / "main.sqlite3-wal").read_bytes())
    opened.store.close()
    (tmp_path / "main.sqlite3").write_bytes(b"")
    kept.rename(tmp_path / "main.sqlite3-wal")
    wal = (tmp_path / "main.sqlite3-wal").read_bytes()
    assert_set_aside(tmp_path, b"")
    assert (tmp_path / f"main.sqlite3.damaged-{STAMP}-wal").read_bytes() == wal


def test_a_directory_in_its_place_is_set_aside(tmp_path: Path) -> None:
    (tmp_path / "main.sqlite3").mkdir()
    (tmp_path / "main.sqlite3" / "something").touch()
    assert_set_aside(tmp_path, None)
    assert (tmp_path / f"main.sqlite3.damaged-{STAMP}" / "something").exists()


def test_a_pipe_in_its_place_is_set_aside(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "main.sqlite3")
    assert_set_aside(tmp_path, None)


@pytest.mark.parametrize("earlier", ["", "-wal"])
def test_what_was_set_aside_earlier_is_not_overwritten(tmp_path: Path, earlier: str) -> None:
    first = tmp_path / f"main.sqlite3.damaged-{STAMP}{earlier}"
    first.write_bytes(b"earlier")
    (tmp_path / "main.sqlite3").write_bytes(b"garbage")
    assert_set_aside(tmp_path, b"garbage", "-2")
    (tmp_path / "main.sqlite3").write_bytes(b"rubbish")
    assert_set_aside(tmp_path, b"rubbish", "-3")
    assert first.read_bytes() == b"earlier"


# ------------------------------------------------------------------------------------------------ a full disk

FULL = f"""
import os, resource, signal, sys
from kraken_feed.state.checkpoint import Changes, Outage
from kraken_feed.errors import StateFailed
from kraken_feed.state.store import Store
{inspect.getsource(nth)}
directory, limit, end = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def room(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
opened = Store.open(directory, "main", 0)
opened.store.save(nth(1))
room(limit)
unsaved = nth(2)
unsaved.entry("openOrders").set_order("large", [b"x" * 500_000])
for number in (3, 4):
    try:
        opened.store.save(unsaved)
    except StateFailed as error:
        print(type(error).__name__, error.exit_code, error.retry, error.why, sep="|", flush=True)
    unsaved.merge(nth(number))
if end == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if end == "closed":
    opened.store.close()
    sys.exit()
room(resource.RLIM_INFINITY)
opened.store.save(unsaved)
opened.store.save(nth(5))
opened.store.close()
"""


@pytest.mark.seeds
@pytest.mark.parametrize("limit", some([65_536, 40_000, 100_000, 131_072, 400_001], first=2))
@pytest.mark.parametrize("end", ["killed", "closed", "room"])
def test_a_full_disk_fails_the_save_keeps_the_last_one_and_passes(tmp_path: Path, limit: int, end: str) -> None:
    with python(FULL, tmp_path, limit, end) as process:
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
    assert process.returncode == (-signal.SIGKILL if end == "killed" else 0)
    assert [line.split("|")[:3] for line in lines] == [["StateFailed", "74", "False"]] * 2
    assert all("SQLITE_IOERR" in line or "SQLITE_FULL" in line for line in lines)
    wanted = Checkpoint()
    apply(wanted, 1)
    if end == "room":
        for number in range(2, 6):
            apply(wanted, number)
        wanted.channels["openOrders"].orders["large"] = [b"x" * 500_000]
    assert reopened(tmp_path) == wanted


OPENED_FULL = f"""
import resource, sys
from kraken_feed.state.checkpoint import Changes, Outage
from kraken_feed.errors import StateFailed
from kraken_feed.state.store import Store
{inspect.getsource(nth)}
for limit in (0, 1, 2, 4096, 5000, 8192, 20_000, 32_767):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        Store.open(sys.argv[1], "main", 0)
        print("opened")
    except StateFailed as error:
        print(error.exit_code)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
opened = Store.open(sys.argv[1], "main", 0)
opened.store.save(nth(2))
opened.store.close()
"""


def test_an_account_that_is_opened_on_a_full_disk_fails_and_is_neither_held_nor_damaged(tmp_path: Path) -> None:
    for account in ("new", "old"):
        directory = tmp_path / account
        directory.mkdir()
        if account == "old":
            saved(directory, nth(1))
        with python(OPENED_FULL, directory) as process:
            assert process.stdout is not None
            assert process.stdout.read().split() == ["74"] * 8
        assert process.returncode == 0
        wanted = Checkpoint()
        for number in (1, 2) if account == "old" else (2,):
            apply(wanted, number)
        if account == "new":
            wanted.channels["ownTrades"].seen = ["T2"]
        assert reopened(directory) == wanted
        assert names(directory) == {"main.sqlite3", "main.lock"}


def test_a_reader_of_the_file_does_not_stop_a_save(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    opened.store.save(nth(1))
    reader = sqlite3.connect(tmp_path / "main.sqlite3", isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT nonce FROM account").fetchall() == [(1,)]
    opened.store.save(nth(2))
    assert reader.execute("SELECT nonce FROM account").fetchall() == [(1,)]
    reader.close()
    opened.store.close()


def test_a_writer_of_the_file_fails_a_save_and_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.0)
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    writer = sqlite3.connect(tmp_path / "main.sqlite3", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateFailed, match="SQLITE_BUSY"):
        opened.store.save(Changes(nonce=1))
    writer.close()
    opened.store.save(Changes(nonce=2))
    opened.store.close()
    assert reopened(tmp_path) == Checkpoint(nonce=2)


def test_a_defect_of_ours_is_not_taken_for_the_disks(tmp_path: Path) -> None:
    opened = Store.open(str(tmp_path), "main", NOW_NS)
    opened.store.save(Changes(nonce=1))
    with pytest.raises(OverflowError):
        opened.store.save(Changes(nonce=2**63))
    opened.store.save(Changes(saved_ns=3))
    opened.store.close()
    with pytest.raises(sqlite3.ProgrammingError):
        opened.store.save(Changes(nonce=1))
    assert reopened(tmp_path) == Checkpoint(nonce=1, saved_ns=3)


# ------------------------------------------------------------------------------------------------ places and modes


@pytest.fixture
def open_umask() -> Iterator[None]:
    mask = os.umask(0)
    yield
    os.umask(mask)


@pytest.mark.usefixtures("open_umask")
def test_a_missing_directory_is_made_and_nothing_is_open_to_others(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "kraken-feed"
    opened = Store.open(str(directory), "main", NOW_NS)
    opened.store.save(some_changes())
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    opened.store.close()
    assert modes == dict.fromkeys(("main.lock", "main.sqlite3", "main.sqlite3-shm", "main.sqlite3-wal"), 0o600)


@pytest.mark.parametrize("account", [".", "..", "...", "-", "a.b", "main.sqlite3", "main.lock", "x" * 64])
def test_no_name_of_an_account_leaves_the_directory_or_meets_anothers_files(tmp_path: Path, account: str) -> None:
    directory = tmp_path / "state"
    saved(directory, Changes(nonce=1))
    saved(directory, Changes(nonce=2), account=account)
    assert names(tmp_path) == {"state"}
    assert names(directory) == {f"{name}.{kind}" for name in ("main", account) for kind in ("sqlite3", "lock")}
    assert (reopened(directory), reopened(directory, account)) == (Checkpoint(nonce=1), Checkpoint(nonce=2))


@pytest.mark.parametrize("account", ["", "../main", "/etc/main", "a/b", "a\0b", "x" * 231])
def test_what_cannot_be_the_name_of_a_file_is_refused(tmp_path: Path, account: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        Store.open(str(tmp_path / "state"), account, NOW_NS)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("place", ["file", "file/below", ""])
def test_a_directory_that_cannot_be_made_is_an_error_of_the_configuration(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        Store.open(str(tmp_path / place) if place else "", "main", NOW_NS)
    assert caught.value.exit_code == 78
    assert "errno" in caught.value.why
    assert "--state" in caught.value.remedy


@pytest.mark.parametrize("call", ["makedirs", "open"])
def test_a_directory_on_a_full_or_failing_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, Mock(side_effect=OSError(number, os.strerror(number))))
            with pytest.raises(StateFailed) as caught:
                Store.open(str(tmp_path), "main", NOW_NS)
        assert caught.value.exit_code == 74
        assert os.strerror(number) in caught.value.why
    saved(tmp_path, Changes())


CLOSED = """
import os, sys
from kraken_feed.state.store import Store
from kraken_feed.errors import ConfigError
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    Store.open(".", "main", 0)
except ConfigError as error:
    print(error.why)
"""


@pytest.mark.parametrize("closed", ["directory", "file"])
def test_a_place_that_is_closed_to_us_is_an_error_of_the_configuration(tmp_path: Path, closed: str) -> None:
    directory = tmp_path / "state"
    saved(directory, Changes())
    (directory / "main.lock").chmod(0o666)
    if closed == "directory":
        (directory / "main.lock").unlink()
    (directory / "main.sqlite3").chmod(0o444)
    directory.chmod(0o555)
    with python(CLOSED, directory) as process:
        assert process.stdout is not None
        why = process.stdout.read()
    directory.chmod(0o700)
    assert process.returncode == 0
    assert why.startswith(f"./main.{'lock' if closed == 'directory' else 'sqlite3'}: Permission denied")
