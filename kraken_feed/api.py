"""Tail channels in a Python program, with an async context manager that yields typed records; or iterate over the
records of a period of the past.

It does what the command does, with the same configuration, credentials, state, feeds and recovery
(:mod:`kraken_feed.feed.builder`, :mod:`kraken_feed.query`). It handles no signals, writes nothing to stdout and stderr,
and sets up no logging.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar, get_args

from .config.credentials import OnStderr, find_all, refuse_shared
from .config.schema import ALL, Config, check_account, check_channels, choose_accounts, from_tree, load
from .errors import ConfigError, FeedError, UsageError
from .feed.builder import Plan, assemble
from .feed.environment import Account, Environment, Limits
from .feed.feed import Feed
from .feed.known_state import Snapshots
from .feed.supervisor import Supervisor
from .output.queue import Inbox
from .protocol.signing import Credentials
from .query.evidence import incomplete
from .query.progress import Progress
from .query.reader import HistoryReader, Moment, default_channels
from .query.records import records
from .query.spool import Spool
from .records import render
from .records.types import Record, read
from .state.place import Place, program_place
from .telemetry.loggers import FeedLogger, Log, feed_logger, library_logger, program_logger
from .telemetry.stats import Figures
from .text import Secrets
from .transport.connection import dial

Path = str | os.PathLike[str]
PROGRAM = "program"  # the name of an output that has none
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Number = TypeVar("Number", int | None, float | None)


def tail(
    *channels: str,
    accounts: str | Sequence[str] = (),
    config: Path | Mapping[str, Any] | None = None,
    credentials: Credentials | Mapping[str, Credentials] | None = None,
    state: Path | tuple[Path | None, str] | Literal[False] | None = None,
    backfill: bool = True,
    snapshots: Snapshots = "changes",
    since: datetime | timedelta | None = None,
    once: bool = False,
    count: int | None = None,
    duration: float | None = None,
    timeout: float | None = None,
    log: Log | logging.Logger | None = None,
) -> Records:
    """Tail channels of one or several accounts: ``async with tail("executions") as records``.

    Nothing is read or opened before the context is entered. The defaults are those of the command.

    Args:
        channels: ``openOrders``, ``ownTrades``, ``executions``, ``balances``. Default: the configuration's.
        accounts: their names; ``all`` for every configured account. Default: those of ``credentials``, or the
            configuration's ``account``.
        config: the path of a configuration file, or its content as a mapping. Default: the command's search path.
        credentials: of the only account, or by account name. Default: the command's search path.
        state: the directory of the checkpoint, or a pair of the directory and a name for this program's output: each
            output has a checkpoint of its own (default name: ``program``). Without a directory, it is ``[state]
            directory`` or ``$STATE_DIRECTORY``; if neither is set, no checkpoint is kept. False: keep none.
        backfill: whether to recover outages over REST.
        snapshots: which items of a snapshot to yield: ``changes`` since the last delivered record, ``all`` or ``none``.
        since: recover what happened from this time on, or in this time span. Refused where a checkpoint exists.
        once: end after the first snapshot. No checkpoint is read or written.
        count: end after this number of items; markers do not count.
        duration: end after this number of seconds. ``NotInTime`` is raised if ``count`` was not reached by then.
        timeout: seconds in which ``once`` has to be done (default: 30); ``NotInTime`` is raised otherwise.
        log: receives diagnostics, with secrets masked. Default: the standard library's logger ``kraken_feed``.

    An invalid argument raises ``UsageError`` or ``ConfigError`` when the context is entered.
    """

    secrets = Secrets()
    on_stderr = partial(program_logger(log, secrets).warning, "command_said")

    def plan() -> Plan:
        """Return the plan. Run it in a thread: it reads files and may run commands."""
        found = from_tree(config, "config") if isinstance(config, Mapping) else load(_text(config), os.environ)[0]
        return Plan(
            config=found,
            channels=check_channels(channels or found.channels),
            credentials=_credentials(
                credentials, (accounts,) if isinstance(accounts, str) else accounts, found, on_stderr
            ),
            state=None if once else _place(state, found),
            backfill=backfill,
            snapshots=_policy(snapshots),
            since_ns=_unix_ns(since),
            limits=Limits(
                once,
                _positive("count", count),
                _positive("duration", duration),
                _positive("timeout", timeout) or Limits().timeout,
            ),
        )

    return Records(plan, log, secrets=secrets)


class Records:
    """An async iterator over a tail's records, and its context manager. Made by :func:`tail`; used once.

    A record counts as delivered when the next one is requested. The checkpoint covers only delivered records. The next
    run with the same state recovers the others. If the program is slow, about a megabyte is buffered; then reading
    pauses, and that time does not count as silence of Kraken.

    One task iterates at a time. Cancelling a wait loses nothing: the iteration can go on.
    """

    def __init__(
        self,
        plan: Callable[[], Plan],
        log: Log | logging.Logger | None,
        make: Callable[[Account, Environment], Feed] = Feed,
        secrets: Secrets | None = None,
    ) -> None:
        self._plan = plan
        self._make = make
        self._secrets = secrets or Secrets()
        self._log = program_logger(log, self._secrets)
        self._inbox = Inbox()
        self._feeds: Supervisor | None = None
        self._entered = False
        self._running: asyncio.Task[None] | None = None
        self._ended = False  # the iteration has raised what ended the tail

    async def __aenter__(self) -> Self:
        """Read the configuration and the credentials, open the state, and start; do not wait until channels are live.

        While the state's file system is full, read-only or missing, wait up to ``[output] patience_s``.

        Raises:
            FeedError: as of the command: ``UsageError``, ``ConfigError``, ``StateFailed``, or ``StateHeld`` if another
                instance has the state.
            RuntimeError: the context was entered before.
        """
        if self._entered:
            raise RuntimeError("a tail is used once: call tail() again")
        self._entered = True
        try:
            plan = await asyncio.to_thread(self._plan)
            for key in plan.credentials.values():
                self._secrets.add(*key.secrets())
            self._feeds = await assemble(
                plan,
                self._open_output,
                log=self._log,
                secrets=self._secrets,
                dial=partial(dial, logger=library_logger(self._log, self._secrets)),
                make=self._make,
            )
        except FeedError as error:
            mask(error, self._secrets)
            raise
        self._running = asyncio.create_task(self._run(self._feeds), name="kraken_feed.tail")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and close everything within two seconds, even if Kraken does not answer.

        Records that were received and not delivered are not in the checkpoint.
        """
        running, inbox = self._running, self._inbox
        if running is None or self._feeds is None:
            return
        inbox.abandon()
        self._feeds.stop("left")
        cancelled = False
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError:
                cancelled = True  # raised below, after everything is closed
        if inbox.pending:
            self._log.info("records_left", bytes=inbox.pending)
        defect = None if running.cancelled() else running.exception()
        if cancelled:
            raise asyncio.CancelledError
        if defect is not None and not isinstance(defect, FeedError) and error is None and not self._ended:
            raise defect

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Return the next record, and count the one before as delivered.

        Raises:
            FeedError: the error that ended the tail, after the last record.
            StopAsyncIteration: the tail ended without an error.
            RuntimeError: the context was not entered.
        """
        if self._running is None:
            raise RuntimeError("the tail is not running: use it in `async with`")
        line = await self._inbox.take()
        if line is not None:
            return read(line)
        await asyncio.wait([self._running])  # another task may be leaving the context
        if not self._ended:
            self._ended = True
            self._running.result()
        raise StopAsyncIteration

    def stop(self) -> None:
        """Stop reading. The iteration ends after the records that were received."""
        self._begun().stop("stop")

    @property
    def live(self) -> bool:
        """Whether every channel is live, of every account that has not stopped."""
        return self._begun().live

    def figures(self) -> tuple[Figures, ...]:
        """Return the state and the counters of each account."""
        return tuple(self._begun().figures())

    def _begun(self) -> Supervisor:
        if self._feeds is None:
            raise RuntimeError("the tail has not begun: use it in `async with`")
        return self._feeds

    def _open_output(self, failed: Callable[[FeedError], None]) -> tuple[Inbox, FeedLogger]:
        return self._inbox, feed_logger(self._inbox)

    async def _run(self, feeds: Supervisor) -> None:
        try:
            await feeds.run()
        except FeedError as error:
            mask(error, self._secrets)
            raise
        finally:
            self._inbox.end()


# ------------------------------------------------------------------------------------------------ the past


def history(
    *channels: str,
    since: datetime | timedelta,
    until: datetime | timedelta | None = None,
    account: str | None = None,
    config: Path | Mapping[str, Any] | None = None,
    credentials: Credentials | None = None,
    log: Log | logging.Logger | None = None,
) -> History:
    """Iterate over what happened in a period, from Kraken's REST history: ``async for record in history(…)``.

    The records are of type ``backfill`` and come oldest first, with the ids of the feed's records: orders that ended
    (``openOrders``), fills (``ownTrades``), both (``executions``), ledger entries (``balances``). Everything is read
    before the first record is yielded. No WebSocket, no token and no state is used.

    Args:
        channels: default: the configuration's, or ``openOrders`` and ``ownTrades``.
        since: the beginning: a time, or how long ago.
        until: the end. Default: now, as far as Kraken's history is proven.
        account: its name. Default: the configuration's.
        config, credentials, log: as for :func:`tail`.

    An invalid argument raises ``UsageError`` or ``ConfigError`` when the iteration begins.
    """
    secrets = Secrets()
    on_stderr = partial(program_logger(log, secrets).warning, "command_said")

    def question() -> _Question:
        """Return what is asked. Run it in a thread: it reads files and may run commands."""
        found = from_tree(config, "config") if isinstance(config, Mapping) else load(_text(config), os.environ)[0]
        keys = _credentials(credentials, (account,) if account else (), found, on_stderr)
        if len(keys) != 1:
            raise UsageError("history reads one account at a time.", remedy="Name it with `account`.")
        ((name, key),) = keys.items()
        end = None if until is None else _moment("until", until)
        wanted = check_channels(channels or default_channels(found))
        return _Question(found, name, key, wanted, _moment("since", since), end)

    return History(question, log, secrets=secrets)


class _Question(NamedTuple):
    """What is asked of an account's history."""

    config: Config
    account: str
    credentials: Credentials
    channels: tuple[str, ...]
    since: Moment
    until: Moment | None


class History:
    """An async iterator over the records of a period. Made by :func:`history`; used once.

    ``complete_until`` is the time up to which the answer is proven to be complete; None until everything is read.
    Leaving the iteration early frees everything; :meth:`aclose` does so at once.
    """

    complete_until: datetime | None = None

    def __init__(
        self,
        question: Callable[[], _Question],
        log: Log | logging.Logger | None,
        make: Callable[..., HistoryReader] = HistoryReader,
        secrets: Secrets | None = None,
    ) -> None:
        self._question = question
        self._make = make
        self._secrets = secrets or Secrets()
        self._log = program_logger(log, self._secrets)
        self._records = self._run()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Return the next record.

        Raises:
            FeedError: as of the command, and ``HistoryIncomplete`` after the last record if the answer is not proven
                to be complete.
        """
        try:
            return await anext(self._records)
        except FeedError as error:
            mask(error, self._secrets)
            raise

    async def aclose(self) -> None:
        """End the iteration."""
        await self._records.aclose()

    async def _run(self) -> AsyncGenerator[Record, None]:
        asked = await asyncio.to_thread(self._question)
        self._secrets.add(*asked.credentials.secrets())
        with contextlib.closing(Spool.temporary()) as spool:
            reader = self._make(
                config=asked.config,
                channels=asked.channels,
                since=asked.since,
                until=asked.until,
                credentials=asked.credentials,
                spool=spool,
                log=self._log,
                mask=self._secrets.mask,
                progress=Progress(),
            )
            answer = await reader.run()
            self.complete_until = EPOCH + timedelta(microseconds=answer.complete_ns // 1000)
            for _, record in records(spool, asked.account, asked.channels):
                yield read(render.render(record))
        if not answer.is_complete:
            raise incomplete(answer)


def mask(error: FeedError, secrets: Secrets) -> None:
    """Remove secrets from an error, in case a text from outside has one."""
    error.what, error.why, error.remedy = map(secrets.mask_long, (error.what, error.why, error.remedy))
    error.args = (error.what,)


# ------------------------------------------------------------------------------------------------ arguments


def _credentials(
    passed: Credentials | Mapping[str, Credentials] | None, named: Sequence[str], config: Config, on_stderr: OnStderr
) -> Mapping[str, Credentials]:
    """Return the credentials by account.

    Raises:
        UsageError, ConfigError: an account's name is invalid, or it has no key.
    """
    if passed is None:
        return find_all(config, choose_accounts(config, named), os.environ, on_stderr)
    if isinstance(passed, Credentials):
        passed = {named[0] if named and ALL not in named else config.account: passed}
    chosen = dict.fromkeys(passed if ALL in named or not named else named)
    for account in chosen or (config.account,):
        check_account(account)
        if account not in passed:
            raise ConfigError(f"No API key for the account {account!r}.", remedy="Add it to `credentials`.")
    found = {account: passed[account] for account in chosen}
    refuse_shared(found)
    return found


def _place(state: Path | tuple[Path | None, str] | Literal[False] | None, config: Config) -> Place | None:
    """Return where the program's checkpoint is kept; None: nowhere.

    Raises:
        UsageError: the name of the output is not valid.
    """
    if state is False:
        return None
    directory, name = state if isinstance(state, tuple) else (state, PROGRAM)
    check_account(name, "an output")
    return program_place(_text(directory), name, configured=config.state.directory, environ=os.environ)


def _unix_ns(given: datetime | timedelta | None, name: str = "since") -> int | None:
    if given is None:
        return None
    now = datetime.now(UTC)
    try:
        moment = now - given if isinstance(given, timedelta) else given
    except OverflowError:
        moment = datetime.min.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        raise UsageError(f"{name} has no time zone.", remedy="Add one, as in datetime.now(UTC), or use a timedelta.")
    if not EPOCH <= moment <= now:
        raise UsageError(f"{name} must be a time between 1970 and now.")
    return int(moment.timestamp() * 1_000_000_000)


def _moment(name: str, given: datetime | timedelta) -> Moment:
    """Return the function from the present time to the one that is meant: a span counts by Kraken's clock."""
    unix_ns = _unix_ns(given, name) or 0
    if isinstance(given, timedelta):
        ago_ns = given // timedelta(microseconds=1) * 1000
        return lambda now_ns: now_ns - ago_ns
    return lambda now_ns: unix_ns


def _policy(snapshots: Snapshots) -> Snapshots:
    if snapshots not in get_args(Snapshots):
        raise UsageError(f"snapshots must be one of {', '.join(get_args(Snapshots))}.")
    return snapshots


def _positive(name: str, number: Number) -> Number:
    if number is not None and not 0 < number < float("inf"):
        raise UsageError(f"{name} must be a number above zero.")
    return number


def _text(path: Path | None) -> str | None:
    return None if path is None else os.fspath(path)
