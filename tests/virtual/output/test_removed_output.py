"""An output file that is removed, moved or replaced while it is written to."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.errors import OutputFailed
from kraken_feed.output import file
from kraken_feed.output import sink as module
from kraken_feed.output.file import open_output, read_removed
from kraken_feed.output.sink import Sink

from ...support import virtual_time
from ...support.examples import examples
from ...support.outputs import Failures, Said, file_limit, open_files, record, until


@pytest.fixture
def failures() -> Failures:
    return Failures()


def records(*numbers: int) -> bytes:
    return b"".join(map(record, numbers))


async def save(sink: Sink, *numbers: int) -> None:
    """Write records, and keep them in a checkpoint, as it were."""
    for number in numbers:
        sink.write(record(number))
    position = sink.position
    await sink.synced()
    sink.covered(position)


# ------------------------------------------------------------------------------------------------ noticed


async def test_a_file_at_its_path_is_ok(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    assert sink.check() == "ok"
    sink.close()


def overwrite(path: Path) -> None:
    (path.parent / "other").write_bytes(b"{}\n")
    (path.parent / "other").replace(path)


@pytest.mark.parametrize("remove", [Path.unlink, overwrite], ids=["unlinked", "renamed over"])
async def test_a_file_without_a_name_is_removed(
    tmp_path: Path, failures: Failures, remove: Callable[[Path], None]
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    remove(path)
    assert [sink.check() for _ in range(3)] == ["removed"] * 3
    sink.close()


async def test_a_file_that_still_has_another_name_is_not_removed(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    os.link(path, path.parent / "archive.jsonl")
    path.unlink()
    assert sink.check() == "ok"
    sink.close()


async def test_a_file_that_was_rotated_has_moved_as_soon_as_another_is_at_its_path(
    tmp_path: Path, failures: Failures
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    path.rename(path.parent / "out.jsonl.1")
    assert sink.check() == "ok", "the rotation is not over, or somebody has moved the file"
    path.touch()
    assert [sink.check() for _ in range(3)] == ["moved"] * 3
    sink.write(record(2))
    sink.reopen()
    assert sink.check() == "ok"
    await save(sink, 3)
    assert (path.parent / "out.jsonl.1").read_bytes() == records(1, 2)
    assert path.read_bytes() == records(3)
    sink.close()


async def test_pipes_and_files_that_never_had_a_name_are_ok(failures: Failures) -> None:
    reader, writer = os.pipe()
    with TemporaryFile() as unnamed:
        for fd in (writer, unnamed.fileno()):
            sink = Sink(fd, "stdout", failures)
            await save(sink, 1)
            assert sink.check() == "ok"
            sink.close()
    os.close(reader)
    os.close(writer)


async def test_standard_output_that_was_removed_ends_with_an_error_that_says_what_helps(
    tmp_path: Path, failures: Failures
) -> None:
    path = tmp_path / "out.jsonl"
    with path.open("wb") as file:
        sink = Sink(file.fileno(), "stdout", failures)
        await save(sink, 1)
        path.unlink()
        assert sink.check() == "removed"
        with pytest.raises(OutputFailed, match="The file that stdout was written to was removed") as caught:
            sink.rescue()
        assert "--output PATH" in caught.value.remedy
        sink.close()


async def test_a_file_that_a_network_file_system_calls_stale_was_removed(
    tmp_path: Path, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)

    def stale(number: int) -> Callable[[int], os.stat_result]:
        def fail(fd: int) -> os.stat_result:
            raise OSError(number, os.strerror(number))

        return fail

    for number, said in ((errno.ESTALE, "removed"), (errno.EIO, "ok")):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", stale(number))
            assert sink.check() == said
    sink.close()


# ------------------------------------------------------------------------------------------------ rescued


@pytest.mark.parametrize("before", [b"", b'{"n":0}\n'], ids=["new file", "appended to"])
async def test_what_was_written_since_the_last_save_is_written_again(
    tmp_path: Path, failures: Failures, before: bytes
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(before)
    sink = Sink.open(str(path), failures)
    await save(sink, 1, 2)
    sink.write(record(3))
    await sink.synced()
    path.unlink()
    sink.write(record(4))
    await sink.drained()
    sink.write(record(5))  # still waits in the sink
    assert sink.rescue() == len(records(3, 4))
    assert sink.check() == "ok"
    sink.write(record(6))
    await save(sink, 7)
    assert path.read_bytes() == records(3, 4, 5, 6, 7)
    assert (sink.pending, sink.lines, failures) == (0, 7, [])
    sink.close()
    await until(lambda: open_files(path.parent) == [])


async def test_before_the_first_save_everything_is_written_again(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"n":0}\n')
    sink = Sink.open(str(path), failures)
    sink.write(record(1))
    await sink.synced()
    path.unlink()
    assert sink.rescue() == len(records(1))
    await sink.synced()
    assert path.read_bytes() == records(1)
    sink.close()


async def test_a_save_after_the_removal_does_not_keep_what_is_in_no_file(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    path.unlink()
    await save(sink, 2)
    await save(sink, 3)
    assert sink.rescue() == len(records(2, 3))
    await sink.synced()
    assert path.read_bytes() == records(2, 3)
    sink.close()


async def test_what_is_not_on_the_disk_yet_is_not_kept(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    sink.write(record(2))
    await sink.drained()
    sink.covered(sink.position)
    path.unlink()
    assert sink.rescue() == len(records(2))
    sink.close()


async def test_what_the_output_held_before_can_be_read_from_its_source(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(record(1))
    sink = Sink.open(str(path), failures)
    assert sink.source == str(path)
    sink.close()
    with path.open("ab") as file:
        sink = Sink(file.fileno(), "stdout", failures)
        assert sink.source == f"/proc/self/fd/{file.fileno()}"
        sink.close()
    reader, writer = os.pipe()
    sink = Sink(writer, "stdout", failures)
    assert sink.source is None
    sink.close()
    os.close(reader)
    os.close(writer)


async def test_a_file_that_is_removed_again_and_again_loses_nothing(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    for number in range(5):
        await save(sink, 10 * number)
        path.unlink()
        await save(sink, 10 * number + 1)
        assert sink.rescue() == len(records(10 * number + 1))
    path.unlink()  # while what was rescued is not even written to the disk
    assert sink.rescue() == len(records(41))
    await sink.synced()
    assert path.read_bytes() == records(41)
    sink.close()


async def test_rescued_lines_go_to_a_file_that_somebody_else_has_made(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    said = Said()
    sink = Sink.open(str(path), failures, warn=said)
    await save(sink, 1)
    path.unlink()
    sink.write(record(2))
    await sink.drained()
    path.write_bytes(b'{"other":1}\ntorn')
    assert sink.rescue() == len(records(2))
    await sink.synced()
    assert path.read_bytes() == b'{"other":1}\n' + records(2)
    assert [event for event, _ in said] == ["output_repaired"]
    sink.close()


async def test_synced_waits_until_rescued_lines_are_on_the_disk(
    tmp_path: Path, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An fdatasync of the removed file is under way when its lines are rescued: it does not count."""
    path = tmp_path / "out.jsonl"
    begun, free, synced = threading.Event(), threading.Event(), list[tuple[int, int]]()

    def fdatasync(fd: int) -> None:
        status = os.fstat(fd)
        synced.append((status.st_ino, status.st_size))
        begun.set()
        assert free.wait(30)

    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    sink.write(record(2))
    sink._sync.start(sink._outlet, sink.position)
    assert begun.wait(30)
    path.unlink()
    await sink.drained()
    assert sink.rescue() == len(records(2))
    free.set()
    await sink.synced()
    assert synced[-1] == (path.stat().st_ino, len(records(2)))
    sink.covered(sink.position)
    path.unlink()
    assert sink.rescue() == 0
    sink.close()


async def test_rescued_lines_wait_for_space_on_a_full_disk(tmp_path: Path, failures: Failures) -> None:
    path = tmp_path / "out.jsonl"
    said = Said()
    sink = Sink.open(str(path), failures, warn=said, patience=60.0)
    await save(sink, *range(20))
    path.unlink()
    numbers = range(20, 40)
    for number in numbers:
        sink.write(record(number))
    await sink.drained()
    with file_limit(3 * len(record(20))):
        assert sink.rescue() == len(records(*numbers))
        assert path.read_bytes() == records(*numbers[:3])
    await sink.synced()
    assert path.read_bytes() == records(*numbers)
    assert [event for event, _ in said] == ["output_held", "output_resumed"]
    sink.close()


async def test_what_cannot_be_read_is_none_and_what_follows_goes_to_the_new_file(
    tmp_path: Path, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    sink.write(record(2))
    await sink.drained()
    path.unlink()
    sink.write(record(3))
    with monkeypatch.context() as patch:
        patch.setattr(module, "RESCUED_BYTES", 10)
        assert sink.rescue() is None
    await sink.synced()
    assert path.read_bytes() == record(3)
    assert sink.check() == "ok"
    sink.close()


async def test_a_rescue_that_cannot_open_a_file_can_be_tried_again(tmp_path: Path, failures: Failures) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    path = directory / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    path.unlink()
    directory.rmdir()
    sink.write(record(2))
    await sink.drained()
    for _ in range(2):
        assert sink.check() == "removed"
        with pytest.raises(OutputFailed, match="No such file"):
            sink.rescue()
        sink.write(record(3))
        await sink.drained()
    directory.mkdir()
    assert sink.rescue() == len(records(2, 3, 3))
    await sink.synced()
    assert path.read_bytes() == records(2, 3, 3)
    sink.close()


async def test_reopening_after_a_removal_rescues_too(tmp_path: Path, failures: Failures) -> None:
    """A rotation that keeps no old file removes it, and then sends SIGHUP."""
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    path.unlink()
    sink.write(record(2))
    await sink.drained()
    sink.reopen()
    assert sink.check() == "ok"
    await sink.synced()
    assert path.read_bytes() == records(2)
    sink.close()


async def test_a_reopening_that_could_not_read_the_removed_file_leaves_that_to_the_next_check(
    tmp_path: Path, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    sink = Sink.open(str(path), failures)
    await save(sink, 1)
    path.unlink()
    sink.write(record(2))
    await sink.drained()
    monkeypatch.setattr(module, "read_removed", lambda *_: None)
    sink.reopen()
    sink.write(record(3))
    assert sink.check() == "removed"
    assert sink.rescue() is None
    assert sink.check() == "ok"
    await sink.synced()
    assert path.read_bytes() == records(3)
    sink.close()


@settings(max_examples=examples(50))
@given(st.lists(st.sampled_from(["write", "save", "remove", "check", "rotate"]), max_size=25))
def test_every_record_written_after_the_last_save_or_after_a_removal_is_in_a_file_with_a_name(steps: list[str]) -> None:
    async def play(directory: str) -> None:
        path, failures, number = Path(directory) / "out.jsonl", Failures(), 0
        sink = Sink.open(str(path), failures)
        unsaved: list[int] = []  # since the last save that found the file there
        rotated = 0
        for step in [*steps, "check"]:
            if step == "write":
                number += 1
                unsaved.append(number)
                sink.write(record(number))
                await sink.drained()
            elif step == "save":
                await sink.synced()
                sink.covered(sink.position)
                unsaved = unsaved if sink.check() == "removed" else []
            elif step == "remove":
                path.unlink(missing_ok=True)
            elif step == "rotate" and path.exists():
                rotated += 1
                path.rename(path.parent / f"{rotated}.jsonl")
                sink.reopen()
            elif step == "check" and sink.check() == "removed":
                assert sink.rescue() is not None
        await sink.synced()
        written = b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert [number for number in unsaved if record(number) not in written] == []
        sink.close()
        assert failures == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fdatasync", lambda fd: None)
        with TemporaryDirectory() as directory:
            virtual_time.run(play(directory))


# ------------------------------------------------------------------------------------------------ read


@pytest.mark.parametrize(
    ("content", "start", "limit", "found"),
    [
        (b"one\ntwo\n", 4, 100, b"two\n"),
        (b"one\ntwo\n", 0, 100, b"one\ntwo\n"),
        (b"one\ntwo\n", 8, 100, b""),
        (b"one\ntwo\n", 3, 100, None),  # not where a line begins: this is not the file that it was
        (b"one\ntwo\n", 9, 100, None),
        (b"one\ntwo\n", 4, 3, None),
    ],
)
def test_a_removed_file_is_read_from_a_lines_beginning(
    tmp_path: Path, content: bytes, start: int, limit: int, found: bytes | None
) -> None:
    path = tmp_path / "out.jsonl"
    fd = open_output(str(path))
    os.write(fd, content)
    path.unlink()
    assert read_removed(fd, start, limit) == found
    os.close(fd)


def test_a_file_that_was_truncated_or_that_we_may_not_open_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    fd = open_output(str(path))
    os.write(fd, b"one\ntwo\n")
    os.truncate(path, 4)
    assert read_removed(fd, 4, 100) is None
    os.truncate(path, 8)
    monkeypatch.setattr(file, "open", lambda *_: (_ for _ in ()).throw(PermissionError()), raising=False)
    assert read_removed(fd, 4, 100) is None
    os.close(fd)
