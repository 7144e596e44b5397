"""Keeps an account's checkpoint: about once a second, what the output holds by now."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping

from structlog.typing import FilteringBoundLogger

from .auth import Nonce
from .checkpoint import Changes, Checkpoint
from .checkpoint import Hole as KeptHole
from .destination import Destination
from .errors import StateFailed
from .orders import Knowledge
from .recovery import Recovery
from .store import Store
from .tails import Tail

CHECKPOINT_S = 1.0  # what a crash can repeat, and what it costs: one small transaction
SAVE_S = 30.0  # a save takes milliseconds; one that takes longer hangs in the file system


class Keeper:
    """Brings the output to the disk, and then what is known of it: a crash or a power cut in between repeats records,
    and loses none.

    Without a store it still sees to it that the output gets to the disk.

    Args:
        store: where the checkpoint is; None keeps none.
        checkpoint: what it holds already.
        sink: the output.
        tails, knowledge, recovery, nonce: what there is to keep.
        log: diagnostics.
        unix_ns: the wall clock.
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
        log: FilteringBoundLogger,
        unix_ns: Callable[[], int],
    ) -> None:
        # Channels of which the next run will know what it has missed.
        self.kept = {name for name, state in checkpoint.channels.items() if state.whole_ns} if checkpoint else set()
        self.saved_ns: int | None = None  # in this run
        self._store = store
        self._sink = sink
        self._tails = tuple(tails)
        self._knowledge = knowledge
        self._recovery = recovery
        self._nonce = nonce
        self._log = log
        self._unix_ns = unix_ns
        self._soon = asyncio.Event()
        self._since: float | None = None  # when the save under way was begun
        self._writing: asyncio.Future[None] | None = None
        self._unsaved: Changes | None = None
        self._failure = ""  # of the last save

    async def run(self) -> None:
        """Save for ever."""
        while True:
            self._soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKPOINT_S):
                    await self._soon.wait()
            await self.save()

    def soon(self) -> None:
        """Do not wait for the second to end."""
        self._soon.set()

    def overdue(self, now: float) -> bool:
        """Whether a save hangs."""
        return self._since is not None and now - self._since > SAVE_S

    def begin(self, channel: str, whole_ns: int) -> None:
        """A channel is about to be live. If it is so for the first time ever, save just that, at once and before it is
        said: from here on the next run will know what it has missed, and what of this run the output did not take."""
        if self._store is None or channel in self.kept:
            return
        try:
            self._store.save(Changes(nonce=self._nonce.last, saved_ns=self._unix_ns(), whole={channel: whole_ns}))
        except StateFailed as error:
            self._say(error)
        else:
            self.kept.add(channel)

    async def save(self) -> None:
        """Save what is known now, once the output has it. What cannot be saved is tried again with the next one."""
        if self._store is None:
            for knowledge in self._knowledge.values():  # nobody keeps it, and it must not pile up
                knowledge.take()
            await self._sink.synced()
            return
        await self._settled()
        changes = self._changes()
        if self._unsaved is not None:
            self._unsaved.merge(changes)
            changes = self._unsaved
        self._unsaved = changes
        if self._store.long:
            changes = self._everything(changes)
        await self._sink.synced()
        if self._sink.error is None and await self._write(changes):
            self._unsaved = None

    async def close(self, seconds: float) -> None:
        """Let go of the store. What a disk holds up for longer ends with the process, and is whole all the same."""
        if self._store is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.to_thread(self._store.close)

    async def _write(self, changes: Changes) -> bool:
        """Whether it could be saved."""
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
        self.kept |= changes.whole.keys()
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
        """Once for each reason: a full disk is full every second."""
        if str(error) != self._failure:
            self._log.error("checkpoint_failed", reason=str(error))
        self._failure = str(error)

    def _whole(self) -> dict[str, int]:
        return {channel: ns for tail in self._tails for channel, ns in tail.whole().items()}

    def _changes(self) -> Changes:
        """What is known now and was not at the last call."""
        changes = Changes(nonce=self._nonce.last, saved_ns=self._unix_ns(), whole=self._whole())
        for channel, knowledge in self._knowledge.items():
            changes.entries[channel] = knowledge.take()
            if self._recovery.changed:
                changes.holes[channel] = [
                    KeptHole(channel, hole.start, hole.end, hole.cause, "")
                    for hole in self._recovery.holes
                    if hole.channel == channel
                ]
        self._recovery.changed = False
        return changes

    def _everything(self, changes: Changes) -> Changes:
        """The same, with all that is known instead of what has changed."""
        entries = {channel: knowledge.everything() for channel, knowledge in self._knowledge.items()}
        return Changes(changes.nonce, changes.saved_ns, changes.whole, changes.holes, entries, set(entries))
