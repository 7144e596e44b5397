"""What a process says on stderr while it runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import msgspec


class Diagnostics:
    """What the process says on stderr, read as far as it goes."""

    def __init__(self, path: Path) -> None:
        self.events: Counter[str] = Counter()
        self.wrong: list[str] = []  # what is no line of JSON, or an error; a gap is declared on the output, too
        self._path, self._offset = path, 0

    def count(self, event: str) -> int:
        """How often it has been said so far."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            try:
                entry = msgspec.json.decode(line)
            except msgspec.DecodeError:
                self.wrong.append(line.decode(errors="replace"))
                continue
            self.events[entry["event"]] += 1
            if entry.get("level") in ("error", "critical") and entry["event"] != "gap":
                self.wrong.append(line.decode())
        return self.events[event]
