"""How many examples a property test draws: its own number, or many more in a thorough run."""

from __future__ import annotations

import os

VARIABLE = "TEST_PROFILE"
DEFAULT, THOROUGH = "default", "thorough"
PROFILE = os.environ.get(VARIABLE, DEFAULT)
MORE = 20  # a night for all of them; the rare branches of the largest strategies are then met many times


def examples(count: int) -> int:
    """Return how many examples to draw where ``count`` is what an ordinary run can afford."""
    return count * MORE if PROFILE == THOROUGH else count
