"""Figures of a feed, as plain values: what it has done and its state, for metrics, the status line, SIGUSR1.

Every component keeps its own counts; :meth:`kraken_feed.feed.feed.Feed.figures` collects those of one account. No
frame touches anything here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import msgspec

# ------------------------------------- Durations, counted in fixed buckets: cheap enough for every write


BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)  # seconds: a cached write to a hung disk


class Latency:
    """A histogram of durations. ``counts[i]`` is how many were above ``BOUNDS[i - 1]`` and at most ``BOUNDS[i]``
    seconds; the last count is those above all bounds."""

    __slots__ = ("counts", "last", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0  # seconds
        self.last = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self.last = seconds


# Why connections end or attempts fail: causes of a session's failure, and of failures before it. The last one ends no
# connection: the channel starts again on the same one.
CAUSES = (
    "closed", "silence", "sequence", "unsubscribed", "frame_too_big", "no_ack", "no_snapshot", "refused", "maintenance",
    "connect", "upgrade", "token", "throttled", "locked_out", "resnapshot",
)  # fmt: skip

RESULTS = ("ok", "failed", "throttled", "locked_out", "refused")  # of a REST call


class Endpoint(msgspec.Struct, frozen=True):
    """The figures of one connection, or of the attempts to open it. Seconds are relative to now; ``engine`` is Kraken's
    system state.

    ``last_frame_s`` is of the present connection, ``last_frame_ns`` of any: unix nanoseconds, 0 for never. ``late_s``
    is how long no ping has been answered, if that is too long: frames that Kraken sent since may be missing.
    ``refused`` is what Kraken refuses now, in one word: the key, the account, the token, the subscription.
    """

    dialect: str
    channels: tuple[str, ...]
    live: bool
    live_s: float | None
    down_s: float | None
    last_frame_s: float | None
    attempts: int
    retry_s: float | None  # until the next attempt, during a backoff
    cause: str  # of the last loss; empty if there was none
    engine: str | None
    last_frame_ns: int = 0
    late_s: float | None = None
    refused: str = ""


class OutageCounts(msgspec.Struct, frozen=True):
    """How many outages began, were recovered, were declared as gaps, and are still open."""

    opened: int
    closed: int
    gaps: int
    open: int


class Figures(msgspec.Struct, frozen=True):
    """The figures of one account. Times are unix nanoseconds, 0 for never.

    ``open_orders`` by channel; ``records`` by channel and ``event_name``; ``losses`` by cause (:data:`CAUSES`);
    ``calls`` by REST method and result (:data:`RESULTS`).
    """

    account: str
    endpoints: tuple[Endpoint, ...]
    open_orders: Mapping[str, int]
    records: Mapping[tuple[str, str], int]
    losses: Mapping[str, int]
    reconnects: int
    calls: Mapping[tuple[str, str], int]
    outages: OutageCounts
    last_frame_ns: int
    last_record_ns: int
    checkpoint_ns: int
    stopped: str = ""  # why this account has stopped; empty while it runs

    @property
    def live(self) -> bool:
        """Whether every channel of the account is live."""
        return all(endpoint.live for endpoint in self.endpoints)


class Histogram(msgspec.Struct, frozen=True):
    """A histogram of durations: ``counts`` by upper bound in seconds, plus one for those above the last bound;
    ``sum_s`` is their total."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum_s: float


class Output(msgspec.Struct, frozen=True):
    """The figures of the output, to which all accounts write.

    ``writes`` counts system calls that wrote something, ``write_s`` how long they took. ``blocked_s`` is how long lines
    have been waiting, None if none wait; ``blocked_total_s`` is the sum of all such spans, the present one included.
    ``full`` means that reading from Kraken waits for the output. ``torn`` lines were cut off by a crash and moved
    aside.
    """

    name: str
    lines: int
    writes: int
    bytes_written: int
    pending_bytes: int
    full: bool
    blocked_s: float | None
    blocked_total_s: float
    torn: int
    syncs: int
    write_s: Histogram


def unopened(name: str) -> Output:
    """Return the figures of an output that is not open yet."""
    return Output(name, 0, 0, 0, 0, False, None, 0.0, 0, 0, Histogram((), (0,), 0.0))


class Program(msgspec.Struct, frozen=True):
    """The figures of one process. ``stopping`` is why it ends, ``overdue`` names a component that makes no progress,
    ``held`` is what the start waits for; normally all three are empty."""

    accounts: tuple[Figures, ...]
    output: Output
    version: str
    started_ns: int
    stopping: str = ""
    overdue: str = ""
    held: str = ""
