"""Keep the channels of one account live, until it is stopped or an error cannot pass by itself.

A :class:`Feed` has one :class:`EndpointFeed` per endpoint. They share the API key's REST client, the knowledge of the
output, and the recovery. The feeds of all accounts share the output, the budget of connects and the quota of items.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from ..config.schema import CHANNELS
from ..errors import FeedError, NotInTime, StateFailed, Transient, UsageError
from ..output.destination import Destination
from ..protocol.signing import Nonce
from ..protocol.wire import Item
from ..records import render
from ..records.render import timestamp
from ..state.checkpoint import CallLevel, ChannelState, Checkpoint
from ..telemetry.stats import EndpointFigures, Figures, OutageCounts
from ..text import counted
from ..transport.backoff import KEY, NONCE_S, Budget, CallCounter, Patience
from ..transport.kraken_clock import NS, KrakenClock, Steps
from ..transport.rest import TOKEN, Rest
from .backfill import RESERVE
from .checkpointer import Checkpointer
from .endpoint import EndpointFeed
from .environment import Account, Environment, Quota, Shared
from .gap_reasons import GapReason
from .known_state import ORDER_CHANNELS, Knowledge
from .recorder import run_name
from .recovery import Recovery
from .volumes import Volumes

LEGACY_S = 3600.0  # by how much wall-clock times may be wrong: those that an older version saved, those in the output
UNCERTAIN_S = 5.0  # ask for Kraken's time again when it is known less exactly: after about an hour without an answer
UNCERTAIN_ASK_S = 600.0  # between two such requests
STOP_S = 1.0  # at a stop, for the last records and the checkpoint: a stalled reader must not keep us from stopping
CLOSE_S = 0.5  # at a stop, for the closing handshake; a stop takes two seconds at most


class Feed:
    """The channels of one account, from the first connect to the last line."""

    def __init__(self, account: Account, environment: Environment) -> None:
        self.changed: Callable[[], None] = lambda: None  # called when every channel of an endpoint has gone live
        self.account = account.name
        self.stopping = asyncio.Event()
        self.reason = ""
        self._given = account
        self._log, self._sink, self._secrets = environment.log, environment.sink, environment.secrets
        self._limits = environment.limits
        self._quota = environment.quota or Quota(self._limits.count)
        self._quota.on_used_up.append(self.stop)
        self._over = False
        self.limited = self._limits.once or self._quota.left is not None
        self._all_written = False  # of the snapshot that was asked for
        self._error: FeedError | None = None
        config, unix_ns, boot_ns = environment.config, environment.unix_ns, environment.boot_ns
        checkpoint = account.checkpoint or Checkpoint()
        self._nonce = Nonce(checkpoint.nonce)
        self._nonce.start(unix_ns())
        self._clock = KrakenClock(boot_ns)
        self._steps = Steps(unix_ns, boot_ns, asyncio.get_running_loop().time)
        self._asked_at = boot_ns()  # when Kraken's time was last asked for
        self._time_wanted = asyncio.Event()
        self._knowledge = _knowledge(account.channels, checkpoint)
        # Channels that an earlier run has written.
        self.continued = [channel for channel, state in checkpoint.channels.items() if state.complete_ns]

        # What shares the API key: its limits, its REST client, the recovery.
        counter = CallCounter(config.backfill.rest_counter - 1, config.backfill.rest_decay)
        patience = Patience(config.reconnect.refused_s, _worked_before(account, checkpoint), NONCE_S)
        self._rest = Rest(
            config.endpoints.rest,
            account.credentials,
            self._nonce,
            counter,
            transport=environment.transport,
            unix_ns=unix_ns,
            clock=self._clock,
            warn=self._log.warning,
            patience=patience,
            before_call=lambda: self._checkpointer.note_rest_call(),  # made below: it saves what the REST client counts
            mask=self._secrets.mask,
        )
        self._recovery = Recovery(
            config.backfill, self._rest, self._knowledge, self, self._log, self._clock, checkpoint.scans
        )
        self._shared = Shared(
            account=account,
            environment=environment,
            run=run_name(unix_ns()),
            rest=self._rest,
            patience=patience,
            budget=environment.budget or Budget(config.reconnect.budget, config.reconnect.window_s),
            feed_log=environment.feed_log.bind(v=render.SCHEMA_VERSION, account=account.name),
            clock=self._clock,
            counter=counter,
            saved_counter=_saved_counter(account.checkpoint, counter),
            knowledge=self._knowledge,
            recovery=self._recovery,
        )

        # One feed per endpoint, and the checkpointer that saves what all of them have written.
        self._endpoints = [
            EndpointFeed(self, self._shared, dialect, [c for c in account.channels if CHANNELS[c] == dialect])
            for dialect in dict.fromkeys(CHANNELS[channel] for channel in account.channels)
        ]
        self._endpoint_of = {channel: endpoint for endpoint in self._endpoints for channel in endpoint.channels}
        self._checkpointer = Checkpointer(
            account.store,
            checkpoint,
            sink=self._sink,
            endpoints=self._endpoints,
            knowledge=self._knowledge,
            recovery=self._recovery,
            nonce=self._nonce,
            counter=counter,
            clock=self._clock,
            log=self._log,
            unix_ns=unix_ns,
            fail=self.fail,
            every_turn=self._look_at_clocks,
        )

        for channel in account.channels:
            self._reopen(channel, checkpoint)
        # An outage is open, so this run is no first start: its first snapshot shows what was missed.
        for outage in self._recovery.outages:
            self._knowledge[outage.channel].before_first_snapshot = False

    def _reopen(self, channel: str, checkpoint: Checkpoint) -> None:
        """Open the outages that an earlier run has left, and the one since that run ended.

        Without a checkpoint of the channel, the output's records show where that outage starts. A first start
        opens none: nothing is promised for the time before it.
        """
        account, state = self._given, checkpoint.channels.get(channel, ChannelState())
        if account.since_ns is not None and state.complete_ns and account.store is not None:
            raise UsageError(
                "--since needs an output that has no checkpoint yet.",
                why=f"{account.store.path} says that it holds {channel} up to {timestamp(state.complete_ns)}; "
                "what came later is recovered in any case.",
                remedy="Leave --since out. For an earlier period use `kraken-feed history --since …`.",
            )
        for outage in state.outages:
            self._recovery.resume(outage)
        if state.complete_ns:
            start = state.complete_ns - int(LEGACY_S * NS) if checkpoint.legacy else state.complete_ns
            self._recovery.open(channel, start, "restart")
        elif account.since_ns is not None:
            self._recovery.open(channel, account.since_ns, "since")
        elif account.store is not None and channel in account.last:
            # The run may have died while an outage was pending, which had begun at most a quarter of an hour before.
            margin_ns = self._recovery.scanner.longest_ns
            margin_ns += int(LEGACY_S * NS) if account.last[channel].kraken_ns is None else 0
            self._recovery.open(channel, account.last[channel].start_ns() - margin_ns, "state_missing")
        elif account.store is not None and account.found == "lost":
            self._recovery.open(channel, None, "state_lost")
        elif account.store is not None:
            self._log.warning("first_start", channel=channel, what="nothing is known of the time before")

    async def run(self) -> str:
        """Tail until :meth:`stop`, or until a limit is met; return the reason.

        Raises:
            FeedError: the feed cannot go on. What was received is still written, if that is possible.
        """
        waits, timers, limits = self._sink.waits_at_stop, list[asyncio.TimerHandle](), self._limits
        if limits.duration is not None:
            timers.append(asyncio.get_running_loop().call_later(limits.duration, self._end_of_duration))
        if limits.once:
            timers.append(asyncio.get_running_loop().call_later(limits.timeout, self._end_of_timeout))
        try:
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(work)
                    for work in (self._recovery.run(), self._checkpointer.run(), self._ask_time())
                ]
                await asyncio.wait([tasks.create_task(self._run_endpoint(endpoint)) for endpoint in self._endpoints])
                for task in background:
                    task.cancel()
        except BaseException:
            waits = False
            self.stop("defect")
            raise
        finally:  # also after a defect: write what was received before it
            self._over = True
            try:
                await self._finish(waits)
            finally:
                for timer in timers:
                    timer.cancel()
                await self._rest.close()
                await self._checkpointer.close(CLOSE_S)
        if self._error is not None:
            raise self._error
        return self.reason

    # -- what the recovery writes

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write one record of type ``backfill``."""
        self._endpoint_of[channel].recorder.write_backfill(channel, item)

    def write_outage(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``."""
        self._endpoint_of[channel].recorder.write_outage(channel, event_name, start, end, **fields)

    def stop(self, reason: str) -> None:
        """Stop reading, write what was received, and close. Only the first reason counts."""
        self.reason = self.reason or reason
        self.stopping.set()

    def fail(self, error: FeedError) -> None:
        """Stop because of ``error``, which :meth:`run` then raises. Only the first error counts."""
        if self._error is None:
            self._error = error
        self.stop(f"error: {self._secrets.mask_long(error.what)}")

    def _end_of_duration(self) -> None:
        limits = self._limits
        if self._quota.left and not self.stopping.is_set():
            written = (limits.count or 0) - self._quota.left
            what = f"Only {written} of {counted(limits.count or 0, 'item')} came within {limits.duration:g} s."
            self.fail(NotInTime(what, why=self._not_live(), remedy="Give a longer --duration, or a smaller --count."))
        self.stop("duration")

    def _end_of_timeout(self) -> None:
        if not self.stopping.is_set():
            what = f"The snapshot did not come within {self._limits.timeout:g} s."
            remedy = "Try again, or give a longer --timeout. `kraken-feed check` tests each step to Kraken."
            self.fail(NotInTime(what, why=self._not_live(), remedy=remedy))

    def _not_live(self) -> str:
        """Return what is not live, and why, in words; empty if everything is."""
        waiting = [endpoint for endpoint in self._endpoints if not endpoint.live]
        return " ".join(f"Not live: {', '.join(e.missing)}{e.reason and f' ({e.reason})'}." for e in waiting)

    @property
    def live(self) -> bool:
        """Whether every channel is live."""
        return all(endpoint.live for endpoint in self._endpoints)

    @property
    def enough(self) -> bool:
        """Whether nothing more is to be written."""
        return self._all_written or self._quota.left == 0

    def orders(self, channel: str) -> Mapping[str, Sequence[bytes]]:
        """Return the open orders of a channel that the output holds, each as a complete object and its changes. Orders
        that were not in the last snapshot are not open."""
        return self._knowledge[channel].open_orders() if channel in ORDER_CHANNELS else {}

    def figures(self) -> Figures:
        """Return the account's state and counters."""
        recovery, endpoints = self._recovery, tuple(endpoint.figures() for endpoint in self._endpoints)
        records: Counter[tuple[str, str]] = Counter()
        losses: Counter[str] = Counter()
        for endpoint in self._endpoints:
            records.update(endpoint.recorder.written)
            losses.update(endpoint.losses)
        return Figures(
            account=self.account,
            endpoints=endpoints,
            open_orders={c: len(self.orders(c)) for c in self._knowledge if c in ORDER_CHANNELS},
            records=records,
            losses=losses,
            reconnects=sum(endpoint.reconnects for endpoint in self._endpoints),
            calls=dict(self._rest.calls),
            outages=OutageCounts(recovery.opened, recovery.recovered, recovery.gaps, recovery.pending),
            last_frame_ns=max(endpoint.frame_ns for endpoint in self._endpoints),
            last_record_ns=max(endpoint.recorder.written_ns for endpoint in self._endpoints),
            checkpoint_ns=self._checkpointer.saved_ns or 0,
            stopped=self.reason if self._over else "",
            stopping=self.reason,
            overdue="" if self._over else self._overdue(endpoints),
        )

    def _overdue(self, endpoints: Sequence[EndpointFigures]) -> str:
        if self._checkpointer.overdue(asyncio.get_running_loop().time()):
            return "checkpoint"
        return next((f"endpoint {endpoint.dialect}" for endpoint in endpoints if endpoint.overdue), "")

    def going_live(self, channel: str, complete_ns: int) -> None:
        """Save that the channel is about to become live: from here on, the next run treats a crash as an outage."""
        self._checkpointer.begin(channel, complete_ns)

    def went_live(self) -> None:
        """Save soon, since all channels of an endpoint are live; stop if that was all that was wanted."""
        self._checkpointer.soon()
        self.changed()
        if self._limits.once and self.live:
            self._all_written = True
            self.stop("once")

    def wrote_item(self) -> bool:
        """Count an item; return False if no more are wanted."""
        return self._quota.take()

    def _look_at_clocks(self) -> None:
        """Notice clocks that jump, and request Kraken's time when it has become uncertain."""
        for step in self._steps.look():
            self._log.warning("clock_stepped", clock=step.kind, seconds=round(step.seconds, 1))
            for endpoint in self._endpoints:
                endpoint.stepped()
        uncertain = self._shared.clock_doubted or self._clock.uncertainty_s() > UNCERTAIN_S
        if self._clock.known and uncertain and (self._clock.boot() - self._asked_at) / NS > UNCERTAIN_ASK_S:
            self._asked_at, self._shared.clock_doubted = self._clock.boot(), False
            self._time_wanted.set()

    async def _ask_time(self) -> None:
        """Request Kraken's time whenever it is wanted. That costs no point of the call counter."""
        while True:
            await self._time_wanted.wait()
            self._time_wanted.clear()
            with contextlib.suppress(Transient):
                await self._rest.time()

    async def _run_endpoint(self, endpoint: EndpointFeed) -> None:
        try:
            await endpoint.run()
        except FeedError as error:
            self.fail(error)

    async def _finish(self, waits: bool) -> None:
        """Write everything out, the last markers last; then close."""
        sink = self._sink
        if self._given.store is None:
            self._recovery.give_up(GapReason.STOPPED_BEFORE.format())
        for endpoint in self._endpoints:
            endpoint.stopped(self.reason)
        try:
            if waits:  # this may take long, so close the connections first
                await self._close_endpoints()
                await sink.synced()
            async with asyncio.timeout(STOP_S):
                await self._checkpointer.save()
        except TimeoutError:
            self._leave_behind(sink)
        finally:
            await self._close_endpoints()

    async def _close_endpoints(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for endpoint in self._endpoints:
                tasks.create_task(endpoint.close(CLOSE_S))

    def _leave_behind(self, sink: Destination) -> None:
        """Report records that the output did not take in time. The checkpoint does not have them either, so the next
        run recovers them. Without a state that is impossible, and the feed fails."""
        error: FeedError = sink.undelivered()
        if not sink.pending and sink.sync_started is None:
            error = StateFailed(
                "The checkpoint could not be saved in time.",
                why="The output has every record, but the disk that holds the state does not answer.",
                remedy="Check the disk. The next run writes again what is not in the checkpoint.",
            )
        were_live = {c for c, endpoint in self._endpoint_of.items() if endpoint.recorder.written[c, "feed.live"]}
        if self._given.store is not None and were_live <= self._checkpointer.saved_complete_ns.keys():
            self._log.warning(
                "output_not_drained",
                output=sink.name,
                bytes=sink.pending,
                why=error.why or error.what,
                what="the next run will recover them",
            )
            return
        self.fail(error)


def _worked_before(account: Account, checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return what Kraken has accepted in an earlier run, as subjects of :class:`Patience`: key, token and channels."""
    live_before = {channel for channel, state in checkpoint.channels.items() if state.complete_ns}
    live_before |= account.last.keys()
    return (KEY, TOKEN, *live_before) if live_before else ()


def _saved_counter(checkpoint: Checkpoint | None, counter: CallCounter) -> CallLevel | None:
    """Return the key's call counter at the end of the run before. Earlier versions did not save it: then it counts as
    full as a recovery fills it."""
    if checkpoint is None or checkpoint.counter is not None:
        return checkpoint.counter if checkpoint is not None else None
    return CallLevel(counter.limit - RESERVE, checkpoint.saved_ns)


def _knowledge(channels: Sequence[str], checkpoint: Checkpoint) -> dict[str, Knowledge]:
    """Return what the output holds of each channel, according to the checkpoint."""
    of_v1 = Volumes() if {"openOrders", "ownTrades"} <= set(channels) else None
    volumes = {"executions": Volumes(), "openOrders": of_v1, "ownTrades": of_v1}
    known = {}
    for channel in channels:
        state = checkpoint.channels.get(channel, ChannelState())
        known[channel] = Knowledge(channel, state.orders, state.ended, state.seen, volumes=volumes.get(channel))
    return known
