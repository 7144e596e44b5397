"""websockets' connection with another way to its messages: a burst at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

from .splitter import Splitter

AHEAD_BYTES = 128 * 1024  # of messages that nobody has taken yet: then the peer waits


class Stream(ClientConnection):
    """websockets' connection, whose messages are taken a burst at a time.

    What the socket gives is split here as long as it is simple, and handed to the library otherwise: the opening, pings
    and the close are the library's, and so is everything after the first thing that is not simple.

    ``progress`` and ``delay`` are as :class:`kraken_feed.connection.Socket` has them.
    """

    max_bytes: ClassVar[int] = 0  # of a message; set by :func:`dial`

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._splitter = Splitter(self.max_bytes)
        self._opened = False
        self._head = b""  # the last bytes of the opening, should its end be cut in two
        self._messages: list[bytes] = []
        self._bytes = 0  # in them, about
        self._paused_reading = False
        self.progress: tuple[float, float] | None = None
        self.delay = 0.0
        self._slow = False  # a read has brought a middle part of it, and nothing else
        self._lost = False
        self._woken = asyncio.Event()

    async def burst(self) -> Sequence[bytes]:
        """Every message that is here, in order; waits for one if there is none.

        Raises:
            ConnectionClosed: none is here, and none will come.
        """
        while not self._messages:
            if self._lost or self._splitter.done:
                message = await self.recv(decode=False)
                return (message if isinstance(message, bytes) else message.encode(),)
            self._woken.clear()
            await self._woken.wait()
        burst, self._messages, self._bytes = self._messages, [], 0
        if self._paused_reading:
            self._paused_reading = False
            self.transport.resume_reading()
        return burst

    def data_received(self, data: bytes) -> None:
        """What the socket has given, as asyncio says it."""
        if not self._opened:
            data = self._open(data)
        splitter = self._splitter
        if splitter.done:
            if data:
                super().data_received(data)
                splitter.follow(data)
                self._note_progress(whole=not splitter.partial)
            return
        messages, others = splitter.feed(data)
        if splitter.partial or self.progress is not None:
            self._note_progress(whole=bool(messages))
        if messages:
            self._messages += messages
            self._bytes += len(data)
            if self._bytes > AHEAD_BYTES and not self._paused_reading:
                self._paused_reading = True
                self.transport.pause_reading()
        if others:
            super().data_received(others)
        if messages or splitter.done:
            self._woken.set()

    def _note_progress(self, *, whole: bool) -> None:
        """Note when bytes of a message came whose end has not come; ``whole``: they also end an earlier one.

        A message that is cut in two by a read is nothing unusual. One that takes three or more came slowly.
        """
        now, partial = self.loop.time(), self._splitter.partial
        since = now if self.progress is None else self.progress[0]
        if whole or not partial:
            self.delay += now - since if self._slow else 0.0
            since, self._slow = now, False
        else:
            self._slow = self.progress is not None
        self.progress = (since, now) if partial else None

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone. One that was never made, as when TLS fails behind a proxy, cannot be lost (websockets
        17.4 trips over it); the error is raised where somebody waits for it."""
        if hasattr(self, "recv_messages"):
            super().connection_lost(exc)
        self._lost = True
        self._woken.set()

    def _open(self, data: bytes) -> bytes:
        """Hand the opening to the library: what is behind its end, if it was one."""
        if not data:
            return data
        end = (self._head + data).find(b"\r\n\r\n")
        if end < 0:
            self._head = (self._head + data)[-3:]
            super().data_received(data)
            return b""
        end += 4 - len(self._head)
        super().data_received(data[:end])
        self._opened = True
        self._splitter.done = self.state is not State.OPEN  # refused: the rest is its body
        return data[end:]
