"""The listener on real sockets: what it answers while the feed's loop turns, while it is stuck, and to bad clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kraken_feed.errors import ConfigError
from kraken_feed.service.listener import CONNECTIONS, HEAD_BYTES, PAUSE_S, Listener
from kraken_feed.telemetry.stats import Program

from ..support.cases import each
from ..support.figures import LOST, WELL, Reply, ask, program
from ..support.timeouts import TIMEOUT_S

SOON_S = 0.02  # a deadline that a test waits for
LATE_S = TIMEOUT_S  # one that no test meets


@contextlib.asynccontextmanager
async def listening(
    snapshot: Callable[[], Program] = lambda: WELL, listen: str = "127.0.0.1:0", **options: Any
) -> AsyncIterator[Listener]:
    given = {"fresh_s": 20.0, "answer_s": LATE_S, "exchange_s": LATE_S, **options}
    listener = Listener(listen, snapshot, **given)
    with contextlib.closing(listener):
        yield listener


async def get(listener: Listener, path: str, method: str = "GET", **headers: str) -> Reply:
    return await asyncio.to_thread(ask, listener.url, path, method, **headers)


def connect(listener: Listener) -> socket.socket:
    parts = urlsplit(listener.url)
    assert parts.port is not None
    return socket.create_connection((str(parts.hostname), parts.port), timeout=LATE_S)


def rest_of(connection: socket.socket) -> bytes:
    """What comes until the other side has finished."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


async def raw(listener: Listener, sent: bytes) -> bytes:
    def exchange() -> bytes:
        with connect(listener) as connection:
            connection.sendall(sent)
            return rest_of(connection)

    return await asyncio.to_thread(exchange)


# ------------------------------------------------------------------------------------------------ while all is well


async def test_metrics_are_those_of_the_snapshot() -> None:
    async with listening() as listener:
        reply = await get(listener, "/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family.samples for family in text_string_to_metric_families(reply.body.decode())}
    assert families["kraken_feed_build_info"][0].labels["version"] == WELL.version


async def test_metrics_come_as_openmetrics_and_packed_if_wished() -> None:
    async with listening() as listener:
        reply = await get(listener, "/metrics", accept="application/openmetrics-text", accept_encoding="gzip")
    assert reply.headers["content-type"].startswith("application/openmetrics-text")
    assert reply.headers["content-encoding"] == "gzip"


async def test_a_program_that_is_well_is_alive_and_ready() -> None:
    async with listening() as listener:
        alive, ready = await get(listener, "/healthz"), await get(listener, "/readyz")
    assert (alive.status, alive.json()) == (200, {"status": "ok"})
    assert (ready.status, ready.json()) == (200, {"status": "ready"})


async def test_a_program_that_is_not_live_is_alive_and_not_ready_and_says_why() -> None:
    async with listening(lambda: program(LOST)) as listener:
        alive, ready = await get(listener, "/healthz"), await get(listener, "/readyz")
    assert alive.status == 200
    assert ready.status == 503
    fields = ready.json()
    assert fields["status"] == "not_ready"
    assert isinstance(fields["reasons"], list)
    assert [reason["channel"] for reason in fields["reasons"]] == ["openOrders", "ownTrades"]


async def test_a_part_that_is_overdue_makes_the_program_sick() -> None:
    async with listening(lambda: program(overdue="the recovery")) as listener:
        reply = await get(listener, "/healthz")
    assert (reply.status, reply.json()) == (503, {"status": "overdue", "part": "the recovery"})


async def test_figures_are_gathered_in_the_feeds_thread_and_anew_each_time() -> None:
    threads: list[threading.Thread] = []

    def snapshot() -> Program:
        threads.append(threading.current_thread())
        return WELL

    async with listening(snapshot) as listener:
        for path in ("/metrics", "/healthz", "/readyz"):
            await get(listener, path)
    assert threads == [threading.main_thread()] * 3


async def test_head_has_the_headers_and_no_body() -> None:
    async with listening() as listener:
        whole = await raw(listener, b"GET /readyz HTTP/1.1\r\n\r\n")
        head = await raw(listener, b"HEAD /readyz HTTP/1.1\r\n\r\n")
    assert whole == head + b'{"status":"ready"}\n'


@each(("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405)])
async def test_who_asks_for_something_else_disturbs_nobody(path: str, method: str, status: int) -> None:
    def snapshot() -> Program:
        raise AssertionError("nobody has to be asked")

    async with listening(snapshot) as listener:
        assert (await get(listener, path, method)).status == status


async def test_a_name_that_was_bound_to_this_machine_is_refused() -> None:
    async with listening() as listener:
        assert (await get(listener, "/metrics", host="rebound.example")).status == 403


async def test_many_scrapes_at_once_are_all_answered() -> None:
    async with listening() as listener:
        replies = await asyncio.gather(*(get(listener, "/metrics") for _ in range(CONNECTIONS // 2)))
    assert {reply.status for reply in replies} == {200}


async def test_it_listens_on_ipv6_too() -> None:
    async with listening(listen="[::1]:0") as listener:
        assert listener.url.startswith("http://[::1]:")
        assert (await get(listener, "/healthz")).status == 200


# ------------------------------------------------------------------------------------------------ while it is stuck


async def _while_stuck(listener: Listener, *paths: str) -> list[Reply]:
    """The answers to requests during which the feed's loop does nothing."""
    replies: list[Reply] = []
    done = threading.Event()

    def client() -> None:
        try:
            replies.extend(ask(listener.url, path) for path in paths)
        finally:
            done.set()

    thread = threading.Thread(target=client)
    thread.start()
    assert done.wait(LATE_S)  # on purpose in the loop's own thread: nothing turns meanwhile
    thread.join()
    return replies


@each("path", ["/healthz", "/readyz", "/metrics"])
async def test_a_stuck_loop_is_said_to_be_stuck(path: str) -> None:
    async with listening(answer_s=SOON_S) as listener:
        (reply,) = await _while_stuck(listener, path)
    assert reply.status == 503
    fields = reply.json()
    assert fields["status"] == "stuck"
    assert isinstance(fields["unanswered_s"], float)
    assert fields["unanswered_s"] >= SOON_S


async def test_a_stuck_loop_is_asked_once_however_many_want_to_know() -> None:
    asked: list[None] = []

    def snapshot() -> Program:
        asked.append(None)
        return WELL

    async with listening(snapshot, answer_s=SOON_S) as listener:
        replies = await _while_stuck(listener, *["/healthz"] * 5)
        waited = [float(str(reply.json()["unanswered_s"])) for reply in replies]
        assert waited == sorted(waited)  # all wait for the first question
        await asyncio.sleep(0)
        assert len(asked) == 1


async def test_a_loop_that_turns_again_is_well_again() -> None:
    async with listening(answer_s=SOON_S) as listener:
        (stuck,) = await _while_stuck(listener, "/healthz")
        listener.answer_s = LATE_S  # the machine may be slow now
        assert (stuck.status, (await get(listener, "/healthz")).status) == (503, 200)


async def test_a_defect_in_the_figures_costs_one_answer_and_is_heard_of() -> None:
    snapshots = iter([None, WELL])
    heard: list[dict[str, Any]] = []

    def snapshot() -> Program:
        found = next(snapshots)
        if found is None:
            raise ZeroDivisionError
        return found

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: heard.append(context))
    async with listening(snapshot) as listener:
        listener._loop.set_exception_handler(lambda loop, context: None)
        assert await raw(listener, b"GET /healthz HTTP/1.1\r\n\r\n") == b""
        assert (await get(listener, "/healthz")).status == 200
    assert [type(context["exception"]) for context in heard] == [ZeroDivisionError]


# ------------------------------------------------------------------------------------------------ bad clients


async def test_a_slow_client_is_cut_off() -> None:
    async with listening(exchange_s=SOON_S) as listener:
        assert await raw(listener, b"GET /metrics HTTP/1.1\r\nHost: loc") == b""


async def test_a_client_that_does_not_hang_up_is_cut_off_after_its_answer() -> None:
    async with listening(exchange_s=SOON_S) as listener:
        connection = await asyncio.to_thread(connect, listener)
        with connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            await asyncio.to_thread(rest_of, connection)
            async with asyncio.timeout(LATE_S):
                while listener._exchanges:  # noqa: ASYNC110  # the other loop has no event for us
                    await asyncio.sleep(0)


async def test_a_client_that_says_nothing_keeps_nobody_else_waiting() -> None:
    async with listening() as listener:
        with connect(listener):
            assert (await get(listener, "/healthz")).status == 200


async def test_one_client_too_many_is_told_so_until_another_has_left() -> None:
    async with listening() as listener, contextlib.AsyncExitStack() as stack:
        idle = [stack.enter_context(connect(listener)) for _ in range(CONNECTIONS)]
        assert (await raw(listener, b"")).startswith(b"HTTP/1.1 503 ")
        for connection in idle:
            connection.shutdown(socket.SHUT_WR)
            await asyncio.to_thread(rest_of, connection)
        assert (await get(listener, "/healthz")).status == 200


async def test_a_head_without_end_is_refused() -> None:
    async with listening() as listener:
        answer = await raw(listener, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 4 * HEAD_BYTES)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_what_is_no_http_is_told_so() -> None:
    async with listening() as listener:
        assert (await raw(listener, b"hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_nobody_reads_does_not_take_back_the_answer() -> None:
    size = 16 * 1024 * 1024  # more than the system takes in advance
    sent = f"POST /metrics HTTP/1.1\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size
    async with listening() as listener:
        assert (await raw(listener, sent)).startswith(b"HTTP/1.1 405 ")


async def test_a_client_is_answered_late_if_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as listener:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        postponed = threading.Event()

        def call_later(delay: float, *what: Any) -> None:
            listener._loop.call_soon(*what)
            if delay == PAUSE_S:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                postponed.set()

        monkeypatch.setattr(listener._loop, "call_later", call_later)
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))  # the client's is the last
        try:
            connection = connect(listener)
            assert postponed.wait(LATE_S)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        monkeypatch.undo()
        with connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert (await asyncio.to_thread(rest_of, connection)).startswith(b"HTTP/1.1 200 ")


# ------------------------------------------------------------------------------------------------ start and end


async def test_a_taken_port_is_a_configuration_error() -> None:
    async with listening() as listener:
        address = listener.url.removeprefix("http://")
        with pytest.raises(ConfigError) as caught:
            Listener(address, lambda: WELL, fresh_s=20.0)
    assert address in caught.value.what
    assert "in use" in caught.value.why
    assert caught.value.exit_code == 78


async def test_without_prometheus_client_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kraken_feed.service.metrics", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError) as caught:
        Listener("127.0.0.1:0", lambda: WELL, fresh_s=20.0)
    assert caught.value.remedy == "pip install 'kraken-feed[metrics]'"


def _descriptors() -> set[str]:
    return {os.readlink(fd) for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()}


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors cannot be counted")
async def test_nothing_is_left_of_it_whoever_is_connected() -> None:
    """Neither threads nor descriptors, with a client in the middle of a request and one that waits for a stuck loop."""
    threads, descriptors = set(threading.enumerate()), len(_descriptors())
    for _ in range(5):
        listener = Listener("127.0.0.1:0", lambda: WELL, fresh_s=20.0)
        with connect(listener) as slow, connect(listener) as waiting:
            slow.sendall(b"GET /metr")
            waiting.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            listener.close()
            for connection in (slow, waiting):
                with contextlib.suppress(ConnectionResetError):
                    rest_of(connection)
    await asyncio.sleep(0)
    assert set(threading.enumerate()) == threads
    assert len(_descriptors()) == descriptors


async def test_the_port_is_free_again_afterwards() -> None:
    async with listening() as listener:
        address = listener.url.removeprefix("http://")
        assert (await get(listener, "/healthz")).status == 200
    async with listening(listen=address) as again:
        assert (await get(again, "/healthz")).status == 200
