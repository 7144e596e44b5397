"""Opening a WebSocket: whatever the peer answers is a named failure with a pace of its own. And the session's time:
pings leave when they are due, and a process that did not run blames nobody for it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.utils import accept_key

from kraken_feed.config.schema import ConnectionConfig
from kraken_feed.errors import Transient
from kraken_feed.protocol import spot_v1
from kraken_feed.protocol.session import Answered, Event, Session, Timing
from kraken_feed.text import MASK
from kraken_feed.transport import connection as connection_module
from kraken_feed.transport.connection import BAN_S, BLOCK_S, ODD_S, Connection, Socket, burst, dial, open_socket
from tests.support import virtual_time
from tests.support.timeouts import TIMEOUT_S

from ...support.cases import each

QUICK = ConnectionConfig(open_timeout_s=5.0)


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that sends these bytes to whoever connects; its URL, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", asked
    finally:
        server.close()


def refusal(status: int, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} No", "Content-Length: 0", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


@each(
    ("answer", "cause", "delay"),
    [
        (refusal(503), "upgrade", 0.0),
        (refusal(520), "upgrade", 0.0),
        (refusal(403), "upgrade", BLOCK_S),
        (refusal(404), "upgrade", ODD_S),
        (refusal(401), "upgrade", ODD_S),
        (refusal(429), "throttled", BAN_S),
        (refusal(429, "Retry-After: 30"), "throttled", 30.0),
        (refusal(429, "Retry-After: 86400"), "throttled", BAN_S),
        (refusal(429, "Retry-After: soon"), "throttled", BAN_S),
        (refusal(429, "Retry-After: 7", "Retry-After: 8"), "throttled", 7.0),
        (refusal(302, "Location: ws://127.0.0.1:1/"), "upgrade", ODD_S),
        (refusal(302, "Location: wss://[::1"), "upgrade", ODD_S),
        (refusal(302, "Location: wss://a..b/"), "upgrade", ODD_S),
        (refusal(302, "Location: ws://h:99999/", "Location: /"), "upgrade", ODD_S),
        (b"", "connect", 0.0),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "connect", 0.0),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "connect", 0.0),
        (b"HTTP/1.1 200 " + b"x" * 100_000 + b"\r\n\r\n", "connect", 0.0),
    ],
)
async def test_an_upgrade_that_is_refused_has_a_cause_and_a_pace(answer: bytes, cause: str, delay: float) -> None:
    async with answering(answer) as (url, asked):
        with pytest.raises(Transient) as raised:
            await dial(url, QUICK)
        assert len(asked) == 1, "redirects are not followed"
    assert (raised.value.cause, raised.value.delay) == (cause, delay)


async def test_neither_compression_nor_a_subprotocol_is_offered_and_the_client_names_itself() -> None:
    async with answering(refusal(503)) as (url, asked):
        with pytest.raises(Transient):
            await dial(url, QUICK)
    head = asked[0].lower()
    assert b"sec-websocket-extensions" not in head
    assert b"sec-websocket-protocol" not in head
    assert b"user-agent: kraken-feed/" in head


async def test_nobody_there_is_a_failure_that_passes() -> None:
    with pytest.raises(Transient) as raised:
        await dial("ws://127.0.0.1:1/", QUICK)
    assert raised.value.cause == "connect"


class Roomy:
    """An output that takes everything."""

    full = False

    async def room(self) -> None:
        raise AssertionError("nobody has to wait for it")


async def never() -> str:
    raise AssertionError("there is no connection")


@each("stopped", [False, True])
async def test_a_connection_that_ends_leaves_no_cancellation_behind(stopped: bool) -> None:
    """Python before 3.11.3 takes it for the end of the whole task when a deadline passes there later."""

    async def nobody_there(url: str, config: ConnectionConfig) -> Socket:
        if stopped:
            await asyncio.Event().wait()
        raise Transient("nobody there", cause="connect")

    task, stop = asyncio.current_task(), asyncio.Event()
    assert task is not None
    if stopped:
        stop.set()
    session = Session(spot_v1, ["openOrders"], Timing(1.0, 1.0))
    connection = Connection("ws://127.0.0.1:1/", session, QUICK, dial=nobody_there)
    with contextlib.nullcontext() if stopped else pytest.raises(Transient):
        await connection.run(never, lambda events: None, Roomy(), stop)
    assert task.cancelling() == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await asyncio.Event().wait()


async def test_a_cancellation_in_the_moment_in_which_a_connection_ends_is_heard() -> None:
    async def nobody_there(url: str, config: ConnectionConfig) -> Socket:
        running.cancel()
        raise Transient("nobody there", cause="connect")

    session = Session(spot_v1, ["openOrders"], Timing(1.0, 1.0))
    connection = Connection("ws://127.0.0.1:1/", session, QUICK, dial=nobody_there)
    running = asyncio.create_task(connection.run(never, lambda events: None, Roomy(), asyncio.Event()))
    with pytest.raises(asyncio.CancelledError):
        await running


# ------------------------------------------------------------------------------------------------ reasons


async def ended_by(frame: bytes) -> tuple[str, str]:
    """Why a session is over whose peer opens it and sends ``frame``, but leaves the socket open: detail and cause."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = next(
                line.split(": ")[1] for line in head.splitlines() if line.lower().startswith("sec-websocket-key")
            )
            lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
            writer.write("\r\n".join([*lines, f"Sec-WebSocket-Accept: {accept_key(key)}", "", ""]).encode())
            writer.write(frame)
            await reader.read()
            writer.close()

    async def token() -> str:
        await asyncio.Event().wait()
        return ""

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        session = Session(spot_v1, ["openOrders"], Timing(3600.0, 3600.0))
        connection = Connection(url, session, QUICK, mask=lambda text: text.replace("reserved", MASK))
        async with asyncio.timeout(TIMEOUT_S):
            await connection.run(token, lambda events: None, Roomy(), asyncio.Event())
        await connection.close(0.0)
    assert session.failure is not None
    return session.failure.detail, session.failure.cause


@pytest.mark.parametrize(
    ("frame", "detail"),
    [
        (b"\xf1\x00", f"a violation of the WebSocket protocol: 1002 {MASK} bits must be 0"),
        (b"\x83\x00", "a violation of the WebSocket protocol: 1002 invalid opcode"),
        (b"\x81\x80abcd", "a violation of the WebSocket protocol: 1002 incorrect masking"),
        (b"\x88\x02\x03\xec", "a violation of the WebSocket protocol: 1002 invalid status code"),
        (b"\x88\x0b\x03\xe9reserved.", f"1001 {MASK}."),
    ],
)
async def test_a_connection_that_its_peer_ends_is_left_soon_with_the_reason_masked(
    frame: bytes, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "CLOSE_S", 0.05)
    assert await ended_by(frame) == (detail, "closed")


@each(
    ("cause", "detail"),
    [
        (ssl.SSLError(1, "[SSL] bad record mac"), f"the connection broke: SSLError: [{MASK}] bad record mac"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "the connection broke: ConnectionResetError: [Errno 104] Connection reset by peer",
        ),
        (EOFError(), "the connection broke, without a closing frame"),
        (None, "the connection broke, without a closing frame"),
    ],
)
async def test_an_error_of_tls_or_tcp_comes_with_its_words(cause: Exception | None, detail: str) -> None:
    class Cut(Peer):
        async def burst(self) -> list[bytes]:
            raise ConnectionClosedError(None, None) from cause

    with pytest.raises(Transient) as raised:
        await burst(Cut(), lambda text: text.replace("[SSL]", f"[{MASK}]"))
    assert (raised.value.cause, raised.value.why) == ("closed", detail)


async def test_the_reason_of_a_failed_opening_is_masked() -> None:
    async def refused(url: str, config: ConnectionConfig) -> Socket:
        raise Transient("our words on it", cause="connect", why="OSError: on fire")

    with pytest.raises(Transient) as raised:
        await open_socket(refused, "wss://x", QUICK, lambda text: text.replace("on", MASK))
    assert (raised.value.what, raised.value.why) == ("our words on it", f"OSError: {MASK} fire")


# ------------------------------------------------------------------------------------------------ time and evidence


class Peer:
    """A socket in memory. It acknowledges, sends an empty snapshot and answers pings, as long as ``answers`` is True.

    ``frames`` are what is there to be read; ``asked`` what it was sent, and when.
    """

    def __init__(self) -> None:
        self.answers = True
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self.asked: list[tuple[float, dict[str, Any]]] = []
        self.frames: list[bytes] = []
        self._here = asyncio.Event()

    @property
    def transport(self) -> asyncio.Transport:
        raise AssertionError("nothing here has to be cut off")

    async def burst(self) -> list[bytes]:
        while not self.frames:
            self._here.clear()
            await self._here.wait()
        burst, self.frames = self.frames, []
        return burst

    async def send(self, message: str) -> None:
        request = json.loads(message)
        self.asked.append((asyncio.get_running_loop().time(), request))
        if not self.answers:
            return
        number = request["reqid"]
        if request["event"] == "ping":
            self.say(b'{"event":"pong","reqid":%d}' % number)
        else:
            subscribed = b'{"event":"subscriptionStatus","reqid":%d,"status":"subscribed"}' % number
            self.say(subscribed, b'[[],"openOrders",{"sequence":1}]')

    async def close(self, code: int = 1000, reason: str = "") -> None:
        raise AssertionError("nobody has asked for it")

    def say(self, *frames: bytes) -> None:
        self.frames += frames
        self._here.set()

    @property
    def pings(self) -> list[float]:
        """When each was sent."""
        return [when for when, request in self.asked if request["event"] == "ping"]


HEARTBEAT = b'{"event":"heartbeat"}'


class Full:
    """An output that can be filled."""

    def __init__(self) -> None:
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def full(self) -> bool:
        return not self.empty.is_set()

    async def room(self) -> None:
        await self.empty.wait()


class Running:
    """A connection to a :class:`Peer`, in virtual time; ``stamp`` counts how often a moment was asked for."""

    def __init__(self) -> None:
        self.peer, self.output, self.stop = Peer(), Full(), asyncio.Event()
        self.session = Session(spot_v1, ["openOrders"], Timing(5.0, 10.0))
        self.events: list[Event] = []
        self.stamps = 0
        self.connection = Connection("ws://127.0.0.1:1/", self.session, QUICK, dial=self._dial, stamp=self._stamp)
        self.task = asyncio.create_task(self.connection.run(self._token, self.events.extend, self.output, self.stop))

    async def _dial(self, url: str, config: ConnectionConfig) -> Socket:
        return self.peer

    async def _token(self) -> str:
        return "EXAMPLE"

    def _stamp(self) -> int:
        self.stamps += 1
        return round(asyncio.get_running_loop().time() * 1000)

    @property
    def cause(self) -> str | None:
        """Why the session is over; None: it is not."""
        return self.session.failure.cause if self.session.failure is not None else None

    @property
    def confirmed(self) -> list[int]:
        return [event.stamp for event in self.events if isinstance(event, Answered)]

    async def speak(self, seconds: int) -> None:
        """Let the peer send a heartbeat every second."""
        for _ in range(seconds):
            await virtual_time.elapse(1.0)
            self.peer.say(HEARTBEAT)
        await virtual_time.elapse(0.0)

    async def end(self) -> None:
        self.stop.set()
        await self.task


def stop_the_process(seconds: float) -> None:
    """Let the loop's clock go on without the loop: SIGSTOP, a starved processor."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, virtual_time.VirtualLoop)
    loop.elapsed += seconds


def in_virtual_time(test: Callable[[Running], Awaitable[None]]) -> Callable[[], None]:
    """Make a test of one that is handed a connection that runs."""

    async def run() -> None:
        running = Running()
        await virtual_time.elapse(0.5)
        await test(running)
        await running.end()

    @functools.wraps(test)
    def wrapped() -> None:
        virtual_time.run(run())

    del wrapped.__wrapped__  # or pytest takes its argument for a fixture
    return wrapped


@in_virtual_time
async def test_pings_carry_the_moment_before_they_leave(running: Running) -> None:
    assert running.confirmed == [0]
    await running.speak(30)
    assert running.peer.pings == [0.0, 10.0, 20.0, 30.0]
    assert running.confirmed == [0, 10_000, 20_000, 30_000]
    assert running.stamps == 4


@in_virtual_time
async def test_in_a_hurry_a_ping_leaves_at_once(running: Running) -> None:
    await running.speak(3)
    running.peer.answers = False
    for _ in range(2):
        running.connection.ping_now()
        await virtual_time.elapse(0.0)
        await virtual_time.elapse(0.0)
        await virtual_time.elapse(0.0)
    assert running.peer.pings == [0.0, 3.5, 3.5]
    await running.speak(5)
    assert len(running.peer.pings) == 3


@in_virtual_time
async def test_a_process_that_was_stopped_reads_what_is_there_before_it_calls_the_peer_silent(
    running: Running,
) -> None:
    await running.speak(3)
    stop_the_process(60.0)
    await virtual_time.elapse(1.0)
    assert running.cause is None
    assert running.peer.pings[-1] == 63.5, "what it has missed is asked for at once"
    running.peer.say(HEARTBEAT)
    await virtual_time.elapse(9.0)
    assert running.cause is None
    await virtual_time.elapse(5.0)
    assert running.cause == "silence"


@in_virtual_time
async def test_a_hurry_after_a_stop_does_not_hide_that_the_process_was_stopped(running: Running) -> None:
    await running.speak(3)
    stop_the_process(60.0)
    running.connection.ping_now()
    await virtual_time.elapse(1.0)
    assert running.cause is None
    assert running.peer.pings[-1] == 63.5


@in_virtual_time
async def test_a_peer_that_was_silent_while_the_process_ran_is_dead_on_time(running: Running) -> None:
    await running.speak(3)
    running.peer.answers = False
    await virtual_time.elapse(9.9)
    assert running.cause is None
    await virtual_time.elapse(0.2)
    assert running.cause == "silence"


@in_virtual_time
async def test_no_ping_leaves_while_the_output_is_full_and_one_does_at_once_when_it_is_not(running: Running) -> None:
    await running.speak(2)
    running.output.empty.clear()
    await running.speak(58)
    assert running.peer.pings == [0.0]
    running.output.empty.set()
    await virtual_time.elapse(0.1)
    assert running.cause is None
    assert len(running.peer.pings) == 2
    assert running.peer.pings[-1] == pytest.approx(60.5, abs=0.2)
