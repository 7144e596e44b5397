"""The file of ``--output``: opened, and its torn last line set aside."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.errors import OutputFailed
from kraken_feed.output import file
from kraken_feed.output.file import Torn, open_output, whole_lines

from ...support.installed import run, site
from ...support.outputs import open_files

LINE = b'{"n":1}\n'


def opened(path: Path) -> list[Torn]:
    """Open and close it; what was set aside."""
    torn: list[Torn] = []
    os.close(open_output(str(path), torn.append))
    return torn


def test_a_new_file_is_open_to_us_and_readable_for_the_group(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        assert opened(tmp_path / "out.jsonl") == []
        (tmp_path / "torn").write_bytes(b"torn")
        opened(tmp_path / "torn")
    finally:
        os.umask(mask)
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "torn.torn").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    "tail",
    [
        b'{"n":2,"torn',
        b'{"n":2}',  # valid but for its line feed: it is in no checkpoint, and is written again
        b"\0" * 5000,  # what a power cut leaves of a file whose size came to the disk before its bytes
        b'{"n":2,"' + b"\0" * 300_000,
        b"{",
    ],
)
def test_a_torn_last_line_is_moved_beside_and_told(tail: bytes, tmp_path: Path) -> None:
    path, kept = tmp_path / "out.jsonl", tmp_path / "out.jsonl.torn"
    path.write_bytes(LINE * 3 + tail)
    assert opened(path) == [Torn(len(tail), str(kept))]
    assert path.read_bytes() == LINE * 3
    assert kept.read_bytes() == tail + b"\n"
    assert opened(path) == []


def test_torn_lines_of_several_starts_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    for number in range(3):
        with path.open("ab") as file:
            file.write(LINE + b"torn%d" % number)
        opened(path)
    assert path.read_bytes() == LINE * 3
    assert (tmp_path / "out.jsonl.torn").read_bytes() == b"torn0\ntorn1\ntorn2\n"


@given(st.lists(st.sampled_from([b"\n", b"\0", b"{}", b"x" * 63, b"y" * 200])).map(b"".join))
def test_whole_lines_end_at_the_last_line_feed_wherever_blocks_begin(content: bytes) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(file, "BLOCK", 64)
        fd = os.memfd_create("out")
        try:
            os.write(fd, content)
            assert whole_lines(f"/proc/self/fd/{fd}", len(content)) == content.rfind(b"\n") + 1
        finally:
            os.close(fd)


def test_a_file_without_lines_is_none_of_ours_and_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "LONGEST_LINE", 100_000)
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"x" * 200_000)
    assert opened(path) == []
    assert path.stat().st_size == 200_000
    path.write_bytes(LINE + b"\0" * 200_000)  # NULs are no line of anybody's, however many
    assert opened(path) == [Torn(200_000, f"{path}.torn")]


def test_the_last_line_is_left_alone_while_another_process_may_be_writing_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    other = open_output(str(path))
    os.write(other, LINE + b'{"n":2,')
    assert opened(path) == []
    os.write(other, b'"b":0}\n')
    os.close(other)
    assert path.read_bytes() == LINE + b'{"n":2,"b":0}\n'
    path.write_bytes(LINE + b'{"n":2,')
    assert len(opened(path)) == 1


def test_a_torn_line_that_cannot_be_kept_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.jsonl"
    path.write_bytes(LINE + b"torn")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputFailed, match="No space left"):
        opened(path)
    assert path.read_bytes() == LINE + b"torn"
    assert open_files(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "why"),
    [("missing/out.jsonl", "No such file"), (".", "Is a directory"), ("nul\0in it", "null"), ("x" * 300, "long")],
)
def test_a_path_that_cannot_be_opened_is_an_output_failure_that_says_why(path: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(OutputFailed, match=why) as raised:
        open_output(str(tmp_path / path))
    assert raised.value.exit_code == 74


def test_a_pipe_has_no_torn_lines(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert opened(path) == []
    os.close(reader)


async def test_the_command_says_what_it_has_set_aside_and_appends(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(LINE + b'{"n":2,"torn')
    async with site(tmp_path) as place:
        done = await run("openOrders", "--once", "--output", str(path), env=place.environment())
    assert done.code == 0
    (entry,) = [entry for entry in done.log if entry["event"] == "output_repaired"]
    assert (entry["level"], entry["bytes"], entry["kept_as"]) == ("warning", 12, f"{path}.torn")
    first, *lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert first == json.loads(LINE)
    assert lines[-1]["event_name"] == "feed.stopped"


async def test_a_directory_as_output_is_74(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("openOrders", "--output", str(tmp_path), env=place.environment())
    assert done.code == 74
    assert "Is a directory" in done.log[-1]["why"]
