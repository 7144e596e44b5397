"""What one endpoint brings, written down: items, the markers around them, and what REST adds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from . import record
from .log import FeedLogger
from .orders import Knowledge, Snapshots
from .record import Line
from .session import Opaque, Records
from .text import without
from .wire import Dialect, Item

UNKNOWN_CHANNEL = "unknown"  # of a frame that this version cannot read
QUOTING = frozenset({"detail", "reason"})  # members of markers that may have the exchange's words in them


class Recorder:
    """Writes the records of one endpoint, in the order in which they are handed in. Nothing here waits.

    Items are collected until the burst ends, and leave as one event of the logger.

    Args:
        account: its name.
        dialect: names the events.
        run: names this run of the program, in ids while there is no connection.
        knowledge: by channel; decides what is news.
        snapshots: which items of a snapshot are written.
        feed_log: where records go.
        mask: takes secrets out of a text of the exchange that a marker quotes.
        unix_ns: the wall clock.
        more: counts an item; False if no more are wanted. None: any number is.
    """

    def __init__(
        self,
        account: str,
        dialect: Dialect,
        run: str,
        *,
        knowledge: Mapping[str, Knowledge],
        snapshots: Snapshots,
        feed_log: FeedLogger,
        mask: Callable[[str], str],
        unix_ns: Callable[[], int],
        more: Callable[[], bool] | None,
    ) -> None:
        self.connection: str | None = None  # its name, while there is one
        self.written: Counter[tuple[str, str]] = Counter()  # records, by channel and event_name
        self.written_ns = 0  # when the last item was; 0: never
        self._account = account
        self._dialect = dialect
        self._run = run
        self._live_last = run  # the connection that was live last
        self._knowledge = knowledge
        self._snapshots = snapshots
        self._feed_log = feed_log
        self._mask = mask
        self._unix_ns = unix_ns
        self._more = more
        self._loggers: dict[str, FeedLogger] = {}
        self._count = 0  # of frames without a sequence, unknown frames and engine states: tells them apart
        self._lines: list[Line] = []  # of one burst, channel and type
        self._channel, self._type, self._ns = "", "", 0

    def connected(self, name: str, channels: Sequence[str]) -> None:
        """What follows comes over the connection of that name."""
        self.connection = name
        bound = self._feed_log.bind(connection=name)
        self._loggers = {channel: bound.bind(channel=channel) for channel in channels}

    def went_live(self) -> None:
        """What REST adds from here on belongs to this connection."""
        self._live_last = self.connection or self._live_last

    def disconnected(self) -> None:
        """There is no connection."""
        self.connection = None

    def write(self, records: Records, frame_ns: int) -> None:
        """One record for each item that is news, with the next :meth:`flush` or marker at the latest."""
        channel, sequence, knowledge = records.channel, records.sequence, self._knowledge[records.channel]
        if channel != self._channel or records.type != self._type or frame_ns != self._ns:
            self.flush()
            self._channel, self._type, self._ns = channel, records.type, frame_ns
        place = f"{records.type[0]}{sequence}" if sequence is not None else self._place()
        news = knowledge.snapshot(records.items, self._snapshots) if records.type == "snapshot" else None
        for index, item in enumerate(records.items):
            if not (knowledge.update(item) if news is None else next(news)):
                continue
            name = record.item_id(self._account, channel, item.identity, self.connection or "", place, index)
            self._lines.append((name, sequence, item.order_id, item.exec_id, item.data))
            if self._more is not None and not self._more():
                break

    def flush(self) -> None:
        """Hand over what was collected."""
        lines = self._lines
        if not lines:
            return
        self._lines = []
        name = self._dialect.EVENT_NAMES[self._channel]
        self._loggers[self._channel].records(name, lines, ts=record.timestamp(self._ns), type=self._type)
        self.written[self._channel, name] += len(lines)
        self.written_ns = self._ns

    def _place(self) -> str:
        """Of a frame without a sequence."""
        self._count += 1
        return f"frame{self._count}"

    def write_backfill(self, channel: str, item: Item) -> None:
        """What REST knows of an item that the feed did not bring."""
        name, now = self._dialect.EVENT_NAMES[channel], self._unix_ns()
        identity = record.item_id(self._account, channel, item.identity, self._live_last, "backfill", 0)
        line = identity, None, item.order_id, item.exec_id, item.data
        log = self._feed_log.bind(channel=channel, connection=self.connection or self._live_last)
        self.flush()
        log.records(name, [line], ts=record.timestamp(now), type="backfill")
        self.written[channel, name] += 1
        self.written_ns = now

    def write_opaque(self, opaque: Opaque, token: str) -> None:
        """A frame that nobody here knows is written whole, but for a token that it may echo."""
        frame = without(opaque.frame, token)
        self._count += 1
        self.mark(UNKNOWN_CHANNEL, "unknown", str(self._count), **record.opaque(frame, opaque.json))

    def mark(self, channel: str, event_name: str, which: str = "", **fields: object) -> None:
        """Write a marker. ``which`` tells apart several of a kind on one connection."""
        parts = (self._account, channel, self.connection or self._run, event_name, which)
        self._write_marker(channel, event_name, ":".join(filter(None, parts)), connection=self.connection, **fields)

    def mark_hole(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``, of the span between two unix times in nanoseconds."""
        since, to = None if start is None else record.timestamp(start), record.timestamp(end)
        name = f"{self._account}:{channel}:{event_name}:{since}:{to}"
        self._write_marker(channel, event_name, name, **{"from": since, "to": to}, **fields)

    def engine_changed(self, channels: Iterable[str], engine: str) -> None:
        """Write ``feed.status``."""
        self._count += 1
        for channel in channels:
            self.mark(channel, "feed.status", str(self._count), engine=engine)

    def _write_marker(self, channel: str, event_name: str, name: str, **fields: object) -> None:
        self.flush()
        self.written[channel, event_name] += 1
        now = record.timestamp(self._unix_ns())
        for key in QUOTING & fields.keys():
            fields[key] = self._mask(str(fields[key]))
        self._feed_log.bind(channel=channel).record(event_name, id=name, ts=now, **fields)
