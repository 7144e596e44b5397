"""The machine's clocks, the network and the exchange, all on the virtual loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping
from random import Random
from typing import Protocol

import httpx
import msgspec
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close as CloseFrame
from websockets.http11 import Response

from kraken_feed.config.schema import ConnectionConfig
from kraken_feed.simulator.exchange import Exchange, Refused
from kraken_feed.simulator.market.ledger import Frame, Ledger
from kraken_feed.simulator.market.order import Change
from kraken_feed.simulator.rest.reply import Reply
from kraken_feed.simulator.wire.outgoing import Abort, Close, Text
from kraken_feed.simulator.wire.peer import Peer
from kraken_feed.transport.connection import unreachable

from ...support import virtual_time
from ...support.exchange_driver import T0

NS = 1_000_000_000
REST_S = 0.05  # what a call takes, at least
DIAL_S = 0.02
RECENT = 100  # frames that may come once more
WAKE_S = 3600.0  # the exchange is looked at this often, whatever it says


class Clocks:
    """Kraken's clock, and this machine's three. They derive from the loop's, which is CLOCK_MONOTONIC.

    Args:
        offset_s: by how much the wall clock is ahead of Kraken's.
        drift: how much faster than Kraken's this machine's clocks run.
    """

    def __init__(self, offset_s: float = 0.0, drift: float = 0.0) -> None:
        self.offset_s = self._most_s = offset_s
        self._pace = 1.0 / (1.0 + drift)
        self._slept = 0.0  # seconds that passed while the machine slept
        self._booted = -86_400.0  # the loop's time when CLOCK_BOOTTIME was 0
        self._loop = asyncio.get_running_loop()

    def kraken(self) -> float:
        """Return Kraken's unix time in seconds."""
        return T0 + self._slept + self._loop.time() * self._pace

    def until(self, moment: float) -> float:
        """Return the loop's seconds until a moment of Kraken's clock."""
        return (moment - self.kraken()) / self._pace

    def unix_ns(self) -> int:
        """Return CLOCK_REALTIME."""
        return round((self._slept + self._loop.time() + T0 + self.offset_s) * NS)

    def boot_ns(self) -> int:
        """Return CLOCK_BOOTTIME."""
        return round((self._slept + self._loop.time() - self._booted) * NS)

    def sleep(self, seconds: float) -> None:
        """Let the machine sleep for so long: only the loop's clock stands still."""
        self._slept += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock. It cannot be set to before 1971."""
        self.offset_s = max(self.offset_s + seconds, 31_536_000 - T0)
        self._most_s = max(self._most_s, self.offset_s)

    def never_back(self) -> None:
        """Set the wall clock to where it would be if it had never been set back."""
        self.offset_s = self._most_s

    def boot(self) -> None:
        """Start the machine again."""
        self._booted = self._slept + self._loop.time() - 10.0


class Truth(Ledger):
    """The exchange's ledger, read and forgotten once per check."""

    def __init__(self, account: int = 1) -> None:
        super().__init__(account=account)
        self.published_now: list[Frame] = []  # since somebody last cleared it
        self.strikes: list[tuple[str, float]] = []  # kinds of faults that took effect, with the time; likewise
        self.events = 0

    def another(self, account: int) -> Truth:
        """Return the ledger of a further account."""
        return Truth(account)

    def happened(self, changes: Iterable[Change]) -> None:
        """Record what the account went through."""
        batch = list(changes)
        self.events += len(batch)
        self.changes += batch

    def publish(self, frame: Frame) -> None:
        """Record a data frame at the moment it leaves."""
        self.published_now.append(frame)

    def struck(self, kind: str, at: float, connection_id: int | None = None) -> None:
        """Record that a fault took effect. Many wait for a call or a frame after the plan's time."""
        self.strikes.append((kind, at))


class Reader(Protocol):
    """Is told which data frames a client has read."""

    def read(self, frame: Frame, *, again: bool) -> None:
        """Take in one frame. One that comes ``again`` may be written again, and need not be."""


class Message(msgspec.Struct, gc=False):
    """A WebSocket message, or the end of the connection. The frame is the ledger's, if it is a data frame; it may come
    once more."""

    data: bytes | ConnectionClosed
    frame: Frame | None = None
    again: bool = False


class Socket:
    """The client's end of one connection."""

    def __init__(self, world: World, peer: Peer, truth: Truth) -> None:
        self.peer = peer
        self._world = world
        self._truth = truth
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self._here: list[Message] = []
        self._line: deque[tuple[float, Message]] = deque()  # with the loop time at which each arrives
        self._free_at = 0.0  # when the line has delivered what is on it
        self._closed: ConnectionClosed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._unsent: list[str] = []
        self._sent: dict[int, Frame] = {}  # the last ones, by the identity of their texts

    @property
    def transport(self) -> asyncio.Transport:
        raise AssertionError("nothing here has to be cut off")

    async def burst(self) -> list[bytes]:
        """Return every message that is here; wait for one."""
        while not self._here:
            if self._closed is not None:
                raise self._closed
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        here, self._here = self._here, []
        frames: list[bytes] = []
        for message in here:
            data = message.data
            if isinstance(data, ConnectionClosed):
                self._closed = data
                if not frames:
                    raise data
                break
            if message.frame is not None:
                self._world.reader.read(message.frame, again=message.again)
            frames.append(data)
        return frames

    async def send(self, message: str) -> None:
        """Hand over a text frame."""
        if self._closed is not None:
            raise self._closed
        if not self._world.network:
            self._unsent.append(message)
            return
        self.peer.receive(message.encode(), self._world.clocks.kraken())
        self._world.turn()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close; the exchange agrees at once."""
        if self._closed is None:
            self.cut(ConnectionClosedOK(CloseFrame(code, reason), CloseFrame(code, reason), False))

    def cut(self, closed: ConnectionClosed) -> None:
        """End the connection on both sides; what is on the line is lost."""
        self._line.clear()
        self._arrive(Message(closed))
        self._closed = closed
        self._world.sockets.discard(self)
        if not self.peer.closed:
            self.peer.disconnect()

    def hear(self) -> None:
        """Take what the exchange has for this connection."""
        if not self._world.network:
            return
        for text in self._unsent:
            self.peer.receive(text.encode(), self._world.clocks.kraken())
        self._unsent.clear()
        self._truth.published_now.clear()
        outgoing = self.peer.outgoing()
        if not outgoing:
            return
        published = iter(self._truth.published_now)
        expected = next(published, None)
        for message in outgoing:
            match message:
                case Text(data=data):
                    frame, again = self._sent.get(id(data)), True
                    if expected is not None and data is expected.text:
                        frame, again, expected = expected, False, next(published, None)
                        self._sent[id(data)] = frame
                        if len(self._sent) > RECENT:
                            del self._sent[next(iter(self._sent))]
                    self._put(Message(data, frame, again), len(data))
                case Close(code=1006) | Abort():
                    self._line.clear()
                    self._put(Message(ConnectionClosedError(None, None)), 0)
                case Close(code=code, reason=reason):
                    close = CloseFrame(code, reason)
                    self._put(Message(ConnectionClosedError(close, close, True)), 0)
        assert expected is None, "a published frame was not among the outgoing ones"

    def _put(self, message: Message, size: int) -> None:
        now = asyncio.get_running_loop().time()
        if self._world.line_rate is None and not self._line:
            self._arrive(message)
            return
        self._free_at = max(self._free_at, now) + (size / self._world.line_rate if self._world.line_rate else 0.0)
        self._line.append((self._free_at, message))
        if len(self._line) == 1:
            self._timer = asyncio.get_running_loop().call_at(self._free_at, self._next)

    def _next(self) -> None:
        loop = asyncio.get_running_loop()
        while self._line and self._line[0][0] <= loop.time():
            self._arrive(self._line.popleft()[1])
        if self._line:
            self._timer = loop.call_at(self._line[0][0], self._next)

    def catch_up(self) -> None:
        """Deliver what is on the line: it has become fast."""
        self._free_at = 0.0
        while self._line:
            self._arrive(self._line.popleft()[1])

    def _arrive(self, message: Message) -> None:
        self._here.append(message)
        if isinstance(message.data, ConnectionClosed):
            self._world.sockets.discard(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class World:
    """The network and the exchange.

    Args:
        exchange: with a :class:`Truth` as its ledger.
        clocks: of the machine.
        reader: is told which frames were read.
        tick_s: the network delivers this often.
        chance: latencies.
    """

    def __init__(self, exchange: Exchange, clocks: Clocks, reader: Reader, tick_s: float, chance: Random) -> None:
        self.exchange = exchange
        self.clocks = clocks
        self.reader = reader
        self.sockets: set[Socket] = set()
        self.network = True
        self.line_rate: float | None = None  # bytes per second
        self.dials: list[float] = []  # the loop's times, of the present process
        self.limited = 0  # answers that say that the key's call counter is exceeded
        self.tokens: list[bytes] = []  # handed out since somebody last cleared it
        self.calls = 0
        self._tick_s = tick_s
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.turn()

    def turn(self) -> None:
        """Let the exchange live until it wants to be woken next."""
        now = self.clocks.kraken()
        self.exchange.advance(now)
        sockets = list(self.sockets)
        if len(sockets) > 1:
            sockets.sort(key=lambda socket: socket.peer.number)
        for socket in sockets:
            socket.hear()
        if self._timer is not None:
            self._timer.cancel()
        wait = self.clocks.until(self.exchange.next_wakeup(now))
        self._timer = self._loop.call_later(min(max(wait, self._tick_s), WAKE_S), self.turn)

    def end(self) -> None:
        """Let the exchange rest for good."""
        if self._timer is not None:
            self._timer.cancel()

    def cut_all(self) -> None:
        """End every connection, as when the process is gone."""
        for socket in list(self.sockets):
            socket.cut(ConnectionClosedError(None, None))

    async def dial(self, url: str, config: ConnectionConfig) -> Socket:
        """Do what ``connection.dial`` does, without a network."""
        self.dials.append(self._loop.time())
        if not self.network:
            wait, error = self._chance.choice(
                ((DIAL_S, ConnectionRefusedError(111, "Connection refused")), (config.open_timeout_s, TimeoutError()))
            )
            await virtual_time.elapse(wait)
            raise unreachable(url, error)
        await virtual_time.elapse(DIAL_S * self._chance.uniform(0.5, 5))
        peer = self.exchange.connect("v2" if url.endswith("/v2") else "v1", self.clocks.kraken())
        if isinstance(peer, Refused):
            response = Response(peer.status, "refused", Headers(peer.headers), peer.body)
            raise unreachable(url, InvalidStatus(response))
        socket = Socket(self, peer, self._truth)
        self.sockets.add(socket)
        self.turn()
        return socket

    @property
    def _truth(self) -> Truth:
        ledger = self.exchange.ledger
        assert isinstance(ledger, Truth)
        return ledger

    async def call(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Bring one HTTP request to the exchange, and its reply back."""
        self.calls += 1
        await virtual_time.elapse(REST_S * self._chance.uniform(0.2, 4))
        if not self.network:
            raise httpx.ConnectError("no network")
        reply = self.exchange.rest(method, path, headers, body, self.clocks.kraken())
        self.limited += b"EAPI:Rate limit exceeded" in reply.body
        if path.endswith("/GetWebSocketsToken") and b'"token":"' in reply.body:
            self.tokens.append(reply.body.split(b'"token":"', 1)[1].split(b'"', 1)[0])
        self.turn()
        if reply.hang:
            await asyncio.Event().wait()
        await virtual_time.elapse(REST_S * self._chance.uniform(0.2, 4) + reply.delay)
        return reply


class Transport(httpx.AsyncBaseTransport):
    """HTTP to the exchange, without a network."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.raw_path.decode()
        reply = await self._world.call(request.method, path, dict(request.headers.items()), request.content)
        return httpx.Response(reply.status, headers=reply.headers, stream=httpx.ByteStream(reply.body))
