"""A TCP proxy on loopback that passes on so many bytes per second, as a slow network line does."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator

SLICE_S = 0.05


class Line:
    """Towards the client it takes ``rate`` bytes per second (None: all there are) and holds everything else back."""

    def __init__(self, port: int, rate: float | None) -> None:
        self.rate = rate
        self.port = 0
        self._server_port = port
        self._ends: list[StreamWriter] = []

    def cut(self) -> None:
        """Reset every connection: what was held back is lost."""
        for writer in self._ends:
            writer.transport.abort()
        self._ends.clear()

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Carry one connection until either end closes it."""
        up, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        self._ends += [writer, server]
        held: asyncio.Queue[bytes] = asyncio.Queue()
        with contextlib.suppress(ConnectionError, ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._take(up, held))
                tasks.create_task(self._give(held, writer))
                while data := await reader.read(1 << 16):
                    server.write(data)
                server.close()
                held.put_nowait(b"")
        for end in (writer, server):
            end.transport.abort()

    @staticmethod
    async def _take(up: StreamReader, held: asyncio.Queue[bytes]) -> None:
        while data := await up.read(1 << 16):
            held.put_nowait(data)
        held.put_nowait(b"")

    async def _give(self, held: asyncio.Queue[bytes], writer: StreamWriter) -> None:
        while data := await held.get():
            while data and not writer.is_closing():
                size = len(data) if self.rate is None else max(int(self.rate * SLICE_S), 1)
                writer.write(data[:size])
                data = data[size:]
                if self.rate is not None:
                    await asyncio.sleep(SLICE_S)
        writer.close()


@contextlib.asynccontextmanager
async def slow_line(port: int, rate: float | None) -> AsyncIterator[Line]:
    """Carry connections to a port of loopback while the block runs."""
    line = Line(port, rate)
    async with await asyncio.start_server(line.serve, "127.0.0.1", 0) as server:
        line.port = server.sockets[0].getsockname()[1]
        try:
            yield line
        finally:
            line.cut()
