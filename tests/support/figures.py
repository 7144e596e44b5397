"""Figures of a program that is well, and of any that can be; and a client that asks for them over HTTP."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from hypothesis import strategies as st

from kraken_feed.telemetry.stats import (
    CAUSES,
    RESULTS,
    EndpointFigures,
    Figures,
    Histogram,
    OutageCounts,
    Output,
    Program,
)

from .timeouts import TIMEOUT_S

T0 = 1_800_000_000

V1 = EndpointFigures(
    dialect="v1", channels=("openOrders", "ownTrades"), live=True, live_s=60.0, down_s=None, last_frame_s=0.5,
    attempts=0, retry_s=None, cause="", engine="online", last_frame_ns=T0 * 10**9,
)  # fmt: skip
V2 = msgspec.structs.replace(V1, dialect="v2", channels=("executions", "balances"))
LOST = msgspec.structs.replace(
    V1, live=False, live_s=None, down_s=12.3, last_frame_s=None, attempts=3, retry_s=4.4, cause="silence"
)
MAIN = Figures(
    account="main", endpoints=(V1, V2), open_orders={"openOrders": 3, "executions": 3},
    records={("openOrders", "order"): 7, ("openOrders", "feed.live"): 1}, losses={"closed": 2}, reconnects=2,
    calls={("GetWebSocketsToken", "ok"): 3}, outages=OutageCounts(2, 1, 1, 0), last_frame_ns=T0 * 10**9,
    last_record_ns=T0 * 10**9, checkpoint_ns=T0 * 10**9,
)  # fmt: skip
OUTPUT = Output(
    name="stdout", lines=8, writes=2, bytes_written=4096, pending_bytes=0, full=False, blocked_s=None,
    blocked_total_s=0.0, torn=0, syncs=0, write_s=Histogram((0.001, 0.1), [1, 1, 0], 0.05),
)  # fmt: skip
WELL = Program(accounts=(MAIN,), output=OUTPUT, version="1.2.3", started_ns=T0 * 10**9)


def program(*endpoints: EndpointFigures, **changes: object) -> Program:
    """One that is well but for the changes; some are the output's, and ``overdue`` is the account's."""
    overdue = str(changes.pop("overdue", ""))
    output = {name: changes.pop(name) for name in list(changes) if name in Output.__struct_fields__}
    figures = msgspec.structs.replace(MAIN, endpoints=endpoints or MAIN.endpoints, overdue=overdue)
    given: dict[str, object] = {"accounts": (figures,), "output": msgspec.structs.replace(OUTPUT, **output), **changes}
    return msgspec.structs.replace(WELL, **given)


# ------------------------------------------------------------------------------------------------ any

COUNTS = st.integers(0, 10**12)
SECONDS = st.floats(0, 1e9)
NS = st.integers(0, 2**62)
NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,16}", fullmatch=True)
CHANNELS = {"v1": ("openOrders", "ownTrades"), "v2": ("executions", "balances")}
EVENTS = st.sampled_from(("order", "trade", "execution", "balance", "unknown", "feed.live", "feed.gap"))


def _endpoint(dialect: str) -> st.SearchStrategy[EndpointFigures]:
    optional = st.none() | SECONDS
    channels = st.lists(st.sampled_from(CHANNELS[dialect]), min_size=1, unique=True).map(tuple)
    return st.builds(
        EndpointFigures,
        dialect=st.just(dialect), channels=channels, live=st.booleans(), live_s=optional, down_s=optional,
        last_frame_s=optional, attempts=COUNTS, retry_s=optional, cause=st.sampled_from(("", *CAUSES)),
        engine=st.none() | st.just("online"), last_frame_ns=NS, refused=st.sampled_from(("", "key", "account")),
    )  # fmt: skip


ENDPOINTS = st.lists(st.sampled_from(("v1", "v2")), unique=True).flatmap(
    lambda names: st.tuples(*map(_endpoint, names))
)
ANY_CHANNEL = st.sampled_from((*CHANNELS["v1"], *CHANNELS["v2"]))
FIGURES = st.builds(
    Figures, account=NAMES, endpoints=ENDPOINTS, open_orders=st.dictionaries(ANY_CHANNEL, COUNTS),
    records=st.dictionaries(st.tuples(ANY_CHANNEL, EVENTS), COUNTS),
    losses=st.dictionaries(st.sampled_from(CAUSES), COUNTS), reconnects=COUNTS,
    calls=st.dictionaries(
        st.tuples(st.sampled_from(("GetWebSocketsToken", "ClosedOrders")), st.sampled_from(RESULTS)), COUNTS
    ),
    outages=st.builds(OutageCounts, COUNTS, COUNTS, COUNTS, COUNTS),
    last_frame_ns=NS, last_record_ns=NS, checkpoint_ns=NS,
)  # fmt: skip
HISTOGRAMS = st.lists(st.floats(1e-9, 1e3), unique=True).flatmap(
    lambda bounds: st.builds(
        Histogram,
        bounds=st.just(tuple(sorted(bounds))),
        counts=st.tuples(*[st.integers(0, 10**9)] * (len(bounds) + 1)).map(list),
        sum_s=SECONDS,
    )
)
OUTPUTS = st.builds(
    Output, name=st.text(), lines=COUNTS, writes=COUNTS, bytes_written=COUNTS, pending_bytes=COUNTS,
    full=st.booleans(), blocked_s=st.none() | SECONDS, blocked_total_s=SECONDS, torn=COUNTS, syncs=COUNTS,
    write_s=HISTOGRAMS,
)  # fmt: skip
PROGRAMS = st.builds(
    Program,
    accounts=st.lists(FIGURES, unique_by=lambda figures: figures.account, max_size=3).map(tuple),
    output=OUTPUTS,
    version=NAMES,
    started_ns=NS,
)


# ------------------------------------------------------------------------------------------------ over HTTP


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, object]:
        assert self.headers["content-type"] == "application/json"
        fields: dict[str, object] = msgspec.json.decode(self.body)
        return fields


def ask(url: str, path: str, method: str = "GET", **headers: str) -> Reply:
    """One request, from a thread of its own: it waits. Underscores in a header's name stand for dashes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        body = response.read()
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
    finally:
        connection.close()
