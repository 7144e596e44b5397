"""Read messages from websockets' connection in bursts: each once, in order, its bytes unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

# -- text frames from a stream of WebSocket bytes, one burst per read (RFC 6455, section 5.2)
#
# The library handles every frame with all of the protocol's checks. Nearly every frame of a feed is of the simplest
# kind: one unfragmented, unmasked message without extensions. Those are split here in one pass over the bytes that the
# socket returned. Pings and pongs are passed on to the library as complete frames. From the first close, fragment or
# violation on, the library gets all bytes as they arrive.
#
#     | FINAL, kind | MASKED, length | the length, if byte 1 has 126 or 127 | payload |
#     |   1 byte    |     1 byte     |            2 or 8 bytes              |         |

TEXT, BINARY = 0x81, 0x82  # the final frame of a message, no extension bits
CONTROL = (0x88, 0x89, 0x8A)  # close, ping, pong
CLOSE = 0x88
FINAL, CONTROL_BIT = 0x80, 0x08  # in the first byte: the last frame of a message; a control frame
MASKED = 0x80  # in the length: a server must not set it


class Splitter:
    """Splits one connection's bytes into messages.

    After a close, or a frame that is neither a complete message nor a control frame, the library gets all bytes
    (``handed_over``): this keeps the messages in order. From then on :meth:`follow` sees the library's bytes.

    ``partial``: the bytes so far end within a message or a frame.
    """

    def __init__(self, max_bytes: int) -> None:
        self.handed_over = False  # from now on, all bytes go to the library
        self.partial = False
        self._header = b""  # of a frame of the library's, as far as it has arrived
        self._left = 0  # bytes of that frame that have not arrived
        self._fragments = False  # a message of the library's has begun and not ended
        self._max = max_bytes
        self._held: list[bytes] = []  # the beginning of an incomplete frame
        self._size = 0
        self._need = 0  # bytes of it that are needed before the next look

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return the messages that are complete now, and the bytes that are for the library."""
        if self._held:
            self._held.append(data)
            self._size += len(data)
            if self._size < self._need:
                return [], b""
            data = b"".join(self._held)
            self._held.clear()
        # One pass over the frame headers. An incomplete frame at the end is kept for the next call.
        messages: list[bytes] = []
        others: list[bytes] = []
        place, end = 0, len(data)
        while place + 2 <= end:
            kind, length, start = data[place], data[place + 1], place + 2
            if length == 126:
                start += 2
                if start > end:
                    break
                length = data[place + 2] << 8 | data[place + 3]
            elif length == 127:
                start += 8
                length = int.from_bytes(data[place + 2 : start])
            elif length & MASKED:
                return self._leave(messages, others, data[place:])
            if start > end:
                break
            stop = start + length
            if kind == TEXT or kind == BINARY:  # noqa: SIM109  # the hot path
                if length > self._max:
                    return self._leave(messages, others, data[place:])
                if stop > end:
                    break
                messages.append(data[start:stop])
            elif kind not in CONTROL or kind == CLOSE or length > 125:
                return self._leave(messages, others, data[place:])
            elif stop > end:
                break
            else:
                others.append(data[place:stop])
            place = stop
        self.partial = place < end
        if self.partial:
            self._hold(data[place:])
        return messages, b"".join(others)

    def follow(self, data: bytes) -> None:
        """Find the ends of the frames that the library gets. The library checks them; only their ends matter here."""
        data, self._header = self._header + data, b""
        place, end = 0, len(data)
        while place < end:
            if self._left:
                step = min(self._left, end - place)
                self._left -= step
                place += step
                continue
            second = data[place + 1] if place + 1 < end else 0
            length = second & ~MASKED
            start = place + 2 + {126: 2, 127: 8}.get(length, 0)
            stop = start + 4 * bool(second & MASKED)  # of the header
            if stop > end:
                self._header = data[place:]
                break
            if not data[place] & CONTROL_BIT:
                self._fragments = not data[place] & FINAL
            self._left = length if length < 126 else int.from_bytes(data[place + 2 : start])
            place = stop
        self.partial = self._fragments or bool(self._left or self._header)

    def _hold(self, rest: bytes) -> None:
        """Keep the beginning of a frame, and calculate how many bytes are needed before the next look."""
        self._held.append(rest)
        self._size = len(rest)
        header = 2 if len(rest) < 2 else {126: 4, 127: 10}.get(rest[1], 2)
        if len(rest) < header:
            self._need = header
        elif header == 2:
            self._need = header + rest[1]
        else:
            self._need = header + int.from_bytes(rest[2:header])

    def _leave(self, messages: list[bytes], others: list[bytes], rest: bytes) -> tuple[list[bytes], bytes]:
        self.handed_over = True
        self.follow(rest)
        return messages, b"".join([*others, rest])


AHEAD_BYTES = 128 * 1024  # of unread messages: beyond this, reading from the socket pauses


class Stream(ClientConnection):
    """The connection of websockets, with messages read in bursts.

    Simple frames are split here. The library gets the opening, pings and pongs, and everything from the first close,
    fragment or violation on.

    ``arriving`` and ``delay`` are described at :class:`kraken_feed.transport.connection.Socket`.
    """

    max_bytes: ClassVar[int] = 0  # of a message; set by :func:`dial`

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._splitter = Splitter(self.max_bytes)
        self._opened = False
        self._head = b""  # the last bytes of the opening, in case its end is split over two reads
        self._messages: list[bytes] = []
        self._bytes = 0  # approximate size of these messages
        self._paused_reading = False
        self.arriving: tuple[float, float] | None = None
        self.delay = 0.0
        self._slow = False  # a read has returned only a middle part of the message in progress
        self._lost = False
        self._cut: asyncio.TimerHandle | None = None  # when the closing handshake is given up
        self._woken = asyncio.Event()

    async def burst(self) -> Sequence[bytes]:
        """Return every message that has arrived, in order; wait for one if there is none.

        Raises:
            ConnectionClosed: no message is left, and none will come.
        """
        while not self._messages:
            if self._lost or self._splitter.handed_over:
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
        """Split the bytes that the socket received; asyncio calls this."""
        if not self._opened:
            data = self._open(data)
        splitter = self._splitter
        if splitter.handed_over:
            if data:
                self._hand_over(data)
                splitter.follow(data)
                self._note_progress(whole=not splitter.partial)
            return
        messages, others = splitter.feed(data)
        if splitter.partial or self.arriving is not None:
            self._note_progress(whole=bool(messages))
        if messages:
            self._messages += messages
            self._bytes += len(data)
            if self._bytes > AHEAD_BYTES and not self._paused_reading:
                self._paused_reading = True
                self.transport.pause_reading()
        if others:
            self._hand_over(others)
        if messages or splitter.handed_over:
            self._woken.set()

    def _hand_over(self, data: bytes) -> None:
        """Let the library handle the data. After a Close frame, or a violation of the protocol, no message comes any
        more. The library would wait for the socket's end without a limit, so set one."""
        super().data_received(data)
        if self._cut is None and self.protocol.close_expected():
            self._cut = self.loop.call_later(self.close_timeout or 0.0, self.transport.abort)

    def _note_progress(self, *, whole: bool) -> None:
        """Note the times of an incomplete message's bytes. ``whole``: these bytes also completed an earlier message.

        A message that is split over two reads is normal. One that takes three or more reads arrived slowly.
        """
        now, partial = self.loop.time(), self._splitter.partial
        since = now if self.arriving is None else self.arriving[0]
        if whole or not partial:
            self.delay += now - since if self._slow else 0.0
            since, self._slow = now, False
        else:
            self._slow = self.arriving is not None
        self.arriving = (since, now) if partial else None

    def connection_lost(self, exc: Exception | None) -> None:
        """Note that the socket is gone. If there never was one, as when TLS fails behind a proxy, the library is not
        called (websockets 17.4 would fail); the error is raised to the waiting caller."""
        if self._cut is not None:
            self._cut.cancel()
        if hasattr(self, "recv_messages"):
            super().connection_lost(exc)
        self._lost = True
        self._woken.set()

    def _open(self, data: bytes) -> bytes:
        """Hand the opening to the library, and return the bytes behind its end."""
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
        # If the upgrade was refused, the rest is the answer's body.
        self._splitter.handed_over = self.state is not State.OPEN
        return data[end:]
