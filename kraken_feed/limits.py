"""When to stop without being asked."""

from __future__ import annotations

from collections.abc import Callable

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """When to stop by ourselves: at the first snapshot, after so many items (markers do not count), after seconds."""

    once: bool = False
    count: int | None = None
    duration: float | None = None


UNLIMITED = Limits()


class Quota:
    """How many items may still be written, by all feeds that share it; None: any number."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left
        self.met: list[Callable[[str], None]] = []  # called with the reason when none is left

    def take(self) -> bool:
        """Count an item; False if it was the last."""
        if self.left is None:
            return True
        self.left -= 1
        if self.left == 0:
            for stop in self.met:
                stop("count")
        return self.left > 0
