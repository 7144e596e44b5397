"""The work of a frame, counted instead of timed: the same on every machine, so a test can hold it.

A fixed script runs through the whole feed (connection, session, tail, logger, sink on a pipe, checkpoint) with a socket
that has its frames already, in bursts, and in virtual time. Bounds stand a little above what it takes today on the
slowest of the supported interpreters. To lower one: make the path shorter, read the new figure from the message of
the test by setting its bound to 0, and write that figure plus a tenth. To raise one is to make every frame dearer:
say in the commit for what. CPU time itself is `make bench`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
import structlog

from bench.frames import CHANNEL, DIALECTS, SHAPES, Dialect, Script, phases
from kraken_feed.config.schema import Config, ConnectionConfig
from kraken_feed.feed import known_state
from kraken_feed.feed.environment import Account, Environment
from kraken_feed.feed.feed import Feed
from kraken_feed.output.sink import Sink
from kraken_feed.protocol.signing import Credentials
from kraken_feed.state.store import Store
from kraken_feed.telemetry.loggers import feed_logger
from kraken_feed.text import Secrets
from tests.support import virtual_time

BURST = 50  # frames that are there when the loop turns: some 20 kB, less than a pipe takes
WARM_UP, MEASURED = 20, 40  # bursts

CALLS = {"v1": 10.4, "v2": 12.4}  # Python functions entered for a frame of one item; 9.4 and 11.2 on 3.11
RETAINED = 0.1  # objects that a frame leaves behind; one for each order that ends would be 0.2


class Player:
    """A socket that has its frames already. ``between`` is called with the number of the burst that comes next."""

    def __init__(self, dialect: Dialect, frames: Iterator[bytes], between: Callable[[int], bool], pause: float) -> None:
        self._shapes = SHAPES[dialect]
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self._burst = [self._shapes.GREETING]
        self._frames = frames
        self._between = between
        self._pause = pause
        self._subscribed = asyncio.Event()
        self._bursts = itertools.count()

    @property
    def transport(self) -> asyncio.Transport:
        raise AssertionError("nothing here has to be cut off")

    async def burst(self) -> list[bytes]:
        if not self._burst:
            await self._subscribed.wait()
            await virtual_time.elapse(self._pause)
            if not self._between(next(self._bursts)):
                await asyncio.Event().wait()
            self._burst = list(itertools.islice(self._frames, BURST))
        burst, self._burst = self._burst, []
        return burst

    async def send(self, message: str) -> None:
        request = json.loads(message)
        answer = self._shapes.acknowledgement(request.get("reqid", request.get("req_id")))
        self._frames = itertools.chain([answer.encode()], self._frames)
        self._subscribed.set()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        pass


def _token(request: httpx.Request) -> httpx.Response:
    body = b'{"error":[],"result":{"token":"EXAMPLE+token","expires":900}}'
    return httpx.Response(200, stream=httpx.ByteStream(body))


async def _play(
    dialect: Dialect, script: Script, place: Path, between: Callable[[int, Sink], bool], pause: float = 0.0
) -> None:
    """Run a feed on a script until ``between`` is False; its output goes to a pipe that is emptied in between."""
    out, into = os.pipe()
    os.set_blocking(out, False)

    def turn(burst: int) -> bool:
        with contextlib.suppress(BlockingIOError):
            while os.read(out, 1 << 20):
                pass
        go_on = between(burst, sink)
        if not go_on:
            feed.stop("the test has seen enough")
        return go_on

    frames = list(itertools.chain.from_iterable(phases(script)))  # now, so that making them is not counted
    dials = itertools.count(1)

    async def dial(url: str, config: ConnectionConfig) -> Player:
        assert next(dials) == 1, "the script was not to the session's liking"
        return Player(dialect, iter(frames), turn, pause)

    sink = Sink(into, "the pipe", lambda error: feed.fail(error))
    feed = Feed(
        Account(
            name="main",
            channels=(CHANNEL[dialect],),
            credentials=Credentials("EXAMPLE-KEY", "A" * 86 + "==", source="the test"),
            store=Store.open(str(place), "main", 0).store,
        ),
        Environment(
            config=Config(),
            sink=sink,
            feed_log=feed_logger(sink),
            log=structlog.wrap_logger(None, processors=[_nothing]),
            secrets=Secrets(),
            transport=httpx.MockTransport(_token),
            dial=dial,
            unix_ns=lambda: 1_760_000_000_000_000_000 + round(asyncio.get_running_loop().time() * 1e9),
        ),
    )
    try:
        await feed.run()
    finally:
        sink.close()
        os.close(out)
        os.close(into)


def _nothing(logger: Any, name: str, event_dict: structlog.typing.EventDict) -> str:
    raise structlog.DropEvent


class Calls:
    """What was called while it was counting, by name."""

    def __init__(self) -> None:
        self.python: Counter[str] = Counter()
        self.writes = 0

    def start(self) -> None:
        sys.setprofile(self._note)

    def stop(self) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            if not module.startswith("tests."):
                self.python[f"{module}.{frame.f_code.co_qualname}"] += 1
        elif event == "c_call" and argument is os.write:
            self.writes += 1


def _count(dialect: Dialect, place: Path) -> Calls:
    """The calls of the measured bursts."""
    calls = Calls()

    def between(burst: int, sink: Sink) -> bool:
        if burst == WARM_UP:
            calls.start()
        elif burst == WARM_UP + MEASURED:
            calls.stop()
        return burst < WARM_UP + MEASURED

    script = Script(dialect, 20, ((WARM_UP + MEASURED) * BURST,))
    try:
        virtual_time.run(_play(dialect, script, place, between))
    finally:
        calls.stop()
    return calls


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_frame_takes_no_more_calls_than_it_did(dialect: Dialect, tmp_path: Path) -> None:
    calls = _count(dialect, tmp_path).python
    each = calls.total() / MEASURED / BURST
    where = "\n".join(f"{count / MEASURED / BURST:6.2f} {name}" for name, count in calls.most_common(40))
    assert each <= CALLS[dialect], f"{each:.1f} calls a frame:\n{where}"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_burst_is_one_write(dialect: Dialect, tmp_path: Path) -> None:
    assert _count(dialect, tmp_path).writes == MEASURED


@pytest.mark.parametrize("dialect", DIALECTS)
def test_frames_leave_nothing_behind(dialect: Dialect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once all that is remembered within bounds is full: orders come and end, checkpoints are written."""
    monkeypatch.setattr(known_state, "ENDED_KEPT", 50)
    monkeypatch.setattr(known_state, "SEEN_KEPT", 100)
    before, after = 40, 240  # bursts
    blocks: list[int] = []

    def between(burst: int, sink: Sink) -> bool:
        if burst in (before, after):
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        return burst < after

    script = Script(dialect, 20, (after * BURST,))
    virtual_time.run(_play(dialect, script, tmp_path, between, pause=0.3))
    each = (blocks[1] - blocks[0]) / (after - before) / BURST
    assert each <= RETAINED, f"{each:.3f} objects a frame stay"
