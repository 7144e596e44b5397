"""State files that are missing at a start, or removed, replaced or hidden while the store is open."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kraken_feed.errors import ConfigError, StateFailed, StateHeld
from kraken_feed.state import store as module
from kraken_feed.state import tables
from kraken_feed.state.checkpoint import Changes, ChannelState, Checkpoint, Entry
from kraken_feed.state.store import Store

from ...support.outputs import open_files

NOW_NS = 1_795_214_465_123_456_789


def found(directory: Path) -> tuple[str, Checkpoint | None]:
    """What a start says of the checkpoint."""
    opened = Store.open(str(directory), "main", NOW_NS)
    opened.store.close()
    return opened.found, opened.checkpoint


def everything(number: int) -> Changes:
    """All that there is to know, for a file that may hold something else."""
    changes = Changes(saved_ns=number, complete={"ownTrades": number}, outages={"ownTrades": []}, scans=[])
    changes.entries["ownTrades"] = Entry(seen=["T1", f"T{number}"])
    changes.replaced = {"ownTrades"}
    return changes


def holding(number: int) -> Checkpoint:
    return Checkpoint(0, number, {"ownTrades": ChannelState(number, seen=["T1", f"T{number}"])})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def store(state: Path) -> Store:
    store = Store.open(str(state), "main", NOW_NS).store
    store.save(everything(2))
    return store


# ------------------------------------------------------------------------------------------------ at a start


def test_a_directory_without_files_is_new_and_stays_new_until_a_save(state: Path) -> None:
    assert found(state) == ("new", None)
    assert found(state) == ("new", None), "the layout is on the disk, so nothing can have been lost"


def test_what_was_saved_is_kept(state: Path, store: Store) -> None:
    store.close()
    assert found(state) == ("saved", holding(2))


def test_files_that_are_both_gone_are_new(state: Path, store: Store) -> None:
    store.close()
    shutil.rmtree(state)
    assert found(state) == ("new", None)


@pytest.mark.parametrize("closed", [True, False], ids=["closed", "killed"])
def test_a_lock_without_its_database_has_lost_it(state: Path, store: Store, closed: bool) -> None:
    if closed:
        store.close()
    else:
        os.close(store._lock)
    for part in ("", "-wal", "-shm"):
        (state / f"main.sqlite3{part}").unlink(missing_ok=True)
    assert found(state) == ("lost", None)
    assert found(state) == ("new", None), "it was said once"
    store._database.close()  # Python warns of a database that is left open


@pytest.mark.parametrize("lock", [True, False], ids=["lock", "no lock"])
def test_an_empty_file_has_lost_what_it_held(state: Path, store: Store, lock: bool) -> None:
    store.close()
    (state / "main.sqlite3").write_bytes(b"")
    if not lock:
        (state / "main.lock").unlink()
    assert found(state) == ("lost", None)


def test_a_file_that_a_power_cut_has_left_without_tables_has_lost_them(state: Path) -> None:
    """Older versions left the layout in the -wal: the main file had a header, and no more."""
    state.mkdir()
    database = sqlite3.connect(state / "main.sqlite3")
    database.execute("PRAGMA journal_mode = WAL")
    database.close()
    assert (state / "main.sqlite3").stat().st_size == 4096
    assert found(state) == ("lost", None)


def test_a_file_of_an_older_layout_without_a_save_may_have_lost_one(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "MIGRATIONS", module.MIGRATIONS[:2])
        patch.setattr(tables, "load", lambda database: None)
        Store.open(str(state), "main", NOW_NS).store.close()
    assert found(state) == ("lost", None)


def test_a_damaged_file_is_lost(state: Path) -> None:
    state.mkdir()
    (state / "main.sqlite3").write_bytes(b"garbage")
    opened = Store.open(str(state), "main", NOW_NS)
    opened.store.close()
    assert opened.found == "lost"
    assert opened.set_aside is not None
    assert opened.store.set_aside == opened.set_aside


# ------------------------------------------------------------------------------------------------ durable


def copied(state: Path, to: Path) -> Path:
    """A copy of the main file alone, as a backup or a power cut may leave it."""
    to.mkdir()
    shutil.copy(state / "main.sqlite3", to)
    return to


def test_the_layout_is_in_the_main_file_before_anything_is_saved(state: Path, tmp_path: Path) -> None:
    opened = Store.open(str(state), "main", NOW_NS)
    assert found(copied(state, tmp_path / "copy")) == ("new", None)
    opened.store.close()


def test_the_main_file_alone_has_the_first_save_and_later_an_older_one(
    state: Path, store: Store, tmp_path: Path
) -> None:
    assert found(copied(state, tmp_path / "first")) == ("saved", holding(2))
    for number in range(3, 2000):
        changes = Changes(saved_ns=number, complete={"ownTrades": number})
        changes.entry("ownTrades").seen.append(f"T{number}")
        store.save(changes)
        if number % 500 == 0:
            kind, checkpoint = found(copied(state, tmp_path / str(number)))
            assert checkpoint is not None
            saved = checkpoint.saved_ns
            assert (kind, saved <= number) == ("saved", True)
            assert checkpoint.channels["ownTrades"].complete_ns == saved
            assert checkpoint.channels["ownTrades"].seen == [f"T{n}" for n in range(1, saved + 1)]
    store.close()


def test_the_layout_and_the_first_save_wait_for_the_disk_and_later_ones_do_not(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    def mode() -> int:
        return int(opened._database.execute("PRAGMA synchronous").fetchone()[0])

    monkeypatch.setattr(os, "fsync", note)
    opened = Store.open(str(state), "main", NOW_NS).store
    directories = [state.stat().st_ino, state.parent.stat().st_ino]
    assert (synced, mode()) == (directories, 2)
    opened.save(everything(2))
    assert (synced, mode()) == (2 * directories, 1)
    assert (state / "main.sqlite3-wal").stat().st_size == 0
    opened.save(everything(3))
    assert (synced, mode()) == (2 * directories, 1)
    assert (state / "main.sqlite3-wal").stat().st_size > 0
    opened.close()
    opened = Store.open(str(state), "main", NOW_NS).store
    assert (synced, mode()) == (2 * directories, 1)
    opened.close()


def test_a_first_save_that_a_reader_keeps_from_the_main_file_is_brought_there_by_a_later_one(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_S", 0.0)
    store = Store.open(str(state), "main", NOW_NS).store
    reader = sqlite3.connect(state / "main.sqlite3", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM account").fetchall()
    store.save(everything(2))
    assert found(copied(state, tmp_path / "early")) == ("new", None)
    reader.close()
    store.save(everything(3))
    assert found(copied(state, tmp_path / "late")) == ("saved", holding(3))
    store.close()


# ------------------------------------------------------------------------------------------------ while it is open


def remove(*names: str) -> Callable[[Path], None]:
    def do(state: Path) -> None:
        for name in names:
            (state / name).unlink()

    return do


def empty_directory(state: Path) -> None:
    shutil.rmtree(state)
    state.mkdir()


def replace_database(state: Path) -> None:
    """As a restored backup does: by its name, beside the -wal of the file that was there."""
    shutil.copy(state / "main.sqlite3", state / "backup")
    (state / "backup").replace(state / "main.sqlite3")


GONE = [
    remove("main.sqlite3"),
    remove("main.lock"),
    remove("main.sqlite3-wal"),
    remove("main.sqlite3-shm"),
    remove("main.sqlite3", "main.sqlite3-wal", "main.sqlite3-shm", "main.lock"),
    shutil.rmtree,
    empty_directory,
    lambda state: state.rename(state.parent / "moved"),
]


@pytest.mark.parametrize("do", GONE)
def test_files_that_are_removed_are_noticed_made_again_and_written_again(
    state: Path, store: Store, do: Callable[[Path], None]
) -> None:
    store.save(everything(3))
    assert store.check() == "ok"
    do(state)
    assert store.check() == "gone"
    assert store.reopen(NOW_NS) in (None, holding(3))
    assert store.check() == "ok"
    with pytest.raises(StateHeld):
        Store.open(str(state), "main", NOW_NS)
    store.save(everything(4))
    alone = copied(state, state.parent / "copy")
    assert found(alone) == ("saved", holding(4)), "as durable as a first save"
    store.close()
    assert found(state) == ("saved", holding(4))
    assert {path.name for path in state.iterdir()} == {"main.sqlite3", "main.lock"}
    assert open_files(state.parent) == []


def test_another_file_in_its_place_is_read_and_its_wal_is_not_taken_away(
    state: Path, store: Store, tmp_path: Path
) -> None:
    """As when a file system, with the state that a killed process has left, is mounted over the directory."""
    other = Store.open(str(tmp_path / "other"), "main", NOW_NS).store
    other.save(everything(7))
    other.save(everything(8))  # in its -wal alone
    shutil.copytree(tmp_path / "other", tmp_path / "killed")
    other.close()
    state.rename(tmp_path / "hidden")
    (tmp_path / "killed").rename(state)
    assert store.check() == "replaced"
    assert store.reopen(NOW_NS) == holding(8)
    assert store.check() == "ok"
    store.save(everything(9))
    store.close()
    assert found(state) == ("saved", holding(9))
    assert {path.name for path in state.iterdir()} == {"main.sqlite3", "main.lock"}


def test_a_restored_backup_is_not_mixed_with_the_wal_that_was_there(state: Path, store: Store) -> None:
    store.save(everything(3))
    replace_database(state)
    assert store.check() == "replaced"
    assert store.reopen(NOW_NS) == holding(2), "the backup had the first save"
    store.close()


def test_a_lock_that_another_process_has_made_meanwhile_holds_us_off(state: Path, store: Store) -> None:
    remove("main.sqlite3", "main.sqlite3-wal", "main.sqlite3-shm", "main.lock")(state)
    other = Store.open(str(state), "main", NOW_NS).store
    other.save(everything(5))
    other.save(everything(6))
    assert store.check() == "replaced"
    with pytest.raises(StateHeld):
        store.reopen(NOW_NS)
    store.close()
    assert other.check() == "ok"
    other.save(everything(7))
    other.close()
    assert found(state) == ("saved", holding(7))
    assert open_files(state) == []


def test_a_state_that_cannot_be_made_again_fails_its_saves_until_it_can(state: Path, store: Store) -> None:
    shutil.rmtree(state)
    state.write_bytes(b"a file in the directory's place")
    for _ in range(3):
        assert store.check() == "gone"
        with pytest.raises(StateFailed, match=r"File exists|Not a directory"):
            store.reopen(NOW_NS)
        with pytest.raises(StateFailed, match="was removed and could not be opened again"):
            store.save(everything(3))
    assert open_files(state.parent) == []
    state.unlink()
    assert store.reopen(NOW_NS) is None
    store.save(everything(4))
    store.close()
    assert found(state) == ("saved", holding(4))


def test_a_damaged_file_in_its_place_is_set_aside(state: Path, store: Store) -> None:
    (state / "garbage").write_bytes(b"garbage")
    (state / "garbage").replace(state / "main.sqlite3")
    assert store.check() == "replaced"
    assert store.reopen(NOW_NS) is None
    assert store.set_aside is not None
    assert Path(store.set_aside).read_bytes() == b"garbage"
    store.close()


def test_a_newer_version_in_its_place_is_refused(state: Path, store: Store, tmp_path: Path) -> None:
    shutil.copy(state / "main.sqlite3", tmp_path / "newer")
    database = sqlite3.connect(tmp_path / "newer")
    database.execute("PRAGMA user_version = 99")
    database.close()
    (tmp_path / "newer").replace(state / "main.sqlite3")
    with pytest.raises(ConfigError, match="newer version"):
        store.reopen(NOW_NS)
    store.close()
    assert open_files(tmp_path) == []


def test_a_check_does_not_wait_for_a_save(state: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, free = threading.Event(), threading.Event()
    write = tables.write

    def slow(database: sqlite3.Connection, changes: Changes) -> int:
        begun.set()
        assert free.wait(30)
        return write(database, changes)

    monkeypatch.setattr(tables, "write", slow)
    thread = threading.Thread(target=store.save, args=[everything(3)])
    thread.start()
    assert begun.wait(30)
    shutil.rmtree(state)
    assert store.check() == "ok"
    free.set()
    thread.join()
    assert store.check() == "gone"
    store.close()


def test_a_disk_that_does_not_answer_does_not_say_that_files_are_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> os.stat_result:
        raise OSError(5, "Input/output error", path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", fail)
        assert store.check() == "ok"
    store.close()


def test_a_lock_that_is_removed_while_we_wait_for_it_is_taken_anew(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, removals = fcntl.flock, iter([True])

    def remove_first(fd: int, operation: int) -> None:
        if next(removals, False):
            (state / "main.lock").unlink()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    opened = Store.open(str(state), "main", NOW_NS)
    assert opened.store.check() == "ok"
    opened.store.close()
    assert open_files(state) == []
