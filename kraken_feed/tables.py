"""The checkpoint in the tables of an open database: read as a whole, written by what has changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import TypeVar

import msgspec

from .checkpoint import Changes, ChannelState, Checkpoint, Hole

BATCH = 10_000  # rows decoded at a time: a million ids are not in memory twice
MANY = 1_000  # ids to forget in one save: then it may be all of them

Row = TypeVar("Row")


def load(database: sqlite3.Connection) -> Checkpoint | None:
    """All that is in the tables; None if nothing was ever saved."""
    account = list(_rows(database, list[tuple[int, int]], "SELECT nonce, saved_ns FROM account"))
    if not account:
        return None
    channels: dict[str, ChannelState] = {}
    states: dict[int, ChannelState] = {}
    names: dict[int, str] = {}
    for number, name, whole_ns in _rows(database, list[tuple[int, str, int]], "SELECT * FROM channel ORDER BY number"):
        names[number] = name
        channels[name] = states[number] = ChannelState(whole_ns)
    of_orders = "SELECT channel, order_id, CAST(bytes AS BLOB) FROM object ORDER BY n"
    for number, order_id, data in _rows(database, list[tuple[int, str, bytes]], of_orders):
        states[number].orders.setdefault(order_id, []).append(data)
    for number, identity in _rows(database, list[tuple[int, str]], "SELECT channel, id FROM ended ORDER BY n"):
        states[number].ended.append(identity)
    for number, identity in _rows(database, list[tuple[int, str]], "SELECT channel, id FROM seen ORDER BY n"):
        states[number].seen.append(identity)
    of_holes = "SELECT channel, start_ns, end_ns, cause, connection FROM hole ORDER BY n"
    kind = list[tuple[int, int | None, int | None, str, str]]
    for number, start_ns, end_ns, cause, connection in _rows(database, kind, of_holes):
        states[number].holes.append(Hole(names[number], start_ns, end_ns, cause, connection))
    return Checkpoint(*account[0], channels)


def _rows(database: sqlite3.Connection, kind: type[list[Row]], statement: str) -> Iterator[Row]:
    """What the statement selects, if it has the types that it should have. (A text would do for bytes, as base64.)"""
    cursor = database.execute(statement)
    while rows := cursor.fetchmany(BATCH):
        yield from msgspec.convert(rows, kind)


# A table's name cannot be a parameter.
_DROP = {
    "ended": "DELETE FROM ended WHERE channel = ? AND id = ?",
    "seen": "DELETE FROM seen WHERE channel = ? AND id = ?",
}
_IDS = {
    "ended": "SELECT id FROM ended WHERE channel = ?",
    "seen": "SELECT id FROM seen WHERE channel = ?",
}
_CLEAR = {
    "ended": "DELETE FROM ended WHERE channel = ?",
    "seen": "DELETE FROM seen WHERE channel = ?",
}
_ADD = {
    "ended": "INSERT INTO ended (channel, id) VALUES (?, ?) ON CONFLICT (channel, id) DO NOTHING",
    "seen": "INSERT INTO seen (channel, id) VALUES (?, ?) ON CONFLICT (channel, id) DO NOTHING",
}


def write(database: sqlite3.Connection, changes: Changes) -> None:
    """Bring the changes into the tables. To be called within a transaction."""
    many = database.executemany
    database.execute(
        "INSERT INTO account (one, nonce, saved_ns) VALUES (1, coalesce(?, 0), ?) "
        "ON CONFLICT (one) DO UPDATE SET nonce = coalesce(?, nonce), saved_ns = excluded.saved_ns",
        (changes.nonce, changes.saved_ns, changes.nonce),
    )
    number = _numbers(database, changes)
    many("UPDATE channel SET whole_ns = ? WHERE number = ?", ((ns, number[name]) for name, ns in changes.whole.items()))

    replaced = ((number[name], order_id) for name, order_id in changes.orders)
    many("DELETE FROM object WHERE channel = ? AND order_id = ?", replaced)
    for orders in (changes.orders, changes.grown):
        objects = ((number[name], order_id, data) for (name, order_id), several in orders.items() for data in several)
        many("INSERT INTO object (channel, order_id, bytes) VALUES (?, ?, ?)", objects)

    for table, lists in (("ended", changes.ended), ("seen", changes.seen)):
        for name, ids in lists.items():
            _drop(database, table, number[name], ids.dropped)
        many(_ADD[table], ((number[name], identity) for name, ids in lists.items() for identity in ids.added))

    many("DELETE FROM hole WHERE channel = ?", ((number[name],) for name in changes.holes))
    many(
        "INSERT INTO hole (channel, start_ns, end_ns, cause, connection) VALUES (?, ?, ?, ?, ?)",
        (
            (number[name], hole.start_ns, hole.end_ns, hole.cause, hole.connection)
            for name, holes in changes.holes.items()
            for hole in holes
        ),
    )


def _drop(database: sqlite3.Connection, table: str, channel: int, dropped: Collection[str]) -> None:
    """Forget ids, all at once if nothing else is there: a burst of fills replaces everything that is remembered."""
    known = database.execute(_IDS[table], (channel,)) if len(dropped) >= MANY else None
    if known is not None and all(identity in dropped for (identity,) in known):
        database.execute(_CLEAR[table], (channel,))
    else:
        database.executemany(_DROP[table], ((channel, identity) for identity in dropped))


def _numbers(database: sqlite3.Connection, changes: Changes) -> dict[str, int]:
    """The channels by name; new ones get a number."""
    names = {*changes.whole, *changes.holes, *changes.ended, *changes.seen}
    names.update(name for name, _ in (*changes.orders, *changes.grown))
    statement = "INSERT INTO channel (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
    database.executemany(statement, ((name,) for name in sorted(names)))
    return dict(database.execute("SELECT name, number FROM channel").fetchall())
