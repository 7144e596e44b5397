"""Query Kraken's history for outages, and decide for which of them it is complete.

All times are Kraken's, in unix nanoseconds; those of a query are in unix seconds, as REST requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from zlib import crc32

from ..config.schema import BackfillConfig
from ..state.checkpoint import Outage, Scan
from ..transport.kraken_clock import NS, KrakenClock
from .backfill import Caller, Page, Row, Source, Span
from .pages import LONGEST, SKEW_S, read_pages

AHEAD_S = 60.0  # long enough that a busy account has a newer row than the outage; more would cost pages

Take = Callable[[Row, Mapping[str, int]], None]


class _RowCount:
    """Counts the rows of a query that are new. Pages can repeat rows. Rows of the last page that an earlier run has
    read are not counted again."""

    def __init__(self, scan: Scan) -> None:
        self._last_page = frozenset(scan.page)  # of the earlier run: the first page may overlap with it
        self._seen: set[tuple[str | None, bytes]] = set()

    def add(self, rows: Sequence[Row]) -> int:
        """Count the rows of a page; return how many of them are new."""
        known = len(self._seen)
        new = (row.item for row in rows if crc32(row.item.data) not in self._last_page)
        self._seen.update((item.identity, item.data) for item in new)
        return len(self._seen) - known


@dataclass(eq=False, repr=False)
class Scanner:
    """The queries of one account's history.

    A source counts as complete for an outage once it was read to its end and had caught up with the outage's end.
    """

    config: BackfillConfig  # the overlap, and when REST has usually caught up
    rest: Caller
    clock: KrakenClock
    begun: InitVar[Iterable[Scan]]  # queries that an earlier run has begun
    changed: Callable[[], None]  # called when a scan has changed, for the checkpoint

    def __post_init__(self, begun: Iterable[Scan]) -> None:
        self.scans: dict[str, Scan] = {scan.source: scan for scan in begun}
        self.resumed = self.scans.copy()
        self.longest_ns = int(LONGEST * self.config.second_pass_s * NS)

    def from_ns(self, source: Source, outage: Outage) -> int:
        """Return the time from which the source has to be read for the outage."""
        assert outage.end_ns is not None  # only ended outages are asked for
        start = outage.end_ns if outage.start_ns is None else outage.start_ns
        return max(start, outage.complete.get(source.name, 0))

    def _needed_from(self, source: Source, outage: Outage) -> float:
        """Return :meth:`from_ns` less a margin, because the feed may send events a little out of order."""
        known = outage.complete.get(source.name, 0)
        overlap = min(SKEW_S, self.config.overlap_s) if known > (outage.start_ns or 0) else self.config.overlap_s
        return self.from_ns(source, outage) - overlap * NS

    def serves(self, scan: Scan, source: Source, outage: Outage) -> bool:
        """Return whether a query has everything that the outage needs from this source."""
        assert outage.end_ns is not None  # only ended outages are asked for
        return scan.start * NS <= self.from_ns(source, outage) and scan.channels.get(outage.channel, 0) >= outage.end_ns

    def caught_up(self, scan: Scan, outage: Outage) -> int:
        """Return up to when the source is complete, by what the scan has seen.

        Rows become visible in the order of their times: all rows that are older than the newest one are there. If no
        row is newer than the outage, only waiting helps.
        """
        assert outage.end_ns is not None  # only ended outages are asked for
        late_enough = scan.began_ns >= outage.end_ns + self.longest_ns
        return max(scan.newest_ns, outage.end_ns + 1 if late_enough else 0)

    def proven(self, source: Source, outage: Outage) -> bool:
        """Return whether the source was read, and had caught up with the outage's end."""
        assert outage.end_ns is not None  # only ended outages are asked for
        return outage.complete.get(source.name, 0) > outage.end_ns

    async def read(self, source: Source, outages: Sequence[Outage], span: Span | None, take: Take) -> tuple[Scan, int]:
        """Read a source page by page up to the empty page. An interrupted query continues where it stopped.

        Args:
            source: what to read.
            outages: what it is read for.
            span: what the key may see.
            take: called with each row, and the channels for which it is read.

        Returns the finished scan, and the number of rows that Kraken counts but did not return.

        Raises:
            FeedError: a page was refused, or REST did not answer; the scan is kept.
            NotUnderstood: the pages repeat themselves.
        """
        scan = self._begin(source, outages, span)
        is_counted = scan.offset == 0 or scan.returned > 0  # a scan that an earlier version saved has no number of rows
        count = _RowCount(scan)

        def take_page(page: Page) -> int:
            for row in page.rows:
                take(row, scan.channels)
            return count.add(page.rows)

        newest = (self.clock.latest() or 0) + SKEW_S * NS
        await read_pages(self.rest, source, scan, take_page, self.changed, newest_ns=newest, late_ns=self.longest_ns)
        del self.scans[source.name]
        self.changed()
        return scan, max(0, scan.counted - scan.returned) if scan.counted is not None and is_counted else 0

    def _begin(self, source: Source, outages: Sequence[Outage], span: Span | None) -> Scan:
        """Return the query that was interrupted, if it serves one of the outages, or a new one for all of them."""
        scan, now = self.scans.get(source.name), self.clock.latest()
        began = 0 if self.clock.assumed else self.clock.earliest() or 0  # an assumed time proves nothing
        if (
            scan is not None
            and scan.offset
            and began < scan.began_ns + self.longest_ns  # else it proves little
            and any(self.serves(scan, source, outage) for outage in outages)
        ):
            return scan
        first, last = (0, None) if span is None else (span.from_s, span.to_s or None)
        start = min(self._needed_from(source, outage) for outage in outages) / NS
        # Rows newer than the outages prove that history has caught up. So the query ends a minute after the last outage
        # has ended, and with each further try ten times later. Its end is fixed: rows come newest first, and new ones
        # would shift the pages. Without a clock it has no end; then pages repeat rows.
        newest = max((o.end_ns or 0) + int(AHEAD_S * 10.0 ** min(o.tries, 4) * NS) for o in outages)
        end = last
        if now is not None:
            end = math.ceil(min(now, newest) / NS)
            end = end if last is None else min(end, last)
        channels: dict[str, int] = {}
        for outage in outages:
            channels[outage.channel] = max(channels.get(outage.channel, 0), outage.end_ns or 0)
        scan = Scan(source.name, max(first, math.floor(start)), end, began, channels)
        self.scans[source.name] = scan
        return scan
