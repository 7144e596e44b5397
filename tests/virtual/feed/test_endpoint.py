"""When a channel is complete, and where its outages begin: the test plays Kraken's end of the connection.

Backfill is switched off, so that every outage is declared at once, and its two ends are on the output.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK

from kraken_feed.config.schema import BackfillConfig, Config, ConnectionConfig
from kraken_feed.feed.environment import Limits
from kraken_feed.records.view import moment
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.state.store import Store

from ...support import memory, virtual_time
from ...support.exchange_driver import T0
from ...support.frame_files import frame

BOTH = ("openOrders", "ownTrades")
CONFIG = Config(backfill=BackfillConfig(enabled=False))
DIAL_S = 3.0  # between the beginning of a connection and its first ping


class Line:
    """The client's end of one connection."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self._frames: asyncio.Queue[bytes | ConnectionClosed] = asyncio.Queue()

    @property
    def transport(self) -> asyncio.Transport:
        raise AssertionError("nothing here has to be cut off")

    async def burst(self) -> list[bytes]:
        frames: list[bytes] = []
        while not frames or not self._frames.empty():
            found = await self._frames.get()
            if isinstance(found, ConnectionClosed):
                raise found
            frames.append(found)
        return frames

    async def send(self, message: str) -> None:
        self.sent.append(json.loads(message))

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._frames.put_nowait(ConnectionClosedOK(None, None))

    def hear(self, *frames: bytes) -> None:
        for one in frames:
            self._frames.put_nowait(one)

    def drop(self) -> None:
        self._frames.put_nowait(ConnectionClosedError(None, None))

    def pong(self, number: int = -1) -> bytes:
        """Return the answer to a ping, by default to the last one."""
        pings = [sent["reqid"] for sent in self.sent if sent["event"] == "ping"]
        return json.dumps({"event": "pong", "reqid": pings[number]}).encode()

    def live(self, *channels: str, engine: str = "online") -> None:
        """Greet, and make these of the channels live that were asked for."""
        self.hear(json.dumps({"connectionID": 1, "event": "systemStatus", "status": engine, "version": "1"}).encode())
        numbers = {sent["subscription"]["name"]: sent["reqid"] for sent in self.sent if sent["event"] == "subscribe"}
        for channel in channels:
            ack: dict[str, object] = {"event": "subscriptionStatus", "status": "subscribed", "channelName": channel}
            ack |= {"reqid": numbers[channel], "subscription": {"name": channel}}
            self.hear(json.dumps(ack).encode(), data(channel, 1))


def data(channel: str, sequence: int, *items: object) -> bytes:
    return json.dumps([list(items), channel, {"sequence": sequence}]).encode()


def change(order_id: str) -> dict[str, object]:
    return {order_id: {"status": "open", "userref": 0}}


def status(engine: str) -> bytes:
    return json.dumps({"event": "systemStatus", "status": engine, "version": "1"}).encode()


class Stage:
    """A feed, and the connections that it opens. Seconds count from its start."""

    def __init__(self, world: memory.World, path: Path, channels: tuple[str, ...], limits: Limits, **options: Any):
        self.lines: list[Line] = []
        world.dial = self._dial  # type: ignore[method-assign, assignment]  # the test plays the other end
        self.run = memory.Run(world, path, channels, CONFIG, limits, **options)
        (self.endpoint,) = self.run.feed._endpoints
        self._loop = asyncio.get_running_loop()

    async def _dial(self, url: str, config: ConnectionConfig) -> Line:
        await virtual_time.elapse(DIAL_S)
        self.lines.append(Line())
        return self.lines[-1]

    @property
    def line(self) -> Line:
        """The latest connection."""
        return self.lines[-1]

    async def until(self, second: float) -> None:
        """Let time go by, with a heartbeat now and then."""
        while self._loop.time() < second:
            await virtual_time.elapse(min(1.0, second - self._loop.time()))
            if self.lines:
                self.line.hear(b'{"event":"heartbeat"}')
        await virtual_time.elapse(0.001)  # what was said is read

    async def again(self) -> None:
        """Wait for the next connection, and make both channels live on it."""
        before = len(self.lines)
        while len(self.lines) == before:
            await virtual_time.elapse(0.1)
        await virtual_time.elapse(0.1)
        self.line.live(*self.endpoint.channels)
        await virtual_time.elapse(0.1)

    def complete(self) -> dict[str, Any]:
        """Return up to when each channel is complete."""
        return {channel: pytest.approx(seconds(ns), abs=0.25) for channel, ns in self.endpoint.complete().items()}


def seconds(ns: int) -> float:
    return (ns - round(T0 * 1e9)) / 1e9


def outages(run: memory.Run) -> dict[str, list[tuple[str, Any]]]:
    """Return cause and beginning of every outage, by channel."""
    found: dict[str, list[tuple[str, Any]]] = {}
    for gap in run.named("feed.gap"):
        begin = (gap["cause"], pytest.approx(seconds(moment(gap["from"])), abs=0.25))
        found.setdefault(gap["channel"], []).append(begin)
    return found


def play(
    path: Path,
    script: Callable[[Stage], Awaitable[None]],
    channels: tuple[str, ...] = BOTH,
    limits: Limits | None = None,
    **options: Any,
) -> memory.Run:
    """Run a feed while the script plays Kraken; the channels are asked for after `DIAL_S`."""

    async def main() -> memory.Run:
        with memory.running(Exchange(now=T0, seed=1)) as world:
            stage = Stage(world, path, channels, limits or Limits(), **options)
            task = asyncio.create_task(stage.run.feed.run())
            await stage.until(DIAL_S + 0.1)
            await script(stage)
            stage.run.feed.stop("test")
            await task
            stage.run.sink.close()
            return stage.run

    return virtual_time.run(main())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


# -- up to when a channel is complete


def test_a_channel_is_complete_up_to_the_sending_of_the_last_ping_that_was_answered(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(5.0)
        assert stage.complete() == {"openOrders": 0.0, "ownTrades": 0.0}  # the connection was begun then
        stage.line.hear(stage.line.pong())
        await stage.until(12.0)
        assert stage.complete() == {"openOrders": DIAL_S, "ownTrades": DIAL_S}
        await stage.until(16.0)
        stage.line.hear(stage.line.pong(), data("openOrders", 2, change("O1")))
        await stage.until(18.0)
        assert stage.complete() == {"openOrders": 13.0, "ownTrades": 13.0}
        stage.line.drop()
        await virtual_time.elapse(0.1)
        assert stage.complete() == {}
        await stage.again()

    run = play(path, script)
    assert outages(run) == {"openOrders": [("closed", 13.0)], "ownTrades": [("closed", 13.0)]}


def test_before_the_first_answer_an_outage_begins_where_the_connection_was_begun(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(12.0)
        stage.line.drop()
        await stage.again()

    assert outages(play(path, script)) == {"openOrders": [("closed", 0.0)], "ownTrades": [("closed", 0.0)]}


def test_the_answer_of_an_earlier_connection_says_nothing_about_the_next(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(20.0)
        stage.line.drop()
        await stage.again()
        begun = asyncio.get_running_loop().time() - DIAL_S - 0.2
        assert [0.0 <= seconds(ns) - begun + 0.15 <= 0.3 for ns in stage.endpoint.complete().values()] == [True, True]

    play(path, script)


def test_a_channel_that_is_not_live_is_not_complete_and_has_no_outage_when_the_connection_is_lost(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live("openOrders")
        await stage.until(5.0)
        assert stage.complete() == {"openOrders": 0.0}
        stage.line.drop()
        await stage.again()

    assert outages(play(path, script)) == {"openOrders": [("closed", 0.0)]}


def test_an_outage_ends_no_earlier_than_the_channel_is_live_again(path: Path) -> None:
    again: list[float] = []

    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(12.0)
        stage.line.drop()
        await stage.again()
        again.append(asyncio.get_running_loop().time() - 0.1)

    run = play(path, script)
    assert all(again[0] <= seconds(moment(gap["to"])) <= again[0] + 1.1 for gap in run.named("feed.gap"))
    assert len(run.named("feed.gap")) == 2


def test_an_answer_that_comes_after_enough_was_written_is_the_next_runs(path: Path, tmp_path: Path) -> None:
    """It would say that the items behind the last one that was written are on the output."""

    async def script(stage: Stage) -> None:
        stage.line.live("openOrders")
        await stage.until(5.0)
        stage.line.hear(stage.line.pong())
        await stage.until(14.0)
        items = [data("openOrders", 2 + n, change(f"O{n}")) for n in range(3)]
        stage.line.hear(*items, stage.line.pong())
        await stage.until(15.0)

    state = str(tmp_path / "state")
    play(path, script, ("openOrders",), Limits(count=1), store=Store.open(state, "main", 0).store)
    found = Store.open(state, "main", 0)
    found.store.close()
    checkpoint = found.checkpoint
    assert checkpoint is not None
    assert seconds(checkpoint.channels["openOrders"].complete_ns) == pytest.approx(DIAL_S, abs=0.25)


def test_a_late_answer_to_an_earlier_ping_takes_nothing_back(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(6.0)
        stage.endpoint.stepped()  # a second ping leaves at once
        await stage.until(7.0)
        stage.line.hear(stage.line.pong())
        await stage.until(8.0)
        stage.line.hear(stage.line.pong(0))
        await stage.until(9.0)
        assert stage.complete() == {"openOrders": 6.0, "ownTrades": 6.0}

    play(path, script)


def test_the_times_of_a_pong_narrow_krakens_clock_but_do_not_set_it(path: Path) -> None:
    async def script(stage: Stage) -> None:
        line, clock = stage.line, stage.run.feed._clock
        (subscribe,) = (sent for sent in line.sent if sent["method"] == "subscribe")
        ack = {"method": "subscribe", "req_id": subscribe["req_id"], "success": True, "result": {"channel": "balances"}}
        snapshot = {"channel": "balances", "type": "snapshot", "data": [], "sequence": 1}
        line.hear(*(json.dumps(said).encode() for said in (ack, snapshot)))
        await stage.until(5.0)
        assert 1.0 <= clock.uncertainty_s() <= 1.3

        async def answer(came: str, left: str) -> None:
            (*_, ping) = (sent["req_id"] for sent in line.sent if sent["method"] == "ping")
            pong = {"method": "pong", "req_id": ping, "time_in": came, "time_out": left}
            line.hear(json.dumps(pong).encode())
            await virtual_time.elapse(0.01)

        await answer("2025-10-09T08:53:23.6Z", "2025-10-09T08:53:25.1Z")  # T0 + 3.6 and T0 + 5.1
        assert clock.uncertainty_s() == pytest.approx(0.7, abs=0.02)
        await stage.until(14.0)
        await answer("2025-10-09T10:53:33Z", "2025-10-09T10:53:34Z")  # two hours later
        await stage.until(24.0)
        (*_, ping) = (sent["req_id"] for sent in line.sent if sent["method"] == "ping")
        line.hear(json.dumps({"method": "pong", "req_id": ping}).encode())
        await stage.until(25.0)
        assert stage.complete() == {"balances": 0.0}  # the feed has not spoken behind any answer
        line.hear(b'{"channel":"heartbeat"}')
        await stage.until(26.0)
        assert stage.complete() == {"balances": 23.1}

    play(path, script, ("balances",))


# -- a clock that jumped, or nobody answers


def test_a_feed_is_late_while_no_ping_is_answered_or_a_clock_has_jumped(path: Path) -> None:
    async def script(stage: Stage) -> None:
        assert stage.endpoint.figures().late_s is None  # it is not live
        stage.line.live(*BOTH)
        await stage.until(29.0)
        assert stage.endpoint.figures().late_s is None
        await stage.until(31.0)
        assert stage.endpoint.figures().late_s == pytest.approx(31.0, abs=0.25)
        stage.line.hear(stage.line.pong())
        await stage.until(32.0)
        assert stage.endpoint.figures().late_s is None
        stage.endpoint.stepped()
        assert stage.endpoint.figures().late_s is not None
        await stage.until(33.0)
        stage.line.hear(stage.line.pong())  # to the ping that was sent at once
        await stage.until(34.0)
        assert stage.endpoint.figures().late_s is None
        assert stage.complete() == {"openOrders": 32.0, "ownTrades": 32.0}

    play(path, script)


# -- frames that cannot be read, or did not come


def test_an_unreadable_frame_is_an_outage_of_every_channel_since_the_last_answered_ping(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(4.0)
        stage.line.hear(stage.line.pong())
        await stage.until(10.0)
        stage.line.hear(b"not JSON", data("openOrders", 2, change("O1")), b"nor this")
        await stage.until(12.0)

    run = play(path, script)
    # One for each burst: the frames of it were received in the same moment.
    assert outages(run) == {"openOrders": [("unreadable", DIAL_S)], "ownTrades": [("unreadable", DIAL_S)]}
    assert all(10.0 <= seconds(moment(gap["to"])) <= 11.3 for gap in run.named("feed.gap"))


def test_an_unreadable_frame_that_came_before_the_answer_to_a_ping_is_older_than_that_ping_may_be(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(4.0)
        stage.line.hear(b"not JSON", stage.line.pong(), b'{"event":"heartbeat"}')
        await stage.until(8.0)

    started = [("unreadable", 0.0)]
    assert outages(play(path, script)) == {"openOrders": started, "ownTrades": started}


def test_an_unknown_frame_that_is_json_is_no_outage(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(10.0)
        stage.line.hear(b'{"event":"new"}')
        await stage.until(12.0)

    assert outages(play(path, script)) == {}


async def one_update_between_two_pongs(stage: Stage) -> None:
    """Go live; the update comes at 6 s, the pongs at 5 s and 14 s."""
    stage.line.live(*BOTH)
    await stage.until(5.0)
    stage.line.hear(stage.line.pong())
    await stage.until(6.0)
    stage.line.hear(data("openOrders", 2, change("O1")))
    await stage.until(14.0)
    stage.line.hear(stage.line.pong())
    await stage.until(16.0)


def test_missing_frames_are_an_outage_since_the_last_frame_in_its_sequence_on_every_channel(path: Path) -> None:
    """A ping that was answered since says nothing about them, nor how long the other channel's were missing."""

    async def script(stage: Stage) -> None:
        await one_update_between_two_pongs(stage)
        assert stage.complete() == {"openOrders": 13.0, "ownTrades": 13.0}
        stage.line.hear(data("openOrders", 4, change("O2")))
        await stage.again()

    assert outages(play(path, script)) == {"openOrders": [("sequence", DIAL_S)], "ownTrades": [("sequence", 0.0)]}


def test_another_snapshot_on_a_live_channel_is_an_outage_of_that_channel_alone(path: Path) -> None:
    async def script(stage: Stage) -> None:
        await one_update_between_two_pongs(stage)
        stage.line.hear(frame("v1-openOrders-snapshot-one"))
        await stage.until(18.0)
        assert stage.complete() == {"openOrders": 13.0, "ownTrades": 13.0}

    run = play(path, script)
    assert outages(run) == {"openOrders": [("resnapshot", DIAL_S)]}
    assert [line["cause"] for line in run.named("feed.lost")] == ["resnapshot"]
    assert len(run.named("feed.live")) == 3


def test_another_snapshot_before_any_answer_is_an_outage_since_the_connection_was_begun(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        stage.line.hear(data("openOrders", 2, change("O1")))
        await stage.until(5.0)
        stage.line.hear(stage.line.pong())
        await stage.until(6.0)
        stage.line.hear(frame("v1-openOrders-snapshot-one"))
        await stage.until(8.0)

    assert outages(play(path, script)) == {"openOrders": [("resnapshot", 0.0)]}


# -- the engine


def test_maintenance_is_an_outage_since_the_engine_was_last_known_to_be_online(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(5.0)
        stage.line.hear(stage.line.pong())
        await stage.until(12.0)
        stage.line.hear(status("maintenance"))
        await stage.until(15.0)
        stage.line.hear(stage.line.pong())
        await stage.until(16.0)
        assert stage.complete() == {"openOrders": DIAL_S, "ownTrades": DIAL_S}
        stage.line.hear(status("post_only"))
        await stage.until(17.0)
        assert stage.complete() == {"openOrders": DIAL_S, "ownTrades": DIAL_S}
        stage.line.hear(status("online"))
        await stage.again()

    run = play(path, script)
    assert outages(run) == {channel: [("maintenance", DIAL_S)] for channel in BOTH}
    assert {line["cause"] for line in run.named("feed.lost")} == {"maintenance"}


def test_an_engine_that_is_not_online_in_the_greeting_is_an_outage_once_it_is(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH, engine="post_only")
        await stage.until(5.0)
        stage.line.hear(stage.line.pong())
        await stage.until(8.0)
        assert stage.complete() == {"openOrders": 0.0, "ownTrades": 0.0}
        stage.line.hear(status("online"))
        await stage.again()
        await stage.until(20.0)
        stage.line.hear(stage.line.pong())
        await stage.until(21.0)
        assert min(seconds(ns) for ns in stage.endpoint.complete().values()) > 8.0  # that was the connection before

    run = play(path, script)
    assert outages(run) == {channel: [("maintenance", 0.0)] for channel in BOTH}


def test_a_connection_that_is_lost_in_maintenance_has_its_outage_since_the_engine_was_online(path: Path) -> None:
    async def script(stage: Stage) -> None:
        stage.line.live(*BOTH)
        await stage.until(5.0)
        stage.line.hear(stage.line.pong())
        await stage.until(12.0)
        stage.line.hear(status("cancel_only"))
        await stage.until(15.0)
        stage.line.hear(stage.line.pong())
        await stage.until(16.0)
        stage.line.drop()
        await stage.again()  # the engine is online by now
        stage.line.hear(stage.line.pong())
        await virtual_time.elapse(0.1)
        assert min(seconds(ns) for ns in stage.endpoint.complete().values()) > 16.0

    assert outages(play(path, script)) == {channel: [("closed", DIAL_S)] for channel in BOTH}
