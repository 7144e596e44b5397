"""Signals in the first half second of a process, while its modules are loaded and nothing can answer them yet.

This is the first module that the command loads: what a signal does by default is to kill.
"""

import os
import signal
import sys
from types import FrameType

UNDONE = ("call", "check")  # commands that have not done what they were asked for when SIGTERM comes early

_hung_up = False  # whether SIGHUP has come and was not answered


def receive(words: list[str]) -> None:
    """Take signals from here on. ``words`` is the command line.

    SIGTERM ends the process with 0, or by the signal for a command that then has not done its work. SIGINT ends it by
    the signal, without a traceback. SIGHUP is remembered, SIGUSR1 ignored. What the parent had ignored stays so.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until somebody can answer it
    signal.signal(signal.SIGTERM, signal.SIG_DFL if command(words) in UNDONE else _leave)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, _remember)


def interruptible() -> None:
    """Let SIGINT raise KeyboardInterrupt from here on: somebody catches it now."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def expect_hangups(expected: bool, *, reopens: bool) -> None:
    """Say what SIGHUP means to the command, once it is known.

    If it is ``expected``, it waits until somebody asks for it with :func:`hung_up`. ``reopens`` is whether there is a
    file to reopen: then it counts after ``nohup``, too. Otherwise it ends the process, also if it has come already.
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
    """Return whether a SIGHUP is still to be answered, and forget it."""
    global _hung_up  # a signal has nobody else to tell
    answered, _hung_up = _hung_up, False
    return answered


def command(words: list[str]) -> str:
    """Return the word that is the command, before anything is imported that knows them: only how loud to be may
    precede it."""
    return next((word for word in words if word not in ("-q", "--quiet", "-v", "--verbose")), "")


def _remember(number: int, frame: FrameType | None) -> None:
    global _hung_up  # as above
    _hung_up = True


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)  # nothing to write out yet, and nothing to prevent
