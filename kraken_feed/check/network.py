"""Check each step to a host: its name, TCP, TLS; through a proxy, if the environment names one."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from ..transport.proxy import PORTS, proxy_for

Phase = Literal["DNS", "TCP", "TLS", "HTTP"]

HEAD_START_S = 0.25  # until the next address is tried in parallel (RFC 8305)

_CUT = ("ConnectError", "ConnectTimeout", "ConnectionResetError")  # httpx's, httpx's, and the system's


class Unreachable(Exception):
    """The host cannot be reached. ``phase`` is the step that failed, ``why`` the reason in the system's words."""

    def __init__(self, phase: Phase, why: str) -> None:
        super().__init__(f"{phase}: {why}")
        self.phase: Phase = phase
        self.why = why


class Hop(NamedTuple):
    """The first machine to connect to: the host itself, or the proxy that ``variable`` names."""

    host: str
    port: int
    variable: str = ""


class TcpResult(NamedTuple):
    """The result of opening a TCP connection: the name's addresses, and how long the opening took."""

    addresses: tuple[str, ...]
    ms: float


class Tls(NamedTuple):
    """A TLS connection: its version (``TLSv1.3``), the issuer of the certificate, and the day on which that expires."""

    version: str
    issuer: str
    until: str


def first_hop(url: str, environ: Mapping[str, str]) -> Hop:
    """Return the host that a connection to ``url`` goes to first. A proxy's user and password are left out.

    Raises:
        ConfigError: the environment names a proxy that cannot be used.
    """
    proxy = proxy_for(url, environ)
    parts = urlsplit(url if proxy is None else proxy.url)
    return Hop(parts.hostname or "", parts.port or PORTS[parts.scheme], "" if proxy is None else proxy.variable)


async def open_tcp(hop: Hop, deadline_s: float) -> TcpResult:
    """Look up the name, and open and close a TCP connection.

    Raises:
        Unreachable: one of them failed, or took longer than ``deadline_s``.
    """
    loop = asyncio.get_running_loop()
    phase: Phase = "DNS"
    try:
        async with asyncio.timeout(deadline_s):
            found = await loop.getaddrinfo(hop.host, hop.port, type=socket.SOCK_STREAM)
            phase, begun = "TCP", loop.time()
            _, writer = await asyncio.open_connection(hop.host, hop.port, happy_eyeballs_delay=HEAD_START_S)
            ms = (loop.time() - begun) * 1000
            writer.transport.abort()
    except TimeoutError:
        raise Unreachable(phase, f"no answer within {deadline_s:g} s") from None
    except (OSError, UnicodeError) as error:
        raise Unreachable(phase, _words(error)) from error
    return TcpResult(tuple(dict.fromkeys(str(info[4][0]) for info in found)), round(ms, 1))


def phase_of(error: BaseException, *, tls: bool) -> Unreachable:
    """Return the step at which a connection failed after TCP, according to the libraries' exceptions. If it uses
    ``tls``, a connection that breaks at once failed there."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return Unreachable("TLS", getattr(cause, "verify_message", "") or cause.reason or str(cause))
        if isinstance(cause, socket.gaierror):
            return Unreachable("DNS", _words(cause))
        if isinstance(cause, ConnectionRefusedError):
            return Unreachable("TCP", _words(cause))
    if tls and type(error.__cause__).__name__ in _CUT:
        return Unreachable("TLS", "the connection was closed, or nothing was received")
    return Unreachable("HTTP", "")


def tls_of(stream: Any) -> Tls | None:
    """Return the facts of a TLS connection (``ssl.SSLObject``); None without TLS."""
    if stream is None:
        return None
    certificate = stream.getpeercert() or {}
    issuer = {key: value for part in certificate.get("issuer", ()) for key, value in part}
    until = certificate.get("notAfter")
    day = "?" if until is None else datetime.fromtimestamp(ssl.cert_time_to_seconds(until), UTC).strftime("%Y-%m-%d")
    return Tls(stream.version() or "?", issuer.get("organizationName") or issuer.get("commonName", "?"), day)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _words(error: Exception) -> str:
    """Return the reason of an error without the address, which is in the message already."""
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error) or type(error).__name__
