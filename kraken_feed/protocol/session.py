"""Implement the protocol of one connection, without I/O: greeting, subscribe, acknowledgement, snapshot, live.

The owner calls ``connected``, ``authorize``, ``receive``, ``tick`` and ``disconnected`` with what happened and when;
``note_slow_frames`` reports frames that arrive slowly. The session returns events, what to send (``data_to_send``) and
when to wake it (``deadline``). Times are seconds of a clock that never steps back. A session is used once: after
``failure`` is set it does nothing more. To reconnect, make a new session. It never raises for what the peer does.

A subscription is live after its own acknowledgement and its own snapshot, in either order. If one is refused, ended by
the server, or late with its acknowledgement or snapshot, the whole session fails. Kraken leaves the socket open after
an error: a client that watches only the socket would not notice.

A session sends application pings. The answer queues behind everything that Kraken sent before it, so all of that has
been received. A server that answers pings may have stopped sending data, so a heartbeat or data must follow: see
:class:`Complete`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import InitVar, dataclass

import msgspec

from ..text import Mask
from .wire import Ack, Data, Dialect, EngineStatus, FrameType, Heartbeat, Pong, ServerError, Unknown, number

OUTSTANDING = 8  # pings that wait for an answer; if none is answered, these span eight minutes
ENGINES = frozenset({"online", "maintenance", "cancel_only", "limit_only", "post_only"})  # the states with a name
UNANSWERED = 6  # ping intervals without an answer, after which another ping is sent

# ------------------------------------------------------------------------------------------------ events


class Opaque(msgspec.Struct):
    """A complete frame that is written as it is, because this version does not know it or a part of it.

    ``json`` is whether it is JSON.
    """

    frame: bytes
    json: bool


class Live(msgspec.Struct):
    """A channel is acknowledged and its snapshot was received."""

    channel: str


class Resnapshot(msgspec.Struct):
    """A live channel has received another snapshot. Its records come next, and then :class:`Live` again.

    Events between the channel's last frame and this snapshot may be missing. ``stamp`` belongs to the last ping that
    was answered before that frame; None if there was none.
    """

    channel: str
    stamp: int | None


class Answered(msgspec.Struct):
    """Kraken has answered a ping.

    ``stamp`` is what the owner passed when the ping was sent. The two times are Kraken's, in unix nanoseconds, or None.
    At some moment between ``stamp`` and now, its clock was between them.
    """

    stamp: int
    time_in_ns: int | None
    time_out_ns: int | None


class Complete(msgspec.Struct):
    """Everything that Kraken sent until the ping of ``stamp`` left us has been received."""

    stamp: int


class EngineChanged(msgspec.Struct):
    """The state of Kraken's engine has changed on this connection."""

    engine: str


class Notice(msgspec.Struct):
    """An event for the diagnostics. ``fields`` may hold text from Kraken, masked."""

    event: str
    fields: dict[str, object]
    warning: bool = True


Event = Data | Opaque | Live | Resnapshot | Answered | Complete | EngineChanged | Notice


class Failure(msgspec.Struct, frozen=True):
    """Why a session is over.

    ``cause`` is one of ``refused``, ``no_ack``, ``no_snapshot``, ``unsubscribed``, ``sequence``, ``silence``,
    ``closed``, ``frame_too_big``, ``maintenance``. ``detail`` is for people. ``refusal`` is Kraken's error string
    unchanged, if there was one: mask it before it is shown.
    """

    cause: str
    detail: str
    refusal: str | None = None


class Timing(msgspec.Struct, frozen=True):
    """The deadlines of a session, in seconds.

    ``ack``: to wait for an acknowledgement, and then for the snapshot. ``silence``: without a text frame until the
    connection counts as dead. ``ping``: between two application pings.
    """

    ack: float
    silence: float
    ping: float = 10.0


# ------------------------------------------------------------------------------------------------ one subscription


class Subscription:
    """The state of one channel in the session."""

    __slots__ = ("acked", "channel", "deadline", "epoch", "last", "req_id", "sequence", "snapshot", "stamp")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.req_id: int | None = None
        self.acked = False
        self.snapshot = False
        self.stamp: int | None = None  # of the last ping answered before the channel's last frame
        self.deadline: float | None = None
        self.sequence: int | None = None
        self.epoch = 0  # snapshots after the first
        self.last = b""  # the last frame, to tell an exact repeat from another frame of the same number

    @property
    def live(self) -> bool:
        """Whether the channel is acknowledged and has its snapshot."""
        return self.acked and self.snapshot


# ------------------------------------------------------------------------------------------------ the session


@dataclass(eq=False, repr=False)
class Session:
    """The protocol of one connection.

    ``stamp`` in the methods is an opaque moment, which comes back in :class:`Answered` and :class:`Complete`. Take it
    immediately before you write the frames of :meth:`data_to_send` to the socket.
    """

    dialect: Dialect  # the module that decodes and encodes frames
    channels: InitVar[Sequence[str]]  # to subscribe to, at least one
    timing: Timing
    mask: Mask = str

    def __post_init__(self, channels: Sequence[str]) -> None:
        self.subscriptions = {channel: Subscription(channel) for channel in channels}
        self.failure: Failure | None = None
        self.engine: str | None = None
        self.last_text: float | None = None
        self._arriving: tuple[float, float] | None = None  # when bytes of an incomplete frame arrived
        self._told = 0.0  # the last time that was passed to the session
        self._confirmed: int | None = None  # stamp of the last answered ping
        self._beat: int | None = None  # value of `_confirmed` when the last heartbeat came
        self._unproven: int | None = None  # value of `_confirmed` that no Complete has reported yet
        self._heard_heartbeat = False
        self._authorized = False
        self._pings: dict[int, int] = {}  # stamps of pings that wait for an answer, the oldest first
        self._forgotten = 0  # pings dropped from `_pings`, whose answers may still come
        self._pinged_at = 0.0  # when the last ping was sent
        self._pinged = False  # whether a ping was sent since the last text frame
        self._answered = True  # whether the last ping was answered
        self._ping_wanted = False
        self._req_id = 0
        self._outbox: list[str] = []

    # -- input

    def connected(self, now: float) -> None:
        """Note that the socket is open. Kraken greets first, but a session does not require it."""
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
        """Handle a text frame, and return its events, in order; none once the session has failed."""
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
                    self.last_text = heard  # a pong proves the connection; only heartbeats and data prove the feed
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
        """Note that time passed. Call it at :meth:`deadline`, then send :meth:`data_to_send`, and check ``failure``."""
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

    def ping_now(self) -> None:
        """Send a ping with the next :meth:`tick`, which is due at once, even if another ping waits for its answer.

        Call it after a suspend or a step of the clock: an earlier ping proves nothing about the time since.
        """
        self._ping_wanted = True

    def add_grace(self, seconds: float) -> None:
        """Do not count the last ``seconds`` as silence: nothing was read (the output was full, the process stopped)."""
        if self.last_text is not None:
            self.last_text = self._silent_at(self.last_text) - self.timing.silence + seconds
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None:
                subscription.deadline = self._due(subscription.deadline) + seconds

    def note_slow_frames(self, arriving: tuple[float, float] | None, delay: float) -> None:
        """Note how frames arrive on a slow line.

        While a frame is arriving, its bytes count like a frame, and the deadlines wait. Answers queue behind it, so
        their deadlines are extended by the time that it took. So deadlines stand still while slow frames come one right
        after the other, and go on in the pauses between them.

        Args:
            arriving: when the first and the last bytes of an incomplete frame arrived; None: there is none.
            delay: seconds that slow frames took which were completed since the last call.
        """
        self._arriving = arriving
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None:
                subscription.deadline += delay

    def disconnected(self, detail: str, cause: str = "closed") -> None:
        """Note that the connection is over: the peer or the network ended it, or its owner gives it up."""
        self._fail(cause, detail)

    # -- output

    def data_to_send(self) -> list[str]:
        """Return the text frames to send, each only once. They contain the token: do not log them."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def deadline(self) -> float | None:
        """Return when to call :meth:`tick` next. There may be nothing to do at that time."""
        if self.failure is not None or self.last_text is None:
            return None
        times = [self._due(s.deadline) for s in self.subscriptions.values() if s.deadline is not None]
        return min([self._silent_at(self.last_text), self._ping_due(self.last_text), *times])

    @property
    def last_proof(self) -> int | None:
        """The stamp of the last ping that was answered before the last heartbeat or data; None: there was none. Only
        both together prove the feed: a server can answer pings although it has stopped sending data."""
        stamps = [self._beat, *(subscription.stamp for subscription in self.subscriptions.values())]
        return max((stamp for stamp in stamps if stamp is not None), default=None)

    @property
    def live(self) -> bool:
        """Whether every channel is live and the session has not failed."""
        return self.failure is None and all(s.live for s in self.subscriptions.values())

    # -- data

    def _data(self, data: Data, frame: bytes) -> Sequence[Event]:
        """Check a data frame's place in its channel's sequence, and return its records."""
        # Kraken should not send other channels than those subscribed to. If it does, write the frame as it is: nothing
        # that came is dropped.
        subscription = self.subscriptions.get(data.channel)
        if subscription is None:
            return (Opaque(frame, json=True), Notice("channel_not_subscribed", {"channel": self.mask(data.channel)}))

        # Each channel has its own sequence, and its frames are numbered without gaps. The first frame may have any
        # number. A frame without a number cannot be checked, so it counts as the next one.
        before, sequence = subscription.sequence, data.sequence
        follows = before is None or sequence is None or sequence == before + 1

        # Decide what the frame is, the most frequent case first. The exact repeat of the last frame is dropped, because
        # its records were written already. This is checked before the test for a snapshot: v1 does not mark snapshots,
        # and a repeated first frame would look like one. Any other frame that does not follow means that frames were
        # lost. Then the session ends, and the owner reconnects for a new snapshot. This frame itself is still written.
        if subscription.snapshot and follows and data.type != "snapshot":
            pass  # an ordinary update
        elif sequence is not None and frame == subscription.last:
            return (_repeated(data.channel, sequence),)
        elif _looks_like_a_snapshot(subscription, data):
            return self._snapshot(subscription, data, frame)
        elif not follows:
            self._fail("sequence", f"{data.channel}: {sequence} after {before}")
            return _records(subscription, "update", data, frame)

        # Remember the frame, to check the next one against it. The stamp tells how far the channel was complete, should
        # it get another snapshot.
        if sequence is not None:
            subscription.sequence = sequence
        subscription.last, subscription.stamp = frame, self._confirmed

        # Write the items, and the whole frame too if a part of it was not understood: nothing that came is dropped.
        if data.odd:
            return _records(subscription, "update", data, frame)
        data.type, data.epoch = "update", subscription.epoch
        return (data,)

    def _snapshot(self, subscription: Subscription, data: Data, frame: bytes) -> Sequence[Event]:
        """Handle a channel's first snapshot, or another one of a channel that has its snapshot."""
        before, sequence, again = subscription.sequence, data.sequence, subscription.snapshot
        if sequence is not None:
            # An update may have come before the first snapshot; then the sequence continues from the higher of the two.
            # Any other snapshot starts the sequence again, at any number.
            subscription.sequence = sequence if again or before is None else max(sequence, before)
        # Ids contain the frame's epoch and sequence. Without the epoch, repeated numbers would give repeated ids.
        subscription.epoch += again
        subscription.snapshot = True
        stamp = subscription.stamp
        subscription.last, subscription.stamp = frame, self._confirmed
        records = _records(subscription, "snapshot", data, frame)
        first = (Resnapshot(data.channel, stamp),) if again and subscription.live else ()
        return (*first, *records, *self._live_if_complete(subscription))

    def _unknown(self, unknown: Unknown, frame: bytes) -> Sequence[Event]:
        """Pass on a frame that cannot be read. If its channel and sequence can be read, check and count it."""
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
            masked: dict[str, object] = {key: text and self.mask(text) for key, text in said.items()}
            return (Notice("answer_unexpected", masked),)
        channel = subscription.channel
        if ack.verb == "unsubscribe":
            self._fail("unsubscribed", f"{channel}: Kraken ended the subscription")
        elif ack.error is not None:
            cause = "unsubscribed" if subscription.acked else "refused"
            self._fail(cause, f"{channel}: {self.mask(ack.error)}", ack.error)
        elif not subscription.acked and subscription.req_id is not None:
            subscription.acked = True
            subscription.deadline = None if subscription.snapshot else now + self.timing.ack
            texts = map(self.mask, ack.warnings)
            notices = [Notice("kraken_warns", {"channel": channel, "text": text}, warning=False) for text in texts]
            return (*notices, *self._live_if_complete(subscription))
        return ()

    def _subscription_of(self, ack: Ack) -> Subscription | None:
        """Return the subscription that an answer is for. It is found by the request's number, or by the channel's name
        if there is no number. A refusal with an unknown number counts for an acknowledged channel of that name."""
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
        """Note the engine's state. The first one is the greeting, and it need not be "online"."""
        engine = status.engine.casefold()
        engine = engine if engine == "online" else status.engine
        engine = engine if engine in ENGINES else self.mask(engine)
        before, self.engine = self.engine, engine
        if before is None:
            fields: dict[str, object] = {"engine": engine, "kraken_connection": self.mask(status.connection_id)}
            notice = Notice("greeted", fields, warning=False)
            # Without a greeting, the first state on a live connection is a change, unless it is "online": that may be a
            # late greeting.
            late = engine != "online" and any(subscription.live for subscription in self.subscriptions.values())
            return (notice, EngineChanged(engine)) if late else (notice,)
        return () if before.casefold() == engine.casefold() else (EngineChanged(engine),)

    def _error(self, error: ServerError) -> Sequence[Event]:
        """Handle an error without a channel. It counts as the answer to a waiting subscription, unless it has another
        request's number."""
        waiting = [s.req_id for s in self.subscriptions.values() if s.req_id is not None and not s.acked]
        if waiting and (error.req_id is None or number(error.req_id) in waiting):
            self._fail("refused", self.mask(error.text), error.text)
        return (Notice("kraken_error", {"error": self.mask(error.text)}),)

    # -- pings

    def _ping(self, now: float, stamp: int) -> None:
        if len(self._pings) == OUTSTANDING:
            del self._pings[next(iter(self._pings))]
            self._forgotten += 1
        req_id = self._next_req_id()
        self._pings[req_id] = stamp
        self._pinged_at, self._pinged, self._answered, self._ping_wanted = now, True, False, False
        self._outbox.append(self.dialect.ping(req_id))

    def _ping_due(self, last_text: float) -> float:
        """Return when to send the next ping.

        Until the first heartbeat, a silent peer may be healthy, so it gets one ping after half of ``silence``. After
        that it must send heartbeats by itself.
        """
        if self._ping_wanted:
            return self._told
        due = math.inf
        if not self._heard_heartbeat and not self._pinged:
            due = last_text + self.timing.silence / 2
        if self._authorized:
            wait = self.timing.ping if self._answered else UNANSWERED * self.timing.ping
            due = min(due, self._pinged_at + wait)
        return due

    def _confirm(self, pong: Pong) -> Sequence[Event]:
        """Find the ping that a pong answers, and note its stamp.

        A pong without a number may be late, so it counts for the oldest ping that waits, or for a forgotten one. So it
        never proves too much.
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
        """Return the proof of completeness: a heartbeat or data came after an answered ping."""
        assert self._unproven is not None
        proof, self._unproven = Complete(self._unproven), None
        return proof

    # -- deadlines and failure

    def _live_if_complete(self, subscription: Subscription) -> Sequence[Event]:
        if not subscription.live:
            return ()
        subscription.deadline = None
        return (Live(subscription.channel),)

    def _silent_at(self, last_text: float) -> float:
        """Return when the peer counts as silent, if nothing comes until then."""
        return self._postponed(last_text + self.timing.silence, self.timing.silence)

    def _due(self, deadline: float) -> float:
        """Return when a subscription is overdue, if nothing comes until then."""
        return self._postponed(deadline, self.timing.ack)

    def _postponed(self, deadline: float, seconds: float) -> float:
        """Return the deadline. If a frame began to arrive before it, return ``seconds`` after that frame's last bytes,
        if that is later."""
        if self._arriving is None or self._arriving[0] > deadline:
            return deadline
        return max(deadline, self._arriving[1] + seconds)

    def _next_req_id(self) -> int:
        self._req_id += 1
        return self._req_id

    def _fail(self, cause: str, detail: str, refusal: str | None = None) -> None:
        if self.failure is None:
            self.failure = Failure(cause, detail, refusal)


# ------------------------------------------------------------------------------------------------ functions


def _looks_like_a_snapshot(subscription: Subscription, data: Data) -> bool:
    """Return whether a frame is the channel's snapshot. Frames of v1 do not say so themselves.

    The first one has the number 1 in every recording. A first frame with another number is accepted only if no item
    looks like a change. On a live channel, a frame is accepted that starts the sequence again with complete items.
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
    """Return the items of a frame, and the complete frame too if it is odd."""
    data.type, data.epoch = kind, subscription.epoch
    return (data, *_opaque(frame, True, "a part of it has an unknown shape")) if data.odd else (data,)


def _opaque(frame: bytes, json: bool, why: str) -> tuple[Event, ...]:
    return (Opaque(frame, json), Notice("frame_unknown", {"why": why, "bytes": len(frame)}))


def _repeated(channel: str, sequence: int) -> Notice:
    return Notice("frame_repeated", {"channel": channel, "sequence": sequence})
