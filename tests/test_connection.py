"""Opening a WebSocket: whatever the peer answers is a named failure with a pace of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kraken_feed import spot_v1
from kraken_feed.config import ConnectionConfig
from kraken_feed.connection import BAN_S, BLOCK_S, ODD_S, Connection, Socket, dial
from kraken_feed.errors import Transient
from kraken_feed.session import Session, Timing

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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize("stopped", [False, True])
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
