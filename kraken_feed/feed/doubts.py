"""What keeps outages from counting as recovered."""

from __future__ import annotations

from ..state.checkpoint import Outage


class Doubts:
    """What keeps the outages of one pass from counting as recovered, in words, by outage.

    ``final`` reasons do not go away by asking again soon. ``unasked`` is why REST could not be asked; ``wait`` says for
    how long.
    """

    def __init__(self) -> None:
        self.final: dict[int, str] = {}
        self.unasked: dict[int, str] = {}
        self.rows: set[int] = set()  # outages of which rows are late, or withheld
        self.reused: set[int] = set()  # outages of which an earlier pass, or run, has read a source or a part of it
        self.held: set[int] = set()  # outages that wait for another one
        self.uncounted: set[int] = set()  # outages whose fills have to be read again, to be added up
        self.wait = 0.0
        self._open: dict[int, list[str]] = {}

    def add(self, outage: Outage, doubt: str, *, rows: bool = False) -> None:
        """Ask again later, and if ``rows`` are missing, for everything."""
        self._open.setdefault(id(outage), []).append(doubt)
        if rows:
            self.rows.add(id(outage))

    def reason(self, outage: Outage) -> str:
        """Return every doubt about an outage as one text."""
        key = id(outage)
        doubts = [self.final.get(key, ""), *self._open.get(key, []), self.unasked.get(key, "")]
        return "; ".join(dict.fromkeys(filter(None, doubts)))
