"""The output and the state in memory, with what a crash and a power cut leave of them."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Literal, NamedTuple, TypeVar

import msgspec

from kraken_feed.errors import FeedError, OutputFailed, StateFailed
from kraken_feed.output.destination import HIGH_BYTES, LOW_BYTES
from kraken_feed.state.checkpoint import Changes, ChannelState, Checkpoint
from kraken_feed.state.store import Found

from ...support import virtual_time
from .world import Clocks

SYNC_S = 0.02  # what a disk takes, about
LOG_LENGTH = 400  # saves that can be undone
JOURNAL_BYTES = 200_000  # appended since everything was last saved, and as much again: then that is due

T = TypeVar("T")


class Mark(NamedTuple):
    """From this offset on, that run has written."""

    offset: int
    run: int


class File:
    """A file that runs append to. ``synced`` is what a power cut leaves for sure. What lies before ``base`` was cut
    off. The checker has read it up to ``taken``, and its writer's checkpoint covers it up to ``needed``."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.base = 0
        self.synced = 0
        self.taken = 0
        self.needed = 0
        self.linked = True
        self.marks: list[Mark] = []

    @property
    def size(self) -> int:
        """The number of bytes that were ever in it, less what was cut off."""
        return self.base + len(self.data)

    def cut(self, size: int) -> None:
        """Cut the file off."""
        del self.data[max(0, size - self.base) :]
        self.synced = min(self.synced, self.size)

    def truncate(self) -> None:
        """Empty the file; what follows is appended. Offsets go on."""
        self.base = self.taken = self.synced = self.needed = self.size
        self.data.clear()

    def take(self, end: int) -> tuple[bytes, int]:
        """Return the complete lines between what was taken and ``end``, and where they begin."""
        begin = self.taken
        start, stop = begin - self.base, max(begin, end) - self.base
        stop = max(start, self.data.rfind(b"\n", start, stop) + 1)
        lines = bytes(self.data[start:stop])
        self.taken += len(lines)
        return lines, begin


class Disk:
    """The files of one client: the output, and the log of saves."""

    def __init__(self) -> None:
        self.output = File()
        self.state = State()
        self.noted: dict[bytes, float] = {}  # records of `feed.live`, and when they were written by Kraken's clock

    def remove_output(self) -> None:
        """Remove the output; a run that has it open writes on into what nobody can read."""
        self.output.linked = False
        self.output = File()


class State:
    """The content of a state file: a checkpoint, and the saves that a power cut or an old copy can undo."""

    def __init__(self) -> None:
        self._base: Checkpoint | None = None
        self._log: list[bytes] = []
        self.older = 0  # saves that are undone at the next start
        self._emptied = False  # before the next start

    def append(self, changes: bytes) -> None:
        """Save once."""
        if self._base is None:  # the very first save is durable
            self._base = merged(None, [changes])
            return
        self._log.append(changes)
        if len(self._log) > 2 * LOG_LENGTH:
            self._base = merged(self._base, self._log[:LOG_LENGTH])
            del self._log[:LOG_LENGTH]

    def undo(self, saves: int) -> None:
        """Forget the last saves, as far as they can be undone."""
        if saves:
            del self._log[-saves:]

    def replace_with_copy(self, saves: int) -> None:
        """Let the next start find it as it was so many saves before."""
        self.older = saves

    def empty(self) -> None:
        """Let the next start find an empty file."""
        self._emptied = True

    @property
    def lost(self) -> bool:
        """Whether the next start finds nothing."""
        return self._base is None or self._emptied

    def open(self) -> tuple[Checkpoint | None, Found]:
        """Return what a run finds at its start."""
        emptied, older, self._emptied, self.older = self._emptied, self.older, False, 0
        self.undo(older)
        if emptied:
            self._base, self._log = None, []
            return None, "lost"
        checkpoint = self.load()
        return checkpoint, "new" if checkpoint is None else "saved"

    def load(self) -> Checkpoint | None:
        """Return what it holds."""
        if self._base is None:
            return None
        self._base, self._log = merged(self._base, self._log), []
        loaded = msgspec.msgpack.decode(msgspec.msgpack.encode(self._base), type=Checkpoint)
        for state in loaded.channels.values():
            state.ended, state.seen = last(state.ended), last(state.seen)
        return loaded


_decode = msgspec.msgpack.Decoder(Changes).decode


def merged(base: Checkpoint | None, log: list[bytes]) -> Checkpoint:
    """Return a checkpoint and the saves after it as one checkpoint."""
    checkpoint = base or Checkpoint()
    for encoded in log:
        changes = _decode(encoded)
        checkpoint.nonce = checkpoint.nonce if changes.nonce is None else changes.nonce
        checkpoint.saved_ns = changes.saved_ns
        checkpoint.counter = changes.counter or checkpoint.counter
        if changes.scans is not None:
            checkpoint.scans = changes.scans
        channels = checkpoint.channels
        for channel in changes.replaced & channels.keys():
            kept = channels[channel]
            channels[channel] = ChannelState(complete_ns=kept.complete_ns, outages=kept.outages)
        for channel, entry in changes.entries.items():
            entry.apply(channels.setdefault(channel, ChannelState()))
        for channel, ns in changes.complete.items():
            channels.setdefault(channel, ChannelState()).complete_ns = ns
        for channel, outages in changes.outages.items():
            channels.setdefault(channel, ChannelState()).outages = outages
    return checkpoint


def last(ids: list[T]) -> list[T]:
    """Return the ids without repetitions, each where it came last."""
    return list(dict.fromkeys(reversed(ids)))[::-1]


class MemoryStore:
    """The interface of ``store.Store`` on a :class:`State`."""

    def __init__(self, disk: Disk) -> None:
        self.path = "memory"
        self.dead = False
        self.failing = False
        self.saves = 0
        self._disk = disk
        self._opened = disk.state
        self._appended = 0
        self._everything = 0  # bytes of the last save of all

    @property
    def long(self) -> bool:
        """Whether a save of everything is due."""
        return self._appended > max(JOURNAL_BYTES, self._everything)

    def save(self, changes: Changes) -> None:
        """Keep the changes."""
        if self.dead:
            return
        if self.failing:
            raise StateFailed("Cannot keep the checkpoint in memory.", why="The plan says so.")
        encoded = msgspec.msgpack.encode(changes)
        if changes.replaced:
            self._appended, self._everything = 0, len(encoded)
        else:
            self._appended += len(encoded)
        self.saves += 1
        self._opened.append(encoded)

    def check(self) -> Literal["ok", "gone", "replaced"]:
        """Say whether the path still names the file that was opened."""
        return "ok" if self._disk.state is self._opened else "gone"

    def reopen(self, now_ns: int) -> Checkpoint | None:
        """Open what is at the path now; return what it holds."""
        self._opened = self._disk.state
        return self._opened.load()

    def close(self) -> None:
        """Let go of it."""


class MemoryOutput:
    """A :class:`kraken_feed.output.destination.Destination` on a :class:`File`: lines are out when the loop turns.

    A power cut takes what was not synced, a kill what the reader did not take.
    """

    waits_at_stop = False
    source = "memory"
    unrescued = 0  # memory can always be read again

    def __init__(self, disk: Disk, run: int, clocks: Clocks, chance: Random) -> None:
        self.name = "memory"
        self.path = "memory"
        self.error: FeedError | None = None
        self.lines = 0
        self.sync_started: float | None = None
        self.dead = False
        self.stalled = False
        self.rate: float | None = None  # bytes per second that the reader takes
        self.slow_sync_s = 0.0  # for the next sync
        self.run = run
        self._disk = disk
        self._file = disk.output
        self._open(disk.output)
        self._clocks = clocks
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._handed = 0
        self._durable = 0  # of these bytes, on the disk
        self._last = 0  # bytes of the last write
        self._scheduled = False
        self._changed = asyncio.Event()
        self._syncing: asyncio.Task[None] | None = None

    def _open(self, file: File) -> None:
        self._file = file
        file.cut(file.base + file.data.rfind(b"\n") + 1)  # a torn line is set aside
        file.needed = file.size
        file.marks.append(Mark(file.size, self.run))

    @property
    def pending(self) -> int:
        """Bytes that nobody has taken yet."""
        return len(self._buffer)

    @property
    def full(self) -> bool:
        """Whether whoever makes lines should wait."""
        return len(self._buffer) > HIGH_BYTES

    def write(self, line: bytes, count: int = 1) -> None:
        """Append one line, or several in one."""
        if self.dead:
            return
        self._buffer += line
        self._handed += len(line)
        self.lines += count
        if b":feed.live" in line[:120]:
            self._disk.noted[line] = self._clocks.kraken()
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what the reader takes."""
        self._scheduled = False
        if self.stalled or self.dead or not self._buffer:
            return
        size = len(self._buffer)
        if self.rate is not None:
            size = self._buffer.rfind(b"\n", 0, max(int(self.rate * 0.1), 1)) + 1 or self._buffer.find(b"\n") + 1
        self._file.data += self._buffer[:size]
        self._last = size
        del self._buffer[:size]
        self._changed.set()
        if self._buffer:
            self._scheduled = True
            self._loop.call_later(0.1, self.flush)

    async def room(self) -> None:
        """Wait until the reader has caught up."""
        while len(self._buffer) > LOW_BYTES:
            self._changed.clear()
            await self._changed.wait()

    async def synced(self) -> None:
        """Wait until every line that was handed in so far is on the disk."""
        mark = self._handed
        self.flush()
        while self._durable < mark:
            if self._syncing is None and self._handed - len(self._buffer) > self._durable:
                self._syncing = asyncio.create_task(self._sync())
            self._changed.clear()
            await self._changed.wait()

    async def _sync(self) -> None:
        """Bring what was written so far to the disk."""
        file, size, covers = self._file, self._file.size, self._handed - len(self._buffer)
        self.sync_started = self._loop.time()
        await virtual_time.elapse(max(SYNC_S * self._chance.random(), self.slow_sync_s))
        self.slow_sync_s = 0.0
        self.sync_started = self._syncing = None
        if not self.dead:
            file.synced = max(file.synced, min(size, file.size))
            if file is self._file:
                self._durable = max(self._durable, covers)
            self._changed.set()

    def undelivered(self) -> FeedError:
        """Return the error for what has to be given up."""
        return OutputFailed(f"The reader takes nothing: {self.pending} bytes.")

    def check(self) -> Literal["ok", "removed", "moved"]:
        """Say whether the path still names the file that is written."""
        return "ok" if self._file.linked else "removed"

    @property
    def position(self) -> int:
        """Bytes that were handed in so far."""
        return self._handed

    def covered(self, position: int) -> None:
        """The checkpoint covers what was handed in up to there."""
        if self._file.linked and self._durable >= position:
            self._file.needed = self._file.synced

    def rescue(self) -> int | None:
        """Write again to a new file what the checkpoint does not cover."""
        old = self._file
        if old.linked:
            return 0
        again = bytes(old.data[old.needed - old.base :])
        self._buffer[:0] = again
        self._durable = min(self._durable, self._handed - len(self._buffer))
        new = self._disk.output
        self._open(new)
        new.marks.pop()
        new.marks += [Mark(new.size + max(0, mark.offset - old.needed), mark.run) for mark in old.marks]
        self.flush()
        return len(again)

    def reopen(self) -> None:
        """Write on to what is at the path."""
        self._open(self._disk.output)

    def die(self, share: float | None = None) -> None:
        """End with the process. With a share, the last write is cut there."""
        self.dead = True
        if share is not None and self._last and self._file.linked:
            self._file.cut(max(self._file.synced, self._file.size - int(self._last * share)))

    def close(self) -> None:
        """Let go of the file."""
        self.flush()
        self.dead = True
