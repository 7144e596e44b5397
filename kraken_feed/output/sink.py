"""Write lines to one output: a burst is one write (a large one several), and no caller waits for a slow reader.

``write`` only appends; the first line of a burst schedules the flush for the event loop's next iteration. What a
descriptor does not accept at once is kept, up to a bound (``full``), and written when it accepts more: the loop never
blocks. Each outlet knows how to write without blocking.

While a file's disk is full, the write is repeated until there is space, or until patience ends. ``synced`` waits until
a file's data is on the disk.

A file can be removed while it is written to. ``check`` notices it. ``rescue`` then writes again, to a new file, the
lines since the last checkpoint that was saved while the file still had a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, Self

from ..errors import FeedError, OutputFailed, ReaderGone
from ..telemetry.stats import Histogram, Output
from .descriptor import Outlet, PipeOutlet, outlet
from .destination import LOW_BYTES, Destination
from .disk import FULL, DiskWait, Sync, hanging, not_on_disk
from .file import Torn, open_output, read_removed

# -- watching an outlet with the event loop


@dataclass(eq=False, repr=False)
class Readiness:
    """Watches one outlet for space and for the end of its reader. Call ``end`` before the descriptor is closed.

    The end of a pipe's reader is noticed at once, even if there is nothing to write: poll reports an error.
    """

    outlet: Outlet
    writable: Callable[[], None]  # called when the outlet can take more, after ``wait(True)``
    gone: Callable[[], None]  # called when the reader has closed its end

    def __post_init__(self) -> None:
        self._waiting = False
        self._loop = asyncio.get_running_loop()
        if isinstance(self.outlet, PipeOutlet):
            self._loop.add_reader(self.outlet.fd, self._reader_closed)

    def wait(self, wanted: bool) -> None:
        """Start or stop watching until the outlet can take more. Do nothing for an outlet that cannot be watched: it
        takes everything, or fails."""
        if wanted == self._waiting or not self.outlet.watchable:
            return
        self._waiting = wanted
        if wanted:
            self._loop.add_writer(self.outlet.fd, self.writable)
        else:
            self._loop.remove_writer(self.outlet.fd)

    def end(self) -> None:
        """Stop watching the outlet, for space and for its reader."""
        self.wait(False)
        if self.outlet.watchable:
            self._loop.remove_reader(self.outlet.fd)

    def _reader_closed(self) -> None:
        self._loop.remove_reader(self.outlet.fd)
        self.gone()


CHUNK_BYTES = 100 * 1024  # joined for one write: a pipe takes 64 KiB, and larger blocks fragment the heap
SYNC_S = 60.0  # a disk that needs longer for one second's records hangs
RESCUED_BYTES = 64 * 1024 * 1024  # one second's records are kilobytes: this much means that no save succeeded for hours
GONE = frozenset({errno.EPIPE, errno.ECONNRESET})

Warn = Callable[..., object]  # takes a diagnostic as a structlog logger's ``warning`` does: its name, and its fields


def _silent(event: str, **fields: object) -> None:
    pass


class Sink(Destination):
    """Writes lines to one descriptor.

    Args:
        fd: the descriptor.
        name: what to call it in messages.
        failed: called once, from the event loop, with the error that ends the output.
        path: the file's path, if it can be reopened. The descriptor is the sink's own then.
        warn: called with ``output_held``, ``output_resumed`` and ``output_repaired``.
        patience: seconds to wait for a full disk that accepts no line.
    """

    name = ""
    error: FeedError | None = None
    lines = position = pending = 0
    unrescued = 0  # times that the lines of a removed file could not be read any more

    def __init__(
        self,
        fd: int,
        name: str,
        failed: Callable[[FeedError], None],
        path: str | None = None,
        *,
        warn: Warn = _silent,
        patience: float = 0.0,
    ) -> None:
        self.name = name
        self.path = path
        self.writes = 0  # system calls that wrote something
        self.bytes_written = 0
        self.torn = 0  # last lines that were set aside
        self.write_latency = Histogram()
        self.blocked_since: float | None = None  # loop time since which lines wait and none is accepted
        self.blocked_s = 0.0  # total seconds that lines have waited, up to ``blocked_since``
        self._failed = failed
        self._warn = warn
        self._outlet = outlet(fd)
        self._loop = asyncio.get_running_loop()
        self._disk_wait = DiskWait(patience, self._write_out)
        self._sync = Sync(self._sync_ended)
        self._lines: deque[bytes] = deque()
        self._chunk = memoryview(b"")
        self._scheduled = False
        # Bytes before this offset need no rescue: a checkpoint covers them, or they are not ours.
        self._rescue_from = self._place()
        self._had_name = self._has_name()  # whether a path named the file when it was opened
        self._unread = False  # whether a reopen could not read a removed file
        self._changed = asyncio.Event()
        self._readiness = Readiness(self._outlet, self.flush, self._reader_gone)

    @classmethod
    def open(
        cls, path: str, failed: Callable[[FeedError], None], *, warn: Warn = _silent, patience: float = 0.0
    ) -> Self:
        """Open the file at ``path`` and return a sink that appends to it. ``warn`` reports a torn last line.

        Raises:
            OutputFailed: it cannot be opened.
        """
        torn: list[Torn] = []
        sink = cls(open_output(path, torn.append), path, failed, path, warn=warn, patience=patience)
        sink._opened(path, torn)
        return sink

    # -- figures, for metrics and the checkpoint

    @property
    def fd(self) -> int:
        return self._outlet.fd

    @property
    def source(self) -> str | None:
        return (self.path or f"/proc/self/fd/{self.fd}") if self._outlet.regular else None

    @property
    def syncs(self) -> int:
        """The number of fdatasyncs that have ended since the start."""
        return self._sync.count

    @property
    def sync_started(self) -> float | None:
        return self._sync.started

    def figures(self) -> Output:
        """Return the output's figures for metrics: counts, sizes, and how long it has been blocked."""
        now = self._loop.time()
        blocked = None if self.blocked_since is None else now - self.blocked_since
        return Output(
            name=self.name,
            lines=self.lines,
            writes=self.writes,
            bytes_written=self.bytes_written,
            pending_bytes=self.pending,
            full=self.full,
            blocked_s=blocked,
            blocked_total_s=self.blocked_s + (blocked or 0.0),
            torn=self.torn,
            syncs=self.syncs,
            write_s=deepcopy(self.write_latency),
            overdue=self.sync_started is not None and now - self.sync_started > SYNC_S,
        )

    def undelivered(self) -> OutputFailed:
        now = self._loop.time()
        if self._disk_wait.since is not None:
            return self._unwritten(f"The disk has been full for {now - self._disk_wait.since:.1f} s")
        if self._sync.started is not None and not self.pending:
            return hanging(self.name, now - self._sync.started)
        return OutputFailed(
            f"The reader of {self.name} does not read: {self.pending} bytes of records were not written.",
            remedy="Check the program that reads the output.",
        )

    # -- lines

    def write(self, line: bytes, count: int = 1) -> None:
        """Append lines; the event loop's next iteration writes them."""
        self._lines.append(line)
        self.pending += len(line)
        self.position += len(line)
        self.lines += count
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    async def room(self) -> None:
        while self.pending > LOW_BYTES and self.error is None:
            self._changed.clear()
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until every line that was handed in so far is written, or until the output has failed."""
        self._write_out()  # a full disk may have space again
        target = self.position
        while self.position - self.pending < target and self.error is None:
            self._changed.clear()
            await self._changed.wait()

    async def synced(self) -> None:
        """Wait until every line that was handed in so far is written and, in a regular file, on the disk; or until the
        output has failed. Calls made while an fdatasync runs share the next one."""
        target = self.position
        await self.drained()
        while self.error is None and self._sync.durable < target and (self._outlet.regular or self._sync.behind):
            self._sync.start(self._outlet, self.position - self.pending)
            self._changed.clear()
            await self._changed.wait()

    def flush(self) -> None:
        """Write as much as possible without waiting. Do nothing while the next try of a full disk is scheduled."""
        self._scheduled = False
        if not self._disk_wait.waiting:
            self._write_out()

    # -- removed and rotated files

    def check(self) -> Literal["ok", "removed", "moved"]:
        """Return whether the file that is written to can still be read. Call it once per second, for regular files.

        ``removed``: the file has lost its last name since it was opened; call :meth:`rescue`. ``moved``: the path names
        another file. If that lasts, no SIGHUP will come: call :meth:`reopen`. A file that was moved, with nothing at
        its path, is ``ok``: a rotation may be in progress.
        """
        if self._unread or self._removed():
            return "removed"
        return "moved" if self._another_at_path() else "ok"

    def covered(self, position: int) -> None:
        """Remember that a checkpoint covers the output up to ``position``, so that a rescue need not write it again.

        Call this after a save that followed :meth:`synced`. It also checks that the file still has a name: what was
        written after a removal is rescued, however often it was saved.
        """
        reached = self._sync.reached
        if reached is not None and reached[0] is self._outlet and self._sync.durable >= position and self._has_name():
            self._rescue_from = reached[1]

    def rescue(self) -> int | None:
        """Open a new file at the path, and write to it what the removed file received since the last :meth:`covered`.

        Returns how many bytes that is; None if they could not be read, which means that they are lost. :meth:`synced`
        waits until they are on the disk again.

        Raises:
            OutputFailed: no new file can be opened, or there is no path. A later call tries again with the same lines.
        """
        if self._unread:
            self._unread = False
            self.unrescued += 1
            return None
        if self.error is not None or not self._removed():
            return 0
        if self.path is None:
            raise OutputFailed(
                f"The file that {self.name} was written to was removed.",
                why="Its records cannot be read, and kraken-feed does not know its path.",
                remedy="Start again. With --output PATH instead of a redirection, kraken-feed creates the file again.",
            )
        lines = read_removed(self._outlet.fd, self._rescue_from, RESCUED_BYTES)
        fresh = self._open_again(self.path)
        if lines:
            self._chunk = memoryview(lines + self._chunk)
            self.pending += len(lines)
            self._sync.forget(self.position - self.pending)
        self._change_to(*fresh)
        self.unrescued += lines is None
        return None if lines is None else len(lines)

    def reopen(self) -> None:
        """Continue in a new file at the same path. What the old file has stays there, and reaches the disk. If the old
        one was removed, the new one receives its lines, as after :meth:`rescue`.

        Raises:
            OutputFailed: it cannot be opened; the old file stays in use.
        """
        if self.path is None or self.error is not None:
            return
        if self._removed():
            # If its lines are lost, the next check reports that: then rescue() counts it, not here.
            before = self.unrescued
            self._unread = self.rescue() is None
            self.unrescued = before
            return
        self.flush()
        try:
            fresh = self._open_again(self.path)
        except OutputFailed as error:
            raise OutputFailed(
                error.what, why=f"{error.why} Records still go to the old file.", remedy=error.remedy
            ) from error
        self._change_to(*fresh)

    def _open_again(self, path: str) -> tuple[str, int, list[Torn]]:
        torn: list[Torn] = []
        return path, open_output(path, torn.append), torn

    def _change_to(self, path: str, fd: int, torn: list[Torn]) -> None:
        """Switch to another file, and let the old one reach the disk."""
        self._readiness.end()
        self._sync.retire(self._outlet)
        self._outlet = outlet(fd)
        self._rescue_from, self._had_name = self._place(), self._has_name()
        self._readiness = Readiness(self._outlet, self.flush, self._reader_gone)
        self._opened(path, torn)
        self._sync.start(self._outlet, self.position - self.pending)
        self._write_out()

    def _place(self) -> int:
        """Return the offset at which our last line in the file ends."""
        return os.lseek(self._outlet.fd, 0, os.SEEK_CUR) if self._outlet.regular else 0

    def _has_name(self) -> bool:
        """Return whether any path names the file."""
        try:
            return os.fstat(self._outlet.fd).st_nlink > 0
        except OSError as error:
            return error.errno != errno.ESTALE  # a network file system: another machine removed the file

    def _removed(self) -> bool:
        return self._outlet.regular and self._had_name and not self._has_name()

    def _another_at_path(self) -> bool:
        if self.path is None or not self._outlet.regular:
            return False
        with contextlib.suppress(OSError):  # there is no file, or we may not look at it
            return not os.path.samestat(os.stat(self.path), os.fstat(self._outlet.fd))
        return False

    def close(self) -> None:
        """Close the descriptor if the sink opened it. Lines that were not drained are lost."""
        self._disk_wait.pause()
        self._readiness.end()
        if self.path is not None:
            self._sync.retire(self._outlet)
            self._sync.close()

    def _opened(self, path: str, torn: list[Torn]) -> None:
        self._sync.opened(path)
        for line in torn:
            self.torn += 1
            self._warn("output_repaired", output=path, bytes=line.bytes, kept_as=line.kept_as)

    # -- writing

    def _write_out(self) -> None:
        """Write lines until the outlet accepts nothing more, then report what changed."""
        if self.error is not None:
            return

        # Write chunk after chunk. A short write leaves the rest in `_chunk`. An outlet that returns 0 is full: to try
        # it again now would be a busy loop.
        before, failure = self.pending, None
        try:
            while self._next_chunk():
                began = perf_counter()
                written = self._outlet.write(self._chunk)
                if not written:
                    break
                self.write_latency.observe(perf_counter() - began)
                self.writes += 1
                self.bytes_written += written
                self.pending -= written
                self._chunk = self._chunk[written:]
        except OSError as error:
            failure = error  # judged below, when the figures include what was written before it

        # Keep the time since which no line is accepted. It must be known before a failure is judged, since patience
        # with a full disk counts from it. Progress, even of one line, restarts it.
        if self._chunk or self.blocked_since is not None:
            self._note_blocked(progress=self.pending < before)

        # A full disk is tried again later, and any other error ends the output. Without an error after a hold, the disk
        # has space again, and the hold is over.
        if failure is not None:
            self._refused(failure)
        elif self._disk_wait.since is not None:
            self._warn("output_resumed", output=self.name, held_s=round(self._disk_wait.over(), 1))

        # Watch for space only while something waits: an idle pipe is always writable, and would wake the loop forever.
        self._readiness.wait(bool(self._chunk) and self.error is None)

        # Wake the callers of `room`, `drained` and `synced`, also after a failure: each checks its own condition.
        self._changed.set()

    def _next_chunk(self) -> bool:
        if not self._chunk and self._lines:
            lines, size = [], 0
            while self._lines and size < CHUNK_BYTES:
                line = self._lines.popleft()
                lines.append(line)
                size += len(line)
            self._chunk = memoryview(b"".join(lines))
        return bool(self._chunk)

    def _note_blocked(self, *, progress: bool) -> None:
        now = self._loop.time()
        if self.blocked_since is None:
            self.blocked_since = now
        elif progress:
            self.blocked_s += now - self.blocked_since
            self.blocked_since = now if self._chunk else None
            self._disk_wait.progressed()

    def _refused(self, error: OSError) -> None:
        """Schedule another try if the disk is full. Any other error ends the output."""
        if error.errno in GONE:
            self._reader_gone()
            return
        first = self._disk_wait.since is None
        assert self.blocked_since is not None  # there was something to write
        if error.errno not in FULL or not self._outlet.regular or not self._disk_wait.refused(self.blocked_since):
            self._fail(self._unwritten(f"{error.strerror} (errno {error.errno})"))
        elif first:
            self._warn(
                "output_held",
                output=self.name,
                reason=error.strerror,
                pending_bytes=self.pending,
                patience_s=self._disk_wait.patience,
            )

    def _reader_gone(self) -> None:
        if self._outlet.anonymous:
            self._fail(ReaderGone("The reader of the output has closed it."))
            return
        self._fail(
            OutputFailed(
                f"The reader of {self.name} has closed it.",
                why=f"{self.pending} bytes of records were not written." if self.pending else "",
                remedy="Start the reader, then kraken-feed again. A service restarts by itself.",
            )
        )

    def _unwritten(self, reason: str) -> OutputFailed:
        return OutputFailed(
            f"Cannot write to {self.name}.",
            why=f"{reason}; {self.pending} bytes of records were not written.",
            remedy="Free space or repair the output, then start again.",
        )

    def _sync_ended(self, error: OSError | None) -> None:
        if error is not None:
            self._fail(not_on_disk(self.name, error))
        elif self._sync.behind:  # a file was rotated away, or closed, in the meantime
            self._sync.start(self._outlet, self.position - self.pending)
        self._changed.set()

    def _fail(self, error: FeedError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._readiness.wait(False)
        self._changed.set()
        self._failed(error)
