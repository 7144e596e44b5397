"""One run of the client: a feed on the simulated machine."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, cast

from kraken_feed.config.schema import BackfillConfig, Config, Endpoints
from kraken_feed.errors import FeedError
from kraken_feed.feed.environment import Account, Environment
from kraken_feed.feed.feed import Feed
from kraken_feed.feed.known_state import Snapshots
from kraken_feed.feed.last_records import LastRecord, last_records
from kraken_feed.protocol.signing import Credentials
from kraken_feed.state.checkpoint import Checkpoint, Outage
from kraken_feed.state.store import Store
from kraken_feed.telemetry.loggers import feed_logger, program_logger
from kraken_feed.text import Secrets

from .disk import Disk, MemoryOutput, MemoryStore
from .world import Transport, World

ACCOUNT = "main"
RAM = "/dev/shm" if os.path.isdir("/dev/shm") else None  # for a file that is read once
ENDPOINTS = Endpoints(
    rest="http://127.0.0.1", ws_v1="ws://127.0.0.1", ws_v2="ws://127.0.0.1/v2"
)  # without TLS, which takes time
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
        number: of the run, from 1 on. ``blank`` are the channels of which neither state nor output knew anything when
            it began; ``lost`` tells whether it knew that its state was lost.
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
        tier = world.exchange.world.tier
        backfill = BackfillConfig(rest_counter=int(tier.rest_limit), rest_decay=tier.rest_decay)
        checkpoint, found = disk.state.open()
        last = _last(disk, checkpoint, channels)
        self.blank = {name for name in channels if name not in last and not _is_complete(checkpoint, name)}
        self.lost = found == "lost"
        secrets = Secrets()
        self.feed = Feed(
            Account(
                name=ACCOUNT,
                channels=tuple(channels),
                credentials=Credentials(world.exchange.key, world.exchange.secret, source="the plan"),
                snapshots=snapshots,
                store=cast(Store, self.store),
                checkpoint=checkpoint,
                found=found,
                last=last,
            ),
            Environment(
                config=Config(backfill=backfill, endpoints=ENDPOINTS),
                sink=self.output,
                feed_log=feed_logger(self.output),
                log=program_logger(self.diagnostics, secrets),
                secrets=secrets,
                transport=Transport(world),
                dial=world.dial,
                unix_ns=world.clocks.unix_ns,
                boot_ns=world.clocks.boot_ns,
                draw=chance.random,
            ),
        )
        self._task = asyncio.create_task(self.feed.run())

    @property
    def pending(self) -> list[Outage]:
        """The outages that are neither recovered nor declared."""
        return [outage for outage in self.feed._recovery.outages if not outage.declared_ns]

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
        self.output.die()  # what its reader has not taken is gone with it
        return bool(done)

    async def kill(self, share: float | None = None) -> None:
        """End it in the middle of everything: from now on it writes, saves and sends nothing."""
        self.output.die(share)
        self.store.dead = True
        self._world.cut_all()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


def _is_complete(checkpoint: Checkpoint | None, channel: str) -> bool:
    """Return whether the checkpoint says up to when the channel is complete."""
    state = checkpoint.channels.get(channel) if checkpoint is not None else None
    return state is not None and state.complete_ns > 0


def _last(disk: Disk, checkpoint: Checkpoint | None, channels: Sequence[str]) -> dict[str, LastRecord]:
    """Return what the output says of the channels, if the checkpoint does not say it of all of them."""
    if all(_is_complete(checkpoint, channel) for channel in channels):
        return {}
    with tempfile.NamedTemporaryFile(dir=RAM) as file:
        file.write(disk.output.data)
        file.flush()
        return last_records(file.name, ACCOUNT, channels)
