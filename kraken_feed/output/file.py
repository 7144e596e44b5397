"""Open the file of ``--output`` to append, and set its torn last line aside."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from ..errors import OutputFailed, OutputUnavailable
from .descriptor import sole_writer
from .disk import passes

LONGEST_LINE = 64 * 1024 * 1024  # enough for the largest unknown frame in base64
BLOCK = 64 * 1024


class Torn(NamedTuple):
    """A torn last line that was moved aside: its length in bytes, and the file that has it now."""

    bytes: int
    kept_as: str


def open_output(path: str, on_torn: Callable[[Torn], None] | None = None) -> int:
    """Open the file at ``path`` to append, and return its descriptor. A missing file is created with mode 0640.

    A torn last line is moved to ``path.torn``, and ``on_torn`` is called. A line without a line feed is torn, even
    if it is JSON: no checkpoint has it, so it is written again. NULs at the end, which a power cut can leave, are torn,
    too. While another process writes to the file, the last line is not moved.

    A FIFO needs a reader: without O_NONBLOCK, opening would wait for one, and ignore signals meanwhile.

    Raises:
        OutputFailed: it cannot be opened, or its torn line cannot be moved; OutputUnavailable if that may pass by
            itself.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
        torn = None
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                torn = _set_torn_aside(fd, path)
                os.lseek(fd, 0, os.SEEK_END)  # so that the offset is the end of our last line before the first write
        except OSError:
            os.close(fd)
            raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _cannot_open(path, error) from error
    if torn is not None and on_torn is not None:
        on_torn(torn)
    return fd


def _cannot_open(path: str, error: OSError | ValueError) -> OutputFailed:
    unavailable = path and isinstance(error, OSError) and passes(error)
    return (OutputUnavailable if unavailable else OutputFailed)(
        f"Cannot open the output file {path}.",
        why=f"{error.strerror} (errno {error.errno})." if isinstance(error, OSError) else f"{error}.",
        remedy="Check the path and its permissions, or give another with --output.",
    )


def read_removed(fd: int, start: int, limit: int) -> bytes | None:
    """Return the file's content from the offset ``start`` on (the beginning of a line), even if it was deleted.

    None if that is impossible: the file was truncated, may not be read, or has more than ``limit`` bytes, or the system
    is not Linux.
    """
    try:
        length = os.lseek(fd, 0, os.SEEK_CUR) - start
        if not 0 <= length <= limit:
            return None
        before = min(start, 1)
        with open(f"/proc/self/fd/{fd}", "rb") as file:  # a descriptor of its own: ours cannot read
            file.seek(start - before)
            data = file.read(before + length)
    except OSError:
        return None
    whole = len(data) == before + length and data[:before] in (b"", b"\n")
    return data[before:] if whole else None


def _set_torn_aside(fd: int, path: str) -> Torn | None:
    """Move a torn last line, left by a kill or a crash, to a file beside this one. Otherwise the next line would be
    appended to it, and neither could be read."""
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
    """Return the offset at which the last complete line ends; None if no line ends within the length of the longest
    line, since the file is not ours then."""
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
    """Append everything from the offset ``start`` to the file ``kept_as``, as a line, and sync it."""
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
