"""Find the proxy that the environment names for a URL, in one form that both libraries accept.

REST and WebSocket use different libraries. They disagree on variables, schemes, default ports and the syntax of
NO_PROXY. So neither reads the environment: both get what :func:`proxy_for` returns.
"""

from __future__ import annotations

import ipaddress
import os
import urllib.request
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from ..config.schema import is_loopback
from ..errors import ConfigError

PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}  # the schemes that both libraries know

# Where each kind of URL looks for its proxy, first match wins: as websockets and httpx do, and ALL_PROXY for the rest.
_VARIABLES = {
    "wss": ("wss", "socks", "https", "all"),
    "ws": ("ws", "socks", "https", "http", "all"),
    "https": ("https", "all"),
    "http": ("http", "all"),
}


class Proxy(NamedTuple):
    """A proxy, and the variable that names it. ``url`` always has a port and no path; it may hold a password."""

    url: str
    variable: str

    def __repr__(self) -> str:
        return f"<Proxy of {self.variable}>"


def proxy_for(url: str, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """Return the proxy to use for ``url``; None if there is none, as for URLs of this machine.

    Raises:
        ConfigError: the environment names one that cannot be used. The message shows the variable, not its value.
    """
    parts = urlsplit(url)
    if is_loopback(url):
        return None
    found = urllib.request.getproxies()
    name = next((name for name in _VARIABLES[parts.scheme] if found.get(name)), None)
    if name is None:
        return None
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    if bypassed(parts.scheme, host, port, found.get("no", "")) or urllib.request.proxy_bypass(f"{host}:{port}"):
        return None
    variable = _variable(f"{name}_proxy", environ)
    value = found[name].strip()
    if name == "socks" and value.startswith("http://"):  # how macOS spells it
        value = f"socks5h://{value.removeprefix('http://')}"
    return Proxy(_normal(value, variable), variable)


def bypassed(scheme: str, host: str, port: int, no_proxy: str) -> bool:
    """Return whether ``NO_PROXY`` exempts a host. Entries without a meaning here are ignored.

    Entries are ``*``, a name (its subdomains included), an address, a network (``fd00::/8``), each also with a scheme
    before or a port behind it.
    """
    return any(_matches(entry.strip().rstrip("/").lower(), scheme, host.lower(), port) for entry in no_proxy.split(","))


def no_socks() -> ConfigError:
    """Return the error for a SOCKS proxy without the packages that it needs."""
    return ConfigError(
        "The environment names a SOCKS proxy, and the packages for it are not installed.",
        remedy="Install kraken-feed[socks], or name an HTTP proxy.",
    )


def bad_proxy(proxy: Proxy | None, why: str) -> ConfigError:
    """Return the error for a proxy that a library rejects. ``why`` is its text, which must not quote the URL."""
    variable = proxy.variable if proxy is not None else "The proxy's variable"
    return ConfigError(
        f"{variable} names a proxy that cannot be used.",
        why=why,
        remedy=f"Write it as http://HOST:PORT, or remove {variable}.",
    )


def _matches(entry: str, scheme: str, host: str, port: int) -> bool:
    wanted, separator, entry = entry.rpartition("://")
    if separator and wanted not in (scheme, "all", {"wss": "https", "ws": "http"}.get(scheme)):
        return False
    if entry == "*":
        return True
    entry, number = _without_port(entry)
    if number and number != str(port):
        return False
    network = _network(entry)
    if network is not None:
        address = _address(host)
        return address is not None and address in network
    name = entry.lstrip("*.")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _without_port(entry: str) -> tuple[str, str]:
    """Split an entry of NO_PROXY into host and port. In an IPv6 address without brackets, no colon separates a port."""
    if entry.startswith("["):
        address, _, rest = entry[1:].partition("]")
        return (address + rest, "") if rest.startswith("/") else (address, rest.removeprefix(":"))
    name, separator, number = entry.partition(":")
    return (name, number) if separator and ":" not in number else (entry, "")


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Return the network of a NO_PROXY entry, for an address the one with only that address; None if it is neither."""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _variable(name: str, environ: Mapping[str, str]) -> str:
    """Return the variable's name as it is spelled in the environment. Lower case wins, as in urllib."""
    return next((known for known in (name, name.upper()) if environ.get(known)), name)


def _normal(value: str, variable: str) -> str:
    """Return the proxy's URL in the form that both libraries accept. Without a scheme it is an HTTP proxy, as for
    curl.

    Raises:
        ConfigError: as :func:`proxy_for`.
    """
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number, a bracket that is not closed
        host, port = None, None
        parts = SplitResult("http", "", "", "", "")
    if parts.scheme not in PROXY_PORTS:
        socks = parts.scheme.startswith("socks")
        raise ConfigError(
            f"{variable}: kraken-feed does not know proxies of the scheme {parts.scheme}://.",
            why=f"Known are {', '.join(f'{known}://' for known in PROXY_PORTS)}.",
            remedy=f"For a SOCKS proxy write socks5h:// (it looks up names) or socks5:// in {variable}."
            if socks
            else f"Correct {variable}. HOST:PORT without a scheme means http://HOST:PORT.",
        ) from None
    if not host or not _is_host(host):
        raise ConfigError(
            f"{variable} is not the URL of a proxy.", remedy=f"Write it as http://HOST:PORT, or remove {variable}."
        ) from None
    user, at, _ = parts.netloc.rpartition("@")
    if at and ":" not in user:
        user += ":"  # websockets wants a password beside a user, if only an empty one
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{user}{at}{shown}:{port or PROXY_PORTS[parts.scheme]}"


def _is_host(host: str) -> bool:
    return _address(host.partition("%")[0]) is not None or not any(c.isspace() or c in '"<>\\^`{|}' for c in host)
