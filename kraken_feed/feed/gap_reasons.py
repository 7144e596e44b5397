"""The reasons in ``feed.gap``, with what each means and what to do first.

docs/errors.md is generated from this table. Several reasons of one gap are joined with ``;``. A reason can also be
Kraken's own text or a network error, which no table can list.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

SHOWN = 20  # order ids in a reason, at most


class GapReason(Enum):
    """One reason. ``text`` has braces for what is filled in."""

    def __init__(self, text: str, means: str, first: str) -> None:
        self.text = text
        self.means = means
        self.first = first

    def format(self, *fields: object) -> str:
        """Return the text with its fields filled in."""
        return self.text.format(*fields)

    UNKNOWN_END = (
        "Kraken does not say how these orders ended: {}",
        "the orders were open before the outage and are not open now. REST does not know them",
        "look them up at Kraken, if no `feed.backfilled` follows",
    )
    STILL_OPEN = (
        "Kraken's history calls these orders open, its snapshot lacks them: {}",
        "Kraken contradicts itself. Usually its history is late",
        "nothing for an hour; then look them up at Kraken",
    )
    UNKNOWN_STATE = (
        "these orders are in a state that this version does not know ({}): {}",
        "Kraken has a new state, named in the brackets",
        "look for a newer version; the records of these orders are in the output",
    )
    FILLS_MISSING = (
        "the fills of these orders do not add up to what was executed: {}",
        "Kraken says that more was executed than its fills show",
        "nothing for an hour; then look up their fills at Kraken",
    )
    ROWS_MISSING = (
        "{} counts {} rows more than it returns",
        "a page of Kraken's history lacks rows that Kraken counts",
        "nothing for an hour; then look at Kraken's own history",
    )
    KEY_LIMITED = (
        "the API key may only query {}",
        "the key's settings limit its history, and the interval lies outside of the limits",
        "remove the limit in Kraken's settings: the next attempt uses the new limit",
    )
    SWITCHED_OFF = (
        "backfill is switched off",
        "`--no-backfill`, or `backfill.enabled = false`. The gap is not tried again",
        "switch backfill on, if gaps matter",
    )
    UNKNOWN_BEGINNING = (
        "its beginning is not known ({})",
        "the checkpoint was lost, or the clocks contradicted each other. The cause is in the brackets. What could "
        "be found is in the output. The gap is not tried again",
        "look at Kraken's history since the last run",
    )
    STOPPED_BEFORE = (
        "the process was stopped before the outage was recovered, and keeps no state",
        "with `--no-state`, the next run does not know of the outage",
        "keep a state",
    )


def shown_ids(ids: Iterable[str]) -> str:
    """Return the ids as text; of many, only the first."""
    names = sorted(ids)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
