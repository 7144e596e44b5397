"""Find out from an output file where an outage starts, when the checkpoint is gone.

The outage starts at the newest record that shows the channel live, or at an earlier outage of the file that has no
``feed.backfilled`` or ``feed.gap``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from ..records import render
from ..records.view import moment, parse, value

LIMIT_BYTES = 64 * 1024 * 1024  # read from the end, in a second or two at most; some 100,000 records
BLOCK = 1024 * 1024

_TIMES = ("timestamp", "lastupdated", "time", "closetm", "opentm")  # of v2 and v1, in `data`
_QUOTED = [b'"%b"' % name.encode() for name in _TIMES]
_MARKER = b'"event_name":"feed.'
_SEQUENCE = b'"sequence":'
_ANSWERS = ("feed.backfilled", "feed.gap")
_OF_SILENT = ("restart", "state_missing")  # causes of outages without a `feed.lost`
FOREVER = 1 << 63


class LastRecord(msgspec.Struct, frozen=True):
    """The last record of a channel up to which its output is complete.

    ``ts_ns`` is the record's ``ts``, by the clock of the machine that wrote it. ``kraken_ns`` is the time at Kraken of
    the newest item up to there that has one. ``connection`` is the record's. All times are unix nanoseconds.
    """

    ts_ns: int
    kraken_ns: int | None
    connection: str | None

    def start_ns(self) -> int:
        """Return the latest time at which the outage can have started."""
        return self.ts_ns if self.kraken_ns is None else min(self.ts_ns, self.kraken_ns)


class _Line(msgspec.Struct):
    """The members of a line that are read."""

    ts: str
    event_name: str
    account: str
    channel: str
    type: str = ""
    connection: str | None = None
    sequence: int = 0
    last_ts: str | None = None
    start: str | None = msgspec.field(default=None, name="from")
    end: str = msgspec.field(default="", name="to")
    cause: str = ""
    data: msgspec.Raw = msgspec.Raw()


_decode = msgspec.json.Decoder(_Line).decode


def last_records(
    path: str, account: str, channels: Iterable[str], limit_bytes: int = LIMIT_BYTES
) -> dict[str, LastRecord]:
    """Return, by channel, the last record up to which the file's last ``limit_bytes`` are complete.

    Channels without a record there are left out, and all channels if the file cannot be read. Incomplete lines and
    those of other programs are ignored.
    """
    histories = {
        b'"account":%b,"channel":%b' % (render.text(account), render.text(channel)): _ChannelHistory(account, channel)
        for channel in channels
    }
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return {}
        for line in _lines_backwards(path, limit_bytes):
            for mark, history in histories.items():
                if mark in line:
                    history.take(line)
    except OSError:
        return {}
    return {history.channel: last for history in histories.values() if (last := history.last()) is not None}


class _Answer(NamedTuple):
    """The interval of a ``feed.backfilled`` or a ``feed.gap``, in Kraken's time, and the cause of the outage."""

    start_ns: int  # 0: unknown
    end_ns: int
    cause: str


class _LiveSign(msgspec.Struct):
    """The last sign that the channel was live before an outage, or before the end of the file."""

    ts_ns: int
    connection: str | None
    lost_ns: int = 0  # of a `feed.lost`: up to when, in Kraken's time, nothing was missing; 0: there is no `feed.lost`
    kraken_ns: int | None = None
    dated: bool = False  # whether an update has Kraken's time


class _ChannelHistory:
    """The records of one channel, the newest first: where each outage started, and the answers to them.

    The *answer* to an outage is the ``feed.backfilled`` or ``feed.gap`` that was written for it.

    Only a ``feed.live`` and an update show that the channel was live. A snapshot, a ``feed.status`` and a backfill can
    be written before it is, and so can an update on a connection that never became live.
    """

    def __init__(self, account: str, channel: str) -> None:
        self.channel = channel
        self._account = account
        self._starts: list[_LiveSign] = []
        self._answers: set[_Answer] = set()
        self._wanted = True  # the next sign that the channel was live is a start
        self._unproven = b""  # the connection of the newest start, as long as its `feed.live` was not found
        self._oldest = b""  # the oldest line of an item so far

    def take(self, data: bytes) -> None:
        """Add the next older line, which may be this channel's."""
        if _SEQUENCE in data:
            self._oldest = data
        if not self._matters(data):
            return
        try:
            line = _decode(data)
        except (msgspec.DecodeError, RecursionError):
            return
        ns = moment(line.ts)
        if (line.account, line.channel) != (self._account, self.channel) or not ns:
            return
        if line.event_name in _ANSWERS:
            self._answers.add(_Answer(moment(line.start or ""), moment(line.end), line.cause))
        elif line.event_name == "feed.lost":
            self._take_lost(line, ns)
        elif line.event_name == "feed.live" or line.type == "update":
            self._take_sign(line, ns)
        # Backfills do not count: they are not in the order of their times.
        if line.type in ("update", "snapshot") and not self._dated():
            found = _kraken_time(line.data)
            start = self._starts[-1]
            start.kraken_ns = max(found, start.kraken_ns or 0) or None
            start.dated = line.type == "update" and found > 0

    def last(self) -> LastRecord | None:
        """Return where the oldest outage without an answer started, or else the newest sign that the channel was live.

        If the oldest connection has no ``feed.live`` here, that may be in the previous (rotated) file. But if this file
        has the connection's first frames, the connection never became live, so it is left out.
        """
        if self._unproven and self._unproven in self._oldest and _sequence(self._oldest) <= 2:
            self._starts.pop()
        if not self._starts:
            return None
        start = _oldest_unanswered(self._starts[1:], self._answers, self._starts[0].lost_ns or FOREVER)
        start = start or self._starts[0]
        return LastRecord(start.ts_ns, start.kraken_ns, start.connection)

    def _matters(self, data: bytes) -> bool:
        """Return whether the line may be needed. Most are not, and decoding takes most of the time."""
        if self._wanted or _MARKER in data or (self._unproven and self._unproven not in data):
            return True
        return not self._dated() and any(name in data for name in _QUOTED)

    def _dated(self) -> bool:
        return not self._starts or self._starts[-1].dated

    def _take_lost(self, line: _Line, ns: int) -> None:
        """Start an outage at the ``last_ts`` of a ``feed.lost``, not at later records."""
        if self._unproven:
            self._starts.pop()
        lost_ns = moment(line.last_ts or "")
        self._starts.append(_LiveSign(lost_ns or ns, line.connection, lost_ns))
        self._wanted, self._unproven = False, b""

    def _take_sign(self, line: _Line, ns: int) -> None:
        connection = b'"connection":%b' % render.text(line.connection or "")
        # The lines come newest first. The newer ones belong to a connection without a `feed.live`: they prove nothing.
        if self._unproven not in (b"", connection):
            self._starts.pop()
            self._wanted = True
        if self._wanted:
            self._starts.append(_LiveSign(ns, line.connection))
            self._wanted, self._unproven = False, connection
        if line.event_name == "feed.live":  # an older sign belongs to the outage before this connection
            self._wanted, self._unproven = True, b""


def _oldest_unanswered(starts: Sequence[_LiveSign], answers: Iterable[_Answer], newer_lost_ns: int) -> _LiveSign | None:
    """Return the oldest outage without an answer; None if all have one. ``starts`` are in order, the newest first.

    An outage with a ``feed.lost`` is answered by an interval around its ``last_ts``. An interval answers only one
    outage, because the next outage may start within it. An outage without a ``feed.lost`` (the process was killed) has
    no time by Kraken's clock, so it cannot be matched with one answer. All such outages between two ``feed.lost`` count
    as unanswered, unless at least as many answers with the cause ``restart`` or ``state_missing`` lie in between.
    """
    # Match the outages that have a `feed.lost`, the oldest first.
    unused, unanswered = sorted(answers, key=lambda answer: answer.end_ns), list[_LiveSign]()
    for start in reversed(starts):
        if start.lost_ns:
            answer = next((a for a in unused if a.start_ns <= start.lost_ns <= a.end_ns), None)
            unanswered += [start] if answer is None else []
            unused = [other for other in unused if other is not answer]
    # Count the others between two `feed.lost`, the newest first. The last element stands for the file's beginning.
    silent: list[_LiveSign] = []
    for start in [*starts, _LiveSign(0, None)]:
        if start.ts_ns and not start.lost_ns:
            silent.append(start)
            continue
        between = [a for a in unused if a.cause in _OF_SILENT and start.lost_ns < a.end_ns <= newer_lost_ns]
        unanswered += silent if len(between) < len(silent) else []
        newer_lost_ns, silent = start.lost_ns, []
    return max(unanswered, key=starts.index, default=None)


def _sequence(data: bytes) -> int:
    """Return the sequence of the line's frame; 0 if it has none."""
    try:
        return _decode(data).sequence
    except (msgspec.DecodeError, RecursionError):
        return 0


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
