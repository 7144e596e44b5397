"""What the commands say that write no records."""

from __future__ import annotations

import io
import os
import sys

from ..errors import OutputFailed, ReaderGone
from ..text import PLAIN, printable_json


def replace_unencodable() -> None:
    """Replace what the locale of stdout or stderr cannot encode, instead of failing: an ellipsis in a help text is
    nothing to fail for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def as_utf8(errors: str = "surrogateescape") -> None:
    """Write UTF-8, whatever the environment says."""
    sys.stdout.reconfigure(encoding="utf-8", errors=errors)  # type: ignore[union-attr]  # a text file


def shown(line: str) -> str:
    """Return a line of JSON as stdout takes it: on a terminal, what could steer it is escaped as JSON does that."""
    return printable_json(line) if os.isatty(1) else line


def print_line(line: str) -> None:
    """A line on stdout, or the reason why not."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        failure = _failure(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still holds would fail once more at exit
        raise failure from error


def write_line(line: str) -> None:
    """The same from a thread: while it waits for the reader it holds nothing that the end of the process needs."""
    data = memoryview(f"{line}\n".encode("utf-8", "surrogateescape"))
    try:
        while data:
            data = data[os.write(1, data) :]
    except OSError as error:
        raise _failure(error) from error


def _failure(error: OSError) -> OutputFailed | ReaderGone:
    from ..output.descriptor import is_anonymous_pipe  # only here: a line that fails is the last

    if isinstance(error, BrokenPipeError) and is_anonymous_pipe(1):
        return ReaderGone("The reader of stdout has closed it.")
    remedy = "Make room where it leads, or lead it elsewhere."
    return OutputFailed("Cannot write to stdout.", why=f"{error.strerror}.", remedy=remedy)
