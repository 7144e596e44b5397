"""What Prometheus scrapes: the figures that were given, by name and label, in either format; nothing that grows."""

from __future__ import annotations

import gzip
import itertools
import math
from collections.abc import Iterable

import msgspec
from hypothesis import given
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from kraken_feed.service.metrics import FAMILIES, TOKEN, render
from kraken_feed.telemetry.stats import CAUSES, RESULTS, Program

from ...support.cases import each
from ...support.figures import MAIN, PROGRAMS, WELL

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _text(program: Program) -> str:
    _, body = render(program, "", "")
    return body.decode()


def _samples(families: Iterable[Metric]) -> Samples:
    """Every sample of ours by its name and labels; one that comes twice fails."""
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            if sample.name.startswith("kraken_feed_"):
                key = sample.name.removeprefix("kraken_feed_"), frozenset(sample.labels.items())
                assert key not in found
                found[key] = sample.value
    return found


def _labels(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _of_account(program: Program) -> Samples:
    """What an account's figures have to look like, spelled out once more."""
    found: Samples = {}
    for figures in program.accounts:
        one = {"account": figures.account}
        simple = {
            "last_record_timestamp_seconds": figures.last_record_ns / 10**9,
            "checkpoint_timestamp_seconds": figures.checkpoint_ns / 10**9,
            "resumed_total": figures.reconnects,
            "sequence_gaps_total": figures.losses.get("sequence", 0),
            "outages_opened_total": figures.outages.opened,
            "outages_closed_total": figures.outages.closed,
            "gaps_total": figures.outages.gaps,
            "outages_open": figures.outages.open,
        }
        found |= {(name, _labels(**one)): value for name, value in simple.items()}
        for endpoint in figures.endpoints:
            its = _labels(**one, endpoint=endpoint.dialect)
            found["connect_attempts", its] = endpoint.attempts
            found["retry_wait_seconds", its] = endpoint.retry_s or 0
            for channel in endpoint.channels:
                found["live", _labels(**one, channel=channel)] = endpoint.live
                found["last_frame_timestamp_seconds", _labels(**one, channel=channel)] = endpoint.last_frame_ns / 10**9
        for channel, count in figures.open_orders.items():
            found["open_orders", _labels(**one, channel=channel)] = count
        for (channel, event_name), count in figures.records.items():
            found["records_total", _labels(**one, channel=channel, event_name=event_name)] = count
        for cause, count in figures.losses.items():
            found["reconnects_total", _labels(**one, cause=cause)] = count
        for (method, result), count in figures.calls.items():
            found["rest_calls_total", _labels(**one, method=method, result=result)] = count
            if method == TOKEN:
                found["token_fetches_total", _labels(**one, result=result)] = count
    return found


def _of_output(program: Program) -> Samples:
    output = program.output
    simple = {
        "start_time_seconds": program.started_ns / 10**9,
        "output_lines_total": output.lines,
        "output_writes_total": output.writes,
        "output_written_bytes_total": output.bytes_written,
        "output_pending_bytes": output.pending_bytes,
        "output_full": output.full,
        "output_blocked": output.blocked_s is not None,
        "output_blocked_seconds_total": output.blocked_total_s,
        "output_torn_lines_total": output.torn,
        "output_syncs_total": output.syncs,
        "output_write_seconds_count": sum(output.write_s.counts),
        "output_write_seconds_sum": output.write_s.sum_s,
    }
    return {(name, _labels()): value for name, value in simple.items()}


@given(PROGRAMS)
def test_what_is_rendered_is_what_was_given_and_all_else_is_zero(program: Program) -> None:
    found = _samples(parse_text(_text(program)))
    expected = _of_account(program) | _of_output(program)
    assert {key: found.get(key) for key in expected} == expected
    further = {key: value for key, value in found.items() if key not in expected}
    named = {name for name, _ in further if further}
    assert named <= {
        "build_info", "records_total", "reconnects_total", "rest_calls_total", "token_fetches_total",
        "output_write_seconds_bucket",
    }  # fmt: skip
    assert not any(value for (name, _), value in further.items() if name.endswith("_total"))


@given(PROGRAMS)
def test_openmetrics_says_the_same(program: Program) -> None:
    headers, body = render(program, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "")
    assert dict(headers)["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]  # the library has not typed it
    assert _samples(families) == _samples(parse_text(_text(program)))


@given(PROGRAMS)
def test_buckets_add_up_to_the_bound(program: Program) -> None:
    histogram = program.output.write_s
    found = {
        float(dict(labels)["le"]): value
        for (name, labels), value in _samples(parse_text(_text(program))).items()
        if name == "output_write_seconds_bucket"
    }
    bounds = (*histogram.bounds, math.inf)
    assert found == dict(zip(bounds, itertools.accumulate(histogram.counts), strict=True))


@each(
    "accept",
    [
        "",
        "*/*",
        "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "text/plain;version=1.x",
        "application/openmetrics-text",
        "application/openmetrics-text;version=1.0.x",
        "application/openmetrics-text;version=;escaping=\u00ff",
    ],
)
def test_whatever_is_accepted_there_is_an_answer(accept: str) -> None:
    headers, body = render(WELL, accept, "")
    assert b"kraken_feed_build_info" in body
    assert len([value for name, value in headers if name == "Content-Type"]) == 1


def test_an_answer_is_packed_for_who_can_unpack_it() -> None:
    headers, body = render(WELL, "", "deflate, gzip;q=0.8")
    assert ("Content-Encoding", "gzip") in headers
    assert b"kraken_feed_build_info" in gzip.decompress(body)


def test_counters_that_can_be_named_start_at_zero() -> None:
    """Else their first step from nothing to one would not be an increase."""
    figures = msgspec.structs.replace(MAIN, records={}, losses={}, calls={("ClosedOrders", "ok"): 1})
    found = _samples(parse_text(_text(msgspec.structs.replace(WELL, accounts=(figures,)))))
    for cause in CAUSES:
        assert found["reconnects_total", _labels(account="main", cause=cause)] == 0
    for result in RESULTS:
        assert found["token_fetches_total", _labels(account="main", result=result)] == 0
    assert found["rest_calls_total", _labels(account="main", method="ClosedOrders", result="failed")] == 0
    assert found["records_total", _labels(account="main", channel="balances", event_name="balance")] == 0


def test_labels_are_those_that_the_table_names() -> None:
    labels = {f"kraken_feed_{family.name}": set(family.labels) for family in FAMILIES}
    for family in parse_text(_text(WELL)):
        for sample in family.samples:
            if sample.name.startswith("kraken_feed_") and not sample.name.startswith(
                "kraken_feed_output_write_seconds"
            ):
                assert set(sample.labels) == labels[sample.name]


def test_the_process_itself_is_told_of() -> None:
    names = {family.name for family in parse_text(_text(WELL))}
    assert {"process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds"} <= names
