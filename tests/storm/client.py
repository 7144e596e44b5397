"""One run of the client: a feed on the simulated machine."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from kraken_feed.auth import Credentials
from kraken_feed.config import BackfillConfig, Config
from kraken_feed.errors import FeedError
from kraken_feed.feed import Feed
from kraken_feed.limits import Limits
from kraken_feed.log import feed_logger, program_logger
from kraken_feed.orders import Snapshots
from kraken_feed.text import Secrets

from .disk import Disk, MemoryOutput, MemoryStore
from .world import Transport, World

ACCOUNT = "main"
STOP_S = 10.0  # a stop takes two seconds; this is a lot more


class Diagnostics:
    """Keeps what is worth reading of the diagnostics, as text, until somebody reads it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.entries: list[str] = []
        self._say = say

    def debug(self, event: str, /, **fields: Any) -> None:
        """Drop it."""

    def info(self, event: str, /, **fields: Any) -> None:
        """Keep it."""
        text = f"{event} {fields}"
        self.entries.append(text)
        self._say(text)

    warning = error = info


class Client:
    """One run. :meth:`start` it, then :meth:`stop` or :meth:`kill` it.

    Args:
        number: of the run, from 1 on.
        world, disk: where it runs.
        channels, snapshots: what it tails.
        chance: latencies and jitter.
        say: is told the diagnostics.
    """

    def __init__(
        self,
        number: int,
        world: World,
        disk: Disk,
        channels: Sequence[str],
        snapshots: Snapshots,
        chance: Random,
        say: Callable[[str], None],
    ) -> None:
        self.number = number
        self.started = world.clocks.kraken()
        self.diagnostics = Diagnostics(say)
        self.store = MemoryStore(disk)
        self.output = MemoryOutput(disk, number, world.clocks, chance)
        self.error: FeedError | None = None
        self._world = world
        world.dials.clear()
        tier = world.exchange.tier
        backfill = BackfillConfig(rest_counter=int(tier.rest_limit), rest_decay=tier.rest_decay)
        checkpoint = disk.state.load()
        secrets = Secrets()
        account = world.exchange.accounts[0]
        options: dict[str, Any] = {
            "config": Config(backfill=backfill),
            "account": ACCOUNT,
            "channels": channels,
            "credentials": Credentials(account.key, account.secret, source="the plan"),
            "sink": self.output,
            "feed_log": feed_logger(self.output),
            "log": program_logger(self.diagnostics, secrets),
            "secrets": secrets,
            "limits": Limits(),
            "snapshots": snapshots,
            "store": self.store,
            "checkpoint": checkpoint,
            "damaged": checkpoint is None and disk.state.found == "lost",
            "transport": Transport(world),
            "dial": world.dial,
            "unix_ns": world.clocks.unix_ns,
            "boot_ns": world.clocks.boot_ns,
            "draw": chance.random,
        }
        self.feed = Feed(**{name: value for name, value in options.items() if name in _PARAMETERS})
        self._task = asyncio.create_task(self.feed.run())

    @property
    def over(self) -> bool:
        """Whether it has ended by itself."""
        return self._task.done()

    def outcome(self) -> str:
        """Return how it ended, in words."""
        error = self._task.exception()
        return f"{type(error).__name__}: {error}" if error is not None else self._task.result()

    async def stop(self) -> bool:
        """End it in good order; False if it does not end."""
        self.feed.stop("SIGTERM")
        done, _ = await asyncio.wait([self._task], timeout=STOP_S)
        self.output.flush()
        if not done:
            await self.kill()
        return bool(done)

    async def kill(self, share: float | None = None) -> None:
        """End it in the middle of everything: from now on it writes, saves and sends nothing."""
        self.output.die(share)
        self.store.dead = True
        self._world.cut_all()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


_PARAMETERS = frozenset(inspect.signature(Feed).parameters)
