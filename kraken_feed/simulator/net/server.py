"""Serve REST and both WebSocket dialects of an exchange on one loopback port."""

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ..exchange import Exchange
from .connection import Connection

_LONGEST_S = 1.0  # the clock is read this often even when nothing is due
_CLOSING_S = 5.0


@dataclass(eq=False, repr=False)
class Server:
    """Serves the exchange while the `async with` block runs; afterwards every socket is closed.

    There is no task: a timer and every received byte advance the exchange. `clock` returns unix
    seconds; a test that moves its own clock calls `tick` after each move. The exchange's clock may be ahead of it
    (the quirk `clock_offset`); start the exchange with that clock's time.
    """

    exchange: Exchange
    port: int = 0
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), self.host, self.port, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.tick()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended = [connection.ended for connection in self.connections]
        for connection in list(self.connections):
            connection.abort()
        if ended:
            await asyncio.wait(ended, timeout=_CLOSING_S)

    @property
    def rest_url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def ws_v1_url(self) -> str:
        return f"{'wss' if self.tls else 'ws'}://{self.host}:{self.port}"

    @property
    def ws_v2_url(self) -> str:
        return f"{self.ws_v1_url}/v2"

    def now(self) -> float:
        return self.clock() + self.exchange.world.quirks.clock_offset

    def tick(self) -> None:
        """Let the exchange advance to now, send the results, and set the next timer."""
        now = self.now()
        self.exchange.advance(now)
        for connection in list(self.connections):
            connection.read()
        for connection in list(self.connections):
            connection.send()
        pause = min(max(self.exchange.next_wakeup(now) - now, 0.001), _LONGEST_S)
        if self._server is None or not self._server.is_serving():
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(pause, self.tick)
