"""The inputs of a feed: its account, and what it shares with the feeds of other accounts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec
from structlog.typing import FilteringBoundLogger

from ..config.schema import Config
from ..errors import FeedError
from ..output.destination import Destination
from ..protocol.signing import Credentials
from ..state.checkpoint import CallLevel, Checkpoint
from ..state.store import Found, Store
from ..telemetry.loggers import FeedLogger
from ..text import Secrets
from ..transport.backoff import HISTORY_COST, Budget, CallCounter, Patience
from ..transport.connection import Dial, dial
from ..transport.kraken_clock import NS, KrakenClock
from ..transport.kraken_clock import boot_ns as boot_clock
from ..transport.rest import Rest
from .known_state import Knowledge, Snapshots
from .last_records import LastRecord
from .recovery import Recovery

if TYPE_CHECKING:
    import httpx


class Limits(msgspec.Struct, frozen=True):
    """When to stop without a signal: after the first snapshot, ``count`` items (no markers), ``duration`` seconds.

    With ``once``, the snapshot has to come within ``timeout`` seconds. ``count`` has to be reached within ``duration``.
    """

    once: bool = False
    count: int | None = None
    duration: float | None = None
    timeout: float = 30.0


UNLIMITED = Limits()


class Quota:
    """The number of items that the feeds that share it may still write; None: any number."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left
        self.on_used_up: list[Callable[[str], None]] = []  # called with the reason when none is left

    def take(self) -> bool:
        """Count an item; return whether more are wanted."""
        if self.left is None:
            return True
        self.left -= 1
        if self.left == 0:
            for stop in self.on_used_up:
                stop("count")
        return self.left > 0


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One account: what to tail, and what is known at the start."""

    name: str  # in every record
    channels: tuple[str, ...]
    credentials: Credentials
    snapshots: Snapshots = "changes"  # which items of a snapshot are written
    since_ns: int | None = None  # recover what happened from here on; not with a checkpoint; unix nanoseconds
    store: Store | None = None  # where the checkpoint is kept; None keeps none
    checkpoint: Checkpoint | None = None  # what the store held at the start
    found: Found = "new"  # why it held nothing
    blank: bool = False  # whether the output is an empty file: it gets the complete snapshot
    last: Mapping[str, LastRecord] = {}  # by channel, the record up to which the output is complete, if readable


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What the feeds of a process share. Tests replace network, clocks and randomness."""

    config: Config
    sink: Destination
    feed_log: FeedLogger  # writes records to the sink
    log: FilteringBoundLogger
    secrets: Secrets  # tokens are added to it
    limits: Limits = UNLIMITED
    quota: Quota | None = None  # of all feeds together; by default each feed has a limit of its own
    budget: Budget | None = None  # of connects; by default each feed has its own
    transport: httpx.AsyncBaseTransport | None = None
    dial: Dial = dial
    unix_ns: Callable[[], int] = time.time_ns
    boot_ns: Callable[[], int] = boot_clock
    draw: Callable[[], float] = random.random


class Shared(msgspec.Struct):
    """What the endpoints of one account share."""

    account: Account
    environment: Environment
    run: str  # names this run of the program in the names of its connections
    rest: Rest
    patience: Patience
    budget: Budget
    feed_log: FeedLogger
    clock: KrakenClock
    counter: CallCounter
    saved_counter: CallLevel | None  # at the end of the run before; None once :meth:`restore_counter` has used it
    knowledge: Mapping[str, Knowledge]
    recovery: Recovery
    connections: int = 0
    clock_doubted: bool = False  # an answer contradicts what is known of Kraken's clock

    def kraken_ns(self) -> int:
        """Return the latest time that it can be at Kraken now. Call :meth:`learn_time` first."""
        now = self.clock.latest()
        assert now is not None  # learn_time() was called
        return now

    async def restore_counter(self) -> None:
        """Restore the key's call counter from the run before, less what has decayed since. One call is added: a kill
        may have come between a call and its save."""
        if self.saved_counter is not None:
            await self.learn_time()
            saved, self.saved_counter = self.saved_counter, None
            now = self.clock.earliest()
            if saved is not None and now is not None:
                ago = max(0.0, (now - saved.at_ns) / NS)
                self.counter.restore(saved.level + HISTORY_COST, ago, asyncio.get_running_loop().time())

    async def learn_time(self) -> None:
        """Make sure that Kraken's time is known. Every REST response has it; without one, request it. If that fails,
        trust this machine's clock to within a day: the queries then cover more time, never less."""
        if not self.clock.known:
            try:
                await self.rest.time()
            except FeedError as error:
                self.environment.log.warning("kraken_time_unknown", reason=error.what)
            self.clock.assume(self.environment.unix_ns())
