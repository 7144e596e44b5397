"""Read one list of Kraken's history page by page, up to the empty page. The recovery and `history` do it the same way.

All times are Kraken's, in unix nanoseconds; those of a query are in unix seconds, as REST requires.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from zlib import crc32

from ..errors import NotUnderstood
from ..state.checkpoint import Scan
from ..transport.kraken_clock import NS
from . import backfill
from .backfill import Caller, Page, Source

SKEW_S = 10.0  # by how much the clock of Kraken's engine may be ahead of the clock in its responses
LONGEST = 10.0  # times second_pass_s: how late history may be


async def read_pages(
    rest: Caller,
    source: Source,
    scan: Scan,
    take: Callable[[Page], int],
    moved: Callable[[], None],
    *,
    newest_ns: float,
    late_ns: int,
) -> None:
    """Read the rest of a query, and note in ``scan`` how far it has come. An interrupted query continues where it
    stopped.

    Args:
        rest: makes the calls.
        source: what to read.
        scan: the query.
        take: called with each page; returns how many of its rows the query had not returned before.
        moved: called after each page, when the scan has its new offset.
        newest_ns: a row that is newer is from the future, and proves nothing.
        late_ns: how late history may be, in nanoseconds.

    Raises:
        FeedError: a page was refused, or REST did not answer; the scan stays at that page.
        NotUnderstood: the pages repeat themselves; the scan is at its first page again.
    """
    repeats = 0  # pages in a row without a new row
    while True:
        page = await backfill.page(rest, source, scan.start, scan.end, scan.offset)
        if page.count is not None:
            scan.counted = page.count if scan.counted is None else min(scan.counted, page.count)
        if not page.rows:
            return
        for row in page.rows:
            if row.time_ns is not None and row.time_ns <= newest_ns:
                scan.newest_ns = max(scan.newest_ns, row.time_ns)
        new = take(page)
        if scan.offset == 0:
            _pin(scan, late_ns)
        scan.offset += page.length
        scan.returned += new
        scan.page = [crc32(row.item.data) for row in page.rows]
        moved()
        # Kraken may count fills before it merges them. So up to PAGE pages in a row can bring nothing new.
        repeats = 0 if new else repeats + 1
        if repeats > backfill.PAGE:
            scan.offset, scan.returned, scan.counted, scan.page = 0, 0, None, []
            raise NotUnderstood(f"{source.method}: its pages repeat themselves.")


def _pin(scan: Scan, late_ns: int) -> None:
    """End a query at the newest row of its first page. While history is late, more rows become visible before the end,
    and would shift the pages."""
    if scan.newest_ns and scan.began_ns < max(scan.channels.values()) + late_ns:
        newest = math.ceil(scan.newest_ns / NS)
        scan.end = newest if scan.end is None else min(scan.end, newest)
