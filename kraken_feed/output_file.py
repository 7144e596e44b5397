"""The file of ``--output``: opened to append, its torn last line set aside."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from .errors import OutputFailed
from .outlet import sole_writer

LONGEST_LINE = 64 * 1024 * 1024  # a frame nobody knows, and some base64
BLOCK = 64 * 1024


class Torn(NamedTuple):
    """A last line that was set aside: its length in bytes, and the file that has it now."""

    bytes: int
    kept_as: str


def open_output(path: str, mended: Callable[[Torn], None] | None = None) -> int:
    """A descriptor that appends to the file at ``path``, made with mode 0640 if it is missing.

    A last line that is torn is moved to ``path.torn``, and ``mended`` is told. It is one if its line feed is missing,
    were it valid JSON otherwise: what was not whole on the disk is in no checkpoint, and is written again. A tail of
    NULs, which a power cut can leave, is torn too. While another process writes to the file, its last line is left
    alone.

    A FIFO needs a reader: without O_NONBLOCK, opening would wait for one, and take no signal meanwhile.

    Raises:
        OutputFailed: it cannot be opened or mended.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        try:
            torn = _mend(fd, path) if stat.S_ISREG(os.fstat(fd).st_mode) else None
        except OSError:
            os.close(fd)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_open(path, error) from error
    if torn is not None and mended is not None:
        mended(torn)
    return fd


def _cannot_open(path: str, error: OSError | ValueError) -> OutputFailed:
    why = f"{error.strerror} (errno {error.errno})." if isinstance(error, OSError) else f"{error}."
    return OutputFailed(
        f"Cannot open the output file {path}.",
        why=why,
        remedy="Check the path and its permissions, or give another with --output.",
    )


def _mend(fd: int, path: str) -> Torn | None:
    """Take a last line that a kill or a crash has torn out of a file, and keep it beside: the first line of this run
    would become a part of it, and neither could be read."""
    with sole_writer(fd) as sole:
        size = os.fstat(fd).st_size
        if not sole or size == 0:
            return None
        whole = whole_lines(path, size)
        if whole is None or whole == size:
            return None
        kept_as = f"{path}.torn"
        _keep(path, whole, kept_as)
        os.ftruncate(fd, whole)
        return Torn(size - whole, kept_as)


def whole_lines(path: str, size: int) -> int | None:
    """Where the last whole line of the file ends; None if there is none within the longest line: no file of ours."""
    with open(path, "rb") as file:
        end, seen = size, 0
        while end > 0:
            start = max(0, end - BLOCK)
            file.seek(start)
            block = file.read(end - start)
            feed = block.rfind(b"\n")
            if feed >= 0:
                return start + feed + 1
            seen += len(block.strip(b"\0"))
            if seen > LONGEST_LINE:
                return None
            end = start
    return 0


def _keep(path: str, start: int, kept_as: str) -> None:
    """Append what begins at ``start`` to another file, as a line, and wait until the disk has it."""
    with (
        open(path, "rb") as file,
        open(kept_as, "ab", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o640)) as kept,
    ):
        file.seek(start)
        while block := file.read(BLOCK):
            kept.write(block)
        kept.write(b"\n")
        kept.flush()
        os.fsync(kept.fileno())
