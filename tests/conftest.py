"""One profile for all property tests: the same code gets the same verdict on every machine and in every run."""

import pytest
from hypothesis import HealthCheck, settings

PROFILE = "kraken-feed"


def pytest_configure(config: pytest.Config) -> None:
    """Load the profile, before any test module is imported.

    What depends on how fast the machine is right now decides nothing: no deadline, and no ``too_slow``. The other
    health checks judge the strategy, which is ours: ``data_too_large`` and ``filter_too_much`` stay on.

    Examples are derived from the test itself, so that a failure is about the change at hand and appears again in the
    next run. ``pytest --hypothesis-seed=random`` (or a number) searches with other examples.
    """
    settings.register_profile(
        PROFILE,
        deadline=None,
        derandomize=config.getoption("--hypothesis-seed", None) is None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(PROFILE)
