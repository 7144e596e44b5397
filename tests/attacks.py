"""Attacks on what a client assumes of clocks, delays and files; its output held against the exchange's ledger.

    python -m tests.attacks [--row ROW ...] [--seconds S]

Each attack runs the installed command (or a Python program, where the row says so) against the simulated exchange on
loopback, and makes one of these assumptions false: the wall clock is right, the monotonic clock runs through every
pause, a frame is read soon after it was sent, no state means a first start, what was written is still there, REST
knows what has happened. It prints one line per attack. Exit code 1 if anything was lost silently.

Delays are scaled: REST is asked again within seconds, and the margins of queries are small, so that an outage of a
few seconds is as long as one of minutes with the defaults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec

from kraken_feed.record import timestamp
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.fault import Fault
from kraken_feed.simulator.scenario import Scenario
from kraken_feed.simulator.server import Server

from .clocks import Clocks
from .installed import COMMAND, Site, until
from .ordeal import ALL, DECAY, drain_faster
from .tally import CHANNELS, KINDS, Output, expected
from .throttle import slow_line

SECONDS = 6.0  # of each part of an attack: before it, and of the outage
RATE = 80.0  # things that happen per second
OVERLAP_S = 0.2
SECOND_PASS_S = 0.4
CALM_S = 10 * SECOND_PASS_S + 6.0  # without a record: REST was asked for the last time, also on a busy machine
LOOK_S = 0.5

CONFIG = f"""
[connection]
open_timeout_s = 3.0
ack_timeout_s = 5.0
silence_s = 2.5
[reconnect]
initial_s = 0.05
max_s = 0.3
stable_s = 1.0
budget = 1000000
[backfill]
overlap_s = {OVERLAP_S}
second_pass_s = {SECOND_PASS_S}
rest_counter = 15
rest_decay = {DECAY}
"""

PROGRAM = """
import asyncio, sys, time
import kraken_feed

async def main(output, state, work, channels):
    with open(output, "ab", buffering=0) as out:
        async with kraken_feed.tail(*channels, state=state) as records:
            async for record in records:
                time.sleep(work)  # synchronous: the program's own, and the loop stands still meanwhile
                out.write(record.line)
                if isinstance(record, kraken_feed.Live):
                    print("live", flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:]))
"""


class Typed(msgspec.Struct):
    """What is looked at in a record."""

    id: str = ""
    type: str = ""


class Figures(msgspec.Struct):
    """What became of what the ledger has, by kind, over the channels that tell of it."""

    ledger: Counter[str]
    lost: Counter[str]
    declared: Counter[str]
    recovered: Counter[str]

    @property
    def silent(self) -> int:
        """Return how much is missing without a gap that says so."""
        return self.lost.total()


class Stage:
    """A client on an exchange, its clocks and its files."""

    process: Process

    def __init__(self, place: Site, clocks: Clocks, channels: tuple[str, ...], seconds: float) -> None:
        self.channels = channels
        self.place = place
        self.exchange = place.exchange
        self.clocks = clocks
        self.seconds = seconds
        self.output = place.home / "out.jsonl"
        self.state = place.home / "state"
        self.shipped = b""  # of an output that is gone, what somebody has read before
        self.since = 0.0  # in the exchange's time: live on every channel
        self._log = place.home / "stderr.log"
        self._lives = 0

    async def start(self, *, program_work_s: float | None = None, live: bool = True) -> None:
        """Start the client, and wait until it is live on every channel."""
        environment = self.place.environment(**self.clocks.environment)
        if program_work_s is None:
            files = ("--state", str(self.state), "--output", str(self.output))
            command = [COMMAND, *self.channels, *files, "--format", "json", "-v"]
        else:
            program = self.place.home / "program.py"
            program.write_text(PROGRAM)
            command = [
                sys.executable,
                str(program),
                str(self.output),
                str(self.state),
                str(program_work_s),
                *self.channels,
            ]
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command, env=environment, stdin=DEVNULL, stdout=log.fileno(), stderr=log.fileno()
            )
        self._lives += len(self.channels)
        if live:
            await self.live()

    async def live(self) -> None:
        """Wait until every channel is live that was lost or has not been."""
        over = await until(lambda: self._live() >= self._lives, over=lambda: self.process.returncode is not None)
        assert over, self._log.read_text()[-3000:]
        self.since = self.since or self.place.server.now()

    def _live(self) -> int:
        log = self._log.read_bytes()
        return log.count(b'"event":"live"') + log.count(b"live\n")

    async def wait(self, parts: float = 1.0) -> None:
        """Let things happen for so many parts of the attack's length."""
        await asyncio.sleep(parts * self.seconds)

    async def kill(self) -> None:
        """End the client with SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def kill_and_start_later(self) -> None:
        """End the client with SIGKILL, and start it after an outage."""
        await self.kill()
        await self.wait(0.5)
        await self.start()

    def cut_off(self, seconds: float) -> None:
        """Cut every connection, and let nobody connect for so long."""
        self.place.inject(Fault("upgrade_refused", duration=seconds), Fault("drop"))
        self._lives = self._live() + len(self.channels)

    def figures(self) -> Figures:
        """Hold the output against the ledger, from the first time that every channel was live."""
        content = self.shipped + (self.output.read_bytes() if self.output.exists() else b"")
        path = self.place.home / "all.jsonl"
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        output = Output(path, [])
        output.read()
        backfills = set()
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError):  # the last line before a SIGKILL
                record = msgspec.json.decode(line, type=Typed)
                if record.type == "backfill":
                    backfills.add(record.id)
        found = Figures(Counter(), Counter(), Counter(), Counter())
        since = timestamp(int(self.since * 1e9))
        for kind, identity, at in expected(self.exchange.ledger.changes):
            for channel in set(CHANNELS[kind]).intersection(self.channels) if at > since else ():
                name = f"{output.account}:{channel}:{identity}"
                found.ledger[kind] += 1
                if name in backfills:
                    found.recovered[kind] += 1
                elif name not in output.seen:
                    (found.declared if output.declared(channel, at) else found.lost)[kind] += 1
        return found

    async def calm(self) -> Figures:
        """Let nothing happen any more, wait while records still come, and return what became of everything."""
        await self.wait(0.3)
        self.exchange.engine.rate = 0.0
        found, size, ends = self.figures(), -1, time.monotonic() + CALM_S
        while found.silent and time.monotonic() < ends:
            await asyncio.sleep(LOOK_S)
            if self.output.exists() and self.output.stat().st_size != size:
                size, began = self.output.stat().st_size, time.monotonic()
                found = self.figures()
                await asyncio.sleep(4 * (time.monotonic() - began))  # leave the processor to the exchange
                ends = time.monotonic() + CALM_S
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
        return self.figures()


Play = Callable[[Stage], Awaitable[None]]


class Attack(msgspec.Struct, frozen=True):
    """A row of the table: what is done, and with how many events per second and how late a history."""

    row: str
    what: str
    play: Play
    rate: float = RATE
    rest_lag: float = 0.0
    channels: tuple[str, ...] = ALL


# -- clocks


async def clock_behind(stage: Stage) -> None:
    stage.clocks.step(-60.0)
    await stage.start()
    await stage.wait()
    await stage.kill_and_start_later()


async def clock_set_back(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    stage.cut_off(0.5 * stage.seconds)
    await stage.wait(0.2)
    stage.clocks.step(-3600.0)
    await stage.live()


async def clock_from_the_past(stage: Stage) -> None:
    """A machine without a clock chip: after a power cut it starts in the past, until the network tells it the time."""
    years = 10 * 365.25 * 86400
    await stage.start()
    await stage.wait()
    await stage.kill()
    stage.clocks.step(-years)
    await stage.wait(0.5)
    await stage.start()
    stage.clocks.step(years)
    await stage.wait()


async def suspend(stage: Stage) -> None:
    """The peer is gone when the client wakes, and the frames of the last second are in its socket."""
    await stage.start()
    await stage.wait()
    began = time.monotonic()
    stage.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(1.0)
    stage.place.inject(Fault("half_open", duration=3600.0))
    await stage.wait()
    stage.clocks.stand_still(time.monotonic() - began)
    stage.cut_off(0.0)
    stage.process.send_signal(signal.SIGCONT)
    await stage.live()


# -- delays


async def slow_program(stage: Stage) -> None:
    await stage.start(program_work_s=0.006)
    await stage.wait(5.0)
    await stage.kill()
    await stage.start(program_work_s=0.0)


async def slow_network(stage: Stage) -> None:
    server = stage.place.server
    async with slow_line(server.port, 40_000.0) as line:
        config = stage.place.configure(CONFIG)
        rest = f'rest = "{server.rest_url}"'
        text = config.read_text().replace(f":{server.port}", f":{line.port}")
        config.write_text(text.replace(rest.replace(f":{server.port}", f":{line.port}"), rest))
        await stage.start()
        await stage.wait(2.0)
        line.rate = None
        stage._lives += len(stage.channels)
        line.cut()
        await stage.live()
        await stage.calm()


# -- files


def databases(stage: Stage) -> list[Path]:
    return [path for path in stage.state.rglob("*") if path.is_file()]


async def state_removed(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    shutil.rmtree(stage.state)
    await asyncio.sleep(2.0)
    await stage.kill_and_start_later()


async def state_removed_at_the_last_moment(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    await stage.kill()
    shutil.rmtree(stage.state)
    await stage.wait(0.5)
    await stage.start()


async def state_emptied(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    await stage.kill()
    for path in databases(stage):
        os.truncate(path, 0)
    await stage.wait(0.5)
    await stage.start()


async def state_without_its_log(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    await stage.kill()
    for path in databases(stage):
        if path.name.endswith(("-wal", "-shm")):
            path.unlink()
    await stage.wait(0.5)
    await stage.start()


async def power_cut(stage: Stage) -> None:
    """In the first seconds: of the state there is only what was forced to the disk, which is the main file."""
    await stage.start()
    await asyncio.sleep(2.0)
    await stage.kill()
    for path in databases(stage):
        if path.name.endswith(("-wal", "-shm")):
            path.unlink()
    await stage.wait(0.5)
    await stage.start()


async def state_not_mounted(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    await stage.kill()
    stage.state.rename(stage.state.with_name("unmounted"))
    stage.state.mkdir()
    await stage.wait(0.5)
    await stage.start()


async def output_removed(stage: Stage) -> None:
    """What the file held until then was read by somebody; what is written from then on nobody can read there."""
    await stage.start()
    await stage.wait()
    with stage.output.open("rb") as file:
        stage.output.unlink()
        content = file.read()
    stage.shipped = content[: content.rfind(b"\n") + 1]
    await stage.wait(0.7)
    await stage.kill_and_start_later()


# -- history


async def history_late(stage: Stage) -> None:
    await stage.start()
    await stage.wait()
    stage.cut_off(0.5 * stage.seconds)
    await stage.live()


ATTACKS = (
    Attack("1a", "the wall clock is 60 s behind; SIGKILL", clock_behind),
    Attack("1b", "the wall clock is set back by an hour during an outage", clock_set_back),
    Attack("1c", "SIGKILL; the machine starts ten years in the past, its clock is set once live", clock_from_the_past),
    Attack("2", "suspend; the peer is gone on waking, a second of frames is in the socket", suspend),
    Attack(
        "3a", "a Python program with 6 ms of work per record; SIGKILL", slow_program, 300.0, channels=("executions",)
    ),
    Attack("3b", "a network line slower than the feed, then cut", slow_network),
    Attack("4a", "the state is removed under the running process; SIGKILL", state_removed),
    Attack("4b", "SIGKILL; the state is removed", state_removed_at_the_last_moment),
    Attack("4c", "SIGKILL; the files of the state are empty", state_emptied),
    Attack("4d", "SIGKILL; the state is copied without its write-ahead log", state_without_its_log),
    Attack("4e", "a power cut in the first seconds", power_cut),
    Attack("4f", "SIGKILL; the file system of the state is not mounted", state_not_mounted),
    Attack("5", "the output is removed under the running process; SIGKILL", output_removed),
    Attack("6", "history is 3 s late, the second pass comes after 0.4 s", history_late, rest_lag=3.0),
)


@contextlib.asynccontextmanager
async def stage(attack: Attack, home: Path, seconds: float) -> AsyncIterator[Stage]:
    """An exchange and a client for one attack; no process is left afterwards."""
    scenario = Scenario(tier="starter", rest_lag=attack.rest_lag)
    exchange = Exchange(now=time.time(), seed=1, rate=attack.rate, scenario=scenario)
    drain_faster(exchange)
    clocks = Clocks(home)
    async with Server(exchange) as server:
        place = Site(server, home)
        place.configure(CONFIG)
        scene = Stage(place, clocks, attack.channels, seconds)
        try:
            yield scene
        finally:
            if scene.process.returncode is None:
                scene.process.kill()
                await scene.process.wait()
            clocks.close()


async def attacked(attack: Attack, home: Path, seconds: float) -> Figures:
    """Carry out one attack, and return what became of everything that happened."""
    async with stage(attack, home, seconds) as scene:
        await attack.play(scene)
        return await scene.calm()


def line(attack: Attack, found: Figures) -> str:
    """Return the attack's line of the table: fills / order ends / ledger entries in each column."""
    columns = (found.ledger, found.lost, found.declared, found.recovered)
    numbers = ["/".join(str(column[kind]) for kind in ("fill", "end", "entry")) for column in columns]
    return f"{attack.row:<3} {attack.what:<80}" + "".join(f"{text:>17}" for text in numbers)


HEAD = f"{'':<84}{'ledger':>17}{'LOST SILENTLY':>17}{'declared':>17}{'recovered':>17}\n{'':<84}" + (
    f"{'fill/end/entry':>17}" * 4
)
assert set(KINDS) == {"fill", "end", "entry"}


def main() -> int:
    """Return 0 if nothing was lost silently, else 1."""
    parser = argparse.ArgumentParser(description="What happens to records if an assumption of the client is false.")
    parser.add_argument("--row", action="append", choices=[attack.row for attack in ATTACKS], help="default: all")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the length of each part of an attack")
    given = parser.parse_args()
    silent = 0
    print(HEAD, flush=True)
    for attack in ATTACKS:
        if given.row is None or attack.row in given.row:
            with tempfile.TemporaryDirectory() as home:
                found = asyncio.run(attacked(attack, Path(home), given.seconds))
            silent += found.silent
            print(line(attack, found), flush=True)
    return 1 if silent else 0


if __name__ == "__main__":
    sys.exit(main())
