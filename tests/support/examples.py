"""How many examples a property test draws: its own number, fewer in an ordinary run, many more in a thorough one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TypeVar

VARIABLE = "TEST_PROFILE"
DEFAULT, FULL, THOROUGH = "default", "full", "thorough"
PROFILE = os.environ.get(VARIABLE, DEFAULT)
SHARE = {DEFAULT: 0.2, FULL: 1.0, THOROUGH: 20.0}  # thorough takes a night: rare branches are then met many times
LEAST = 3

T = TypeVar("T")


def examples(count: int) -> int:
    """Return how many examples to draw where ``count`` is what `make stress` can afford."""
    return max(LEAST, round(count * SHARE.get(PROFILE, 1.0)))


def some(values: Iterable[T], first: int = 1) -> list[T]:
    """Return the ``first`` values for a test that takes long, and all of them in `make stress`: mark it ``seeds``."""
    values = list(values)
    return values[:first] if PROFILE == DEFAULT else values
