"""What is measured, row by row. Within a row all contenders take turns, round after round."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.contender import KRAKEN_FEED, OURS, Contender, floor, kraken_feed
from bench.cost import cpu, many_orders, sqlite, tls
from bench.frames import DIALECTS, WARM_UP, Script, mark
from bench.process import Run, Server, running, serving
from bench.result import Bound, Report, Row, quantile
from bench.size import Size

STAMP = re.compile(rb'"lastupdated":\s?"(\d+)"')
# Without rich, which structlog and httpx load where they find it, and the command keeps them from.
LIBRARIES = (
    "import os, sys; sys.modules['rich'] = None; import websockets.asyncio.client, httpx, structlog, msgspec; "
    "os.write(1, b'.')"
)


# ------------------------------------------------------------------------------------------------ latency


def _delays(contender: Contender, server: Server, script: str) -> list[float]:
    """Microseconds from the server's send to the reader's receipt, frame by frame."""
    wanted = server.scripts[script].phases[-1]
    delays: list[float] = []
    rest = b""
    with running(contender, server, script) as run:
        run.until(mark(0))
        server.go_on()
        while len(delays) < wanted:
            piece = run.read()
            now = time.monotonic_ns()
            if not piece:
                raise RuntimeError(f"{contender.name} ended: {run.errors()}")
            whole, _, rest = (rest + piece).rpartition(b"\n")
            delays += [(now - int(stamp)) / 1000 for stamp in STAMP.findall(whole)]
        run.end()
    return delays[len(delays) // 20 :]  # the first ones wake everything up


def latency(size: Size, report: Report) -> None:
    """A lone frame's way from the server's socket to the reader's end of the pipe."""
    rates = (100, 1_000)
    scripts = {str(rate): Script("v1", 100, (WARM_UP, int(rate * size.latency_s)), rate=rate) for rate in rates}
    with serving(scripts) as server:
        for rate in rates:
            figures: dict[str, list[list[float]]] = {OURS.name: [], "floor": []}
            for round_ in range(2 * size.rounds):
                for contender in (OURS, floor())[:: 1 if round_ % 2 else -1]:
                    size.say(f"latency at {rate}/s, round {round_ + 1}: {contender.name}")
                    figures[contender.name].append(_delays(contender, server, str(rate)))
            for share in (0.5, 0.99, 0.999):
                sides = [(name, [quantile(one, share) for one in figures[name]]) for name in (OURS.name, "floor")]
                bound = Bound(2.0, 1.3) if share < 0.999 else None
                report.rows.append(Row(f"latency at {rate}/s, p{share * 100:g}", "µs", sides[0], sides[1], bound))


# ------------------------------------------------------------------------------------------------ start


def _to_first_byte(argv: Sequence[str]) -> float:
    """Milliseconds from the start of a process to its first byte, or to its end if it says nothing."""
    with tempfile.TemporaryDirectory(prefix="kraken-feed-bench-") as home:
        env = {"PATH": os.environ["PATH"], "HOME": home, "LANG": "C.UTF-8"}
        start = time.monotonic_ns()
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0)
        assert process.stdout is not None
        process.stdout.read(1)
        end = time.monotonic_ns()
        process.communicate()
        return (end - start) / 1e6


def _to_end(argv: Sequence[str]) -> float:
    start = time.monotonic_ns()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return (time.monotonic_ns() - start) / 1e6


def _first_record(server: Server) -> float:
    with running(kraken_feed("--count", "1"), server, "one") as run:
        run.read()
        end = time.monotonic_ns()
        run.ended()
        return (end - run.started_ns) / 1e6


def start(size: Size, report: Report) -> None:
    """How long one waits for the command."""
    bare = [sys.executable, "-I", "-c", "pass"]
    with serving({"one": Script("v1", 1, (0,))}) as server:
        timed: dict[str, Callable[[], float]] = {
            "--version": lambda: _to_end([KRAKEN_FEED, "--version"]),
            "--help": lambda: _to_end([KRAKEN_FEED, "--help"]),
            "python3 -I -c pass": lambda: _to_end(bare),
            "first record": lambda: _first_record(server),
            "imports alone": lambda: _to_first_byte([sys.executable, "-I", "-c", LIBRARIES]),
            "demo": lambda: _to_first_byte([KRAKEN_FEED, "demo", "--count", "1"]),
        }
        figures: dict[str, list[float]] = {name: [] for name in timed}
        size.say(f"start: {size.starts} times each")
        for round_ in range(size.starts + 1):
            for name, measure in timed.items():
                took = measure()
                if round_:  # the first brings files into memory
                    figures[name].append(took)
    for name, against, bound in (
        ("--version", "python3 -I -c pass", Bound(3.0, 2.0)),
        ("--help", "python3 -I -c pass", None),
        ("first record", "imports alone", Bound(1.5, 1.2)),
        ("demo", "imports alone", None),
    ):
        report.rows.append(Row(f"start, {name}", "ms", (name, figures[name]), (against, figures[against]), bound))


# ------------------------------------------------------------------------------------------------ memory, snapshots


def memory(size: Size, report: Report) -> None:
    """Resident memory with many open orders."""
    for count in size.memory:
        size.say(f"memory: {count:,} open orders")
        with (
            serving({"many": Script("v1", count, (WARM_UP,))}) as server,
            running(OURS, server, "many") as run,
        ):
            run.until(mark(0))
            run.settle()
            now, peak = run.memory_kib() / 1024, run.memory_kib("VmHWM") / 1024
            run.end()
        report.rows.append(Row(f"memory, {count:,} open orders", "MiB", ("resident", [now])))
        report.rows.append(Row(f"memory, {count:,} open orders", "MiB", ("peak", [peak])))


def growth(size: Size, report: Report) -> None:
    """What a million frames leave behind in memory, and whether they make the next one dearer."""
    early, late = size.growth
    span = early - WARM_UP
    for dialect in DIALECTS:
        script = Script(dialect, 100, (WARM_UP, span, late - early - span, span), lazy=True)
        grown, resident, begun, done = [], [], [], []
        with serving({"long": script}) as server:
            for round_ in range(size.growth_rounds):
                size.say(f"growth, {dialect}: {late:,} frames, round {round_ + 1}")
                first, second, third, fourth = _moments(server, len(script.phases))
                grown.append(fourth.since(second).resident)
                resident.append(fourth.resident)
                begun.append(second.since(first).cpu_s / span * 1e6)
                done.append(fourth.since(third).cpu_s / span * 1e6)
        name = f"memory, frame {early:,} to {late:,}, {dialect}"
        report.rows.append(Row(name, "MiB", ("growth", grown), None, Bound(2.0, 0.0)))
        report.rows.append(Row(f"memory after {late:,} frames, {dialect}", "MiB", ("resident", resident)))
        sides = (f"the last {span:,}", done), (f"the first {span:,}", begun)
        report.rows.append(Row(f"CPU a frame, of {late:,}, {dialect}", "µs", *sides, Bound(1.2, 1.0)))


def _moments(server: Server, phases: int) -> list[_Moment]:
    """How it is after each phase of the long script."""
    with running(OURS, server, "long") as run:
        moments = []
        for phase in range(phases):
            if phase:
                server.go_on()
            moments.append(_settled(run, phase))
        run.end()
    return moments


@dataclass(frozen=True)
class _Moment:
    """Resident MiB, and CPU seconds so far, when all is quiet."""

    resident: float
    cpu_s: float

    def since(self, before: _Moment) -> _Moment:
        return _Moment(self.resident - before.resident, self.cpu_s - before.cpu_s)


def _settled(run: Run, phase: int) -> _Moment:
    run.until(mark(phase))
    run.settle()
    return _Moment(run.memory_kib() / 1024, run.cpu_s())


def snapshot(size: Size, report: Report) -> None:
    """How long a large snapshot takes, from its first byte on the wire to its last record on the output."""
    for count in size.snapshots:
        seconds, cpu_s = [], []
        with serving({"whole": Script("v1", count, (0,), hold=True)}) as server:
            for round_ in range(min(3, size.rounds)):
                size.say(f"snapshot of {count:,}, round {round_ + 1}")
                with running(OURS, server, "whole") as run:
                    before, begin = run.cpu_s(), time.monotonic_ns()
                    server.go_on()
                    seconds.append((run.until(mark(0)) - begin) / 1e9)
                    cpu_s.append(run.cpu_s() - before)
                    run.end()
        each = statistics.median(seconds) / count * 1e6
        report.rows.append(Row(f"snapshot of {count:,} orders", "s", ("wall", seconds)))
        report.rows.append(Row(f"snapshot of {count:,} orders", "s", ("CPU", cpu_s)))
        report.rows.append(Row(f"snapshot of {count:,} orders", "µs", ("an order", [each])))


ROWS: dict[str, Callable[[Size, Report], None]] = {
    "cpu": cpu,
    "tls": tls,
    "latency": latency,
    "start": start,
    "orders": many_orders,
    "sqlite": sqlite,
    "snapshot": snapshot,
    "memory": memory,
    "growth": growth,
}
