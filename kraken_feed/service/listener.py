"""Serve metrics and health over HTTP: /metrics, /healthz and /readyz on a loopback address.

The listener has a daemon thread with its own event loop: when the feed's loop is stuck, it still answers, and says so.
The figures are collected in the feed's loop, which the listener asks without blocking it. A connection serves one
request and has one deadline for all of it, so that a slow client holds nothing for long.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from ..config.schema import is_loopback, listen_address
from ..errors import ConfigError
from ..records.render import encode
from ..telemetry.stats import Program
from .health import dead, unready

# ----------------------- One request and its answer in HTTP/1.1, as bytes: as much of it as scrapers and probes need

PATHS = ("/metrics", "/healthz", "/readyz")
METHODS = ("GET", "HEAD")
END = b"\r\n\r\n"  # of a head


class Request(NamedTuple):
    """The head of a request. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]


class Answer(NamedTuple):
    status: HTTPStatus
    headers: Sequence[tuple[str, str]]
    body: bytes


def parse(head: bytes) -> Request:
    """Parse the head of a request.

    Raises:
        ValueError: it is not a request of HTTP/1.
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
    """Return the answer that refuses a request; None if the request is allowed.

    A web page can make a browser send requests here, under a name that resolves to this machine. The Host header shows
    that.
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
    return Answer(status, [("Content-Type", "text/plain; charset=utf-8"), *headers], f"{text}\n".encode())


def as_json(status: HTTPStatus, value: Mapping[str, object]) -> Answer:
    return Answer(status, [("Content-Type", "application/json")], f"{encode(value)}\n".encode())


def render(answer: Answer, *, with_body: bool = True) -> bytes:
    """Return the answer as bytes. It closes the connection. For HEAD the body is left out."""
    headers = [*answer.headers, ("Content-Length", str(len(answer.body)))]
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        *(f"{name}: {value}" for name, value in headers),
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (answer.body if with_body else b"")


HEAD_BYTES = 16 * 1024  # of a request; Prometheus sends half a kilobyte
PAUSE_S = 1.0  # without new connections, when no descriptors are left
CONNECTIONS = 32  # at the same time; a scraper and some probes need five
ANSWER_S = 2.0  # the event loop needs milliseconds; a scraper waits for ten seconds
EXCHANGE_S = 5.0  # from the connection to its end, ANSWER_S included

Render = Callable[[Program, str, str], tuple[list[tuple[str, str]], bytes]]  # metrics.render


@dataclass(eq=False, repr=False)
class Listener:
    """Serves requests from its creation until :meth:`close`. Create and close it in the feed's event loop.

    Raises:
        ConfigError: prometheus_client is not installed, or the address cannot be used.
    """

    listen: str  # the configuration's ``metrics.listen``
    snapshot: Callable[[], Program]  # returns the figures; called in the feed's event loop
    fresh_s: float  # after which a connection counts as stale if no frame comes
    answer_s: float = ANSWER_S  # to wait for the feed's loop
    exchange_s: float = EXCHANGE_S  # that a connection may take

    def __post_init__(self) -> None:
        self._render = _renderer()
        self._feeds_loop = asyncio.get_running_loop()
        self._asked: asyncio.Future[Program] | None = None
        self._asked_at = 0.0
        self._exchanges: set[asyncio.Task[None]] = set()
        self._closed = asyncio.Event()
        self._socket = _bind(self.listen)
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close all connections, release the port and end the thread."""
        self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join()

    # -- in the listener's thread

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._resume()
        await self._closed.wait()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        if self._asked is not None:
            self._asked.cancel()
        for exchange in self._exchanges:
            exchange.cancel()
        await asyncio.gather(*self._exchanges, return_exceptions=True)

    def _resume(self) -> None:
        if not self._closed.is_set():
            self._loop.add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        """Accept one connection. asyncio's server, when closed, would lose a connection that it has just accepted."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # the client has gone again
        except OSError:  # no descriptors are left: to try again at once would be a busy loop
            self._loop.remove_reader(self._socket)
            self._loop.call_later(PAUSE_S, self._resume)
            return
        connection.setblocking(False)
        if len(self._exchanges) >= CONNECTIONS:
            with connection, contextlib.suppress(OSError):
                connection.send(render(plain(HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.")))
            return
        exchange = self._loop.create_task(self._exchange(connection))
        self._exchanges.add(exchange)
        exchange.add_done_callback(self._exchanges.discard)
        exchange.add_done_callback(lambda exchange: connection.close())  # also if the exchange never began

    async def _exchange(self, connection: socket.socket) -> None:
        with contextlib.suppress(TimeoutError, OSError):  # the client is too slow, or gone
            async with asyncio.timeout(self.exchange_s):
                await self._loop.sock_sendall(connection, await self._reply(connection))
                connection.shutdown(socket.SHUT_WR)
                # To close a socket with unread input would reset it, and lose the answer.
                while await self._loop.sock_recv(connection, HEAD_BYTES):
                    pass

    async def _reply(self, connection: socket.socket) -> bytes:
        """Read a request, and return the bytes of the answer."""
        head = await self._head(connection)
        if not head.endswith(END):
            return render(plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"{HEAD_BYTES} bytes at most."))
        try:
            request = parse(head)
        except ValueError:
            return render(plain(HTTPStatus.BAD_REQUEST, "That is not HTTP/1.1."))
        answer = objection(request) or await self._answer(request)
        return render(answer, with_body=request.method != "HEAD")

    async def _head(self, connection: socket.socket) -> bytes:
        """Return the bytes up to the empty line, or the first ``HEAD_BYTES`` if there is none."""
        head = b""
        while END not in head and len(head) < HEAD_BYTES:
            piece = await self._loop.sock_recv(connection, HEAD_BYTES)
            if not piece:
                raise ConnectionAbortedError
            head += piece
        return head.partition(END)[0] + END if END in head else head

    async def _answer(self, request: Request) -> Answer:
        """Return the answer with the program's figures or health, or one that says that the program is stuck."""
        try:
            program = await self._program()
        except TimeoutError:
            since = self._loop.time() - self._asked_at
            return as_json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "stuck", "unanswered_s": round(since, 3)})
        if request.path == "/metrics":
            accepted = (request.headers.get(name, "") for name in ("accept", "accept-encoding"))
            return Answer(HTTPStatus.OK, *self._render(program, *accepted))
        if request.path == "/healthz":
            illness = dead(program)
            return as_json(HTTPStatus.SERVICE_UNAVAILABLE if illness else HTTPStatus.OK, illness or {"status": "ok"})
        reasons = unready(program, self.fresh_s)
        if reasons:
            return as_json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not_ready", "reasons": reasons})
        return as_json(HTTPStatus.OK, {"status": "ready"})

    async def _program(self) -> Program:
        """Return the program's figures from the feed's loop; requests at the same time share one call. Raises
        TimeoutError if it does not answer in time."""
        if self._asked is None or self._asked.done():
            self._asked = asyncio.wrap_future(self._ask())
            self._asked_at = self._loop.time()
        async with asyncio.timeout(self.answer_s):
            return await asyncio.shield(self._asked)

    def _ask(self) -> Future[Program]:
        answer: Future[Program] = Future()

        def tell() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(self.snapshot())
            except BaseException as error:
                answer.set_exception(error)
                raise

        self._feeds_loop.call_soon_threadsafe(tell)
        return answer


def _renderer() -> Render:
    try:
        from .metrics import render
    except ModuleNotFoundError as error:
        if error.name != "prometheus_client":
            raise
        raise ConfigError(
            "metrics.listen is set, but prometheus_client is not installed.",
            remedy="pip install 'kraken-feed[metrics]'",
        ) from None
    return render


def _bind(listen: str) -> socket.socket:
    host, port = listen_address(listen)
    try:
        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"metrics.listen: cannot listen on {listen}.",
            why=f"{error.strerror} (errno {error.errno}).",
            remedy="Give another port, or 0 for a free one.",
        ) from error
    bound.setblocking(False)
    return bound
