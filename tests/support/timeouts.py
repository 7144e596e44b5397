"""How long tests wait before something counts as hung: one factor for all of it, from the environment.

A wait here ends by an event. How long it may take decides nothing on a machine that works, so the factor changes no
verdict: it is for machines that are far slower than usual. Deadlines in virtual time, and those that are what a test is
about, have none.
"""

from __future__ import annotations

import os

VARIABLE = "TEST_TIMEOUT_FACTOR"
FACTOR = float(os.environ.get(VARIABLE, "1"))


def scaled(seconds: float) -> float:
    """Return how long to wait on this machine for what takes at most ``seconds`` on a busy one."""
    return seconds * FACTOR


TIMEOUT_S = scaled(60.0)  # for what takes milliseconds: a hung process fails the test instead of the suite
