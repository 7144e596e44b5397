"""The policy: token → connection → backoff → …, for as long as it takes.

A :class:`Feed` tails the channels of one account. It has one :class:`Tail` for each endpoint; they share the API
key's REST client, what is known of the output, and the recovery of what was missed. The output itself, the budget of
connects and the quota of items are shared with the feeds of other accounts. What passes by itself is waited for; what
does not ends the feed with the error that says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets as entropy
import time
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from ..config.schema import CHANNELS, Config
from ..errors import FeedError, StateFailed, Transient
from ..output.destination import Destination
from ..protocol.signing import Credentials, Nonce
from ..protocol.wire import Item
from ..records import render
from ..state.checkpoint import CallLevel, ChannelState, Checkpoint
from ..state.store import Found, Store
from ..telemetry.loggers import FeedLogger
from ..telemetry.stats import Figures, OutageCounts
from ..text import Secrets
from ..transport.backoff import KEY, NONCE_S, Budget, CallCounter, Patience
from ..transport.connection import Dial, dial
from ..transport.kraken_clock import NS, KrakenClock, Steps
from ..transport.kraken_clock import boot_ns as boot_clock
from ..transport.rest import TOKEN, Rest
from .absence import Last
from .backfill import RESERVE
from .checkpointer import Keeper
from .endpoint import Shared, Tail
from .gap_reasons import GapReason
from .known_state import ORDER_CHANNELS, Knowledge, Snapshots, Volumes
from .recovery import LONGEST, Recovery

if TYPE_CHECKING:
    import httpx
import msgspec

# ---------------------------------------------------------------------------------- When to stop without being asked


class Limits(msgspec.Struct, frozen=True):
    """When to stop by ourselves: at the first snapshot, after so many items (markers do not count), after seconds."""

    once: bool = False
    count: int | None = None
    duration: float | None = None


UNLIMITED = Limits()


class Quota:
    """How many items may still be written, by all feeds that share it; None: any number."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left
        self.met: list[Callable[[str], None]] = []  # called with the reason when none is left

    def take(self) -> bool:
        """Count an item; False if it was the last."""
        if self.left is None:
            return True
        self.left -= 1
        if self.left == 0:
            for stop in self.met:
                stop("count")
        return self.left > 0


LEGACY_S = 3600.0  # by how much a wall clock may have been wrong: for times of an earlier version, or of the output
UNCERTAIN_S = 5.0  # Kraken's clock is asked for again when it is known no better; after an hour without an answer
UNCERTAIN_ASK_S = 600.0  # between two such questions
STOP_S = 1.0  # for the output to take what is left, and the state: a stalled reader must not keep us from stopping
CLOSE_S = 0.5  # for the closing handshake then; a stop takes two seconds at most


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
        quota: what is left of the items that all feeds may write; by default the limit is this feed's own.
        budget: of connects, shared by all feeds of the process.
        snapshots: which items of a snapshot are written.
        since_ns: recover what happened from here on, if the state does not know better.
        store: keeps what is known over restarts; None forgets it.
        checkpoint: what the store knew at the start, and ``found``: why it knew nothing.
        last: the newest record of each channel that the output had at the start, where it could be read.
        transport, dial, unix_ns, boot_ns, draw: network, clocks and chance, for tests.
    """

    def __init__(
        self,
        config: Config,
        account: str,
        channels: Sequence[str],
        credentials: Credentials,
        *,
        sink: Destination,
        feed_log: FeedLogger,
        log: FilteringBoundLogger,
        secrets: Secrets,
        limits: Limits = UNLIMITED,
        quota: Quota | None = None,
        budget: Budget | None = None,
        snapshots: Snapshots = "changes",
        since_ns: int | None = None,
        store: Store | None = None,
        checkpoint: Checkpoint | None = None,
        found: Found = "new",
        last: Mapping[str, Last] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        dial: Dial = dial,
        unix_ns: Callable[[], int] = time.time_ns,
        boot_ns: Callable[[], int] = boot_clock,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.changed: Callable[[], None] = lambda: None  # called when every channel of an endpoint has gone live
        self.account = account
        self.stopping = asyncio.Event()
        self.reason = ""
        self._limits = limits
        self._quota = quota or Quota(limits.count)
        self._quota.met.append(self.stop)
        self._over = False
        self.limited = limits.once or self._quota.left is not None
        self._all_written = False  # of the snapshot that was asked for
        self._error: FeedError | None = None
        self._store = store
        nonce = Nonce(checkpoint.nonce if checkpoint is not None else 0)
        nonce.go_on(unix_ns())
        self._unix_ns = unix_ns
        self._clock = KrakenClock(boot_ns)
        self._steps = Steps(unix_ns, boot_ns, asyncio.get_running_loop().time)
        self._asked_at = boot_ns()  # when Kraken's time was last asked for
        self._time_wanted = asyncio.Event()
        knowledge = _knowledge(channels, checkpoint)
        counter = CallCounter(config.backfill.rest_counter - 1, config.backfill.rest_decay)
        saved = checkpoint.counter if checkpoint is not None else None
        if checkpoint is not None and saved is None:  # of an earlier version: as full as a recovery fills it
            saved = CallLevel(counter.limit - RESERVE, checkpoint.saved_ns)
        states = checkpoint.channels if checkpoint is not None else {}
        live_before = {channel for channel, state in states.items() if state.complete_ns}.union(last or ())
        worked = (KEY, TOKEN, *live_before) if live_before else ()
        patience = Patience(config.reconnect.refused_s, worked, NONCE_S)
        rest = Rest(
            config.endpoints.rest,
            credentials,
            nonce,
            counter,
            transport=transport,
            unix_ns=unix_ns,
            clock=self._clock,
            warn=log.warning,
            patience=patience,
            called=lambda: self._keeper.called(),
            mask=secrets.mask,
        )
        scans = checkpoint.scans if checkpoint is not None else ()
        self._recovery = Recovery(config.backfill, rest, knowledge, self, log, self._clock, scans)
        self._shared = Shared(
            config=config,
            account=account,
            credentials=credentials,
            rest=rest,
            patience=patience,
            budget=budget or Budget(config.reconnect.budget, config.reconnect.window_s),
            sink=sink,
            feed_log=feed_log.bind(v=render.SCHEMA_VERSION, account=account),
            log=log,
            secrets=secrets,
            dial=dial,
            run=run_name(unix_ns()),
            unix_ns=unix_ns,
            clock=self._clock,
            counter=counter,
            counted=saved,
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
        self._keeper = Keeper(
            store,
            checkpoint,
            sink=sink,
            tails=self._tails,
            knowledge=knowledge,
            recovery=self._recovery,
            nonce=nonce,
            counter=counter,
            clock=self._clock,
            log=log,
            unix_ns=unix_ns,
            fail=self.fail,
            every_turn=self._look_at_clocks,
        )
        for channel in channels:
            self._reopen(channel, checkpoint, since_ns, found, last or {})
        for outage in self._recovery.outages:  # what its first snapshot shows may have been missed
            knowledge[outage.channel].first = False

    def _reopen(
        self,
        channel: str,
        checkpoint: Checkpoint | None,
        since_ns: int | None,
        found: Found,
        last: Mapping[str, Last],
    ) -> None:
        """Open the outages that an earlier run has left, and the one since it ended.

        Where the state knows nothing of the channel, the output's newest record says where that outage starts. A first
        start has none: nothing is promised for the time before it.
        """
        state = checkpoint.channels.get(channel, ChannelState()) if checkpoint is not None else ChannelState()
        for outage in state.outages:
            self._recovery.resume(outage)
        if state.complete_ns:
            legacy = checkpoint is not None and checkpoint.legacy
            start = state.complete_ns - int(LEGACY_S * NS) if legacy else state.complete_ns
            self._recovery.open(channel, start, "restart")
        elif since_ns is not None:
            self._recovery.open(channel, since_ns, "since")
        elif self._store is not None and channel in last:
            # An outage that was pending then is as unknown as what came after: it was declared within a quarter of an
            # hour.
            margin = LONGEST * self._shared.config.backfill.second_pass_s
            margin += LEGACY_S if last[channel].kraken_ns is None else 0.0
            self._recovery.open(channel, last[channel].start_ns() - int(margin * NS), "state_missing")
        elif self._store is not None and found == "lost":
            self._recovery.open(channel, None, "state_lost")
        elif self._store is not None:
            self._shared.log.warning("first_start", channel=channel, what="nothing is known of the time before")

    async def run(self) -> str:
        """Tail until :meth:`stop`, or until a limit is met: why it ended.

        Raises:
            FeedError: it makes no sense to go on. What was received is written all the same, if it can be.
        """
        patient, timer = self._shared.sink.patient, None
        if self._limits.duration is not None:
            timer = asyncio.get_running_loop().call_later(self._limits.duration, self.stop, "duration")
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(work) for work in (self._recovery.run(), self._keeper.run(), self._ask_time())
                ]
                await asyncio.wait([tasks.create_task(self._guard(tail)) for tail in self._tails])
                for task in beside:
                    task.cancel()
        except BaseException:
            patient = False
            self.stop("defect")
            raise
        finally:  # a defect, too, leaves behind what was received before it
            self._over = True
            try:
                await self._finish(patient)
            finally:
                if timer is not None:
                    timer.cancel()
                await self._shared.rest.close()
                await self._keeper.close(CLOSE_S)
        if self._error is not None:
            raise self._error
        return self.reason

    # -- what the recovery writes

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write one record of type ``backfill``."""
        self._tail_of[channel].recorder.write_backfill(channel, item)

    def mark_outage(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``."""
        self._tail_of[channel].recorder.mark_outage(channel, event_name, start, end, **fields)

    def stop(self, reason: str) -> None:
        """Stop reading, write out what was received, close. The first reason stands."""
        self.reason = self.reason or reason
        self.stopping.set()

    def fail(self, error: FeedError) -> None:
        """Stop because of ``error``, which :meth:`run` then raises. The first one stands."""
        if self._error is None:
            self._error = error
        self.stop(f"error: {self._shared.secrets.mask_long(error.what)}")

    @property
    def live(self) -> bool:
        """Whether every channel is."""
        return all(tail.live for tail in self._tails)

    @property
    def enough(self) -> bool:
        """Whether nothing more is to be written."""
        return self._all_written or self._quota.left == 0

    def figures(self) -> Figures:
        """What it has done, and how it is."""
        shared, recovery = self._shared, self._recovery
        records: Tally[tuple[str, str]] = Tally()
        losses: Tally[str] = Tally()
        for tail in self._tails:
            records.update(tail.recorder.written)
            losses.update(tail.losses)
        return Figures(
            account=self.account,
            endpoints=tuple(tail.endpoint() for tail in self._tails),
            open_orders={c: len(shared.knowledge[c].orders) for c in shared.knowledge if c in ORDER_CHANNELS},
            records=records,
            losses=losses,
            reconnects=sum(tail.reconnects for tail in self._tails),
            calls=dict(shared.rest.calls),
            outages=OutageCounts(recovery.opened, recovery.recovered, recovery.gaps, recovery.pending),
            last_frame_ns=max(tail.frame_ns for tail in self._tails),
            last_record_ns=max(tail.recorder.written_ns for tail in self._tails),
            checkpoint_ns=self._keeper.saved_ns or 0,
            stopped=self.reason if self._over else "",
        )

    def overdue(self, now: float) -> str | None:
        """The part that should have done something by ``now`` (the loop's clock) and has not."""
        if self._keeper.overdue(now):
            return "checkpoint"
        return next((f"endpoint {tail.dialect}" for tail in self._tails if tail.overdue(now)), None)

    def state(self) -> dict[str, object]:
        """One line for an operator who asks."""
        sink, saved_ns = self._shared.sink, self._keeper.saved_ns
        return {
            "account": self.account,
            "stopping": self.reason or None,
            "connections": [{"channels": tail.channels, **tail.state()} for tail in self._tails],
            "outages": self._recovery.pending,
            "checkpoint": None if saved_ns is None else render.timestamp(saved_ns),
            "output": {"name": sink.name, "lines": sink.lines, "pending_bytes": sink.pending, "blocked": sink.full},
        }

    def going_live(self, channel: str, complete_ns: int) -> None:
        """A channel is about to be said to be live. From here on a crash has to be known as an outage."""
        self._keeper.begin(channel, complete_ns)

    def went_live(self) -> None:
        """A tail has all of its channels live."""
        self._keeper.soon()
        self.changed()
        if self._limits.once and self.live:
            self._all_written = True
            self.stop("once")

    def wrote_item(self) -> bool:
        """Count an item; False if no more are wanted."""
        return self._quota.take()

    def _look_at_clocks(self) -> None:
        """Notice clocks that jump, and have Kraken's time asked for where it is no longer known well."""
        for step in self._steps.look():
            self._shared.log.warning("clock_stepped", clock=step.kind, seconds=round(step.seconds, 1))
            for tail in self._tails:
                tail.stepped()
        uncertain = self._shared.clock_doubted or self._clock.uncertainty_s() > UNCERTAIN_S
        if self._clock.known and uncertain and (self._clock.boot() - self._asked_at) / NS > UNCERTAIN_ASK_S:
            self._asked_at, self._shared.clock_doubted = self._clock.boot(), False
            self._time_wanted.set()

    async def _ask_time(self) -> None:
        """Ask for Kraken's time whenever it is wanted. It costs no point of the call counter."""
        while True:
            await self._time_wanted.wait()
            self._time_wanted.clear()
            with contextlib.suppress(Transient):
                await self._shared.rest.time()

    async def _guard(self, tail: Tail) -> None:
        try:
            await tail.run()
        except FeedError as error:
            self.fail(error)

    async def _finish(self, patient: bool) -> None:
        """Everything out, the last markers last; then close."""
        sink = self._shared.sink
        if self._store is None:
            self._recovery.give_up(GapReason.STOPPED_BEFORE.format())
        for tail in self._tails:
            tail.stopped(self.reason)
        try:
            if patient:  # however long that takes: nobody keeps a connection for it
                await self._close_tails()
                await sink.synced()
            async with asyncio.timeout(STOP_S):
                await self._keeper.save()
        except TimeoutError:
            self._leave_behind(sink)
        finally:
            await self._close_tails()

    async def _close_tails(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for tail in self._tails:
                tasks.create_task(tail.close(CLOSE_S))

    def _leave_behind(self, sink: Destination) -> None:
        """What the output does not take is not in the checkpoint either: the next run will know it as an outage.
        Without a state nobody will."""
        error: FeedError = sink.undelivered()
        if not sink.pending and sink.sync_started is None:
            error = StateFailed(
                "The checkpoint could not be saved in time.",
                why="The output has everything; the disk that holds the state does not answer.",
                remedy="Look at the disk. The next run writes again what the checkpoint does not know.",
            )
        were_live = {c for c, tail in self._tail_of.items() if tail.recorder.written[c, "feed.live"]}
        if self._store is not None and were_live <= self._keeper.kept.keys():
            self._shared.log.warning(
                "output_not_drained",
                output=sink.name,
                bytes=sink.pending,
                why=error.why or error.what,
                what="the next run will recover them",
            )
            return
        self.fail(error)


def _knowledge(channels: Sequence[str], checkpoint: Checkpoint | None) -> dict[str, Knowledge]:
    """Return what the output holds of each channel, by what the checkpoint says."""
    of_v1 = Volumes() if {"openOrders", "ownTrades"} <= set(channels) else None
    volumes = {"executions": Volumes(), "openOrders": of_v1, "ownTrades": of_v1}
    known = {}
    for channel in channels:
        state = checkpoint.channels.get(channel) if checkpoint is not None else None
        state = state or ChannelState()
        known[channel] = Knowledge(
            channel,
            state.orders,
            state.ended,
            state.seen,
            volumes=volumes.get(channel),
        )
    return known
