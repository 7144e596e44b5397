"""Define what feeds need of the place where records go: a sink on a descriptor, or the inbox of a program."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, Protocol

from ..errors import FeedError

HIGH_BYTES = 1024 * 1024  # a reader that is this far behind has stalled; some 2,000 records
LOW_BYTES = 256 * 1024


class Destination(Protocol):
    """Where records go. Writing never waits: the feed waits for :meth:`room`, the checkpointer for :meth:`synced`.

    What has a body here is what a destination without a file does.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The destination's name, for messages to people."""

    @property
    def waits_at_stop(self) -> bool:
        """Whether a stop waits without a limit until everything is accepted."""
        return False

    @property
    @abstractmethod
    def error(self) -> FeedError | None:
        """The error that ended the output; None while it accepts lines."""

    @property
    @abstractmethod
    def lines(self) -> int:
        """Lines that were handed in so far."""

    @property
    @abstractmethod
    def position(self) -> int:
        """Bytes that were handed in so far."""

    @property
    @abstractmethod
    def pending(self) -> int:
        """Bytes that were handed in and are not delivered."""

    @property
    def full(self) -> bool:
        """Whether callers should wait for :meth:`room` before they write more."""
        return self.pending > HIGH_BYTES

    @abstractmethod
    def write(self, line: bytes, count: int = 1) -> None:
        """Hand in a line, or several in one, line feeds included. Never waits."""

    @abstractmethod
    async def room(self) -> None:
        """Wait until the backlog is small, or the destination has failed."""

    @abstractmethod
    async def synced(self) -> None:
        """Wait until every line so far is durable, or the destination has failed."""

    @abstractmethod
    def undelivered(self) -> FeedError:
        """Return the error that says why the pending lines are not accepted."""

    # -- files

    @property
    def sync_started(self) -> float | None:
        """The loop time at which a running write to the disk began; None if none is running."""
        return None

    @property
    def source(self) -> str | None:
        """The path at which the output of earlier runs can be read; None if it cannot be read."""
        return None

    def check(self) -> Literal["ok", "removed", "moved"]:
        """Return whether the file still has a name, and whether its path still names it."""
        return "ok"

    @property
    def unrescued(self) -> int:
        """The number of removed files whose lines could not be read."""
        return 0

    def rescue(self) -> int | None:
        """Write again, to a new file, what was written to a removed one since the last :meth:`covered`. Return how many
        bytes that was; None if they cannot be read any more.

        Raises:
            OutputFailed: there is no path to write to.
        """
        return 0

    def covered(self, position: int) -> None:
        """Note that the checkpoint covers the output up to ``position``: it need not be written again."""
        return

    def reopen(self) -> None:
        """Continue in a new file at the same path, if there is one.

        Raises:
            OutputFailed: it cannot be opened; the old file stays in use.
        """
        return
