"""Keeps an account's checkpoint: about once per second, what the output holds by now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from ..errors import FeedError, OutputFailed, StateFailed
from ..output.destination import Destination
from ..protocol.signing import Nonce
from ..state.checkpoint import CallLevel, Changes, Checkpoint, Outage, Scan
from ..state.store import Store
from ..transport.backoff import CallCounter
from ..transport.kraken_clock import KrakenClock
from .endpoint import Tail
from .known_state import Knowledge
from .recovery import Recovery

CHECKPOINT_S = 1.0  # what a crash can repeat, and what it costs: one small transaction
SAVE_S = 30.0  # a save takes milliseconds; one that takes longer hangs in the file system
MOVED = 5  # looks at an output whose path names another file; a rotation sends SIGHUP before


class Checkpointer:
    """Brings the output to the disk, and then what is known of it: a crash or a power cut in between repeats records,
    and loses none.

    Before each save it looks whether output and state are still the files that were opened. What was written to a file
    that is gone is written again, or declared missing. Without a store it still brings the output to the disk.

    Args:
        store: where the checkpoint is; None keeps none.
        checkpoint: what it holds already.
        sink: the output.
        tails, knowledge, recovery, nonce, counter: what there is to keep.
        clock: Kraken's.
        log: diagnostics.
        unix_ns: the wall clock, for as long as Kraken's is not known.
        fail: ends the feed.
        every_turn: called once per second, before the save.
    """

    def __init__(
        self,
        store: Store | None,
        checkpoint: Checkpoint | None,
        *,
        sink: Destination,
        tails: Iterable[Tail],
        knowledge: Mapping[str, Knowledge],
        recovery: Recovery,
        nonce: Nonce,
        counter: CallCounter,
        clock: KrakenClock,
        log: FilteringBoundLogger,
        unix_ns: Callable[[], int],
        fail: Callable[[FeedError], None],
        every_turn: Callable[[], None] = lambda: None,
    ) -> None:
        channels = checkpoint.channels if checkpoint is not None else {}
        # Up to when the saved checkpoint calls a channel complete: the next run will know what it has missed since.
        self.kept = {name: state.complete_ns for name, state in channels.items() if state.complete_ns}
        self.saved_ns: int | None = None  # in this run
        self._store = store
        self._sink = sink
        self._tails = tuple(tails)
        self._knowledge = knowledge
        self._recovery = recovery
        self._nonce = nonce
        self._counter = counter
        self._clock = clock
        self._log = log
        self._unix_ns = unix_ns
        self._fail = fail
        self._every_turn = every_turn
        self._soon = asyncio.Event()
        self._since: float | None = None  # when the save under way was begun
        self._writing: asyncio.Future[None] | None = None
        self._unsaved: Changes | None = None
        self._everything = False  # the state was gone: save all that is known
        self._unrescued = sink.unrescued
        self._moved = 0  # looks in a row at an output whose path names another file
        self._failure = ""  # of the last save

    async def run(self) -> None:
        """Save for ever."""
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKPOINT_S):
                    await self._soon.wait()
            self._every_turn()
            await self.save()

    def soon(self) -> None:
        """Do not wait for the second to end."""
        self._soon.set()

    def called(self) -> None:
        """A call of REST is about to be made: the next run should know of it."""
        if self.kept:
            self._soon.set()

    def overdue(self, now: float) -> bool:
        """Return whether a save hangs."""
        return self._since is not None and now - self._since > SAVE_S

    def begin(self, channel: str, complete_ns: int) -> None:
        """A channel is about to be live. If it is so for the first time ever, save just that, at once and before it is
        said: from here on the next run will know what it has missed, and what of this run the output did not take.

        It can have an outage already, of a run whose state is gone."""
        if self._store is None or channel in self.kept:
            return
        changes = Changes(nonce=self._nonce.last, saved_ns=self._now(), complete={channel: complete_ns})
        changes.outages[channel] = self._outages(channel)
        try:
            self._store.save(changes)
        except StateFailed as error:
            self._say(error)
        else:
            self.kept[channel] = complete_ns

    async def save(self) -> None:
        """Save what is known now, once the output has it. What cannot be saved is tried again with the next one."""
        if self._store is None:
            for knowledge in self._knowledge.values():  # nobody keeps it, and it must not pile up
                knowledge.take()
            await self._sink.synced()
            await self._check_output()
            return
        await self._settled()
        await self._check_state(self._store)
        written = self._sink.position
        changes = self._changes()
        if self._unsaved is not None:
            self._unsaved.merge(changes)
            changes = self._unsaved
        self._unsaved = changes
        if self._store.long or self._everything:
            changes = self._all(changes)
        await self._sink.synced()
        if not await self._check_output():
            return  # it was written again, and is not on the disk yet: the next save has it
        if self._sink.error is None and await self._write(changes):
            self._unsaved, self._everything = None, False
            self._sink.kept(written)

    async def close(self, seconds: float) -> None:
        """Let go of the store. What a disk holds up for longer ends with the process, and is complete all the same."""
        if self._store is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.to_thread(self._store.close)

    # -- what is gone

    async def _check_output(self) -> bool:
        """Look whether the output is still the file that was opened; return False if it was not."""
        found = self._sink.check()
        if found == "removed":
            self._rescue_output()
        if self._sink.unrescued != self._unrescued:  # the output is shared: another account may have noticed first
            self._unrescued = self._sink.unrescued
            for channel, complete_ns in self.kept.items():
                self._missing(channel, complete_ns, "output_removed")
        self._moved = self._moved + 1 if found == "moved" else 0
        if found == "removed":
            return False
        if self._moved >= MOVED:
            self._moved = 0
            with contextlib.suppress(OutputFailed):  # tried again at the next look
                self._sink.reopen()
                self._log.warning("output_moved", output=self._sink.name, what="the path names another file: reopened")
        return True

    def _rescue_output(self) -> None:
        """Write again what went with a file that was removed. What cannot be read any more may be missing."""
        try:
            rewritten = self._sink.rescue()
        except OutputFailed as error:
            self._fail(error)
            return
        self._log.error("output_removed", output=self._sink.name, written_again_bytes=rewritten)

    async def _check_state(self, store: Store) -> None:
        """Look whether the state is still the file that was opened; if it is not, open it again and save everything.

        Another file at its place, as on a file system that is mounted late, knows up to when the output was complete
        before this run.
        """
        found = store.check()
        if found == "ok":
            return
        self._log.error("state_removed", path=store.path, what="everything is saved again")
        try:
            other = await asyncio.to_thread(store.reopen, self._unix_ns())
        except StateFailed as error:
            self._say(error)
            return
        except FeedError as error:
            self._fail(error)
            return
        self._everything = True
        for channel, state in (other.channels if other is not None else {}).items():
            if channel in self._knowledge and state.complete_ns:
                self._missing(channel, state.complete_ns, "state_replaced")

    def _missing(self, channel: str, since_ns: int, cause: str) -> None:
        """What came on the channel from then until now may be missing."""
        now = self._clock.latest()
        self._recovery.open(channel, since_ns, cause)
        if now is not None and any(channel in tail.complete() for tail in self._tails):
            self._recovery.end(channel, now)

    # -- the save

    async def _write(self, changes: Changes) -> bool:
        """Save the changes in a thread; return whether that worked."""
        assert self._store is not None  # the callers have looked
        loop = asyncio.get_running_loop()
        self._since, self._writing = loop.time(), loop.run_in_executor(None, self._store.save, changes)
        try:
            await asyncio.shield(self._writing)
        except StateFailed as error:
            self._say(error)
            return False
        finally:
            self._since = None
        if self._failure:
            self._log.warning("checkpoint_saved_again")
        self._failure, self.saved_ns = "", changes.saved_ns
        self.kept |= changes.complete
        return True

    async def _settled(self) -> None:
        """Wait for a save that was cancelled: it goes on in its thread, and reads what must not change meanwhile."""
        if self._writing is None:
            return
        await asyncio.wait([self._writing])
        if self._writing.exception() is None:
            self._unsaved = None
        self._writing = None

    def _say(self, error: StateFailed) -> None:
        """Log a failure once for each reason: a full disk is full every second."""
        if str(error) != self._failure:
            self._log.error("checkpoint_failed", reason=str(error))
        self._failure = str(error)

    def _now(self) -> int:
        """Return Kraken's time, or this machine's as long as that is not known."""
        return self._clock.earliest() or self._unix_ns()

    def _complete(self) -> dict[str, int]:
        return {channel: ns for tail in self._tails for channel, ns in tail.complete().items()}

    def _changes(self) -> Changes:
        """Return what is known now and was not at the last call."""
        now, recovery = self._now(), self._recovery
        changes = Changes(nonce=self._nonce.last, saved_ns=now, complete=self._complete())
        latest = self._clock.latest()
        if latest is not None:
            changes.counter = CallLevel(self._counter.level(asyncio.get_running_loop().time()), latest)
        for channel, knowledge in self._knowledge.items():
            changes.entries[channel] = knowledge.take()
            if recovery.changed:
                changes.outages[channel] = self._outages(channel)
        if recovery.changed:
            changes.scans = self._scans()
        recovery.changed = False
        return changes

    def _outages(self, channel: str) -> list[Outage]:
        return [_copy(outage) for outage in self._recovery.outages if outage.channel == channel]

    def _scans(self) -> list[Scan]:
        return [replace(scan, channels=dict(scan.channels)) for scan in self._recovery.scanner.scans.values()]

    def _all(self, changes: Changes) -> Changes:
        """Return the same, with all that is known instead of what has changed."""
        entries = {channel: knowledge.everything() for channel, knowledge in self._knowledge.items()}
        everything = replace(changes, entries=entries, replaced=set(entries))
        if self._everything:
            everything.scans = self._scans()
            everything.complete = self.kept | changes.complete
            everything.outages = {channel: self._outages(channel) for channel in self._knowledge}
        return everything


def _copy(outage: Outage) -> Outage:
    """Return a copy that a thread can read while the recovery goes on."""
    return replace(outage, missing=set(outage.missing), short=set(outage.short), complete=dict(outage.complete))
