"""Serve one accepted socket: HTTP requests until one of them is a WebSocket upgrade."""

import asyncio
import socket
import struct
from typing import Literal, Protocol

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol

from ..exchange import Exchange, Refused
from ..market.stamp import http_date
from ..rest.reply import Reply
from ..wire.outgoing import Abort, Close, Text
from ..wire.peer import Peer
from .http11 import MAX_BODY, MAX_HEAD, BadRequest, Head, head, response

MAX_BUFFER = 64 * 1024 * 1024  # a client that reads nothing is disconnected here
MAX_MESSAGE = 8 * 1024 * 1024  # what a client may send
_MAX_UNREAD = 1024 * 1024  # bytes of a client that are kept while the connection is stalled
CLOSE_S = 5.0  # how long a client may take to answer a close frame
_LINGER_NOT = struct.pack("ii", 1, 0)  # closing with this sends a reset
_DIALECTS: dict[str, Literal["v1", "v2"]] = {"": "v1", "/": "v1", "/v2": "v2", "/v2/": "v2"}


class Host(Protocol):
    """What a connection needs from the server that accepted it."""

    exchange: Exchange
    connections: "set[Connection]"

    def now(self) -> float:
        """Return the exchange's time, in unix seconds."""

    def tick(self) -> None:
        """Let the exchange advance to now, read every connection, and send the results."""


class Connection(asyncio.Protocol):
    """One socket: HTTP/1.1 with keep-alive and, after an upgrade, a WebSocket."""

    def __init__(self, host: Host) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._socket: ServerProtocol | None = None
        self._peer: Peer | None = None
        self._message = bytearray()
        self._busy = False
        self._finished = False  # nothing may be written any more
        self._timer: asyncio.TimerHandle | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("a stream transport is needed")
        self._transport = transport
        self._host.connections.add(self)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._peer is not None:
            self._host.tick()  # also reads what was just received, unless the connection is stalled
        elif len(self._received) > MAX_HEAD + MAX_BODY:
            self.abort()  # a client without an answer would wait for ever
        else:
            self._serve_http()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._peer is not None:
            self._peer.disconnect()
        if not self.ended.done():
            self.ended.set_result(None)

    # What the server calls.

    def abort(self) -> None:
        """End the connection at once, with a reset."""
        transport = self._transport
        if transport is None:
            return
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        transport.abort()

    def read(self) -> None:
        """Handle the frames that were received; a stalled connection leaves them unread."""
        if self._peer is None or self._socket is None:
            return
        if self._peer.stalled:
            if len(self._received) > _MAX_UNREAD:
                self.abort()
            return
        if self._peer.closed and self._socket.state is State.OPEN:
            return  # the close comes first: frames received in a stall are not answered any more
        self._read_frames()

    def send(self) -> None:
        """Write the frames of the exchange; a stalled connection writes nothing."""
        if self._peer is None or self._peer.stalled:
            return
        for message in self._peer.outgoing():
            if isinstance(message, Abort):
                self.abort()
                return
            self._send(message)
        self._write()

    # HTTP

    def _serve_http(self) -> None:
        while not self._busy and self._peer is None and self._transport is not None:
            try:
                request = head(self._received)
                if request is None or len(self._received) < request.size + request.length:
                    return
            except BadRequest as exc:
                self._reply(Reply(400, {}, str(exc).encode()), keep_alive=False)
                return
            if request.upgrade:
                self._upgrade(request)
                return
            body = bytes(self._received[request.size : request.size + request.length])
            del self._received[: request.size + request.length]
            self._answer(request, body)

    def _answer(self, request: Head, body: bytes) -> None:
        host = self._host
        reply = host.exchange.rest(request.method, request.target, request.headers, body, host.now())
        if reply.hang:
            self._busy = True  # the client disconnects, or waits for ever
        elif reply.delay:
            self._busy = True
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(reply.delay, self._answer_late, reply, request.keep_alive)
        else:
            self._reply(reply, keep_alive=request.keep_alive)
        host.tick()

    def _answer_late(self, reply: Reply, keep_alive: bool) -> None:
        self._busy = False
        self._reply(reply, keep_alive=keep_alive)
        self._serve_http()

    def _reply(self, reply: Reply, *, keep_alive: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(response(reply, keep_alive=keep_alive, date=self._date()))
        if not keep_alive:
            self._busy = True
            self._transport.close()

    def _date(self) -> str:
        return http_date(self._host.exchange.world.shown_time(self._host.now()))

    # WebSocket

    def _upgrade(self, request: Head) -> None:
        dialect = _DIALECTS.get(request.target.partition("?")[0])
        if dialect is None:
            self._reply(Reply(404, {}, b""), keep_alive=False)
            return
        protocol = ServerProtocol(max_size=MAX_MESSAGE)
        protocol.receive_data(bytes(self._received[: request.size]))
        del self._received[: request.size]
        for event in protocol.events_received():
            if isinstance(event, Request):
                answer = protocol.accept(event)
                del answer.headers["Date"]
                answer.headers["Date"] = self._date()
                if answer.status_code == 101:
                    peer = self._host.exchange.connect(dialect, self._host.now())
                    if isinstance(peer, Refused):
                        self._reply(Reply(peer.status, peer.headers, peer.body), keep_alive=False)
                        return
                    self._peer = peer
                protocol.send_response(answer)
        self._socket = protocol
        self._write()
        self._host.tick()

    def _read_frames(self) -> None:
        if self._socket is None or not self._received:
            return
        data = bytes(self._received)
        self._received.clear()
        self._socket.receive_data(data)
        for event in self._socket.events_received():
            if isinstance(event, Frame):
                self._take(event)
        if self._socket.state is not State.OPEN and self._peer is not None:
            self._peer.disconnect()  # the client broke the protocol: nothing more is sent, so nothing more counts

    def _take(self, frame: Frame) -> None:
        if self._peer is None:
            return
        if frame.opcode is Opcode.CLOSE:
            self._peer.disconnect()
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            self._message += frame.data
            if frame.fin:
                text = bytes(self._message)
                self._message.clear()
                self._peer.receive(text, self._host.now())

    def _send(self, message: Text | Close) -> None:
        protocol, transport = self._socket, self._transport
        if protocol is None or transport is None or protocol.state is not State.OPEN:
            return
        if isinstance(message, Text):
            _send_text(protocol, message)
            if message.write:
                for piece in _pieces(b"".join(protocol.data_to_send()), message.write):
                    if transport.is_closing():  # the client is gone: asyncio would warn of every piece
                        break
                    transport.write(piece)
        elif message.code == 1006:
            self._write()
            transport.close()
        else:
            protocol.send_close(message.code, message.reason)
            self._timer = asyncio.get_running_loop().call_later(CLOSE_S, self._hang_up)

    def _hang_up(self) -> None:
        """Close the sending side after all output, so that a slow client can still read it.

        A reset, or closing both sides while the client still sends, would lose output that it has not read.
        """
        if self._transport is None or self._transport.is_closing():
            return
        self._finished = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS
            self._transport.close()

    def _write(self) -> None:
        if self._socket is None or self._transport is None:
            return
        for data in self._socket.data_to_send():
            if data == SEND_EOF:
                self._transport.close()
            elif not (self._finished or self._transport.is_closing()):
                self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_BUFFER:
            self.abort()


def _send_text(protocol: ServerProtocol, message: Text) -> None:
    if not message.fragment:
        protocol.send_text(message.data)
        return
    pieces = _pieces(message.data, message.fragment)
    protocol.send_text(pieces[0], fin=len(pieces) == 1)
    for index, piece in enumerate(pieces[1:], 2):
        protocol.send_continuation(piece, fin=index == len(pieces))


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]
