"""A feed and the simulated exchange in one process and in virtual time: sockets and HTTP are function calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import msgspec
import structlog
from structlog.testing import LogCapture
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import Close as CloseFrame
from websockets.http11 import Response

from kraken_feed.config.schema import Config, ConnectionConfig
from kraken_feed.feed.environment import Account, Environment, Limits
from kraken_feed.feed.feed import Feed
from kraken_feed.output.sink import Sink
from kraken_feed.protocol.signing import Credentials
from kraken_feed.simulator.exchange import Exchange, Refused
from kraken_feed.simulator.wire.outgoing import Abort, Close, Text
from kraken_feed.simulator.wire.peer import Peer
from kraken_feed.telemetry.loggers import feed_logger
from kraken_feed.text import Secrets
from kraken_feed.transport.connection import unreachable

from . import virtual_time
from .exchange_driver import T0


def decode(line: bytes) -> dict[str, Any]:
    """Return a record's fields. The standard library reads what msgspec does not: lone surrogates, deep nesting."""
    try:
        fields: dict[str, Any] = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError):
        fields = json.loads(line)
    return fields


class MemorySocket:
    """The client's end of one connection."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.peer = peer
        self._world = world
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self._frames: asyncio.Queue[bytes | ConnectionClosed] = asyncio.Queue()
        self._closed: ConnectionClosed | None = None

    @property
    def transport(self) -> asyncio.Transport:
        raise AssertionError("nothing here has to be cut off")

    async def burst(self) -> list[bytes]:
        frames: list[bytes] = []
        while not frames or not self._frames.empty():
            frame = await self._frames.get()
            if isinstance(frame, ConnectionClosed):
                self._frames.put_nowait(frame)
                if frames:
                    break
                raise frame
            frames.append(frame)
        return frames

    async def send(self, message: str) -> None:
        if self._closed is not None:
            raise self._closed
        self._world.sent.append(message)
        self.peer.receive(message.encode(), self._world.now())
        self._world.turn()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closed is None:
            self._world.closed_by_us.append(code)
            self.hang_up(ConnectionClosedOK(CloseFrame(code, reason), CloseFrame(code, reason), False))
            self.peer.disconnect()

    def hear(self) -> None:
        """Take what the exchange has for this connection."""
        for message in self.peer.outgoing():
            match message:
                case Text(data=data):
                    self._frames.put_nowait(data)
                case Close(code=1006) | Abort():
                    self.hang_up(ConnectionClosedError(None, None))
                case Close(code=code, reason=reason):
                    close = CloseFrame(code, reason)
                    self.hang_up(ConnectionClosedError(close, close, True))

    def hang_up(self, closed: ConnectionClosed) -> None:
        self._closed = closed
        self._frames.put_nowait(closed)
        self._world.sockets.discard(self)


class World:
    """The network, the clocks and the exchange of one run. ``T0`` is the unix time at which the loop starts."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.sockets: set[MemorySocket] = set()
        self.sent: list[str] = []
        self.closed_by_us: list[int] = []
        self.dials: list[tuple[float, str, Peer | None]] = []
        self.calls: list[tuple[float, str, bytes]] = []
        self.network = True
        self.dialing: asyncio.Event | None = None  # set it to let a connect hang until it is
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.turn()

    def now(self) -> float:
        return T0 + self._loop.time()

    def unix_ns(self) -> int:
        return round(self.now() * 1e9)

    def boot_ns(self) -> int:
        """The clock that goes on through suspends. It has nothing to do with the time of day."""
        return round(self._loop.time() * 1e9) + 7_000_000_000

    def turn(self) -> None:
        """Let the exchange live until it wants to be woken next."""
        self.exchange.advance(self.now())
        self.deliver()
        if self._timer is not None:
            self._timer.cancel()
        wait = max(self.exchange.next_wakeup(self.now()) - self.now(), 0.001)
        self._timer = self._loop.call_later(min(wait, 3600.0), self.turn)

    def deliver(self) -> None:
        for socket in list(self.sockets):
            socket.hear()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def dial(self, url: str, config: ConnectionConfig) -> MemorySocket:
        """What ``connection.dial`` does, without a network."""
        if self.dialing is not None:
            await self.dialing.wait()
        if not self.network:
            self.dials.append((self._loop.time(), url, None))
            raise unreachable(url, ConnectionRefusedError(111, "Connection refused"))
        peer = self.exchange.connect("v2" if url.endswith("/v2") else "v1", self.now())
        if isinstance(peer, Refused):
            self.dials.append((self._loop.time(), url, None))
            response = Response(peer.status, "refused", Headers(peer.headers), peer.body)
            raise unreachable(url, InvalidStatus(response))
        self.dials.append((self._loop.time(), url, peer))
        socket = MemorySocket(self, peer)
        self.sockets.add(socket)
        self.turn()
        return socket


class Transport(httpx.AsyncBaseTransport):
    """HTTP to the exchange, without a network."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        world = self._world
        world.calls.append((asyncio.get_running_loop().time(), request.url.path, request.content))
        if not world.network:
            raise httpx.ConnectError("no network")
        headers = dict(request.headers.items())
        reply = world.exchange.rest(request.method, request.url.path, headers, request.content, world.now())
        world.turn()
        if reply.hang:
            await asyncio.Event().wait()
        await virtual_time.elapse(reply.delay)
        return httpx.Response(reply.status, headers=reply.headers, stream=httpx.ByteStream(reply.body))


class Run:
    """A feed on that world, its output in a file, its diagnostics kept as events."""

    def __init__(
        self, world: World, path: Path, channels: tuple[str, ...], config: Config, limits: Limits, **options: Any
    ) -> None:
        self.world = world
        self.path = path
        self.diagnostics = LogCapture()
        self.secrets = Secrets()
        self._content, self._lines = b"", list[dict[str, Any]]()
        self.sink = Sink.open(str(path), lambda error: self.feed.fail(error))
        key = world.exchange.key, world.exchange.secret
        credentials = options.pop("credentials", None) or Credentials(*key, source="the test")
        self.feed = Feed(
            Account(
                name="main",
                channels=channels,
                credentials=credentials,
                **{name: options.pop(name) for name in list(options) if name in Account.__struct_fields__},
            ),
            Environment(
                config=config,
                sink=self.sink,
                feed_log=feed_logger(self.sink),
                log=structlog.wrap_logger(None, processors=[self.diagnostics]),
                secrets=self.secrets,
                limits=limits,
                transport=Transport(world),
                dial=world.dial,
                unix_ns=options.pop("unix_ns", world.unix_ns),
                boot_ns=world.boot_ns,
                draw=options.pop("draw", lambda: 0.5),
                **options,
            ),
        )

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The output's records. Each line is decoded once: an output only grows."""
        content = self.path.read_bytes()
        if not content.startswith(self._content):
            self._content, self._lines = b"", []
        self._lines += map(decode, content[len(self._content) :].splitlines())
        self._content = content
        return self._lines

    def named(self, event_name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event_name"] == event_name]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [dict(entry) for entry in self.diagnostics.entries if entry["event"] == event]

    def connections(self) -> dict[str, int]:
        """The exchange's number of each connection, by the name that it has in the output."""
        runs = {line["connection"].rpartition("-")[0] for line in self.lines if line.get("connection")}
        run = runs.pop() if runs else ""
        return {f"{run}-{n}": peer.connection_id for n, (_, _, peer) in enumerate(self.world.dials, 1) if peer}


@contextmanager
def running(exchange: Exchange) -> Iterator[World]:
    world = World(exchange)
    try:
        with patch("os.fdatasync"):  # virtual time has more seconds than a real disk has turns
            yield world
    finally:
        world.end()


async def tail(
    exchange: Exchange,
    path: Path,
    *channels: str,
    config: Config | None = None,
    limits: Limits | None = None,
    **options: Any,
) -> Run:
    """Run a feed until it ends by itself (give it a limit); what there is to look at afterwards."""
    with running(exchange) as world:
        run = Run(world, path, channels or ("openOrders",), config or Config(), limits or Limits(), **options)
        try:
            await run.feed.run()
        finally:
            run.sink.close()
        return run
