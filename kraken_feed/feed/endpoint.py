"""Keep one endpoint live: reconnect after every loss, and write the markers around each outage."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import msgspec

from ..config.schema import DIALECTS
from ..errors import CredentialsRefused, OutageTooLong, Transient
from ..protocol.refusals import classify
from ..protocol.session import (
    Answered,
    Complete,
    EngineChanged,
    Event,
    Failure,
    Live,
    Notice,
    Opaque,
    Resnapshot,
    Session,
    Timing,
)
from ..protocol.wire import Data
from ..records import render
from ..telemetry.repeats import Repeats
from ..telemetry.stats import EndpointFigures
from ..transport.backoff import BackoffPolicy, delay
from ..transport.connection import CLOSE_S, ODD_S, Connection
from ..transport.kraken_clock import NS
from ..transport.rest import NEWER, refused_credentials
from .environment import Shared
from .recorder import Recorder


class Owner(Protocol):
    """The feed that an endpoint belongs to."""

    stopping: asyncio.Event

    limited: bool  # whether items are counted, so that :attr:`enough` can become true

    @property
    def enough(self) -> bool:
        """Whether no more records are wanted."""

    def going_live(self, channel: str, complete_ns: int) -> None:
        """Save that the channel is about to become live, and is complete up to ``complete_ns``, in Kraken's time."""

    def went_live(self) -> None:
        """Note that all of the endpoint's channels are live."""

    def wrote_item(self) -> bool:
        """Count an item; return False if no more are wanted."""


ATTEMPT_S = 120.0  # to open, and for the token: the key's counter needs 45 s to drain, and other calls may come first
LOST_CLOSE_S = 0.5  # for the closing handshake after a loss: most peers no longer answer, and a stop waits for it
OVERDUE_S = 10.0  # a part that misses its own deadline by so long is stuck
POSTPONED_S = 5.0  # shorter waits before a connect are not logged: with many accounts they are normal at the start
LATE_S = 30.0  # three pings: without an answer for so long, records may be delayed
ONLINE = "online"  # Kraken's engine; in every other state orders may change without an update


class Loss(msgspec.Struct, frozen=True):
    """Why a connection, or the attempt at one, ended.

    ``delay`` is the shortest wait before the next attempt, in seconds. ``refused`` is what Kraken refused, in a word.
    """

    cause: str
    detail: str
    delay: float = 0.0
    refused: str = ""


class EndpointFeed:
    """The channels of one endpoint, kept live: a new connection, session and token after every loss."""

    def __init__(self, feed: Owner, shared: Shared, dialect: str, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.dialect = dialect
        self.recorder = Recorder(
            shared.account.name,
            DIALECTS[dialect],
            shared.run,
            knowledge=shared.knowledge,
            snapshots=shared.account.snapshots,
            feed_log=shared.feed_log,
            mask=shared.environment.secrets.mask_long,
            unix_ns=shared.environment.unix_ns,
            blank=shared.account.blank,
            more=feed.wrote_item if feed.limited else None,
        )
        self.losses: Counter[str] = Counter()  # by cause
        self.reconnects = 0  # how often every channel became live again after a loss
        self.frame_ns = 0  # when the last frame came; 0: never
        self._feed = feed
        self._shared, self._environment = shared, shared.environment
        self._dialect = DIALECTS[dialect]
        self._url: str = getattr(shared.environment.config.endpoints, f"ws_{dialect}")
        self._log = shared.environment.log.bind(endpoint=dialect)
        self._now = asyncio.get_running_loop().time
        self._attempts = 0  # connects since the channels were last live
        self._failures = 0  # in a row: the backoff's exponent
        self._down_since: float | None = self._now()
        self._live_since: float | None = None
        self._live_before = False
        self._retry_at: float | None = None  # while it waits for the next attempt
        self._loss = Loss("", "")  # the last one
        self._busy_since = self._now()
        # Times of the boot clock:
        self._began_at = 0  # when the connection was begun
        self._answered_at = 0  # when the last answered ping was sent
        self._complete_at = 0  # up to when everything that Kraken sent was received
        self._engine_down_at: int | None = None  # `_complete_at` when the engine was last online; None while it is
        self._stepped = False  # a clock has jumped, and no ping was answered since
        self._marked: Counter[tuple[str, str]] = Counter()  # markers of this connection, by channel and event_name
        self._notices = Repeats()
        self._last_token = ""
        self._session: Session | None = None
        self._connection: Connection | None = None
        self._live: set[str] = set()  # channels whose feed.live is written and whose feed.lost is not

    async def run(self) -> None:
        """Keep the endpoint live until the feed stops. The last connection stays open: call :meth:`close` when
        everything is written.

        Raises:
            FeedError: the endpoint cannot go on.
        """
        wait = 0.0
        while await self._turn(wait):
            loss = await self._connect_once()
            if loss is None:
                return
            wait = self._lost(loss)
            await self.close(LOST_CLOSE_S)
            self.recorder.disconnected()

    async def close(self, seconds: float = CLOSE_S) -> None:
        """Close the connection, if there is one. Abort it if the closing handshake takes longer than ``seconds``."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(seconds)

    def stopped(self, reason: str) -> None:
        """Write the last marker of every channel."""
        for channel in self.channels:
            self.recorder.write_marker(channel, "feed.stopped", reason=reason)

    @property
    def live(self) -> bool:
        """Whether every channel is live, and its ``feed.live`` is written."""
        return self._session is not None and self._session.live and len(self._live) == len(self.channels)

    @property
    def missing(self) -> list[str]:
        """The channels that are not live."""
        return [channel for channel in self.channels if channel not in self._live]

    @property
    def reason(self) -> str:
        """What failed last, in words; empty if nothing has."""
        return ": ".join(filter(None, (self._loss.cause, self._loss.detail)))

    def figures(self) -> EndpointFigures:
        session, now = self._session, self._now()
        heard = session.last_text if session is not None else None

        def since(moment: float | None) -> float | None:
            return None if moment is None else round(now - moment, 1)

        return EndpointFigures(
            dialect=self.dialect,
            channels=self.channels,
            live=self.live,
            live_s=since(self._live_since),
            down_s=since(self._down_since),
            last_frame_s=since(heard),
            last_frame_ns=self.frame_ns,
            attempts=self._attempts,
            retry_s=None if self._retry_at is None else round(max(0.0, self._retry_at - now), 1),
            cause=self._loss.cause,
            engine=session.engine if session is not None else None,
            late_s=self._late_s(),
            refused="" if self.live else self._loss.refused,
            connection=self.recorder.connection,
            sequences={c: s.sequence for c, s in session.subscriptions.items()} if session else {},
            losses=self.losses.total(),
            overdue=self._overdue(now),
        )

    def _overdue(self, now: float) -> bool:
        """Return whether the endpoint has missed a deadline of its own by far. A silent peer does not count: the
        session's deadline ends such a connection."""
        if self._connection is not None and self._connection.paused:
            return False  # it waits for the output's reader
        due = self._retry_at
        if due is None and self._session is not None:
            due = self._session.deadline()
        if due is None:
            due = self._busy_since + self._environment.config.connection.open_timeout_s + ATTEMPT_S
        return now > due + OVERDUE_S

    def complete(self) -> dict[str, int]:
        """Return up to when each live channel is complete, in Kraken's time (unix nanoseconds).

        That is when the last answered ping was sent, if a heartbeat or data followed the answer: everything before the
        ping has been received. Until the first such answer, it is when the connection was begun. While the engine is
        not online, it is when it was last known to be online.
        """
        complete = self._complete_ns()
        return {} if complete is None else dict.fromkeys(self._live, complete)

    def stepped(self) -> None:
        """Count the feed as late until a ping is answered, and send one now. To be called when a clock of this machine
        has jumped: what Kraken sent meanwhile may still be in the socket."""
        self._stepped = True
        if self._connection is not None:
            self._connection.ping_now()

    # -- one attempt

    async def _turn(self, wait: float) -> bool:
        """Wait for the backoff, for Kraken's limits and for the budget; return False if the feed stops instead."""
        shared, reserved = self._shared, False
        while True:
            if not await self._sleep(wait):
                return False
            wait = shared.rest.quiet_for()
            if wait <= 0:
                if reserved:
                    return True
                wait, reserved = shared.budget.reserve(self._now(), shared.environment.draw), True
                if wait <= 0:
                    return True
            else:
                reserved = False  # the reserved connect expires unused
            if wait >= POSTPONED_S:
                self._log.warning("connect_postponed", seconds=round(wait, 1))

    async def _sleep(self, seconds: float) -> bool:
        """Wait; return False if the feed stops first. Raises OutageTooLong when ``max_outage_s`` ends first."""
        limit = self._environment.config.reconnect.max_outage_s
        self._retry_at = self._now() + seconds
        ends = self._down_since + limit if limit and self._down_since is not None else float("inf")
        until = self._retry_at
        try:
            async with asyncio.timeout_at(min(until, ends)):
                await self._feed.stopping.wait()
            return False
        except TimeoutError:
            if ends > until:
                return True
        raise OutageTooLong(
            f"Not live for {limit:g} s, which is reconnect.max_outage_s.",
            why=f"What failed last: {self.reason}" if self.reason else "",
            remedy="If status.kraken.com reports no incident, run `kraken-feed check`: it finds the step that fails.",
        )

    async def _connect_once(self) -> Loss | None:
        """Open one connection and use it until it ends; return why it ended, or None because the feed stops."""
        shared, environment = self._shared, self._environment
        config = environment.config.connection
        shared.connections += 1
        self._attempts += 1
        self._retry_at, self._busy_since = None, self._now()
        self.recorder.connected(f"{shared.run}-{shared.connections}", self.channels)
        self._began_at = self._answered_at = self._complete_at = shared.clock.boot()
        self._engine_down_at, self._stepped = None, False
        self._marked.clear()
        mask = environment.secrets.mask
        session = Session(self._dialect, self.channels, Timing(config.ack_timeout_s, config.silence_s), mask)
        connection = Connection(self._url, session, config, dial=environment.dial, stamp=shared.clock.boot, mask=mask)
        self._session, self._connection = session, connection
        self._log.debug("connecting", connection=self.recorder.connection, attempt=self._attempts, url=self._url)
        try:
            await connection.run(self._token, self._deliver, environment.sink, self._feed.stopping)
        except Transient as error:
            return Loss(error.cause, " ".join(filter(None, (error.what, error.why))), error.delay, error.refused)
        return self._judge(session.failure) if session.failure is not None else None

    async def _token(self) -> str:
        """Return a new token, and mask it in everything that is logged from now on."""
        await self._shared.restore_counter()
        token = await self._shared.rest.token()
        await self._shared.learn_time()
        self._environment.secrets.discard(self._last_token)
        self._environment.secrets.add(token.value)
        self._last_token = token.value
        return token.value

    def _judge(self, failure: Failure) -> Loss:
        """Return the loss that follows from a session's failure. Raises the error if the endpoint cannot go on."""
        if failure.refusal is None:
            policy = failure.detail.startswith("1008")  # policy violation: Kraken's own clients do not reconnect
            return Loss(failure.cause, failure.detail, ODD_S if policy else 0.0)
        refusal = classify(failure.refusal, self._environment.unix_ns() / 1e9)
        channel = failure.detail.partition(":")[0]
        wait = self._shared.patience.refused(channel, refusal, self._now())
        if refusal.kind in ("throttled", "locked_out"):
            self._shared.rest.keep_quiet(refusal.delay)  # the limit is the key's: REST has to wait as well
        if wait is not None:
            return Loss(failure.cause, failure.detail, wait, refusal.refuses("subscription"))
        if refusal.error is CredentialsRefused:
            said = self._environment.secrets.mask(failure.refusal)
            raise refused_credentials(channel, said, refusal, self._shared.account.credentials)
        raise refusal.error(
            f"Kraken refused the subscription to {failure.detail}", why=f"That means: {refusal.meaning}.", remedy=NEWER
        )

    def _lost(self, loss: Loss) -> float:
        """Log and mark the loss; return the seconds to wait before the next attempt."""
        shared, now, first = self._shared, self._now(), self._down_since is None
        policy = shared.environment.config.reconnect
        if self._live_since is not None and now - self._live_since >= policy.stable_s:
            self._failures = 0
        self._failures += 1
        self.losses[loss.cause] += 1
        self._loss = loss
        floor = max(loss.delay, shared.rest.quiet_for())
        backoff = BackoffPolicy(initial=policy.initial_s, longest=policy.max_s)
        wait = delay(self._failures, backoff, shared.environment.draw(), floor)
        self._mark_all_lost(loss)
        self._down_since = now if first else self._down_since
        self._live_since = None
        fields = {
            "connection": self.recorder.connection,
            "cause": loss.cause,
            "detail": loss.detail,
            "retry_in": round(wait, 3),
        }
        if loss.refused:
            fields["refused"] = loss.refused
        if first:
            self._log.warning("connection_lost", **fields)
        else:
            say = self._log.warning if self._failures == 1 or floor else self._log.info
            say("connection_failed", **fields, attempt=self._attempts)
        return wait

    # -- the events of frames

    def _deliver(self, events: Sequence[Event]) -> None:
        """Write the records of a burst of frames, all at once."""
        session = self._session
        assert session is not None  # it made the events
        self.frame_ns = self._environment.unix_ns()
        try:
            self._take(events, session)
        finally:
            self.recorder.flush()

    def _take(self, events: Sequence[Event], session: Session) -> None:
        """Handle the events of a burst. After the last wanted item, ignore everything, answers to pings included:
        the next run recovers what follows, so it must not count as complete here."""
        limited, unreadable_since = self._feed.limited, None
        for event in events:
            if limited and self._feed.enough:
                break
            match event:
                case Data():
                    self.recorder.write(event, self.frame_ns)
                case Answered():
                    self._answered(event)
                case Complete():
                    self._complete_at = max(self._complete_at, event.stamp)
                case Live():
                    self._went_live(event.channel)
                case Opaque():  # a frame that is not JSON may have held records: checked once, after the burst
                    self.recorder.write_opaque(event, self._last_token)
                    if not event.json and self._live and unreadable_since is None:
                        unreadable_since = self._complete_ns()
                case EngineChanged():
                    self._engine_changed(event.engine, session)
                case Resnapshot():
                    self._lost_unseen(event)
                case Notice():
                    self._notice(event)
        if unreadable_since is not None:
            self._unreadable(unreadable_since)

    def _notice(self, event: Notice) -> None:
        """Log a notice. Of many of one kind, log the first and then ever fewer, with their number."""
        if not event.warning:
            self._log.debug(event.event, connection=self.recorder.connection, **event.fields)
            return
        times = self._notices.count(event.event, event.fields)
        if times is not None:
            fields = event.fields if times == 1 else {**event.fields, "times": times}
            self._log.warning(event.event, connection=self.recorder.connection, **fields)

    def _answered(self, answer: Answered) -> None:
        """Note that a ping was answered: everything that Kraken sent before it has been received."""
        clock = self._shared.clock
        self._answered_at, self._stepped = max(self._answered_at, answer.stamp), False
        came, left = answer.time_in_ns, answer.time_out_ns
        if came is not None and left is not None and came <= left:
            off = clock.sample(answer.stamp, clock.boot(), left, came, authoritative=False)
            if off:
                self._shared.clock_doubted = True

    def _complete_ns(self, frame_at: int | None = None) -> int | None:
        """Return up to when the live channels are complete, in Kraken's time, but not after ``frame_at``. While the
        engine is down, that is when it was last known to be online: orders may end without an update."""
        moments = (self._complete_at, self._engine_down_at, frame_at)
        return self._shared.clock.earliest(min(at for at in moments if at is not None))

    def _late_s(self) -> float | None:
        """Return the seconds since the last answered ping, if they are too many or a clock has jumped."""
        if not self._live:
            return None
        late = (self._shared.clock.boot() - self._answered_at) / NS
        return round(late, 1) if late > LATE_S or self._stepped else None

    def _engine_changed(self, engine: str, session: Session) -> None:
        """Write ``feed.status``. While the engine is down orders end without an update. So reconnect when it is online
        again: for a snapshot, and for both ends of the outage."""
        self.recorder.engine_changed(self.channels, engine)
        down_at = self._engine_down_at
        if engine.casefold() != ONLINE:
            self._engine_down_at = self._complete_at if down_at is None else down_at
        elif down_at is not None:
            for channel in self._live:
                self._shared.recovery.open(channel, self._complete_ns(), "maintenance")
            self._engine_down_at = None
            session.disconnected("the engine is online again", cause="maintenance")

    def _unreadable(self, since_ns: int) -> None:
        """Open and end an outage from ``since_ns`` until now: a frame that is not JSON may have held records."""
        for channel in self._live:
            self._shared.recovery.open(channel, since_ns, "unreadable")
            self._shared.recovery.end(channel, self._shared.kraken_ns())

    def _lost_unseen(self, event: Resnapshot) -> None:
        """Open an outage for a further snapshot on the same connection: what came before it may be missing."""
        channel = event.channel
        if channel in self._live:
            self._live.discard(channel)
            why = "another snapshot came on the same connection"
            self._mark_lost(channel, "resnapshot", why, self._began_at if event.stamp is None else event.stamp)

    def _went_live(self, channel: str) -> None:
        session = self._session
        assert session is not None  # it said so
        if self._engine_down_at is None and session.engine is not None and session.engine.casefold() != ONLINE:
            self._engine_down_at = self._complete_at  # down at the connect: no updates until it is online
        complete = self._complete_ns()
        assert complete is not None  # the request for the token told the time
        self._feed.going_live(channel, complete)
        self._live.add(channel)
        self._shared.patience.succeed(channel)
        self.recorder.went_live()
        self._write_marker(channel, "feed.live", attempt=self._attempts, engine=session.engine)
        self._log.info("live", connection=self.recorder.connection, channel=channel, attempt=self._attempts)
        self._shared.recovery.end(channel, self._shared.kraken_ns())
        if len(self._live) == len(self.channels):  # the session may be ahead of what is written
            self.reconnects += self._live_before and self._down_since is not None
            self._live_since = self._live_since if self._down_since is None else self._now()
            self._down_since, self._live_before = None, True
            self._attempts = 0
            self._feed.went_live()

    def _mark_all_lost(self, loss: Loss) -> None:
        live, session = [channel for channel in self.channels if channel in self._live], self._session
        self._live.clear()
        for channel in live:
            assert session is not None  # its channels were live
            at = None
            if loss.cause in ("sequence", "silence"):  # frames are missing, although pings may have been answered
                stamp = session.subscriptions[channel].stamp if loss.cause == "sequence" else session.last_proof
                at = self._began_at if stamp is None else stamp
            self._mark_lost(channel, loss.cause, loss.detail, at)

    def _mark_lost(self, channel: str, cause: str, detail: str, frame_at: int | None = None) -> None:
        """Write ``feed.lost``, and open the outage. If frames are missing, it began before ``frame_at``: answered pings
        prove nothing then."""
        session, complete = self._session, self._complete_ns(frame_at)
        assert session is not None  # its channel was live
        self._write_marker(
            channel,
            "feed.lost",
            cause=cause,
            detail=detail,
            last_sequence=session.subscriptions[channel].sequence,
            last_ts=None if complete is None else render.timestamp(complete),
        )
        self._shared.recovery.open(channel, complete, cause)

    def _write_marker(self, channel: str, event_name: str, **fields: object) -> None:
        """Write a marker that one connection can have several times: from the second on, its id has a number."""
        self._marked[channel, event_name] += 1
        count = self._marked[channel, event_name]
        self.recorder.write_marker(channel, event_name, "" if count == 1 else str(count), **fields)
