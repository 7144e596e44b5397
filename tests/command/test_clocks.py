"""The emulated clocks: each moves by itself, while the process runs, in its children and in its sleeps."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.clocks import Clocks
from ..support.installed import bare

ASKED = """
import subprocess, sys, threading, time
READ = "import time; print(time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)"
for line in sys.stdin:
    if line == "child\\n":
        subprocess.run([sys.executable, "-c", READ], check=True)
    else:
        time.sleep(1e-9)  # the claim is about sleeps: this one and the wait below end although the clocks are shifted
        threading.Event().wait(1e-9)
        exec(READ)
"""


@pytest.fixture
def clocks(tmp_path: Path) -> Iterator[Clocks]:
    made = Clocks(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("who", ["self", "child"])
def test_each_clock_of_a_running_process_moves_by_itself(clocks: Clocks, tmp_path: Path, who: str) -> None:
    environment = bare(tmp_path) | clocks.environment
    command = [sys.executable, "-c", ASKED]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def offsets() -> list[int]:
            assert process.stdin is not None
            assert process.stdout is not None
            before = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME)
            process.stdin.write(f"{who}\n")
            process.stdin.flush()
            after = map(float, process.stdout.readline().split())
            return [round((shown - real) / 100) for real, shown in zip(before, after, strict=True)]  # a slow machine

        assert offsets() == [0, 0, 0]
        clocks.step(-3600)
        assert offsets() == [-36, 0, 0]
        clocks.sleep(10_000)
        assert offsets() == [64, 0, 100]
        clocks.stand_still(500)
        assert offsets() == [64, -5, 100]
        process.stdin.close()
