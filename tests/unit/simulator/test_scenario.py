"""Scenario files: what is read, and how mistakes are named."""

import re
from pathlib import Path

import pytest

from kraken_feed.simulator.faults import scenario
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import LIKELY, RandomFaults, Scenario, ScenarioError, load

GOOD = """
rest_lag = 2
tier = "pro"
mixed_frames = false

[[fault]]
kind = "drop"
at = 6
code = 1001

[[fault]]
kind = "half_open"
on_connect = 2
after = 1.5
for = 20.0
dialect = "v1"

[random]
every = 3.0
kinds = { drop = 3, multi = 1 }
"""


def read(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return load(path)


def test_a_file_becomes_a_scenario(tmp_path: Path) -> None:
    good = read(tmp_path, GOOD)
    assert (good.rest_lag, good.tier, good.mixed_frames) == (2.0, "pro", False)
    assert good.faults == (
        Fault("drop", at=6.0, code=1001),
        Fault("half_open", on_connect=2, after=1.5, duration=20.0, dialect="v1"),
    )
    assert good.random == RandomFaults(every=3.0, kinds={"drop": 3, "multi": 1})


def test_the_scenario_in_the_docstring_can_be_used(tmp_path: Path) -> None:
    lines = (scenario.__doc__ or "").splitlines()
    example = [line.strip() for line in lines if re.match(r"\s*(\[|\w+ = )", line)]
    assert len(read(tmp_path, "\n".join(example)).faults) == 2


def test_random_mode_has_weights_of_its_own() -> None:
    assert RandomFaults(every=1.0).kinds == LIKELY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[[fault]]\nkind = "dorp"\nat = 1', 'fault 1: unknown kind "dorp", did you mean "drop"?'),
        (
            '[[fault]]\nkind = "drop"\nat = 1\ncod = 1001',
            'fault 1: unknown key "cod" for drop, did you mean "code"?',
        ),
        (
            '[[fault]]\nkind = "drop"\nat = 1\n[[fault]]\nkind = "multi"\nat = "soon"',
            "fault 2: Expected `float | null`, got `str` - at `$.at`",
        ),
        (
            '[[fault]]\nkind = "garbage_frame"\nat = 1\nvariant = "not_jason"',
            'fault 1: unknown variant "not_jason", did you mean "not_json"?',
        ),
        ('[[fault]]\nkind = "drop"', "fault 1: needs at, every, on_connect or on_token"),
        ('[[fault]]\nkind = "drop"\nat = 1\nevery = 2', "exclude each other"),
        ('[[fault]]\nkind = "drop"\nevery = 0', "every must be above 0"),
        ('[[fault]]\nkind = "http_502"\non_connect = 1', "on_connect does not fit http_502"),
        ('[[fault]]\nkind = "no_ack"\non_token = 1', "on_token does not fit no_ack"),
        ("[[fault]]\nat = 1", 'fault 1: needs a "kind"'),
        ("fault = 3", "fault: write [[fault]]"),
        ("rest_log = 1", 'unknown key "rest_log", did you mean "rest_lag"?'),
        ('rest_lag = "1"', "rest_lag: expected a number of seconds, got '1'"),
        ("mixed_frames = 0", "mixed_frames: expected true or false, got 0"),
        ('tier = "gold"', 'unknown tier "gold"'),
        ("[random]\nkinds = {}", "random: Object missing required field `every`"),
        ("[random]\nevery = 1\nkind = {}", 'random: unknown key "kind", did you mean "kinds"?'),
        ("[random]\nevery = 1\nkinds = { dorp = 1 }", 'unknown kind "dorp", did you mean "drop"?'),
        ("[random", "Expected ']'"),
    ],
)
def test_mistakes_name_their_place_and_the_nearest_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ScenarioError) as error:
        read(tmp_path, text)
    assert message in str(error.value)
    assert "scenario.toml" in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"nowhere\.toml: No such file"):
        load(tmp_path / "nowhere.toml")
