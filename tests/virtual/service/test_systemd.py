"""What systemd is told, and when: on real datagram sockets, and through minutes of virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from pathlib import Path

import msgspec
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import LogCapture

from kraken_feed.service.systemd import BEAT_S, EXTEND_S, Lifecycle, Notifier, take, watchdog_s
from kraken_feed.telemetry.stats import Program

from ...support import virtual_time
from ...support.cases import each
from ...support.figures import WELL

WATCHDOG_S = 4.0


# ------------------------------------------------------------------------------------------------ the device


def listening(address: str | bytes) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    server.bind(address)
    server.setblocking(False)
    return server


def sockets() -> set[int]:
    """The descriptors that are sockets."""
    links = {int(fd): Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    return {fd for fd, link in links.items() if link.is_symlink() and str(link.readlink()).startswith("socket:")}


def test_a_message_reaches_a_socket_at_a_path(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")) as server:
        notifier = Notifier(str(tmp_path / "notify"))
        assert notifier.send({"READY": "1", "STATUS": "live openOrders"})
        assert server.recv(4096) == b"READY=1\nSTATUS=live openOrders"
        notifier.close()


def test_a_message_reaches_an_abstract_socket() -> None:
    name = f"kraken-feed-test-{os.getpid()}"
    with listening(b"\0" + name.encode()) as server:
        notifier = Notifier(f"@{name}")
        assert notifier.send({"WATCHDOG": "1"})
        assert server.recv(4096) == b"WATCHDOG=1"
        notifier.close()


@each("address", [None, "", "relative", "vsock:2:1234"])
def test_without_systemd_nothing_is_opened_and_nothing_said(address: str | None) -> None:
    before = sockets()
    notifier = Notifier(address)
    assert not notifier.send({"READY": "1"})
    assert sockets() == before
    notifier.close()


def missing(path: Path) -> contextlib.ExitStack:
    return contextlib.ExitStack()


def closed(path: Path) -> contextlib.ExitStack:
    listening(str(path)).close()
    return contextlib.ExitStack()


def full(path: Path) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(listening(str(path)))
    sender = stack.enter_context(contextlib.closing(Notifier(str(path))))
    while sender.send({"STATUS": "x" * 1000}):
        pass
    return stack


def no_socket(path: Path) -> contextlib.ExitStack:
    path.write_text("")
    return contextlib.ExitStack()


@pytest.mark.parametrize("trouble", [missing, closed, full, no_socket])
def test_a_message_that_nobody_takes_raises_nothing(
    trouble: Callable[[Path], contextlib.ExitStack], tmp_path: Path
) -> None:
    with trouble(tmp_path / "notify"), contextlib.closing(Notifier(str(tmp_path / "notify"))) as notifier:
        assert not notifier.send({"READY": "1"})


def test_a_path_too_long_for_a_socket_raises_nothing() -> None:
    with contextlib.closing(Notifier("/" + "x" * 200)) as notifier:
        assert not notifier.send({"READY": "1"})


def test_a_closed_notifier_says_nothing(tmp_path: Path) -> None:
    with listening(str(tmp_path / "notify")):
        notifier = Notifier(str(tmp_path / "notify"))
        notifier.close()
        assert not notifier.send({"READY": "1"})


def test_no_child_inherits_the_socket(tmp_path: Path) -> None:
    before = sockets()
    with contextlib.closing(Notifier(str(tmp_path / "notify"))):
        (fd,) = sockets() - before
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)


@given(st.text())
def test_no_value_can_make_another_field(value: str) -> None:
    name = f"kraken-feed-test-{os.getpid()}"
    with listening(b"\0" + name.encode()) as server, contextlib.closing(Notifier(f"@{name}")) as notifier:
        if notifier.send({"STATUS": value}):
            (line,) = server.recv(1 << 20).decode().split("\n")
            assert line.startswith("STATUS=")


# ------------------------------------------------------------------------------------------------ the environment


@each(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "42"}, 0.2),
        ({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "43"}, None),
        ({"WATCHDOG_USEC": "200000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_PID": "42"}, None),
    ],
)
def test_watchdog_is_ours_or_nobodys(environ: Mapping[str, str], seconds: float | None) -> None:
    assert watchdog_s(environ, 42) == seconds


def test_the_variables_are_taken_out_of_the_environment(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "42", "LANG": "C.UTF-8"}
    with listening(path) as server:
        notifier, watchdog = take(environ, 42)
        assert notifier.send({"READY": "1"})
        assert server.recv(4096) == b"READY=1"
        notifier.close()
    assert watchdog == 1.0
    assert environ == {"LANG": "C.UTF-8"}


# ------------------------------------------------------------------------------------------------ what is said when


class Recording(Notifier):
    """In systemd's place: remembers when it was told what, as long as it listens."""

    def __init__(self) -> None:
        super().__init__(None)
        self.listens = True
        self.told: list[tuple[float, dict[str, str]]] = []

    def send(self, fields: Mapping[str, str]) -> bool:
        if self.listens:
            self.told.append((asyncio.get_running_loop().time(), dict(fields)))
        return self.listens

    def times(self, name: str) -> list[float]:
        return [at for at, fields in self.told if name in fields]

    @property
    def names(self) -> list[str]:
        """Every field in the order of its sending, but for signs of life and requests for time."""
        noise = ("WATCHDOG", "EXTEND_TIMEOUT_USEC", "MONOTONIC_USEC", "STATUS")
        return [name for _, fields in self.told for name in fields if name not in noise]

    @property
    def status(self) -> str:
        return [fields["STATUS"] for _, fields in self.told if "STATUS" in fields][-1]


class Process:
    """A process whose state the test sets."""

    def __init__(self) -> None:
        self.live = False
        self.cause = ""
        self.stuck = ""

    def program(self) -> Program:
        endpoint = msgspec.structs.replace(
            WELL.accounts[0].endpoints[0],
            channels=("openOrders",),
            live=self.live,
            last_frame_s=None,
            down_s=None if self.live else 9.0,
            attempts=1,
            retry_s=60.0 if self.cause else None,
            cause=self.cause,
        )
        account = msgspec.structs.replace(
            WELL.accounts[0], endpoints=(endpoint,), open_orders={}, reconnects=0, overdue=self.stuck
        )
        return msgspec.structs.replace(WELL, accounts=(account,))


class Stage:
    """A lifecycle on a virtual clock."""

    def __init__(self, watchdog: float | None) -> None:
        self.systemd = Recording()
        self.process = Process()
        self.capture = LogCapture()
        log = structlog.wrap_logger(None, processors=[self.capture])
        self.lifecycle = Lifecycle(self.systemd, self.process.program, watchdog=watchdog, log=log)

    def go_live(self) -> None:
        self.process.live = True
        self.lifecycle.changed()


@contextlib.asynccontextmanager
async def stage(watchdog: float | None = WATCHDOG_S) -> AsyncIterator[Stage]:
    scene = Stage(watchdog)
    task = asyncio.create_task(scene.lifecycle.keep_posted())
    await asyncio.sleep(0)
    try:
        yield scene
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def in_virtual_time(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    def run() -> None:
        virtual_time.run(test())

    run.__name__ = test.__name__
    return run


def longest(times: list[float]) -> float:
    return max(after - before for before, after in itertools.pairwise(times))


@in_virtual_time
async def test_a_patient_start_asks_for_time_often_enough_to_miss_beats() -> None:
    async with stage(None) as scene:
        await virtual_time.elapse(3600)
        asked = scene.systemd.times("EXTEND_TIMEOUT_USEC")
    assert asked[0] == 0.0
    assert asked[-1] >= 3600 - BEAT_S
    assert longest(asked) * 3 <= EXTEND_S
    assert {fields.get("EXTEND_TIMEOUT_USEC") for _, fields in scene.systemd.told} == {"30000000"}
    assert scene.systemd.names == []


@in_virtual_time
async def test_ready_is_said_at_once_once_and_with_the_status() -> None:
    async with stage(None) as scene:
        await virtual_time.elapse(1.2)
        scene.go_live()
        await virtual_time.elapse(3600)
        scene.process.live = False
        scene.lifecycle.changed()
        await virtual_time.elapse(60)
        scene.go_live()
        await virtual_time.elapse(60)
    assert scene.systemd.times("READY") == [1.2]
    assert {"READY": "1", "STATUS": "live openOrders; output ok"} in [fields for _, fields in scene.systemd.told]
    assert max(scene.systemd.times("EXTEND_TIMEOUT_USEC")) < 1.2


@in_virtual_time
async def test_ready_that_was_not_taken_is_said_again() -> None:
    async with stage(None) as scene:
        scene.systemd.listens = False
        scene.go_live()
        await virtual_time.elapse(12)
        scene.systemd.listens = True
        await virtual_time.elapse(60)
    assert len(scene.systemd.times("READY")) == 1
    assert scene.systemd.times("READY")[0] <= 12 + BEAT_S


@in_virtual_time
async def test_status_is_said_when_it_changes_and_not_twice() -> None:
    async with stage(None) as scene:
        await virtual_time.elapse(60)
        scene.process.cause = "closed"
        await virtual_time.elapse(60)
    assert [fields["STATUS"] for _, fields in scene.systemd.told if "STATUS" in fields] == [
        "connecting (down 9.0s, attempt 1): openOrders; output ok",
        "next attempt in 60s, after closed (down 9.0s, attempt 1): openOrders; output ok",
    ]
    assert 60 <= scene.systemd.times("STATUS")[1] <= 60 + BEAT_S


@each("watchdog", [0.2, 4.0, 60.0, 3600.0])
def test_a_sign_of_life_comes_in_every_half_of_the_watchdogs_time(watchdog: float) -> None:
    async def test() -> None:
        async with stage(watchdog) as scene:
            scene.go_live()
            await virtual_time.elapse(20 * watchdog)
            beats = scene.systemd.times("WATCHDOG")
        assert longest([0.0, *beats, 20 * watchdog]) <= watchdog / 2 + 1e-6

    virtual_time.run(test())


@in_virtual_time
async def test_without_a_watchdog_there_are_no_signs_of_life() -> None:
    async with stage(None) as scene:
        scene.go_live()
        await virtual_time.elapse(600)
    assert scene.systemd.times("WATCHDOG") == []


@in_virtual_time
async def test_an_exchange_that_is_down_for_an_hour_does_not_stop_the_signs_of_life() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(60)
        scene.process.live, scene.process.cause = False, "connect"
        await virtual_time.elapse(3600)
        beats = scene.systemd.times("WATCHDOG")
    assert longest(beats) <= WATCHDOG_S / 2 + 1e-6
    assert beats[-1] > 3600


@in_virtual_time
async def test_a_part_that_is_overdue_stops_the_signs_of_life_and_is_named() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(100)
        scene.process.stuck = "checkpoint"
        await virtual_time.elapse(100)
        assert max(scene.systemd.times("WATCHDOG")) <= 100
        assert scene.systemd.status == "stuck: checkpoint; live openOrders; output ok"
        scene.process.stuck = ""
        await virtual_time.elapse(100)
    assert [at for at in scene.systemd.times("WATCHDOG") if 200 < at <= 200 + WATCHDOG_S / 2] != []
    assert scene.systemd.status == "live openOrders; output ok"
    assert [(e["event"], e["part"], e["log_level"]) for e in scene.capture.entries] == [
        ("part_overdue", "checkpoint", "error"),
        ("part_recovered", "checkpoint", "warning"),
    ]


@in_virtual_time
async def test_a_start_that_is_stuck_gets_no_more_time_and_is_not_ready() -> None:
    async with stage() as scene:
        await virtual_time.elapse(10)
        asked = len(scene.systemd.times("EXTEND_TIMEOUT_USEC"))
        scene.process.stuck = "checkpoint"
        scene.go_live()
        await virtual_time.elapse(100)
        assert scene.systemd.times("READY") == []
        assert len(scene.systemd.times("EXTEND_TIMEOUT_USEC")) == asked
        scene.process.stuck = ""
        await virtual_time.elapse(10)
    assert len(scene.systemd.times("READY")) == 1


@in_virtual_time
async def test_a_reload_is_bracketed_with_the_monotonic_time_of_its_beginning() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(1)
        told = len(scene.systemd.told)
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        with scene.lifecycle.reloading():
            (_, reloading) = scene.systemd.told[-1]
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        assert [fields for _, fields in scene.systemd.told[told:]] == [reloading, {"READY": "1"}]
    assert list(reloading) == ["RELOADING", "MONOTONIC_USEC"]
    assert before <= int(reloading["MONOTONIC_USEC"]) <= after


@in_virtual_time
async def test_a_reload_that_fails_ends_too() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(1)
        with pytest.raises(ZeroDivisionError), scene.lifecycle.reloading():
            raise ZeroDivisionError
    assert scene.systemd.names == ["READY", "RELOADING", "READY"]


@in_virtual_time
async def test_the_end_of_a_reload_that_was_not_taken_is_said_again() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(1)
        with scene.lifecycle.reloading():
            scene.systemd.listens = False
        scene.process.live = False  # a reload is over, whether the exchange is up or not
        await virtual_time.elapse(10)
        scene.systemd.listens = True
        await virtual_time.elapse(60)
    assert scene.systemd.names == ["READY", "RELOADING", "READY"]


@in_virtual_time
async def test_a_reload_before_the_start_is_over_does_not_end_it() -> None:
    async with stage() as scene:
        with scene.lifecycle.reloading():
            pass
        await virtual_time.elapse(10)
        assert scene.systemd.names == []
        scene.go_live()
        await virtual_time.elapse(1)
    assert scene.systemd.names == ["READY"]


@in_virtual_time
async def test_stopping_is_the_last_word() -> None:
    async with stage() as scene:
        scene.go_live()
        await virtual_time.elapse(10)
        scene.lifecycle.stopping("SIGTERM")
        scene.lifecycle.stopping("error")
        with scene.lifecycle.reloading():
            pass
        await virtual_time.elapse(100)
    assert scene.systemd.names == ["READY", "STOPPING"]
    assert scene.systemd.told[-1] == (10.0, {"STOPPING": "1", "STATUS": "stopping: SIGTERM"})


@in_virtual_time
async def test_a_stop_that_nobody_asked_for_is_a_defect() -> None:
    async with stage() as scene:
        scene.lifecycle.stopping("")
    assert scene.systemd.status == "stopping: a defect"


@in_virtual_time
async def test_a_stop_before_the_start_is_over_is_not_followed_by_ready() -> None:
    async with stage() as scene:
        await virtual_time.elapse(10)
        scene.lifecycle.stopping("SIGTERM")
        scene.go_live()
        await virtual_time.elapse(100)
    assert scene.systemd.names == ["STOPPING"]


def test_keeping_posted_ends_with_the_stop() -> None:
    async def test() -> None:
        scene = Stage(None)
        task = asyncio.create_task(scene.lifecycle.keep_posted())
        await virtual_time.elapse(10)
        scene.lifecycle.stopping("SIGTERM")
        async with asyncio.timeout(0.001):
            await task

    virtual_time.run(test())
