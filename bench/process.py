"""One run of a contender: its output read as fast as it comes, its CPU time and memory as the kernel counts them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contender import PLACE, ROOT, Contender, Target, environment
from bench.frames import Script, mark

PATIENCE_S = 300.0  # for a mark on the output: then something hangs
IDLE_S = 1.3  # longer than the second between two checkpoints


class Server:
    """The server's process, with scripts of its own."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self.scripts = scripts
        certificate = PLACE / "certificate.pem"
        spec = {
            "scripts": {name: asdict(script) for name, script in scripts.items()},
            "certificate": str(certificate) if certificate.exists() else "",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.server", json.dumps(spec)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._ports = json.loads(self._line())

    def target(self, name: str, home: Path, *, secure: bool) -> Target:
        """The addresses of a script."""
        port, s = (self._ports["secure"], "s") if secure else (self._ports["plain"], "")
        dialect = self.scripts[name].dialect
        websocket = f"ws{s}://127.0.0.1:{port}/{name}" + ("/v2" if dialect == "v2" else "")
        return Target(dialect, f"http{s}://127.0.0.1:{port}", websocket, home)

    def wait_for_subscription(self) -> None:
        line = self._line()
        assert line == b"subscribed\n", line

    def go_on(self) -> None:
        """Let the next phase begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b".")

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            raise RuntimeError("the server is silent")
        return self._process.stdout.readline()


class Run:
    """A contender that is running. Read :attr:`output` through :meth:`until`."""

    def __init__(self, contender: Contender, target: Target) -> None:
        command = contender.command(target)
        self.name = contender.name
        self._errors = open(target.home / "stderr", "w+b")  # noqa: SIM115  # closed with the run
        self.started_ns = time.monotonic_ns()
        self._process = subprocess.Popen(
            command.argv,
            env=environment(target, command.env),
            stdin=subprocess.PIPE if command.stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        if command.stdin and self._process.stdin is not None:
            self._process.stdin.write(command.stdin.encode())
        assert self._process.stdout is not None
        self._out = self._process.stdout.fileno()
        self._rest = b""

    def read(self) -> bytes:
        """What comes next on its stdout, as one read gives it; nothing at the end."""
        if not select.select([self._out], [], [], PATIENCE_S)[0]:
            raise RuntimeError(f"{self.name} is silent: {self.errors()}")
        return os.read(self._out, 65536)

    def until(self, wanted: bytes) -> int:
        """Read up to a mark, and throw away; the time when it came."""
        while True:
            piece = self.read()
            now = time.monotonic_ns()
            if wanted in piece or wanted in self._rest + piece[: len(wanted)]:
                self._rest = b""
                return now
            if not piece:
                raise RuntimeError(f"{self.name} ended: {self.errors()}")
            self._rest = piece[-len(wanted) :]

    def cpu_s(self) -> float:
        """CPU seconds so far, user and system, of all its threads, also of those that have ended."""
        return time.clock_gettime(~self._process.pid << 3 | 2)  # clock_getcpuclockid(3)

    def memory_kib(self, what: str = "VmRSS") -> int:
        """Resident memory now, or with ``VmHWM`` at its highest."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = re.search(rf"{what}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1])

    def settle(self) -> None:
        """Wait until it does nothing any more, checkpoints included."""
        before = self.cpu_s()
        while True:
            time.sleep(IDLE_S)
            now = self.cpu_s()
            if now - before < 0.004:  # timers, no work
                return
            before = now

    def end(self) -> float:
        """Ask it to stop, and see it off: all of its CPU seconds."""
        self._process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self) -> float:
        """Wait for its end: all of its CPU seconds."""
        while self.read():
            pass
        _, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return usage.ru_utime + usage.ru_stime

    def errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode("utf-8", "replace")

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                stream.close()


@contextmanager
def serving(scripts: dict[str, Script]) -> Iterator[Server]:
    server = Server(scripts)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def running(contender: Contender, server: Server, script: str, *, secure: bool = False) -> Iterator[Run]:
    """A contender that has subscribed to a script."""
    with tempfile.TemporaryDirectory(prefix="kraken-feed-bench-") as home:
        run = Run(contender, server.target(script, Path(home), secure=secure))
        try:
            server.wait_for_subscription()
            yield run
        finally:
            run.close()


@dataclass(frozen=True)
class Blast:
    """What a run of frames cost the whole process. ``cpu_us`` is for one frame, between the first mark and the end
    of the process; ``start_cpu_s`` what came before: start, subscription, snapshot and the first frames."""

    cpu_us: float
    cpu_s: float
    start_cpu_s: float
    wall_s: float
    frames: int
    peak_kib: int


def blast(contender: Contender, server: Server, script: str, *, secure: bool = False, settle: bool = False) -> Blast:
    """Run a script of two phases: the first warms up, the second is measured."""
    frames = server.scripts[script].phases[1]
    with running(contender, server, script, secure=secure) as run:
        run.until(mark(0))
        if settle:
            run.settle()
        before, start = run.cpu_s(), time.monotonic_ns()
        server.go_on()
        end = run.until(mark(1))
        peak = run.memory_kib("VmHWM")
        total = run.end()
        return Blast((total - before) / frames * 1e6, total, before, (end - start) / 1e9, frames, peak)
