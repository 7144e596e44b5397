"""Write the records of one endpoint, each item under an id of its own: items, markers, and what REST recovers."""

from __future__ import annotations

import secrets as entropy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..protocol.session import Opaque
from ..protocol.wire import Data, Dialect, FrameType, Item
from ..records import render
from ..records.render import Line
from ..telemetry.loggers import FeedLogger
from ..text import Mask, without
from .known_state import Knowledge, Snapshots

UNKNOWN_CHANNEL = "unknown"  # of a frame that this version cannot read
MARKED = 1_000  # ids of markers that are remembered: an id can repeat only within a few connections
QUOTING = frozenset({"detail", "reason", "engine"})  # members of markers that may have Kraken's words in them


def run_name(unix_ns: int) -> str:
    """Return a name for one run, unique over restarts: milliseconds and random digits, in hex."""
    return f"{unix_ns // 1_000_000:x}{entropy.token_hex(2)}"


@dataclass(eq=False, repr=False)
class Recorder:
    """Writes the records of one endpoint in the order of the calls. Nothing here waits.

    Items are collected until the burst ends, and written as one event of the logger. Different items always have
    different ids, also if a sequence number repeats.
    """

    account: str
    dialect: Dialect  # has the event names
    run: str  # the name of this run, for ids while there is no connection
    knowledge: Mapping[str, Knowledge]  # by channel; decides which items are new
    snapshots: Snapshots  # which items of a snapshot are written
    feed_log: FeedLogger  # where records go
    mask: Mask  # removes long secrets from what a marker quotes
    unix_ns: Callable[[], int]  # the wall clock
    blank: bool  # whether the output is an empty file: then the first snapshot of each channel is written completely
    more: Callable[[], bool] | None  # counts an item; returns False if no more are wanted. None: there is no limit

    def __post_init__(self) -> None:
        self._blank = set(self.knowledge) if self.blank and self.snapshots == "changes" else set[str]()
        self.connection: str | None = None  # its name, while there is one
        self.written: Counter[tuple[str, str]] = Counter()  # records, by channel and event_name
        self.written_ns = 0  # when the last item was written; 0: never
        self._live_last = self.run  # the connection that was live last
        self._loggers: dict[str, FeedLogger] = {}
        # By channel, the beginnings of :func:`render.item_id`.
        self._prefixes = {channel: f"{self.account}:{channel}:" for channel in self.knowledge}
        self._count = 0  # numbers the frames and items that no sequence number identifies
        self._numbers: dict[str, int] = {}  # the highest sequence of each channel's updates on this connection
        self._others: dict[tuple[str, int, str], int] = {}  # of snapshots and later epochs: channel, epoch, type
        self._marked: dict[str, int] = {}  # ids of the last markers, and how often each was wanted
        self._lines: list[Line] = []  # of one burst, channel and type
        self._channel, self._type, self._ns = "", "", 0
        self._repeated = False  # whether the output held these items already: only rows show that

    def connected(self, name: str, channels: Sequence[str]) -> None:
        """Begin to write records under the connection's name."""
        self.connection = name
        bound = self.feed_log.bind(connection=name)
        self._loggers = {channel: bound.bind(channel=channel) for channel in channels}
        self._numbers, self._others = {}, {}

    def went_live(self) -> None:
        """Write what REST recovers from here on under this connection's name."""
        self._live_last = self.connection or self._live_last

    def disconnected(self) -> None:
        """Write markers without a connection's name from here on."""
        self.connection = None

    def write(self, data: Data, frame_ns: int) -> None:
        """Write one record per item that is new, at the latest with the next :meth:`flush` or marker."""
        channel, kind, sequence = data.channel, data.type or "update", data.sequence
        if channel != self._channel or kind != self._type or frame_ns != self._ns:
            self.flush()
            self._channel, self._type, self._ns, self._repeated = channel, kind, frame_ns, False
        # An item without an identity is named by its place. The code of :func:`render.item_id` is repeated here, to
        # save a call.
        prefix, knowledge = self._prefixes[channel], self.knowledge[channel]
        if sequence is None:
            place = f"frame{self._next()}"
        elif kind == "update" and not data.epoch and sequence > self._numbers.get(channel, -1):
            self._numbers[channel] = sequence
            place = "u"
        else:
            place = self._other_place(channel, data.epoch, kind, sequence)
        news = knowledge.snapshot(data.items, self._policy(channel)) if kind == "snapshot" else None
        index = -1  # not enumerate(): nearly every frame has one item
        for item in data.items:
            index += 1
            if not (knowledge.update(item) if news is None else next(news)):
                continue
            if news is not None and knowledge.repeated is not self._repeated:
                self.flush()
                self._repeated = knowledge.repeated
            identity = item.identity
            if identity:
                name = prefix + identity
            elif place == "u":
                name = f"{prefix}{self.connection}:u{sequence}:{index}"
            else:
                name = f"{prefix}{self.connection}:{place}:{index}"
            self._lines.append((name, sequence, item.order_id, item.exec_id, item.data))
            if self.more is not None and not self.more():
                break

    def _policy(self, channel: str) -> Snapshots:
        """Return which items of the channel's next snapshot are written."""
        if channel in self._blank:
            self._blank.discard(channel)
            return "all"
        return self.snapshots

    def flush(self) -> None:
        """Write the items that were collected."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        name = self.dialect.EVENT_NAMES[self._channel]
        mark = {"repeated": True} if self._repeated else {}
        self._loggers[self._channel].records(name, lines, ts=render.timestamp(self._ns), type=self._type, **mark)
        self.written[self._channel, name] += len(lines)
        self.written_ns = self._ns

    def _other_place(self, channel: str, epoch: int, kind: FrameType, sequence: int) -> str:
        """Return a name for a frame that is not simply the next update. No other frame of this connection has it.

        It has the type's letter, the epoch if the sequence began again, and a counter if the number did not rise.
        """
        place = f"{epoch}.{kind[0]}{sequence}" if epoch else f"{kind[0]}{sequence}"
        key = channel, epoch, kind
        if key[1:] == (0, "update") or sequence <= self._others.get(key, -1):
            return f"{place}.{self._next()}"
        self._others[key] = sequence
        return place

    def _next(self) -> int:
        self._count += 1
        return self._count

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write a recovered item, under the identity that it has by now."""
        name, now = self.dialect.EVENT_NAMES[channel], self.unix_ns()
        place = "" if item.identity else f"backfill{self._next()}"
        identity = render.item_id(self.account, channel, item.identity, self._live_last, place, 0)
        line = identity, None, item.order_id, item.exec_id, item.data
        log = self.feed_log.bind(channel=channel, connection=self.connection or self._live_last)
        self.flush()
        log.records(name, [line], ts=render.timestamp(now), type="backfill")
        self.written[channel, name] += 1
        self.written_ns = now

    def write_opaque(self, opaque: Opaque, token: str) -> None:
        """Write a frame that this version does not know, without the token that it may echo."""
        frame = without(opaque.frame, token)
        self.write_marker(UNKNOWN_CHANNEL, "unknown", str(self._next()), **render.opaque(frame, opaque.json))

    def write_marker(self, channel: str, event_name: str, suffix: str = "", **fields: object) -> None:
        """Write a marker. ``suffix`` makes the ids of several markers of one kind on one connection different. If it
        does not, a counter is added."""
        parts = (self.account, channel, self.connection or self.run, event_name, suffix)
        name = self._marker_id(":".join(filter(None, parts)))
        self._write_with_id(channel, event_name, name, connection=self.connection, **fields)

    def write_outage(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap`` for an interval, in Kraken's time (unix nanoseconds). ``start`` is
        None if it is unknown."""
        since, to = None if start is None else render.timestamp(start), render.timestamp(end)
        name = self._marker_id(f"{self.account}:{channel}:{event_name}:{since}:{to}")
        self._write_with_id(channel, event_name, name, **{"from": since, "to": to}, **fields)

    def engine_changed(self, channels: Iterable[str], engine: str) -> None:
        """Write ``feed.status``."""
        suffix = str(self._next())
        for channel in channels:
            self.write_marker(channel, "feed.status", suffix, engine=engine)

    def _marker_id(self, name: str) -> str:
        """Return the id of a marker: its name, with a counter if that id was written before."""
        count = self._marked.pop(name, 0) + 1
        self._marked[name] = count
        if len(self._marked) > MARKED:
            del self._marked[next(iter(self._marked))]
        return name if count == 1 else f"{name}:{count}"

    def _write_with_id(self, channel: str, event_name: str, name: str, **fields: object) -> None:
        self.flush()
        self.written[channel, event_name] += 1
        now = render.timestamp(self.unix_ns())
        for key in QUOTING & fields.keys():
            value = fields[key]
            fields[key] = self.mask(value) if isinstance(value, str) else value
        self.feed_log.bind(channel=channel).record(event_name, id=name, ts=now, **fields)
