"""One request and its answer in HTTP/1.1, as bytes: as much of it as scrapers and probes need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from .config import is_loopback
from .record import encode

PATHS = ("/metrics", "/healthz", "/readyz")
METHODS = ("GET", "HEAD")
END = b"\r\n\r\n"  # of a head


class Request(NamedTuple):
    """The head of a request. The names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    """What is sent back."""

    status: HTTPStatus
    headers: Sequence[tuple[str, str]]
    body: bytes


def parse(head: bytes) -> Request:
    """The request whose head this is.

    Raises:
        ValueError: it is none of HTTP/1.
    """
    line, *fields = head.removesuffix(END).decode("latin-1").split("\r\n")
    method, target, version = line.split(" ")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise ValueError(version)
    headers = {}
    for field in fields:
        name, colon, value = field.partition(":")
        if not colon:
            raise ValueError(field)
        headers[name.lower()] = value.strip()
    return Request(method, urlsplit(target).path, headers)


def objection(request: Request) -> Answer | None:
    """Why the request is not answered as it wishes; None if it is.

    A page from elsewhere can make a browser ask here under a name that it has pointed at this machine; the Host
    header tells.
    """
    host = request.headers.get("host")
    if host is not None and not _is_ours(host):
        return plain(HTTPStatus.FORBIDDEN, "The Host header has to name this machine: 127.0.0.1, [::1] or localhost.")
    if request.path not in PATHS:
        return plain(HTTPStatus.NOT_FOUND, f"There are {', '.join(PATHS)}.")
    if request.method not in METHODS:
        return plain(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD.", ("Allow", ", ".join(METHODS)))
    return None


def _is_ours(host: str) -> bool:
    try:
        return is_loopback(f"//{host}")
    except ValueError:
        return False


def plain(status: HTTPStatus, text: str, *headers: tuple[str, str]) -> Answer:
    """A line of text."""
    return Answer(status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{text}\n".encode())


def as_json(status: HTTPStatus, value: Mapping[str, object]) -> Answer:
    """A JSON object."""
    return Answer(status, [("Content-Type", "application/json")], f"{encode(value)}\n".encode())


def render(answer: Answer, *, with_body: bool = True) -> bytes:
    """The answer as it is sent: the only one on its connection. HEAD wants it without the body."""
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        *(f"{name}: {value}" for name, value in headers),
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if with_body else b"")
