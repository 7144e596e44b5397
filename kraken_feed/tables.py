"""The checkpoint in the tables of an open database: read as a whole, written by what has changed.

What is known of orders, fills and ended orders is a journal: each save appends one entry for a channel, encoded as
MessagePack, with its checksum. A row for each order and id would cost as much as the rest of the tail. From time to
time the journal is written anew, as what it has come to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar
from zlib import crc32

import msgspec

from .checkpoint import Changes, ChannelState, Checkpoint, Entry, Hole

BATCH = 10_000  # rows decoded at a time
ORDERS, IDS = 20, 2_000  # in one row: small blocks leave no holes in the heap, and other threads go on between two

Row = TypeVar("Row")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def load(database: sqlite3.Connection) -> Checkpoint | None:
    """All that is in the tables; None if nothing was ever saved.

    Raises:
        msgspec.DecodeError, ValueError, KeyError: it is not what was written.
    """
    account = list(_rows(database, list[tuple[int, int]], "SELECT nonce, saved_ns FROM account"))
    if not account:
        return None
    channels: dict[str, ChannelState] = {}
    states: dict[int, ChannelState] = {}
    names: dict[int, str] = {}
    for number, name, whole_ns in _rows(database, list[tuple[int, str, int]], "SELECT * FROM channel ORDER BY number"):
        names[number] = name
        channels[name] = states[number] = ChannelState(whole_ns)
    for row in database.execute("SELECT channel, checksum, entry FROM journal ORDER BY n"):
        number, checksum, entry = msgspec.convert(row, tuple[int, int, bytes])
        if crc32(entry, number) != checksum:
            raise ValueError("an entry of the journal is not what was written")
        _decode(entry).apply(states[number])
    for state in channels.values():
        state.ended, state.seen = _once(state.ended), _once(state.seen)
    of_holes = "SELECT channel, start_ns, end_ns, cause, connection FROM hole ORDER BY n"
    kind = list[tuple[int, int | None, int | None, str, str]]
    for number, start_ns, end_ns, cause, connection in _rows(database, kind, of_holes):
        states[number].holes.append(Hole(names[number], start_ns, end_ns, cause, connection))
    return Checkpoint(*account[0], channels)


def _once(ids: list[str]) -> list[str]:
    """Each where it stands last."""
    return list(dict.fromkeys(reversed(ids)))[::-1]


def _rows(database: sqlite3.Connection, kind: type[list[Row]], statement: str) -> Iterator[Row]:
    """What the statement selects, if it has the types that it should have. (A text would do for bytes, as base64.)"""
    cursor = database.execute(statement)
    while rows := cursor.fetchmany(BATCH):
        yield from msgspec.convert(rows, kind)


def journal_bytes(database: sqlite3.Connection) -> int:
    """How long the journal is."""
    (size,) = database.execute("SELECT coalesce(sum(length(entry)), 0) FROM journal").fetchone()
    return int(size)


def write(database: sqlite3.Connection, changes: Changes) -> int:
    """Bring the changes into the tables: the bytes that the journal got. To be called within a transaction."""
    many = database.executemany
    database.execute(
        "INSERT INTO account (one, nonce, saved_ns) VALUES (1, coalesce(?, 0), ?) "
        "ON CONFLICT (one) DO UPDATE SET nonce = coalesce(?, nonce), saved_ns = excluded.saved_ns",
        (changes.nonce, changes.saved_ns, changes.nonce),
    )
    number = _numbers(database, changes)
    many("UPDATE channel SET whole_ns = ? WHERE number = ?", ((ns, number[name]) for name, ns in changes.whole.items()))

    many("DELETE FROM journal WHERE channel = ?", ((number[name],) for name in changes.anew))
    size = sum(_append(database, number[name], entry) for name, entry in changes.entries.items())

    many("DELETE FROM hole WHERE channel = ?", ((number[name],) for name in changes.holes))
    many(
        "INSERT INTO hole (channel, start_ns, end_ns, cause, connection) VALUES (?, ?, ?, ?, ?)",
        (
            (number[name], hole.start_ns, hole.end_ns, hole.cause, hole.connection)
            for name, holes in changes.holes.items()
            for hole in holes
        ),
    )
    return size


def _append(database: sqlite3.Connection, channel: int, entry: Entry) -> int:
    """Write an entry of the journal, and say how long it is."""
    size = 0
    for part in _parts(entry):
        encoded = _encode(part)
        size += len(encoded)
        row = channel, crc32(encoded, channel), encoded
        database.execute("INSERT INTO journal (channel, checksum, entry) VALUES (?, ?, ?)", row)
    return size


def _parts(entry: Entry) -> Iterator[Entry]:
    """The entry in parts of a bounded size, to be taken in their order."""
    for orders in _slices(entry.orders.items(), ORDERS):
        yield Entry(orders=dict(orders))
    for grown in _slices(entry.grown.items(), ORDERS):
        yield Entry(grown=dict(grown))
    for ended in _slices(entry.ended, IDS):
        yield Entry(ended=ended)
    for seen in _slices(entry.seen, IDS):
        yield Entry(seen=seen)


def _slices(items: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _numbers(database: sqlite3.Connection, changes: Changes) -> dict[str, int]:
    """The channels by name; new ones get a number."""
    names = {*changes.whole, *changes.holes, *changes.entries}
    statement = "INSERT INTO channel (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
    database.executemany(statement, ((name,) for name in sorted(names)))
    return dict(database.execute("SELECT name, number FROM channel").fetchall())


# ------------------------------------------------------------------------------------------------ older versions


def to_journal(database: sqlite3.Connection) -> None:
    """From version 1, which had a row for each object and id, to version 2."""
    database.execute(
        "CREATE TABLE journal (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, checksum INTEGER NOT NULL, "
        "entry BLOB NOT NULL)"
    )
    states: dict[int, ChannelState] = {}
    of_orders = "SELECT channel, order_id, CAST(bytes AS BLOB) FROM object ORDER BY n"
    for number, order_id, data in _rows(database, list[tuple[int, str, bytes]], of_orders):
        states.setdefault(number, ChannelState()).orders.setdefault(order_id, []).append(data)
    for number, identity in _rows(database, list[tuple[int, str]], "SELECT channel, id FROM ended ORDER BY n"):
        states.setdefault(number, ChannelState()).ended.append(identity)
    for number, identity in _rows(database, list[tuple[int, str]], "SELECT channel, id FROM seen ORDER BY n"):
        states.setdefault(number, ChannelState()).seen.append(identity)
    for number, state in states.items():
        _append(database, number, Entry(orders=state.orders, ended=state.ended, seen=state.seen))
    for table in ("object", "ended", "seen"):
        database.execute(f"DROP TABLE {table}")
