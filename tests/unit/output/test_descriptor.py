"""Outlets on real descriptors. What all of them promise together is in test_sink.py."""

from __future__ import annotations

import errno
import json
import os
import pty
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.output.descriptor import FileOutlet, TerminalOutlet, is_anonymous_pipe, outlet, sole_writer, take_back
from kraken_feed.output.file import open_output

from ...support.cases import each
from ...support.outputs import file_limit

TORN = b'{"n":2,"pad":"xxx'
OTHER = b'{"n":3,"by":"another"}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def fd(path: Path) -> Iterator[int]:
    fd = open_output(str(path))
    os.write(fd, b'{"n":1}\n' + TORN)
    yield fd
    os.close(fd)


def lines(path: Path) -> list[int]:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line)["n"] for line in content.splitlines()]


@given(st.lists(st.integers(1, 40), min_size=1).map(lambda sizes: [b"x" * size + b"\n" for size in sizes]), st.data())
def test_a_file_takes_the_whole_lines_for_which_it_has_room(written: list[bytes], data: st.DataObject) -> None:
    content = b"".join(written)
    room = data.draw(st.integers(0, len(content) - 1))
    fd = os.memfd_create("out")
    os.write(fd, b"-" * 100)
    try:
        file = FileOutlet(fd)
        with file_limit(100 + room):
            rest = memoryview(content)
            taken = file.write(rest) if b"\n" in content[:room] else 0
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
                file.write(rest[taken:])
        assert taken == content[:room].rfind(b"\n") + 1
        assert os.pread(fd, 1 << 20, 100) == content[:taken]
        assert file.write(rest[taken:]) == len(content) - taken
        assert os.pread(fd, 1 << 20, 100) == content
    finally:
        os.close(fd)


def test_a_torn_line_at_the_end_is_cut_off(path: Path, fd: int) -> None:
    take_back(fd, TORN)
    assert path.read_bytes() == b'{"n":1}\n'


def test_what_another_has_appended_to_a_torn_line_stays_and_can_be_read(path: Path, fd: int) -> None:
    with path.open("ab") as other:
        other.write(OTHER)
    take_back(fd, TORN)
    assert path.read_bytes().endswith(OTHER)
    assert lines(path) == [1, 3]


def test_nothing_is_cut_off_while_another_process_of_ours_may_append(path: Path, fd: int) -> None:
    other = open_output(str(path))
    size = path.stat().st_size
    take_back(fd, TORN)
    assert path.stat().st_size == size
    os.write(other, OTHER)
    assert lines(path) == [1, 3]
    os.close(other)
    os.write(fd, TORN)
    take_back(fd, TORN)
    assert lines(path) == [1, 3]


def test_what_another_has_written_through_the_same_open_file_is_not_taken_for_ours(path: Path, fd: int) -> None:
    shared = os.dup(fd)  # as two programs of one shell share `>> out.jsonl`: the position tells nothing
    os.write(shared, OTHER)
    take_back(fd, TORN)
    assert path.read_bytes().endswith(OTHER)
    os.close(shared)


def test_a_torn_line_is_known_by_its_place_where_the_file_cannot_be_read(
    path: Path, fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    take_back(fd, TORN)
    assert path.read_bytes() == b'{"n":1}\n'
    os.write(fd, TORN)
    with path.open("ab") as other:
        other.write(OTHER)
    take_back(fd, TORN)
    assert path.read_bytes().endswith(OTHER)


def test_a_file_that_is_not_appended_to_goes_on_where_the_torn_line_began(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b'{"n":1}\n' + TORN)
    take_back(fd, TORN)
    os.write(fd, b'{"n":2}\n')
    os.close(fd)
    assert lines(path) == [1, 2]


def test_one_writer_is_sole_two_are_not_and_the_one_that_is_left_is_again(path: Path) -> None:
    first = open_output(str(path))
    with sole_writer(first) as sole:
        assert sole
    second = open_output(str(path))
    for fd in (first, second, first):
        with sole_writer(fd) as sole:
            assert not sole
    os.close(first)
    with sole_writer(second) as sole:
        assert sole
    os.close(second)


def test_a_file_that_cannot_be_locked_has_one_writer() -> None:
    fd = os.open("/", os.O_PATH)  # EBADF, as from some network file systems
    with sole_writer(fd) as sole:
        assert sole
    os.close(fd)


@each(("device", "regular"), [("/dev/null", False), ("/dev/full", False), (__file__, True)])
def test_only_regular_files_are_brought_to_the_disk_and_waited_for(device: str, regular: bool) -> None:
    fd = os.open(device, os.O_WRONLY | os.O_APPEND)
    assert outlet(fd).regular is regular
    os.close(fd)


def test_a_terminal_closes_the_descriptor_that_it_was_given_and_its_own() -> None:
    master, slave = pty.openpty()
    terminal = outlet(slave)
    assert isinstance(terminal, TerminalOutlet)
    own = terminal.fd
    terminal.close()
    del terminal
    for fd in (slave, own):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    os.close(master)


def test_only_a_pipe_without_a_name_is_anonymous(tmp_path: Path) -> None:
    """A reader that leaves such a pipe has enough; every other reader has failed."""
    os.mkfifo(tmp_path / "fifo")
    pipe, (left, right), (master, slave) = os.pipe(), socket.socketpair(), pty.openpty()
    fifo, file = os.open(tmp_path / "fifo", os.O_RDWR), os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    again = os.open(f"/proc/self/fd/{pipe[1]}", os.O_WRONLY)  # as the shell's `>(command)` is opened
    try:
        anonymous = {fd: outlet(os.dup(fd)).anonymous for fd in (pipe[1], again, fifo, left.fileno(), slave, file)}
        assert list(anonymous.values()) == [True, True, False, False, False, False]
        assert [is_anonymous_pipe(fd) for fd in anonymous] == list(anonymous.values())
    finally:
        left.close()
        right.close()
        for fd in (*pipe, again, fifo, file, master, slave):
            os.close(fd)
