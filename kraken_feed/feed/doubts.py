"""Collect the reasons why outages do not count as recovered."""

from __future__ import annotations

from ..state.checkpoint import Outage


class Doubts:
    """The reasons why the outages of one pass do not count as recovered, in words, by the outage's ``id()``.

    A pass is one round of REST queries. A ``final`` reason will not go away within an hour, so the gap is declared at
    once. ``unanswered`` is why REST did not answer, ``wait`` the seconds until the next attempt.
    """

    def __init__(self) -> None:
        self.final: dict[int, str] = {}
        self.unanswered: dict[int, str] = {}
        # Sets of outages:
        self.with_missing_rows: set[int] = set()  # REST's rows are late or missing
        self.partly_read_before: set[int] = set()  # an earlier pass or run has read a source, at least in part
        self.waiting: set[int] = set()  # for another outage
        self.to_read_again: set[int] = set()  # all fills have to be read in one run, to be added up
        self.wait = 0.0
        self._open: dict[int, list[str]] = {}

    def add(self, outage: Outage, doubt: str, *, rows: bool = False) -> None:
        """Add a doubt. If ``rows`` are missing, the next pass reads everything again."""
        self._open.setdefault(id(outage), []).append(doubt)
        if rows:
            self.with_missing_rows.add(id(outage))

    def reason(self, outage: Outage) -> str:
        """Return every doubt about an outage as one text."""
        key = id(outage)
        doubts = [self.final.get(key, ""), *self._open.get(key, []), self.unanswered.get(key, "")]
        return "; ".join(dict.fromkeys(filter(None, doubts)))
