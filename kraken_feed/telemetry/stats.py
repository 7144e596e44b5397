"""Define the snapshot of a process's state and counters, as plain values.

Metrics, the status line, SIGUSR1, systemd's messages, `/healthz` and the Python API are views of it. Each component
keeps its own counters; :meth:`kraken_feed.feed.feed.Feed.figures` collects those of one account.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import msgspec

from .causes import LOSS_CAUSES

# ----------------------------------- How long something took, counted in fixed buckets: cheap enough for every write

BOUNDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)  # seconds: a cached write to a hung disk


class Histogram(msgspec.Struct):
    """A histogram of durations. ``counts[i]`` is how many were above ``bounds[i - 1]`` and at most ``bounds[i]``
    seconds; the last count is those above all bounds. ``sum_s`` is their total."""

    bounds: tuple[float, ...] = BOUNDS
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    sum_s: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum_s += seconds


CAUSES = tuple(LOSS_CAUSES)  # why connections end or attempts fail

RESULTS = ("ok", "failed", "throttled", "locked_out", "refused")  # of a REST call


class EndpointFigures(msgspec.Struct, frozen=True):
    """The figures of one connection, or of the attempts to open it. Seconds are relative to now; ``engine`` is the
    state of Kraken's engine.

    ``last_frame_s`` is of this connection, ``last_frame_ns`` of any: unix nanoseconds, 0 for never. ``late_s`` are the
    seconds since the last answered ping, if they are too many: records may be delayed. ``refused`` is what Kraken
    refuses now, in one word: the key, the account, the token, the subscription. ``sequences`` are the last frames'
    numbers by channel. ``losses`` counts lost connections and failed attempts. ``overdue``: it has missed a deadline
    of its own by far.
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
    connection: str | None = None
    sequences: Mapping[str, int | None] = {}
    losses: int = 0
    overdue: bool = False


class OutageCounts(msgspec.Struct, frozen=True):
    """The numbers of outages that began, were recovered, were declared as gaps, and are open."""

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
    endpoints: tuple[EndpointFigures, ...]
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
    stopping: str = ""  # why it is stopping, or has stopped
    overdue: str = ""  # the component that has missed its deadline

    @property
    def live(self) -> bool:
        """Whether every channel of the account is live."""
        return all(endpoint.live for endpoint in self.endpoints)


class Output(msgspec.Struct, frozen=True):
    """The figures of the output, to which all accounts write.

    ``writes`` counts system calls that wrote something, ``write_s`` how long they took. ``blocked_s`` is how long lines
    have been waiting, None if none wait; ``blocked_total_s`` is the sum of all such spans, the present one included.
    ``full`` means that reading from Kraken waits for the output. ``torn`` lines were cut off by a crash and moved
    aside. ``overdue`` says that an fdatasync hangs.
    """

    name: str
    lines: int = 0
    writes: int = 0
    bytes_written: int = 0
    pending_bytes: int = 0
    full: bool = False
    blocked_s: float | None = None
    blocked_total_s: float = 0.0
    torn: int = 0
    syncs: int = 0
    write_s: Histogram = msgspec.field(default_factory=Histogram)
    overdue: bool = False


class Program(msgspec.Struct, frozen=True):
    """The figures of one process: all accounts and the output.

    ``held`` is what the start waits for, ``stopping`` why the process ends.
    """

    accounts: tuple[Figures, ...]
    output: Output
    version: str
    started_ns: int
    stopping: str = ""
    held: str = ""

    @property
    def live(self) -> bool:
        """Whether every channel is live, of every account that has not stopped."""
        running = [account for account in self.accounts if not account.stopped]
        return bool(running) and all(account.live for account in running)

    @property
    def overdue(self) -> str:
        """The component that has missed its deadline; empty if there is none.

        An outage of Kraken and a stalled reader do not count: a restart would not help.
        """
        if self.output.overdue:
            return "output"
        return next((account.overdue for account in self.accounts if account.overdue), "")
