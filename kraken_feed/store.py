"""The checkpoint: what the output already holds, in one SQLite file an account, so that a hole can be found and closed.

It is written after the output, never before it: what is written last may be repeated, with the same ids, after a kill;
nothing is lost. A save costs what has changed, not what the account has; everything is read once, when the file is
opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

import msgspec

from .checkpoint import Changes, ChannelState, Checkpoint, Hole
from .config import Name
from .errors import ConfigError, StateFailed, StateHeld

APPLICATION_ID = int.from_bytes(b"krkf")  # in the file's header: tells our files from anybody else's
BUSY_S = 1.0  # nobody else should have the file; a person who looks into it is waited for so long
WAL_PAGES = 1000  # copied into the file when the -wal has so many: 4 MB, a few minutes of a busy account
WAL_BYTES = 8 * 1024 * 1024  # what a single large save has left of the -wal is cut back to this
SECTOR = 512  # the smallest page that SQLite has; a whole file is a multiple
MANY = 1_000  # ids to forget in one save: then it may be all of them
BATCH = 10_000  # rows decoded at a time: a million ids are not in memory twice

Step = tuple[str, ...]

# MIGRATIONS[n] takes a file from version n to n + 1; version 0 is an empty file. Add steps, never change one.
MIGRATIONS: tuple[Step, ...] = (
    (
        "CREATE TABLE account (one INTEGER PRIMARY KEY CHECK (one = 1), "
        "nonce INTEGER NOT NULL, saved_ns INTEGER NOT NULL)",
        "CREATE TABLE channel (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, "
        "whole_ns INTEGER NOT NULL DEFAULT 0)",
        "CREATE TABLE object (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, order_id TEXT NOT NULL, "
        "bytes BLOB NOT NULL)",
        "CREATE INDEX object_of_order ON object (channel, order_id)",
        "CREATE TABLE ended (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (channel, id))",
        "CREATE TABLE seen (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, id TEXT NOT NULL, UNIQUE (channel, id))",
        "CREATE TABLE hole (n INTEGER PRIMARY KEY, channel INTEGER NOT NULL, start_ns INTEGER, end_ns INTEGER, "
        "cause TEXT NOT NULL, connection TEXT NOT NULL)",
        f"PRAGMA application_id = {APPLICATION_ID}",
    ),
)

# What SQLite says when the file is not what was written, and when the file is not to blame.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WORLD = {
    sqlite3.SQLITE_AUTH, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY,
}  # fmt: skip
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK}

Row = TypeVar("Row")


class Opened(NamedTuple):
    """An open store, what it held (None: nothing was ever saved), and where a damaged file was put."""

    store: Store
    checkpoint: Checkpoint | None
    set_aside: str | None


class Store:
    """One account's state, held against other processes until it is closed, or the process ends in whatever way.

    Calls may come from any thread, and wait for each other: a save whose awaiter was cancelled still runs in its own.
    """

    def __init__(self, database: sqlite3.Connection, path: str, lock: int) -> None:
        self.path = path
        self._database = database
        self._lock = lock
        self._turn = threading.Lock()

    @classmethod
    def open(cls, directory: str, account: str, now_ns: int) -> Opened:
        """Lock and read ``account``'s state in ``directory``; both are made if they are missing.

        A damaged file is kept under another name, which ``now_ns`` (unix time) is part of, and a new one begun.

        Raises:
            StateHeld: another process has it.
            ConfigError: the directory or the file cannot be used, or a newer version has written it.
            StateFailed: the disk is full or fails.
        """
        base = os.path.join(directory, _checked(account))
        path = f"{base}.sqlite3"
        with contextlib.ExitStack() as undo, _told(path):
            os.makedirs(directory, mode=0o700, exist_ok=True)
            lock = _lock(f"{base}.lock", account)
            undo.callback(os.close, lock)
            set_aside = None
            try:
                database, checkpoint = _open(path)
            except sqlite3.DatabaseError as error:
                if _code(error) not in _DAMAGE:
                    raise
                set_aside = _set_aside(path, now_ns)
                database, checkpoint = _open(path)
            undo.pop_all()
            return Opened(cls(database, path, lock), checkpoint, set_aside)

    def save(self, changes: Changes) -> None:
        """Write what has changed: all of it, or nothing. The changes stay the caller's.

        Raises:
            StateFailed: nothing was written. Merge what comes after into these changes and try again later.
        """
        with self._turn, _told(self.path), _transaction(self._database):
            _write(self._database, changes)

    def close(self) -> None:
        """Leave one whole file behind and let go of the lock."""
        with self._turn:
            if self._lock < 0:
                return
            self._database.close()
            with contextlib.suppress(OSError):  # the pid in it is only for messages
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1


# ------------------------------------------------------------------------------------------------ opening


class _Damaged(sqlite3.DatabaseError):
    """The file is not what we wrote, though SQLite may not mind."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


def _checked(account: str) -> str:
    """The account's name, which may have come from the command line, if it can be part of a file's."""
    try:
        return msgspec.convert(account, Name)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"The account's name {account!r} cannot be the name of its state file.",
            remedy="Use up to 64 letters, digits, dots, underscores and hyphens.",
        ) from error


def _lock(path: str, account: str) -> int:
    """A descriptor that holds the lock; the kernel lets go of it with the process. The file is never removed: whoever
    waits for one that is gone would hold nothing."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 32, 0).strip().decode("ascii", "replace")
        os.close(lock)
        raise StateHeld(
            f"Another instance{f' (pid {pid})' if pid.isdigit() else ''} holds the state of the account {account!r}.",
            why=f"{path} is locked.",
            remedy="Stop the other one, or give this one a state of its own with --state DIRECTORY, "
            "or none: --no-state.",
        ) from None
    except OSError:
        os.close(lock)
        raise
    with contextlib.suppress(OSError):  # a full disk; the lock holds all the same
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _open(path: str) -> tuple[sqlite3.Connection, Checkpoint | None]:
    """Open the file, made if it is missing, bring it to our version, and read it.

    Raises:
        _Damaged: it is not what we wrote.
    """
    _make(path)
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        version = _version(database, path)
        # Committed pages stay in the -wal, unsynced, until they are copied into the file; only that waits for the disk.
        # A lost power supply so takes the last checkpoints with it, whose records are then repeated, and damages
        # nothing. FULL would wait at every save, to spare us those repeats.
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        _migrate(database, version)
        with _checking():
            checkpoint = _load(database)
        undo.pop_all()
    return database, checkpoint


def _make(path: str) -> None:
    """An empty file with mode 0600, if there is none; SQLite gives the -wal and the -shm the mode of the file."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except IsADirectoryError as error:
        raise _Damaged from error
    status = os.fstat(file)
    os.close(file)
    if not stat.S_ISREG(status.st_mode):
        raise _Damaged
    # What SQLite would pass over: it takes an empty file for a new one, and removes the -wal that is left of the old
    # one; and it fills a page that was cut with zeros, which is right only if the -wal or the -journal has the rest.
    if status.st_size < SECTOR and _size(f"{path}-wal"):
        raise _Damaged
    if status.st_size % SECTOR and not _size(f"{path}-wal") and not _size(f"{path}-journal"):
        raise _Damaged


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _version(database: sqlite3.Connection, path: str) -> int:
    """The version of a sound file of ours.

    The check reads every page but does not compare the indexes with their tables: a tenth of a second for a million
    ids, when reading them takes one. So there is no need to know whether the last run ended well.
    """
    with _checking():
        (version,) = database.execute("PRAGMA user_version").fetchone()
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (version, application, tables) == (0, 0, 0):
            return 0
        if application != APPLICATION_ID or version < 1:
            raise _Damaged
        if version <= len(MIGRATIONS) and database.execute("PRAGMA quick_check(1)").fetchall() != [("ok",)]:
            raise _Damaged
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"The state file {path} is from a newer version of kraken-feed.",
            why=f"Its layout is number {version}; this version knows them up to {len(MIGRATIONS)}.",
            remedy="Install the newer version again, or give another directory with --state; that starts without a "
            "checkpoint.",
        )
    return int(version)


def _migrate(database: sqlite3.Connection, version: int) -> None:
    """All the steps that the file lacks, or none."""
    if version == len(MIGRATIONS):
        return
    with _transaction(database):
        for statement in (statement for step in MIGRATIONS[version:] for statement in step):
            database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _set_aside(path: str, now_ns: int) -> str:
    """Rename the file, and what belongs to it, to names that nobody has; return the file's."""
    stamp = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = ("", "-wal", "-shm", "-journal")
    target, number = f"{path}.damaged-{stamp}", 1
    while any(os.path.lexists(target + part) for part in parts):
        number += 1
        target = f"{path}.damaged-{stamp}-{number}"
    for part in parts:
        if os.path.lexists(path + part):
            os.rename(path + part, target + part)
    return target


# ------------------------------------------------------------------------------------------------ reading and writing


def _load(database: sqlite3.Connection) -> Checkpoint | None:
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


def _write(database: sqlite3.Connection, changes: Changes) -> None:
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


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # after some errors SQLite has rolled back already
            database.execute("ROLLBACK")
        raise


# ------------------------------------------------------------------------------------------------ what went wrong


@contextlib.contextmanager
def _checking() -> Iterator[None]:
    """Reading what we wrote fails only if it is not what we wrote, or if the world does."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) in _WORLD:
            raise
        raise _Damaged from error
    except (msgspec.ValidationError, UnicodeDecodeError, KeyError) as error:
        raise _Damaged from error


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """The disk's errors in words, and what to do. Any other of SQLite's is a defect of ours, and passes."""
    try:
        yield
    except OSError as error:
        if error.errno not in _PASSING:
            raise ConfigError(
                f"Cannot use the state file {path}.",
                why=f"{error.filename}: {error.strerror} (errno {error.errno}).",
                remedy="Give a directory that can be written with --state, or do without a checkpoint: --no-state.",
            ) from error
        raise _failed(path, f"{error.strerror} (errno {error.errno})") from error
    except sqlite3.Error as error:
        if _code(error) not in _WORLD | _DAMAGE:
            raise
        raise _failed(path, f"{error} ({error.sqlite_errorname})") from error


def _failed(path: str, why: str) -> StateFailed:
    return StateFailed(
        f"Cannot keep the checkpoint in {path}.",
        why=f"{why}.",
        remedy="Make room or mend the disk; or give another directory with --state, or do without: --no-state.",
    )


def _code(error: sqlite3.Error) -> int | None:
    """SQLite's primary result code; None if the error is Python's own, as for text that is not UTF-8."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
