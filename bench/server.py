"""A Kraken that only talks: raw sockets, prebuilt frames, no library in the way. `python -m bench.server SPEC`.

SPEC is JSON: ``scripts`` by name, and perhaps ``certificate``, a PEM file with key and chain, for a second port with
TLS. The WebSocket for the script NAME is at ``/NAME`` in v1 and at ``/NAME/v2`` in v2; any POST is answered as
GetWebSocketsToken would be. The first line on stdout is the ports; then ``subscribed`` each time a client has
subscribed. A byte on stdin starts the next phase of the script that waits for one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import select
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

from bench.frames import SHAPES, Script, chunks, phases, text_frame

_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, 1.3
_TOKEN = b'{"error":[],"result":{"token":"EXAMPLE+token","expires":900}}'
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10


class Scripts:
    """The scripts of a run, made before the first client comes."""

    def __init__(self, spec: dict[str, dict[str, Any]]) -> None:
        self.scripts = {name: Script(**{**fields, "phases": tuple(fields["phases"])}) for name, fields in spec.items()}
        self._built = {
            name: [list(chunks(payloads)) for payloads in phases(script)]
            for name, script in self.scripts.items()
            if not script.lazy
        }

    def phases(self, name: str) -> Iterable[Iterable[bytes]]:
        """The phases, each in pieces for the socket."""
        if name in self._built:
            return self._built[name]
        return map(chunks, phases(self.scripts[name]))


class Peer:
    """One WebSocket client, from behind the handshake to its end."""

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._received = received

    def converse(self, scripts: Scripts, name: str) -> None:
        """Greet, wait for the subscription, and say the script."""
        script = scripts.scripts[name]
        shapes = SHAPES[script.dialect]
        self._sock.sendall(text_frame(shapes.GREETING))
        self._sock.sendall(text_frame(shapes.acknowledgement(self._subscription()).encode()))
        print("subscribed", flush=True)
        for number, pieces in enumerate(scripts.phases(name)):
            if number or script.hold:
                self._listen(until_told=True)
            if script.rate and number == len(script.phases) - 1:
                self._say_singly(script)
            for piece in pieces:
                self._sock.sendall(piece)
                if self._readable(0):
                    self._hear()
        self._listen(until_told=False)

    def _say_singly(self, script: Script) -> None:
        """So many frames a second, evenly, each with the time at which it leaves."""
        first = 1 + sum(script.phases[:-1]) + len(script.phases) - 1  # the snapshot, the updates, the marks
        start = time.monotonic_ns()
        for number in range(1, script.phases[-1] + 1):
            wait = start + number * 1_000_000_000 // script.rate - time.monotonic_ns()
            if wait > 0:
                time.sleep(wait / 1e9)
            frame = SHAPES[script.dialect].stamped(time.monotonic_ns(), first + number)
            self._sock.sendall(text_frame(frame.encode()))

    def _subscription(self) -> object:
        """The number of the request to subscribe, once it has come; None if it has none."""
        while True:
            for opcode, payload in self._messages():
                if opcode == _TEXT and b'"subscribe"' in payload:
                    request = json.loads(payload)
                    return request.get("reqid", request.get("req_id"))
            self._receive()

    def _listen(self, until_told: bool) -> None:
        """Answer pings, until a byte comes on stdin or for ever."""
        while True:
            ready = self._readable(None, *([0] if until_told else []))
            if 0 in ready:
                os.read(0, 1)
                return
            self._hear()

    def _hear(self) -> None:
        self._receive()
        for _ in self._messages():
            pass

    def _readable(self, timeout: float | None, *further: int) -> list[Any]:
        if isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            return [self._sock]
        watched: list[Any] = [self._sock, *further]
        return select.select(watched, [], [], timeout)[0]

    def _receive(self) -> None:
        received = self._sock.recv(65536)
        if not received:
            raise ConnectionResetError
        self._received += received

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """The client's frames that are complete. Pings are answered, a closing frame ends the conversation."""
        while len(self._received) >= 6:
            opcode, size, start = self._received[0] & 15, self._received[1] & 127, 2
            if size == 126:
                size, start = int.from_bytes(self._received[2:4], "big"), 4
            mask, body = self._received[start : start + 4], self._received[start + 4 : start + 4 + size]
            if len(body) < size:
                return
            self._received = self._received[start + 4 + size :]
            payload = bytes(byte ^ mask[index & 3] for index, byte in enumerate(body))
            if opcode == _PING:
                self._sock.sendall(bytes([0x80 | _PONG, len(payload)]) + payload)
            elif opcode == _CLOSE:
                self._sock.sendall(bytes([0x80 | _CLOSE, len(payload)]) + payload)
                raise ConnectionResetError
            yield opcode, payload


def _answer(sock: socket.socket, scripts: Scripts) -> None:
    """HTTP on one connection: REST calls, or the upgrade to a WebSocket."""
    received = b""
    while True:
        while b"\r\n\r\n" not in received:
            piece = sock.recv(65536)
            if not piece:
                return
            received += piece
        head, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(b":") for line in lines)}
        if headers.get(b"upgrade", b"").lower() == b"websocket":
            accept = base64.b64encode(hashlib.sha1(headers[b"sec-websocket-key"] + _ACCEPT).digest())
            sock.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
            Peer(sock, rest).converse(scripts, first.split()[1].strip(b"/").split(b"/")[0].decode())
            return
        size = int(headers.get(b"content-length", b"0"))
        while len(rest) < size:
            rest += sock.recv(65536)
        received = rest[size:]
        sock.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%b"
            % (len(_TOKEN), _TOKEN)
        )


def _serve(sock: socket.socket, context: ssl.SSLContext | None, scripts: Scripts) -> None:
    with contextlib.suppress(OSError), sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _answer(context.wrap_socket(sock, server_side=True) if context else sock, scripts)


def _accept(listener: socket.socket, context: ssl.SSLContext | None, scripts: Scripts) -> None:
    while True:
        threading.Thread(target=_serve, args=(listener.accept()[0], context, scripts), daemon=True).start()


def main() -> None:
    spec = json.loads(sys.argv[1])
    scripts = Scripts(spec["scripts"])
    plain, secure = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    if spec.get("certificate"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(spec["certificate"])
        threading.Thread(target=_accept, args=(secure, context, scripts), daemon=True).start()
    print(json.dumps({"plain": plain.getsockname()[1], "secure": secure.getsockname()[1]}), flush=True)
    _accept(plain, None, scripts)


if __name__ == "__main__":
    main()
