"""A real rsyslogd with the shipped configuration, and a receiver for what it sends, in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple, Self

from .repository import ROOT
from .timeouts import TIMEOUT_S
from .tools import tool

SAMPLE = ROOT / "contrib" / "rsyslog" / "kraken-feed.conf"
MESSAGE = re.compile(rb"<(\d+)>1 (\S+) \S+ kraken-feed - (\S+) - (.*)", re.DOTALL)


class Message(NamedTuple):
    """One RFC 5424 message: what its header says, and the line that it carries."""

    priority: int
    time: str
    name: str
    line: bytes


class Receiver:
    """A syslog receiver on loopback, with octet counting (RFC 6587). Its port refuses until ``listen``."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._arrived = asyncio.Event()
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self._socket.close()

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._take, sock=self._socket)

    @property
    def lines(self) -> list[bytes]:
        return [message.line for message in self.messages]

    async def has(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        await self._until(lambda: len(self.messages) >= count)

    async def has_more(self, count: int) -> None:
        await self.has(len(self.messages) + count)

    async def has_one(self, wanted: Callable[[Message], bool]) -> None:
        await self._until(lambda: any(map(wanted, self.messages)))

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            while not done():
                self._arrived.clear()
                await self._arrived.wait()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                length = int(await reader.readuntil(b" "))
                found = MESSAGE.fullmatch(await reader.readexactly(length))
                assert found is not None
                priority, time, name, line = found.groups()
                self.messages.append(Message(int(priority), time.decode(), name.decode(), line))
                self._arrived.set()
        writer.close()


def configure(directory: Path, port: int, *, catch_up: bool = False) -> Path:
    """The sample with its paths in ``directory``, under a main file as Debian's. Lines are read from ``log`` there.

    ``catch_up`` uncomments the input for what was renamed while rsyslogd was down.
    """
    text = SAMPLE.read_text()
    if catch_up:
        text, count = re.subn(r"^#(?=input|      )", "", text, flags=re.MULTILINE)
        assert count > 1
    for shipped, here in (("/var/log/kraken-feed/", f"{directory}/log/"), ('port="6514"', f'port="{port}"')):
        assert shipped in text
        text = text.replace(shipped, here)
    (directory / "kraken-feed.conf").write_text(text)
    for name in ("log", "work"):
        (directory / name).mkdir(exist_ok=True)
    main = directory / "rsyslog.conf"
    main.write_text(f'global(workDirectory="{directory}/work")\ninclude(file="{directory}/kraken-feed.conf")\n')
    return main


@contextlib.asynccontextmanager
async def rsyslogd(main: Path) -> AsyncIterator[Process]:
    """The daemon in the foreground; at the end it is asked to stop, and has then written down how far it has read."""
    process = await asyncio.create_subprocess_exec(
        tool("rsyslogd"), "-n", "-f", str(main), "-i", str(main.with_name("pid")),
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await process.communicate()
        except TimeoutError:
            process.kill()
            raise


async def says(process: Process, words: str) -> None:
    """Wait for a line on the daemon's stderr."""
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        while line := await process.stderr.readline():
            if words in line.decode():
                return
    raise AssertionError(f"it never said {words!r}")
