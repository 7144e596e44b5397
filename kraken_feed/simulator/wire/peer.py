"""Serve one WebSocket connection as the server sees it: subscriptions, sequences, and the queue of frames."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol

from msgspec.json import encode
from msgspec.structs import replace

from ..access.key import ApiKey
from ..faults.fault import Fault
from ..market.account import Account, Rendered
from ..market.ledger import Content, Frame, FrameKind
from ..market.order import Change
from ..quirks.quirk import share
from ..quirks.shape import integer
from ..world import World
from . import v1, v1_feed, v2, v2_feed
from .content import content, render
from .dialect import Complaint, Dialect, Feeds, Request
from .order_entry import Desk
from .outgoing import Abort, Close, Line, Outgoing, Text
from .subscription import PERMISSIONS, Subscription

HEARTBEAT_S = 1.0
IDLE_S = 60.0  # a connection without a private subscription is closed after about a minute
MAX_QUEUE = 50_000  # frames that may wait while a connection is stalled; then it is reset
BURST = 20  # messages per second; more were answered with "Exceeded msg rate" in the field
_DIALECTS: dict[str, tuple[Dialect, Feeds]] = {"v1": (v1, v1_feed), "v2": (v2, v2_feed)}


class Venue(Protocol):
    """What a peer needs from the exchange that it is connected to."""

    world: World

    @property
    def moment(self) -> float:
        """The time up to which everything has happened."""

    def advance(self, now: float) -> None:
        """Let all events happen that are due."""

    def retry(self, now: float) -> None:
        """Try the faults again that have found nothing to hit so far."""

    def redeem(self, value: str, peer: "Peer", now: float) -> ApiKey | str:
        """Return the key behind a token, or why the token is not valid."""

    def forget(self, peer: "Peer") -> None:
        """Remove a connection that is over."""


class Peer:
    """The state of one connection.

    `receive` takes a client's text frame, `outgoing` drains what the server sends. While `stalled`, nothing
    leaves and nothing is answered, WebSocket pings included; what was queued leaves when the stall ends.
    """

    def __init__(self, venue: Venue, dialect: Literal["v1", "v2"], number: int, connection_id: int, now: float) -> None:
        self.world = venue.world
        self._venue = venue
        self.dialect = dialect
        self.number = number
        self.connection_id = connection_id
        self.account: Account | None = None  # None until the first valid token
        self.subscriptions: dict[str, Subscription] = {}
        self.closed = False
        self.stalled = False
        self.silent = False
        self.stall_ends = math.inf
        self.silence_ends = math.inf
        self.split: Fault | None = None
        self.split_ends = math.inf
        self.speak, self._feeds = _DIALECTS[dialect]
        self.status: str | None = None  # what a late_online connection was sent instead of the engine's state …
        self.online_at = math.inf  # … and when it is sent that the engine is online
        self._quirks = self.world.quirks
        self._beats = not (dialect == "v1" and self._quirks.no_v1_heartbeats)
        self._pings = 0
        self._line = Line(self._quirks.line_rate)
        self._pongs: list[tuple[float, bytes]] = []  # pongs that are sent late
        self._unread: list[bytes] = []
        self._delayed: list[tuple[float, Request]] = []
        self._recent: deque[float] = deque(maxlen=BURST)
        self._last_sent = now
        self._idle_since = now

    # What the server part calls.

    def receive(self, text: bytes, now: float) -> None:
        """Handle a client's text frame; events that were due before it happen first."""
        self._venue.advance(now)
        if self.closed:
            return
        if self.stalled:
            self._unread.append(text)
            return
        self._read(text, now)
        self._venue.retry(now)

    def outgoing(self) -> list[Outgoing]:
        """Return and remove what is to be sent, in order. Data frames count as published from then on."""
        if self.stalled:
            return []
        drained: list[Outgoing] = []
        for waiting in self._line.take(self._venue.moment):
            drained.append(waiting.message)
            if waiting.frame is not None and self.account is not None:
                self.account.ledger.publish(waiting.frame)
        return drained

    def disconnect(self) -> None:
        """Note that the connection is gone: nothing can be sent any more."""
        self.closed = True
        self.subscriptions.clear()
        self._line.clear()
        self._delayed.clear()
        self._pongs.clear()
        self._venue.forget(self)

    # What the exchange calls.

    def due(self) -> float:
        """Return when `live` should be called next."""
        if self.closed:
            return math.inf
        if self.stalled:
            return self.stall_ends
        timers = [self.silence_ends, self.split_ends, self.online_at, self._line.due(self._venue.moment)]
        if not self.subscriptions:
            timers.append(self._idle_since + IDLE_S)
        elif self._beats and not self.silent:
            timers.append(self._last_sent + HEARTBEAT_S)
        if self._delayed or self._pongs:
            timers += [due for due, _ in (*self._delayed, *self._pongs)]
        timers += [one.restart.until for one in self.subscriptions.values() if one.restart is not None]
        return min(timers)

    def live(self, now: float) -> None:
        """Run the timers that are due: ends of faults, late acks, the heartbeat, the idle close."""
        if self.closed:
            return
        if self.stalled:
            if self.stall_ends > now:
                return
            self.stalled, self.stall_ends = False, math.inf
            unread, self._unread = self._unread, []
            for text in unread:
                self._read(text, now)
        if self.silence_ends <= now:
            self.silent, self.silence_ends = False, math.inf
        if self.split_ends <= now:
            self.split, self.split_ends = None, math.inf
        self._answer_late(now)
        if self.online_at <= now:
            self.status, self.online_at = None, math.inf
            self.say(self.speak.status_changed(self.connection_id, self.world.status), now)
        for subscription in list(self.subscriptions.values()):
            if subscription.restart is not None and subscription.restart.until <= now:
                self._come_back(subscription, subscription.restart.fault, now)
        if not self.subscriptions and self._idle_since + IDLE_S <= now:
            self.close(Close(1000))
        elif self.subscriptions and self._beats and not self.silent and self._last_sent + HEARTBEAT_S <= now:
            self.say(self.speak.heartbeat(), now)

    def greet(self, late: Fault | None, now: float) -> None:
        """Send the engine's state, or another state first and "online" only later.

        Changes in between are not sent to this connection, and no snapshot makes up for them.
        """
        if late is not None:
            self.world.ledger.struck(late.kind, now, self.connection_id)
            self.status = late.shape
            self.online_at = now + (3.0 if late.seconds is None else late.seconds)
        self.say(self.speak.status(self.connection_id, self.status or self.world.status), now)

    def tell(self, changes: Sequence[Change], rendered: Rendered, now: float) -> None:
        """Publish the changes on every channel that they concern, in one frame each, or two if orders end twice."""
        if self.status is not None or self.world.untold:
            return
        for subscription in list(self.subscriptions.values()):
            if subscription.restart is not None:
                continue
            key = subscription.channel, subscription.options
            frames = rendered.get(key)
            if frames is None:
                frames = rendered[key] = render(
                    self._feeds, subscription.channel, changes, subscription.options, self._quirks
                )
            for told in frames:
                self._publish(subscription, "update", told, now)

    def restarts(self, subscription: Subscription) -> bool:
        """Return whether the server can restart behind this subscription: clients notice it by the snapshot."""
        snapshot = self.account and self._feeds.snapshot(subscription.channel, self.account.book, subscription.options)
        return snapshot is not None and subscription.restart is None

    def notice(self, subscription: Subscription, now: float) -> None:
        """Send a frame of an unknown type, which counts in the channel's sequence and publishes nothing."""
        text = self._feeds.notice(subscription.channel, self._spelled(subscription.next_sequence()))
        if not self.silent:
            self.say(text, now)

    def say(self, text: bytes, now: float) -> None:
        """Queue a frame that is not a publication."""
        self._queue(text, None, now)

    def close(self, how: Close | Abort, *, at_once: bool = False) -> None:
        """End the connection, after the queue or, with `at_once`, without it."""
        self._line.end(how, at_once=at_once)
        self.stalled = self.stalled and not (at_once or self._line.rate)
        self.closed = True
        self.subscriptions.clear()
        self._delayed.clear()
        self._pongs.clear()
        self._venue.forget(self)

    def unsubscribe(self, channel: str, now: float) -> None:
        """End a subscription; the last one starts the idle timer."""
        del self.subscriptions[channel]
        if not self.subscriptions:
            self._idle_since = now

    # Requests.

    def _read(self, text: bytes, now: float) -> None:
        shown = self.world.shown_time(now)
        request = self.speak.parse(text, shown)
        if isinstance(request, Request) and isinstance(request.reqid, int):
            request = replace(request, reqid=integer(request.reqid, self._quirks))
        full = len(self._recent) == BURST and now - self._recent[0] < 1.0
        fault = self._fault("msg_rate", now)
        if full or fault is not None:
            known = request if isinstance(request, Request) else None
            self.say(self.speak.rate_exceeded(known, fault.shape if fault else "error", shown), now)
            return
        self._recent.append(now)
        if isinstance(request, Complaint):
            self.say(request.reply, now)
        elif request.kind == "ping":
            self._pong(request, now)
        elif request.kind == "order":
            self._order(request, now)
        elif request.kind == "unsubscribe":
            self._unsubscribe(request, now)
        elif (delay := self._fault("delay_ack", now, request.channels[0])) is not None:
            self._delayed.append((now + (3.0 if delay.seconds is None else delay.seconds), request))
        else:
            self._subscribe(request, now)

    def _pong(self, request: Request, now: float) -> None:
        """Answer a ping, as the quirks say: with or without its id, late, or not at all."""
        quirks = self._quirks
        self._pings += 1
        lost = share(quirks.lost_pongs, "lost pong", f"{self.connection_id} {self._pings}")
        if self._fault("no_pong", now) is not None or lost or quirks.pongs == "never":
            return
        if quirks.pongs == "bare":
            request = replace(request, reqid=None)
        elif quirks.pongs == "text" and request.reqid is not None:
            request = replace(request, reqid=str(request.reqid))
        pong = self.speak.pong(request, self.world.shown_time(now))
        if quirks.pong_delay:
            self._pongs.append((now + quirks.pong_delay, pong))
        else:
            self.say(pong, now)

    def _order(self, request: Request, now: float) -> None:
        """Carry out a request of order entry, and send the answers."""
        refusal = self._fault("refuse_order", now)
        mute = self._fault("no_answer", now)
        if mute is not None and mute.shape == "ignored":
            return
        if refusal is not None:
            text = refusal.text or "EOrder:Insufficient funds"
            answers = [self.speak.refused(request, text, self.world.shown_time(now))]
        else:
            key = self._venue.redeem(request.token, self, now)
            if isinstance(key, str):
                answers = [self.speak.refused(request, key, self.world.shown_time(now))]
            else:
                answers = self.speak.order(request.event, request.message, Desk(key, now, self._quirks))
        if mute is not None:
            answers = answers[: -mute.count] if mute.count else []
        times = 1 if self._fault("duplicate_answer", now) is None else 2
        end = self._fault("drop_answer", now)
        for answer in answers if end is None else ():
            for _ in range(times):
                self.say(answer, now)
        if end is not None:
            self.close(Abort() if end.code is None else Close(end.code, end.reason))

    def _answer_late(self, now: float) -> None:
        while self._pongs and self._pongs[0][0] <= now:
            self.say(self._pongs.pop(0)[1], now)
        due = [request for at, request in self._delayed if at <= now]
        self._delayed = [(at, request) for at, request in self._delayed if at > now]
        for request in due:
            self._subscribe(request, now)

    def _unsubscribe(self, request: Request, now: float) -> None:
        channels = [channel for channel in request.channels if channel in self.subscriptions]
        shown = self.world.shown_time(now)
        if not channels:
            self.say(self.speak.refused(request, "Subscription Not Found", shown), now)
        for channel in channels:
            self.unsubscribe(channel, now)
            self.say(self.speak.unsubscribed(channel, shown, request.reqid), now)

    def _subscribe(self, request: Request, now: float) -> None:
        channel = request.channels[0]
        mute = self._fault("no_ack", now, channel)
        if mute is not None and mute.shape == "ignored":
            return
        problem = self._problem(request, channel, now)
        shown = self.world.shown_time(now)
        if problem:
            self.say(self.speak.refused(request, problem, shown), now)
            return
        subscription = Subscription(channel, request.options, request.token)
        self.subscriptions[channel] = subscription
        ack = self.speak.subscribed(request, channel, self.world.tier.engine_limit, shown)
        early = self._fault("early_data", now, channel) is not None
        if mute is None and not early:
            self.say(ack, now)
        self._snapshot(subscription, now)
        if mute is None and early:
            self.say(ack, now)

    def _problem(self, request: Request, channel: str, now: float) -> str:
        refusal = self._fault("refuse_token", now, channel)
        if refusal is not None:
            return refusal.text or "ESession:Invalid session"
        if channel in self.subscriptions:
            return "Already subscribed"
        if (self.status or self.world.status) == "maintenance":
            return "EService:Unavailable"
        key = self._venue.redeem(request.token, self, now)
        if isinstance(key, str):
            return key
        missing = [name for name in PERMISSIONS[channel] if name not in key.permissions]
        return "EGeneral:Permission denied" if missing else ""

    def _snapshot(self, subscription: Subscription, now: float) -> None:
        if self.account is None:
            return
        items = self._feeds.snapshot(subscription.channel, self.account.book, subscription.options)
        if items is None:
            return
        if self._fault("no_snapshot", now, subscription.channel) is not None:
            subscription.next_sequence()
            return
        self._publish(subscription, "snapshot", content(self._feeds, items, self._quirks), now)

    def _come_back(self, subscription: Subscription, fault: Fault, now: float) -> None:
        """Send a new snapshot after a restart, with a sequence as the fault says."""
        subscription.restart = None
        if fault.shape == "restart":
            subscription.sequence = 0
        elif fault.shape == "jump":
            subscription.sequence += 7 if fault.count is None else fault.count
        self._snapshot(subscription, now)

    # Sending.

    def _spelled(self, sequence: int) -> bytes:
        return b"%d" % sequence if self._quirks.integers == "plain" else encode(integer(sequence, self._quirks))

    def _publish(self, subscription: Subscription, kind: FrameKind, told: Content, now: float) -> None:
        sequence = subscription.next_sequence()
        if subscription.lose and kind == "update":
            subscription.lose = False
            return
        text = self._feeds.frame(subscription.channel, kind, self._spelled(sequence), told.payload)
        frame = Frame(self.connection_id, self.dialect, subscription.channel, sequence, kind, told.items, text, now)
        if not self.silent:
            subscription.last = text
        self._queue(text, frame, now)
        strange = self._quirks.strange_frames
        if strange and share(strange, "strange frame", f"{self.connection_id} {subscription.channel} {sequence}"):
            self.notice(subscription, now)

    def _queue(self, text: bytes, frame: Frame | None, now: float) -> None:
        """Queue a message. A silent connection loses its data frames: they are counted, but never sent or published."""
        if self.closed or (self.silent and frame is not None):
            return
        if len(self._line) >= MAX_QUEUE:
            self.close(Abort(), at_once=True)
            return
        self._last_sent = now
        size = (self.split.bytes or 7) if self.split else 0
        by_fragment = self.split is not None and self.split.shape == "fragments"
        self._line.send(Text(text, size if by_fragment else 0, 0 if by_fragment else size), frame, now)

    def _fault(self, kind: str, now: float, channel: str | None = None) -> Fault | None:
        fault = self.world.schedule.take(kind, now, dialect=self.dialect, channel=channel, connection=self.number)
        if fault is not None:
            self.world.ledger.struck(kind, now, self.connection_id)
        return fault
