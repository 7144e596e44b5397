"""One endpoint, kept live: a new connection, session and token after every loss, and markers around what was lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import msgspec

from . import record
from .backoff import BackoffPolicy, delay
from .config import DIALECTS
from .connection import CLOSE_S, ODD_S, Connection
from .errors import CredentialsRefused, OutageTooLong, Transient
from .figures import Endpoint
from .recorder import Recorder
from .refusals import Verdict, classify
from .rest import NEWER, refused_credentials
from .session import EngineChanged, Event, Failure, Live, Notice, Opaque, Records, Session, Timing
from .shared import Owner, Shared

ATTEMPT_S = 120.0  # to open, and for the token: the key's counter needs 45 s to drain, and other calls may come first
LOST_CLOSE_S = 0.5  # for the closing handshake after a loss: few that are lost still answer, and a stop waits for it
OVERDUE_S = 10.0  # behind a deadline of its own, a part is not late but stuck


class Loss(msgspec.Struct, frozen=True):
    """Why a connection, or the attempt at one, came to its end; ``delay`` is the least wait it demands."""

    cause: str
    detail: str
    delay: float = 0.0


class Tail:
    """Keeps the channels of one endpoint live: a new connection, session and token after every loss."""

    def __init__(self, feed: Owner, shared: Shared, dialect: str, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self.dialect = dialect
        self.recorder = Recorder(
            shared.account,
            DIALECTS[dialect],
            shared.run,
            knowledge=shared.knowledge,
            snapshots=shared.snapshots,
            feed_log=shared.feed_log,
            mask=shared.secrets.mask,
            unix_ns=shared.unix_ns,
            more=feed.wrote_item if feed.limited else None,
        )
        self.losses: Counter[str] = Counter()  # by cause
        self.reconnects = 0  # times that every channel was live again after a loss
        self.frame_ns = 0  # when the last frame came; 0: never
        self._feed = feed
        self._shared = shared
        self._dialect = DIALECTS[dialect]
        self._url: str = getattr(shared.config.endpoints, f"ws_{dialect}")
        self._log = shared.log.bind(endpoint=dialect)
        self._now = asyncio.get_running_loop().time
        self._attempts = 0  # connects since the channels were last live
        self._failures = 0  # in a row: the backoff's exponent
        self._refused: Counter[Verdict] = Counter()  # in a row, by what was said
        self._down_since: float | None = self._now()
        self._live_since: float | None = None
        self._live_before = False
        self._retry_at: float | None = None  # while it waits for the next attempt
        self._loss = Loss("", "")  # the last one
        self._busy_since = self._now()
        self._heard_ns = 0  # when the last frame came that fits the ones before it
        self._engine_down_ns: int | None = None
        self._last_token = ""
        self._session: Session | None = None
        self._connection: Connection | None = None
        self._live: set[str] = set()  # channels whose feed.live is written and whose feed.lost is not

    async def run(self) -> None:
        """Until the feed stops. The last connection is left open: :meth:`close` it when everything is written.

        Raises:
            FeedError: it makes no sense to go on.
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
        """Close the connection, if there is one; a peer that does not agree within so long is cut off."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close(seconds)

    def stopped(self, reason: str) -> None:
        """Write the last marker of every channel."""
        for channel in self.channels:
            self.recorder.mark(channel, "feed.stopped", reason=reason)

    @property
    def live(self) -> bool:
        """Whether every channel is, and was said to be."""
        return self._session is not None and self._session.live and len(self._live) == len(self.channels)

    def state(self) -> dict[str, object]:
        """What an operator wants to know."""
        session, endpoint = self._session, self.endpoint()
        return {
            "live": self.live,
            "connection": self.recorder.connection,
            "engine": endpoint.engine,
            "sequences": {c: s.sequence for c, s in session.subscriptions.items()} if session else {},
            "live_s": endpoint.live_s,
            "last_frame_s": endpoint.last_frame_s,
            "attempts": endpoint.attempts,
            "losses": self.losses.total(),
        }

    def endpoint(self) -> Endpoint:
        """How it is now."""
        session, now = self._session, self._now()
        heard = session.last_text if session is not None else None

        def since(moment: float | None) -> float | None:
            return None if moment is None else round(now - moment, 1)

        return Endpoint(
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
        )

    def overdue(self, now: float) -> bool:
        """Whether a deadline of its own has passed by far: then nobody watches over it any more. A peer's silence is
        no such thing: the session's deadline ends it."""
        if self._connection is not None and self._connection.paused:
            return False  # it waits for the reader of the output
        due = self._retry_at
        if due is None and self._session is not None:
            due = self._session.deadline()
        if due is None:
            due = self._busy_since + self._shared.config.connection.open_timeout_s + ATTEMPT_S
        return now > due + OVERDUE_S

    def whole(self) -> dict[str, int]:
        """Until when each live channel is known whole: unix nanoseconds."""
        return dict.fromkeys(self._live, self._heard_ns)

    # -- one attempt

    async def _turn(self, wait: float) -> bool:
        """Wait for the backoff, for what Kraken demands and for the budget; False if the feed stops instead."""
        budget = self._shared.budget
        while True:
            if not await self._sleep(wait):
                return False
            wait = max(self._shared.rest.quiet_for(), budget.wait(self._now()))
            if wait <= 0:
                budget.spend(self._now())
                return True
            self._log.warning("connect_postponed", seconds=round(wait, 1))

    async def _sleep(self, seconds: float) -> bool:
        """False if the feed stops first. Raises OutageTooLong when the patience ends before the wait does."""
        patience = self._shared.config.reconnect.max_outage_s
        self._retry_at = self._now() + seconds
        ends = self._down_since + patience if patience and self._down_since is not None else float("inf")
        until = self._retry_at
        try:
            async with asyncio.timeout_at(min(until, ends)):
                await self._feed.stopping.wait()
            return False
        except TimeoutError:
            if ends > until:
                return True
        raise OutageTooLong(
            f"Not live for {patience:g} s, which is reconnect.max_outage_s.",
            why=f"What failed last: {self._loss.cause}: {self._loss.detail}" if self._loss.cause else "",
            remedy="If status.kraken.com knows of nothing, `kraken-feed check` finds how far the way to Kraken goes.",
        )

    async def _connect_once(self) -> Loss | None:
        """One connection from its opening to its end: why it ended, or None because the feed stops."""
        shared, config = self._shared, self._shared.config.connection
        shared.connections += 1
        self._attempts += 1
        self._retry_at, self._busy_since = None, self._now()
        self.recorder.connected(f"{shared.run}-{shared.connections}", self.channels)
        session = Session(self._dialect, self.channels, Timing(config.ack_timeout_s, config.silence_s))
        connection = Connection(self._url, session, config, dial=shared.dial)
        self._session, self._connection = session, connection
        self._log.debug("connecting", connection=self.recorder.connection, attempt=self._attempts, url=self._url)
        try:
            await connection.run(self._token, self._deliver, shared.sink, self._feed.stopping)
        except Transient as error:
            return Loss(error.cause, " ".join(filter(None, (error.what, error.why))), error.delay)
        return self._judge(session.failure) if session.failure is not None else None

    async def _token(self) -> str:
        """A fresh token, masked in whatever is logged from now on."""
        token = await self._shared.rest.token()
        self._shared.secrets.discard(self._last_token)
        self._shared.secrets.add(token.value)
        self._last_token = token.value
        return token.value

    def _judge(self, failure: Failure) -> Loss:
        """What follows from a session's failure. Raises what makes it senseless to go on."""
        if failure.refusal is None:
            policy = failure.detail.startswith("1008")  # a policy of the edge's: final in Kraken's own clients
            return Loss(failure.cause, failure.detail, ODD_S if policy else 0.0)
        verdict = classify(failure.refusal, self._shared.unix_ns() / 1e9)
        self._refused[verdict] += 1
        if verdict.kind in ("throttled", "locked_out"):
            self._shared.rest.keep_quiet(verdict.delay)  # whichever way it was said, it holds for the key
        if not verdict.final(self._refused[verdict]):
            return Loss(failure.cause, failure.detail, verdict.delay)
        if verdict.error is CredentialsRefused:
            channel = failure.detail.partition(":")[0]
            raise refused_credentials(channel, failure.refusal, verdict, self._shared.credentials)
        raise verdict.error(
            f"Kraken refused the subscription to {failure.detail}",
            why=f"That means: {verdict.meaning}.",
            remedy=NEWER,
        )

    def _lost(self, loss: Loss) -> float:
        """Say what was lost and why; the seconds to wait before the next attempt."""
        shared, now, first = self._shared, self._now(), self._down_since is None
        policy = shared.config.reconnect
        if self._live_since is not None and now - self._live_since >= policy.stable_s:
            self._failures = 0
        self._failures += 1
        self.losses[loss.cause] += 1
        self._loss = loss
        floor = max(loss.delay, shared.rest.quiet_for())
        wait = delay(
            self._failures, BackoffPolicy(initial=policy.initial_s, longest=policy.max_s), shared.draw(), floor
        )
        self._mark_lost(loss)
        self._down_since = now if first else self._down_since
        self._live_since = None
        fields = {
            "connection": self.recorder.connection,
            "cause": loss.cause,
            "detail": loss.detail,
            "retry_in": round(wait, 3),
        }
        if first:
            self._log.warning("connection_lost", **fields)
        else:
            say = self._log.warning if self._failures == 1 or floor else self._log.info
            say("connection_failed", **fields, attempt=self._attempts)
        return wait

    # -- what comes of frames

    def _deliver(self, events: Sequence[Event]) -> None:
        session, before = self._session, self._heard_ns
        assert session is not None  # it made the events
        self.frame_ns = self._shared.unix_ns()
        if session.failure is None and not (self._behind and self._heard_ns):
            self._heard_ns = self.frame_ns
        try:
            self._take(events, session, before)
        finally:
            self.recorder.flush()
            if self._feed.limited and self._feed.enough:
                self._heard_ns = before or self._heard_ns  # what was not written is the next run's

    @property
    def _behind(self) -> bool:
        return self._connection is not None and self._connection.behind

    def _take(self, events: Sequence[Event], session: Session, before: int) -> None:
        """Write what comes of a burst. ``before`` is when the last frame before it came."""
        limited = self._feed.limited
        for event in events:
            if limited and self._feed.enough:
                return
            match event:
                case Records():
                    self.recorder.write(event, self.frame_ns)
                case Live():
                    self._went_live(event.channel)
                case Opaque():
                    self.recorder.write_opaque(event, self._last_token)
                    if not event.json:
                        self._unreadable(before)
                case EngineChanged():
                    self._engine_changed(event.engine, session)
                case Notice():
                    say = self._log.warning if event.warning else self._log.debug
                    say(event.event, connection=self.recorder.connection, **event.fields)

    def _engine_changed(self, engine: str, session: Session) -> None:
        """Mark it. While the engine is down orders end without a word, so when it is back the connection is made
        anew: for the snapshot, and for the hole's two ends."""
        self.recorder.engine_changed(self.channels, engine)
        if engine != "online":
            self._engine_down_ns = self._engine_down_ns or self._heard_ns
        elif self._engine_down_ns is not None:
            for channel in self._live:
                self._shared.recovery.open(channel, self._engine_down_ns, "maintenance")
            self._engine_down_ns = None
            session.disconnected("the engine is online again", cause="maintenance")

    def _unreadable(self, before: int) -> None:
        """A frame that is no JSON may have been any: what came since the one before it is to be checked."""
        for channel in self._live:
            self._shared.recovery.open(channel, before, "unreadable")
            self._shared.recovery.end(channel, self.frame_ns)

    def _went_live(self, channel: str) -> None:
        session = self._session
        assert session is not None  # it said so
        self._feed.going_live(channel, self._heard_ns)
        self._live.add(channel)
        self.recorder.went_live()
        self.recorder.mark(channel, "feed.live", attempt=self._attempts, engine=session.engine)
        self._log.info("live", connection=self.recorder.connection, channel=channel, attempt=self._attempts)
        self._shared.recovery.end(channel, self._shared.unix_ns())
        if len(self._live) == len(self.channels):  # the session may be ahead of what is written
            self.reconnects += self._live_before
            self._live_since, self._down_since, self._live_before = self._now(), None, True
            self._attempts = 0
            self._refused.clear()
            self._feed.went_live()

    def _mark_lost(self, loss: Loss) -> None:
        session, heard = self._session, record.timestamp(self._heard_ns)
        for channel in [c for c in self.channels if c in self._live]:
            assert session is not None  # its channel was live
            sequence = session.subscriptions[channel].sequence
            self.recorder.mark(
                channel, "feed.lost", cause=loss.cause, detail=loss.detail, last_sequence=sequence, last_ts=heard
            )
            self._shared.recovery.open(channel, self._heard_ns, loss.cause)
        self._live.clear()
