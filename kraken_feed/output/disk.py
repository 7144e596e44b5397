"""Sync files to the disk with fdatasync in a thread, one at a time; and wait while a disk is full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import OutputFailed
from .descriptor import Outlet

# -- waiting for a full disk, or at the start for a file system

FIRST_TRY_S = 0.5  # a log rotation makes room at once, a person within minutes
LONGEST_TRY_S = 5.0

# Errors that a rotation or a person ends: no space, no quota, a file as large as a file may be.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# Errors of a file system that is not mounted yet, is read-only for now, or whose device or server is away. A directory
# that is missing by mistake looks the same as one whose file system is missing.
UNAVAILABLE = frozenset({
    errno.ENOENT, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
})  # fmt: skip


def passes(error: OSError) -> bool:
    """Return whether the error that prevents opening a file may pass by itself.

    A dangling link points to a file system that is missing. For a FIFO or a socket the reader is missing: that does not
    pass, since whatever starts the reader can start this program, too.
    """
    if error.errno == errno.EEXIST and isinstance(error.filename, str):
        return os.path.islink(error.filename) and not os.path.exists(error.filename)
    if error.errno == errno.ENXIO and isinstance(error.filename, str):
        with contextlib.suppress(OSError):
            mode = os.stat(error.filename).st_mode
            return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
    return error.filename != "" and error.errno in UNAVAILABLE | FULL


def retry_in(tries: int, waited: float, patience: float) -> float | None:
    """Return the seconds until the next try of a full disk; None if ``waited`` (seconds) exceeds ``patience``."""
    if waited >= patience:
        return None
    return min(FIRST_TRY_S * 2.0 ** min(tries, 16), LONGEST_TRY_S, patience - waited)


@dataclass(eq=False, repr=False)
class DiskWait:
    """The wait for space on a full disk. A timer starts each try, so no loop spins."""

    patience: float  # seconds without an accepted line until the wait ends; 0: do not wait
    try_again: Callable[[], None]  # called when it is time; calls ``refused`` if the disk is still full
    since: float | None = None  # in loop time, while the disk is full

    def __post_init__(self) -> None:
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> bool:
        """Whether another try is scheduled and has not begun."""
        return self._timer is not None

    def refused(self, blocked_since: float) -> bool:
        """Schedule another try of a disk that is full since ``blocked_since``; return False if patience has ended."""
        self.pause()
        wait = retry_in(self._tries, self._loop.time() - blocked_since, self.patience)
        if wait is None:
            return False
        if self.since is None:
            self.since = blocked_since
        self._tries += 1
        self._timer = self._loop.call_later(wait, self._due)
        return True

    def progressed(self) -> None:
        """Count tries from 0 again, because the disk has accepted something."""
        self._tries = 0

    def over(self) -> float:
        """End the wait, because everything was written; return how many seconds it took."""
        assert self.since is not None
        self.pause()
        seconds, self.since, self._tries = self._loop.time() - self.since, None, 0
        return seconds

    def pause(self) -> None:
        """Cancel the next try, if one is scheduled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self.try_again()


_CANNOT = (errno.EINVAL, errno.ENOTSUP)  # the file system has no fdatasync: there is nothing to wait for


@dataclass(eq=False, repr=False)
class Sync:
    """Runs fdatasync in a thread. It counts the output's bytes over all of its files, and how many are on the disk.

    ``done`` is called from the event loop after each fdatasync, with its error. A failed one must not be repeated: the
    kernel may have dropped what it could not write, and the next one would report success.
    """

    done: Callable[[OSError | None], None]
    durable: int = 0  # bytes that are on the disk
    reached: tuple[Outlet, int] | None = None  # a file, and the offset up to which it is durable
    started: float | None = None  # in loop time, while one is running
    count: int = 0

    def __post_init__(self) -> None:
        self._retired: list[Outlet] = []
        self._directory: str | None = None
        self._void = False  # the running one covers bytes of a file that is gone
        self._loop = asyncio.get_running_loop()

    @property
    def behind(self) -> bool:
        """Whether a retired file still has to be synced and closed."""
        return bool(self._retired)

    def opened(self, path: str) -> None:
        """Sync the directory of ``path`` with the next fdatasync, in case the file was created."""
        self._directory = os.path.dirname(os.path.abspath(path))

    def retire(self, outlet: Outlet) -> None:
        """Close a file after the next fdatasync: nothing more is written to it."""
        self._retired.append(outlet)

    def close(self) -> None:
        """Close the retired files, unless the thread may use them: then the running fdatasync closes them."""
        if self.started is None:
            self._close(self._retired)

    def forget(self, covers: int) -> None:
        """Limit ``durable`` to the output's first ``covers`` bytes: the file that had the rest is gone."""
        self.durable = min(self.durable, covers)
        self._void = self.started is not None

    def start(self, outlet: Outlet, covers: int) -> None:
        """Start an fdatasync, unless one is running. After it, the output's first ``covers`` bytes are durable."""
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
        self.started = None
        self.count += 1
        self._close(retired)
        error = ended.result()
        if error is None and not self._void:
            self.durable, self.reached = covers, reached
        self._void = False
        self.done(error)

    def _close(self, outlets: list[Outlet]) -> None:
        for outlet in outlets:
            with contextlib.suppress(OSError):  # nothing is written to it any more
                outlet.close()
        outlets.clear()


def _to_disk(files: Sequence[int], directory: str | None) -> OSError | None:
    """Sync the files and the directory; return the first error. Runs in the thread."""
    for fd in files:
        try:
            sync_file(fd)
        except OSError as error:
            if error.errno not in _CANNOT:
                return error
    if directory is not None:
        with contextlib.suppress(OSError):  # we may not open it, or it is gone
            sync_directory(directory)
    return None


def sync_file(fd: int) -> None:
    """Sync a file's data to the disk, with the call that :func:`sync_method` returns."""
    if hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    elif hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_method() -> str:
    """Return the name of the call that syncs files on this platform: ``fdatasync``, macOS's ``F_FULLFSYNC`` (its fsync
    does less), or ``fsync``."""
    if hasattr(os, "fdatasync"):
        return "fdatasync"
    return "F_FULLFSYNC" if hasattr(fcntl, "F_FULLFSYNC") else "fsync"


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def not_on_disk(name: str, error: OSError) -> OutputFailed:
    return OutputFailed(
        f"What was written to {name} may not be on the disk.",
        why=f"{sync_method()}: {error.strerror} (errno {error.errno}).",
        remedy="Repair the disk, then start again: records that it may lack are written again.",
    )


def hanging(name: str, seconds: float) -> OutputFailed:
    return OutputFailed(
        f"The disk does not finish what was written to {name}.",
        why=f"{sync_method()} did not return within {seconds:.1f} s.",
        remedy="Check the disk. Records that it may lack are written again at the next start.",
    )
