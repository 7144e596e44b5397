"""The command on a terminal: a pseudo terminal of some size, what was written to it, and what it shows."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping
from typing import cast

import pyte

from . import fork_server
from .installed import COMMAND, finish
from .timeouts import TIMEOUT_S

ENTER, LEAVE, HIDE, SHOW = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25l", b"\x1b[?25h"
CLEAR = b"\x1b[2J"


class OnTerminal:
    """One process on a terminal of its own. ``raw`` is all that was written to it, ``screen`` what it shows."""

    def __init__(self, columns: int, lines: int) -> None:
        self.raw = bytearray()
        self.screen = pyte.Screen(columns, lines)
        self.master, self.slave = pty.openpty()
        self.process: Process
        self._stream = pyte.ByteStream(self.screen)
        self._came = asyncio.Event()
        self._size(columns, lines)
        self.modes = termios.tcgetattr(self.slave)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def resize(self, columns: int, lines: int) -> None:
        """As a window does that is pulled; what is on it until the next picture is of no interest."""
        self.screen.resize(lines, columns)
        self._size(columns, lines)

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    async def until(self, wanted: Callable[[], bool]) -> None:
        """Wait for what is written to make this true."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not wanted():
                    self._came.clear()
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"it shows:\n{self.text}\n{bytes(self.raw[-300:])!r}") from None

    async def shows(self, *texts: str) -> None:
        """Wait for a picture that has these."""
        await self.until(lambda: all(text in self.text for text in texts))

    def is_as_it_was(self) -> bool:
        """Whether the alternate screen is left, the cursor there, and the modes those of the beginning."""
        raw = bytes(self.raw)
        left = raw.count(ENTER) == raw.count(LEAVE) > 0 and raw.rfind(LEAVE) > raw.rfind(ENTER)
        return left and raw.rfind(SHOW) > raw.rfind(HIDE) and termios.tcgetattr(self.slave) == self.modes

    def after(self) -> str:
        """What was written after the screen was left."""
        return bytes(self.raw).rpartition(LEAVE)[2].decode()

    def _size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def _read(self) -> None:
        data = os.read(self.master, 65536)
        self.raw += data
        self._stream.feed(data)
        self._came.set()


def _own_terminal() -> None:
    fcntl.ioctl(1, termios.TIOCSCTTY, 0)


@contextlib.asynccontextmanager
async def on_terminal(
    *arguments: str,
    env: Mapping[str, str],
    columns: int = 80,
    lines: int = 24,
    driver: str = "",
) -> AsyncIterator[OnTerminal]:
    """The installed command, or a program in its place, on a terminal that is its own."""
    terminal = OnTerminal(columns, lines)
    slave = terminal.slave
    command = [sys.executable, "-c", driver] if driver else [COMMAND]
    env = {"TERM": "xterm-256color", **env}
    if arguments[:1] == ("watch",) and not driver and fork_server.suits((), env):
        terminal.process = cast("Process", await fork_server.fork_on_terminal(arguments, env, slave))
    else:
        terminal.process = await asyncio.create_subprocess_exec(
            *command, *arguments, env=env, stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=_own_terminal,
        )  # fmt: skip
    try:
        yield terminal
    finally:
        if terminal.process.returncode is None:
            terminal.process.kill()
        await terminal.process.wait()
        asyncio.get_running_loop().remove_reader(terminal.master)
        os.close(terminal.master)
        os.close(slave)


async def ended(terminal: OnTerminal) -> int:
    """Wait for the end, and for all that was written: the exit code."""
    done = await finish(terminal.process)
    drained = b"\x1b[5n"  # written behind everything else, it comes out last
    fd = os.open(os.ttyname(terminal.slave), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    os.write(fd, drained)
    os.close(fd)
    await terminal.until(lambda: terminal.raw.endswith(drained))
    del terminal.raw[-len(drained) :]
    return done.code
