"""The policy: token → connection → backoff → …, for as long as it takes.

A :class:`Feed` tails the channels of one account. It has one :class:`Tail` for each endpoint; they share the API
key's REST client, the budget of connects, the output, what is known of it, and the recovery of what was missed. What
passes by itself is waited for; what does not ends the feed with the error that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets as entropy
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from structlog.typing import FilteringBoundLogger

from . import record
from .auth import Credentials, Nonce
from .backfill import RESERVE
from .backoff import Budget, CallCounter
from .checkpoint import Changes, ChannelState, Checkpoint, Ids
from .checkpoint import Hole as KeptHole
from .config import CHANNELS, Config
from .connection import Dial, dial
from .errors import FeedError, OutputFailed, StateFailed
from .log import FeedLogger
from .orders import Knowledge, Snapshots
from .recovery import Hole, Recovery
from .rest import Rest
from .sink import Sink
from .store import Store
from .tail import Shared, Tail
from .text import Secrets
from .wire import Item

if TYPE_CHECKING:
    import httpx

RESTART_S = 60.0  # a Starter key's full counter needs 45 s to drain
CHECKPOINT_S = 1.0  # what a crash can repeat, and what it costs: one small transaction

STOP_S = 5.0  # for the reader to take what is left; a stalled one must not keep a service from stopping


class Limits(msgspec.Struct, frozen=True):
    """When to stop by ourselves: at the first snapshot, after so many items (markers do not count), after seconds."""

    once: bool = False
    count: int | None = None
    duration: float | None = None


UNLIMITED = Limits()


def run_name(unix_ns: int) -> str:
    """A name for one run, unique over restarts: milliseconds and chance, in hex."""
    return f"{unix_ns // 1_000_000:x}{entropy.token_hex(2)}"


class Feed:
    """The channels of one account, from the first connect to the last line.

    Args:
        config: the policy.
        account: its name, on every record.
        channels: what to tail.
        credentials: the account's key.
        sink: where records pile up.
        feed_log: writes records to the sink.
        log: diagnostics.
        secrets: tokens are added to it.
        limits: when to stop without being asked.
        snapshots: which items of a snapshot are written.
        since_ns: recover what happened from here on, if the state does not know better.
        store: keeps what is known over restarts; None forgets it.
        checkpoint: what the store knew at the start; ``damaged`` if that could not be read.
        transport, dial, unix_ns, draw: network, clock and chance, for tests.
    """

    def __init__(
        self,
        config: Config,
        account: str,
        channels: Sequence[str],
        credentials: Credentials,
        *,
        sink: Sink,
        feed_log: FeedLogger,
        log: FilteringBoundLogger,
        secrets: Secrets,
        limits: Limits = UNLIMITED,
        snapshots: Snapshots = "changes",
        since_ns: int | None = None,
        store: Store | None = None,
        checkpoint: Checkpoint | None = None,
        damaged: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        dial: Dial = dial,
        unix_ns: Callable[[], int] = time.time_ns,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.stopping = asyncio.Event()
        self.enough = False
        self.reason = ""
        self._limits = limits
        self._error: FeedError | None = None
        self._items = 0
        self._store = store
        self._save_soon = asyncio.Event()
        self._unsaved: Changes | None = None
        self._saved_ns: int | None = None
        self._nonce = Nonce(checkpoint.nonce if checkpoint is not None else 0)
        self._unix_ns = unix_ns
        knowledge = {channel: _known(channel, checkpoint) for channel in channels}
        counter = CallCounter(config.backfill.rest_counter - 1, config.backfill.rest_decay)
        if checkpoint is not None and unix_ns() - checkpoint.saved_ns < RESTART_S * 1_000_000_000:
            # Kraken still counts what the run before has called: room for tokens, and none for a backfill yet.
            counter.add(counter.limit - RESERVE, asyncio.get_running_loop().time())
        rest = Rest(config.endpoints.rest, credentials, self._nonce, counter, transport=transport, unix_ns=unix_ns)
        self._recovery = Recovery(config.backfill, rest, knowledge, self, log, unix_ns)
        self._shared = Shared(
            config=config,
            account=account,
            credentials=credentials,
            rest=rest,
            budget=Budget(config.reconnect.budget, config.reconnect.window_s),
            sink=sink,
            feed_log=feed_log.bind(v=record.SCHEMA_VERSION, account=account),
            log=log,
            secrets=secrets,
            dial=dial,
            run=run_name(unix_ns()),
            unix_ns=unix_ns,
            draw=draw,
            snapshots=snapshots,
            knowledge=knowledge,
            recovery=self._recovery,
        )
        self._tails = [
            Tail(self, self._shared, dialect, [c for c in channels if CHANNELS[c] == dialect])
            for dialect in dict.fromkeys(CHANNELS[channel] for channel in channels)
        ]
        self._tail_of = {channel: tail for tail in self._tails for channel in tail.channels}
        for channel in channels:
            self._reopen(channel, checkpoint, since_ns, damaged)

    def _reopen(self, channel: str, checkpoint: Checkpoint | None, since_ns: int | None, damaged: bool) -> None:
        """The holes that an earlier run has left, and the one since it ended. A first start ever has none."""
        state = checkpoint.channels.get(channel, ChannelState()) if checkpoint is not None else ChannelState()
        for hole in state.holes:
            self._recovery.holes.append(Hole(channel, hole.start_ns, hole.cause, hole.end_ns))
        if state.whole_ns:
            # A clock that was ahead then must not hide the hole now.
            self._recovery.open(channel, min(state.whole_ns, self._unix_ns()), "restart")
        elif since_ns is not None:
            self._recovery.open(channel, since_ns, "since")
        elif damaged:
            self._recovery.open(channel, None, "state_damaged")

    async def run(self) -> str:
        """Tail until :meth:`stop`, or until a limit is met: why it ended.

        Raises:
            FeedError: it makes no sense to go on. What was received is written all the same, if it can be.
        """
        if self._limits.duration is not None:
            asyncio.get_running_loop().call_later(self._limits.duration, self.stop, "duration")
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(self._recovery.run()), tasks.create_task(self._checkpoints())]
                await asyncio.wait([tasks.create_task(self._guard(tail)) for tail in self._tails])
                for task in beside:
                    task.cancel()
        except BaseException:
            self.stop("defect")
            raise
        finally:  # a defect, too, leaves behind what was received before it
            try:
                await self._finish()
            finally:
                await self._shared.rest.close()
                if self._store is not None:
                    self._store.close()
        if self._error is not None:
            raise self._error
        return self.reason

    # -- what the recovery writes

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write one record of type ``backfill``."""
        self._tail_of[channel].write_backfill(channel, item)

    def mark_hole(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``."""
        shared = self._shared
        since = None if start is None else record.timestamp(start)
        log = shared.feed_log.bind(channel=channel)
        span = {"from": since, "to": record.timestamp(end)}
        name = f"{shared.account}:{channel}:{event_name}:{since}:{span['to']}"
        log.record(event_name, id=name, ts=record.timestamp(self._unix_ns()), **span, **fields)

    # -- the checkpoint

    async def _checkpoints(self) -> None:
        """About once a second, if there is anything new."""
        while True:
            self._save_soon.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECKPOINT_S):
                    await self._save_soon.wait()
            await self._save()

    async def _save(self) -> None:
        """Write the output first and then what is known of it: a crash in between repeats records, and loses none."""
        if self._store is None:
            return
        changes = self._changes()
        if self._unsaved is not None:
            self._unsaved.merge(changes)
            changes = self._unsaved
        self._unsaved = changes
        await self._shared.sink.drained()
        if self._shared.sink.error is not None:
            return
        try:
            await asyncio.to_thread(self._store.save, changes)
        except StateFailed as error:
            self._shared.log.error("checkpoint_failed", reason=str(error))
            return
        self._unsaved, self._saved_ns = None, changes.saved_ns

    def _changes(self) -> Changes:
        """What is known now and was not at the last call."""
        changes = Changes(nonce=self._nonce.last, saved_ns=self._unix_ns())
        for tail in self._tails:
            changes.whole.update(tail.whole())
        for channel, knowledge in self._shared.knowledge.items():
            for name in knowledge.changed:
                changes.set_order(channel, name, *knowledge.orders.get(name, ()))
            knowledge.changed.clear()
            changes.ended[channel] = Ids(*knowledge.ended.take())
            changes.seen[channel] = Ids(*knowledge.seen.take())
            if self._recovery.changed:
                changes.holes[channel] = [
                    KeptHole(channel, hole.start, hole.end, hole.cause, "")
                    for hole in self._recovery.holes
                    if hole.channel == channel
                ]
        self._recovery.changed = False
        return changes

    def stop(self, reason: str) -> None:
        """Stop reading, write out what was received, close. The first reason stands."""
        self.reason = self.reason or reason
        self.stopping.set()

    def fail(self, error: FeedError) -> None:
        """Stop because of ``error``, which :meth:`run` then raises. The first one stands."""
        if self._error is None:
            self._error = error
        self.stop(f"error: {error.what}")

    def state(self) -> dict[str, object]:
        """One line for an operator who asks."""
        sink = self._shared.sink
        return {
            "account": self._shared.account,
            "stopping": self.reason or None,
            "connections": [{"channels": tail.channels, **tail.state()} for tail in self._tails],
            "holes": len(self._recovery.holes),
            "checkpoint": None if self._saved_ns is None else record.timestamp(self._saved_ns),
            "output": {"name": sink.name, "lines": sink.lines, "pending_bytes": sink.pending, "blocked": sink.full},
        }

    def went_live(self) -> None:
        """A tail has all of its channels live. From here on a crash has to be known as a hole."""
        self._save_soon.set()
        if self._limits.once and all(tail.live for tail in self._tails):
            self.enough = True
            self.stop("once")

    def wrote_item(self) -> bool:
        """Count an item; False if no more are wanted."""
        self._items += 1
        if self._items == self._limits.count:
            self.enough = True
            self.stop("count")
        return not self.enough

    async def _guard(self, tail: Tail) -> None:
        try:
            await tail.run()
        except FeedError as error:
            self.fail(error)

    async def _finish(self) -> None:
        """Everything out, the last markers last; then close."""
        sink = self._shared.sink
        if self._store is None:
            self._recovery.give_up("the process was stopped before it was closed, and keeps no state")
        for tail in self._tails:
            tail.stopped(self.reason)
        try:
            async with asyncio.timeout(STOP_S):
                await sink.drained()
                await self._save()
        except TimeoutError:
            self.fail(
                OutputFailed(
                    f"The reader of {sink.name} takes nothing: {sink.pending} bytes of records were not written.",
                    remedy="Look at the program that reads the output.",
                )
            )
        async with asyncio.TaskGroup() as tasks:
            for tail in self._tails:
                tasks.create_task(tail.close())


def _known(channel: str, checkpoint: Checkpoint | None) -> Knowledge:
    state = checkpoint.channels.get(channel) if checkpoint is not None else None
    return Knowledge(channel) if state is None else Knowledge(channel, state.orders, state.ended, state.seen)
