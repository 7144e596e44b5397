"""Queue what leaves a connection, in order: at once, or as fast as a slow line transmits it."""

import math
from collections import deque

from msgspec import Struct

from ..market.ledger import Frame


class Text(Struct, frozen=True, gc=False):
    """A text frame. If they are above 0, `fragment` is the size of the WebSocket fragments, and `write` that of the
    writes to the socket, in bytes."""

    data: bytes
    fragment: int = 0
    write: int = 0


class Close(Struct, frozen=True):
    """A closing handshake with that code; 1006 means that the TCP connection ends without one."""

    code: int
    reason: str = ""


class Abort(Struct, frozen=True):
    """The end of a connection by a TCP reset."""


Outgoing = Text | Close | Abort


class Waiting(Struct, frozen=True, gc=False):
    """A message that will leave the connection at a time, and its publication, if it is one."""

    leaves: float
    message: Outgoing
    frame: Frame | None


class Line:
    """A queue of messages. With a `rate` (bytes per second), each leaves when the line has transmitted it."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._waiting: deque[Waiting] = deque()
        self._free = -math.inf  # when everything so far has been transmitted

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, text: Text, frame: Frame | None, now: float) -> None:
        leaves = -math.inf
        if self.rate:
            leaves = self._free = max(now, self._free) + len(text.data) / self.rate
        self._waiting.append(Waiting(leaves, text, frame))

    def end(self, how: Close | Abort, *, at_once: bool) -> None:
        """End the connection, after the queue or without it. A cut loses what a slow line has not transmitted."""
        if at_once or self.rate:
            self._waiting.clear()
        self._waiting.append(Waiting(-math.inf, how, None))

    def take(self, now: float) -> list[Waiting]:
        """Return and remove the messages that have been transmitted."""
        taken = []
        while self._waiting and self._waiting[0].leaves <= now:
            taken.append(self._waiting.popleft())
        return taken

    def due(self, now: float) -> float:
        """Return when the next message will have been transmitted."""
        return self._waiting[0].leaves if self._waiting and self._waiting[0].leaves > now else math.inf

    def clear(self) -> None:
        self._waiting.clear()
