"""The emulated power cut: what was forced to the disk stays, and half a line of what was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..support.installed import bare
from ..support.power_loss import Disk
from ..support.timeouts import TIMEOUT_S

WRITES = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for call in sys.argv[2:]:
    os.write(file, b"12345678\\n")
    getattr(os, call)(file) if call != "none" else None
"""


@pytest.mark.parametrize(
    ("calls", "forced"),
    [(["fsync"], 1), (["fdatasync", "none"], 1), (["fdatasync", "fsync", "none", "none"], 2), (["none"], 0)],
)
def test_a_power_cut_leaves_what_was_forced_to_the_disk_and_a_torn_line(
    tmp_path: Path, calls: list[str], forced: int
) -> None:
    disk, path = Disk(tmp_path), tmp_path / "file"
    command = [sys.executable, "-c", WRITES, str(path), *calls]
    subprocess.run(command, env=bare(tmp_path) | disk.environment, check=True, timeout=TIMEOUT_S)
    assert disk.forced(path) == 9 * forced
    disk.cut(path)
    assert path.read_bytes() == b"12345678\n" * forced + (b"1234" if forced < len(calls) else b"")


def test_a_file_that_is_there_again_under_its_name_is_another_file(tmp_path: Path) -> None:
    disk, path = Disk(tmp_path), tmp_path / "file"
    command = [sys.executable, "-c", WRITES, str(path), "fsync"]
    subprocess.run(command, env=bare(tmp_path) | disk.environment, check=True, timeout=TIMEOUT_S)
    path.rename(tmp_path / "kept")
    path.write_bytes(b"other\n")
    assert disk.forced(path) == 0
