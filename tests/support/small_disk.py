"""Places that can be full: a small file system of its own, and a bound on the size of a process's files."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .tools import tool

_HOLD = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && echo mounted && exec cat'


@contextlib.contextmanager
def small_disk(size: int, at: Path) -> Iterator[Path]:
    """A directory on a file system of so many bytes, which goes with the block. It is mounted in a namespace of its
    own, that of a process which holds it, so the machine does not see it."""
    private = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    tool("mount")
    at.mkdir()
    holder = subprocess.Popen(
        [tool("unshare"), *private, "sh", "-c", _HOLD, "sh", str(size), str(at)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip(f"a file system cannot be mounted here: {holder.communicate()[1].decode().strip()}")
        yield Path(f"/proc/{holder.pid}/root{at}")
    finally:
        holder.communicate()


class Disk:
    """A file system of a known size, to be filled and freed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def leave(self, room: int, pid: int) -> None:
        """Leave so many bytes for the others."""
        status = os.statvfs(self.directory)
        size = max(0, status.f_bavail * status.f_frsize - room)
        with (
            self._filler.open("ab", buffering=0) as filler,
            contextlib.suppress(OSError),
        ):  # others write, too: it is full
            filler.write(b"x" * size)

    def free(self, pid: int) -> None:
        """Make room again."""
        self._filler.unlink()


class FileSize:
    """The size that each file of a process may have: EFBIG, for file systems that cannot be mounted."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def leave(self, room: int, pid: int) -> None:
        """Leave so many bytes for the output."""
        size = sum(file.stat().st_size for file in self.directory.iterdir())
        self._limit(pid, size + room)

    def free(self, pid: int) -> None:
        """Let it grow. A process that has ended took its bound along."""
        with contextlib.suppress(ProcessLookupError):
            self._limit(pid, resource.RLIM_INFINITY)

    @staticmethod
    def _limit(pid: int, size: int) -> None:
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
