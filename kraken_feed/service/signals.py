"""Handle signals: stop, reopen, report."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn, Protocol

from .. import early

INTERRUPTED = 128 + signal.SIGINT


class Stoppable(Protocol):
    """A service that signals control. None of its methods waits."""

    @property
    def reopens(self) -> bool:
        """Whether there is a file to reopen."""

    def stop(self, reason: str) -> None:
        """Handle SIGTERM and SIGINT: write everything out and stop. ``reason`` is the signal's name."""

    def reopen(self) -> None:
        """Handle SIGHUP: continue in a new file at the same path."""

    def tell(self) -> None:
        """Handle SIGUSR1: report the status in one line."""


def handle_signals(service: Stoppable) -> None:
    """Send this process's signals to ``service``, in the running loop. A second signal to stop ends the process at
    once.

    If there is nothing to reopen and stdout is a terminal, SIGHUP means that the terminal has gone. After ``nohup`` it
    means nothing.
    """
    import asyncio  # loaded already, if there is a loop; without this `--version` would load it

    loop = asyncio.get_running_loop()
    terminal = os.isatty(1)  # asked now: it is unknown once the terminal has gone
    asked: list[int] = []

    def stop(number: int) -> None:
        if asked:
            end_by_signal(number)
        asked.append(number)
        service.stop(signal.Signals(number).name)

    def hang_up() -> None:
        if terminal and not service.reopens:
            stop(signal.SIGHUP)
        else:
            service.reopen()

    loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
    loop.add_signal_handler(signal.SIGINT, stop, signal.SIGINT)
    loop.add_signal_handler(signal.SIGUSR1, service.tell)
    if service.reopens or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hang_up)
    if early.hung_up():  # while the process was starting
        hang_up()


def end_by_signal(number: int) -> NoReturn:
    """End the process by the signal itself, so that shells and supervisors see it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # if the signal is blocked
