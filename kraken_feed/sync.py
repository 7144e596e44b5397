"""Bring what was written to a file to the disk: fdatasync in a thread, one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Sequence

from .errors import OutputFailed
from .latency import Latency
from .outlet import Outlet

_CANNOT = (errno.EINVAL, errno.ENOTSUP)  # a file system that does not know how; there is nothing to wait for


class Sync:
    """Counts the output's bytes from its beginning, over all of its files, and how many of them are on the disk.

    Args:
        done: called from the event loop after each, with the error that it met. A failed one must not be repeated:
            the kernel may have dropped what it could not write, and the next would find nothing to complain of.
    """

    def __init__(self, done: Callable[[OSError | None], None]) -> None:
        self.durable = 0  # bytes that are on the disk
        self.reached: tuple[Outlet, int] | None = None  # a file, and its offset that was durable at last
        self.started: float | None = None  # in loop time, while one is under way
        self.count = 0
        self.latency = Latency()
        self._done = done
        self._retired: list[Outlet] = []
        self._directory: str | None = None
        self._void = False  # what the one under way covers is not in a file that counts
        self._loop = asyncio.get_running_loop()

    @property
    def behind(self) -> bool:
        """Whether a file that is no longer written to waits to be brought to the disk and closed."""
        return bool(self._retired)

    def opened(self, path: str) -> None:
        """Bring the name of a file that was perhaps made at ``path`` to the disk, too, with the next one."""
        self._directory = os.path.dirname(os.path.abspath(path))

    def retire(self, outlet: Outlet) -> None:
        """Close a file that nothing more is written to, after the next one."""
        self._retired.append(outlet)

    def close(self) -> None:
        """Close what is retired, unless the thread may be at it: then the next one does."""
        if self.started is None:
            self._close(self._retired)

    def forget(self, covers: int) -> None:
        """Take back that more than the output's first ``covers`` bytes are durable: the file that had them is gone."""
        self.durable = min(self.durable, covers)
        self._void = self.started is not None

    def start(self, outlet: Outlet, covers: int) -> None:
        """Begin, unless one is under way. Afterwards the output's first ``covers`` bytes are durable."""
        if self.started is not None:
            return
        retired, self._retired = self._retired, []
        directory, self._directory = self._directory, None
        files = [o.fd for o in (*retired, outlet) if o.regular]
        self.started = self._loop.time()
        reached = (outlet, os.lseek(outlet.fd, 0, os.SEEK_CUR)) if outlet.regular else None
        future = self._loop.run_in_executor(None, _to_disk, files, directory)
        future.add_done_callback(lambda ended: self._finished(ended, covers, reached, retired))

    def _finished(
        self,
        ended: asyncio.Future[OSError | None],
        covers: int,
        reached: tuple[Outlet, int] | None,
        retired: list[Outlet],
    ) -> None:
        assert self.started is not None
        self.latency.observe(self._loop.time() - self.started)
        self.started = None
        self.count += 1
        self._close(retired)
        error = ended.result()
        if error is None and not self._void:
            self.durable, self.reached = covers, reached
        self._void = False
        self._done(error)

    def _close(self, outlets: list[Outlet]) -> None:
        for outlet in outlets:
            with contextlib.suppress(OSError):  # nothing is written to it any more
                outlet.close()
        outlets.clear()


def _to_disk(files: Sequence[int], directory: str | None) -> OSError | None:
    """Sync the files and the directory, in the thread; return what went wrong, if anything."""
    for fd in files:
        try:
            sync_file(fd)
        except OSError as error:
            if error.errno not in _CANNOT:
                return error
    if directory is not None:
        with contextlib.suppress(OSError):  # one that we may not open, or that is gone
            _directory_to_disk(directory)
    return None


def sync_file(fd: int) -> None:
    """Bring what was written to a file to the disk, in the way that :func:`sync_method` names."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    elif hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_method() -> str:
    """Return what brings files to the disk on this platform: ``fdatasync``; without it macOS's ``F_FULLFSYNC``, which
    its fsync does not do; or ``fsync``."""
    if hasattr(os, "fdatasync"):
        return "fdatasync"
    return "F_FULLFSYNC" if hasattr(fcntl, "F_FULLFSYNC") else "fsync"


def _directory_to_disk(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def not_on_disk(name: str, error: OSError) -> OutputFailed:
    """Return the error for a failed fdatasync."""
    return OutputFailed(
        f"What was written to {name} may not be on the disk.",
        why=f"{sync_method()}: {error.strerror} (errno {error.errno}).",
        remedy="Repair the disk, and start again. What it may lack is written again then.",
    )


def hanging(name: str, seconds: float) -> OutputFailed:
    """Return the error for an fdatasync that is not waited for any longer."""
    return OutputFailed(
        f"The disk does not finish what was written to {name}.",
        why=f"{sync_method()} did not return within {seconds:.1f} s.",
        remedy="Look at the disk. What it may lack is written again at the next start.",
    )
