"""What feeds need of the place where their records go: a sink on a descriptor, an inbox of a program."""

from __future__ import annotations

from typing import Literal, Protocol

from ..errors import FeedError

HIGH_BYTES = 1024 * 1024  # a reader this far behind is a stalled one; some 2,000 records
LOW_BYTES = 256 * 1024


class Destination(Protocol):
    """Where records go. Lines are handed in without waiting; who makes them waits for room, and who keeps the
    checkpoint until they have arrived."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    @property
    def patient(self) -> bool:
        """Whether a stop waits until it has taken everything, however long that takes."""

    @property
    def error(self) -> FeedError | None:
        """Why it takes nothing more, if it does not."""

    @property
    def lines(self) -> int:
        """Handed in so far."""

    @property
    def pending(self) -> int:
        """Bytes that were handed in and have not arrived."""

    @property
    def full(self) -> bool:
        """Whether whoever makes lines should wait for :meth:`room`."""

    @property
    def sync_started(self) -> float | None:
        """The loop time since when what was taken is on its way to a disk, if it is."""

    def write(self, line: bytes, count: int = 1) -> None:
        """Hand in a line, or several in one, line feeds included. Never waits."""

    async def room(self) -> None:
        """Wait until it has caught up, or has failed."""

    async def synced(self) -> None:
        """Wait until every line that was handed in so far has arrived for good, or until it has failed."""

    @property
    def position(self) -> int:
        """Bytes that were handed in so far."""

    @property
    def source(self) -> str | None:
        """Where what was written before this run can be read; None if it cannot."""

    def check(self) -> Literal["ok", "removed", "moved"]:
        """Look whether a file is still linked, and still the one that its path names."""

    @property
    def unrescued(self) -> int:
        """How often what went with a removed file could not be read any more."""

    def rescue(self) -> int | None:
        """Write again, to a new file, what was written to one that was removed since the last :meth:`kept`; return how
        many bytes that was, None if they cannot be read any more.

        Raises:
            OutputFailed: there is no path to write to.
        """

    def kept(self, position: int) -> None:
        """The checkpoint covers what was handed in up to there: it need not be written again."""

    def reopen(self) -> None:
        """Write on to a new file at the same path, if there is one.

        Raises:
            OutputFailed: it cannot be opened; the old one is written on.
        """

    def undelivered(self) -> FeedError:
        """The error for what has to be given up: what it waits for."""
