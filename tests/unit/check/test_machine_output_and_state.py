"""Output and state are seen as a tail would find them, and are left as they were."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.check.machine import look_at_output, look_at_state
from kraken_feed.output import file
from kraken_feed.output.file import open_output
from kraken_feed.state.checkpoint import Changes, Outage
from kraken_feed.state.store import Store

NOW = 1_760_000_000_000_000_000


def everything(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every path below, with what would change if somebody touched it."""
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [directory, *directory.rglob("*")]
    }


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where that may be mounted."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("may not mount")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


def read_only(path: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)


# ------------------------------------------------------------------------------------------------ the output


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = look_at_output(str(tmp_path / "out.jsonl"))
    assert (found.kind, found.problem) == ("missing", "")
    assert found.room.free
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "number"), [("no/out.jsonl", errno.ENOENT), ("file/out.jsonl", errno.ENOTDIR), (".", errno.EISDIR)]
)
def test_a_path_that_cannot_be_is_a_problem(name: str, number: int, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look_at_output(str(tmp_path / name))
    assert found.problem == os.strerror(number)


def test_a_path_that_is_empty_is_a_problem() -> None:
    assert look_at_output("").problem == os.strerror(errno.ENOENT)


def test_a_read_only_file_system_is_a_problem_for_old_and_new_files(small: Path) -> None:
    (small / "old.jsonl").write_text("{}\n")
    read_only(small)
    for name in ("old.jsonl", "new.jsonl"):
        assert look_at_output(str(small / name)).problem == os.strerror(errno.EROFS)


def test_a_full_file_system_has_no_room(small: Path) -> None:
    path = small / "out.jsonl"
    path.write_bytes(b"")
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while file.write(b"x" * 4095 + b"\n"):
            pass
    found = look_at_output(str(path))
    assert (found.problem, found.room.free) == ("", 0)


def test_the_descriptor_of_a_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_bytes(b'{"a":1}\n{"b"')
    before = everything(tmp_path)
    found = look_at_output(str(tmp_path / "out.jsonl"))
    assert (found.kind, found.size, found.torn) == ("file", 12, 4)
    assert everything(tmp_path) == before


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ")), max_size=6), st.integers(1, 30))
def test_a_torn_line_is_what_a_start_would_move_away(lines: list[bytes], block: int) -> None:
    """Whatever the file holds, and wherever the blocks end in which it is read from behind."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(file, "BLOCK", block)
        path = os.path.join(directory, "out.jsonl")
        Path(path).write_bytes(b"\n".join(lines))
        size = os.path.getsize(path)
        torn = look_at_output(path).torn
        os.close(open_output(path))
        assert torn == size - os.path.getsize(path)


def test_a_fifo_is_not_opened_lest_its_reader_take_that_for_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        found = look_at_output(str(path))
        assert (found.kind, found.problem) == ("device", "")
        writer = os.open(path, os.O_WRONLY)
        os.write(writer, b"x")
        assert os.read(reader, 9) == b"x"
        os.close(writer)
    finally:
        os.close(reader)


# ------------------------------------------------------------------------------------------------ the state


def begin(directory: Path, account: str = "main", *, outages: int = 0, close: bool = True) -> Store:
    store = Store.open(str(directory), account, NOW).store
    outage = Outage("openOrders", NOW - 5, "closed", NOW)
    store.save(
        Changes(nonce=77, saved_ns=NOW, complete={"openOrders": NOW}, outages={"openOrders": [outage] * outages})
    )
    if close:
        store.close()
    return store


def test_a_state_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = look_at_state(str(tmp_path / "a" / "b"), "main", NOW)
    assert (found.exists, found.problem, found.locked) == (False, None, False)
    assert found.room.free is not None
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_read_without_a_trace(tmp_path: Path) -> None:
    begin(tmp_path, outages=2)
    before = everything(tmp_path)
    found = look_at_state(str(tmp_path), "main", NOW)
    assert found.checkpoint is not None
    assert (found.checkpoint.nonce, found.checkpoint.saved_ns) == (77, NOW)
    assert len(found.checkpoint.channels["openOrders"].outages) == 2
    assert everything(tmp_path) == before


def test_what_a_killed_run_has_left_in_the_log_of_its_file_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "live").mkdir()
    (tmp_path / "left").mkdir()
    store = begin(tmp_path / "live", close=False)
    store.save(Changes(nonce=78, saved_ns=NOW))  # the first save is in the file itself
    for path in (tmp_path / "live").iterdir():  # as SIGKILL leaves them
        (tmp_path / "left" / path.name).write_bytes(path.read_bytes())
    store.close()
    assert (tmp_path / "left" / "main.sqlite3-wal").stat().st_size > 0
    before = everything(tmp_path / "left")
    found = look_at_state(str(tmp_path / "left"), "main", NOW)
    assert found.checkpoint is not None
    assert found.checkpoint.nonce == 78
    assert everything(tmp_path / "left") == before


def test_a_state_that_another_process_holds_is_said_to_be_held_and_stays_so(tmp_path: Path) -> None:
    store = begin(tmp_path, close=False)
    found = look_at_state(str(tmp_path), "main", NOW)
    assert (found.locked, found.pid, found.checkpoint) == (True, str(os.getpid()), None)
    assert found.saved_ns > 0
    store.save(Changes(saved_ns=NOW + 1))
    store.close()
    assert not look_at_state(str(tmp_path), "main", NOW).locked


def test_the_lock_is_free_again_at_once(tmp_path: Path) -> None:
    begin(tmp_path)
    look_at_state(str(tmp_path), "main", NOW)
    with (tmp_path / "main.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_two_checks_do_not_take_each_other_for_a_tail(tmp_path: Path) -> None:
    begin(tmp_path)
    with (tmp_path / "main.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        assert not look_at_state(str(tmp_path), "main", NOW).locked


def test_a_damaged_state_is_damaged_and_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "main.sqlite3").write_bytes(b"no database" * 100)
    before = everything(tmp_path)
    found = look_at_state(str(tmp_path), "main", NOW)
    assert (found.damaged, found.checkpoint) == (True, None)
    assert everything(tmp_path) == before


def test_a_newer_versions_state_is_a_problem_that_names_the_file(tmp_path: Path) -> None:
    begin(tmp_path)
    database = sqlite3.connect(tmp_path / "main.sqlite3")
    database.execute("PRAGMA user_version = 99")
    database.commit()
    database.close()
    found = look_at_state(str(tmp_path), "main", NOW)
    assert found.problem is not None
    assert "newer version" in found.problem.what
    assert str(tmp_path / "main.sqlite3") in found.problem.what


def test_a_state_that_cannot_be_made_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = look_at_state(str(tmp_path / "file" / "state"), "main", NOW)
    assert found.problem is not None
    assert os.strerror(errno.ENOTDIR) in found.problem.why


def test_a_state_on_a_read_only_file_system_is_a_problem(small: Path) -> None:
    read_only(small)
    found = look_at_state(str(small / "state"), "main", NOW)
    assert found.problem is not None
    assert os.strerror(errno.EROFS) in found.problem.why
