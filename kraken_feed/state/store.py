"""Keep the checkpoint of an account and an output in a SQLite file (:mod:`.place` has its name).

It is written after the output, never before it: after a kill the last records may be repeated with the same ids, and
nothing is lost. The cost of a save depends on what has changed, not on the account's size, except when a long journal
is rewritten. Everything is read once, when the file is opened.

``save`` returns only after the table layout and the first checkpoint are in the main file, not only in the -wal. (If a
reader of the file prevents that, the next save does it.) So a file that is missing later was removed, and a copy of the
main file alone has an older checkpoint.
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
from typing import Literal, NamedTuple

import msgspec

from ..errors import ConfigError, StateFailed, StateHeld, StateUnavailable
from ..output.disk import passes, sync_directory
from . import tables
from .checkpoint import Changes, Checkpoint
from .place import Place

APPLICATION_ID = int.from_bytes(b"krkf")  # in the file's header: tells our files from others
BUSY_S = 1.0  # only a person who looks into the file can have it open; wait this long for that
WAL_PAGES = 1000  # the -wal is copied into the file at this size: 4 MB, a few minutes of a busy account
WAL_BYTES = 8 * 1024 * 1024  # a -wal that a single large save has made longer is cut back to this
SECTOR = 512  # SQLite's smallest page; the size of a complete file is a multiple of it
DURABLE_LAYOUT = 3  # from this layout on, a file without a checkpoint never had one; older ones could lose the first

LONGEST_NAME = 230  # bytes: with SQLite's suffixes, a file's name has at most 255
CACHE_KIB = 256  # nothing is read again, once the file is open
JOURNAL_BYTES = 1024 * 1024  # the journal is rewritten when this much was appended, and it has doubled

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
    tables.to_outages,
)

# SQLite's errors for a file that is not what was written, and for causes outside the file.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SYSTEM_ERRORS = {
    sqlite3.SQLITE_AUTH, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOLFS, sqlite3.SQLITE_PERM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_READONLY,
}  # fmt: skip
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOLCK}  # a resource of the system is used up
_UNAVAILABLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES}  # we cannot sync such a directory

Found = Literal["saved", "new", "lost"]


class Opened(NamedTuple):
    """An open store and the checkpoint that it held.

    ``found`` is ``saved`` if there is a ``checkpoint``. Without one it is ``new`` (nothing was ever saved here) or
    ``lost`` (there was a file, but it is empty, gone or damaged). ``set_aside`` is the new name of a damaged file.
    """

    store: Store
    checkpoint: Checkpoint | None
    set_aside: str | None
    found: Found


class _OpenFiles(NamedTuple):
    """The files that a store has open, with their identities: device and inode by path."""

    database: sqlite3.Connection
    lock: int
    files: dict[str, tuple[int, int]]
    checkpoint: Checkpoint | None
    set_aside: str | None
    found: Found


class Store:
    """The state of an account and an output, made by :meth:`open`. It is locked until it is closed or the process ends.

    Calls may come from any thread, and wait for each other: a cancelled save still runs in its thread.
    """

    set_aside: str | None  # where the last opening put a damaged file
    _absent: bool  # whether a reopen has failed
    _durable: bool  # whether the main file has a checkpoint for sure
    _base: int  # bytes of the journal when it was last rewritten
    _appended: int  # bytes since then

    def __init__(self, directory: str, name: str, opened: _OpenFiles) -> None:
        self.path = f"{os.path.join(directory, name)}.sqlite3"
        self._directory = directory
        self._name = name
        self._turn = threading.Lock()
        self._take(opened)

    @classmethod
    def open(cls, directory: str, name: str, now_ns: int) -> Opened:
        """Lock and read the state with that ``name`` in ``directory``; create both if they are missing.

        A damaged file is renamed, with ``now_ns`` (unix time) in its new name, and a new one is created.

        Raises:
            StateHeld: another process has it open.
            ConfigError: the directory or the file cannot be used, or a newer version has written it.
            StateFailed: the disk is full or fails; StateUnavailable if that may pass by itself, or the file system is
                missing or read-only.
        """
        with _translated_errors(f"{os.path.join(directory, _checked(name))}.sqlite3"):
            opened = _open_files(directory, name, now_ns)
        return Opened(cls(directory, name, opened), opened.checkpoint, opened.set_aside, opened.found)

    @property
    def long(self) -> bool:
        """Whether a save of everything is due: the journal has grown to twice what it was."""
        return self._appended > max(JOURNAL_BYTES, self._base)

    def save(self, changes: Changes) -> None:
        """Write all of the changes, or nothing. The caller keeps the changes.

        Raises:
            StateFailed: nothing was written, or it may not be on the disk. Merge later changes into these, and save
                them later.
        """
        with self._turn, _translated_errors(self.path, running=True):
            if self._absent:
                raise _failed(self.path, "the file was removed and could not be opened again")
            if changes.replaced:
                self._base = 2 * self._appended  # if this save fails, wait until the journal has doubled
            with _transaction(self._database):
                size = tables.write(self._database, changes)
                length = tables.journal_bytes(self._database) if changes.replaced else self._base
            self._base, self._appended = length, 0 if changes.replaced else self._appended + size
            if not self._durable:
                self._durable = _make_durable(self._database, self._directory)

    def check(self) -> Literal["ok", "gone", "replaced"]:
        """Return whether the open files are still at their paths; if not, call :meth:`reopen`. Never waits: during a
        save the answer is ``ok``.
        """
        if not self._turn.acquire(blocking=False):
            return "ok"
        try:
            return "gone" if self._absent else _compare(self._files)
        finally:
            self._turn.release()

    def reopen(self, now_ns: int) -> Checkpoint | None:
        """Close files that are no longer at their paths, and open or create the files there.

        Returns the checkpoint in the file there; None if it is a new one. Afterwards save everything that is known,
        with all channels in ``replaced``. ``set_aside`` is the new path of a damaged file.

        Raises:
            StateHeld: another process has the file at the path.
            ConfigError: a newer version has written it.
            StateFailed: it can be neither opened nor created. :meth:`check` says ``gone`` until a later call succeeds.
        """
        with self._turn, _translated_errors(self.path, running=True):
            self._let_go()
            self._absent = True
            opened = _open_files(self._directory, self._name, now_ns)
            self._take(opened)
            self._durable = False
            self._database.execute("PRAGMA synchronous = FULL")
            return opened.checkpoint

    def close(self) -> None:
        """Close the database, which leaves one complete file, and release the lock."""
        with self._turn:
            self._let_go()

    def _take(self, opened: _OpenFiles) -> None:
        self._database, self._lock, self._files = opened.database, opened.lock, opened.files
        self.set_aside = opened.set_aside
        self._absent, self._durable = False, opened.checkpoint is not None
        self._base, self._appended = 0, tables.journal_bytes(opened.database)

    def _let_go(self) -> None:
        if self._lock < 0:
            return
        self._database.close()
        _remove_rest(self.path, self._files)
        with contextlib.suppress(OSError):  # the pid in it is only for messages
            os.ftruncate(self._lock, 0)
        os.close(self._lock)
        self._lock = -1


# ------------------------------------------------------------------------------------------------ opening


class _Damaged(sqlite3.DatabaseError):
    """The file's content is not what kraken-feed wrote, even if SQLite accepts it."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


def _checked(name: str) -> str:
    """Return the name if it can be part of a file's name; it may come from the command line."""
    if not name or "/" in name or "\0" in name or len(os.fsencode(name)) > LONGEST_NAME:
        raise ConfigError(
            f"{name!r} cannot be the name of a state file.",
            remedy="Use up to 64 letters, digits, dots, underscores and hyphens.",
        )
    return name


def _open_files(directory: str, name: str, now_ns: int) -> _OpenFiles:
    """Lock and open the files. Raises the errors of the system and of SQLite, and StateHeld."""
    base = os.path.join(directory, name)
    path, lock_path = f"{base}.sqlite3", f"{base}.lock"
    with contextlib.ExitStack() as undo:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        locked_before = os.path.lexists(lock_path)
        lock = _lock(lock_path)
        undo.callback(os.close, lock)
        existed, set_aside = os.path.lexists(path), None
        try:
            database, checkpoint, layout = _open(path)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGE:
                raise
            set_aside = _set_aside(path, now_ns)
            database, checkpoint, layout = _open(path)
        undo.callback(database.close)
        files = {}
        for name in (path, f"{path}-wal", f"{path}-shm", lock_path):
            if (identity := _identity(name)) is not None:
                files[name] = identity
        undo.pop_all()
    # A start makes the database right after the lock. So if there is only a lock, or a file without a layout, the
    # database was lost; at worst it was a first start, killed within milliseconds. Files of old layouts could lose
    # saves.
    lost = set_aside is not None or (layout < DURABLE_LAYOUT if existed else locked_before)
    found: Found = "saved" if checkpoint is not None else "lost" if lost else "new"
    return _OpenFiles(database, lock, files, checkpoint, set_aside, found)


def _identity(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file; None if it is gone."""
    try:
        status = os.stat(path)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return status.st_dev, status.st_ino


def _compare(files: dict[str, tuple[int, int]]) -> Literal["ok", "gone", "replaced"]:
    """Return whether the paths still name the same files. An error of the disk does not mean that they are gone."""
    with contextlib.suppress(OSError):
        now = {path: _identity(path) for path in files}
        if now != files:
            return "gone" if None in now.values() else "replaced"
    return "ok"


def _remove_rest(path: str, files: dict[str, tuple[int, int]]) -> None:
    """Remove the -wal and -shm that SQLite has left if our file is no longer at its path: they would be used for
    another file there."""
    with contextlib.suppress(OSError):
        if _identity(path) != files[path]:
            for name in (f"{path}-wal", f"{path}-shm"):
                if name in files and _identity(name) == files[name]:
                    os.unlink(name)


def _lock(path: str) -> int:
    """Return a descriptor that holds the lock. The kernel releases the lock when the process ends.

    We never remove the file: a process that waits for a removed one would lock nothing. Others may remove it, so the
    lock counts only if the file is still at its path afterwards.
    """
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(lock)
            current = _identity(path) == (status.st_dev, status.st_ino)
        except BlockingIOError:
            pid = holder(lock)
            os.close(lock)
            raise StateHeld(
                f"Another instance{f' (pid {pid})' if pid else ''} {_held(path)}.",
                why=f"{path} is locked.",
                remedy="Stop one of the two, or give this one another --output. With another --state DIRECTORY or "
                "--no-state, both may run.",
            ) from None
        except OSError:
            os.close(lock)
            raise
        if current:
            break
        os.close(lock)
    with contextlib.suppress(OSError):  # a full disk; the lock is held anyway
        os.ftruncate(lock, 0)
        os.pwrite(lock, b"%d\n" % os.getpid(), 0)
    return lock


def _held(path: str) -> str:
    """Return what the holder of a lock does, in words."""
    account, _, output = os.path.basename(path).removesuffix(".lock").partition("@")
    if output.startswith("%"):
        return f"writes the account {account!r} to this output"
    return f"holds the state of the account {account!r}{f' for {output}' if output else ''}"


def holder(lock: int) -> str:
    """Return the pid that was written into a lock; empty if there is none."""
    pid = os.pread(lock, 32, 0).strip().decode("ascii", "replace")
    return pid if pid.isdigit() else ""


def _open(path: str) -> tuple[sqlite3.Connection, Checkpoint | None, int]:
    """Open the file (create it if it is missing), migrate it and read it. Also return the layout that it had.

    Raises:
        _Damaged: it is not what we wrote.
    """
    _make(path)
    database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    with contextlib.ExitStack() as undo:
        undo.callback(database.close)
        version = _version(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")  # until _make_durable
        database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        database.execute("PRAGMA secure_delete = OFF")  # some builds overwrite deleted content with zeros
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        database.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
        if version < len(MIGRATIONS):
            _migrate(database, version)
            _make_durable(database, os.path.dirname(path))
        with _checking():
            checkpoint = tables.load(database)
        database.execute(f"PRAGMA synchronous = {'FULL' if checkpoint is None else 'NORMAL'}")
        undo.pop_all()
    return database, checkpoint, version


def _make_durable(database: sqlite3.Connection, directory: str) -> bool:
    """Copy everything that is committed into the main file, and sync the file and its directory. Return False if a
    reader of the file prevents that.

    From then on committed pages stay in the -wal, unsynced, until SQLite copies them into the file. So a power cut
    loses the last saves, whose records are then repeated, and damages nothing. FULL would avoid the repeats, but make
    every save wait for the disk.
    """
    ((busy, _, _),) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    for path in (directory or ".", os.path.dirname(os.path.abspath(directory))):  # this process may have made both
        try:
            sync_directory(path)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise
    if not busy:
        database.execute("PRAGMA synchronous = NORMAL")
    return not int(busy)


def _make(path: str) -> None:
    """Create an empty file with mode 0600 if there is none. SQLite gives the -wal and the -shm the same mode."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except IsADirectoryError as error:
        raise _Damaged from error
    status = os.fstat(file)
    os.close(file)
    if not stat.S_ISREG(status.st_mode):
        raise _Damaged
    # SQLite would accept an empty and a truncated file. It takes an empty one for a new one, and removes its -wal. It
    # fills a truncated page with zeros, which is right only if the -wal or the -journal has the rest.
    if status.st_size < SECTOR and _size(f"{path}-wal"):
        raise _Damaged
    if status.st_size % SECTOR and not _size(f"{path}-wal") and not _size(f"{path}-journal"):
        raise _Damaged


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _version(database: sqlite3.Connection, path: str) -> int:
    """Return the layout's number of an intact file of ours; 0 if it has none yet.

    The check reads every page; the rows of the journal have checksums of their own. So it does not matter how the last
    run ended.
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
            why=f"Its layout is {version}; this version knows layouts up to {len(MIGRATIONS)}.",
            remedy="Install the newer version again, or give another directory with --state, which starts without a "
            "checkpoint.",
        )
    return int(version)


def _migrate(database: sqlite3.Connection, version: int) -> None:
    """Apply all missing migrations, or none."""
    with _transaction(database):
        for step in MIGRATIONS[version:]:
            if callable(step):
                with _checking():
                    step(database)
            else:
                for statement in step:
                    database.execute(statement)
        database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def take_over(directory: str, account: str, place: Place, now_ns: int) -> str | None:
    """Give the file of an earlier version, which had one for all outputs of an account, its new name.

    It is taken over if the directory is a service's own: a service has one output. Otherwise nobody knows which output
    it belongs to, so it is set aside; then the new name of the file is returned. A file that is in use is left alone.

    Raises:
        StateHeld: an earlier version still runs as this service.
        ConfigError, StateFailed: as of :meth:`Store.open`.
    """
    old, new = (os.path.join(directory, name) for name in (_checked(account), place.name(account)))
    if not os.path.lexists(f"{old}.sqlite3"):
        return None
    with _translated_errors(f"{old}.sqlite3"):
        try:
            lock = _lock(f"{old}.lock")
        except StateHeld:
            if place.of_service:
                raise
            return None
        try:
            if not place.of_service or os.path.lexists(f"{new}.sqlite3"):
                return _set_aside(f"{old}.sqlite3", now_ns, "earlier")
            for part in ("-wal", "-shm", "-journal", ""):  # the main file last: until then this is repeated
                if os.path.lexists(f"{old}.sqlite3{part}"):
                    os.rename(f"{old}.sqlite3{part}", f"{new}.sqlite3{part}")
            return None
        finally:
            os.close(lock)


def _set_aside(path: str, now_ns: int, why: str = "damaged") -> str:
    """Rename the file, and those that belong to it, to unused names; return the file's new name."""
    stamp = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = ("", "-wal", "-shm", "-journal")
    target, number = f"{path}.{why}-{stamp}", 1
    while any(os.path.lexists(target + part) for part in parts):
        number += 1
        target = f"{path}.{why}-{stamp}-{number}"
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
    """Raise _Damaged for content that we did not write; let the system's errors pass."""
    try:
        yield
    except sqlite3.Error as error:
        if _code(error) in _SYSTEM_ERRORS:
            raise
        raise _Damaged from error
    except (msgspec.DecodeError, ValueError, KeyError) as error:
        raise _Damaged from error


@contextlib.contextmanager
def _translated_errors(path: str, *, running: bool = False) -> Iterator[None]:
    """Raise errors of the disk as errors with a text and a remedy. Other errors of SQLite are bugs, and pass unchanged.

    A path that cannot be used is a configuration error at the start, and an error of the disk while ``running``.
    """
    try:
        yield
    except OSError as error:
        unavailable = passes(error) and not running
        if not (unavailable or running or error.errno in _OUT_OF_RESOURCES):
            raise unusable(path, f"{error.filename}: {error.strerror} (errno {error.errno})") from error
        raise _failed(path, f"{error.strerror} (errno {error.errno})", unavailable=unavailable) from error
    except sqlite3.Error as error:
        if _code(error) not in _SYSTEM_ERRORS | _DAMAGE:
            raise
        raise _failed(
            path, f"{error} ({error.sqlite_errorname})", unavailable=_code(error) in _UNAVAILABLE and not running
        ) from error


def unusable(path: str, why: str) -> ConfigError:
    """Return the error for a path at which no state can be kept."""
    return ConfigError(
        f"Cannot use the state file {path}.",
        why=f"{why}.",
        remedy="Give a writable directory with --state, or keep no checkpoint: --no-state.",
    )


def _failed(path: str, why: str, *, unavailable: bool = False) -> StateFailed:
    return (StateUnavailable if unavailable else StateFailed)(
        f"Cannot keep the checkpoint in {path}.",
        why=f"{why}.",
        remedy="Free space or repair the disk. "
        "Or use another directory (--state DIRECTORY), or no checkpoint (--no-state).",
    )


def _code(error: sqlite3.Error) -> int | None:
    """Return SQLite's primary result code; None if the error is Python's own, as for text that is not UTF-8."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF
