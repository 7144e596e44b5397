"""One endpoint, kept live: a new connection, session and token after every loss, and markers around what was lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from . import record
from .auth import Credentials
from .backoff import BackoffPolicy, Budget, delay
from .config import DIALECTS, Config
from .connection import ODD_S, Connection, Dial
from .errors import CredentialsRefused, OutageTooLong, Transient
from .log import FeedLogger
from .orders import Knowledge, Snapshots
from .recovery import Recovery
from .refusals import Verdict, classify
from .rest import Rest, refused_credentials
from .session import EngineChanged, Event, Failure, Live, Notice, Opaque, Records, Session, Timing
from .sink import Sink
from .text import Secrets, without
from .wire import Item

UNKNOWN_CHANNEL = "unknown"  # of a frame that this version cannot read


class Shared(msgspec.Struct):
    """What the tails of one account have in common."""

    config: Config
    account: str
    credentials: Credentials
    rest: Rest
    budget: Budget
    sink: Sink
    feed_log: FeedLogger
    log: FilteringBoundLogger
    secrets: Secrets
    dial: Dial
    run: str  # names this run of the program in the names of its connections
    unix_ns: Callable[[], int]
    draw: Callable[[], float]
    snapshots: Snapshots
    knowledge: Mapping[str, Knowledge]
    recovery: Recovery
    connections: int = 0


class Owner(Protocol):
    """What a tail is told by the feed, and tells it."""

    stopping: asyncio.Event
    enough: bool  # nothing more is to be written

    def went_live(self) -> None:
        """All of the tail's channels are live."""

    def wrote_item(self) -> bool:
        """Count an item; False if no more are wanted."""


class Loss(msgspec.Struct, frozen=True):
    """Why a connection, or the attempt at one, came to its end; ``delay`` is the least wait it demands."""

    cause: str
    detail: str
    delay: float = 0.0


class Tail:
    """Keeps the channels of one endpoint live: a new connection, session and token after every loss."""

    def __init__(self, feed: Owner, shared: Shared, dialect: str, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)
        self._feed = feed
        self._shared = shared
        self._dialect = DIALECTS[dialect]
        self._url: str = getattr(shared.config.endpoints, f"ws_{dialect}")
        self._log = shared.log.bind(endpoint=dialect)
        self._now = asyncio.get_running_loop().time
        self._attempts = 0  # connects since the channels were last live
        self._losses = 0
        self._failures = 0  # in a row: the backoff's exponent
        self._refused: Counter[Verdict] = Counter()  # in a row, by what was said
        self._down_since: float | None = self._now()
        self._live_since: float | None = None
        self._frame_ns = 0
        self._heard_ns = 0  # when the last frame came that fits the ones before it
        self._engine_down_ns: int | None = None
        self._last_name = shared.run  # of the connection that was live last
        self._last_token = ""
        self._frames = 0
        self._statuses = 0
        self._opaque = 0
        self._session: Session | None = None
        self._connection: Connection | None = None
        self._name: str | None = None
        self._loggers: dict[str, FeedLogger] = {}
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
            await self.close()
            self._name = None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def stopped(self, reason: str) -> None:
        """Write the last marker of every channel."""
        for channel in self.channels:
            self._mark(channel, "feed.stopped", connection=self._name, reason=reason)

    @property
    def live(self) -> bool:
        """Whether every channel is."""
        return self._session is not None and self._session.live

    def state(self) -> dict[str, object]:
        """What an operator wants to know."""
        session, now = self._session, self._now()
        heard = session.last_text if session is not None else None
        return {
            "live": self.live,
            "connection": self._name,
            "engine": session.engine if session else None,
            "sequences": {c: s.sequence for c, s in session.subscriptions.items()} if session else {},
            "live_s": None if self._live_since is None else round(now - self._live_since, 1),
            "last_frame_s": None if heard is None else round(now - heard, 1),
            "attempts": self._attempts,
            "losses": self._losses,
        }

    def whole(self) -> dict[str, int]:
        """Until when each live channel is known whole: unix nanoseconds."""
        return dict.fromkeys(self._live, self._heard_ns)

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write what REST knows of an item that the feed did not bring."""
        shared = self._shared
        fields: dict[str, object] = {
            "id": record.item_id(shared.account, channel, item.identity, self._last_name, "backfill", 0),
            "ts": record.timestamp(shared.unix_ns()),
            "type": "backfill",
            "connection": self._name or self._last_name,
        }
        if item.order_id is not None:
            fields["order_id"] = item.order_id
        if item.exec_id is not None:
            fields["exec_id"] = item.exec_id
        log = shared.feed_log.bind(channel=channel)
        log.record(self._dialect.EVENT_NAMES[channel], data=item.data, **fields)

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
        ends = self._down_since + patience if patience and self._down_since is not None else float("inf")
        until = self._now() + seconds
        try:
            async with asyncio.timeout_at(min(until, ends)):
                await self._feed.stopping.wait()
            return False
        except TimeoutError:
            if ends > until:
                return True
        raise OutageTooLong(
            f"Not live for {patience:g} s, which is reconnect.max_outage_s.",
            remedy="The last failures are in the log above.",
        )

    async def _connect_once(self) -> Loss | None:
        """One connection from its opening to its end: why it ended, or None because the feed stops."""
        shared, config = self._shared, self._shared.config.connection
        shared.connections += 1
        self._attempts += 1
        self._name = f"{shared.run}-{shared.connections}"
        bound = shared.feed_log.bind(connection=self._name)
        self._loggers = {channel: bound.bind(channel=channel) for channel in self.channels}
        session = Session(self._dialect, self.channels, Timing(config.ack_timeout_s, config.silence_s))
        connection = Connection(self._url, session, config, dial=shared.dial)
        self._session, self._connection = session, connection
        self._log.debug("connecting", connection=self._name, attempt=self._attempts, url=self._url)
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
            f"Kraken refused the subscription to {failure.detail}", why=f"That means: {verdict.meaning}."
        )

    def _lost(self, loss: Loss) -> float:
        """Say what was lost and why; the seconds to wait before the next attempt."""
        shared, now, first = self._shared, self._now(), self._down_since is None
        policy = shared.config.reconnect
        if self._live_since is not None and now - self._live_since >= policy.stable_s:
            self._failures = 0
        self._failures += 1
        self._losses += 1
        floor = max(loss.delay, shared.rest.quiet_for())
        wait = delay(
            self._failures, BackoffPolicy(initial=policy.initial_s, longest=policy.max_s), shared.draw(), floor
        )
        self._mark_lost(loss)
        self._down_since = now if first else self._down_since
        self._live_since = None
        say = self._log.warning if first or self._failures == 1 or floor else self._log.info
        fields = {"connection": self._name, "cause": loss.cause, "detail": loss.detail, "retry_in": round(wait, 3)}
        if first:
            say("connection_lost", **fields)
        else:
            say("connection_failed", **fields, attempt=self._attempts)
        return wait

    # -- what comes of frames

    def _deliver(self, events: Sequence[Event]) -> None:
        session, before = self._session, self._heard_ns
        assert session is not None  # it made the events
        self._frame_ns = self._shared.unix_ns()
        if session.failure is None:
            self._heard_ns = self._frame_ns
        self._frames += 1
        for event in events:
            if self._feed.enough:
                return
            match event:
                case Records():
                    self._write_items(event)
                case Live():
                    self._went_live(event.channel)
                case Opaque():
                    self._write_opaque(event)
                    if not event.json:
                        self._unreadable(before)
                case EngineChanged():
                    self._engine_changed(event.engine, session)
                case Notice():
                    say = self._log.warning if event.warning else self._log.debug
                    say(event.event, connection=self._name, **event.fields)

    def _write_items(self, records: Records) -> None:
        """One record an item. The fields of the frame are the same for all of them."""
        shared, channel, sequence = self._shared, records.channel, records.sequence
        log, name, connection = self._loggers[channel], self._dialect.EVENT_NAMES[channel], self._name or ""
        frame: dict[str, object] = {"ts": record.timestamp(self._frame_ns), "type": records.type}
        place = f"frame{self._frames}" if sequence is None else f"{records.type[0]}{sequence}"
        if sequence is not None:
            frame["sequence"] = sequence
        knowledge = shared.knowledge[channel]
        if records.type == "snapshot":
            news = knowledge.snapshot(records.items, shared.snapshots)
        for index, item in enumerate(records.items):
            if not (news[index] if records.type == "snapshot" else knowledge.update(item)):
                continue
            fields = dict(frame)
            if item.order_id is not None:
                fields["order_id"] = item.order_id
            if item.exec_id is not None:
                fields["exec_id"] = item.exec_id
            fields["id"] = record.item_id(shared.account, channel, item.identity, connection, place, index)
            log.record(name, data=item.data, **fields)
            if not self._feed.wrote_item():
                return

    def _engine_changed(self, engine: str, session: Session) -> None:
        """Mark it. While the engine is down orders end without a word, so when it is back the connection is made
        anew: for the snapshot, and for the hole's two ends."""
        self._statuses += 1
        for channel in self.channels:
            self._mark(channel, "feed.status", str(self._statuses), engine=engine)
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
            self._shared.recovery.end(channel, self._heard_ns)

    def _write_opaque(self, opaque: Opaque) -> None:
        """A frame that nobody here knows is written whole, but for a token that it may echo."""
        self._opaque += 1
        frame = without(opaque.frame, self._last_token)
        self._mark(UNKNOWN_CHANNEL, "unknown", str(self._opaque), **record.opaque(frame, opaque.json))

    def _went_live(self, channel: str) -> None:
        session = self._session
        assert session is not None  # it said so
        self._live.add(channel)
        self._last_name = self._name or self._last_name
        self._mark(channel, "feed.live", attempt=self._attempts, engine=session.engine)
        self._log.info("live", connection=self._name, channel=channel, attempt=self._attempts)
        self._shared.recovery.end(channel, self._shared.unix_ns())
        if session.live:
            self._live_since, self._down_since = self._now(), None
            self._attempts = 0
            self._refused.clear()
            self._feed.went_live()

    def _mark_lost(self, loss: Loss) -> None:
        session, heard = self._session, record.timestamp(self._heard_ns)
        for channel in [c for c in self.channels if c in self._live]:
            assert session is not None  # its channel was live
            sequence = session.subscriptions[channel].sequence
            self._mark(
                channel, "feed.lost", cause=loss.cause, detail=loss.detail, last_sequence=sequence, last_ts=heard
            )
            self._shared.recovery.open(channel, self._heard_ns, loss.cause)
        self._live.clear()

    def _mark(self, channel: str, event_name: str, which: str = "", **fields: object) -> None:
        """Write a marker. ``which`` tells apart several of a kind on one connection."""
        parts = (self._shared.account, channel, self._name or self._shared.run, event_name, which)
        now = record.timestamp(self._shared.unix_ns())
        log = self._shared.feed_log.bind(channel=channel)
        log.record(event_name, id=":".join(filter(None, parts)), ts=now, **{"connection": self._name, **fields})
