"""Wait for a full disk, or at the start for a file system: when to try again, and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Callable

FIRST_TRY_S = 0.5  # a log rotation makes room at once, a person within minutes
LONGEST_TRY_S = 5.0

# What passes by itself, by a rotation or by a person's hand: no space, no quota, as large as a file may be.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# What is said of a file system that is not mounted yet, is read-only for now, or whose device or server is away. A
# directory that is missing by mistake looks like one whose file system is: nobody can tell them apart.
AWAY = frozenset({
    errno.ENOENT, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT,
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
})  # fmt: skip


def passes(error: OSError) -> bool:
    """Return whether what keeps a file from being opened may pass by itself.

    A dangling link leads to a file system that is missing. A FIFO and a socket have no device: there the reader is
    missing, and whoever starts it can start us.
    """
    if error.errno == errno.EEXIST and isinstance(error.filename, str):
        return os.path.islink(error.filename) and not os.path.exists(error.filename)
    if error.errno == errno.ENXIO and isinstance(error.filename, str):
        with contextlib.suppress(OSError):
            mode = os.stat(error.filename).st_mode
            return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode))
    return error.filename != "" and error.errno in AWAY | FULL


def retry_in(tries: int, waited: float, patience: float) -> float | None:
    """Return the seconds until a full disk is tried again after so many tries, when it has taken nothing for ``waited``
    seconds; None when that was longer than ``patience``."""
    if waited >= patience:
        return None
    return min(FIRST_TRY_S * 2.0 ** min(tries, 16), LONGEST_TRY_S, patience - waited)


class Hold:
    """The wait for space. No loop spins: each try is a timer's.

    Args:
        patience: seconds without a line taken after which it ends; 0 is none at all.
        try_again: called when it is time; calls ``refused`` if the disk is still full.
    """

    def __init__(self, patience: float, try_again: Callable[[], None]) -> None:
        self.patience = patience
        self.since: float | None = None  # in loop time, while the disk is full
        self._try_again = try_again
        self._tries = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def waiting(self) -> bool:
        """Whether another try is scheduled."""
        return self._timer is not None

    def refused(self, blocked_since: float) -> bool:
        """Schedule another try of a disk that has taken nothing since then; return False if patience has ended."""
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
        """Begin to count tries from 0, since some of it was taken."""
        self._tries = 0

    def over(self) -> float:
        """End the wait, since everything was taken; return the seconds that it took."""
        assert self.since is not None
        self.pause()
        seconds, self.since, self._tries = self._loop.time() - self.since, None, 0
        return seconds

    def pause(self) -> None:
        """Cancel the next try."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        self._timer = None
        self._try_again()
