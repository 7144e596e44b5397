"""Each output has a checkpoint of its own, under a name that tells which output it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.state.place import Place, kind_of, names_in, output_name, place_for, program_place

PATHS = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=60).filter(
        lambda name: name not in (".", "..")
    ),
    min_size=1,
    max_size=6,
).map(lambda parts: "/nowhere/" + "/".join(parts))


@given(PATHS, PATHS)
def test_two_files_never_share_a_name_and_every_name_fits(one: str, other: str) -> None:
    first, second = output_name(one), output_name(other)
    assert (first == second) == (one == other)
    for name in (first, second):
        assert "/" not in name
        assert len(os.fsencode(Place("d", name).name("a" * 64) + ".sqlite3-journal")) <= 255


def test_a_person_sees_the_account_and_the_file(tmp_path: Path) -> None:
    directory = os.path.realpath(tmp_path).replace("/", "%")
    place = place_for(str(tmp_path / "fills.jsonl"), asked="state", configured="", environ={})
    assert place is not None
    assert place.name("main") == f"main@{directory}%fills.jsonl"


def test_a_link_keeps_its_own_name_since_a_rotation_can_turn_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "2026-11.jsonl")
    assert output_name(str(tmp_path / "link")).endswith("%link")
    (tmp_path / "real").mkdir()
    (tmp_path / "other").symlink_to(tmp_path / "real")
    assert output_name(str(tmp_path / "other" / "x")) == output_name(str(tmp_path / "real" / "x"))


def test_a_redirected_file_has_the_name_of_that_file_and_a_removed_one_none_of_its_path(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("w") as file:
        assert output_name("-", file.fileno()) == output_name(str(path))
        path.unlink()
        path.touch()
        assert output_name("-", file.fileno()).startswith("stdout-")


ENVIRON = {"HOME": "/home/somebody"}


@pytest.mark.parametrize("option", ["asked", "configured", "service"])
def test_a_pipe_has_a_checkpoint_only_if_a_directory_is_named(option: str) -> None:
    reader, writer = os.pipe()
    try:
        assert place_for("-", asked=None, configured="", environ=ENVIRON, fd=writer) is None
        environ = {**ENVIRON, **({"STATE_DIRECTORY": "/d"} if option == "service" else {})}
        found = place_for(
            "-", asked="/d" if option == "asked" else None, configured="/d" if option == "configured" else "",
            environ=environ, fd=writer,
        )  # fmt: skip
        assert found == Place("/d", "stdout", of_service=option == "service")
    finally:
        os.close(reader)
        os.close(writer)


def test_a_file_always_has_a_checkpoint_and_a_terminal_never(tmp_path: Path) -> None:
    place = place_for(str(tmp_path / "x"), asked=None, configured="", environ=ENVIRON)
    assert place is not None
    assert place.directory == "/home/somebody/.local/state/kraken-feed"
    master, slave = os.openpty()
    try:
        assert kind_of("-", slave) == kind_of(os.ttyname(slave)) == "terminal"
        assert place_for("-", asked="/d", configured="/d", environ={"STATE_DIRECTORY": "/d"}, fd=slave) is None
    finally:
        os.close(master)
        os.close(slave)


def test_a_program_names_its_output_and_has_a_checkpoint_only_if_a_directory_is_named() -> None:
    assert program_place(None, "program", configured="", environ=ENVIRON) is None
    assert program_place("/d", "ledger", configured="", environ=ENVIRON) == Place("/d", "ledger")


def test_the_states_of_one_account_are_not_those_of_another_with_a_longer_name(tmp_path: Path) -> None:
    for name in ("a@stdout.sqlite3", "a@%x.sqlite3", "a@%x.lock", "ab@stdout.sqlite3", "a.sqlite3"):
        (tmp_path / name).touch()
    assert names_in(str(tmp_path), "a") == ["a@%x", "a@stdout"]
    assert names_in(str(tmp_path / "missing"), "a") == []
