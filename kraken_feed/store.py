"""The checkpoint: what the output already holds, in one SQLite file an account, so that a hole can be found and closed.

It is written after the output, never before it: what is written last may be repeated, with the same ids, after a kill;
nothing is lost. A save costs what has changed, not what the account has, but for the rewriting of a long journal;
everything is read once, when the file is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from . import tables
from .checkpoint import Changes, Checkpoint
from .config import Name
from .errors import ConfigError, StateFailed, StateHeld

APPLICATION_ID = int.from_bytes(b"krkf")  # in the file's header: tells our files from anybody else's
BUSY_S = 1.0  # nobody else should have the file; a person who looks into it is waited for so long
WAL_PAGES = 1000  # copied into the file when the -wal has so many: 4 MB, a few minutes of a busy account
WAL_BYTES = 8 * 1024 * 1024  # what a single large save has left of the -wal is cut back to this
SECTOR = 512  # the smallest page that SQLite has; a whole file is a multiple

CACHE_KIB = 256  # nothing is read again, once the file is open
JOURNAL_BYTES = 1024 * 1024  # appended since it was last written anew: then that is worthwhile, if it was no longer

Step = tuple[str, ...] | Callable[[sqlite3.Connection], None]

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
    tables.to_journal,
)

# What SQLite says when the file is not what was written, and when the file is not to blame.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_WORLD = {
    sqlite3.SQLITE_AUTH, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY,
}  # fmt: skip
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK}


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
        self._base = 0  # bytes of the journal when it was last written anew
        self._appended = tables.journal_bytes(database)

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

    @property
    def long(self) -> bool:
        """Whether a save of everything anew is due: the journal has grown to twice what it was."""
        return self._appended > max(JOURNAL_BYTES, self._base)

    def save(self, changes: Changes) -> None:
        """Write what has changed: all of it, or nothing. The changes stay the caller's.

        Raises:
            StateFailed: nothing was written. Merge what comes after into these changes and try again later.
        """
        with self._turn, _told(self.path):
            if changes.anew:
                self._base = 2 * self._appended  # until the next attempt, should this one find no room
            with _transaction(self._database):
                size = tables.write(self._database, changes)
                whole = tables.journal_bytes(self._database) if changes.anew else self._base
            self._base, self._appended = whole, 0 if changes.anew else self._appended + size

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
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA secure_delete = OFF")  # some builds overwrite what is deleted with zeros
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        _migrate(database, version)
        with _checking():
            checkpoint = tables.load(database)
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

    The check reads every page; what is in the journal has checksums of its own. So there is no need to know whether the
    last run ended well.
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
        for step in MIGRATIONS[version:]:
            if callable(step):
                with _checking():
                    step(database)
            else:
                for statement in step:
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
    except (msgspec.DecodeError, ValueError, KeyError) as error:
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
