"""Use the whole screen of a terminal, and restore it on exit.

It is written to without waiting, through an open file of our own. So a stopped terminal (Ctrl-S, a dead line) blocks
nothing else. A newer picture is written only when the one before has been accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from ..errors import UsageError

# The alternate screen, without a cursor; back again. CAN ends a sequence that was cut off.
# Source: https://invisible-island.net/xterm/ctlseqs/ctlseqs.html
ENTER = b"\x1b[?1049h\x1b[?25l\x1b[2J"
LEAVE = b"\x18\x1b[0m\x1b[?25h\x1b[?1049l"
LEAVE_S = 0.5  # for the terminal to accept that
USUAL = (80, 24)  # of a terminal that does not know its size


def check_terminal(fd: int, environ: Mapping[str, str], channels: Sequence[str]) -> None:
    """Raise UsageError unless ``fd`` is a terminal on which a screen can be drawn."""
    instead = f"For a pipe or a file: kraken-feed {' '.join(channels)} --format json"
    if not os.isatty(fd):
        raise UsageError("watch needs a terminal, but stdout is not one.", remedy=instead)
    if environ.get("TERM", "dumb") in ("", "dumb", "unknown"):
        raise UsageError(
            "watch needs a terminal that can move the cursor, but TERM says that this one cannot.",
            remedy=f"For lines, run: kraken-feed {' '.join(channels)}",
        )


class Terminal:
    """The terminal behind a descriptor. Used with ``with``: it switches to the alternate screen, and restores the
    terminal on exit.

    Typed keys are not shown, and not left for the shell; :meth:`keys` returns them.
    """

    def __init__(self, fd: int) -> None:
        self.gone = False  # it can no longer be written to
        try:
            self.fd = os.open(os.ttyname(fd), os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # another user's terminal, as after `su`: use the plain descriptor, which may block
            self.fd = os.dup(fd)
        self._loop = asyncio.get_running_loop()
        self._ours = False
        self._before: list[Any] = []  # its modes
        self._shown: list[str] = []
        self._pending = b""

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        os.close(self.fd)

    def enter(self) -> None:
        """Switch to the alternate screen, and turn off echo."""
        self._ours = True
        self.renew()
        with contextlib.suppress(termios.error):
            self._before = termios.tcgetattr(self.fd)
            modes = termios.tcgetattr(self.fd)
            modes[3] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(self.fd, termios.TCSANOW, modes)
        self._write(ENTER)

    def leave(self) -> None:
        """Restore the terminal. Calling it again does nothing."""
        if not self._ours:
            return
        self._ours = False
        self._loop.remove_writer(self.fd)
        self._pending = b""
        with contextlib.suppress(termios.error):  # after Ctrl-S the user could not see that we are gone
            termios.tcflow(self.fd, termios.TCOOFF)  # TCOON alone does not undo Ctrl-S
            termios.tcflow(self.fd, termios.TCOON)
        _write_out(self.fd, LEAVE, time.monotonic() + LEAVE_S)
        if self._before:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.fd, termios.TCSANOW, self._before)

    def size(self) -> tuple[int, int]:
        try:
            columns, lines = os.get_terminal_size(self.fd)
        except OSError:
            return USUAL
        return (columns, lines) if columns and lines else USUAL

    def renew(self) -> None:
        """Forget what is on the screen: its size has changed, or another program has written there."""
        self._shown = []

    @property
    def busy(self) -> bool:
        """Whether an earlier picture is still being written."""
        return bool(self._pending)

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines, and write only those that differ."""
        data = b"" if self._shown else b"\x1b[2J"
        for number, text in enumerate(lines):
            if number >= len(self._shown) or self._shown[number] != text:
                data += b"\x1b[%d;1H\x1b[2K%b" % (number + 1, text.encode("utf-8", "backslashreplace"))
        self._shown = list(lines)
        self._write(data)

    def keys(self) -> bytes:
        """Return the keys that were typed."""
        try:
            typed = os.read(self.fd, 1024)
        except BlockingIOError:
            return b""
        except OSError:
            typed = b""
        self.gone = self.gone or not typed
        return typed

    def _write(self, data: bytes) -> None:
        self._pending += data
        self._flush()

    def _flush(self) -> None:
        try:
            self._pending = self._pending[os.write(self.fd, self._pending) :] if self._pending else b""
        except BlockingIOError:
            pass
        except OSError:
            self.gone, self._pending = True, b""
        if self._pending:
            self._loop.add_writer(self.fd, self._flush)
        else:
            self._loop.remove_writer(self.fd)


def _write_out(fd: int, data: bytes, until: float) -> None:
    """Write all of the data, if the terminal accepts it in time."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    with contextlib.suppress(OSError):
        while data and (left := until - time.monotonic()) > 0 and poll.poll(left * 1000):
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(fd, data) :]
