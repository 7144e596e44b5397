"""The protocol of one connection, without I/O: greeting, subscribe, acknowledgement, snapshot, live.

A session is told what happened and when (``connected``, ``authorize``, ``receive``, ``tick``, ``disconnected``). It
answers with events, with what to send (``data_to_send``) and with when to wake it (``deadline``). It is also told of
frames that arrive slowly (``progress``). Times are seconds of
a clock that never steps back. It is used once: after ``failure`` is set it says nothing more, and to reconnect one
makes a new session. It never raises for what the peer does.

A subscription is live after its own acknowledgement and its own snapshot, in whichever order they come. One that is
refused, not answered in time, without a snapshot, or taken back by the server fails the whole session: Kraken leaves
the socket open after an error, and a client that watches only the socket would receive nothing and not notice.

A session sends application pings. The answer queues behind everything that Kraken sent before it, so all of that has
been received. A server that answers pings can have stopped to feed us, so a heartbeat or data has to follow: see
:class:`Complete`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import msgspec

from .wire import Ack, Data, Dialect, EngineStatus, FrameType, Heartbeat, Item, Pong, ServerError, Unknown, number

OUTSTANDING = 8  # pings that wait for their answer; without any answer that is eight minutes of them
ENGINES = frozenset({"online", "maintenance", "cancel_only", "limit_only", "post_only"})  # the states with a name
UNANSWERED = 6  # times the interval of the pings: after so long without an answer the next ping is sent all the same

# ------------------------------------------------------------------------------------------------ events


class Records(msgspec.Struct, gc=False):
    """The items of one frame, to be written in their order.

    ``epoch`` counts the channel's snapshots on this connection after the first. Kraken may start its sequence again
    with a snapshot, so the place of a frame is its epoch and its sequence.
    """

    channel: str
    type: FrameType
    sequence: int | None
    items: list[Item]
    epoch: int = 0


class Opaque(msgspec.Struct):
    """A frame to be written complete: this version does not know it, or a part of it. ``json`` tells whether it is
    JSON at all."""

    frame: bytes
    json: bool


class Live(msgspec.Struct):
    """A channel is acknowledged and its snapshot was received."""

    channel: str


class Resnapshot(msgspec.Struct):
    """A live channel has got another snapshot. Its records come next, and then :class:`Live` once more.

    What happened between the channel's last frame and this snapshot may be missing. ``stamp`` is that of the last ping
    that was answered before that frame; None if none was.
    """

    channel: str
    stamp: int | None


class Answered(msgspec.Struct):
    """Kraken has answered a ping.

    ``stamp`` is what the owner gave when the ping was sent. The times are Kraken's, in unix nanoseconds, if it said
    them: its clock stood between the two at some moment between ``stamp`` and now.
    """

    stamp: int
    time_in_ns: int | None
    time_out_ns: int | None


class Complete(msgspec.Struct):
    """Everything that Kraken had to say until the ping of ``stamp`` left us has been received."""

    stamp: int


class EngineChanged(msgspec.Struct):
    """Kraken's engine is in another state than it was on this connection before."""

    engine: str


class Notice(msgspec.Struct):
    """Something for the diagnostics. ``fields`` may hold text from the exchange, masked."""

    event: str
    fields: dict[str, object]
    warning: bool = True


Event = Records | Opaque | Live | Resnapshot | Answered | Complete | EngineChanged | Notice


class Failure(msgspec.Struct, frozen=True):
    """Why a session is over.

    ``cause`` is a word of a closed vocabulary: ``refused``, ``no_ack``, ``no_snapshot``, ``unsubscribed``,
    ``sequence``, ``silence``, ``closed``, ``frame_too_big``. ``detail`` is for people. ``refusal`` is Kraken's error
    string as it came, if it gave one: mask it before it is shown.
    """

    cause: str
    detail: str
    refusal: str | None = None


class Timing(msgspec.Struct, frozen=True):
    """Seconds.

    ``ack``: to wait for an acknowledgement, and then for the snapshot. ``silence``: without a text frame until the
    connection counts as dead. ``ping``: between two application pings.
    """

    ack: float
    silence: float
    ping: float = 10.0


# ------------------------------------------------------------------------------------------------ one subscription


class Subscription:
    """One channel of the session: what was asked, what came."""

    __slots__ = ("acked", "channel", "deadline", "epoch", "last", "req_id", "sequence", "snapshot", "stamp")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.req_id: int | None = None
        self.acked = False
        self.snapshot = False
        self.stamp: int | None = None  # of the last ping that was answered before the last frame in its sequence
        self.deadline: float | None = None
        self.sequence: int | None = None
        self.epoch = 0  # snapshots after the first
        self.last = b""  # the last frame, to tell an exact repeat from another frame of the same number

    @property
    def live(self) -> bool:
        """Tell whether the channel is acknowledged and has its snapshot."""
        return self.acked and self.snapshot


# ------------------------------------------------------------------------------------------------ the session


class Session:
    """See the module.

    Args:
        dialect: the module that knows the frames.
        channels: what to subscribe to, at least one.
        timing: the deadlines.
        mask: takes secrets out of Kraken's words.

    ``stamp`` in the methods is an opaque moment, which comes back in :class:`Answered` and :class:`Complete`. Take it
    right before what the session has to send goes to the socket.
    """

    def __init__(
        self, dialect: Dialect, channels: Sequence[str], timing: Timing, mask: Callable[[str], str] = str
    ) -> None:
        self.dialect = dialect
        self.timing = timing
        self._mask = mask
        self.subscriptions = {channel: Subscription(channel) for channel in channels}
        self.failure: Failure | None = None
        self.engine: str | None = None
        self.greeted: str | None = None  # the first engine state that this connection told
        self.last_text: float | None = None
        self._arriving: tuple[float, float] | None = None  # when bytes came of a frame whose end has not come
        self._told = 0.0  # the last time that the session was told
        self._confirmed: int | None = None  # the stamp of the last answered ping
        self._beat: int | None = None  # the same when the last heartbeat came
        self._unproven: int | None = None  # that stamp, until it is in a Complete
        self._heard_heartbeat = False
        self._authorized = False
        self._pings: dict[int, int] = {}  # stamps of those that wait for their answer, the oldest first
        self._forgotten = 0  # pings that were dropped from these, whose answer may still come
        self._pinged_at = 0.0  # when the last one was sent
        self._pinged = False  # since the last text frame
        self._answered = True  # the last one
        self._hurried = False
        self._req_id = 0
        self._outbox: list[str] = []

    # -- what happened

    def connected(self, now: float) -> None:
        """Note that the socket is open. Kraken greets first; a session does not insist on it."""
        self.last_text = self._told = now

    def authorize(self, token: str, now: float, stamp: int) -> None:
        """Subscribe to every channel with ``token``, and ping. After this, send :meth:`data_to_send`."""
        self._told = now
        for subscription in self.subscriptions.values():
            subscription.req_id = self._next_req_id()
            subscription.deadline = now + self.timing.ack
            self._outbox.append(self.dialect.subscribe(subscription.channel, token, subscription.req_id))
        self._authorized = True
        self._ping(now, stamp)

    def receive(self, frame: bytes, now: float) -> Sequence[Event]:
        """Take in a text frame, and return what came of it, in order; nothing once the session has failed."""
        if self.failure is not None:
            return ()
        heard = self.last_text
        self.last_text = self._told = now
        self._pinged = False
        said = self.dialect.decode(frame)
        if type(said) is Data:
            events = self._data(said, frame)
            return events if self._unproven is None or self.failure is not None else (*events, self._prove())
        match said:
            case Heartbeat():
                self._heard_heartbeat = True
                self._beat = self._confirmed
                return () if self._unproven is None else (self._prove(),)
            case Pong():
                if self._heard_heartbeat:
                    self.last_text = heard  # a pong proves the connection, not the feed, which has to speak by itself
                return self._confirm(said)
            case Ack():
                return self._ack(said, now)
            case EngineStatus():
                return self._status(said)
            case ServerError():
                return self._error(said)
            case Unknown():
                return self._unknown(said, frame)
        return ()

    def tick(self, now: float, stamp: int) -> None:
        """Note that time passed. Call it at :meth:`deadline`; then send :meth:`data_to_send`, and look at
        ``failure``."""
        if self.failure is not None:
            return
        self._told = now
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None and self._due(subscription.deadline) <= now:
                if subscription.acked:
                    self._fail("no_snapshot", f"{subscription.channel}: acknowledged, but no snapshot came")
                else:
                    self._fail("no_ack", f"{subscription.channel}: the subscription was not answered")
                return
        if self.last_text is None:
            return
        if self._silent_at(self.last_text) <= now:
            self._fail("silence", f"no frame for {self.timing.silence:g} s")
        elif self._ping_due(self.last_text) <= now:
            self._ping(now, stamp)

    def hurry(self) -> None:
        """Send a ping with the next :meth:`tick`, and make it due now, even if another ping waits for its answer.

        Call it after a suspend or a step of the clock: whatever was sent before says nothing about the time since.
        """
        self._hurried = True

    def excuse(self, seconds: float) -> None:
        """Do not count the last ``seconds`` as silence: we did not listen (the output was full, the process was
        stopped)."""
        if self.last_text is not None:
            self.last_text = self._silent_at(self.last_text) - self.timing.silence + seconds
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None:
                subscription.deadline = self._due(subscription.deadline) + seconds

    def progress(self, arriving: tuple[float, float] | None, delay: float) -> None:
        """Note how frames arrive on a slow line.

        As long as one frame arrives, its bytes count like a frame, and the deadlines wait. Answers queue behind it, so
        the time that it took is given to them as well. It must have begun before a deadline: of ever new frames in
        pieces, only what they say counts.

        Args:
            arriving: when the first and the last bytes came of a frame whose end has not come; None: there is none.
            delay: seconds that frames took which came slowly, and are complete since the last call.
        """
        self._arriving = arriving
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None:
                subscription.deadline += delay

    def disconnected(self, detail: str, cause: str = "closed") -> None:
        """Note that the socket is gone, for a reason of the peer's or the network's."""
        self._fail(cause, detail)

    # -- what to do

    def data_to_send(self) -> list[str]:
        """Return the text frames to send, once. They hold the token: not for logs."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick`, as far as is known now; there may be nothing to do by then."""
        if self.failure is not None or self.last_text is None:
            return None
        times = [self._due(s.deadline) for s in self.subscriptions.values() if s.deadline is not None]
        return min([self._silent_at(self.last_text), self._ping_due(self.last_text), *times])

    @property
    def spoke(self) -> int | None:
        """Return the stamp of the last ping that was answered before the feed was last heard: a heartbeat, or data. A
        server can answer pings and have nothing else to say any more. None: no ping was answered before."""
        stamps = [self._beat, *(subscription.stamp for subscription in self.subscriptions.values())]
        return max((stamp for stamp in stamps if stamp is not None), default=None)

    @property
    def live(self) -> bool:
        """Tell whether every channel is live."""
        return self.failure is None and all(s.live for s in self.subscriptions.values())

    # -- data

    def _data(self, data: Data, frame: bytes) -> Sequence[Event]:
        subscription = self.subscriptions.get(data.channel)
        if subscription is None:
            return (Opaque(frame, json=True), Notice("channel_not_subscribed", {"channel": self._mask(data.channel)}))
        before, sequence = subscription.sequence, data.sequence
        follows = before is None or sequence is None or sequence == before + 1
        if subscription.snapshot and follows and data.type != "snapshot":
            pass  # by far the most frequent case, so it comes first
        elif sequence is not None and frame == subscription.last:
            return (_repeated(data.channel, sequence),)
        elif _looks_like_a_snapshot(subscription, data):
            return self._snapshot(subscription, data, frame)
        elif not follows:
            # What came is written all the same: it is what did not come that is lost.
            self._fail("sequence", f"{data.channel}: {sequence} after {before}")
            return _records(subscription, "update", data, frame)
        if sequence is not None:
            subscription.sequence = sequence
        subscription.last, subscription.stamp = frame, self._confirmed
        if data.odd:
            return _records(subscription, "update", data, frame)
        return (Records(data.channel, "update", sequence, data.items, subscription.epoch),)

    def _snapshot(self, subscription: Subscription, data: Data, frame: bytes) -> Sequence[Event]:
        """Take in a channel's snapshot, or another one of a channel that has its snapshot."""
        before, sequence, again = subscription.sequence, data.sequence, subscription.snapshot
        if sequence is not None:
            # An update may have come before the first snapshot; then the count goes on from the higher of the two. Any
            # other snapshot starts the count again, at whatever number.
            subscription.sequence = sequence if again or before is None else max(sequence, before)
        # Ids contain the place of a frame, and the numbers may come a second time.
        subscription.epoch += again
        subscription.snapshot = True
        stamp = subscription.stamp
        subscription.last, subscription.stamp = frame, self._confirmed
        records = _records(subscription, "snapshot", data, frame)
        first = (Resnapshot(data.channel, stamp),) if again and subscription.live else ()
        return (*first, *records, *self._progress(subscription))

    def _unknown(self, unknown: Unknown, frame: bytes) -> Sequence[Event]:
        """Pass on a frame that is not understood. If it still tells its channel and sequence, it counts."""
        events = _opaque(frame, unknown.json, unknown.why)
        subscription = self.subscriptions.get(unknown.channel) if unknown.channel is not None else None
        sequence = unknown.sequence
        if subscription is None or sequence is None:
            return events
        if frame == subscription.last:
            return (_repeated(subscription.channel, sequence),)
        before = subscription.sequence
        if before is not None and sequence != before + 1:
            self._fail("sequence", f"{subscription.channel}: {sequence} after {before}")
            return events
        subscription.sequence = sequence
        subscription.last, subscription.stamp = frame, self._confirmed
        return events

    # -- other frames

    def _ack(self, ack: Ack, now: float) -> Sequence[Event]:
        subscription = self._subscription_of(ack)
        if subscription is None:
            if ack.error is not None and ack.req_id is None:
                return self._error(ServerError(ack.error))
            said = {"channel": ack.channel, "error": ack.error}
            masked: dict[str, object] = {key: text and self._mask(text) for key, text in said.items()}
            return (Notice("answer_unexpected", masked),)
        channel = subscription.channel
        if ack.verb == "unsubscribe":
            self._fail("unsubscribed", f"{channel}: the server took the subscription back")
        elif ack.error is not None:
            cause = "unsubscribed" if subscription.acked else "refused"
            self._fail(cause, f"{channel}: {self._mask(ack.error)}", ack.error)
        elif not subscription.acked and subscription.req_id is not None:
            subscription.acked = True
            subscription.deadline = None if subscription.snapshot else now + self.timing.ack
            texts = map(self._mask, ack.warnings)
            notices = [Notice("kraken_warns", {"channel": channel, "text": text}, warning=False) for text in texts]
            return (*notices, *self._progress(subscription))
        return ()

    def _subscription_of(self, ack: Ack) -> Subscription | None:
        """Find it by the request's number; by the channel's name where there is no number, or none of ours and bad
        news."""
        req_id = number(ack.req_id)
        if req_id is not None:
            for subscription in self.subscriptions.values():
                if subscription.req_id == req_id:
                    return subscription
        named = self.subscriptions.get(ack.channel) if ack.channel is not None else None
        if named is None or ack.req_id is None:
            return named
        return named if named.acked and (ack.verb == "unsubscribe" or ack.error is not None) else None

    def _status(self, status: EngineStatus) -> Sequence[Event]:
        """Take in the engine's state. The first one is the greeting, and it need not be "online"."""
        engine = status.engine.casefold()
        engine = engine if engine == "online" else status.engine
        engine = engine if engine in ENGINES else self._mask(engine)
        before, self.engine = self.engine, engine
        if before is None:
            self.greeted = engine
            fields: dict[str, object] = {"engine": engine, "kraken_connection": self._mask(status.connection_id)}
            notice = Notice("greeted", fields, warning=False)
            # Where nobody greeted, the first word of the engine on a live connection is a change. A greeting that is
            # late says "online".
            late = engine != "online" and any(subscription.live for subscription in self.subscriptions.values())
            return (notice, EngineChanged(engine)) if late else (notice,)
        return () if before.casefold() == engine.casefold() else (EngineChanged(engine),)

    def _error(self, error: ServerError) -> Sequence[Event]:
        """Take an error that names no channel for the answer to what we wait for, unless its number says otherwise."""
        waiting = [s.req_id for s in self.subscriptions.values() if s.req_id is not None and not s.acked]
        if waiting and (error.req_id is None or number(error.req_id) in waiting):
            self._fail("refused", self._mask(error.text), error.text)
        return (Notice("kraken_error", {"error": self._mask(error.text)}),)

    # -- pings

    def _ping(self, now: float, stamp: int) -> None:
        if len(self._pings) == OUTSTANDING:
            del self._pings[next(iter(self._pings))]
            self._forgotten += 1
        req_id = self._next_req_id()
        self._pings[req_id] = stamp
        self._pinged_at, self._pinged, self._answered, self._hurried = now, True, False, False
        self._outbox.append(self.dialect.ping(req_id))

    def _ping_due(self, last_text: float) -> float:
        """Return when to send the next ping.

        Until a heartbeat was heard a quiet peer may be a healthy one, so it is asked after half of ``silence``, once.
        From then on it has to speak by itself.
        """
        if self._hurried:
            return self._told
        due = math.inf
        if not self._heard_heartbeat and not self._pinged:
            due = last_text + self.timing.silence / 2
        if self._authorized:
            wait = self.timing.ping if self._answered else UNANSWERED * self.timing.ping
            due = min(due, self._pinged_at + wait)
        return due

    def _confirm(self, pong: Pong) -> Sequence[Event]:
        """Find the ping that was answered.

        A pong without a number counts for the oldest ping that waits, or for one that is forgotten: it may be late.
        So it never proves more than it says.
        """
        if pong.req_id is None:
            self._answered = True
            if self._forgotten:
                self._forgotten -= 1
                return ()
            req_id = next(iter(self._pings), None)
        else:
            req_id = number(pong.req_id)
            self._answered = self._answered or req_id == next(reversed(self._pings), None)
        stamp = self._pings.pop(req_id, None) if req_id is not None else None
        if stamp is None:
            return ()
        self._confirmed = self._unproven = stamp if self._confirmed is None else max(self._confirmed, stamp)
        return (Answered(stamp, pong.time_in_ns, pong.time_out_ns),)

    def _prove(self) -> Complete:
        """The feed has spoken behind an answered ping."""
        assert self._unproven is not None
        proof, self._unproven = Complete(self._unproven), None
        return proof

    # -- small parts

    def _progress(self, subscription: Subscription) -> Sequence[Event]:
        if not subscription.live:
            return ()
        subscription.deadline = None
        return (Live(subscription.channel),)

    def _silent_at(self, last_text: float) -> float:
        """Return when the peer counts as silent."""
        return self._postponed(last_text + self.timing.silence, self.timing.silence)

    def _due(self, deadline: float) -> float:
        """Return when a subscription is overdue."""
        return self._postponed(deadline, self.timing.ack)

    def _postponed(self, deadline: float, seconds: float) -> float:
        """Return the deadline, or so long after the last bytes of a frame that began to arrive before it."""
        if self._arriving is None or self._arriving[0] > deadline:
            return deadline
        return max(deadline, self._arriving[1] + seconds)

    def _next_req_id(self) -> int:
        self._req_id += 1
        return self._req_id

    def _fail(self, cause: str, detail: str, refusal: str | None = None) -> None:
        if self.failure is None:
            self.failure = Failure(cause, detail, refusal)


# ------------------------------------------------------------------------------------------------ parts without state


def _looks_like_a_snapshot(subscription: Subscription, data: Data) -> bool:
    """Tell whether a frame of v1, which does not say, is the channel's snapshot.

    The first one is numbered 1 in every recording. A first frame of another number is believed only if no item looks
    like a change. On a live channel a frame is believed that starts the count again with complete items.
    """
    if data.type is not None:
        return data.type == "snapshot"
    before, sequence = subscription.sequence, data.sequence
    if subscription.snapshot:
        restarts = sequence == 1 and before is not None and before > 1
        return restarts and subscription.live and bool(data.items) and not data.partial
    if sequence is None or sequence == 1:
        return True
    continues = before is not None and sequence == before + 1
    return not data.partial and not continues


def _records(subscription: Subscription, kind: FrameType, data: Data, frame: bytes) -> tuple[Event, ...]:
    """Return the items of a frame, and the complete frame if it is odd."""
    records = Records(data.channel, kind, data.sequence, data.items, subscription.epoch)
    return (records, *_opaque(frame, True, "a part of it has an unknown shape")) if data.odd else (records,)


def _opaque(frame: bytes, json: bool, why: str) -> tuple[Event, ...]:
    return (Opaque(frame, json), Notice("frame_unknown", {"why": why, "bytes": len(frame)}))


def _repeated(channel: str, sequence: int) -> Notice:
    return Notice("frame_repeated", {"channel": channel, "sequence": sequence})
