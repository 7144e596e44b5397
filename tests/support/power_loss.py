"""What a power cut leaves of a file that a process appends to."""

from __future__ import annotations

import struct
from pathlib import Path

from .preload import compiled

SOURCE = Path(__file__).with_name("forced_sizes.c")
NOTE = struct.Struct("=2Q")


class Disk:
    """Notes what is forced to the disk by a process that was started with ``environment``, and by its children."""

    def __init__(self, directory: Path) -> None:
        self._notes = directory / "forced_sizes"
        self.environment = {"LD_PRELOAD": str(compiled(SOURCE, directory)), "FORCED_SIZES": str(self._notes)}

    def forced(self, path: Path) -> int:
        """Return the size of the file that was forced to the disk last; 0 if none was."""
        notes = self._notes.read_bytes() if self._notes.exists() else b""
        inode = path.stat().st_ino
        return next((size for file, size in reversed(list(NOTE.iter_unpack(notes))) if file == inode), 0)

    def cut(self, path: Path) -> None:
        """Take from the file what was not forced to the disk, but for a part of a line that had got there."""
        content, forced = path.read_bytes(), self.forced(path)
        torn = content[forced:].partition(b"\n")[0]
        path.write_bytes(content[:forced] + torn[: len(torn) // 2])
