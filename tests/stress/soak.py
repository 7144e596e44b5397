"""The installed command for a long time: two accounts, faults all the time, and does it stay as small as it was?

    python -m tests.stress.soak [--minutes N] [--keep DIRECTORY]

Time is scaled (see ``fault_injection``). One process runs from the first event to the last; its output is rotated, and
it is asked for its state and its metrics now and then. Exit code 1 unless both accounts' output holds all that their
ledgers do, nothing torn and nothing twice, every outage is closed or declared, the process did what signals asked, and
memory, file descriptors and threads are flat.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgspec

from kraken_feed.simulator.faults.fault import PARAMETERS, Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.faults.schedule import Schedule
from kraken_feed.simulator.net.server import Server

from ..support import process_stats
from ..support.completeness import KINDS, NAMES, Count, Output, compare
from ..support.diagnostics import Diagnostics
from ..support.fault_injection import ALL, LAG_S, ORDINARY, SCALED, CountingExchange, drain_faster, strike
from ..support.installed import Site, bare, start, until
from ..support.process_stats import Sample
from ..support.timeouts import scaled

ACCOUNTS = ("a", "b")
START_S = scaled(20.0)  # for all channels to be live
ANSWER_S = scaled(10.0)  # for what a signal asks for; it takes milliseconds
CALM_S = scaled(90.0)  # until everything is recovered: on a calm account history is waited for ten times second_pass_s
STOP_S = scaled(15.0)  # for what SIGTERM takes: the contract says seconds
WARM_UP_S = 60.0  # caches, pools and the allocator find their size


class Plan(msgspec.Struct, frozen=True):
    """How long, and how much of everything: until it was so long and so many events have happened."""

    seconds: float
    events: int = 0
    rate: float = 2.0  # events a second and account; what they bring is remembered: about 5 MiB an hour
    pause_s: float = 2.0  # between two faults, on average
    rotate_every: int = 20  # faults
    tell_every: int = 7
    sample_s: float = 10.0

    @property
    def warm_up_s(self) -> float:
        """The time that is left out of account."""
        return min(WARM_UP_S, self.seconds / 4)


class Soak:
    """One process on one exchange with two accounts."""

    def __init__(self, place: Site, exchange: CountingExchange, plan: Plan, seed: int) -> None:
        self.plan = plan
        self.samples: list[Sample] = []
        self.complaints: list[str] = []
        self.rotations = self.told = self.scrapes = 0
        self.path = place.home / "out.jsonl"
        self.outputs = [Output(self.path, [], account) for account in ACCOUNTS]
        self._place, self._exchange, self._rng = place, exchange, Random(seed)
        self._errors = place.home / "stderr.log"
        self._errors.touch()
        self._diagnostics = Diagnostics(self._errors)
        self._port = _free_port()
        self._process: Process | None = None
        self._began = time.monotonic()
        self._before = 0
        place.configure(
            f'{SCALED}[metrics]\nlisten = "127.0.0.1:{self._port}"\n{place.accounts(*ACCOUNTS)}',
            before=f'account = "{ACCOUNTS[0]}"',
        )

    @property
    def process(self) -> Process:
        """The command's."""
        assert self._process is not None
        return self._process

    @property
    def events(self) -> int:
        """What has happened to the accounts since they are tailed."""
        return sum(len(account.ledger.changes) for account in self._exchange.accounts) - self._before

    async def run(self) -> None:
        """From the start to the end of the process."""
        home = self._place.home
        named = [option for name in ACCOUNTS for option in ("--account", name)]
        arguments = (*ALL, *named, "--output", str(self.path), "--state", str(home / "state"), "--format", "json")
        environment = {**bare(home), "KRAKEN_FEED_CONFIG": str(home / "config.toml")}
        if "PYTHONPATH" in os.environ:
            environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
        with self._errors.open("ab") as errors:
            self._process = await start(*arguments, env=environment, stdout=DEVNULL, stderr=errors.fileno(), fresh=True)
        try:
            if await until(lambda: self.path.exists() and self._lives() == len(ALL) * len(ACCOUNTS), START_S):
                self._began, self._before = time.monotonic(), self.events
                async with asyncio.TaskGroup() as tasks:
                    watch = tasks.create_task(self._watch())
                    await self._trouble()
                    watch.cancel()
                await self._calm()
            else:
                self.complaints.append(f"not every channel was live within {START_S:g} s")
        finally:
            await self._end()

    async def _trouble(self) -> None:
        """Faults, rotations and questions until it is enough."""
        for number, faults in enumerate(_steps(self._rng), 1):
            strike(self._place, faults, self._rng.choice((None, 1, 2)))
            if number % self.plan.rotate_every == 0:
                await self._rotate()
            if number % self.plan.tell_every == 0:
                self.told += 1
                await self._ask(signal.SIGUSR1, "state", self.told)
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * self.plan.pause_s)
            if self.process.returncode is not None:
                return
            if time.monotonic() - self._began >= self.plan.seconds and self.events >= self.plan.events:
                return

    async def _rotate(self) -> None:
        """What logrotate does."""
        self.rotations += 1
        old = self.path.with_name(f"out.{self.rotations}.jsonl")
        self.path.rename(old)
        await self._ask(signal.SIGHUP, "output_reopened", self.rotations)
        for output in self.outputs:
            output.rotated(old)

    async def _ask(self, number: signal.Signals, event: str, times: int) -> None:
        """Send a signal and wait until it was obeyed so many times."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        if not await until(lambda: self._diagnostics.count(event) >= times, ANSWER_S):
            self.complaints.append(f"{number.name} number {times} was not answered with {event}")

    async def _watch(self) -> None:
        """Look at the process again and again, and let its metrics be scraped as often."""
        while True:
            await asyncio.sleep(self.plan.sample_s)
            try:
                self.samples.append(process_stats.sample(self.process.pid, time.monotonic() - self._began))
            except OSError:
                return
            self.scrapes += await _scraped(self._port)

    async def _calm(self) -> None:
        """Nothing happens any more: after a last reconnect every outage has to be closed."""
        for account in self._exchange.accounts:
            account.engine.rate = 0.0
        self._exchange.world.schedule = Schedule(Random(0), None, self._place.server.now())
        lives = self._lives()
        self._place.inject(Fault("drop", code=1001))
        everywhere = lives + len(ALL) * len(ACCOUNTS)
        await until(lambda: self._lives() >= everywhere and not any(o.unclosed() for o in self.outputs), CALM_S)

    async def _end(self) -> None:
        """Stop it as a supervisor does."""
        code = self.process.returncode
        if code is not None:
            self.complaints.append(f"ended by itself with {code}")
            return
        self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                code = await self.process.wait()
        except TimeoutError:
            self.process.kill()
            code = await self.process.wait()
        if code != 0:
            self.complaints.append(f"ended with {code} at SIGTERM")
        self._lives()
        self._diagnostics.count("")
        self.complaints += [f"said: {line}" for line in self._diagnostics.wrong]

    def _lives(self) -> int:
        for output in self.outputs:
            output.read()
        return sum(len(times) for output in self.outputs for times in output.live.values())


class Result(msgspec.Struct):
    """The numbers of a run; by account where there are several."""

    seconds: float
    plan: Plan
    events: list[int]
    lines: list[int]
    counts: list[dict[str, Count]]
    gaps: list[int]
    lives: list[int]
    unclosed: list[str]
    torn: list[bytes]
    within: list[str]
    faults: Counter[str]
    limited: int
    rotations: int
    told: int
    scrapes: int
    complaints: list[str]
    samples: list[Sample]

    @property
    def steady(self) -> list[Sample]:
        """The samples after the warm-up."""
        return [sample for sample in self.samples if sample.at >= self.plan.warm_up_s]

    @property
    def lost(self) -> list[str]:
        """What a ledger has and the output has not."""
        return [name for counts in self.counts for count in counts.values() for name in count.lost]

    def wrong(self, most: int = 8) -> list[str]:
        """Examples of what was not as promised; nothing if all was."""
        found = [f"lost: {name}" for name in self.lost[:most]]
        found += [f"torn: {text[:160]!r}" for text in self.torn[:most]]
        found += [f"twice: {name}" for name in self.within[:most]]
        found += [f"unclosed: {text}" for text in self.unclosed[:most]]
        found += ["the call counter was exceeded"] if self.limited else []
        return found + self.complaints[:most]


async def soak(home: Path, plan: Plan, seed: int = 1) -> Result:
    """One run and its numbers."""
    scenario = Scenario(rest_lag=LAG_S)
    accounts = len(ACCOUNTS)
    exchange = CountingExchange(now=time.time(), seed=seed, rate=plan.rate, scenario=scenario, accounts=accounts)
    drain_faster(exchange)
    async with Server(exchange) as server:
        run = Soak(Site(server, home), exchange, plan, seed)
        began = time.monotonic()
        await run.run()
    pairs = list(zip(run.outputs, exchange.accounts, strict=True))
    return Result(
        seconds=time.monotonic() - began,
        plan=plan,
        events=[len(account.ledger.changes) for account in exchange.accounts],
        lines=[output.lines for output in run.outputs],
        counts=[compare(output, account.ledger.changes) for output, account in pairs],
        gaps=[sum(map(len, output.gaps.values())) for output in run.outputs],
        lives=[sum(map(len, output.live.values())) for output in run.outputs],
        unclosed=[f"{o.account}:{channel} since {since}" for o in run.outputs for channel, since in o.unclosed()],
        torn=run.outputs[0].torn,
        within=[name for output in run.outputs for name in output.within],
        faults=Counter(struck.kind for struck in exchange.ledger.faults),
        limited=exchange.limited,
        rotations=run.rotations,
        told=run.told,
        scrapes=run.scrapes,
        complaints=run.complaints,
        samples=run.samples,
    )


def report(result: Result) -> str:
    """What a person reads."""
    rows: list[tuple[str, Sequence[int]]] = [("order events", result.events)]
    for kind in KINDS:
        counts = [counts[kind] for counts in result.counts]
        rows.append((f"{NAMES[kind]} in the ledger", [count.ledger for count in counts]))
        rows.append((f"{NAMES[kind]} on the output", [count.output for count in counts]))
        rows.append((f"{NAMES[kind]} in a declared gap", [count.declared for count in counts]))
        rows.append((f"{NAMES[kind]} LOST", [len(count.lost) for count in counts]))
    rows += [("lines on the output", result.lines), ("feed.live", result.lives), ("feed.gap", result.gaps)]
    head = f"{'':<36}" + "".join(f"{name:>10}" for name in ACCOUNTS)
    body = [f"{name:<36}" + "".join(f"{number:>10}" for number in numbers) for name, numbers in rows]
    enough = len(result.steady) >= process_stats.ENOUGH
    memory = process_stats.table(result.steady) if enough else "too short to tell about memory"
    struck = ", ".join(f"{kind} {result.faults[kind]}" for kind in PARAMETERS if result.faults[kind])
    foot = [
        f"TORN lines {len(result.torn)}; TWICE {len(result.within)}; outages UNCLOSED {len(result.unclosed)}",
        f"{result.seconds:.0f} s, {len(result.steady)} samples after {result.plan.warm_up_s:.0f} s of warm-up; "
        f"{result.rotations} rotations, {result.told} questions, {result.scrapes} scrapes",
        f"{result.faults.total()} faults: {struck}",
    ]
    return "\n".join([memory, "", head, *body, *foot])


def _steps(rng: Random) -> Iterator[Sequence[Fault]]:
    while True:
        yield from rng.sample(ORDINARY, len(ORDINARY))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def _scraped(port: int) -> bool:
    """Whether the process answers a scraper."""
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return answer.startswith(b"HTTP/1.1 200 ")


def main() -> int:
    """0 if the promise was kept and nothing grew, else 1."""
    parser = argparse.ArgumentParser(description="The installed command for a long time, with two accounts.")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a directory for the output and the log")
    arguments = parser.parse_args()
    seconds = 60.0 * arguments.minutes
    plan = Plan(seconds, sample_s=min(10.0, seconds / 24))
    with tempfile.TemporaryDirectory() as home:
        place = arguments.keep or Path(home)
        os.makedirs(place, exist_ok=True)
        result = asyncio.run(soak(place, plan, arguments.seed))
    print(report(result))
    wrong = result.wrong()
    if len(result.steady) >= process_stats.ENOUGH:
        wrong += [f"grows: {text}" for text in process_stats.growth(result.steady)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
