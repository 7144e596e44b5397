"""Messages that come slowly: bytes of a frame in progress are no silence, and answers may queue behind it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from kraken_feed.config.schema import ConnectionConfig
from kraken_feed.protocol import spot_v1
from kraken_feed.protocol.session import Event, Live, Session, Timing
from kraken_feed.protocol.wire import Data
from kraken_feed.transport.connection import Connection, Socket
from kraken_feed.transport.stream import Stream
from tests.support import virtual_time

from ...support.cases import each

ACK_S, SILENCE_S = 5.0, 10.0
PIECES_S = 1.0  # between two pieces
ITEM = b'{"O%05d-BBBBB-CCCCCC":{"descr":{"pair":"XBT/USD"},"status":"open","vol":"1.00"}}'


class Transport(asyncio.Transport):
    """A transport that takes everything and leads nowhere."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Wide(Stream):
    max_bytes = 1 << 25


def stream() -> Stream:
    """A connection whose opening is over."""
    client, server = ClientProtocol(parse_uri("ws://127.0.0.1:1/")), ServerProtocol()
    made = Wide(client)
    made.connection_made(Transport())
    client.send_request(client.connect())
    server.receive_data(b"".join(client.data_to_send()))
    (request,) = server.events_received()
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    made.data_received(b"".join(server.data_to_send()))
    return made


class Room:
    """An output that takes everything."""

    full = False

    async def room(self) -> None:
        raise AssertionError("nobody has to wait for it")


class Slow:
    """A connection to v1 on a slow line, in virtual time. The client asks with the numbers 1, 2 … and pings after."""

    def __init__(self, *channels: str) -> None:
        self.stream, self.stop = stream(), asyncio.Event()
        self.session = Session(spot_v1, channels, Timing(ACK_S, SILENCE_S))
        self.events: list[Event] = []
        connection = Connection("ws://127.0.0.1:1/", self.session, ConnectionConfig(), dial=self._dial, stamp=lambda: 0)
        self.task = asyncio.create_task(connection.run(self._token, self.events.extend, Room(), self.stop))

    async def _dial(self, url: str, config: ConnectionConfig) -> Socket:
        return self.stream

    async def _token(self) -> str:
        return "EXAMPLE"

    @property
    def cause(self) -> str | None:
        return self.session.failure.cause if self.session.failure is not None else None

    @property
    def live(self) -> list[str]:
        return [event.channel for event in self.events if isinstance(event, Live)]

    def say(self, *frames: bytes) -> None:
        self.stream.data_received(b"".join(Frame(Opcode.TEXT, frame).serialize(mask=False) for frame in frames))

    async def trickle(self, data: bytes, pieces: int) -> None:
        """Let bytes arrive in so many pieces, one a second."""
        size = -(-len(data) // pieces)
        for start in range(0, len(data), size):
            self.stream.data_received(data[start : start + size])
            await virtual_time.elapse(PIECES_S)

    async def end(self) -> None:
        self.stop.set()
        await self.task


def in_virtual_time(*channels: str) -> Callable[[Callable[[Slow], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Make a test of one that is handed a connection that has asked for these channels."""

    def decorate(test: Callable[[Slow], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        async def run() -> None:
            slow = Slow(*channels)
            await virtual_time.elapse(0.5)
            await test(slow)
            await slow.end()

        def wrapped() -> None:
            virtual_time.run(run())

        wrapped.__name__, wrapped.__doc__ = test.__name__, test.__doc__
        return wrapped

    return decorate


def ack(number: int) -> bytes:
    return b'{"event":"subscriptionStatus","reqid":%d,"status":"subscribed"}' % number


def snapshot(channel: bytes = b"openOrders", orders: int = 2000) -> bytes:
    items = b",".join(ITEM % index for index in range(orders)) if channel == b"openOrders" else b""
    return b'[[%b],"%b",{"sequence":1}]' % (items, channel)


def text(frame: bytes) -> bytes:
    return Frame(Opcode.TEXT, frame).serialize(mask=False)


def fragments(frame: bytes, count: int) -> bytes:
    """A message in fragments, with a ping of the peer's between every two."""
    size = -(-len(frame) // count)
    parts = [frame[start : start + size] for start in range(0, len(frame), size)]
    made = [
        Frame(Opcode.CONT if index else Opcode.TEXT, part, fin=index == len(parts) - 1).serialize(mask=False)
        for index, part in enumerate(parts)
    ]
    return Frame(Opcode.PING, b"").serialize(mask=False).join(made)


# ------------------------------------------------------------------------------------------------ the whole connection


@each("cut", [text, lambda frame: fragments(frame, 7)])
def test_a_snapshot_that_arrives_for_a_minute_is_progress_and_no_silence(cut: Callable[[bytes], bytes]) -> None:
    async def run() -> None:
        slow = Slow("openOrders")
        await virtual_time.elapse(0.5)
        slow.say(ack(1))
        await slow.trickle(cut(snapshot()), 60)
        await virtual_time.elapse(0.0)
        assert (slow.cause, slow.live) == (None, ["openOrders"])
        (records,) = [event for event in slow.events if isinstance(event, Data)]
        assert len(records.items) == 2000
        await virtual_time.elapse(SILENCE_S + 0.1)
        assert slow.cause == "silence"
        await slow.end()

    virtual_time.run(run())


@in_virtual_time("openOrders")
async def test_a_frame_that_stops_in_the_middle_is_found_out_on_time(slow: Slow) -> None:
    slow.say(ack(1))
    await slow.trickle(text(snapshot())[:20_000], 30)
    await virtual_time.elapse(ACK_S - PIECES_S - 0.1)
    assert slow.cause is None
    await virtual_time.elapse(0.2)
    assert slow.cause == "no_snapshot"


@in_virtual_time("openOrders")
async def test_a_live_channel_whose_frame_stops_in_the_middle_is_silent(slow: Slow) -> None:
    slow.say(ack(1), snapshot(orders=1))
    await slow.trickle(text(snapshot())[:20_000], 30)
    await virtual_time.elapse(SILENCE_S - PIECES_S - 0.1)
    assert slow.cause is None
    await virtual_time.elapse(0.2)
    assert slow.cause == "silence"


@in_virtual_time("openOrders", "ownTrades")
async def test_an_answer_behind_a_slow_snapshot_is_not_late(slow: Slow) -> None:
    slow.say(ack(1))
    await slow.trickle(text(snapshot()), 60)
    await virtual_time.elapse(3.0)
    assert slow.cause is None
    slow.say(ack(2))
    await slow.trickle(text(snapshot(b"ownTrades")), 1)
    assert (slow.cause, slow.live) == (None, ["openOrders", "ownTrades"])


@in_virtual_time("openOrders", "ownTrades")
async def test_an_answer_that_does_not_come_behind_a_slow_snapshot_is_missed(slow: Slow) -> None:
    slow.say(ack(1))
    await slow.trickle(text(snapshot()), 60)
    await virtual_time.elapse(ACK_S + 0.1)
    assert slow.cause == "no_ack"


@in_virtual_time("openOrders", "ownTrades")
async def test_frames_that_reads_cut_in_two_do_not_postpone_an_answer(slow: Slow) -> None:
    """On a busy line nearly every read ends within a frame."""
    slow.say(ack(1), snapshot(orders=1))
    whole = b"".join(
        text(b'[[{"OAAAAA-BBBBB-CCCCC1":{"status":"open"}}],"openOrders",{"sequence":%d}]' % number)
        for number in range(2, 400)
    )
    cuts = range(0, len(whole), len(whole) // 100 - 3)
    for start, stop in itertools.pairwise([*cuts, len(whole)]):
        slow.stream.data_received(whole[start:stop])
        await virtual_time.elapse(0.2)
        if slow.cause is not None:
            break
    assert slow.cause == "no_ack"


@in_virtual_time("openOrders")
async def test_answers_to_pings_in_pieces_do_not_keep_a_dead_feed_alive(slow: Slow) -> None:
    slow.say(ack(1), snapshot(orders=1), b'{"event":"heartbeat"}')
    for number in range(2, 40):
        pong = text(b'{"event":"pong","reqid":%d}' % number)
        slow.stream.data_received(pong[:5])
        await virtual_time.elapse(0.5)
        slow.stream.data_received(pong[5:])
        await virtual_time.elapse(0.5)
        if slow.cause is not None:
            break
    assert slow.cause == "silence"
    assert number <= 2 * SILENCE_S


# ------------------------------------------------------------------------------------------------ the stream alone


@given(st.lists(st.floats(0.1, 20.0), min_size=1, max_size=8))
def test_the_time_that_a_slow_message_took_is_told_once_it_is_whole(gaps: list[float]) -> None:
    async def run() -> None:
        made = stream()
        data = text(b"x" * 1000)
        made.data_received(data[:3])
        for index, gap in enumerate(gaps):
            assert made.arriving == (0.0, asyncio.get_running_loop().time())
            assert made.delay == 0.0
            await virtual_time.elapse(gap)
            made.data_received(data[3 + index : 4 + index])
        made.data_received(data[3 + len(gaps) :])
        assert made.arriving is None
        assert made.delay == pytest.approx(sum(gaps))
        assert list(await made.burst()) == [b"x" * 1000]

    virtual_time.run(run())


def test_a_message_in_one_piece_is_no_progress_and_no_delay() -> None:
    async def run() -> None:
        made = stream()
        for _ in range(3):
            made.data_received(text(b"{}") * 2)
            await virtual_time.elapse(1.0)
            assert (made.arriving, made.delay) == (None, 0.0)

    virtual_time.run(run())
