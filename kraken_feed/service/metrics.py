"""Render the metrics for Prometheus, in its text format or as OpenMetrics, with prometheus_client."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ..config.schema import DIALECTS
from ..telemetry.stats import CAUSES, RESULTS, EndpointFigures, Figures, Histogram, Output, Program

# -------- The metrics: what each is called, what it says, and where it is in the figures.
#
# The table in docs/metrics.md is generated from these.
#
# Labels have values of closed or configured sets only, and nothing here is secret. Counters that can be named before
# they count start at 0, so that ``increase()`` sees their first step.

NS = 1_000_000_000
TOKEN = "GetWebSocketsToken"  # noqa: S105  # the method's name

T = TypeVar("T")

Sample = tuple[tuple[str, ...], float]  # the labels' values, and the value
Samples = Callable[[Program], Iterable[Sample]]


class Family(NamedTuple):
    """One metric: its name without the prefix, its labels, its help text, and the function that reads its samples."""

    kind: Literal["gauge", "counter"]
    name: str
    labels: tuple[str, ...]
    says: str
    samples: Samples


class Scope(NamedTuple, Generic[T]):
    """What a metric has one sample each of: the labels, and the items with the labels' values."""

    labels: tuple[str, ...]
    items: Callable[[Program], list[tuple[tuple[str, ...], T]]]


PROGRAM = Scope[Program]((), lambda program: [((), program)])
OUTPUT = Scope[Output]((), lambda program: [((), program.output)])
ACCOUNT = Scope[Figures](("account",), lambda program: [((figures.account,), figures) for figures in program.accounts])
ENDPOINT = Scope[EndpointFigures](
    ("account", "endpoint"),
    lambda program: [((f.account, endpoint.dialect), endpoint) for f in program.accounts for endpoint in f.endpoints],
)
CHANNEL = Scope[EndpointFigures](  # each channel has the value of its endpoint
    ("account", "channel"),
    lambda program: [
        ((f.account, channel), endpoint)
        for f in program.accounts
        for endpoint in f.endpoints
        for channel in endpoint.channels
    ],
)


def _gauge(name: str, scope: Scope[T], value: Callable[[T], float], says: str) -> Family:
    return Family("gauge", name, scope.labels, says, _samples(scope, value))


def _counter(name: str, scope: Scope[T], value: Callable[[T], float], says: str) -> Family:
    return Family("counter", name, scope.labels, says, _samples(scope, value))


def _samples(scope: Scope[T], value: Callable[[T], float]) -> Samples:
    return lambda program: [(labels, value(item)) for labels, item in scope.items(program)]


def _counts(counts: Callable[[Figures], Mapping[str, int] | Mapping[tuple[str, str], int]]) -> Samples:
    """Return a reader with one sample per count of an account; the counts' keys are the labels."""
    return lambda program: [
        ((figures.account, *((key,) if isinstance(key, str) else key)), count)
        for figures in program.accounts
        for key, count in counts(figures).items()
    ]


def _records(figures: Figures) -> Mapping[tuple[str, str], int]:
    names = {
        (channel, DIALECTS[endpoint.dialect].EVENT_NAMES[channel]): 0
        for endpoint in figures.endpoints
        for channel in endpoint.channels
    }
    return {**names, **figures.records}


def _losses(figures: Figures) -> Mapping[str, int]:
    return {**dict.fromkeys(CAUSES, 0), **figures.losses}


def _calls(figures: Figures) -> Mapping[tuple[str, str], int]:
    methods = {method for method, _ in figures.calls}
    return {**dict.fromkeys(itertools.product(sorted(methods), RESULTS), 0), **figures.calls}


def _tokens(figures: Figures) -> Mapping[str, int]:
    return {result: figures.calls.get((TOKEN, result), 0) for result in RESULTS}


def _build(program: Program) -> list[Sample]:
    return [((program.version, platform.python_version()), 1.0)]


FAMILIES = (
    Family("gauge", "build_info", ("version", "python"), "Always 1; the labels say what runs.", _build),
    _gauge("start_time_seconds", PROGRAM, lambda program: program.started_ns / NS,
           "When the program began, in unix time."),
    # -- the feed
    _gauge("live", CHANNEL, lambda endpoint: endpoint.live,
           "1 if the channel is acknowledged, its snapshot received and its connection up."),
    _gauge("last_frame_timestamp_seconds", CHANNEL, lambda endpoint: endpoint.last_frame_ns / NS,
           "When the last frame came on the channel's connection, heartbeats included, in unix time; 0 for never."),
    _gauge("last_record_timestamp_seconds", ACCOUNT, lambda figures: figures.last_record_ns / NS,
           "When the last record of the account was written, in unix time; 0 for never."),
    Family("gauge", "open_orders", CHANNEL.labels, "Orders that are open as far as the output knows.",
           _counts(lambda figures: figures.open_orders)),
    Family("counter", "records_total", (*CHANNEL.labels, "event_name"),
           "Records handed to the output, markers included.", _counts(_records)),
    # -- connections
    Family("counter", "reconnects_total", (*ACCOUNT.labels, "cause"),
           "Lost connections and failed attempts to connect, by cause. `watch` shows resumed_total instead.",
           _counts(_losses)),
    _counter("resumed_total", ACCOUNT, lambda figures: figures.reconnects,
             "Reconnects, as in `watch` and in the status line: all channels of a connection were live again."),
    _counter("sequence_gaps_total", ACCOUNT, lambda figures: figures.losses.get("sequence", 0),
             "Jumps in a channel's sequence numbers; each ends its connection."),
    _gauge("connect_attempts", ENDPOINT, lambda endpoint: endpoint.attempts,
           "Connects since the endpoint's channels were last live."),
    _gauge("retry_wait_seconds", ENDPOINT, lambda endpoint: endpoint.retry_s or 0.0,
           "Seconds until the next connection attempt; 0 if the program is not waiting for one."),
    # -- outages
    _counter("outages_opened_total", ACCOUNT, lambda figures: figures.outages.opened,
             "Outages: intervals in which records of a channel may have been missed."),
    _counter("outages_closed_total", ACCOUNT, lambda figures: figures.outages.closed,
             "Outages that were recovered from REST (feed.backfilled)."),
    _counter("gaps_total", ACCOUNT, lambda figures: figures.outages.gaps,
             "Outages, or parts of one, that were declared as gaps (feed.gap)."),
    _gauge("outages_open", ACCOUNT, lambda figures: figures.outages.open,
           "Outages that are neither recovered nor declared yet."),
    # -- REST
    Family("counter", "rest_calls_total", (*ACCOUNT.labels, "method", "result"), "Calls of Kraken's REST API.",
           _counts(_calls)),
    Family("counter", "token_fetches_total", (*ACCOUNT.labels, "result"),
           "Calls of Kraken's REST API for a WebSocket token.", _counts(_tokens)),
    # -- output and state
    _counter("output_lines_total", OUTPUT, lambda output: output.lines, "Lines handed to the output."),
    _counter("output_writes_total", OUTPUT, lambda output: output.writes, "System calls that wrote something."),
    _counter("output_written_bytes_total", OUTPUT, lambda output: output.bytes_written,
             "Bytes that the output has accepted."),
    _gauge("output_pending_bytes", OUTPUT, lambda output: output.pending_bytes,
           "Bytes that the output has not accepted yet."),
    _gauge("output_full", OUTPUT, lambda output: output.full,
           "1 while the backlog is so large that the program does not read from Kraken."),
    _gauge("output_blocked", OUTPUT, lambda output: output.blocked_s is not None,
           "1 while lines wait because the output does not accept them."),
    _counter("output_blocked_seconds_total", OUTPUT, lambda output: output.blocked_total_s,
             "Seconds in which lines waited because the output did not accept them."),
    _counter("output_torn_lines_total", OUTPUT, lambda output: output.torn,
             "Torn last lines (left by a crash) that were moved to PATH.torn."),
    _counter("output_syncs_total", OUTPUT, lambda output: output.syncs, "Times the output was synced."),
    _gauge("checkpoint_timestamp_seconds", ACCOUNT, lambda figures: figures.checkpoint_ns / NS,
           "When the state was last saved, in unix time; 0 for never."),
)  # fmt: skip

WRITE = "output_write_seconds"
WRITE_SAYS = "How long a write to the output took."

_process = ProcessCollector(registry=None)


def render(program: Program, accept: str, accept_encoding: str) -> tuple[list[tuple[str, str]], bytes]:
    """Return headers and body for a scrape that accepts these types and encodings: the program's own metrics, and the
    operating system's figures of the process."""
    registry = CollectorRegistry()
    registry.register(_Families(program))
    registry.register(_process)
    headers: list[tuple[str, str]] = []
    # Only one word of Accept is passed on: prometheus_client would copy a version from it, and fails on some.
    openmetrics = "application/openmetrics-text" in accept
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/metrics",
        "HTTP_ACCEPT": "application/openmetrics-text; version=1.0.0" if openmetrics else "",
        "HTTP_ACCEPT_ENCODING": accept_encoding,
    }
    body = b"".join(make_wsgi_app(registry)(environ, lambda status, fields: headers.extend(fields)))
    return headers, body


class _Families:
    """The collector that prometheus_client calls for one scrape."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            yield _metric(family, self._program)
        histogram = self._program.output.write_s
        yield HistogramMetricFamily(f"kraken_feed_{WRITE}", WRITE_SAYS, _buckets(histogram), histogram.sum_s)


def _metric(family: Family, program: Program) -> Metric:
    kind = GaugeMetricFamily if family.kind == "gauge" else CounterMetricFamily
    metric = kind(f"kraken_feed_{family.name}", family.says, labels=family.labels)
    for labels, value in family.samples(program):
        metric.add_metric(labels, value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the buckets as Prometheus has them: upper bounds, and how many values are at most that."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
