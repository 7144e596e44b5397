"""One profile for all property tests: the same code gets the same verdict on every machine and in every run."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from .support import first_run
from .support.examples import DEFAULT, FULL, PROFILE, THOROUGH, VARIABLE, examples

ONE_PROCESS = (  # runs all tests of each of these, of which most need the same long preparation
    "tests/command/test_secret_places.py",
    "tests/command/test_watch.py",
    "tests/stress/test_attacks.py",
    "tests/unit/test_layers.py",
    "tests/unit/test_text.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Spread the tests, but for ``ONE_PROCESS``."""
    if config.getoption("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]  # it has no types

    class Scheduling(LoadGroupScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return path if path in ONE_PROCESS else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Collect no garbage meanwhile: nearly everything stays until the end."""
    gc.disable()
    worker = getattr(session.config, "workerinput", None)  # one of several processes, of which all collect all tests
    if worker is not None:
        first_run.import_share(session.config.args, int(worker["workerid"][2:]), worker["workercount"])
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    """Load the profile, before any test module is imported.

    What depends on how fast the machine is right now decides nothing: no deadline, and no ``too_slow``. The other
    health checks judge the strategy, which is ours: ``data_too_large`` and ``filter_too_much`` stay on.

    Examples are derived from the test itself, so that a failure is about the change at hand and appears again in the
    next run. `make stress` draws five times as many (``TEST_PROFILE=full``). ``pytest --hypothesis-seed=random`` (or a
    number) searches with other examples, and ``TEST_PROFILE=thorough`` with others and many more; a failure then prints
    what repeats it.
    """
    seeded = config.getoption("--hypothesis-seed", None) is not None
    common = settings(
        deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow], database=None
    )
    config.addinivalue_line("markers", "seeds: tests that `make stress` runs with more seeds or values")
    settings.register_profile(DEFAULT, common, derandomize=not seeded)
    settings.register_profile(FULL, common, derandomize=not seeded)
    settings.register_profile(THOROUGH, common, print_blob=True)
    if PROFILE not in (DEFAULT, FULL, THOROUGH):
        raise pytest.UsageError(f"{VARIABLE} is {DEFAULT}, {FULL} or {THOROUGH}, not {PROFILE}")
    settings.load_profile(PROFILE)
    if config.getoption("numprocesses", None) and first_run.needed():
        config.add_cleanup(first_run.begin())
