"""Proxies from the environment, for REST and WebSocket alike, and TLS to a host that only the proxy can reach."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from websockets.proxy import parse_proxy

from kraken_feed.config.schema import ConnectionConfig
from kraken_feed.errors import ConfigError
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.net.server import Server
from kraken_feed.transport.connection import dial
from kraken_feed.transport.proxy import Proxy, bypassed, proxy_for

from ..support.cases import each
from ..support.installed import Done, bare, key, run

HOST = "kraken.invalid"  # resolves nowhere (RFC 6761): whoever gets there went through the proxy


class Relay:
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
async def proxied(home: Path) -> AsyncIterator[tuple[Server, Relay, dict[str, str]]]:
    """An exchange with TLS, a proxy before it, and an environment that knows both."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    authority.cert_pem.write_to_path(str(home / "ca.pem"))
    async with Server(Exchange(now=time.time(), rate=20.0), tls=context) as server:
        proxy = Relay(server.port)
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


@pytest.mark.parametrize("scheme", ["http://", ""])
@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "ALL_PROXY"])
async def test_rest_and_websockets_go_through_the_proxy(name: str, scheme: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, proxy, env):
        done = await run("openOrders", "balances", "--once", env=env | {name: f"{scheme}127.0.0.1:{proxy.port}"})
    assert done.code == 0, done.err
    assert set(proxy.asked) == {f"CONNECT {HOST}:443 HTTP/1.1"}
    assert len(proxy.asked) == 3  # two WebSockets, and one connection for both REST calls
    assert {line["channel"] for line in done.named("feed.live")} == {"openOrders", "balances"}


@pytest.fixture
def proxies(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Set the environment's proxies, and no others."""

    def only(environment: dict[str, str]) -> None:
        for name in list(os.environ):
            if name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return only


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({}, f"wss://{HOST}/v2", None),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, f"wss://{HOST}/v2", Proxy("http://127.0.0.1:9", "ALL_PROXY")),
        (
            {"ALL_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:8"},
            f"wss://{HOST}/v2",
            Proxy("http://127.0.0.1:8", "https_proxy"),
        ),
        (
            {"wss_proxy": "http://a:1", "https_proxy": "http://b:2"},
            f"https://{HOST}",
            Proxy("http://b:2", "https_proxy"),
        ),
        ({"wss_proxy": "http://a:1", "https_proxy": "http://b:2"}, f"wss://{HOST}", Proxy("http://a:1", "wss_proxy")),
        ({"SOCKS_PROXY": "http://a:1"}, f"wss://{HOST}", Proxy("socks5h://a:1", "SOCKS_PROXY")),
        ({"HTTP_PROXY": "http://a:1"}, f"https://{HOST}", None),
        ({"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": HOST}, f"wss://{HOST}/v2", None),
        ({"ALL_PROXY": "http://127.0.0.1:9", "NO_PROXY": "invalid"}, f"wss://{HOST}:443/v2", None),
        ({"ALL_PROXY": "http://127.0.0.1:9"}, "ws://127.0.0.1:5/v2", None),
        ({"https_proxy": "http://127.0.0.1:9"}, "wss://localhost/v2", None),
    ],
)
def test_the_environment_decides_on_the_proxy_but_for_this_machine(
    environment: dict[str, str], url: str, proxy: Proxy | None, proxies: Callable[[dict[str, str]], None]
) -> None:
    proxies(environment)
    assert proxy_for(url) == proxy


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("proxy.local", "http://proxy.local:80"),
        (" proxy.local:3128/ ", "http://proxy.local:3128"),
        ("HTTP://Proxy:1", "http://proxy:1"),
        ("https://proxy", "https://proxy:443"),
        ("socks5h://proxy", "socks5h://proxy:1080"),
        ("socks5://u:p%40@proxy:9", "socks5://u:p%40@proxy:9"),
        ("u:p@proxy:9", "http://u:p@proxy:9"),
        ("http://u@proxy:9", "http://u:@proxy:9"),
        ("[fd00::1]:8080", "http://[fd00::1]:8080"),
    ],
)
def test_a_proxy_has_one_form_that_both_libraries_take(
    value: str, url: str, proxies: Callable[[dict[str, str]], None]
) -> None:
    proxies({"HTTPS_PROXY": value})
    assert proxy_for(f"https://{HOST}") == proxy_for(f"wss://{HOST}") == Proxy(url, "HTTPS_PROXY")
    assert parse_proxy(url).host == httpx.Proxy(url).url.host.lower()


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "socks://u:SENTINEL@127.0.0.1:1080",
            ["does not know proxies of the scheme socks://.", "socks5h://", "socks5://"],
        ),
        ("socks4://127.0.0.1:1080", ["does not know proxies of the scheme socks4://.", "socks5h://"]),
        ("ftp://u:SENTINEL@proxy", ["does not know proxies of the scheme ftp://.", "http://"]),
        ("http://proxy:SENTINEL", ["is not the URL of a proxy"]),
        ("http://[SENTINEL", ["is not the URL of a proxy"]),
        ("http://SENTI NEL:80", ["is not the URL of a proxy"]),
        ("http://", ["is not the URL of a proxy"]),
    ],
)
def test_a_proxy_that_cannot_be_used_is_told_by_its_variable(
    name: str, value: str, says: list[str], proxies: Callable[[dict[str, str]], None]
) -> None:
    proxies({name: value})
    with pytest.raises(ConfigError) as caught:
        proxy_for(f"wss://{HOST}")
    said = str(caught.value)
    assert all(words in said for words in [*says, name])
    assert "SENTI" not in "".join(traceback.format_exception(caught.value))


@each(
    ("entries", "url", "exempt"),
    [
        ("localhost,fd00::/8", f"https://{HOST}", False),
        ("localhost,[::1]", f"https://{HOST}", False),
        ("localhost,[::1]", "https://[::1]:9", True),
        ("fd00::/8", "https://[fd12::1]", True),
        ("fd00::/8", "https://[fe80::1]", False),
        ("[fd12::1]:443", "https://[fd12::1]", True),
        ("[fd12::1]:444", "https://[fd12::1]", False),
        ("10.0.0.0/8", "wss://10.1.2.3", True),
        ("10.0.0.0/8", "wss://11.1.2.3", False),
        ("10.1.2.3", "wss://10.1.2.3", True),
        ("*", f"wss://{HOST}", True),
        (f"x, {HOST.upper()} ,y", f"wss://{HOST}", True),
        (f".{HOST}", f"wss://ws.{HOST}", True),
        (f"*.{HOST}", f"wss://ws.{HOST}", True),
        (HOST, f"wss://not{HOST}", False),
        (f"{HOST}:443", f"wss://{HOST}", True),
        (f"{HOST}:8443", f"wss://{HOST}", False),
        (f"https://{HOST}", f"https://{HOST}", True),
        (f"https://{HOST}/", f"wss://{HOST}", True),
        (f"http://{HOST}", f"https://{HOST}", False),
        (", ,:,/,[,],::,://,%,[x]:y,*.,.", f"https://{HOST}", False),
    ],
)
def test_no_proxy_takes_names_addresses_networks_and_whatever_else_there_is(
    entries: str, url: str, exempt: bool, proxies: Callable[[dict[str, str]], None]
) -> None:
    proxies({"ALL_PROXY": "proxy:1", "NO_PROXY": entries})
    assert (proxy_for(url) is None) == exempt


@given(st.text(), st.sampled_from(["https", "wss"]), st.sampled_from([HOST, "10.0.0.1", "fd00::1"]))
def test_no_entry_of_no_proxy_raises(entries: str, scheme: str, host: str) -> None:
    assert bypassed(scheme, host, 443, entries) in (True, False)


@pytest.mark.parametrize("entries", ["localhost,fd00::/8", "localhost,[::1]", "::::/x,http://[,*:*"])
@pytest.mark.parametrize("proxied_too", [False, True])
async def test_an_odd_entry_of_no_proxy_stops_no_start(entries: str, proxied_too: bool, tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, proxy, env):
        env |= {"NO_PROXY": entries}
        if proxied_too:
            env["HTTPS_PROXY"] = f"127.0.0.1:{proxy.port}"
        else:
            (tmp_path / "config.toml").write_text(
                f'[endpoints]\nrest = "{server.rest_url}"\nws_v1 = "{server.ws_v1_url}"\n'.replace(
                    "127.0.0.1", "localhost"
                )
            )
        done = await run("openOrders", "--once" if proxied_too else "--duration=1", env=env)
    assert done.code == 0, done.err
    assert bool(proxy.asked) == proxied_too


async def test_the_scheme_of_a_proxy_is_said_to_be_unknown_where_packages_are_not_to_blame(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, _, env):
        done = await run("openOrders", env=env | {"ALL_PROXY": "socks://127.0.0.1:1080"})
    assert done.code == 78
    (said,) = done.log
    assert said["what"].startswith("ALL_PROXY: kraken-feed does not know proxies of the scheme socks://.")
    assert "socks5h://" in said["remedy"]
    assert "install" not in done.err


async def test_a_certificate_that_nobody_vouches_for_is_not_accepted(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, proxy, env):
        del env["SSL_CERT_FILE"]
        env["https_proxy"] = f"http://127.0.0.1:{proxy.port}"
        done = await run("openOrders", "--duration", "1", env=env)
        assert server.exchange.connections == 0
    assert done.code == 0, done.err
    assert "certificate verify failed" in done.err
    assert {line["event"] for line in done.log} <= {"connection_failed", "connection_lost", "no_checkpoint"}, (
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
        for library in ("socksio", "python_socks"):
            (tmp_path / "without" / library).mkdir(parents=True)
            (tmp_path / "without" / library / "__init__.py").write_text("raise ImportError")
        env |= {"ALL_PROXY": "socks5://127.0.0.1:1", "PYTHONPATH": str(tmp_path / "without")}
        done = await run("openOrders", env=env)
    assert done.code == 78
    assert "SOCKS" in done.log[0]["what"]
    assert "kraken-feed[socks]" in done.log[0]["remedy"]


async def test_the_password_of_a_proxy_that_is_none_is_in_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a program the error is shown with its causes."""
    monkeypatch.setenv("wss_proxy", "foo://user:SENTINEL-PASSWORD@127.0.0.1:9")
    with pytest.raises(ConfigError) as caught:
        await dial("wss://ws.invalid", ConnectionConfig())
    assert "SENTINEL-PASSWORD" not in "".join(traceback.format_exception(caught.value))
