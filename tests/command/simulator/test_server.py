"""The server on real sockets, with clients that know nothing of it."""

import asyncio
import json
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.net import connection
from kraken_feed.simulator.net.server import Server
from tests.support.account import sign
from tests.support.timeouts import scaled

PATIENCE = scaled(10.0)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    exchange = Exchange(now=time.time(), seed=1, rate=0.0, scenario=Scenario(tier="pro"))
    async with asyncio.timeout(PATIENCE), Server(exchange) as running:
        yield running


async def token(server: Server, client: httpx.AsyncClient) -> str:
    nonce = str(time.time_ns())
    path, body = "/0/private/GetWebSocketsToken", f"nonce={nonce}".encode()
    headers = {
        "API-Key": server.exchange.key,
        "API-Sign": sign(server.exchange.secret, path, nonce, body),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    reply = await client.post(server.rest_url + path, content=body, headers=headers)
    return str(reply.json()["result"]["token"])


async def subscribe(server: Server, socket: ClientConnection) -> None:
    """Subscribes a v1 connection to openOrders and reads up to the snapshot."""
    async with httpx.AsyncClient() as client:
        value = await token(server, client)
    await socket.send(json.dumps({"event": "subscribe", "subscription": {"name": "openOrders", "token": value}}))
    while True:
        if isinstance(json.loads(await socket.recv()), list):
            return


async def read_to_the_end(socket: ClientConnection) -> tuple[list[bytes], ConnectionClosed]:
    """Every text frame that still came, and how the connection ended."""
    texts: list[bytes] = []
    while True:
        try:
            texts.append(await socket.recv(decode=False))
        except ConnectionClosed as closed:
            return texts, closed


async def other_round_trip(server: Server) -> None:
    """Lets the server do what is due, as long as a message on another connection takes there and back."""
    async with connect(server.ws_v1_url) as other:
        await (await other.ping())


def inject(server: Server, fault: Fault) -> None:
    server.exchange.inject(fault, server.now())
    server.tick()


def new_order(server: Server, **options: Any) -> str:
    order_id = server.exchange.new_order(server.now(), **options)
    server.tick()
    return order_id


async def test_rest_and_both_dialects_share_one_port(server: Server) -> None:
    async with (
        httpx.AsyncClient() as client,
        connect(server.ws_v1_url) as first,
        connect(server.ws_v2_url) as second,
    ):
        assert (await client.get(f"{server.rest_url}/0/public/SystemStatus")).json()["error"] == []
        assert json.loads(await first.recv())["event"] == "systemStatus"
        assert json.loads(await second.recv())["channel"] == "status"
        value = await token(server, client)
        await first.send(json.dumps({"event": "subscribe", "subscription": {"name": "openOrders", "token": value}}))
        await second.send(json.dumps({"method": "subscribe", "params": {"channel": "executions", "token": value}}))
        await first.recv()
        await second.recv()
        snapshots = [json.loads(await first.recv()), json.loads(await second.recv())]
        assert (len(snapshots[0][0]), len(snapshots[1]["data"])) == (5, 5)


@pytest.mark.parametrize("offset", [3600.0, -3600.0])
async def test_every_answer_is_dated_by_the_clock_that_is_shown(server: Server, offset: float) -> None:
    server.exchange.world.clock_offset_s = offset
    async with httpx.AsyncClient() as client, connect(server.ws_v1_url) as socket:
        reply = await client.get(f"{server.rest_url}/0/public/Time")
        assert socket.response is not None
        for headers in (reply.headers, socket.response.headers):
            shown = parsedate_to_datetime(headers["Date"]).timestamp()
            assert abs(shown - offset - time.time()) < PATIENCE + 1


async def test_one_http_connection_serves_many_requests_even_when_pipelined(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /0/public/Time HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    writer.write(b"GET /0/public/Time HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 3
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /0/private/Balance HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /0/private/Balance HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /0/private/Balance HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
        b"x" * 70_000,
    ],
)
async def test_what_is_no_request_is_answered_with_400(server: Server, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(request_bytes)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    await writer.wait_closed()


async def test_an_upgrade_on_another_path_is_not_found(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{server.ws_v1_url}/v3")
    assert refused.value.response.status_code == 404


async def test_a_refused_upgrade_has_the_status_of_the_fault(server: Server) -> None:
    inject(server, Fault("upgrade_refused", status=429, retry_after=3))
    with pytest.raises(InvalidStatus) as refused:
        await connect(server.ws_v1_url, open_timeout=PATIENCE, process_exception=lambda error: error)
    assert refused.value.response.status_code == 429
    assert refused.value.response.headers["Retry-After"] == "3"


async def test_a_reset_reaches_the_client_without_a_close_frame(server: Server) -> None:
    async with connect(server.ws_v1_url) as socket:
        await socket.recv()
        inject(server, Fault("drop"))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is None
    assert server.exchange.peers == []


@pytest.mark.parametrize(("code", "seen"), [(1001, 1001), (1006, None), (1008, 1008), (1011, 1011), (1013, 1013)])
async def test_a_close_code_reaches_the_client(server: Server, code: int, seen: int | None) -> None:
    async with connect(server.ws_v2_url) as socket:
        await socket.recv()
        inject(server, Fault("drop", code=code))
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert (closed.value.rcvd.code if closed.value.rcvd else None) == seen


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1013])
async def test_everything_published_before_a_close_code_arrives_before_it_however_late_it_is_read(
    server: Server, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client reads nothing until the time for its answer is over."""
    monkeypatch.setattr(connection, "CLOSE_S", 0.0)
    async with connect(server.ws_v1_url, max_size=None, max_queue=1, ping_interval=None) as socket:
        await subscribe(server, socket)
        inject(server, Fault("many_orders"))
        new_order(server)
        inject(server, Fault("drop", code=code))
        await other_round_trip(server)
        received, closed = await read_to_the_end(socket)
        assert closed.rcvd is not None
        assert closed.rcvd.code == code
    published = [frame.text for frame in server.exchange.ledger.frames if frame.kind == "update"]
    assert sum(map(len, published)) > 5_000_000  # more than sockets hold for a client that does not read
    assert [text for text in received if text.startswith(b"[")] == published


async def test_after_a_client_broke_the_protocol_nothing_counts_as_published(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
    writer.write(UPGRADE)
    await reader.readuntil(b"systemStatus")
    inject(server, Fault("big_frame"))  # the connection cannot end before the client reads it
    writer.write(b"\x81\x01x")  # without the mask that a client must use
    await other_round_trip(server)
    assert len(server.connections) > 0
    assert server.exchange.peers == []
    writer.transport.abort()


async def test_a_websocket_ping_is_answered_in_silence_but_not_in_a_stall(server: Server) -> None:
    async with connect(server.ws_v1_url, ping_interval=None, close_timeout=0.1) as socket:
        await subscribe(server, socket)
        inject(server, Fault("silent"))
        await (await socket.ping())
        inject(server, Fault("half_open"))
        pong = await socket.ping()
        await other_round_trip(server)
        assert isinstance(pong, asyncio.Future)
        assert not pong.done()
        inject(server, Fault("drop", code=1011))
        with pytest.raises(ConnectionClosed):
            await pong


async def test_what_was_sent_into_a_stall_is_answered_after_it(server: Server) -> None:
    async with connect(server.ws_v1_url) as socket:
        await socket.recv()
        inject(server, Fault("half_open", duration=0.3))
        await socket.send('{"event":"ping","reqid":5}')
        assert json.loads(await socket.recv()) == {"event": "pong", "reqid": 5}


@pytest.mark.parametrize("variant", ["fragments", "writes"])
async def test_split_frames_arrive_whole(server: Server, variant: str) -> None:
    async with connect(server.ws_v1_url) as socket:
        await subscribe(server, socket)
        inject(server, Fault("split", bytes=3, variant=variant))
        order_id = new_order(server, cl_ord_id="grid-17-ü", accept=False)
        published = list(server.exchange.ledger.published)[-1]
        text = await socket.recv(decode=False)
        assert order_id in published.ids
        assert published.data in text


async def test_fragments_are_what_the_client_sees(server: Server) -> None:
    async with connect(server.ws_v1_url) as socket:
        await subscribe(server, socket)
        inject(server, Fault("split", bytes=100))
        new_order(server, accept=False)
        pieces = [piece async for piece in socket.recv_streaming(decode=False)]
        assert len(pieces) > 3


async def test_text_that_is_not_utf8_goes_out_as_it_is(server: Server) -> None:
    async with connect(server.ws_v1_url) as socket:
        await subscribe(server, socket)
        inject(server, Fault("garbage_frame", variant="not_utf8"))
        assert b"\xff\xfe" in await socket.recv(decode=False)


async def test_a_frame_of_many_mebibytes_gets_through(server: Server) -> None:
    async with connect(server.ws_v2_url, max_size=None) as socket:
        await socket.recv()
        inject(server, Fault("big_frame"))
        assert len(await socket.recv(decode=False)) > 40 * 1024 * 1024


async def test_a_client_that_reads_nothing_is_dropped_in_the_end(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1024)
    writer.write(UPGRADE)
    await reader.readuntil(b"systemStatus")
    (connection,) = server.connections
    for _ in range(3):
        inject(server, Fault("big_frame"))
    await connection.ended
    assert server.exchange.peers == []
    writer.transport.abort()


async def test_a_hanging_call_leaves_other_connections_alone(server: Server) -> None:
    inject(server, Fault("rest_timeout"))
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"{server.rest_url}/0/public/Time", timeout=0.2)
        assert (await client.get(f"{server.rest_url}/0/public/Time")).status_code == 200


async def test_a_client_that_talks_on_into_a_hanging_call_is_dropped(server: Server) -> None:
    reader, writer = await asyncio.open_connection(server.host, server.port)
    request = b"GET /0/public/Time HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(request)
    await reader.readuntil(b"unixtime")
    (connection,) = server.connections
    inject(server, Fault("rest_timeout"))
    writer.write(request + b"x" * 2_000_000)
    await connection.ended
    writer.transport.abort()


async def test_a_late_reply_comes_and_the_connection_goes_on(server: Server) -> None:
    inject(server, Fault("rest_timeout", seconds=0.1))
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            assert (await client.get(f"{server.rest_url}/0/public/Time")).json()["error"] == []


async def test_clients_that_vanish_leave_nothing_behind(server: Server) -> None:
    sockets = [await connect(server.ws_v1_url) for _ in range(5)]
    connections = list(server.connections)
    inject(server, Fault("half_open"))
    for socket in sockets:
        socket.transport.abort()
    await asyncio.gather(*(connection.ended for connection in connections))
    assert server.exchange.peers == []
    for socket in sockets:
        await socket.wait_closed()


async def test_leaving_the_block_closes_every_connection_and_leaves_no_task() -> None:
    before = asyncio.all_tasks()
    async with Server(Exchange(now=time.time(), rate=50.0)) as server:
        socket = await connect(server.ws_v1_url)
        await socket.recv()
        inject(server, Fault("half_open"))
    await socket.wait_closed()
    assert asyncio.all_tasks() == before
    assert server.connections == set()


async def test_a_test_can_move_the_clock() -> None:
    now = 1_760_000_000.0
    exchange = Exchange(now=now, rate=0.0)
    async with (
        asyncio.timeout(PATIENCE),
        Server(exchange, clock=lambda: now) as server,
        connect(server.ws_v1_url) as socket,
    ):
        await socket.recv()
        now += 61.0
        server.tick()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    alternative = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *alternative], check=True, capture_output=True)
    return cert, key


async def test_everything_works_over_tls(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    trust = ssl.create_default_context(cafile=str(cert))
    exchange = Exchange(now=time.time(), rate=0.0)
    async with asyncio.timeout(PATIENCE), Server(exchange, tls=context) as server:
        assert (server.rest_url[:8], server.ws_v1_url[:6]) == ("https://", "wss://")
        async with httpx.AsyncClient(verify=trust) as client:
            assert len(await token(server, client)) == 43
        async with connect(server.ws_v1_url, ssl=trust) as socket:
            await socket.recv()
            inject(server, Fault("drop"))
            with pytest.raises(ConnectionClosed):
                await socket.recv()
