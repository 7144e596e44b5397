"""Write to files, pipes, sockets and terminals, each in a way that never waits.

The flags of an inherited descriptor are not changed, since others (our own stderr, the shell) may share it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import sys
import termios
from abc import ABC, abstractmethod
from collections.abc import Iterator


class Outlet(ABC):
    """One kind of descriptor. ``watchable``: the event loop can wait for it. ``regular``: a regular file, which can be
    synced, and can have space again after it was full. ``anonymous``: an unnamed pipe, whose reader may leave."""

    watchable = True
    regular = False
    anonymous = False

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @abstractmethod
    def write(self, data: memoryview) -> int:
        """Write as much as possible without waiting, and return how many bytes; 0 if none. Raises OSError."""

    def close(self) -> None:
        """Close the descriptor, and any that was opened beside it."""
        os.close(self.fd)


class FileOutlet(Outlet):
    """A regular file, or a device such as /dev/null. If it is full, a torn line is removed again."""

    watchable = False

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.regular = stat.S_ISREG(os.fstat(fd).st_mode)

    def write(self, data: memoryview) -> int:
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, data[written:])
        except OSError:
            taken = bytes(data[:written])
            whole = taken.rfind(b"\n") + 1
            if self.regular and whole < written:
                with contextlib.suppress(OSError):  # report why the disk is full, not this error
                    take_back(self.fd, taken[whole:])
            if not whole:
                raise  # after a complete line, the next call meets the error again, with nothing written
            return whole
        return written


def take_back(fd: int, torn: bytes) -> None:
    """Remove the torn line that we have just written to a regular file, and nothing of another process.

    Truncate it if the file ends with it. If another process may have appended, overwrite it with blanks, which JSON
    allows before the next line. Raises OSError if neither is possible.
    """
    start = os.lseek(fd, 0, os.SEEK_CUR) - len(torn)
    try:
        # Ours cannot read, and ignores offsets when it writes.
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # not Linux, or a file that we may not read: judge by its size
        if os.fstat(fd).st_size == start + len(torn):
            os.ftruncate(fd, start)
        return
    try:
        with sole_writer(fd) as sole:
            found = os.pread(own, len(torn) + 1, start)
            if found == torn and sole:
                os.ftruncate(fd, start)
                os.lseek(fd, start, os.SEEK_SET)
            elif found.startswith(torn):
                os.pwrite(own, b" " * len(torn), start)
    finally:
        os.close(own)


@contextlib.contextmanager
def sole_writer(fd: int) -> Iterator[bool]:
    """Yield whether no other kraken-feed writes to the file. If so, none can start to while the block runs.

    Afterwards this process keeps a shared lock as long as it has the file open. On file systems without locks (some
    network file systems), it counts as the only one.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sole = True
    except OSError as error:
        sole = not isinstance(error, BlockingIOError)
    try:
        yield sole
    finally:
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)


class PipeOutlet(Outlet):
    """A pipe. If it is writable it accepts PIPE_BUF bytes (POSIX); if it is empty, its whole size.

    Writes end at line ends, so only a line that is longer than PIPE_BUF can be torn.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.anonymous = is_anonymous_pipe(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._size = _pipe_size(fd)

    def write(self, data: memoryview) -> int:
        ready = self._poll.poll(0)
        if not ready:
            return 0
        if not ready[0][1] & select.POLLOUT:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        room = select.PIPE_BUF
        if len(data) > room and self._size > room and _unread(self.fd) == 0:
            room = self._size
        if len(data) > room:
            room = bytes(data[:room]).rfind(b"\n") + 1 or room
        return os.write(self.fd, data[:room])


class SocketOutlet(Outlet):
    """A socket, as journald and inetd pass them. A flag of each call makes it non-blocking."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._socket = socket.socket(fileno=os.dup(fd))

    def write(self, data: memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def __del__(self) -> None:
        self._socket.close()


class TerminalOutlet(Outlet):
    """A terminal, opened a second time, so that non-blocking mode does not affect other processes."""

    def __init__(self, fd: int) -> None:
        self._given = fd
        super().__init__(os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))

    def write(self, data: memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self._given)

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


def outlet(fd: int) -> Outlet:
    """Return the outlet that fits the descriptor."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return PipeOutlet(fd)
    if stat.S_ISSOCK(mode):
        return SocketOutlet(fd)
    if os.isatty(fd):
        with contextlib.suppress(OSError):  # another user's terminal, as after `su`: use the plain descriptor
            return TerminalOutlet(fd)
    return FileOutlet(fd)


def is_anonymous_pipe(fd: int) -> bool:
    """Return whether the descriptor is an unnamed pipe, as in ``| head``: its reader stops when it has enough. The
    reader of a FIFO or a socket is a separate program, whose end is a failure.

    An unnamed pipe is on the kernel's file system for pipes, a FIFO on a disk.
    """
    status = os.fstat(fd)
    if not stat.S_ISFIFO(status.st_mode):
        return False
    reader, writer = os.pipe()
    try:
        return os.fstat(writer).st_dev == status.st_dev
    finally:
        os.close(reader)
        os.close(writer)


def _pipe_size(fd: int) -> int:
    if not hasattr(fcntl, "F_GETPIPE_SZ"):  # only Linux has it
        return select.PIPE_BUF
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def _unread(fd: int) -> int:
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4), sys.byteorder)
