"""Write diagnostics to stderr. A stalled reader of stderr must not stop the feed; the journal gets their level."""

from __future__ import annotations

import io
import os
import select
from collections.abc import Callable, Mapping
from functools import partialmethod
from typing import TextIO

from ..records.render import encode
from ..text import PLAIN, printable_json

# syslog(3)'s numbers; journald reads them at the start of a line: sd-daemon(3)
ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Return whether the descriptor is the journal's own, and was not redirected since: systemd.exec(5)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def json_line(stream: TextIO, fields: object) -> str:
    """Return the fields as one line of JSON. On a terminal, control characters are escaped as in JSON."""
    line = encode(fields)
    return printable_json(line) if stream.isatty() else line


class Stderr:
    """Writes lines to stderr. Lines that would have to wait are dropped, and the next line says how many.

    Args:
        stream: stderr.
        environ: tells whether stderr is the journal; then every line starts with its priority, ``<4>`` for a warning.

    ``before`` returns what has to be written before a line; None if the line cannot be written now.
    """

    before: Callable[[], bytes | None]

    def __init__(self, stream: TextIO, environ: Mapping[str, str] = os.environ) -> None:
        self._stream = stream
        self.before = bytes
        self._dropped = 0
        self._poll: select.poll | None = None
        self._journal = False
        self._encoding = "utf-8"
        try:
            fd = stream.fileno()
        except (OSError, io.UnsupportedOperation):
            return
        self._journal = is_journal(fd, environ)
        if os.isatty(fd):
            self._encoding = stream.encoding  # of the locale; programs that read lines expect UTF-8
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def _say(self, text: str, priority: int) -> None:
        before = self.before()
        if before is None or (self._poll is not None and not self._poll.poll(0)):
            self._dropped += 1
            return
        text = self._marked(text, priority)
        if self._dropped:
            lost = self._marked(f"({self._dropped} lines dropped: stderr was not read)", WARNING)
            text = f"{lost}\n{text}"
            self._dropped = 0
        try:
            if self._poll is None:
                self._stream.write(text + "\n")
                self._stream.flush()
            elif not self._write_now(before + (text + "\n").encode(self._encoding, PLAIN)):
                self._dropped += 1
        except OSError:
            self._dropped += 1

    debug, info = partialmethod(_say, priority=DEBUG), partialmethod(_say, priority=INFO)
    warning, error = partialmethod(_say, priority=WARNING), partialmethod(_say, priority=ERROR)

    def _marked(self, text: str, priority: int) -> str:
        """Put the priority before every line if stderr is the journal: each line becomes an entry of its own."""
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n")) if self._journal else text

    def _write_now(self, data: bytes) -> bool:
        """Write as much as possible without waiting, and return whether that was everything. A writable pipe is certain
        to accept PIPE_BUF bytes; more at once could block."""
        assert self._poll is not None
        for start in range(0, len(data), select.PIPE_BUF):
            if not self._poll.poll(0):
                return False
            os.write(self._stream.fileno(), data[start : start + select.PIPE_BUF])
        return True
