"""Tell systemd the program's state: ready, alive, status, reloading, stopping. Do nothing without systemd.

The protocol is one datagram per message (``sd_notify(3)``): lines of ``NAME=value`` to the socket that
``$NOTIFY_SOCKET`` names. :class:`Notifier` sends them; :class:`Lifecycle` decides what to send and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..telemetry.stats import Program
from ..telemetry.status import program_line
from ..text import printable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

BEAT_S = 5.0  # the longest age of a status; the watchdog may need it sooner
EXTEND_S = 30.0  # six beats: systemd gives up a start only after this many are missing


class Notifier:
    """Sends messages to systemd's socket: a path, or ``@`` and a name of Linux's abstract namespace."""

    def __init__(self, address: str | None) -> None:
        self._address = _address(address or "")
        self._socket: socket.socket | None = None
        if self._address is not None:
            with contextlib.suppress(OSError):
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
                self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Send one message without waiting, and return whether the socket accepted it. Raises nothing."""
        if self._socket is None or self._address is None:
            return False
        message = "\n".join(f"{name}={printable(value)}" for name, value in fields.items())
        try:
            self._socket.sendto(message.encode(), socket.MSG_NOSIGNAL, self._address)
        except OSError:
            return False
        return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _address(name: str) -> bytes | None:
    if name.startswith("@"):
        return b"\0" + os.fsencode(name[1:])
    return os.fsencode(name) if name.startswith("/") else None  # vsock: is for virtual machines as a whole


def watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """Return the watchdog's interval for this process in seconds; None if systemd wants no watchdog."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not (usec.isascii() and usec.isdigit()) or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return float(usec) / 1e6 or None


def take(environ: MutableMapping[str, str], pid: int) -> tuple[Notifier, float | None]:
    """Return the notifier and the watchdog's seconds, and remove their variables. Otherwise a command that is started
    later, such as a password manager, could notify in our name."""
    watchdog = watchdog_s(environ, pid)
    notifier = Notifier(environ.get("NOTIFY_SOCKET"))
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        environ.pop(name, None)
    return notifier, watchdog


@dataclass(eq=False, repr=False)
class Lifecycle:
    """Notifies systemd from the start to the stop."""

    notifier: Notifier  # where the messages go
    program: Callable[[], Program]  # tells how the process is
    watchdog: float | None  # the seconds of :func:`watchdog_s`
    log: FilteringBoundLogger

    def __post_init__(self) -> None:
        self._beat = BEAT_S if self.watchdog is None else min(BEAT_S, self.watchdog / 2)
        self._changed = asyncio.Event()
        self._was_live = False  # every channel, at one time
        self._ready = False  # READY=1 was taken
        self._owed = False  # READY=1 after a reload was not taken yet
        self._stopping = False
        self._status = ""  # that was taken last
        self._overdue = ""

    async def keep_posted(self) -> None:
        """Send READY=1 once, more time for a long start, and each change of the status, until :meth:`stopping`. Send
        the watchdog's message at least every half of its interval, but only while no component is overdue."""
        while not self._stopping:
            self._changed.clear()
            self._post()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._beat):
                    await self._changed.wait()

    def changed(self) -> None:
        """Check the state now, because something may have changed, such as that every channel is live."""
        self._changed.set()

    @contextlib.contextmanager
    def reloading(self) -> Iterator[None]:
        """Report a reload around the block. Before the first READY=1 nothing is sent: it would end the start."""
        was_ready = self._ready and not self._stopping
        if was_ready:
            self.notifier.send({"RELOADING": "1", "MONOTONIC_USEC": str(time.monotonic_ns() // 1000)})
        try:
            yield
        finally:
            if was_ready and not self.notifier.send({"READY": "1"}):
                self._owed = True
                self.changed()

    def stopping(self, reason: str) -> None:
        """Send STOPPING=1, the last message, with the reason."""
        if not self._stopping:
            self._stopping = True
            self.notifier.send({"STOPPING": "1", "STATUS": f"stopping: {reason or 'a defect'}"})
            self.changed()

    def _post(self) -> None:
        program = self.program()
        self._was_live = self._was_live or program.live
        status, overdue = program_line(program), program.overdue
        self._note(overdue)
        if overdue:
            status = f"stuck: {overdue}; {status}"
        fields = {} if overdue else self._signs_of_life(ready=self._was_live and not program.output.pending_bytes)
        if status != self._status:
            fields["STATUS"] = status
        if fields and self.notifier.send(fields):
            self._ready = self._ready or "READY" in fields
            self._owed = self._owed and "READY" not in fields
            self._status = status

    def _signs_of_life(self, *, ready: bool) -> dict[str, str]:
        """Return them. Ready means that every channel has been live, and what came until then is written."""
        fields: dict[str, str] = {}
        if self._owed or (not self._ready and ready):
            fields["READY"] = "1"
        elif not self._ready:
            fields["EXTEND_TIMEOUT_USEC"] = str(round(EXTEND_S * 1e6))
        if self.watchdog is not None:
            fields["WATCHDOG"] = "1"
        return fields

    def _note(self, overdue: str) -> None:
        """Log when a part becomes overdue, and when none is any more."""
        if overdue != self._overdue:
            if overdue:
                self.log.error("part_overdue", part=overdue, watchdog=self.watchdog is not None)
            else:
                self.log.warning("part_recovered", part=self._overdue)
            self._overdue = overdue
