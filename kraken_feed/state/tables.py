"""Read the checkpoint from the tables of an open database, and write the changes.

Orders, fills and ended orders are in a journal: each save appends one entry per channel, encoded as MessagePack, with
its checksum. A row per order and id would cost as much as the rest of the program. From time to time the journal is
rewritten with fewer entries. Outages and scans are one row each, encoded in the same way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar
from zlib import crc32

import msgspec

from .checkpoint import CallLevel, Changes, ChannelState, Checkpoint, Entry, Known, Outage, Scan

BATCH = 10_000  # rows decoded at a time
ORDERS, IDS = 20, 2_000  # in one row: small blocks do not fragment the heap, and other threads run in between

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_outage = msgspec.msgpack.Decoder(Outage).decode
_decode_scan = msgspec.msgpack.Decoder(Scan).decode


def load(database: sqlite3.Connection) -> Checkpoint | None:
    """Read the checkpoint from the tables; return None if nothing was ever saved.

    Raises:
        msgspec.DecodeError, ValueError, KeyError: it is not what was written.
    """
    kind = list[tuple[int, int, float | None, int | None]]
    account = list(_rows(database, kind, "SELECT nonce, saved_ns, level, level_ns FROM account"))
    if not account:
        return None
    nonce, saved_ns, level, level_ns = account[0]
    found = Checkpoint(nonce, saved_ns)
    if level is not None and level_ns is not None:
        found.counter = CallLevel(level, level_ns)
    states: dict[int, ChannelState] = {}
    names: dict[int, str] = {}
    of_channels = "SELECT number, name, complete_ns, legacy FROM channel ORDER BY number"
    for number, name, complete_ns, legacy in _rows(database, list[tuple[int, str, int, int]], of_channels):
        names[number] = name
        found.channels[name] = states[number] = ChannelState(complete_ns)
        found.legacy = found.legacy or legacy != 0
    for number, encoded in _verified_rows(database, "SELECT channel, checksum, entry FROM journal ORDER BY n"):
        _decode_entry(encoded).apply(states[number])
    for state in found.channels.values():
        state.ended, state.seen = _once(state.ended), _once(state.seen)
    for number, encoded in _verified_rows(database, "SELECT channel, checksum, outage FROM outage ORDER BY n"):
        outage = _decode_outage(encoded)
        outage.channel = names[number]
        states[number].outages.append(outage)
    for _, encoded in _verified_rows(database, "SELECT 0, checksum, scan FROM scan ORDER BY n"):
        found.scans.append(_decode_scan(encoded))
    return found


def _once(ids: list[Known]) -> list[Known]:
    """Return each id once, at its last place, with the last checksum that came with it."""
    last: dict[str, Known] = {}
    for known in ids:
        name = known if isinstance(known, str) else known[0]
        before = last.pop(name, known)
        last[name] = before if isinstance(known, str) else known
    return list(last.values())


def _verified_rows(database: sqlite3.Connection, statement: str) -> Iterator[tuple[int, bytes]]:
    """Yield the rows of the statement, a number and the value that :func:`_encoded` encoded. Raise ValueError if a
    checksum is wrong."""
    for row in database.execute(statement):
        number, checksum, encoded = msgspec.convert(row, tuple[int, int, bytes])
        if crc32(encoded, number) != checksum:
            raise ValueError("a row is not what was written")
        yield number, encoded


def _rows(database: sqlite3.Connection, kind: type[list[T]], statement: str) -> Iterator[T]:
    cursor = database.execute(statement)
    while rows := cursor.fetchmany(BATCH):
        yield from msgspec.convert(rows, kind)


def journal_bytes(database: sqlite3.Connection) -> int:
    (size,) = database.execute("SELECT coalesce(sum(length(entry)), 0) FROM journal").fetchone()
    return int(size)


def write(database: sqlite3.Connection, changes: Changes) -> int:
    """Write the changes into the tables, within the caller's transaction. Return how many bytes the journal grew."""
    many = database.executemany
    level, level_ns = (None, None) if changes.counter is None else (changes.counter.level, changes.counter.at_ns)
    database.execute(
        "INSERT INTO account (one, nonce, saved_ns, level, level_ns) VALUES (1, coalesce(:nonce, 0), :saved, "
        ":level, :level_ns) ON CONFLICT (one) DO UPDATE SET nonce = coalesce(:nonce, nonce), saved_ns = :saved, "
        "level = coalesce(:level, level), level_ns = coalesce(:level_ns, level_ns)",
        {"nonce": changes.nonce, "saved": changes.saved_ns, "level": level, "level_ns": level_ns},
    )
    number = _numbers(database, changes)
    complete = ((ns, number[name]) for name, ns in changes.complete.items())
    many("UPDATE channel SET complete_ns = ?, legacy = 0 WHERE number = ?", complete)

    many("DELETE FROM journal WHERE channel = ?", ((number[name],) for name in changes.replaced))
    size = sum(_append(database, number[name], entry) for name, entry in changes.entries.items())

    many("DELETE FROM outage WHERE channel = ?", ((number[name],) for name in changes.outages))
    for name, outages in changes.outages.items():
        _add_outages(database, number[name], outages)
    if changes.scans is not None:
        database.execute("DELETE FROM scan")
        rows = (_encoded(0, scan)[1:] for scan in changes.scans)
        many("INSERT INTO scan (checksum, scan) VALUES (?, ?)", rows)
    return size


def _append(database: sqlite3.Connection, channel: int, entry: Entry) -> int:
    """Append an entry to the journal, and return its length in bytes."""
    size = 0
    for part in _parts(entry):
        row = _encoded(channel, part)
        size += len(row[2])
        database.execute("INSERT INTO journal (channel, checksum, entry) VALUES (?, ?, ?)", row)
    return size


def _add_outages(database: sqlite3.Connection, channel: int, outages: Iterable[Outage]) -> None:
    rows = (_encoded(channel, outage) for outage in outages)
    database.executemany("INSERT INTO outage (channel, checksum, outage) VALUES (?, ?, ?)", rows)


def _encoded(number: int, value: Entry | Outage | Scan) -> tuple[int, int, bytes]:
    """Return the number, a checksum of the number and the value, and the encoded value."""
    try:
        encoded = _encode(value)
    except UnicodeEncodeError:
        encoded = _encode(_escaped(msgspec.to_builtins(value, builtin_types=(bytes,))))
    return number, crc32(encoded, number), encoded


def _escaped(value: Any) -> Any:
    """Replace lone surrogates, which UTF-8 cannot carry, by their escapes, as on the lines of the output."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_escaped(inner) for inner in value]
    return value


def _parts(entry: Entry) -> Iterator[Entry]:
    """Yield the entry in parts of a bounded size, to be applied in their order."""
    for orders in _slices(entry.orders.items(), ORDERS):
        yield Entry(orders=dict(orders))
    for grown in _slices(entry.grown.items(), ORDERS):
        yield Entry(grown=dict(grown))
    for ended in _slices(entry.ended, IDS):
        yield Entry(ended=ended)
    for seen in _slices(entry.seen, IDS):
        yield Entry(seen=seen)


def _slices(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _numbers(database: sqlite3.Connection, changes: Changes) -> dict[str, int]:
    """Return the channels' numbers by name; new channels get a number."""
    names = {*changes.complete, *changes.outages, *changes.entries, *changes.replaced}
    statement = "INSERT INTO channel (name) VALUES (?) ON CONFLICT (name) DO NOTHING"
    database.executemany(statement, ((name,) for name in sorted(names)))
    return dict(database.execute("SELECT name, number FROM channel").fetchall())


# ------------------------------------------------------------------------------------------------ older versions


def to_journal(database: sqlite3.Connection) -> None:
    """Migrate from version 1, which had a row for each object and id, to version 2."""
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


def to_outages(database: sqlite3.Connection) -> None:
    """Migrate from version 2 to version 3.

    The old times are of this machine's wall clock, so ``legacy`` is set for every channel until its time is saved
    again.
    """
    for statement in (
        "ALTER TABLE account ADD COLUMN level REAL",
        "ALTER TABLE account ADD COLUMN level_ns INTEGER",
        "ALTER TABLE channel RENAME COLUMN whole_ns TO complete_ns",
        "ALTER TABLE channel ADD COLUMN legacy INTEGER NOT NULL DEFAULT 0",
        "UPDATE channel SET legacy = 1",
        "CREATE TABLE outage (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, checksum INTEGER NOT NULL, "
        "outage BLOB NOT NULL)",
        "CREATE TABLE scan (n INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, scan BLOB NOT NULL)",
    ):
        database.execute(statement)
    names = dict(_rows(database, list[tuple[int, str]], "SELECT number, name FROM channel"))
    kind = list[tuple[int, int | None, int | None, str]]
    outages = "SELECT channel, start_ns, end_ns, cause FROM hole ORDER BY n"
    for number, start_ns, end_ns, cause in list(_rows(database, kind, outages)):
        _add_outages(database, number, [Outage(names[number], start_ns, cause, end_ns)])
    database.execute("DROP TABLE hole")
