"""Print the output of the commands that write no records."""

from __future__ import annotations

import io
import os
import sys

from ..errors import OutputFailed, ReaderGone
from ..text import PLAIN, printable_json

STDOUT = ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")  # the names of stdout as an output


def replace_unencodable() -> None:
    """Replace characters that the locale of stdout or stderr cannot encode, such as an ellipsis in a help text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def as_utf8(errors: str = "surrogateescape") -> None:
    """Switch stdout to UTF-8, regardless of the locale."""
    sys.stdout.reconfigure(encoding="utf-8", errors=errors)  # type: ignore[union-attr]  # a text file


def shown(line: str) -> str:
    """Return a line of JSON for stdout. On a terminal, control characters are escaped as in JSON."""
    return printable_json(line) if os.isatty(1) else line


def print_line(line: str) -> None:
    """Print a line on stdout. Raise the output's error if that fails."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        failure = _failure(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still buffers would fail again at exit
        raise failure from error


def write_line(line: str) -> None:
    """Write a line from a thread. While it waits for the reader, it holds no lock that the end of the process needs."""
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
    remedy = "Free space there, or redirect stdout elsewhere."
    return OutputFailed("Cannot write to stdout.", why=f"{error.strerror}.", remedy=remedy)
