"""Lines to one file descriptor: a burst is one write, and nobody waits for a slow reader.

``write`` only appends; the first line of a burst schedules the flush for when the event loop turns. What a
descriptor does not take at once is kept, up to a bound (``full``), and written when it takes more: the loop never
blocks. The descriptor's flags are not changed, since others (our own stderr, the shell) may share them; how a write
can be known not to block is each outlet's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
import struct
import termios
from collections.abc import Callable
from typing import Protocol

from .errors import FeedError, OutputFailed, ReaderGone

HIGH_BYTES = 4 * 1024 * 1024  # a reader this far behind is a stalled one; some 8,000 records
LOW_BYTES = 1024 * 1024
TORN_BYTES = 64 * 1024 * 1024  # the longest line: a frame nobody knows, and some base64


class Outlet(Protocol):
    """One kind of descriptor. ``watchable`` tells whether the event loop can wait for it."""

    fd: int
    watchable: bool

    def write(self, data: memoryview) -> int:
        """Write what goes without waiting, and say how many bytes; 0 if none. Raises OSError."""


class FileOutlet:
    """A regular file, or a device such as /dev/null: it takes everything, or it is full.

    When it is full a torn line is cut back, so that the file ends in a whole one.
    """

    watchable = False

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def write(self, data: memoryview) -> int:
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, data[written:])
        except OSError:
            whole = bytes(data[:written]).rfind(b"\n") + 1
            self._cut(written - whole)
            if not whole:
                raise  # otherwise the next call meets it again, with nothing written
            return whole
        return written

    def _cut(self, torn: int) -> None:
        """Take back the last ``torn`` bytes, if the file ends where we stopped."""
        if torn and stat.S_ISREG(os.fstat(self.fd).st_mode):
            end = os.lseek(self.fd, 0, os.SEEK_CUR)
            if end == os.fstat(self.fd).st_size:
                os.ftruncate(self.fd, end - torn)
                os.lseek(self.fd, end - torn, os.SEEK_SET)


class PipeOutlet:
    """A pipe. A writable one takes PIPE_BUF bytes at once, whole (POSIX); an empty one takes all of its size.

    Pieces end at line ends, so a line is torn only if it alone is longer than PIPE_BUF.
    """

    watchable = True

    def __init__(self, fd: int) -> None:
        self.fd = fd
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


class SocketOutlet:
    """A socket, as journald and inetd hand them out: told by the call itself not to wait."""

    watchable = True

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._socket = socket.socket(fileno=os.dup(fd))

    def write(self, data: memoryview) -> int:
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return 0

    def __del__(self) -> None:
        self._socket.close()


class TerminalOutlet:
    """A terminal, through an open file of our own: that one can be non-blocking without anybody noticing."""

    watchable = True

    def __init__(self, fd: int) -> None:
        self.fd = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)

    def write(self, data: memoryview) -> int:
        try:
            return os.write(self.fd, data)
        except BlockingIOError:
            return 0

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, OSError):
            os.close(self.fd)


def outlet(fd: int) -> Outlet:
    """The outlet that fits the descriptor."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode):
        return PipeOutlet(fd)
    if stat.S_ISSOCK(mode):
        return SocketOutlet(fd)
    if os.isatty(fd):
        with contextlib.suppress(OSError):  # someone else's terminal, as after `su`: then the plain descriptor
            return TerminalOutlet(fd)
    return FileOutlet(fd)


def open_output(path: str) -> int:
    """A descriptor that appends to the file at ``path``, made with mode 0640 if it is missing.

    A last line that is torn is moved to ``path.torn``.

    A FIFO needs a reader: without O_NONBLOCK, opening would wait for one, and take no signal meanwhile.

    Raises:
        OutputFailed: it cannot be opened.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        _mend(fd, path)
        return fd
    except OSError as error:
        raise OutputFailed(
            f"Cannot open the output file {path}.",
            why=f"{error.strerror} (errno {error.errno}).",
            remedy="Check the path and its permissions, or give another with --output.",
        ) from error


def _mend(fd: int, path: str) -> None:
    """Take a last line that a kill or a crash has torn out of a file, and keep it beside: the first line of this run
    would become a part of it, and neither could be read."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        return
    with open(path, "rb") as file:
        start = max(0, status.st_size - TORN_BYTES)
        file.seek(start)
        tail = file.read()
    whole = tail.rfind(b"\n") + 1
    if whole == len(tail) or (whole == 0 and start > 0):  # whole; or no file of ours
        return
    with open(f"{path}.torn", "ab", opener=lambda name, flags: os.open(name, flags, 0o640)) as kept:
        kept.write(tail[whole:] + b"\n")
    os.ftruncate(fd, start + whole)


class Sink:
    """Where the lines go. See the module.

    Args:
        fd: the descriptor.
        name: what to call it in messages.
        failed: called once, from the event loop, with the error that ends the output.
        path: the file's path, if it can be reopened.
    """

    def __init__(self, fd: int, name: str, failed: Callable[[FeedError], None], path: str | None = None) -> None:
        self.name = name
        self.path = path
        self.error: FeedError | None = None
        self.lines = 0  # handed in so far
        self.writes = 0  # system calls that wrote something
        self._failed = failed
        self._outlet = outlet(fd)
        self._loop = asyncio.get_running_loop()
        self._lines: list[bytes] = []
        self._chunk = memoryview(b"")
        self._bytes = 0  # handed in and not taken yet
        self._handed = 0
        self._scheduled = False
        self._waiting = False
        self._changed = asyncio.Event()
        self._watch_reader()

    def write(self, line: bytes) -> None:
        """Append one line, its line feed included. Never waits; out at the latest when the event loop turns."""
        self._lines.append(line)
        self._bytes += len(line)
        self._handed += len(line)
        self.lines += 1
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    @property
    def pending(self) -> int:
        """Bytes that no descriptor has taken yet."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether whoever makes lines should wait for :meth:`room`."""
        return self._bytes > HIGH_BYTES

    async def room(self) -> None:
        """Wait until the reader has caught up, or the output has failed."""
        while self._bytes > LOW_BYTES and self.error is None:
            self._changed.clear()
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until every line that was handed in so far is written, or the output has failed."""
        self.flush()
        mark = self._handed
        while self._handed - self._bytes < mark and self.error is None:
            self._changed.clear()
            await self._changed.wait()

    def flush(self) -> None:
        """Write what goes without waiting."""
        self._scheduled = False
        if self.error is not None:
            return
        try:
            while self._next_chunk():
                written = self._outlet.write(self._chunk)
                if not written:
                    break
                self.writes += 1
                self._bytes -= written
                self._chunk = self._chunk[written:]
        except OSError as error:
            self._fail(error)
        self._wait_for_writable(bool(self._chunk) and self.error is None)
        self._changed.set()

    def reopen(self) -> None:
        """Write on to a new file at the same path: what the old one has taken stays there.

        Raises:
            OutputFailed: it cannot be opened; the old one is written on.
        """
        if self.path is None or self.error is not None:
            return
        self.flush()
        fresh = open_output(self.path)
        self._wait_for_writable(False)
        if isinstance(self._outlet, PipeOutlet):
            self._loop.remove_reader(self._outlet.fd)
        old, self._outlet = self._outlet, outlet(fresh)
        os.close(old.fd)
        self._watch_reader()
        self.flush()

    def close(self) -> None:
        """Forget the descriptor. Lines that were not drained are lost."""
        self._wait_for_writable(False)
        if self._outlet.watchable:
            self._loop.remove_reader(self._outlet.fd)

    def _next_chunk(self) -> bool:
        if not self._chunk and self._lines:
            self._chunk = memoryview(b"".join(self._lines))
            self._lines.clear()
        return bool(self._chunk)

    def _wait_for_writable(self, wanted: bool) -> None:
        if wanted == self._waiting:
            return
        self._waiting = wanted
        if not wanted:
            self._loop.remove_writer(self._outlet.fd)
        elif self._outlet.watchable:
            self._loop.add_writer(self._outlet.fd, self.flush)

    def _watch_reader(self) -> None:
        """Notice a reader that closes, also when there is nothing to write: poll reports an error on our end then."""
        if isinstance(self._outlet, PipeOutlet):
            self._loop.add_reader(self._outlet.fd, self._reader_closed)

    def _reader_closed(self) -> None:
        self._loop.remove_reader(self._outlet.fd)
        self._fail(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def _fail(self, error: OSError) -> None:
        if self.error is not None:
            return
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            self.error = ReaderGone("The reader of the output has closed it.")
        else:
            self.error = OutputFailed(
                f"Cannot write to {self.name}.",
                why=f"{error.strerror} (errno {error.errno}); {self._bytes} bytes of records were not written.",
                remedy="Make room or mend the output, and start again.",
            )
        self._wait_for_writable(False)
        self._changed.set()
        self._failed(self.error)


def _pipe_size(fd: int) -> int:
    if not hasattr(fcntl, "F_GETPIPE_SZ"):  # only Linux tells
        return select.PIPE_BUF
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def _unread(fd: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, b"\0" * 4))
    return int(count)
