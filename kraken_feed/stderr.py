"""Where diagnostics leave. A reader of stderr that stalls must not stop the feed."""

from __future__ import annotations

import io
import os
import select
from typing import TextIO


class Stderr:
    """Lines to stderr. What would have to wait is dropped, and the next line that goes says how many."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = 0
        self._poll: select.poll | None = None
        try:
            fd = stream.fileno()
        except (OSError, io.UnsupportedOperation):
            return
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def msg(self, line: str) -> None:
        """Write one line, or drop it."""
        if self._poll is not None and not self._poll.poll(0):
            self._dropped += 1
            return
        if self._dropped:
            line = f"({self._dropped} lines dropped: stderr was not read)\n{line}"
            self._dropped = 0
        try:
            if self._poll is None:
                self._stream.write(line + "\n")
                self._stream.flush()
            elif not self._write_now((line + "\n").encode("utf-8", "backslashreplace")):
                self._dropped += 1
        except OSError:
            self._dropped += 1

    def _write_now(self, data: bytes) -> bool:
        """Write what goes without waiting; whether it was all. A pipe that can be written to takes so much for
        certain, and a longer line would wait for the rest."""
        assert self._poll is not None
        for start in range(0, len(data), select.PIPE_BUF):
            if not self._poll.poll(0):
                return False
            os.write(self._stream.fileno(), data[start : start + select.PIPE_BUF])
        return True

    debug = info = warning = error = critical = msg
