"""A session and the simulated exchange in one process, without sockets: time moves when the test says so."""

from __future__ import annotations

import msgspec

from kraken_feed.protocol import spot_v1, spot_v2
from kraken_feed.protocol.session import Event, Live, Opaque, Session, Timing
from kraken_feed.protocol.wire import Data, Dialect
from kraken_feed.simulator.exchange import Exchange, Refused
from kraken_feed.simulator.wire.outgoing import Abort, Close, Text
from kraken_feed.simulator.wire.peer import Peer

T0 = 1_760_000_000.0
TIMING = Timing(ack=5.0, silence=10.0)
DIALECTS: dict[str, Dialect] = {"v1": spot_v1, "v2": spot_v2}


def _stamp(now: float) -> int:
    """Return the moment of a ping: the test's own time."""
    return round(now * 1e9)


class Line:
    """One connection: everything that either side sends reaches the other at once."""

    def __init__(self, exchange: Exchange, dialect: str, channels: tuple[str, ...], now: float) -> None:
        self.exchange = exchange
        self.session = Session(DIALECTS[dialect], channels, TIMING)
        self.events: list[Event] = []
        self.sent: list[bytes] = []  # what the client sent
        self.heard: list[bytes] = []  # what the client was sent, up to its failure
        self.confirmed: set[str] = set()  # channels whose request the server has answered with success
        self._asked: dict[int, str] = {}
        peer = exchange.connect("v1" if dialect == "v1" else "v2", now)
        assert not isinstance(peer, Refused)
        self.peer: Peer = peer
        self.session.connected(now)
        self.exchange_frames(now)

    def authorize(self, now: float) -> None:
        """Fetch a token as REST would, and subscribe with it."""
        key = next(iter(self.exchange.keys.values()))
        self.session.authorize(self.exchange.world.issue_token(key, now), now, _stamp(now))
        self.exchange_frames(now)

    def exchange_frames(self, now: float) -> None:
        """Let both sides say what they have to say."""
        for text in self.session.data_to_send():
            self.sent.append(text.encode())
            request = msgspec.json.decode(text)
            if request.get("event") == "subscribe":
                self._asked[request["reqid"]] = request["subscription"]["name"]
            if request.get("method") == "subscribe":
                self._asked[request["req_id"]] = request["params"]["channel"]
            self.peer.receive(text.encode(), now)
        for message in self.peer.outgoing():
            match message:
                case Text(data=data):
                    self._hear(data, now)
                case Close(code=code, reason=reason):
                    self.session.disconnected(f"{code} {reason}")
                case Abort():
                    self.session.disconnected("reset")

    def _hear(self, data: bytes, now: float) -> None:
        if self.session.failure is None:
            self.heard.append(data)
        self._note_confirmation(data)
        events = self.session.receive(data, now)
        self.events += events
        live = {event.channel for event in events if isinstance(event, Live)}
        assert live <= self.confirmed, "live without the server's acknowledgement"

    def _note_confirmation(self, data: bytes) -> None:
        """Read acknowledgements independently of the session's own decoders."""
        try:
            frame = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if not isinstance(frame, dict):
            return
        number = frame.get("reqid", frame.get("req_id"))
        success = frame.get("status") == "subscribed" or (frame.get("method") == "subscribe" and frame.get("success"))
        if success and isinstance(number, int) and number in self._asked:
            self.confirmed.add(self._asked[number])

    def run(self, now: float, until: float) -> float:
        """Move time to ``until``, waking either side when it wants to be; the time at which it ended."""
        while self.session.failure is None:
            deadline = self.session.deadline()
            wakeups = [until, self.exchange.next_wakeup(now)]
            if deadline is not None:
                wakeups.append(deadline)
            step = max(min(wakeups), now)
            if step >= until:
                break
            now = max(step, now + 1e-3)  # some progress, whatever the wake-ups say
            self.exchange.advance(now)
            self.exchange_frames(now)
            self.session.tick(now, _stamp(now))
            self.exchange_frames(now)
        return max(now, until) if self.session.failure is None else now

    @property
    def records(self) -> list[Data]:
        return [event for event in self.events if isinstance(event, Data)]

    @property
    def live(self) -> list[str]:
        return [event.channel for event in self.events if isinstance(event, Live)]

    @property
    def opaque(self) -> list[Opaque]:
        return [event for event in self.events if isinstance(event, Opaque)]

    def items(self) -> list[tuple[str, int | None, bytes]]:
        """Channel, sequence and bytes of every item, in order."""
        return [(r.channel, r.sequence, item.data) for r in self.records for item in r.items]

    def published(self) -> list[tuple[str, int | None, bytes]]:
        """The same from the exchange's ledger."""
        mine = [item for item in self.exchange.ledger.published if item.connection_id == self.peer.connection_id]
        return [(item.channel, item.sequence, item.value) for item in mine]
