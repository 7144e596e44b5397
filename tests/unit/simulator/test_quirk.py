"""Quirks as values: names, numbers, what is said about mistakes. What each one does is tested where it happens."""

import pytest

from kraken_feed.simulator.faults.scenario import Scenario, ScenarioError
from kraken_feed.simulator.faults.scenario import parse as scenario
from kraken_feed.simulator.main import main
from kraken_feed.simulator.quirks.quirk import QUIRKS, Quirks, catalogue, draw, parse, share

from ...support.cases import each


def test_every_quirk_has_a_line_in_the_catalogue() -> None:
    assert tuple(QUIRKS) == Quirks.__struct_fields__
    assert [line.split("=")[0].split()[0] for line in catalogue().splitlines()] == list(QUIRKS)


@each("name", QUIRKS)
def test_a_name_alone_differs_from_the_usual_behaviour(name: str) -> None:
    assert parse(name) == (name, QUIRKS[name].alone)
    assert QUIRKS[name].alone != getattr(Quirks(), name)


@each(
    ("text", "value"),
    [("history_cost=2", 2.0), ("short_pages=false", False), ("count=always", "always"), ("clock_offset=-30", -30.0)],
)
def test_a_value_follows_the_equals_sign(text: str, value: object) -> None:
    assert parse(text) == (text.partition("=")[0], value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sort_pages", 'unknown quirk "sort_pages", did you mean "short_pages"?'),
        ("odd_states=2", "odd_states: 2 is not from 0 to 1"),
        ("trades_lag=-1", "trades_lag: -1 is not 0 or more"),
        ("history_cost=x", "history_cost: Expected `float`, got `str`"),
        ("count=nul", 'count: "nul" is not one of asked, always, null'),
    ],
)
def test_mistakes_are_named(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=text.partition("=")[0]) as error:
        parse(text)
    assert str(error.value) == message
    with pytest.raises(SystemExit):
        main(["--quirk", text])
    assert f"argument --quirk: {message}" in capsys.readouterr().err


def test_a_scenario_file_may_have_quirks() -> None:
    assert scenario({"quirks": {"short_pages": True, "history_cost": 2}}) == Scenario(
        quirks=Quirks(short_pages=True, history_cost=2.0)
    )
    with pytest.raises(ScenarioError, match='quirks: unknown quirk "sort_pages"'):
        scenario({"quirks": {"sort_pages": True}})
    with pytest.raises(ScenarioError, match="quirks: odd_states: 2 is not from 0 to 1"):
        scenario({"quirks": {"odd_states": 2.0}})


@pytest.mark.parametrize("word", ["list", "help"])
def test_the_command_lists_the_quirks(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quirk", word]) == 0
    assert capsys.readouterr().out == catalogue()


def test_a_share_hits_about_as_many_as_it_says_and_always_the_same() -> None:
    hit = [ident for ident in map(str, range(2000)) if share(0.3, "odd", ident)]
    assert 500 < len(hit) < 700
    assert hit == [ident for ident in map(str, range(2000)) if draw("odd", ident) < 0.3]
    assert not share(0.0, "odd", hit[0])
