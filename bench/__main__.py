"""`python -m bench [--quick] [--only ROW …]`: run, print the table, keep the figures in .bench/results.json."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import trustme

from bench.contender import PLACE, ROOT
from bench.result import Report, runs_table, table
from bench.rows import ROWS
from bench.size import FULL, QUICK

PACKAGES = ("kraken-feed", "websockets", "httpx", "structlog", "msgspec", "python-kraken-sdk")


def machine() -> dict[str, object]:
    """What the figures were taken on; they say little on another."""
    cpus = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in cpus if line.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {**found, "commit": git.stdout.strip() or "?"}


def certificate() -> None:
    """One for the server, made anew: signed by an authority that nobody keeps."""
    PLACE.mkdir(exist_ok=True)
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(PLACE / "authority.pem")
    leaf.private_key_and_cert_chain_pem.write_to_path(PLACE / "certificate.pem")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure kraken-feed against a floor and against others."
    )
    parser.add_argument("--quick", action="store_true", help="a minute or two: fewer frames, fewer rounds")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--json", metavar="PATH", default=str(PLACE / "results.json"), help="where the figures go")
    arguments = parser.parse_args()
    if not sys.platform.startswith("linux"):
        parser.error("CPU time and memory of other processes are read as Linux tells them")
    certificate()
    report, size = Report(), QUICK if arguments.quick else FULL
    where, begin = machine(), time.monotonic()
    try:
        for name in arguments.only:
            ROWS[name](size, report)
    finally:  # what was measured before something broke is worth keeping
        show(report, where)
        results = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "took_s": round(time.monotonic() - begin, 1),
            "quick": arguments.quick,
            "machine": where,
            "versions": versions(),
            **report.as_json(),
        }
        text = json.dumps(results, indent=1, ensure_ascii=False)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
        print(f"took {results['took_s']} s; every round is in {arguments.json}")
    return 0


def show(report: Report, where: dict[str, object]) -> None:
    """The tables, on stdout."""
    print(f"{where['cpu']}, {where['cores']} cores, {where['python']}. Only the ratios hold elsewhere.\n")
    print(table(report.rows))
    if report.runs:
        print(f"\nWhole processes, medians\n{runs_table(report.runs)}")
    for line in report.skipped:
        print(f"skipped: {line}")


if __name__ == "__main__":
    sys.exit(main())
