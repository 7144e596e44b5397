"""Queue lines for a program in the same process, which takes one after the other.

A line is delivered when the program takes the next one: then the program has finished with it. The checkpoint covers
only lines that were delivered.
"""

from __future__ import annotations

import asyncio
from collections import deque

from ..errors import FeedError, OutputFailed, ReaderGone
from .destination import LOW_BYTES, Destination


class Inbox(Destination):
    """A queue of lines for the program."""

    name = "the iteration"
    waits_at_stop = True
    error: FeedError | None = None
    lines = position = pending = 0

    def __init__(self) -> None:
        self._bursts: deque[bytes] = deque()
        self._burst: list[bytes] = []  # the lines of the current burst, the last one first
        self._current = 0  # bytes of the line that the program works on
        self._ended = False  # nothing more will come
        self._waited_for = False
        self._came = asyncio.Event()
        self._went = asyncio.Event()

    def write(self, line: bytes, count: int = 1) -> None:
        if self.error is not None:
            return
        self._bursts.append(line)
        self.lines += count
        self.pending += len(line)
        self.position += len(line)
        self._came.set()

    async def take(self) -> bytes | None:
        """Wait for the next line and return it; None if no more will come. The previous one counts as delivered.

        A cancelled call takes nothing. There is no turn of the event loop between the lines of one burst.

        Raises:
            RuntimeError: another task waits here already.
        """
        if self._waited_for:
            raise RuntimeError("another task is waiting for the next record")
        self.pending -= self._current
        if self._current:
            self._went.set()
        self._current = 0
        self._waited_for = True
        try:
            while not self._burst and await self._more():
                self._burst = [line + b"\n" for line in reversed(self._bursts.popleft().split(b"\n")[:-1])]
        finally:
            self._waited_for = False
        if not self._burst:
            return None
        line = self._burst.pop()
        self._current = len(line)
        return line

    async def _more(self) -> bool:
        """Wait for the next burst; return False if none will come."""
        await asyncio.sleep(0)  # a program that waits for nothing must not keep the loop for itself
        while not self._bursts and not self._ended:
            self._came.clear()
            await self._came.wait()
        return bool(self._bursts)

    async def room(self) -> None:
        while self.pending > LOW_BYTES and self.error is None:
            self._went.clear()
            await self._went.wait()

    async def synced(self) -> None:
        """Wait until the program is done with every line so far, or has stopped reading."""
        target = self.position
        while self.position - self.pending < target and self.error is None:
            self._went.clear()
            await self._went.wait()

    def end(self) -> None:
        """Note that no more lines will come. The remaining ones can still be taken."""
        self._ended = True
        self._came.set()

    def abandon(self) -> None:
        """Stop: the program reads no more. The remaining lines, and the one it works on, are not delivered."""
        if self._ended and not self.pending:
            return
        self.error = self.error or ReaderGone("The reader of the output has closed it.")
        self._bursts.clear()
        self._burst.clear()
        self._went.set()
        self.end()

    def undelivered(self) -> OutputFailed:
        return OutputFailed(
            f"The program that reads {self.name} does not take its records: {self.pending} bytes were not delivered.",
            remedy="Read them before the program ends, or keep a state.",
        )
