"""What the tails of one account have in common, and whom they report to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from .auth import Credentials
from .backoff import HISTORY_COST, Budget, CallCounter
from .checkpoint import Counter
from .config import Config
from .connection import Dial
from .destination import Destination
from .errors import FeedError
from .kraken_time import NS, KrakenClock
from .log import FeedLogger
from .orders import Knowledge, Snapshots
from .patience import Patience
from .recovery import Recovery
from .rest import Rest
from .text import Secrets


class Shared(msgspec.Struct):
    """What the tails of one account have in common."""

    config: Config
    account: str
    credentials: Credentials
    rest: Rest
    patience: Patience
    budget: Budget
    sink: Destination
    feed_log: FeedLogger
    log: FilteringBoundLogger
    secrets: Secrets
    dial: Dial
    run: str  # names this run of the program in the names of its connections
    unix_ns: Callable[[], int]
    clock: KrakenClock
    counter: CallCounter
    counted: Counter | None  # where the run before left the counter, until it is known how long ago that was
    draw: Callable[[], float]
    snapshots: Snapshots
    knowledge: Mapping[str, Knowledge]
    recovery: Recovery
    connections: int = 0
    clock_doubted: bool = False  # an answer contradicts what is known of Kraken's clock

    def kraken_ns(self) -> int:
        """Return Kraken's time now, at the latest. Only after :meth:`tell_time`."""
        now = self.clock.latest()
        assert now is not None  # it was told
        return now

    async def count_on(self) -> None:
        """Go on with the key's call counter where the run before left it, once it is known how long ago that was. A
        kill may have come between a call and its save."""
        if self.counted is not None:
            await self.tell_time()
            counted, self.counted = self.counted, None
            now = self.clock.earliest()
            if counted is not None and now is not None:
                ago = max(0.0, (now - counted.at_ns) / NS)
                self.counter.restore(counted.level + HISTORY_COST, ago, asyncio.get_running_loop().time())

    async def tell_time(self) -> None:
        """Make sure that Kraken's time is known. Every answer of REST tells it; if none does, ask, and if that fails,
        believe this machine's clock to a day: a longer interval is asked for then, never a shorter one."""
        if not self.clock.known:
            try:
                await self.rest.time()
            except FeedError as error:
                self.log.warning("kraken_time_unknown", reason=error.what)
            self.clock.assume(self.unix_ns())


class Owner(Protocol):
    """What a tail is told by the feed, and tells it."""

    stopping: asyncio.Event

    limited: bool  # whether there can be enough, and items are counted

    @property
    def enough(self) -> bool:
        """Whether nothing more is to be written."""

    def going_live(self, channel: str, complete_ns: int) -> None:
        """A channel is complete from then on (Kraken's time), and about to be said to be live."""

    def went_live(self) -> None:
        """All of the tail's channels are live."""

    def wrote_item(self) -> bool:
        """Count an item; False if no more are wanted."""
