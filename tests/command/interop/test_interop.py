"""Two clients that others wrote, whose requirements agree with ours, are content with our simulator.

The other two need older libraries, or weigh far more than we do: `make interop` runs all four, each in an
environment of its own.
"""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

from kraken_feed.simulator.faults import scenario
from tests.command.interop import run

from ...support.cases import each

BESIDE_US = ("krakenex", "python-kraken-sdk")


@each("name", BESIDE_US)
def test_client_is_content_with_the_simulator(name: str) -> None:
    """A client that knows nothing of us connects, signs, subscribes and receives."""
    report = run.run(name, Path(sys.executable))
    assert report["ok"], run.table([report])


@each("name", BESIDE_US)
def test_version_beside_us_is_the_one_in_the_environment_of_its_own(name: str) -> None:
    """The development extra and the pinned requirements name one version."""
    assert importlib.metadata.version(name) == run.pinned(name)


def test_every_client_has_a_program_and_requirements() -> None:
    """A name in the list is a client that can be run."""
    programs = {path.stem for path in (run.HERE / "clients").glob("*.py")} - {"__init__", "report"}
    assert programs == {name.replace("-", "_") for name in run.CLIENTS}
    assert {path.stem for path in (run.HERE / "requirements").glob("*.txt")} == set(run.CLIENTS)
    assert {path.stem for path in (run.HERE / "scenarios").glob("*.toml")} <= set(run.CLIENTS)


@each("path", sorted((run.HERE / "scenarios").glob("*.toml")))
def test_every_scenario_is_one_that_the_simulator_takes(path: Path) -> None:
    """A mistake in it would else come to light only where all clients are run."""
    assert scenario.load(path) != scenario.Scenario()
