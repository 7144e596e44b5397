"""The samples of contrib/ are well-formed and agree with each other, and docs/pipelines.md is true of them."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml

from kraken_feed.records.render import render, timestamp
from kraken_feed.records.schema import record_schema

from ..support import alloy_syntax, rsyslog
from ..support.cases import each
from ..support.repository import ROOT
from ..support.tools import tool

CONTRIB = ROOT / "contrib"
PAGE = (ROOT / "docs" / "pipelines.md").read_text()
SHIPPERS = {
    "vector": CONTRIB / "vector" / "kraken-feed.toml",
    "fluent-bit": CONTRIB / "fluent-bit" / "fluent-bit.yaml",
    "filebeat": CONTRIB / "filebeat" / "filebeat.yml",
    "alloy": CONTRIB / "alloy" / "kraken-feed.alloy",
    "rsyslog": rsyslog.SAMPLE,
}
JOURNALD = CONTRIB / "journald"
DIRECTORY = "/var/log/kraken-feed/"
LOW_CARDINALITY = {"account", "channel", "event_name", "type", "v"}


def keys_of_records() -> set[str]:
    """Every key that a record can have at its top."""
    schema: dict[str, Any] = record_schema()
    branches = [branch["then"].get("properties", {}) for branch in schema["allOf"]]
    return set(schema["properties"]).union(*branches)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading of the page, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def globs(name: str) -> list[str]:
    """The patterns of files that a sample reads."""
    lines = [line for line in SHIPPERS[name].read_text().splitlines() if line.lstrip()[:1] not in ("#", "/")]
    return re.findall(rf"{re.escape(DIRECTORY)}[^\s\"',\]]+", "\n".join(lines))


def vector() -> dict[str, Any]:
    return tomllib.loads(SHIPPERS["vector"].read_text())


def loaded(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(SHIPPERS[name].read_text())
    return content


def alloy() -> alloy_syntax.Block:
    return alloy_syntax.parse(SHIPPERS["alloy"].read_text())


def filebeat(processor: str) -> Iterator[dict[str, Any]]:
    return (step[processor] for step in loaded("filebeat")["processors"] if processor in step)


# --- what is read


@each("name", SHIPPERS)
def test_a_sample_reads_the_output_and_nothing_that_lies_beside_it(name: str) -> None:
    assert globs(name)

    def read(file: str) -> bool:
        return any(fnmatchcase(DIRECTORY + file, pattern) for pattern in globs(name))

    assert read("main.jsonl")
    assert not any(map(read, ("main.jsonl.torn", "main.jsonl.2", "main.jsonl.2.gz", "main.jsonl.1.gz")))
    # Only who knows a file by its content may find it again under its new name.
    assert read("main.jsonl.1") == (name in ("vector", "filebeat"))


def test_who_reads_renamed_files_knows_them_by_their_content() -> None:
    assert vector()["sources"]["kraken_feed"]["fingerprint"] == {"strategy": "checksum", "lines": 1}
    [source] = loaded("filebeat")["filebeat.inputs"]
    assert "file_identity.fingerprint" in source
    assert source["prospector.scanner.fingerprint"]["enabled"] is True


def test_every_sample_begins_at_the_beginning() -> None:
    assert vector()["sources"]["kraken_feed"]["read_from"] == "beginning"
    assert loaded("fluent-bit")["pipeline"]["inputs"][0]["read_from_head"] is True
    [reader] = alloy().all("loki.source.file")
    assert reader.attributes["tail_from_end"] is False
    assert 'freshStartTail="off"' in SHIPPERS["rsyslog"].read_text()


def test_a_file_with_one_record_is_long_enough_for_filebeats_fingerprint() -> None:
    [source] = loaded("filebeat")["filebeat.inputs"]
    length = source["prospector.scanner.fingerprint"]["length"]
    assert length >= 64  # what Filebeat takes at least
    common = {"ts": timestamp(0), "v": 1, "account": "a", "channel": "balances"}
    shortest = [
        {"id": "a:balances:1-1:0:0", "event_name": "unknown", **common, "data": b"1"},
        {"id": "a:balances:1-1:feed.status:0", "event_name": "feed.status", **common, "engine": "online"},
        {"id": "a:balances:1-1:feed.stopped", "event_name": "feed.stopped", **common, "connection": None, "reason": ""},
    ]
    assert min(len(render(record)) for record in shortest) >= length


# --- what is made of a line


def test_severity_is_told_apart_in_every_sample_by_the_same_markers() -> None:
    for name, sample in SHIPPERS.items():
        code = re.sub(r"\\+\.\(gap\|lost\)", ".gap feed.lost", sample.read_text())
        assert {"feed.gap", "feed.lost"} <= set(re.findall(r"feed\.\w+", code)), name


def test_the_line_itself_is_kept_in_every_sample() -> None:
    parse = loaded("fluent-bit")["pipeline"]["filters"][0]
    assert (parse["name"], parse["preserve_key"]) == ("parser", True)
    assert loaded("fluent-bit")["pipeline"]["outputs"][0]["logs_body_key"] == f"${parse['key_name']}"
    [decode] = filebeat("decode_json_fields")
    assert decode["fields"] == ["message"]
    assert decode["target"]  # beside the message, not in its place
    assert all("message" not in drop["fields"] for drop in filebeat("drop_fields"))
    assert not re.search(
        r"^\s*\.message\s*=|del\(\.message", vector()["transforms"]["kraken_feed_record"]["source"], re.M
    )
    [process] = alloy().all("loki.process")
    assert not process.all("stage.output")
    assert 'property(name="msg")' in SHIPPERS["rsyslog"].read_text()


def test_vector_leaves_data_as_text_and_drops_no_line() -> None:
    transform = vector()["transforms"]["kraken_feed_record"]
    assert "parse_json(.message, max_depth: 1)" in transform["source"]
    assert transform["drop_on_error"] is transform["drop_on_abort"] is False
    assert vector()["transforms"]["kraken_feed_once"]["fields"]["match"] == ["id"]


def test_the_steps_of_vector_and_alloy_follow_each_other() -> None:
    steps = vector()
    known = set(steps["sources"]) | set(steps["transforms"])
    for step in [*steps["transforms"].values(), *steps["sinks"].values()]:
        assert set(step["inputs"]) <= known
    components = {f"{block.name}.{block.label}" for block in alloy().blocks}
    for block in alloy().blocks:
        for key in ("targets", "forward_to"):
            value = block.attributes.get(key, [])
            for reference in value if isinstance(value, list) else [value]:
                assert isinstance(reference, alloy_syntax.Reference)
                assert reference.path.rpartition(".")[0] in components


def test_labels_in_loki_have_few_values() -> None:
    [process] = alloy().all("loki.process")
    [labels] = process.all("stage.labels")
    [beside] = process.all("stage.structured_metadata")
    chosen, kept = labels.attributes["values"], beside.attributes["values"]
    assert isinstance(chosen, dict)
    assert isinstance(kept, dict)
    assert set(chosen) <= LOW_CARDINALITY
    assert {"id", "order_id", "connection"} <= set(kept)
    assert not set(chosen) & set(kept)


def test_alloy_and_filebeat_lift_keys_that_records_have() -> None:
    [process] = alloy().all("loki.process")
    [parse] = process.all("stage.json")
    lifted = parse.attributes["expressions"]
    assert isinstance(lifted, dict)
    assert set(lifted) <= keys_of_records()
    for rename in filebeat("rename"):
        assert {field["from"].removeprefix("kraken.") for field in rename["fields"]} <= keys_of_records()


# --- journald


def complaints(directory: Path, drop_in: str) -> list[str]:
    """What systemd has to say of a service's drop-in."""
    unit = directory / "kraken-feed@.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    folder = directory / f"{unit.name}.d"
    folder.mkdir(exist_ok=True)
    (folder / "sample.conf").write_text(drop_in)
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", str(directory / "kraken-feed@main.service")],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if "sample.conf" in line]


@pytest.mark.parametrize("name", ["diagnostics.conf", "records.conf"])
def test_systemd_knows_every_setting_of_the_drop_ins(name: str, tmp_path: Path) -> None:
    text = (JOURNALD / name).read_text()
    assert complaints(tmp_path, text) == []
    assert len(complaints(tmp_path, f"{text}StandardLog=journal\n")) == 1


def test_the_journal_of_the_records_cuts_and_drops_nothing_by_its_settings() -> None:
    journal = configparser.ConfigParser()
    journal.read(JOURNALD / "journald@kraken-feed.conf")
    settings = journal["Journal"]
    assert settings["LineMax"] == "1M"
    assert settings["RateLimitIntervalSec"] == settings["RateLimitBurst"] == "0"
    service = configparser.ConfigParser()
    service.read(JOURNALD / "records.conf")
    assert service["Service"]["LogNamespace"] == "kraken-feed"  # as the file's name says


# --- the page


def test_the_page_maps_every_key_of_a_record_and_no_other() -> None:
    named = [cell.strip("`") for cell, *_ in table("Fields")]
    assert sorted(named) == sorted(keys_of_records())


def test_filebeat_renames_as_the_page_says() -> None:
    ecs = {row[0].strip("`"): row[2] for row in table("Fields")}
    [rename] = filebeat("rename")
    for field in rename["fields"]:
        assert f"`{field['to']}`" in ecs[field["from"].removeprefix("kraken.")]


def test_the_page_says_of_every_sample_how_it_is_checked() -> None:
    named = {match for row in table("Samples") for match in re.findall(r"\(\.\./(contrib/[^)]+)\)", row[0])}
    folders = {sample.parent for sample in SHIPPERS.values()} | {JOURNALD}
    assert named == {str(file.relative_to(ROOT)) for folder in folders for file in folder.iterdir()}


def test_every_link_of_the_page_into_the_repository_leads_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", PAGE) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_the_reader_of_alloys_syntax_refuses_what_is_not_balanced() -> None:
    text = SHIPPERS["alloy"].read_text()
    for broken in (text + "}", text.rstrip()[:-1], text.replace("{", "", 1), text.replace('"', "", 1)):
        with pytest.raises(ValueError):  # noqa: PT011  # each says what it met
            alloy_syntax.parse(broken)
