"""Select the rows to show: those of some pairs, and of some kinds of events."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ..records.pairs import pair_key
from ..text import word

# What a row can be selected by: the record's kind, or the status that the row shows. Kraken writes it in any case.
KINDS = ("order", "trade", "execution", "balance")
STATUSES = ("pending", "open", "closed", "pending_new", "new", "partially_filled", "filled", "canceled", "expired")


class Selection(NamedTuple):
    """The rows to show. Markers and unknown frames are always shown."""

    pairs: Collection[str] = ()  # keys of :func:`pair_key`; none: all pairs
    events: Collection[str] = ()  # of KINDS and STATUSES; none: all events

    def shows(self, pair: str, *events: str) -> bool:
        """Return whether to show an item that is each of these events. An unknown pair may be a wanted one."""
        return (not self.pairs or not pair or pair_key(pair) in self.pairs) and (
            not self.events or any(word(event) in self.events for event in events)
        )


EVERYTHING = Selection()
