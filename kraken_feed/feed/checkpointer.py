"""Save an account's checkpoint about once per second: what the output holds."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import InitVar, dataclass

from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from ..errors import FeedError, OutputFailed, StateFailed
from ..output.destination import Destination
from ..protocol.signing import Nonce
from ..state.checkpoint import CallLevel, Changes, Checkpoint, Outage, Scan
from ..state.store import Store
from ..transport.backoff import CallCounter
from ..transport.kraken_clock import KrakenClock
from .endpoint import EndpointFeed
from .known_state import Knowledge
from .recovery import Recovery

CHECKPOINT_S = 1.0  # between saves: a crash repeats this much output; a save is one small transaction
SAVE_S = 30.0  # a save takes milliseconds; one that takes longer hangs in the file system
MOVED = 5  # checks in a row, one per second, that find another file at the path; a rotation sends SIGHUP sooner


@dataclass(eq=False, repr=False)
class Checkpointer:
    """Syncs the output to the disk, and then saves the checkpoint. A crash in between repeats records, but loses none.

    Before each save it checks whether output and state are still the files that were opened. Records in a file that
    was removed are written again, or become an outage. Without a store, the output is still synced.
    """

    store: Store | None  # where the checkpoint is kept; None keeps none
    checkpoint: InitVar[Checkpoint | None]  # what the store holds already
    sink: Destination
    # What is saved:
    endpoints: Collection[EndpointFeed]
    knowledge: Mapping[str, Knowledge]
    recovery: Recovery
    nonce: Nonce
    counter: CallCounter

    clock: KrakenClock
    log: FilteringBoundLogger
    unix_ns: Callable[[], int]  # the wall clock, used until Kraken's is known
    fail: Callable[[FeedError], None]  # ends the feed with an error
    every_turn: Callable[[], None] = lambda: None  # called once per second, before the save

    def __post_init__(self, checkpoint: Checkpoint | None) -> None:
        channels = checkpoint.channels if checkpoint is not None else {}
        # Up to when each channel is complete in the saved checkpoint: there the next run's outage starts.
        self.saved_complete_ns = {name: state.complete_ns for name, state in channels.items() if state.complete_ns}
        self.saved_ns: int | None = None  # in this run
        self._soon = asyncio.Event()
        self._since: float | None = None  # when the running save began
        self._writing: asyncio.Future[None] | None = None
        self._unsaved: Changes | None = None
        self._everything = False  # the state was gone: save all that is known
        self._unrescued = self.sink.unrescued
        self._moved = 0  # checks in a row that found another file at the output's path
        self._failure = ""  # of the last save

    async def run(self) -> None:
        """Save once per second, until cancelled."""
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKPOINT_S):
                    await self._soon.wait()
            self.every_turn()
            await self.save()

    def soon(self) -> None:
        """Save now, without waiting for the second to end."""
        self._soon.set()

    def note_rest_call(self) -> None:
        """Save the call counter soon, because a REST call is about to be sent: the next run continues with it."""
        if self.saved_complete_ns:
            self._soon.set()

    def overdue(self, now: float) -> bool:
        """Return whether a save hangs."""
        return self._since is not None and now - self._since > SAVE_S

    def begin(self, channel: str, complete_ns: int) -> None:
        """Save at once that a channel is about to become live, if no checkpoint has it yet: the next run then knows
        since when it has missed records. The channel's outages are saved as well."""
        if self.store is None or channel in self.saved_complete_ns:
            return
        changes = Changes(nonce=self.nonce.last, saved_ns=self._now(), complete={channel: complete_ns})
        changes.outages[channel] = self._outages(channel)
        try:
            self.store.save(changes)
        except StateFailed as error:
            self._say(error)
        else:
            self.saved_complete_ns[channel] = complete_ns

    async def save(self) -> None:
        """Sync the output, then save a checkpoint of the records that it had when the save began. If the save fails,
        the next one includes the changes."""
        if self.store is None:
            for knowledge in self.knowledge.values():  # drop the changes: otherwise they would grow without a limit
                knowledge.take()
            await self.sink.synced()
            await self._check_output()
            return
        await self._settled()
        await self._check_state(self.store)
        written = self.sink.position
        changes = self._changes()
        if self._unsaved is not None:
            self._unsaved.merge(changes)
            changes = self._unsaved
        self._unsaved = changes
        if self.store.long or self._everything:
            changes = self._all(changes)
        await self.sink.synced()
        if not await self._check_output():
            return  # the records were written again and are not on the disk yet: the next save has them
        if self.sink.error is None and await self._write(changes):
            self._unsaved, self._everything = None, False
            self.sink.covered(written)

    async def close(self, seconds: float) -> None:
        """Close the store, for ``seconds`` at most. The end of the process closes it otherwise, and nothing is lost."""
        if self.store is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.to_thread(self.store.close)

    # -- files that were removed or replaced

    async def _check_output(self) -> bool:
        """Check whether the output is still the file that was opened; return False if it was removed."""
        found = self.sink.check()
        if found == "removed":
            self._rescue_output()
        if self.sink.unrescued != self._unrescued:  # accounts share the output: another may have noticed first
            self._unrescued = self.sink.unrescued
            for channel, complete_ns in self.saved_complete_ns.items():
                self._open_outage(channel, complete_ns, "output_removed")
        self._moved = self._moved + 1 if found == "moved" else 0
        if found == "removed":
            return False
        if self._moved >= MOVED:
            self._moved = 0
            with contextlib.suppress(OutputFailed):  # tried again at the next check
                self.sink.reopen()
                self.log.warning("output_moved", output=self.sink.name, what="another file is at its path: reopened")
        return True

    def _rescue_output(self) -> None:
        """Write the records of a removed file again, as far as they can still be read."""
        try:
            rewritten = self.sink.rescue()
        except OutputFailed as error:
            self.fail(error)
            return
        self.log.error("output_removed", output=self.sink.name, written_again_bytes=rewritten)

    async def _check_state(self, store: Store) -> None:
        """Check whether the state is still the file that was opened. If not, open it again and save everything.

        If another state is at its path, as after a late mount, this run's outage starts where that state ends.
        """
        found = store.check()
        if found == "ok":
            return
        self.log.error("state_removed", path=store.path, what="everything is saved again")
        try:
            other = await asyncio.to_thread(store.reopen, self.unix_ns())
        except StateFailed as error:
            self._say(error)
            return
        except FeedError as error:
            self.fail(error)
            return
        self._everything = True
        for channel, state in (other.channels if other is not None else {}).items():
            if channel in self.knowledge and state.complete_ns:
                self._open_outage(channel, state.complete_ns, "state_replaced")

    def _open_outage(self, channel: str, since_ns: int, cause: str) -> None:
        """Open an outage of the channel from ``since_ns`` on, which ends now if the channel is live."""
        now = self.clock.latest()
        self.recovery.open(channel, since_ns, cause)
        if now is not None and any(channel in endpoint.complete() for endpoint in self.endpoints):
            self.recovery.end(channel, now)

    # -- the save

    async def _write(self, changes: Changes) -> bool:
        """Save the changes in a thread; return whether that worked."""
        assert self.store is not None  # the callers have checked
        loop = asyncio.get_running_loop()
        self._since, self._writing = loop.time(), loop.run_in_executor(None, self.store.save, changes)
        try:
            await asyncio.shield(self._writing)
        except StateFailed as error:
            self._say(error)
            return False
        finally:
            self._since = None
        if self._failure:
            self.log.warning("checkpoint_saved_again")
        self._failure, self.saved_ns = "", changes.saved_ns
        self.saved_complete_ns |= changes.complete
        return True

    async def _settled(self) -> None:
        """Wait for a save that was cancelled: its thread still reads what must not change meanwhile."""
        if self._writing is None:
            return
        await asyncio.wait([self._writing])
        if self._writing.exception() is None:
            self._unsaved = None
        self._writing = None

    def _say(self, error: StateFailed) -> None:
        """Log a failure, unless the last one was the same: a full disk fails every second."""
        if str(error) != self._failure:
            self.log.error("checkpoint_failed", reason=str(error))
        self._failure = str(error)

    def _now(self) -> int:
        """Return Kraken's time, or this machine's until that is known."""
        return self.clock.earliest() or self.unix_ns()

    def _complete(self) -> dict[str, int]:
        return {channel: ns for endpoint in self.endpoints for channel, ns in endpoint.complete().items()}

    def _changes(self) -> Changes:
        """Return what changed since the last call."""
        now, recovery = self._now(), self.recovery
        changes = Changes(nonce=self.nonce.last, saved_ns=now, complete=self._complete())
        latest = self.clock.latest()
        if latest is not None:
            changes.counter = CallLevel(self.counter.level(asyncio.get_running_loop().time()), latest)
        for channel, knowledge in self.knowledge.items():
            changes.entries[channel] = knowledge.take()
            if recovery.changed:
                changes.outages[channel] = self._outages(channel)
        if recovery.changed:
            changes.scans = self._scans()
        recovery.changed = False
        return changes

    def _outages(self, channel: str) -> list[Outage]:
        return [_copy(outage) for outage in self.recovery.outages if outage.channel == channel]

    def _scans(self) -> list[Scan]:
        return [replace(scan, channels=dict(scan.channels)) for scan in self.recovery.scanner.scans.values()]

    def _all(self, changes: Changes) -> Changes:
        """Return ``changes`` with all that is known instead of only what changed."""
        entries = {channel: knowledge.everything() for channel, knowledge in self.knowledge.items()}
        everything = replace(changes, entries=entries, replaced=set(entries))
        if self._everything:
            everything.scans = self._scans()
            everything.complete = self.saved_complete_ns | changes.complete
            everything.outages = {channel: self._outages(channel) for channel in self.knowledge}
        return everything


def _copy(outage: Outage) -> Outage:
    """Return a copy, which the saving thread can read while the recovery goes on."""
    return replace(outage, missing=set(outage.missing), short=set(outage.short), complete=dict(outage.complete))
