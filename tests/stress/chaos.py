"""The installed command under every fault there is, killed and restarted, and its output held against the ledger.

    python -m tests.stress.chaos [--seeds N] [--events N] [--faults N]

Time is scaled (see ``fault_injection``). Exit code 1 unless nothing is lost, torn or written twice by one
run, every outage is closed or declared, and the call counter was never exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from signal import SIGTERM

import msgspec

from kraken_feed.simulator.faults.fault import ORDER_KINDS, PARAMETERS, TOKEN_KINDS, Fault
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.faults.schedule import Schedule
from kraken_feed.simulator.net.server import Server

from ..support.completeness import KINDS, NAMES, Count, Ended, Output, compare
from ..support.fault_injection import ALL, LAG_S, ORDINARY, SCALED, CountingExchange, drain_faster, strike
from ..support.installed import COMMAND, Site, until
from ..support.timeouts import scaled

RATE = 250.0  # things that happen a second; each is one change of an order or more
CHECKPOINT_S = 1.5  # the checkpoint's second, and the time that saving takes
CALM_S = scaled(90.0)  # until everything is recovered: on a calm account history is waited for ten times second_pass_s
STOP_S = scaled(15.0)  # for what SIGTERM takes: the contract says seconds
PAUSE_S = 0.3  # between two faults, on average
STRUCK_S = 2.0  # for a fault that waits for a call to find one

KILL, TERM = "SIGKILL", "SIGTERM"
CUT = b'{"id":"main:openOrders:'  # what a write that was cut short leaves

# One round. After what makes a client keep quiet for minutes comes a restart, which forgets that.
ROUND: tuple[Sequence[Fault | str], ...] = (
    *ORDINARY,
    (Fault("http_403"), KILL),
    (Fault("http_429"), KILL),
    (Fault("rest_timeout", method="GetWebSocketsToken"), TERM),
    (Fault("rest_error", text="EService:Unavailable", method="ClosedOrders"), KILL),
    (KILL,),
    (TERM,),
)
assert {fault.kind for step in ROUND for fault in step if isinstance(fault, Fault)} == set(PARAMETERS) - ORDER_KINDS


class Command:
    """The command, started again and again on one state and one output."""

    def __init__(self, place: Site, cut_every: int = 0) -> None:
        self._cut_every = cut_every
        self.path = place.home / "out.jsonl"
        self.ends: list[Ended] = []
        self.crashes: list[str] = []
        self.peak_kib = 0
        self._errors = place.home / "stderr.log"
        self._env = place.environment()
        if "PYTHONPATH" in os.environ:
            self._env["PYTHONPATH"] = os.environ["PYTHONPATH"]
        state = place.home / "state"
        self._arguments = (*ALL, "--state", str(state), "--output", str(self.path), "--format", "json")
        self._process: Process | None = None

    async def start(self) -> None:
        with self._errors.open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                COMMAND, *self._arguments, env=self._env, stdin=asyncio.subprocess.DEVNULL, stderr=errors
            )

    async def end(self, signal: str) -> None:
        """End it, and note what it leaves behind. What ends otherwise than it should is noted, too."""
        process = self._process
        assert process is not None
        self._measure(process.pid)
        if signal == TERM:  # no program answers it while its interpreter is loaded
            await until(lambda: _answers_sigterm(process.pid), over=lambda: process.returncode is not None)
        gone = process.returncode is not None
        if not gone:
            process.kill() if signal == KILL else process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                code = await process.wait()
        except TimeoutError:
            process.kill()
            code = await process.wait()
            self.crashes.append(f"run {len(self.ends)} did not stop within {STOP_S:g} s of {signal}")
        if gone or code not in (0, -9):
            self.crashes.append(f"run {len(self.ends)} ended with {code}, {'before' if gone else 'at'} {signal}")
        if signal == KILL and self._cut_every and (self.kills + 1) % self._cut_every == 0:
            with self.path.open("ab") as file:
                file.write(CUT)
        content = self.path.read_bytes() if self.path.exists() else b""
        whole = content.rfind(b"\n") + 1
        self.ends.append(Ended(signal, time.time(), whole, content[whole:]))

    @property
    def kills(self) -> int:
        """SIGKILLs so far."""
        return sum(end.signal == KILL for end in self.ends)

    def _measure(self, pid: int) -> None:
        self.peak_kib = max(self.peak_kib, int(_status(pid, "VmHWM:") or 0))


def _answers_sigterm(pid: int) -> bool:
    caught = _status(pid, "SigCgt:")
    return caught is None or bool(int(caught, 16) & 1 << (SIGTERM - 1))


def _status(pid: int, name: str) -> str | None:
    """Return a field of /proc/PID/status; None without such a process, or such a file."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((line.split()[1] for line in lines if line.startswith(name)), None)


class Result(msgspec.Struct):
    """One seed's numbers."""

    seed: int
    seconds: float
    events: int
    faults: Counter[str]
    runs: Counter[str]
    counts: dict[str, Count]
    within: list[str]
    after_checkpoint: int
    stale: list[str]  # written again although a checkpoint had it
    oldest_s: float  # the longest time before a kill that something was written which was written again
    torn: list[bytes]
    cut: int
    outages: Counter[str]
    unclosed: list[tuple[str, str]]
    calls: Counter[str]
    limited: int
    crashes: list[str]
    peak_kib: int
    lines: int

    @property
    def good(self) -> bool:
        """Whether the promise was kept."""
        lost = any(count.lost for count in self.counts.values())
        bad = self.within or self.stale or self.torn or self.unclosed or self.limited or self.crashes
        return not lost and not bad


async def chaos(seed: int, events: int, faults: int, home: Path, *, kills: int = 10, cut_every: int = 3) -> Result:
    """One seed, from the first start to the comparison: until so many changes, faults and SIGKILLs have happened.

    The kernel rarely cuts the write of a process that is killed; after every ``cut_every``-th SIGKILL the output is
    left as if it had."""
    began = time.monotonic()
    scenario = Scenario(tier="starter", rest_lag=LAG_S)
    exchange = CountingExchange(now=time.time(), seed=seed, rate=RATE, scenario=scenario)
    drain_faster(exchange)
    async with Server(exchange) as server:
        place = Site(server, home)
        place.configure(SCALED)
        command = Command(place, cut_every)
        await command.start()
        output = Output(command.path, command.ends)
        await until(lambda: command.path.exists() and _lives(output) == len(ALL), 10.0)
        started, rng = len(exchange.ledger.changes), Random(seed)
        for step in _steps(rng):
            await _play(step, place, command, rng)
            await asyncio.sleep(rng.uniform(0.5, 1.5) * PAUSE_S)
            happened = len(exchange.ledger.changes) - started
            if happened >= events and len(exchange.ledger.faults) >= faults and command.kills >= kills:
                break
        await _calm(place, command, output)
        return _result(seed, time.monotonic() - began, exchange, command, output, happened)


def _steps(rng: Random) -> Iterator[Sequence[Fault | str]]:
    while True:
        yield from rng.sample(ROUND, len(ROUND))


async def _play(step: Sequence[Fault | str], place: Site, command: Command, rng: Random) -> None:
    """Let it happen; what waits for a connect or a call for a token gets one."""
    faults = [fault for fault in step if isinstance(fault, Fault)]
    before = len(place.exchange.ledger.faults)
    strike(place, faults)
    for signal in step:
        if isinstance(signal, str):
            kinds = {fault.kind for fault in faults if fault.kind in TOKEN_KINDS}
            await until(lambda: kinds <= {s.kind for s in place.exchange.ledger.faults[before:]}, STRUCK_S)  # noqa: B023
            await command.end(signal)
            await asyncio.sleep(rng.uniform(0.0, 0.8))
            await command.start()


async def _calm(place: Site, command: Command, output: Output) -> None:
    """Nothing happens any more: after a last restart every outage has to be closed."""
    exchange = place.exchange
    exchange.engine.rate = 0.0
    exchange.world.schedule = Schedule(Random(0), None, place.server.now())
    await command.end(TERM)
    await command.start()
    output.read()
    lives = _lives(output)
    await until(lambda: _lives(output) >= lives + len(ALL) and not output.unclosed(), CALM_S)
    await command.end(TERM)
    output.read()


def _lives(output: Output) -> int:
    output.read()
    return sum(map(len, output.live.values()))


def _result(
    seed: int, seconds: float, exchange: CountingExchange, command: Command, output: Output, happened: int
) -> Result:
    oldest, stale, fresh = 0.0, [], 0
    for again in output.again:
        end = command.ends[again.run]
        age = end.at - datetime.fromisoformat(again.ts).timestamp()
        oldest = max(oldest, age)
        if end.signal == KILL and age <= CHECKPOINT_S:
            fresh += 1
        else:
            stale.append(f"{again.id} of run {again.run}, {age:.2f} s before its {end.signal}")
    last = command.ends.pop()  # nobody comes back to what follows it
    unclosed = output.unclosed()
    runs = Counter(end.signal for end in [*command.ends, last])
    outages = Counter(
        lost=sum(map(len, output.lost.values())),
        restart=len(command.ends) * len(ALL),
        backfilled=sum(map(len, output.closed.values())),
        gap=sum(map(len, output.gaps.values())),
    )
    return Result(
        seed=seed,
        seconds=seconds,
        events=happened,
        faults=Counter(struck.kind for struck in exchange.ledger.faults),
        runs=runs,
        counts=compare(output, exchange.ledger.changes),
        within=output.within,
        after_checkpoint=fresh,
        stale=stale,
        oldest_s=oldest,
        torn=output.torn,
        cut=output.cut,
        outages=outages,
        unclosed=unclosed,
        calls=exchange.calls,
        limited=exchange.limited,
        crashes=command.crashes,
        peak_kib=command.peak_kib,
        lines=output.lines,
    )


def table(results: Sequence[Result]) -> str:
    """A column a seed, and the total."""
    rows: list[tuple[str, list[int]]] = [("order events", [r.events for r in results])]
    rows.append(("faults that struck", [r.faults.total() for r in results]))
    rows += [(f"runs ended by {signal}", [r.runs[signal] for r in results]) for signal in (KILL, TERM)]
    for kind in KINDS:
        counts = [r.counts[kind] for r in results]
        rows.append((f"{NAMES[kind]} in the ledger", [c.ledger for c in counts]))
        rows.append((f"{NAMES[kind]} on the output", [c.output for c in counts]))
        rows.append((f"{NAMES[kind]} in a declared gap", [c.declared for c in counts]))
        rows.append((f"{NAMES[kind]} LOST", [len(c.lost) for c in counts]))
    rows.append(("lines on the output", [r.lines for r in results]))
    rows.append(("TWICE in one run, by id", [len(r.within) for r in results]))
    rows.append(("again after a SIGKILL, not in the checkpoint", [r.after_checkpoint for r in results]))
    rows.append(("AGAIN although in the checkpoint", [len(r.stale) for r in results]))
    rows.append(("last line cut by a SIGKILL", [r.cut for r in results]))
    rows.append(("TORN lines", [len(r.torn) for r in results]))
    rows += [
        (text, [r.outages[name] for r in results])
        for name, text in (
            ("lost", "outages by feed.lost"),
            ("restart", "outages by restart"),
            ("backfilled", "feed.backfilled"),
            ("gap", "feed.gap"),
        )
    ]
    rows.append(("outages UNCLOSED", [len(r.unclosed) for r in results]))
    rows += [
        (f"REST {method}", [r.calls[method] for r in results])
        for method in sorted(set(itertools.chain(*(r.calls for r in results))))
    ]
    rows.append(("EAPI:Rate limit exceeded", [r.limited for r in results]))
    rows.append(("ended otherwise than asked", [len(r.crashes) for r in results]))
    head = f"{'':<46}" + "".join(f"{f'seed {r.seed}':>9}" for r in results) + f"{'total':>9}"
    body = [f"{name:<46}" + "".join(f"{n:>9}" for n in [*numbers, sum(numbers)]) for name, numbers in rows]
    peak, age = max(r.peak_kib for r in results), max(r.oldest_s for r in results)
    struck = sum((r.faults for r in results), Counter[str]())
    foot = [
        f"seconds: {', '.join(f'{r.seconds:.0f}' for r in results)}; largest process: {peak / 1024:.0f} MiB; "
        f"written again: at most {age:.2f} s before the kill",
        "faults: " + ", ".join(f"{kind} {struck[kind]}" for kind in PARAMETERS if kind not in ORDER_KINDS),
    ]
    return "\n".join([head, *body, *foot])


def complaints(result: Result, most: int = 8) -> list[str]:
    """Examples of what went wrong."""
    found: list[str] = [f"lost: {name}" for count in result.counts.values() for name in count.lost[:most]]
    found += [f"twice in one run: {name}" for name in result.within[:most]]
    found += [f"again: {text}" for text in result.stale[:most]]
    found += [f"torn: {text[:160]!r}" for text in result.torn[:most]]
    found += [f"unclosed: {channel} since {start}" for channel, start in result.unclosed[:most]]
    return [f"seed {result.seed}: {text}" for text in [*found, *result.crashes[:most]]]


async def _all(seeds: range, events: int, faults: int, keep: Path | None) -> list[Result]:
    results = []
    for seed in seeds:
        if keep is not None:
            (keep / str(seed)).mkdir(parents=True)
            results.append(await chaos(seed, events, faults, keep / str(seed)))
        else:
            with tempfile.TemporaryDirectory() as home:
                results.append(await chaos(seed, events, faults, Path(home)))
        print(f"seed {seed}: {'good' if results[-1].good else 'BAD'}", file=sys.stderr)
    return results


def main() -> int:
    """0 if the promise was kept, else 1."""
    parser = argparse.ArgumentParser(description="The installed command under every fault there is.")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--events", type=int, default=25_000, help="changes of orders, for each seed")
    parser.add_argument("--faults", type=int, default=220, help="for each seed, at least")
    parser.add_argument("--keep", type=Path, help="a directory for outputs and logs")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    results = asyncio.run(_all(seeds, arguments.events, arguments.faults, arguments.keep))
    print(table(results))
    for result in results:
        print(*complaints(result), sep="\n", end="\n" if complaints(result) else "")
    return 0 if all(result.good for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
