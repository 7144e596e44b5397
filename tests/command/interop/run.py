"""Run clients that others wrote against our simulator: `python -m tests.command.interop.run [--losses] [NAME…]`.
Only the standard library is needed.

Each client lives in an environment of its own, `.interop/NAME`, made on first use from
`requirements/NAME.txt`, and gets a simulator of its own: clients count nonces in different units, and a key
does not go back from nanoseconds to milliseconds. What a client needs of its simulator stands in
`scenarios/NAME.toml`, with the reason. With `--losses` python-kraken-sdk also meets the faults of `losses.toml`, and
what its callback did not get is counted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.support.timeouts import scaled

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ENVIRONMENTS = ROOT / ".interop"
CLIENTS = ("python-kraken-sdk", "ccxt", "kraky", "krakenex")
SEED, RATE = 7, 20.0  # twenty events a second: every channel has its updates within seconds
READY_S = scaled(20.0)  # a simulator that is not ready by then never will be
CLIENT_S = scaled(120.0)  # above every deadline inside the clients
STOP_S = scaled(10.0)
LOSSES_RATE = 10.0  # a snapshot repeats the last fifty fills: at this rate, those of some eight seconds


def pinned(name: str) -> str:
    """The version of the client itself: the first line of its requirements."""
    first = (HERE / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()[0]
    return first.partition("==")[2]


def environment(name: str) -> Path:
    """The interpreter of the client's own environment, made or renewed if its requirements changed."""
    requirements = HERE / "requirements" / f"{name}.txt"
    home = ENVIRONMENTS / name
    python = home / "bin" / "python"
    stamp = home / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="ascii") == wanted):
        venv.create(home, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
            check=True,
        )
        stamp.write_text(wanted, encoding="ascii")
    return python


@contextmanager
def simulator(
    scenario: Path | None = None, *, seed: int = SEED, rate: float = RATE, ledger: Path | None = None
) -> Iterator[str]:
    """A simulator on a free port of loopback, and the line it printed when it was ready."""
    command = [sys.executable, "-m", "kraken_feed.simulator"]
    command += ["--seed", str(seed), "--rate", str(rate), "--port", "0"]
    command += [] if scenario is None else ["--scenario", str(scenario)]
    command += [] if ledger is None else ["--ledger", str(ledger)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if selector.select(READY_S) else ""
            if not line.startswith("{"):
                raise RuntimeError(f"the simulator did not get ready: {line!r}")
            yield line.strip()
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def run(name: str, python: Path) -> dict[str, Any]:
    """One client's report. `ok` says whether it was content."""
    module = "tests.command.interop.clients." + name.replace("-", "_")
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    report: dict[str, Any] = {"client": name, "ok": False, "errors": []}
    try:
        scenario = HERE / "scenarios" / f"{name}.toml"
        with simulator(scenario if scenario.exists() else None) as ready:
            done = subprocess.run(
                [python, "-m", module, ready],
                cwd=ROOT,
                env=environ,
                capture_output=True,
                text=True,
                timeout=CLIENT_S,
                check=False,
            )
        report |= json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        report["errors"] = [f"no result within {CLIENT_S:.0f} s"]
    except RuntimeError as error:
        report["errors"] = [str(error)]
    except (IndexError, ValueError):
        report["errors"] = ["no report", *done.stderr.splitlines()[-5:]]
    else:
        report["ok"] = done.returncode == 0
    return report


def losses(python: Path) -> str:
    """What of the ledger's fills and ends of orders never reached python-kraken-sdk's callback, as one line."""
    with tempfile.TemporaryDirectory() as home:
        ledger = Path(home) / "ledger.jsonl"
        with simulator(HERE / "losses.toml", rate=LOSSES_RATE, ledger=ledger) as ready:
            done = subprocess.run(
                [python, "-m", "tests.command.interop.losses", ready],
                cwd=ROOT,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                text=True,
                timeout=CLIENT_S,
                check=True,
            )
        got = json.loads(done.stdout.splitlines()[-1])
        happened = [
            record for record in map(json.loads, ledger.read_text().splitlines()) if record["record"] == "change"
        ]
    due = [record for record in happened if got["since"] < float(record["at"]) <= got["until"]]
    fills = {record["trade"]["id"] for record in due if record["trade"] is not None}
    ends = {record["order_id"] for record in due if record["status"] in ("closed", "canceled", "expired")}
    parts = [_share("fills", fills, set(got["fills"])), _share("order ends", ends, set(got["ends"]))]
    today = datetime.now(UTC).date().isoformat()
    return f"{'python-kraken-sdk':<18} {got['version']:<10} under faults: {', '.join(parts)} ({today})"


def _share(name: str, due: set[str], got: set[str]) -> str:
    lost = len(due - got)
    return f"{name} lost {100 * lost / max(1, len(due)):.0f} % ({lost} of {len(due)})"


def table(reports: list[dict[str, Any]]) -> str:
    """The reports, a line a client, with its complaints below."""
    lines = []
    for report in reports:
        received = " ".join(f"{what}:{count}" for what, count in report.get("received", {}).items())
        verdict = "OK" if report["ok"] else "FAIL"
        lines.append(f"{report['client']:<18} {report.get('version', '?'):<10} {verdict:<5} {received}")
        lines += [f"{'':<18} {complaint}" for complaint in report.get("errors", [])]
    return "\n".join(lines)


def main() -> int:
    """0 if every client was content, else 1."""
    parser = argparse.ArgumentParser(description="Run clients that others wrote against our simulator.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(CLIENTS)}; all if none is named")
    parser.add_argument("--losses", action="store_true", help="count what python-kraken-sdk loses under faults")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or list(CLIENTS)
    if unknown := set(names).difference(CLIENTS):
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    reports = [run(name, environment(name)) for name in names]
    print(table(reports))
    if arguments.losses:
        print(losses(environment("python-kraken-sdk")))
    return 0 if all(report["ok"] for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
