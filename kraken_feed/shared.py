"""What the tails of one account have in common, and whom they report to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from .auth import Credentials
from .backoff import Budget
from .config import Config
from .connection import Dial
from .destination import Destination
from .log import FeedLogger
from .orders import Knowledge, Snapshots
from .recovery import Recovery
from .rest import Rest
from .text import Secrets


class Shared(msgspec.Struct):
    """What the tails of one account have in common."""

    config: Config
    account: str
    credentials: Credentials
    rest: Rest
    budget: Budget
    sink: Destination
    feed_log: FeedLogger
    log: FilteringBoundLogger
    secrets: Secrets
    dial: Dial
    run: str  # names this run of the program in the names of its connections
    unix_ns: Callable[[], int]
    draw: Callable[[], float]
    snapshots: Snapshots
    knowledge: Mapping[str, Knowledge]
    recovery: Recovery
    connections: int = 0


class Owner(Protocol):
    """What a tail is told by the feed, and tells it."""

    stopping: asyncio.Event

    limited: bool  # whether there can be enough, and items are counted

    @property
    def enough(self) -> bool:
        """Whether nothing more is to be written."""

    def going_live(self, channel: str, whole_ns: int) -> None:
        """A channel is whole from then on (unix nanoseconds), and about to be said to be live."""

    def went_live(self) -> None:
        """All of the tail's channels are live."""

    def wrote_item(self) -> bool:
        """Count an item; False if no more are wanted."""
