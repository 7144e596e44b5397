"""Handle signals in the first half second of a process, while its modules are loaded and nothing else can handle
them.

This is the first module that the command loads, because by default a signal kills.
"""

import os
import signal
import sys
from types import FrameType

UNDONE = ("call", "check", "history")  # commands that have not done their work when SIGTERM comes early

_hung_up = False  # whether a SIGHUP came and was not handled


def receive(words: list[str]) -> None:
    """Handle signals from now on. ``words`` is the command line.

    SIGTERM ends the process with 0, or by the signal if the command has not done its work. SIGINT ends it by the
    signal, without a traceback. SIGHUP is remembered, SIGUSR1 ignored. Signals that the parent had ignored stay
    ignored.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until it can be handled
    signal.signal(signal.SIGTERM, signal.SIG_DFL if command(words) in UNDONE else _leave)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _remember)


def interruptible() -> None:
    """Let SIGINT raise KeyboardInterrupt from now on: the caller catches it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def expect_hangups(expected: bool, *, reopens: bool) -> None:
    """Set what SIGHUP means to the command, once that is known.

    If it is ``expected``, it is kept for :func:`hung_up`. If ``reopens``, there is a file to reopen: then SIGHUP is
    handled even if the parent (``nohup``) has ignored it. If it is not expected, it ends the process, even if it has
    come already.
    """
    ours = signal.getsignal(signal.SIGHUP) is _remember
    if expected:
        if reopens and not ours:
            signal.signal(signal.SIGHUP, _remember)
    elif ours:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if hung_up():
            os.kill(os.getpid(), signal.SIGHUP)


def hung_up() -> bool:
    """Return whether a SIGHUP still has to be handled, and forget it."""
    global _hung_up  # a signal handler has no object to note it in
    answered, _hung_up = _hung_up, False
    return answered


def command(words: list[str]) -> str:
    """Return the word that is the command, without importing the commands. Only verbosity options may precede it."""
    return next((word for word in words if word not in ("-q", "--quiet", "-v", "--verbose")), "")


def _remember(number: int, frame: FrameType | None) -> None:
    global _hung_up  # as above
    _hung_up = True


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)  # there is nothing to write out yet
