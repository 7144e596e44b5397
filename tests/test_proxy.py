"""Proxies from the environment, for REST and WebSocket alike, and TLS to a host that only the proxy can reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
import traceback
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from kraken_feed.config import ConnectionConfig
from kraken_feed.connection import dial, proxy_for
from kraken_feed.errors import ConfigError
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.server import Server

from .installed import Done, bare, key, run

HOST = "kraken.invalid"  # resolves nowhere (RFC 6761): whoever gets there went through the proxy


class Proxy:
    """An HTTP proxy that knows CONNECT, and one address behind every name."""

    def __init__(self, behind: int) -> None:
        self.asked: list[str] = []
        self.port = 0
        self._behind = behind
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # somebody wanted to know whether there is a proxy
            writer.close()
            return
        self.asked.append(head.split(b"\r\n")[0].decode())
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxied(home: Path) -> AsyncIterator[tuple[Server, Proxy, dict[str, str]]]:
    """An exchange with TLS, a proxy before it, and an environment that knows both."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    async with Server(Exchange(now=time.time(), rate=20.0), tls=context) as server:
        proxy = Proxy(server.port)
        listening = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        proxy.port = listening.sockets[0].getsockname()[1]
        (home / "config.toml").write_text(
            f'[endpoints]\nrest = "https://{HOST}"\nws_v1 = "wss://{HOST}"\nws_v2 = "wss://{HOST}/v2"\n'
        )
        env = {
            **bare(home),
            **key(server.exchange),
            "KRAKEN_FEED_CONFIG": str(home / "config.toml"),
            "SSL_CERT_FILE": str(home / "ca.pem"),
        }
        try:
            yield server, proxy, env
        finally:
            listening.close()


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_rest_and_websockets_go_through_the_proxy(name: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, proxy, env):
        done = await run("openOrders", "balances", "--once", env=env | {name: f"http://127.0.0.1:{proxy.port}"})
    assert done.code == 0, done.err
    assert set(proxy.asked) == {f"CONNECT {HOST}:443 HTTP/1.1"}
    assert len(proxy.asked) == 3  # two WebSockets, and one connection for both REST calls
    assert {line["channel"] for line in done.named("feed.live")} == {"openOrders", "balances"}


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, f"wss://{HOST}/v2", True),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, f"wss://{HOST}/v2", "http://127.0.0.1:9"),
        ({"ALL_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:8"}, f"wss://{HOST}/v2", True),
        ({"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": HOST}, f"wss://{HOST}/v2", None),
        ({"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "invalid"}, f"wss://{HOST}:443/v2", None),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, "ws://127.0.0.1:5/v2", None),
        ({"https_proxy": "http://127.0.0.1:9"}, "wss://localhost/v2", None),
    ],
)
def test_the_environment_decides_on_the_proxy_but_for_this_machine(
    environment: dict[str, str], url: str, proxy: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(url) == proxy


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, proxy, env):
        del env["SSL_CERT_FILE"]
        env["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
        done = await run("openOrders", "--duration", "1", env=env)
        assert server.exchange.connections == 0
    assert done.code == 0, done.err
    assert "certificate verify failed" in done.err
    assert {line["event"] for line in done.log} <= {"connection_failed", "connection_lost", "first_start"}, (
        "a library complained"
    )
    assert [line["event_name"] for line in done.lines] == ["feed.stopped"]


async def test_the_tail_of_tls_needs_no_proxy_on_loopback(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, proxy, env):
        (tmp_path / "config.toml").write_text(
            f'[endpoints]\nrest = "{server.rest_url}"\nws_v1 = "{server.ws_v1_url}"\n'
        )
        done: Done = await run(
            "openOrders", "--duration", "1", env=env | {"https_proxy": f"http://127.0.0.1:{proxy.port}"}
        )
        assert proxy.asked == []
    assert "certificate verify failed" in done.err  # it is for another name, and names are checked


async def test_a_socks_proxy_without_its_package_is_a_configuration_error(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, _, env):
        env |= {"ALL_PROXY": "socks9://127.0.0.1:1"}
        done = await run("openOrders", env=env)
    assert done.code == 78
    assert "proxy" in done.log[0]["what"]


async def test_the_password_of_a_proxy_that_is_none_is_in_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program the error is shown with its causes."""
    monkeypatch.setenv("wss_proxy", "foo://user:SENTINEL-PASSWORD@127.0.0.1:9")
    with pytest.raises(ConfigError) as caught:
        await dial("wss://ws.invalid", ConnectionConfig())
    assert "SENTINEL-PASSWORD" not in "".join(traceback.format_exception(caught.value))
