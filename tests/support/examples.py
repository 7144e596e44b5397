"""How many examples a property test draws: its own number, fewer in an ordinary run, many more in a thorough one."""

from __future__ import annotations

import os

VARIABLE = "TEST_PROFILE"
DEFAULT, FULL, THOROUGH = "default", "full", "thorough"
PROFILE = os.environ.get(VARIABLE, DEFAULT)
SHARE = {DEFAULT: 0.2, FULL: 1.0, THOROUGH: 20.0}  # thorough takes a night: rare branches are then met many times
LEAST = 3


def examples(count: int) -> int:
    """Return how many examples to draw where ``count`` is what `make stress` can afford."""
    return max(LEAST, round(count * SHARE.get(PROFILE, 1.0)))
