"""What a client saw, judged from the client's own side, printed as one JSON line."""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Ready:
    """The line with which the simulator says where it is."""

    rest: str
    ws_v1: str
    ws_v2: str
    key: str
    secret: str

    @classmethod
    def from_argv(cls) -> Ready:
        """The line is the only argument."""
        line = json.loads(sys.argv[1])
        return cls(**{name: line[name] for name in cls.__slots__})


class Report:
    """Counts what a client handed over and what it found wrong; `finish` prints that."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.version = importlib.metadata.version(client)
        self.received: Counter[str] = Counter()
        self.errors: list[str] = []
        self.seen: dict[str, Any] = {}

    def expect(self, condition: object, complaint: str) -> None:
        """Note the complaint unless the condition holds."""
        if not condition:
            self.errors.append(complaint)

    def finish(self) -> int:
        """Print the line. 0 if the client has nothing to complain about, else 1."""
        line = {
            "client": self.client,
            "version": self.version,
            "received": dict(sorted(self.received.items())),
            "errors": self.errors,
            **self.seen,
        }
        print(json.dumps(line, default=str), flush=True)
        return 1 if self.errors else 0
