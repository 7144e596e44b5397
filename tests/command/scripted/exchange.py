"""A scripted exchange on loopback: REST and the private WebSockets v1 and v2 say exactly what a test wrote down.

It knows just enough of the protocol to be taken for Kraken: it greets, acknowledges subscriptions, answers pings and
sends heartbeats. Everything else comes from the script, byte for byte. The installed command runs against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from asyncio import StreamReader, StreamWriter
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Literal
from urllib.parse import parse_qs

import h11
import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

HEARTBEAT_S = 1.0
SECRET = "a" * 86 + "=="  # what Kraken's secrets look like

GREETINGS = {
    "v1": '{"connectionID":13834774380200032777,"event":"systemStatus","status":"online","version":"1.9.6"}',
    "v2": '{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2",'
    '"connection_id":13834774380200032777}]}',
}
HEARTBEATS = {"v1": '{"event":"heartbeat"}', "v2": '{"channel":"heartbeat"}'}
ACKS = {
    "v1": '{"channelName":"CHANNEL","event":"subscriptionStatus","reqid":REQ_ID,"status":"subscribed",'
    '"subscription":{"name":"CHANNEL"}}',
    "v2": '{"method":"subscribe","req_id":REQ_ID,"result":{"channel":"CHANNEL","snapshot":true},"success":true,'
    '"time_in":"TIME","time_out":"TIME"}',
}
PONGS = {
    "v1": '{"event":"pong","reqid":REQ_ID}',
    "v2": '{"method":"pong","req_id":REQ_ID,"time_in":"TIME","time_out":"TIME"}',
}


def dialect_of(channel: str) -> Literal["v1", "v2"]:
    """Return the WebSocket API that has the channel."""
    return "v1" if channel in ("openOrders", "ownTrades") else "v2"


class Close(msgspec.Struct, frozen=True):
    """End the connection, once every channel that ends it too has got so far."""

    code: int = 1001


class Burst(msgspec.Struct, frozen=True):
    """Send these frames in one write, so that they arrive together. They need not be UTF-8."""

    frames: tuple[bytes, ...]


Step = bytes | Close | Burst  # bytes are a frame
Answer = bytes | Callable[[Mapping[str, str]], bytes]  # a body, or what makes one from the request's form


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """What the exchange does.

    ``connections``: by connection of each dialect, the steps that follow each channel's acknowledgement; the last one
    repeats.
    ``rest``: by method, the answers in their order; the last one repeats.
    ``acks``: acknowledgements other than Kraken's, by dialect, with REQ_ID and CHANNEL in the place of these.
    """

    connections: Sequence[Mapping[str, Sequence[Step]]]
    rest: Mapping[str, Sequence[Answer]] = {}
    acks: Mapping[str, str] = {}


class Call(msgspec.Struct, frozen=True):
    """One request to REST."""

    method: str
    form: dict[str, str]


def result(value: str) -> bytes:
    """Return the body of a successful answer."""
    return f'{{"error":[],"result":{value}}}'.encode()


EMPTY: Mapping[str, bytes] = {
    "ClosedOrders": result('{"closed":{},"count":0}'),
    "TradesHistory": result('{"trades":{},"count":0}'),
    "Ledgers": result('{"ledger":{},"count":0}'),
    "QueryOrders": result("{}"),
    "GetApiKeyInfo": result('{"api_key_name":"tail","permissions":[],"query_from":"0","query_to":"0"}'),
}


class Exchange:
    """Plays a script, and keeps what it was asked."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.calls: list[Call] = []
        self.tokens: list[str] = []  # of the subscriptions that came, in their order
        self.connections: Counter[str] = Counter()  # by dialect
        self.rest_url = self.ws_url = ""
        self._answered: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Exchange]:
        """Serve while the block runs."""
        http = await asyncio.start_server(self._http, "127.0.0.1", 0)
        async with http, serve(self._websocket, "127.0.0.1", 0, compression=None, max_size=1 << 26) as ws:
            self.rest_url = f"http://127.0.0.1:{http.sockets[0].getsockname()[1]}"
            self.ws_url = f"ws://127.0.0.1:{next(iter(ws.sockets)).getsockname()[1]}"
            yield self

    def asked(self, method: str) -> list[Call]:
        """Return the calls of one method."""
        return [call for call in self.calls if call.method == method]

    # -- REST

    async def _http(self, reader: StreamReader, writer: StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                request, body = await self._request(connection, reader)
                if request is None:
                    return
                answer = self._answer(request.target.decode(), body)
                headers = [
                    ("Content-Type", "application/json"),
                    ("Content-Length", str(len(answer))),
                    ("Date", formatdate(usegmt=True)),
                ]
                for event in (h11.Response(status_code=200, headers=headers), h11.Data(answer), h11.EndOfMessage()):
                    writer.write(connection.send(event) or b"")
                await writer.drain()
                connection.start_next_cycle()
        except (ConnectionError, h11.ProtocolError):
            pass  # the client has left
        finally:
            writer.close()

    @staticmethod
    async def _request(connection: h11.Connection, reader: StreamReader) -> tuple[h11.Request | None, bytes]:
        """Return the next request with its body; None when the client has hung up."""
        request, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return request, body
            else:
                return None, b""

    def _answer(self, path: str, body: bytes) -> bytes:
        method = path.rpartition("/")[2]
        if method == "Time":
            return result(f'{{"unixtime":{int(datetime.now(UTC).timestamp())},"rfc1123":""}}')
        form = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
        self.calls.append(Call(method, form))
        scripted = self.script.rest.get(method)
        if scripted:
            number = self._answered.get(method, 0)
            self._answered[method] = number + 1
            answer = scripted[min(number, len(scripted) - 1)]
            return answer if isinstance(answer, bytes) else answer(form)
        if method == "GetWebSocketsToken":
            return result(f'{{"token":"FICTIONAL+token/{len(self.calls)}","expires":900}}')
        return EMPTY.get(method, b'{"error":["EGeneral:Unknown method"]}')

    # -- WebSocket

    async def _websocket(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        dialect = "v2" if socket.request.path.startswith("/v2") else "v1"
        scripted = self.script.connections[min(self.connections[dialect], len(self.script.connections) - 1)]
        self.connections[dialect] += 1
        closing = [
            channel
            for channel, steps in scripted.items()
            if dialect_of(channel) == dialect and any(isinstance(step, Close) for step in steps)
        ]
        end = asyncio.Barrier(max(len(closing), 1))
        with contextlib.suppress(ConnectionClosed):
            async with asyncio.TaskGroup() as tasks:
                await socket.send(GREETINGS[dialect])
                beating = tasks.create_task(self._beat(socket, HEARTBEATS[dialect]))
                playing = []
                try:
                    async for text in socket:
                        channel = await self._reply(socket, dialect, json.loads(text))
                        if channel is not None:
                            playing.append(tasks.create_task(self._play(socket, scripted.get(channel, ()), end)))
                finally:
                    for task in (beating, *playing):
                        task.cancel()

    async def _reply(self, socket: ServerConnection, dialect: str, request: Any) -> str | None:
        """Answer a request; return the channel if it is a subscription."""
        kind = request.get("method") if dialect == "v2" else request.get("event")
        wanted = request["params"] if dialect == "v2" and "params" in request else request.get("subscription", {})
        template = self.script.acks.get(dialect, ACKS[dialect]) if kind == "subscribe" else PONGS[dialect]
        if kind not in ("subscribe", "ping"):
            return None
        channel = wanted.get("channel", wanted.get("name"))
        req_id = request.get("req_id", request.get("reqid"))
        if kind == "subscribe":
            self.tokens.append(wanted["token"])
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        await socket.send(template.replace("REQ_ID", str(req_id)).replace("CHANNEL", str(channel)).replace("TIME", now))
        return channel if kind == "subscribe" else None

    @staticmethod
    async def _beat(socket: ServerConnection, heartbeat: str) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(HEARTBEAT_S)
                await socket.send(heartbeat)

    @staticmethod
    async def _play(socket: ServerConnection, steps: Sequence[Step], end: asyncio.Barrier) -> None:
        with contextlib.suppress(ConnectionClosed):
            for step in steps:
                match step:
                    case bytes():
                        await socket.send(step, text=True)
                    case Close(code=code):
                        await end.wait()
                        await socket.close(code)
                    case Burst(frames=frames):
                        texts = (Frame(Opcode.TEXT, frame) for frame in frames)
                        socket.transport.write(b"".join(frame.serialize(mask=False) for frame in texts))
