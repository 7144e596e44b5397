"""The protocol of one connection, without I/O: greeting, subscribe, acknowledgement, snapshot, live.

A session is told what happened and when (``connected``, ``authorize``, ``receive``, ``tick``, ``disconnected``); it
answers with what came of it, with what to send (``data_to_send``) and with when to wake it (``deadline``). Times are
seconds of a clock that never steps back. It is used once: after ``failure`` is set it says nothing more, and to
reconnect one makes a new session. It never raises for what the peer does.

A subscription is live after its own acknowledgement and its own snapshot, in whichever order they come. One that is
refused, not answered in time, without a snapshot, or taken back by the server fails the whole session: Kraken leaves
the socket open after an error, and a client that watches only the socket would sit there deaf.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .wire import Ack, Data, Dialect, EngineStatus, FrameType, Heartbeat, Item, Pong, ServerError, Unknown

# ------------------------------------------------------------------------------------------------ what comes of it


class Records(msgspec.Struct, gc=False):
    """The items of one frame, to be written in their order. ``epoch`` counts the channel's further snapshots on this
    connection: with each of them the sequence may begin again."""

    channel: str
    type: FrameType
    sequence: int | None
    items: list[Item]
    epoch: int = 0


class Opaque(msgspec.Struct):
    """A frame to be written whole: this version does not know it. ``json`` tells whether it is JSON at all."""

    frame: bytes
    json: bool


class Live(msgspec.Struct):
    """A channel is acknowledged and its snapshot was received."""

    channel: str


class EngineChanged(msgspec.Struct):
    """Kraken's engine is in another state than it was on this connection before."""

    engine: str


class Notice(msgspec.Struct):
    """Something for the diagnostics. ``fields`` may hold text from the exchange."""

    event: str
    fields: dict[str, object]
    warning: bool = True


Event = Records | Opaque | Live | EngineChanged | Notice


class Failure(msgspec.Struct, frozen=True):
    """Why a session is over.

    ``cause`` is a word of a closed vocabulary: ``refused``, ``no_ack``, ``no_snapshot``, ``unsubscribed``,
    ``sequence``, ``silence``, ``closed``, ``frame_too_big``. ``detail`` is for people. ``refusal`` is Kraken's error
    string, if it gave one.
    """

    cause: str
    detail: str
    refusal: str | None = None


class Timing(msgspec.Struct, frozen=True):
    """Seconds: to wait for an acknowledgement and then for the snapshot; without a text frame until death."""

    ack: float
    silence: float


# ------------------------------------------------------------------------------------------------ one subscription


class Subscription:
    """One channel of the session: what was asked, what came."""

    __slots__ = ("acked", "channel", "deadline", "last", "req_id", "sequence", "snapshot")

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.req_id: int | None = None
        self.acked = False
        self.snapshot = False
        self.deadline: float | None = None
        self.sequence: int | None = None
        self.last = b""  # the last frame, to tell an exact repeat from another frame of the same number

    @property
    def live(self) -> bool:
        """Whether the channel's records are whole from here on."""
        return self.acked and self.snapshot


# ------------------------------------------------------------------------------------------------ the session


class Session:
    """See the module.

    Args:
        dialect: the module that knows the frames.
        channels: what to subscribe to, at least one.
        timing: the deadlines.
    """

    def __init__(self, dialect: Dialect, channels: Sequence[str], timing: Timing) -> None:
        self.dialect = dialect
        self.timing = timing
        self.subscriptions = {channel: Subscription(channel) for channel in channels}
        self.failure: Failure | None = None
        self.engine: str | None = None
        self.last_text: float | None = None
        self._heard_heartbeat = False
        self._pinged = False
        self._req_id = 0
        self._outbox: list[str] = []

    # -- what happened

    def connected(self, now: float) -> None:
        """The socket is open. Kraken greets first; a session does not insist on it."""
        self.last_text = now

    def authorize(self, token: str, now: float) -> None:
        """Subscribe to every channel with ``token``. After this, send :meth:`data_to_send`."""
        for subscription in self.subscriptions.values():
            subscription.req_id = self._next_req_id()
            subscription.deadline = now + self.timing.ack
            self._outbox.append(self.dialect.subscribe(subscription.channel, token, subscription.req_id))

    def receive(self, frame: bytes, now: float) -> Sequence[Event]:
        """A text frame arrived. What came of it, in order; nothing once the session has failed."""
        if self.failure is not None:
            return ()
        self.last_text = now
        self._pinged = False
        said = self.dialect.decode(frame)
        if type(said) is Data:
            return self._data(said, frame)
        match said:
            case Heartbeat():
                self._heard_heartbeat = True
                return ()
            case Pong():
                return ()
            case Ack():
                return self._ack(said, now)
            case EngineStatus():
                return self._status(said)
            case ServerError():
                return self._error(said)
            case Unknown():
                return (Opaque(frame, said.json), Notice("frame_unknown", {"why": said.why, "bytes": len(frame)}))
        return ()

    def tick(self, now: float) -> None:
        """Time passed. Call it at :meth:`deadline`; then send :meth:`data_to_send`, and look at ``failure``."""
        if self.failure is not None:
            return
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None and subscription.deadline <= now:
                if subscription.acked:
                    self._fail("no_snapshot", f"{subscription.channel}: acknowledged, but no snapshot came")
                else:
                    self._fail("no_ack", f"{subscription.channel}: the subscription was not answered")
                return
        if self.last_text is None:
            return
        if self.last_text + self.timing.silence <= now:
            self._fail("silence", f"no frame for {self.timing.silence:g} s")
        elif self._ping_due() and self.last_text + self.timing.silence / 2 <= now:
            self._pinged = True
            self._outbox.append(self.dialect.ping(self._next_req_id()))

    def excuse(self, seconds: float) -> None:
        """We did not listen for so long (the output was full, the process was stopped): it was not silence."""
        if self.last_text is not None:
            self.last_text += seconds
        for subscription in self.subscriptions.values():
            if subscription.deadline is not None:
                subscription.deadline += seconds

    def disconnected(self, detail: str, cause: str = "closed") -> None:
        """The socket is gone, for a reason of the peer's or the network's."""
        self._fail(cause, detail)

    # -- what to do

    def data_to_send(self) -> list[str]:
        """The text frames to send, once. They hold the token: not for logs."""
        outbox, self._outbox = self._outbox, []
        return outbox

    def deadline(self) -> float | None:
        """When to call :meth:`tick`, as far as is known now; it may well come to nothing by then."""
        if self.failure is not None or self.last_text is None:
            return None
        idle = self.timing.silence / 2 if self._ping_due() else self.timing.silence
        times = [s.deadline for s in self.subscriptions.values() if s.deadline is not None]
        return min([self.last_text + idle, *times])

    @property
    def live(self) -> bool:
        """Whether every channel is live."""
        return self.failure is None and all(s.live for s in self.subscriptions.values())

    # -- frames

    def _data(self, data: Data, frame: bytes) -> Sequence[Event]:
        subscription = self.subscriptions.get(data.channel)
        if subscription is None:
            return (Opaque(frame, json=True), Notice("channel_not_subscribed", {"channel": data.channel}))
        before, number = subscription.sequence, data.sequence
        first = not subscription.snapshot and self._opens(data)
        kind: FrameType = "snapshot" if data.type == "snapshot" or first else "update"
        if number is not None:
            if number == before and frame == subscription.last:
                return (Notice("frame_repeated", {"channel": data.channel, "sequence": number}),)
            if before is not None and number != before + 1 and kind == "update":
                # What came is written all the same: it is what did not come that is lost.
                self._fail("sequence", f"{data.channel}: {number} after {before}")
                return (Records(data.channel, kind, number, data.items),)
            # An update may have come before the snapshot; the count goes on from the higher of the two.
            subscription.sequence = max(number, before or 0) if first else number
        subscription.last = frame
        records = Records(data.channel, kind, data.sequence, data.items)
        if not first:
            return (records,)
        subscription.snapshot = True
        return (records, *self._progress(subscription))

    @staticmethod
    def _opens(data: Data) -> bool:
        """Whether the frame is the channel's snapshot. v1 does not say: its first frame is, numbered 1 in every
        recording; another number is believed only if no item of the frame looks like a change."""
        if data.type is not None:
            return data.type == "snapshot"
        return data.sequence in (1, None) or not data.partial

    def _ack(self, ack: Ack, now: float) -> Sequence[Event]:
        subscription = self._subscription_of(ack)
        if subscription is None:
            if ack.error is not None and ack.req_id is None:
                return self._error(ServerError(ack.error))
            return (Notice("answer_unexpected", {"channel": ack.channel, "error": ack.error}),)
        channel = subscription.channel
        if ack.verb == "unsubscribe":
            self._fail("unsubscribed", f"{channel}: the server took the subscription back")
        elif ack.error is not None:
            cause = "unsubscribed" if subscription.acked else "refused"
            self._fail(cause, f"{channel}: {ack.error}", ack.error)
        elif not subscription.acked and subscription.req_id is not None:
            subscription.acked = True
            subscription.deadline = None if subscription.snapshot else now + self.timing.ack
            notices = [Notice("kraken_warns", {"channel": channel, "text": t}, warning=False) for t in ack.warnings]
            return (*notices, *self._progress(subscription))
        return ()

    def _subscription_of(self, ack: Ack) -> Subscription | None:
        """By the request's number; by the channel's name where there is no number, or none of ours and bad news."""
        if type(ack.req_id) is int:
            for subscription in self.subscriptions.values():
                if subscription.req_id == ack.req_id:
                    return subscription
        named = self.subscriptions.get(ack.channel) if ack.channel is not None else None
        if named is None or ack.req_id is None:
            return named
        return named if named.acked and (ack.verb == "unsubscribe" or ack.error is not None) else None

    def _status(self, status: EngineStatus) -> Sequence[Event]:
        before, self.engine = self.engine, status.engine
        if before is None:
            fields: dict[str, object] = {"engine": status.engine, "kraken_connection": status.connection_id}
            return (Notice("greeted", fields, warning=False),)
        return () if before == status.engine else (EngineChanged(status.engine),)

    def _error(self, error: ServerError) -> Sequence[Event]:
        """An error that names no channel is the answer to what we wait for, unless its number says otherwise."""
        waiting = [s.req_id for s in self.subscriptions.values() if s.req_id is not None and not s.acked]
        if waiting and (error.req_id is None or error.req_id in waiting):
            self._fail("refused", error.text, error.text)
        return (Notice("kraken_error", {"error": error.text}),)

    # -- small parts

    def _progress(self, subscription: Subscription) -> Sequence[Event]:
        if not subscription.live:
            return ()
        subscription.deadline = None
        return (Live(subscription.channel),)

    def _ping_due(self) -> bool:
        """Until a heartbeat was heard a quiet peer may be a healthy one, and gets the chance to say so. From then on
        it has to speak by itself: a pong would prove the connection, not the feed."""
        return not self._heard_heartbeat and not self._pinged

    def _next_req_id(self) -> int:
        self._req_id += 1
        return self._req_id

    def _fail(self, cause: str, detail: str, refusal: str | None = None) -> None:
        if self.failure is None:
            self.failure = Failure(cause, detail, refusal)
