"""Ids that the output holds, bounded, and what the feed brought under each of them.

An id is a claim: the feed can bring two different items under one. So the CRC-32 of the bytes is remembered with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .checkpoint import Known

# What is known of an id that comes (again), see :meth:`Remembered.add`.
Standing = Literal["new", "known", "repeat", "other"]

_NEVER = -1  # no CRC-32 is negative


class Remembered:
    """A bounded set of ids, the oldest forgotten first: the last ``limit`` at least, three times as many at most.

    It has two generations; when the new one is full, the old one is forgotten completely. Each id has the CRC-32 of the
    bytes that an update of the feed brought under it, or None if it came only by a snapshot or from REST: their bytes
    differ from an update's although they tell the same fact.
    """

    def __init__(self, limit: int, ids: Sequence[Known] = ()) -> None:
        self._limit = limit
        self._old: dict[str, int | None] = {}
        self._new: dict[str, int | None] = {}
        self._added: list[Known] = []  # since the last take()
        for known in ids[-2 * limit :]:
            name, crc = (known, None) if isinstance(known, str) else known
            before = self._old.pop(name, None)  # and put behind the others
            self._old[name] = before if crc is None else crc

    def __contains__(self, name: object) -> bool:
        return name in self._new or name in self._old

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def add(self, name: str, crc: int | None = None) -> Standing:
        """Remember an id, and return what was known of it.

        ``new``: nothing. ``repeat``: an update brought the same bytes before. ``other``: an update brought other bytes
        before; those stay the ones that are remembered. ``known``: one of the two did not come by an update, so their
        bytes cannot be compared.

        Knowing an id again makes it new again, so that what every snapshot repeats is never the oldest.
        """
        new = self._new
        before = new.get(name, _NEVER)
        fresh = before != _NEVER
        if not fresh:
            before = self._old.get(name, _NEVER)
        kept = crc if before == _NEVER or before is None else before
        if not fresh or kept != before:
            new[name] = kept
            self._added.append(name if kept is None else (name, kept))
            if len(new) >= self._limit:
                self._old, self._new = new, {}
                if len(self._added) > 2 * self._limit:
                    del self._added[: -2 * self._limit]  # forgotten by now
        if before == _NEVER:
            return "new"
        if before is None or crc is None:
            return "known"
        return "repeat" if before == crc else "other"

    def crc(self, name: str) -> int | None:
        """Return the CRC-32 of what an update brought under an id; None if no update has."""
        found = self._new.get(name)
        return self._old.get(name) if found is None else found

    def take(self) -> list[Known]:
        """Return what was added since the last call, the oldest first."""
        taken, self._added = self._added, []
        return _storable(taken)

    def everything(self) -> list[Known]:
        """Return all of them, the oldest first."""
        both = {name: crc for name, crc in self._old.items() if name not in self._new} | self._new
        return _storable([name if crc is None else (name, crc) for name, crc in both.items()])


def _storable(ids: list[Known]) -> list[Known]:
    """Leave out ids with lone surrogates, which no database takes: what has such an id is written again after a
    restart."""
    names = "".join([known if isinstance(known, str) else known[0] for known in ids])
    if names.isascii():  # as all of Kraken's
        return ids
    return [known for known in ids if is_storable(known if isinstance(known, str) else known[0])]


def is_storable(name: str) -> bool:
    """Return whether a name can be encoded as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
