"""What Prometheus scrapes: the metrics in its text format or as OpenMetrics, rendered by prometheus_client."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .families import FAMILIES, Family
from .figures import Histogram, Program

WRITE = "output_write_seconds"
WRITE_SAYS = "How long a write to the output took."


_process = ProcessCollector(registry=None)


def render(program: Program, accept: str, accept_encoding: str) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body for a scrape that accepts such types and encodings: what the program says of itself, and what
    the operating system says of the process."""
    registry = CollectorRegistry()
    registry.register(_Families(program))
    registry.register(_process)
    headers: list[tuple[str, str]] = []
    # Of Accept one word counts: prometheus_client would copy a version from there, and trips over some.
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
    """The collector of one scrape."""

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
    """Upper bounds and how many are at most so long, as Prometheus has them."""
    bounds = [*map(str, histogram.bounds), "+Inf"]
    return list(zip(bounds, itertools.accumulate(histogram.counts), strict=True))
