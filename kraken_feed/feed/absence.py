"""Find out from an output file where an outage begins, when the checkpoint is gone.

The records that the file holds are the last evidence: up to the newest one nothing was missing, unless the file itself
shows an outage that nothing after it answers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

import msgspec

from ..records import render
from ..records.view import moment, parse, value

LIMIT_BYTES = 64 * 1024 * 1024  # read from the end, in a second or two at most; some 100,000 records
BLOCK = 1024 * 1024

_TIMES = ("timestamp", "lastupdated", "time", "closetm", "opentm")  # of v2 and v1, in `data`
_QUOTED = [b'"%b"' % name.encode() for name in _TIMES]
_MARKER = b'"event_name":"feed.'
_ANSWERS = ("feed.backfilled", "feed.gap")


class Last(msgspec.Struct, frozen=True):
    """The last record of a channel up to which its output is complete.

    ``ts_ns`` is the record's ``ts``, by the clock of the machine that wrote it. ``kraken_ns`` is Kraken's own time of
    the newest item up to there that has one; ``connection`` the record's. All times are unix nanoseconds.
    """

    ts_ns: int
    kraken_ns: int | None
    connection: str | None

    def start_ns(self) -> int:
        """Return when the outage begins, at the latest: Kraken's time if it is known."""
        return self.ts_ns if self.kraken_ns is None else min(self.ts_ns, self.kraken_ns)


class _Line(msgspec.Struct):
    """What of a line is looked at."""

    ts: str
    event_name: str
    account: str
    channel: str
    type: str = ""
    connection: str | None = None
    last_ts: str | None = None
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Line).decode


def last_records(path: str, account: str, channels: Iterable[str], limit_bytes: int = LIMIT_BYTES) -> dict[str, Last]:
    """Return, by channel, the last record up to which the file's last ``limit_bytes`` show nothing missing.

    Channels without a record there are left out. So is everything if the file cannot be read. Lines that are not ours,
    or are torn, are passed over.
    """
    trails = {
        b'"account":%b,"channel":%b' % (render.text(account), render.text(channel)): _Trail(account, channel)
        for channel in channels
    }
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return {}
        for line in _lines_backwards(path, limit_bytes):
            for mark, trail in trails.items():
                if mark in line:
                    trail.take(line)
            if all(trail.over for trail in trails.values()):
                break
    except OSError:
        return {}
    return {trail.channel: last for trail in trails.values() if (last := trail.last()) is not None}


class _Trail:
    """The records of one channel, the newest first.

    An outage lies before every ``feed.live`` and after every ``feed.lost``. If a ``feed.backfilled`` or a ``feed.gap``
    comes after it was over, it was answered. The order in the file is what counts, since those can name the times of
    another clock.
    """

    def __init__(self, account: str, channel: str) -> None:
        self.channel = channel
        self.over = False
        self._account = account
        self._searching = True  # for an outage without an answer
        self._answered = False  # what was over before the line that comes next
        self._wanted = True  # the next record is the one before an outage, or the newest
        self._ts_ns = 0
        self._connection: str | None = None
        self._kraken_ns: int | None = None
        self._dated = False  # whether an update has told Kraken's time

    def take(self, data: bytes) -> None:
        """Take in the next older line that may be this channel's."""
        if self.over or not self._matters(data):
            return
        try:
            line = _decode(data)
        except (msgspec.DecodeError, RecursionError):
            return
        ns = moment(line.ts)
        if (line.account, line.channel) != (self._account, self.channel) or not ns:
            return
        if self._searching:
            self._search(line, ns)
        # What REST has added is not in the order of its times: newer rows can be there, and older ones not yet.
        if not self._dated and line.type in ("update", "snapshot"):
            found = _kraken_time(line.data)
            self._kraken_ns = max(found, self._kraken_ns or 0) or None
            self._dated = line.type == "update" and found > 0
        self.over = self._dated and not self._searching

    def last(self) -> Last | None:
        """Return what was found."""
        return Last(self._ts_ns, self._kraken_ns, self._connection) if self._ts_ns else None

    def _matters(self, data: bytes) -> bool:
        """Return whether the line may tell something: most do not, and decoding takes most of the time."""
        if self._searching and (self._wanted or self._answered or _MARKER in data):
            return True
        return not self._dated and any(name in data for name in _QUOTED)

    def _search(self, line: _Line, ns: int) -> None:
        if line.event_name in _ANSWERS:  # it can be written while the channel is not live, and shows nothing of that
            self._answered = True
            return
        if line.event_name == "feed.lost":
            # Kraken was last heard before: that is where this outage begins, whatever was written since.
            self._begin(moment(line.last_ts or "") or ns, line.connection)
        elif self._wanted:
            self._begin(ns, line.connection)
        self._wanted = line.event_name == "feed.live"
        self._searching = not self._answered

    def _begin(self, ns: int, connection: str | None) -> None:
        """Everything newer may be incomplete."""
        self._ts_ns, self._connection = ns, connection
        self._kraken_ns, self._dated = None, False


def _kraken_time(data: msgspec.Raw) -> int:
    """Return the newest of an item's own times; 0 if it has none."""
    fields = parse(data)
    return max(moment(value(fields, name)) for name in _TIMES)


def _lines_backwards(path: str, limit_bytes: int) -> Iterator[bytes]:
    """Yield the complete lines within the file's last ``limit_bytes``, the newest first."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        first = max(0, end - limit_bytes)
        rest: list[bytes] = []  # of a line that begins in an earlier block, the end first
        while end > first:
            start = max(first, end - BLOCK)
            file.seek(start)
            head, *lines = file.read(end - start).split(b"\n")
            if lines:
                lines[-1] = b"".join([lines[-1], *reversed(rest)])
                yield from reversed(lines)
                rest = []
            rest.append(head)
            end = start
        if first == 0:
            yield b"".join(reversed(rest))
