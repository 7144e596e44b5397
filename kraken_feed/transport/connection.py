"""Run one session over one WebSocket: open it, bring bytes and time, close it once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidProxy, InvalidStatus, WebSocketException
from websockets.frames import CloseCode

from .. import __version__
from ..config.schema import ConnectionConfig
from ..errors import FeedError, Transient
from ..protocol.session import Event, Session
from ..text import Mask
from . import kraken_clock
from .proxy import bad_proxy, no_socks, proxy_for
from .stream import Stream

CLOSE_S = 2.0  # for the peer's half of the closing handshake; a dead peer never sends it
LATE_S = 0.1  # a timer this late means that we did not run (stopped, suspended, starved), not a silent peer
GRACE_S = 2.0  # after we did not run: time for the frames that the peer sent in the meantime to arrive
BATCH = 250  # frames handled at once: their events stay in the processor's cache, and off the heap
BAN_S = 600.0  # Kraken's edge answers 429 to a banned address, and a ban lasts ten minutes
BLOCK_S = 300.0  # 403 is a challenge of the edge; Kraken's documentation says "minutes"
ODD_S = 60.0  # 3xx, 400, 401, 404: a wrong endpoint, or a failed deployment


class Socket(Protocol):
    """What a session needs from a WebSocket; :class:`kraken_feed.transport.stream.Stream` implements it.

    ``arriving`` has the loop times of the first and the last bytes of an incomplete message; None if there is none.
    ``delay`` is the total seconds that slow messages took to arrive; the reader sets it back to 0.
    """

    arriving: tuple[float, float] | None
    delay: float

    @property
    def transport(self) -> asyncio.Transport: ...

    async def burst(self) -> Sequence[bytes]:
        """Return every message that has arrived, in order; wait for one if there is none. Raises ConnectionClosed."""

    async def send(self, message: str) -> None:
        """Send a text frame. Raises ConnectionClosed."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection, and wait briefly for the peer's answer."""


class Room(Protocol):
    """An output that can be full."""

    @property
    def full(self) -> bool: ...

    async def room(self) -> None:
        """Wait until there is room again."""


Dial = Callable[[str, ConnectionConfig], Awaitable[Socket]]
Fetch = Callable[[], Awaitable[str]]  # returns a token
Deliver = Callable[[Sequence[Event]], None]


class _Connect(connect):
    """The connect of websockets, without redirects: the token would go to wherever a redirect points, and each redirect
    would be a connect outside the budget."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


async def dial(url: str, config: ConnectionConfig, logger: logging.Logger | None = None) -> Socket:
    """Open a WebSocket. ``logger`` replaces the library's global logger, which belongs to the program.

    No compression is offered: frames are small, and a peer's answer to the offer once broke clients
    (https://github.com/knowm/XChange/issues/3804). No WebSocket pings are sent: their pongs prove the transport only,
    and are not read while the output is full; the session watches the feed itself.

    Raises:
        Transient: it cannot be opened now. ``delay`` says for how long it is useless to try.
        ConfigError: the proxy that the environment names cannot be used.
    """

    class Bounded(Stream):
        max_bytes = config.max_frame_bytes

    proxy = proxy_for(url)
    try:
        socket = await _Connect(
            url,
            compression=None,
            max_size=config.max_frame_bytes,
            open_timeout=config.open_timeout_s,
            close_timeout=CLOSE_S,
            ping_interval=None,
            proxy=proxy.url if proxy is not None else None,
            ssl=ssl.create_default_context() if url.startswith("wss:") else None,
            user_agent_header=f"kraken-feed/{__version__}",
            create_connection=Bounded,
            logger=logger,
        )
    except ImportError:
        raise no_socks() from None
    except InvalidProxy as error:
        raise bad_proxy(proxy, error.msg) from None  # its cause quotes the URL, which may hold a password
    except (OSError, WebSocketException, EOFError, LookupError, ValueError) as error:
        raise unreachable(url, error) from error
    assert isinstance(socket, Stream)  # as asked for
    return socket


def unreachable(url: str, error: Exception) -> Transient:
    """Return the error for a WebSocket that could not be opened, with the minimum delay before the next try.

    None of these errors is final: networks recover, edges are redeployed, bans end. Only the delay differs.
    """
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        odd = ODD_S if status < 500 else 0.0
        delay = {429: BAN_S, 403: BLOCK_S}.get(status, odd)
        retry_after = next(iter(error.response.headers.get_all("Retry-After")), "")
        if retry_after.isascii() and retry_after.isdigit():
            delay = min(float(retry_after), BAN_S)
        cause = "throttled" if status == 429 else "upgrade"
        return Transient(f"{url} answered HTTP {status}.", cause=cause, delay=delay)
    return Transient(f"{url} cannot be reached.", cause="connect", why=f"{type(error).__name__}: {error}")


async def hang_up(socket: Socket, seconds: float = CLOSE_S) -> None:
    """Close with code 1000. Abort the connection if the peer does not answer within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            await socket.close()
    except TimeoutError:
        socket.transport.abort()


async def burst(socket: Socket, mask: Mask) -> Sequence[bytes]:
    """Return every message that has arrived, for callers without a session. Raises Transient at its end."""
    try:
        return await socket.burst()
    except ConnectionClosed as closed:
        raise _over(closed, mask) from closed


async def send(socket: Socket, message: str, mask: Mask) -> None:
    """Send a text frame, for callers without a session. Raises Transient if it may not have been sent."""
    try:
        await socket.send(message)
    except ConnectionClosed as closed:
        raise _over(closed, mask) from closed


def _over(closed: ConnectionClosed, mask: Mask) -> Transient:
    return Transient("The connection is over.", cause="closed", why=_closing(closed, mask)[0])


async def open_socket(dial: Dial, url: str, config: ConnectionConfig, mask: Mask) -> Socket:
    """Open a socket with ``dial``, and mask the reason of its errors. A library, the system or a proxy gives it."""
    try:
        return await dial(url, config)
    except FeedError as error:
        error.why = mask(error.why)
        raise


class _Over(Exception):
    """Ends the tasks of a connection together."""


@dataclass(eq=False, repr=False)
class Connection:
    """Brings one session bytes and time, and sends what it wants to send. Used once: run, then close."""

    url: str
    session: Session
    config: ConnectionConfig  # deadlines and bounds
    dial: Dial = dial  # opens the socket
    stamp: Callable[[], int] = kraken_clock.boot_ns  # dates pings: a clock that runs through suspends
    mask: Mask = str  # removes secrets from texts of libraries and of the peer
    paused: bool = False  # nothing is read until the output has room

    def __post_init__(self) -> None:
        self._socket: Socket | None = None
        self._woken = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    async def run(self, token: Fetch, deliver: Deliver, output: Room, stop: asyncio.Event) -> None:
        """Connect, fetch a token, subscribe, and deliver the events of each frame, until the session fails or ``stop``
        is set.

        ``deliver`` is called for every ``BATCH`` frames, with an empty sequence if they have no events. After ``stop``,
        frames that had arrived by then are still delivered.

        Raises:
            Transient, ConfigError: the socket cannot be opened.
            FeedError: as ``token`` raises it.
        """
        task = asyncio.current_task()
        assert task is not None  # a coroutine is run by one
        cancelled = task.cancelling()
        # In a task of its own: a group that ends leaves a cancellation counted on its task (Python before 3.13). Such a
        # leftover would hide a real cancellation at the same moment. Before Python 3.11.3, the next timeout would take
        # it for a cancellation.
        error = await asyncio.create_task(self._run(token, deliver, output, stop))
        if task.cancelling() > cancelled:
            raise asyncio.CancelledError
        if error is not None:
            raise error
        if stop.is_set() and self._socket is not None:
            await self._drain(self._socket, deliver)

    async def _run(self, token: Fetch, deliver: Deliver, output: Room, stop: asyncio.Event) -> FeedError | None:
        """Run the connection's tasks until one ends them all; return the error, if there was one."""
        errors: list[FeedError] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._stop(stop))
                tasks.create_task(self._work(tasks, token, deliver, output))
        except* _Over:
            pass
        except* FeedError as raised:
            errors += [error for error in raised.exceptions if isinstance(error, FeedError)]
        return errors[0] if errors else None

    def ping_now(self) -> None:
        """Send a ping at once: the machine was suspended, or one of its clocks was set."""
        self.session.ping_now()
        self._woken.set()

    async def close(self, seconds: float = CLOSE_S) -> None:
        """Close with code 1000. Abort the connection if the peer does not answer within ``seconds``."""
        if self._socket is not None:
            await hang_up(self._socket, seconds)

    async def _work(self, tasks: asyncio.TaskGroup, token: Fetch, deliver: Deliver, output: Room) -> None:
        """Open the socket first, then fetch the token, so that a network outage costs no call of the key's counter."""
        self._socket = await open_socket(self.dial, self.url, self.config, self.mask)
        self.session.connected(self._now())
        tasks.create_task(self._keep_time(self._socket))
        tasks.create_task(self._subscribe(self._socket, token))
        await self._pump(self._socket, deliver, output)

    async def _pump(self, socket: Socket, deliver: Deliver, output: Room) -> None:
        session = self.session
        while session.failure is None:
            if output.full:
                await self._wait_for_room(output)
            try:
                frames = await socket.burst()
            except ConnectionClosed as closed:
                session.disconnected(*_closing(closed, self.mask))
                break
            if socket.delay:
                self._note_slow_frames(socket)
            for start in range(0, len(frames), BATCH):
                deliver(self._receive(frames[start : start + BATCH]))
        raise _Over

    def _receive(self, frames: Sequence[bytes]) -> list[Event]:
        """Return the events of a burst of frames. Frames after the one that ends the session have none."""
        session, now = self.session, self._now()
        events: list[Event] = []
        for frame in frames:
            events += session.receive(frame, now)
        return events

    async def _wait_for_room(self, output: Room) -> None:
        """Stop reading until the output has room. Frames wait in the kernel, so this time is not silence."""
        self.paused, since = True, self._now()
        await output.room()
        self.session.add_grace(self._now() - since)
        self.paused = False
        self._woken.set()

    async def _keep_time(self, socket: Socket) -> None:
        """Run one timer for all of the session's deadlines. It is set again only when it runs out or is woken."""
        while True:
            self._woken.clear()
            since, due = self._now(), self._deadline(socket)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            now, deadline = self._now(), self._deadline(socket)
            if deadline is None or deadline > now:
                continue  # frames came in the meantime, or reading is paused
            # A late timer means that we did not run. Frames that the peer sent in the meantime are still unread, so do
            # not declare it dead before they are read. A ping can be sent at once.
            late = 0.0 if due is None else now - max(since, due)
            if late > LATE_S:
                self.session.add_grace(late + GRACE_S)
            self.session.tick(now, self.stamp())
            await self._send(socket)
            if self.session.failure is not None:
                raise _Over

    def _deadline(self, socket: Socket) -> float | None:
        self._note_slow_frames(socket)
        return None if self.paused else self.session.deadline()

    def _note_slow_frames(self, socket: Socket) -> None:
        """Tell the session about messages that arrive slowly."""
        self.session.note_slow_frames(socket.arriving, socket.delay)
        socket.delay = 0.0

    async def _subscribe(self, socket: Socket, token: Fetch) -> None:
        value = await token()
        self.session.authorize(value, self._now(), self.stamp())
        await self._send(socket)
        if self.session.failure is not None:
            raise _Over
        self._woken.set()

    async def _send(self, socket: Socket) -> None:
        for text in self.session.data_to_send():
            try:
                async with asyncio.timeout(self.config.ack_timeout_s):
                    await socket.send(text)
            except TimeoutError:
                self.session.disconnected("the peer does not accept data", cause="silence")
            except ConnectionClosed:
                return  # the pump gets the same error, with the reason

    async def _stop(self, stop: asyncio.Event) -> None:
        await stop.wait()
        raise _Over

    async def _drain(self, socket: Socket, deliver: Deliver) -> None:
        """Deliver what has arrived already, without waiting for more."""
        try:
            async with asyncio.timeout(0):
                while self.session.failure is None:
                    deliver(self._receive(await socket.burst()))
        except (TimeoutError, ConnectionClosed):
            return
        except AssertionError:  # websockets 17.4: a message of too many fragments was cut off
            return


def _closing(closed: ConnectionClosed, mask: Mask) -> tuple[str, str]:
    """Return the detail and the cause of a connection's end: the peer's reason, or that of the library."""
    ours = closed.sent if closed.sent is not None and not closed.rcvd_then_sent else None
    if ours is not None and ours.code == CloseCode.MESSAGE_TOO_BIG:
        return "a frame is larger than connection.max_frame_bytes", "frame_too_big"
    if ours is not None and ours.code != CloseCode.NORMAL_CLOSURE:
        return f"a violation of the WebSocket protocol: {ours.code} {mask(ours.reason)}".rstrip(), "closed"
    if closed.rcvd is not None:
        return f"{closed.rcvd.code} {mask(closed.rcvd.reason)}".strip(), "closed"
    cause = closed.__cause__
    if isinstance(cause, OSError) and str(cause):
        return f"the connection broke: {mask(f'{type(cause).__name__}: {cause}')}", "closed"
    return "the connection broke, without a closing frame", "closed"
