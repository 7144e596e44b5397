"""One WebSocket connection as the server sees it: subscriptions, sequences, and what waits to be sent."""

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from kraken_feed.simulator import v1, v2
from kraken_feed.simulator.dialect import PERMISSIONS, Complaint, Dialect, Options, Request
from kraken_feed.simulator.fault import Fault
from kraken_feed.simulator.ledger import Frame, Item
from kraken_feed.simulator.order import Change
from kraken_feed.simulator.order_entry import Desk

if TYPE_CHECKING:
    from kraken_feed.simulator.account import Account
    from kraken_feed.simulator.exchange import Exchange

HEARTBEAT_S = 1.0
IDLE_S = 60.0  # a connection without a private subscription is closed after about a minute
MAX_QUEUE = 50_000  # frames that may wait while a connection is stalled; then it is reset
BURST = 20  # messages a second; more were answered with "Exceeded msg rate" in the field
_DIALECTS: dict[str, Dialect] = {"v1": v1, "v2": v2}


class Text(Struct, frozen=True):
    """A text frame; `fragment` > 0 cuts the message into WebSocket fragments of that many bytes, `write` > 0
    cuts what goes to the socket into writes of that many bytes."""

    data: bytes
    fragment: int = 0
    write: int = 0


class Close(Struct, frozen=True):
    """A closing handshake with that code; 1006 means that the TCP connection ends without one."""

    code: int
    reason: str = ""


class Abort(Struct, frozen=True):
    """A TCP reset."""


Outgoing = Text | Close | Abort


class Subscription:
    """One channel on one connection, with its own sequence."""

    def __init__(self, channel: str, options: Options, token: str) -> None:
        self.channel = channel
        self.options = options
        self.token = token
        self.sequence = 0
        self.lose = False  # the next frame is counted, but gets lost
        self.last: bytes | None = None

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence


class Peer:
    """The state of one connection.

    `receive` takes a client's text frame, `outgoing` drains what the server sends. While `stalled`, nothing
    leaves and nothing is answered, WebSocket pings included; what was queued leaves when the stall ends.
    """

    def __init__(
        self, exchange: "Exchange", dialect: Literal["v1", "v2"], number: int, connection_id: int, now: float
    ) -> None:
        self.exchange = exchange
        self.dialect = dialect
        self.number = number
        self.connection_id = connection_id
        self.account: Account | None = None  # nobody's until a token says whose
        self.subscriptions: dict[str, Subscription] = {}
        self.closed = False
        self.stalled = False
        self.silent = False
        self.stall_ends = math.inf
        self.silence_ends = math.inf
        self.split: Fault | None = None
        self.split_ends = math.inf
        self.speak = _DIALECTS[dialect]
        self._outbox: list[tuple[Outgoing, Frame | None]] = []
        self._unread: list[bytes] = []
        self._delayed: list[tuple[float, Request]] = []
        self._recent: deque[float] = deque(maxlen=BURST)
        self._last_sent = now
        self._idle_since = now

    # What the server part calls.

    def receive(self, text: bytes, now: float) -> None:
        """Takes a client's text frame; what was due before it happens first."""
        self.exchange.advance(now)
        if self.closed:
            return
        if self.stalled:
            self._unread.append(text)
            return
        self._read(text, now)
        self.exchange.retry(now)

    def outgoing(self) -> list[Outgoing]:
        """Drains what is to be sent, in order. Data frames count as published from here on."""
        if self.stalled:
            return []
        drained, self._outbox = self._outbox, []
        for _, frame in drained:
            if frame is not None and self.account is not None:
                self.account.ledger.publish(frame)
        return [message for message, _ in drained]

    def disconnect(self) -> None:
        """The connection is gone: nothing can be sent any more."""
        self.closed = True
        self.subscriptions.clear()
        self._outbox.clear()
        self._delayed.clear()
        self.exchange.forget(self)

    # What the exchange calls.

    def due(self) -> float:
        """When `live` should be called next."""
        if self.closed:
            return math.inf
        if self.stalled:
            return self.stall_ends
        timers = [self.silence_ends, self.split_ends, *(due for due, _ in self._delayed)]
        if not self.subscriptions:
            timers.append(self._idle_since + IDLE_S)
        elif not self.silent:
            timers.append(self._last_sent + HEARTBEAT_S)
        return min(timers)

    def live(self, now: float) -> None:
        """Runs the timers that are due: ends of faults, late acks, the heartbeat, the idle close."""
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
        if not self.subscriptions and self._idle_since + IDLE_S <= now:
            self.close(Close(1000))
        elif self.subscriptions and not self.silent and self._last_sent + HEARTBEAT_S <= now:
            self.say(self.speak.heartbeat(), now)

    def tell(self, changes: Sequence[Change], now: float) -> None:
        """Publishes the changes on every channel that they concern, in one frame each."""
        for subscription in list(self.subscriptions.values()):
            items = self.speak.updates(subscription.channel, changes, subscription.options)
            if items:
                self._publish(subscription, "update", items, now)

    def say(self, text: bytes, now: float) -> None:
        """Queues a frame that is not a publication."""
        self._queue(text, None, now)

    def close(self, how: Close | Abort, *, at_once: bool = False) -> None:
        """Ends the connection after what is queued or, `at_once`, without it."""
        if at_once:
            self._outbox.clear()
            self.stalled = False
        self._outbox.append((how, None))
        self.closed = True
        self.subscriptions.clear()
        self._delayed.clear()
        self.exchange.forget(self)

    def unsubscribe(self, channel: str, now: float) -> None:
        """Ends a subscription."""
        del self.subscriptions[channel]
        if not self.subscriptions:
            self._idle_since = now

    # Requests.

    def _read(self, text: bytes, now: float) -> None:
        request = self.speak.parse(text, now)
        full = len(self._recent) == BURST and now - self._recent[0] < 1.0
        fault = self._fault("msg_rate", now)
        if full or fault is not None:
            known = request if isinstance(request, Request) else None
            self.say(self.speak.rate_exceeded(known, fault.shape if fault else "error", now), now)
            return
        self._recent.append(now)
        if isinstance(request, Complaint):
            self.say(request.reply, now)
        elif request.kind == "ping":
            self.say(self.speak.pong(request, now), now)
        elif request.kind == "order":
            self._order(request, now)
        elif request.kind == "unsubscribe":
            self._unsubscribe(request, now)
        elif (delay := self._fault("delay_ack", now, request.channels[0])) is not None:
            self._delayed.append((now + (3.0 if delay.seconds is None else delay.seconds), request))
        else:
            self._subscribe(request, now)

    def _order(self, request: Request, now: float) -> None:
        """Does what order entry asks for, and says what became of it."""
        refusal = self._fault("refuse_order", now)
        mute = self._fault("no_answer", now)
        if mute is not None and mute.shape == "ignored":
            return
        if refusal is not None:
            answers = [self.speak.refused(request, refusal.text or "EOrder:Insufficient funds", now)]
        else:
            key = self.exchange.redeem(request.token, self, now)
            if isinstance(key, str):
                answers = [self.speak.refused(request, key, now)]
            else:
                answers = self.speak.order(request.event, request.message, Desk(key, now))
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
        due = [request for at, request in self._delayed if at <= now]
        self._delayed = [(at, request) for at, request in self._delayed if at > now]
        for request in due:
            self._subscribe(request, now)

    def _unsubscribe(self, request: Request, now: float) -> None:
        channels = [channel for channel in request.channels if channel in self.subscriptions]
        if not channels:
            self.say(self.speak.refused(request, "Subscription Not Found", now), now)
        for channel in channels:
            self.unsubscribe(channel, now)
            self.say(self.speak.unsubscribed(channel, now, request.reqid), now)

    def _subscribe(self, request: Request, now: float) -> None:
        channel = request.channels[0]
        mute = self._fault("no_ack", now, channel)
        if mute is not None and mute.shape == "ignored":
            return
        problem = self._problem(request, channel, now)
        if problem:
            self.say(self.speak.refused(request, problem, now), now)
            return
        subscription = Subscription(channel, request.options, request.token)
        self.subscriptions[channel] = subscription
        ack = self.speak.subscribed(request, channel, self.exchange.tier.engine_limit, now)
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
        if self.exchange.status == "maintenance":
            return "EService:Unavailable"
        key = self.exchange.redeem(request.token, self, now)
        if isinstance(key, str):
            return key
        missing = [name for name in PERMISSIONS[channel] if name not in key.permissions]
        return "EGeneral:Permission denied" if missing else ""

    def _snapshot(self, subscription: Subscription, now: float) -> None:
        if self.account is None:
            return
        items = self.speak.snapshot(subscription.channel, self.account.book, subscription.options)
        if items is None:
            return
        if self._fault("no_snapshot", now, subscription.channel) is not None:
            subscription.next_sequence()
            return
        self._publish(subscription, "snapshot", items, now)

    # Sending.

    def _publish(
        self,
        subscription: Subscription,
        kind: Literal["snapshot", "update"],
        items: list[Item],
        now: float,
    ) -> None:
        sequence = subscription.next_sequence()
        if subscription.lose:
            subscription.lose = False
            return
        text = self.speak.frame(subscription.channel, kind, sequence, items)
        frame = Frame(self.connection_id, self.dialect, subscription.channel, sequence, kind, tuple(items), text, now)
        if not self.silent:
            subscription.last = text
        self._queue(text, frame, now)

    def _queue(self, text: bytes, frame: Frame | None, now: float) -> None:
        """A silent connection loses its data frames: they are counted, never sent, never published."""
        if self.closed or (self.silent and frame is not None):
            return
        if len(self._outbox) >= MAX_QUEUE:
            self.close(Abort(), at_once=True)
            return
        self._last_sent = now
        size = (self.split.bytes or 7) if self.split else 0
        by_fragment = self.split is not None and self.split.shape == "fragments"
        self._outbox.append((Text(text, size if by_fragment else 0, 0 if by_fragment else size), frame))

    def _fault(self, kind: str, now: float, channel: str | None = None) -> Fault | None:
        fault = self.exchange.schedule.take(kind, now, dialect=self.dialect, channel=channel, connection=self.number)
        if fault is not None:
            self.exchange.ledger.struck(kind, now, self.connection_id)
        return fault
