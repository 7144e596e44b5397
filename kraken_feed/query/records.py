"""Turn the rows of a query into records: the same ids as those of the feed, type ``backfill``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..config.schema import CHANNELS, DIALECTS
from ..feed.backfill import sources_of
from ..records import render
from .spool import KINDS, Spool, SpooledRow


def records(spool: Spool, account: str, channels: Sequence[str]) -> Iterator[tuple[SpooledRow, dict[str, Any]]]:
    """Yield each row of the period with the fields of its record, the oldest first. A row that is on several of the
    channels has a record for each.

    The same spool always yields the same records, ``ts`` included: a result that was interrupted can be continued.
    """
    assert spool.period is not None  # the rows were read for it
    common = {"v": render.SCHEMA_VERSION, "account": account, "type": "backfill", "connection": spool.period.run}
    kinds = {channel: {KINDS[source.key] for source in sources_of(channel)} for channel in channels}
    names = {channel: DIALECTS[CHANNELS[channel]].EVENT_NAMES[channel] for channel in channels}
    for row in spool.result():
        ids = {"order_id": row.order_id, "exec_id": row.exec_id}
        given = {name: value for name, value in ids.items() if value is not None}
        ts = render.timestamp(row.ts_ns)
        for channel in channels:
            if row.kind in kinds[channel]:
                name = render.item_id(account, channel, row.identity, "", "", 0)
                own = {"id": name, "ts": ts, "event_name": names[channel], "channel": channel}
                yield row, {**common, **own, **given, "data": row.data}
