"""The clocks of another process, as a test sets them: a wrong wall clock, a step, a suspend."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from .preload import compiled

NS = 1_000_000_000
SOURCE = Path(__file__).with_name("clock_shift.c")


class Clocks:
    """Offsets that a process started with ``environment``, and its children, add to the kernel's clocks.

    Seconds by which each is ahead. A change counts at once.
    """

    def __init__(self, directory: Path) -> None:
        library, offsets = compiled(SOURCE, directory), directory / "clock_shift"
        offsets.write_bytes(bytes(24))
        with offsets.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(offsets)}
        self.wall = self.monotonic = self.boot = 0.0

    def step(self, seconds: float) -> None:
        """Set the wall clock forward, or back."""
        self.wall += seconds
        self._write()

    def stand_still(self, seconds: float) -> None:
        """Emulate a suspend of a process that was stopped for so long: its monotonic clock has not gone on."""
        self.monotonic -= seconds
        self._write()

    def sleep(self, seconds: float) -> None:
        """Emulate a suspend at once: the wall clock and the boot clock jump."""
        self.wall += seconds
        self.boot += seconds
        self._write()

    def close(self) -> None:
        self._map.close()

    def _write(self) -> None:
        offsets = struct.pack("=3q", *(round(clock * NS) for clock in (self.wall, self.monotonic, self.boot)))
        self._map[:] = offsets
