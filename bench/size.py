"""How much is measured."""

from __future__ import annotations

import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """How much is done for each figure."""

    rounds: int
    frames: int
    latency_s: float
    starts: int
    memory: tuple[int, ...] = (1_000, 10_000, 100_000)
    growth: tuple[int, int] = (100_000, 1_000_000)
    growth_rounds: int = 5
    snapshots: tuple[int, ...] = (10_000, 100_000)
    many: int = 100_000

    @staticmethod
    def say(text: str) -> None:
        """Tell the person who waits what is going on."""
        print(text, file=sys.stderr, flush=True)


FULL = Size(rounds=5, frames=200_000, latency_s=3.0, starts=15)
QUICK = Size(
    rounds=3, frames=25_000, latency_s=1.0, starts=5, memory=(1_000, 10_000), growth=(20_000, 100_000), growth_rounds=1,
    snapshots=(10_000,), many=20_000,
)  # fmt: skip
