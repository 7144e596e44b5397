"""Keep what a query has read, in SQLite: its rows, and how far it has come. So memory stays bounded, and an
interrupted query continues.

The spool of an output file is beside it (``FILE.partial``), and is locked until it is closed. Without a file it is a
private temporary one, which the system removes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from typing import NamedTuple, Self
from zlib import crc32

import msgspec

from ..errors import OutputFailed, OutputHeld, UsageError
from ..feed import backfill
from ..feed.backfill import NAMELESS, Page, Source, Span
from ..feed.known_state import AGAIN
from ..state.checkpoint import CallLevel, Scan

SUFFIX = ".partial"
APPLICATION_ID = int.from_bytes(b"krkh")  # in the file's header: tells our files from others
LAYOUT = 1
CHUNK = 500  # rows that are fetched at a time
ORDER_KIND, TRADE_KIND, ENTRY_KIND = "order", "trade", "ledger"
KINDS = {backfill.CLOSED_ORDERS.key: ORDER_KIND, backfill.TRADES.key: TRADE_KIND, backfill.LEDGERS.key: ENTRY_KIND}

# `reading` numbers the queries: it says which of them has returned the row last. A row stands at `place_ns` in the
# result: at its own time, or beside its neighbours if it has none. `page` is the offset of its page, `position` its
# place on it, the oldest first. A row that another source has, too, is not `shown`.
_TABLES = (
    "CREATE TABLE note (name TEXT PRIMARY KEY, value BLOB NOT NULL)",
    "CREATE TABLE row (n INTEGER PRIMARY KEY, source TEXT NOT NULL, kind TEXT NOT NULL, identity TEXT NOT NULL, "
    "digest BLOB NOT NULL, reading INTEGER NOT NULL, shown INTEGER NOT NULL, place_ns INTEGER NOT NULL, "
    "page INTEGER NOT NULL, position INTEGER NOT NULL, time_ns INTEGER, ts_ns INTEGER NOT NULL, order_id TEXT, "
    "exec_id TEXT, state TEXT NOT NULL, status TEXT NOT NULL, data BLOB NOT NULL, UNIQUE (source, identity, digest))",
    "CREATE INDEX of_identity ON row (kind, identity)",
    "CREATE INDEX of_order ON row (kind, order_id, identity)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {LAYOUT}",
)
_INSERT = """
    INSERT INTO row (source, kind, identity, digest, reading, shown, place_ns, page, position, time_ns, ts_ns, order_id,
        exec_id, state, status, data)
    VALUES (:source, :kind, :identity, :digest, :reading, :shown AND NOT EXISTS (
        SELECT 1 FROM row WHERE kind = :kind AND identity = :identity AND digest = :digest AND source <> :source
    ), :place_ns, :page, :position, :time_ns, :ts_ns, :order_id, :exec_id, :state, :status, :data)
    ON CONFLICT (source, identity, digest) DO UPDATE SET reading = :reading WHERE reading <> :reading
"""
# Kraken can have two different rows under one identity: the oldest one gets it, the others one of their own.
_SELECT = """
    SELECT kind, identity, EXISTS (
        SELECT 1 FROM row AS other WHERE other.kind = row.kind AND other.identity = row.identity AND other.shown
        AND (-other.page, other.position, other.n) < (-row.page, row.position, row.n)
    ), order_id, exec_id, time_ns, ts_ns, data
    FROM row WHERE shown AND (time_ns IS NULL OR time_ns BETWEEN ? AND ?)
    ORDER BY place_ns, CASE kind WHEN 'trade' THEN 0 WHEN 'ledger' THEN 1 ELSE 2 END, page DESC, position, n
"""
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_OF_DISK = {
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY,
}  # fmt: skip
_NOT_OURS = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, in the words of the command. An interrupted query continues for the same question only."""

    account: str
    channels: tuple[str, ...]
    since: str
    until: str | None
    format: str
    rest: str  # Kraken's address


class Period(msgspec.Struct, frozen=True):
    """The period in Kraken's unix nanoseconds, both ends included. ``bounded``: an end was asked for, so it has to be
    reached; else it is the time at which the query began. ``run`` names the query in its records."""

    since_ns: int
    until_ns: int
    bounded: bool
    run: str


class SourceState(msgspec.Struct):
    """How far the query of one source has come.

    ``span`` is what the key could query when it began. ``seen_ns`` is the time of the newest row that was seen behind
    the period; 0: none. ``missing`` are rows that Kraken counts and did not return. ``problem`` says why the source
    could not be read to its end.
    """

    scan: Scan
    span: Span
    reading: int
    seen_ns: int = 0
    done: bool = False
    missing: int = 0
    problem: str = ""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What a query found. Nothing from before ``proven_ns`` is missing, apart from ``missing``, a list of reasons in
    words. ``provable_ns`` is when the whole period can be proven. ``counts`` are the rows by kind. Times are Kraken's
    unix nanoseconds."""

    period: Period
    proven_ns: int
    provable_ns: int
    missing: tuple[str, ...]
    counts: dict[str, int]

    @property
    def is_proven(self) -> bool:
        """Whether history has caught up with the period, or with a part of it if no end was asked for."""
        return self.proven_ns > (self.period.until_ns if self.period.bounded else self.period.since_ns)

    @property
    def complete_ns(self) -> int:
        """The part of the period that is proven ends here."""
        return min(self.proven_ns, self.period.until_ns)

    @property
    def is_complete(self) -> bool:
        return self.is_proven and not self.missing


class Written(msgspec.Struct, frozen=True):
    """Where in the output the result begins, and whether it begins with a header. ``size`` is in bytes."""

    size: int
    header: bool


_NOTES: dict[str, type[msgspec.Struct]] = {
    "period": Period, "counter": CallLevel, "answer": Answer, "written": Written,
}  # fmt: skip


class SpooledRow(NamedTuple):
    """A row of the result. ``identity`` is unique among the rows of its kind."""

    kind: str
    identity: str
    order_id: str | None
    exec_id: str | None
    time_ns: int | None
    ts_ns: int
    data: bytes

    @property
    def ledger_id(self) -> str:
        """Kraken's id of a ledger entry; empty if it has none."""
        name = self.identity.partition(AGAIN)[0]
        return "" if name.startswith(NAMELESS) else name


class OddOrder(NamedTuple):
    """An order whose end is not known. ``status`` is Kraken's word for its state, ``state`` what that means."""

    order_id: str
    status: str
    state: str
    time_ns: int | None


class EndedOrder(NamedTuple):
    order_id: str
    closed_ns: int
    data: bytes


class Spool:
    """The rows of one query, made by :meth:`open` or :meth:`temporary`. It belongs to one process at a time."""

    def __init__(self, database: sqlite3.Connection, path: str | None) -> None:
        self._database = database
        self._path = path
        self.period: Period | None = None  # None until the times of the question are known
        self.counter: CallLevel | None = None
        self.answer: Answer | None = None  # None until everything is read
        self.written: Written | None = None  # None until the result is being written
        for name in _NOTES:
            setattr(self, name, self._noted(name))
        self.rows = self._count()

    @classmethod
    def temporary(cls) -> Self:
        """Make a spool that nobody else can see, and that is gone when it is closed."""
        with _translated_errors("a temporary file"):
            database = sqlite3.connect("", isolation_level=None)
            _lay_out(database)
            return cls(database, None)

    @classmethod
    def open(cls, output: str, question: Question) -> Self:
        """Open the spool of an output file, or make it.

        Raises:
            OutputHeld: another process has it open.
            UsageError: it belongs to another question, or the file there is not a spool.
            OutputFailed: it cannot be opened.
        """
        path = output + SUFFIX
        with _translated_errors(path):
            while True:
                database = _locked(path)
                if database is not None:
                    break
            try:
                if not _is_ours(database, path):
                    _lay_out(database)
                spool = cls(database, path)
                spool._adopt(question, output)
            except BaseException:
                database.close()
                raise
            return spool

    def _adopt(self, question: Question, output: str) -> None:
        """Note the question, or check that it is the one of the run before."""
        before = self._database.execute("SELECT value FROM note WHERE name = 'question'").fetchall()
        if not before:
            self.note("question", question)
            return
        known = msgspec.json.decode(before[0][0], type=Question)
        differing = [name for name in question.__struct_fields__ if getattr(known, name) != getattr(question, name)]
        if differing:
            raise UsageError(
                f"{output} has an unfinished history: {_words(known)}.",
                why=f"This one differs in: {', '.join(differing)}.",
                remedy=f"Finish that one first, or remove {self._path} to drop it, or give another --output.",
            )

    # -- how far it has come

    def note(self, name: str, value: msgspec.Struct) -> None:
        """Keep a value under a name, replacing an earlier one."""
        with _translated_errors(self._path):
            self._database.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, msgspec.json.encode(value)))

    def _noted(self, name: str) -> msgspec.Struct | None:
        found = self._database.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchall()
        return msgspec.json.decode(found[0][0], type=_NOTES[name]) if found else None

    def begin(self, period: Period) -> None:
        self.period = period
        self.note("period", period)

    def count_call(self, level: CallLevel) -> None:
        """Keep the level of the key's call counter: the next run continues with it."""
        self.note("counter", level)

    def finish(self, answer: Answer) -> None:
        """Keep the answer: everything is read, and what is being written does not change any more."""
        self.answer = answer
        self.note("answer", answer)

    def begin_result(self, written: Written) -> None:
        self.written = written
        self.note("written", written)

    def source(self, name: str) -> SourceState | None:
        """Return how far a source was read; None if its query has not begun."""
        found = self._database.execute("SELECT value FROM note WHERE name = ?", (f"source {name}",)).fetchall()
        return msgspec.json.decode(found[0][0], type=SourceState) if found else None

    def save_source(self, name: str, state: SourceState) -> None:
        """Save how far a source was read, together with the rows of :meth:`add`."""
        with _translated_errors(self._path):
            self.note(f"source {name}", state)
            self.commit()

    def next_reading(self) -> int:
        """Return a number for another query."""
        ((last,),) = self._database.execute("SELECT max(reading) FROM row").fetchall()
        return int(last or 0) + 1

    # -- rows

    def add(self, source: Source, page: Page, *, offset: int, reading: int, ts_ns: int, otherwise_ns: int) -> int:
        """Add the rows of a page; return how many of them this reading had not returned before. They are kept with the
        next :meth:`commit`.

        Args:
            source: the list.
            page: its page at ``offset``.
            offset: as the query counts rows.
            reading: the number of the query.
            ts_ns: when the page was received.
            otherwise_ns: the place of the page's rows if none of them has a readable time.
        """
        known = [row.time_ns for row in page.rows if row.time_ns is not None]
        place = known[0] if known else otherwise_ns
        values = []
        for position, row in enumerate(page.rows):
            place = place if row.time_ns is None else row.time_ns
            item = row.item
            state = backfill.state(row) if source.key == backfill.CLOSED_ORDERS.key else ""
            values.append({
                "source": source.name, "kind": KINDS[source.key], "identity": item.identity or f"{item.order_id}:open",
                "digest": blake2b(item.data, digest_size=16).digest(), "reading": reading,
                "shown": item.identity is not None, "place_ns": place, "page": offset, "position": position,
                "time_ns": row.time_ns, "ts_ns": ts_ns, "order_id": item.order_id, "exec_id": item.exec_id,
                "state": state, "status": row.status, "data": item.data,
            })  # fmt: skip
        with _translated_errors(self._path):
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            before = self._database.total_changes
            self._database.executemany(_INSERT, values)
            new = self._database.total_changes - before
            self.rows = self._count()
            return new

    def _count(self) -> int:
        """Return the number of rows. None is ever removed."""
        ((last,),) = self._database.execute("SELECT max(n) FROM row").fetchall()
        return int(last or 0)

    def commit(self) -> None:
        if self._database.in_transaction:
            with _translated_errors(self._path):
                self._database.execute("COMMIT")

    def result(self) -> Iterator[SpooledRow]:
        """Yield the rows of the period, the oldest first."""
        assert self.period is not None  # the caller has read everything
        with _translated_errors(self._path):
            cursor = self._database.execute(_SELECT, (self.period.since_ns, self.period.until_ns))
            while rows := cursor.fetchmany(CHUNK):
                for kind, identity, repeated, order_id, exec_id, time_ns, ts_ns, data in rows:
                    name = f"{identity}{AGAIN}{crc32(data):08x}" if repeated else identity
                    yield SpooledRow(kind, name, order_id, exec_id, time_ns, ts_ns, data)

    def counts(self) -> dict[str, int]:
        """Return the number of rows in the period, by kind."""
        assert self.period is not None
        found = self._database.execute(
            "SELECT kind, count(*) FROM row WHERE shown AND (time_ns IS NULL OR time_ns BETWEEN ? AND ?) GROUP BY kind",
            (self.period.since_ns, self.period.until_ns),
        )
        return dict(found.fetchall())

    # -- evidence

    def returned(self, source: Source, reading: int) -> int:
        """Return how many rows a query has returned. An order counts once; ledger entries can share an id."""
        ((rows, orders),) = self._database.execute(
            "SELECT count(*), count(DISTINCT coalesce(order_id, identity)) FROM row WHERE source = ? AND reading = ?",
            (source.name, reading),
        ).fetchall()
        return int(orders if source.key == backfill.CLOSED_ORDERS.key else rows)

    def odd_orders(self) -> list[OddOrder]:
        """Return the orders of the period that have no row with a known end."""
        assert self.period is not None
        found = self._database.execute(
            "SELECT coalesce(order_id, identity), status, state, time_ns FROM row WHERE kind = 'order' "
            "AND state <> 'ended' AND (time_ns IS NULL OR time_ns BETWEEN ? AND ?) AND NOT EXISTS (SELECT 1 FROM row "
            "AS other WHERE other.kind = 'order' AND other.order_id = row.order_id AND other.state = 'ended')",
            (self.period.since_ns, self.period.until_ns),
        )
        return [OddOrder(*row) for row in found.fetchall()]

    def ended_orders(self, before_ns: int) -> Iterator[EndedOrder]:
        """Yield the orders of the period that ended before then and have one row."""
        assert self.period is not None
        cursor = self._database.execute(
            "SELECT order_id, time_ns, data FROM row WHERE kind = 'order' AND state = 'ended' AND order_id IS NOT NULL "
            "AND time_ns >= ? AND time_ns < ? GROUP BY order_id HAVING count(*) = 1",
            (self.period.since_ns, before_ns),
        )
        while rows := cursor.fetchmany(CHUNK):
            yield from map(EndedOrder._make, rows)

    def fills(self, order_id: str) -> list[bytes]:
        """Return the fills of an order, each once."""
        found = self._database.execute(
            "SELECT data FROM row WHERE kind = 'trade' AND order_id = ? GROUP BY identity", (order_id,)
        )
        return [data for (data,) in found.fetchall()]

    # -- the end

    def close(self) -> None:
        """Close it. What was committed stays, unless it is temporary."""
        self._database.close()

    def remove(self) -> None:
        """Close it, and remove its file: the result is written."""
        if self._path is not None:
            with _translated_errors(self._path):
                os.unlink(self._path)  # while it is locked: nobody else has it open
        self.close()


def _words(question: Question) -> str:
    until = f" --until {question.until}" if question.until is not None else ""
    channels = " ".join(question.channels)
    return f"{channels} --since {question.since}{until} --format {question.format} --account {question.account}"


def _locked(path: str) -> sqlite3.Connection | None:
    """Open the file for this process alone; return None if it was removed meanwhile."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    before = os.stat(path)
    database = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("BEGIN EXCLUSIVE")
        database.execute("COMMIT")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(before, os.stat(path)):
                return database
    except BaseException:
        database.close()
        raise
    database.close()
    return None


def _is_ours(database: sqlite3.Connection, path: str) -> bool:
    """Return whether the file is a spool; False if it is empty. Remove the content of a spool that is damaged or of
    another layout: it is only a copy of what Kraken has.

    Raises:
        UsageError: the file is another program's.
    """
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (layout,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, layout, tables) == (0, 0, 0):
        return False
    if application != APPLICATION_ID:
        raise _foreign(path)
    whole = database.execute("PRAGMA quick_check(1)").fetchall() == [("ok",)]
    if layout == LAYOUT and whole:
        return True
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in names:
        database.execute(f'DROP TABLE "{name}"')
    return False


def _lay_out(database: sqlite3.Connection) -> None:
    database.execute("BEGIN")
    for statement in _TABLES:
        database.execute(statement)
    database.execute("COMMIT")


def _foreign(path: str) -> UsageError:
    return UsageError(
        f"{path} is not a file of kraken-feed.",
        why="history keeps there what it has read, until it is complete.",
        remedy="Move that file away, or give another --output.",
    )


@contextlib.contextmanager
def _translated_errors(path: str | None) -> Iterator[None]:
    """Raise errors of the disk, and of a locked file, as errors with a text and a remedy. Others are bugs."""
    name = path or "a temporary file"
    try:
        yield
    except OSError as error:
        raise _failed(name, f"{error.strerror} (errno {error.errno})") from error
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if code in _BUSY:
            raise OutputHeld(
                f"Another `kraken-feed history` is writing {name.removesuffix(SUFFIX)}.",
                why=f"{name} is locked.",
                remedy="Wait until it has ended, or give another --output.",
            ) from error
        if code in _NOT_OURS:
            raise _foreign(name) from error
        if code not in _OF_DISK:
            raise
        raise _failed(name, str(error)) from error


def _failed(name: str, why: str) -> OutputFailed:
    return OutputFailed(
        f"Cannot keep in {name} what was read from Kraken.",
        why=f"{why}.",
        remedy="Free space there, or give an --output in a directory that you may write to.",
    )
