"""How long something took, counted in fixed buckets: cheap enough for every write."""

from __future__ import annotations

from bisect import bisect_left

BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)  # seconds: a cached write to a hung disk


class Latency:
    """A histogram: ``counts[i]`` took at most ``BOUNDS[i]`` seconds and longer than the bound before; the last count
    is what took longer than all of them."""

    __slots__ = ("counts", "last", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0  # seconds
        self.last = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.last = seconds
