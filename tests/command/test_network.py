"""How far a host can be reached, and through which proxy."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time

import httpx
import pytest
import trustme

from kraken_feed.check.network import Hop, Unreachable, first_hop, open_tcp, phase_of, tls_of
from kraken_feed.config.schema import Config
from kraken_feed.errors import Transient
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.net.server import Server
from kraken_feed.transport.connection import dial
from kraken_feed.transport.rest import server_time

from ..support.cases import each

HOST = "kraken.invalid"


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


# ------------------------------------------------------------------------------------------------ the first hop


@pytest.mark.parametrize(
    ("environ", "url", "hop"),
    [
        ({}, f"https://{HOST}", Hop(HOST, 443)),
        ({}, f"wss://{HOST}:8443/v2", Hop(HOST, 8443)),
        ({"HTTPS_PROXY": "http://proxy:3128"}, f"https://{HOST}", Hop("proxy", 3128, "HTTPS_PROXY")),
        ({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2"}, f"wss://{HOST}", Hop("a", 1, "https_proxy")),
        ({"ALL_PROXY": "socks5h://proxy"}, f"wss://{HOST}", Hop("proxy", 1080, "ALL_PROXY")),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "https://u:pw@b"}, f"https://{HOST}", Hop("b", 443, "HTTPS_PROXY")),
        ({"wss_proxy": "http://ws:1", "HTTPS_PROXY": "http://one:2"}, f"wss://{HOST}", Hop("ws", 1, "wss_proxy")),
        ({"wss_proxy": "http://ws:1"}, f"https://{HOST}", Hop(HOST, 443)),
        ({"HTTPS_PROXY": "proxy:3128"}, f"https://{HOST}", Hop("proxy", 3128, "HTTPS_PROXY")),
        ({"ALL_PROXY": "http://all:1", "NO_PROXY": HOST}, f"https://{HOST}", Hop(HOST, 443)),
        ({"ALL_PROXY": "http://all:1"}, "http://127.0.0.1:5", Hop("127.0.0.1", 5)),
        ({"ALL_PROXY": "http://all:1"}, "ws://localhost/v2", Hop("localhost", 80)),
    ],
)  # fmt: skip
def test_the_first_hop_is_the_host_or_the_proxy_that_the_libraries_take(
    environ: dict[str, str], url: str, hop: Hop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert first_hop(url, environ) == hop


# ------------------------------------------------------------------------------------------------ DNS and TCP


async def test_an_open_port_is_reached() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        found = await open_tcp(Hop("localhost", server.sockets[0].getsockname()[1]), 5.0)
    assert "127.0.0.1" in found.addresses
    assert found.ms >= 0


async def test_a_name_that_nobody_has_ends_at_dns() -> None:
    with pytest.raises(Unreachable) as raised:
        await open_tcp(Hop(HOST, 443), 30.0)
    assert raised.value.phase == "DNS"


@each("name", ["a" * 64 + ".example", "..", "\udcff"])
async def test_a_name_that_cannot_be_one_ends_at_dns(name: str) -> None:
    with pytest.raises(Unreachable) as raised:
        await open_tcp(Hop(name, 443), 30.0)
    assert raised.value.phase == "DNS"


async def test_a_closed_port_ends_at_tcp() -> None:
    with pytest.raises(Unreachable) as raised:
        await open_tcp(Hop("127.0.0.1", closed_port()), 5.0)
    assert (raised.value.phase, raised.value.why) == ("TCP", "Connection refused")


async def test_a_host_that_does_not_answer_ends_at_the_deadline() -> None:
    """A listener whose backlog is full answers no more connects."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = []
        try:
            for _ in range(8):
                one = socket.socket()
                one.setblocking(False)
                one.connect_ex(address)
                waiting.append(one)
            with pytest.raises(Unreachable) as raised:
                await open_tcp(Hop(*address), 1.0)
        finally:
            for one in waiting:
                one.close()
    assert (raised.value.phase, raised.value.why) == ("TCP", "no answer within 1 s")


# ------------------------------------------------------------------------------------------------ TLS and HTTP


async def go(way: str, port: int) -> object:
    """What a check does after it has opened TCP."""
    if way == "rest":
        return await server_time(f"https://127.0.0.1:{port}")
    return await dial(f"wss://127.0.0.1:{port}", Config().connection)


async def test_tls_is_told_by_version_issuer_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as trusted:
        monkeypatch.setenv("SSL_CERT_FILE", trusted)
        async with Server(Exchange(now=time.time()), tls=context) as server:
            rest = tls_of(await server_time(server.rest_url))
            socket = await dial(server.ws_v1_url, Config().connection)
            websocket = tls_of(socket.transport.get_extra_info("ssl_object"))
            await socket.close()
    assert rest is not None
    assert rest == websocket
    assert rest.version == "TLSv1.3"
    assert rest.issuer.startswith("trustme")
    assert rest.until > "2030-01-01"


def test_no_tls_is_none() -> None:
    assert tls_of(None) is None


@each("way", ["rest", "websocket"])
async def test_a_certificate_that_nobody_vouches_for_ends_at_tls(way: str) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Server(Exchange(now=time.time()), tls=context) as server:
        with pytest.raises(Transient) as raised:
            await go(way, server.port)
    failure = phase_of(raised.value, tls=True)
    assert (failure.phase, failure.why) == ("TLS", "unable to get local issuer certificate")


@each("way", ["rest", "websocket"])
async def test_a_connection_that_is_cut_during_tls_ends_at_tls(way: str) -> None:
    def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.close()  # with a reset

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Transient) as raised:
            await go(way, port)
    assert phase_of(raised.value, tls=True).phase == "TLS"


async def test_an_answer_that_is_none_ends_at_http() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(502, stream=httpx.ByteStream(b"<html>")))
    with pytest.raises(Transient) as raised:
        await server_time("https://127.0.0.1", transport=transport)
    assert phase_of(raised.value, tls=True).phase == "HTTP"
    assert "502" in raised.value.what
