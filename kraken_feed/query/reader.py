"""Read a period of Kraken's history over REST into a spool, and gather the evidence that it is complete.

Every source is read up to its empty page. What is doubtful is requested again a few times, then declared as missing.
Whatever was read stays in the spool, so an interrupted query continues at the page that it had reached, with the call
counter as it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from ..config.schema import Config
from ..errors import CredentialsRefused, NotUnderstood, RequestRefused, Transient, UsageError
from ..feed import backfill
from ..feed.backfill import Page, Source, Span
from ..feed.pages import LONGEST, SKEW_S, read_pages
from ..feed.recorder import run_name
from ..protocol.permissions import NEEDED_TO_RECOVER, spelled
from ..protocol.signing import Credentials, Nonce
from ..records.render import timestamp
from ..records.view import moment, parse, value
from ..state.checkpoint import CallLevel, Scan
from ..text import Mask, counted
from ..transport.backoff import CallCounter
from ..transport.kraken_clock import NS, KrakenClock, boot_ns
from ..transport.rest import Rest
from . import evidence
from .caller import PatientCaller
from .progress import Progress
from .spool import Answer, EndedOrder, Period, SourceState, Spool

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Moment = Callable[[int], int]  # makes a time of the question from the present one; both in unix nanoseconds

UNDERSTAND_S = (5.0, 20.0, 60.0)  # waits before an answer that was not understood is requested again
DOUBT_S = (10.0, 30.0, 90.0)  # waits before rows that are missing are requested again
READING = {"closed": "orders", "trades": "fills", "ledger": "ledger"}


def default_channels(config: Config) -> tuple[str, ...]:
    """Return the channels of a query that names none: the configuration's, or those that answer "what did I trade?"."""
    return config.channels if config.names_channels else ("openOrders", "ownTrades")


def period_of(since: Moment, until: Moment | None, earliest_ns: int, latest_ns: int) -> tuple[int, int]:
    """Return the period that is asked for, given the earliest and the latest time that it can be now. In doubt it is
    the longer one.

    Raises:
        UsageError: it has no length.
    """
    begin, end = max(0, since(earliest_ns)), latest_ns if until is None else until(latest_ns)
    if begin >= end:
        before = "now" if until is None else "the time of --until"
        raise UsageError(
            f"--since is {timestamp(begin)}, which is not before {before}, {timestamp(end)}.",
            remedy="Give an earlier --since. Times are UTC unless they name a zone.",
        )
    return begin, end


@dataclass(eq=False, repr=False)
class HistoryReader:
    """Reads one account's history of a period. ``spool`` holds what an interrupted reader has read."""

    config: Config
    channels: Sequence[str]
    since: Moment
    until: Moment | None  # None: up to now, as far as that is proven
    credentials: Credentials
    spool: Spool
    log: FilteringBoundLogger
    mask: Mask
    progress: Progress
    transport: httpx.AsyncBaseTransport | None = None
    unix_ns: Callable[[], int] = time.time_ns
    boot_ns: Callable[[], int] = boot_ns

    def __post_init__(self) -> None:
        backfill_config = self.config.backfill
        self._late_ns = int(LONGEST * backfill_config.second_pass_s * NS)
        self._clock = KrakenClock(self.boot_ns)
        self._rest = Rest(
            self.config.endpoints.rest,
            self.credentials,
            Nonce(),
            CallCounter(backfill_config.rest_counter - 1, backfill_config.rest_decay),
            transport=self.transport,
            unix_ns=self.unix_ns,
            clock=self._clock,
            warn=self.log.warning,
            before_call=self._save_counter,
            mask=self.mask,
        )
        self._caller = PatientCaller(self._rest, self.progress, self.log)
        classes = (backfill.TOKENIZED,)  # without a snapshot it is not known which classes the account has
        found = (source for channel in self.channels for source in backfill.sources_of(channel, classes))
        self._sources = tuple(dict.fromkeys(found))

    async def run(self) -> Answer:
        """Read everything; return what the spool holds then. If an earlier run has done that, return its answer.

        Raises:
            Transient: Kraken did not answer for minutes.
            CredentialsRefused: the key is refused, or lacks a permission.
            UsageError: the period has no length.
            OutputFailed: the spool cannot be written.
        """
        try:
            answer = self.spool.answer
            if answer is None:
                answer = await self._read_everything()
                self.spool.finish(answer)
            return answer
        finally:
            await self._rest.close()

    async def _read_everything(self) -> Answer:
        await self._learn_time()
        period = self._begin()
        await self._restore_counter()
        span = await self._key_span(check_permissions=True)
        for source in self._sources:
            await self._read(source, span)
        short = await self._resolve_doubts()
        # The key may have been limited meanwhile, or in an earlier run: REST leaves out rows without an error.
        states = self._states()
        limits = evidence.outside(period, [span, await self._key_span(), *(state.span for state in states.values())])
        proven = min(evidence.proven_ns(state, self._late_ns) for state in states.values())
        return Answer(
            period=period,
            proven_ns=proven,
            provable_ns=(period.until_ns if period.bounded else period.since_ns) + self._late_ns,
            missing=evidence.reasons(states, self.spool.odd_orders(), short, limits),
            counts=self.spool.counts(),
        )

    # -- the beginning

    async def _learn_time(self) -> None:
        """Learn Kraken's time. If no answer has it, trust this machine's clock to within a day."""
        try:
            await self._caller.answered(self._rest.time)
        except Transient:
            if not self._clock.known:
                raise
        self._clock.assume(self.unix_ns())

    def _begin(self) -> Period:
        """Fix the times of the question, unless an earlier run has done so."""
        period = self.spool.period
        if period is None:
            since_ns, until_ns = period_of(self.since, self.until, self._earliest(), self._latest())
            period = Period(since_ns, until_ns, self.until is not None, run_name(self.unix_ns()))
            self.spool.begin(period)
            times = {"since": timestamp(since_ns), "until": timestamp(until_ns)}
            self.log.info("history_begun", channels=list(self.channels), **times)
        self.progress.rows = self.spool.rows
        return period

    async def _restore_counter(self) -> None:
        """Continue with the call counter of the earlier run, less what has decayed since."""
        saved = self.spool.counter
        if saved is not None:
            ago = max(0.0, (self._earliest() - saved.at_ns) / NS)
            self._rest.counter.restore(saved.level, ago, asyncio.get_running_loop().time())

    def _save_counter(self) -> None:
        """Save the call counter, because a call is about to be sent: the next run continues with it."""
        level = self._rest.counter.level(asyncio.get_running_loop().time())
        self.spool.count_call(CallLevel(level, self._latest()))

    def _earliest(self) -> int:
        return self._clock.earliest() or 0

    def _began(self) -> int:
        """Return the earliest time at which a query that begins now can have begun. An assumed time proves nothing."""
        return 0 if self._clock.assumed else self._earliest()

    def _latest(self) -> int:
        return self._clock.latest() or self.unix_ns()

    def _newest(self) -> int:
        """Return the time after which a row is from the future, and proves nothing."""
        return self._latest() + int(SKEW_S * NS)

    async def _key_span(self, *, check_permissions: bool = False) -> Span:
        """Return the part of the history that the key may query.

        Raises:
            CredentialsRefused: the key is refused, or lacks a permission.
        """
        self.progress.reading = ""
        try:
            info = await self._understood(backfill.key_settings)
        except (RequestRefused, NotUnderstood) as error:
            self.log.warning("key_not_checked", reason=" ".join(filter(None, (error.what, error.why))))
            return Span(0, 0)
        if check_permissions and info.permissions is not None:
            lacking = [name for name in self.channels if NEEDED_TO_RECOVER[name] not in info.permissions]
            if lacking:
                raise self._lacks(lacking)
        return Span(info.query_from, info.query_to)

    def _lacks(self, channels: Sequence[str]) -> CredentialsRefused:
        names = dict.fromkeys(spelled(NEEDED_TO_RECOVER[channel]) for channel in channels)
        return CredentialsRefused(
            f"The API key …{self.credentials.tail} (from {self.credentials.source}) lacks a permission.",
            why=f"The history of {', '.join(channels)} needs {' and '.join(names)}.",
            remedy="Switch it on for this key in Kraken's settings (Security > API).",
        )

    # -- the sources

    async def _read(self, source: Source, span: Span) -> None:
        """Read a source to its end, or to where an earlier run has come. If that is impossible, note why."""
        state = self.spool.source(source.name)
        if state is not None and state.done:
            return
        if state is None or not state.scan.offset:
            state = SourceState(self._scan(source, span), span, self.spool.next_reading())
        self.progress.reading, state.problem = READING[source.key], ""
        try:
            if not state.scan.offset:
                await self._look_behind(source, state)
            if (state.scan.end or 0) > state.scan.start:
                await self._read_to_end(source, state)
            state.done, state.missing = True, self._missing(source, state)
        except (RequestRefused, NotUnderstood) as error:
            state.problem = " ".join(filter(None, (error.what, error.why)))
            self.log.warning("history_refused", source=source.name, reason=state.problem)
        self.spool.save_source(source.name, state)

    def _scan(self, source: Source, span: Span) -> Scan:
        """Return the query of a source: the part of the period that the key may query."""
        period = self._period
        start, end = (period.since_ns - 1) // NS, -(-period.until_ns // NS)  # `start` is exclusive
        if span.to_s:
            end = min(end, span.to_s)
        channels = dict.fromkeys(self.channels, period.until_ns)
        return Scan(source.name, max(0, start, span.from_s), end, self._began(), channels)

    async def _look_behind(self, source: Source, state: SourceState) -> None:
        """If history may not have caught up with the period's end, look for newer rows, which prove that it has."""
        period = self._period
        if not period.bounded or period.until_ns <= state.scan.began_ns - self._late_ns or state.span.to_s:
            return
        behind = await self._understood(lambda caller: backfill.page(caller, source, period.until_ns // NS, None, 0))
        newest = self._newest()
        times = [row.time_ns for row in behind.rows if row.time_ns is not None and row.time_ns <= newest]
        state.seen_ns = max((at for at in times if at > period.until_ns), default=0)

    async def _read_to_end(self, source: Source, state: SourceState, *, saved: bool = True) -> None:
        """Read the rest of a query. If it is ``saved``, an interrupted run continues it.

        Raises:
            RequestRefused, NotUnderstood: a page cannot be read.
        """
        period = self._period

        def take(page: Page) -> int:
            reached = next((row.time_ns for row in page.rows if row.time_ns is not None), None)
            new = self.spool.add(
                source,
                page,
                offset=state.scan.offset,
                reading=state.reading,
                ts_ns=self.unix_ns(),
                otherwise_ns=self.progress.reached_ns or period.until_ns,
            )
            self.progress.rows, self.progress.reached_ns = self.spool.rows, reached or self.progress.reached_ns
            return new

        def moved() -> None:
            if saved:
                self.spool.save_source(source.name, state)
            self.spool.commit()

        self.progress.reached_ns = None

        async def read(caller: PatientCaller) -> None:
            if not state.scan.offset:
                state.reading = self.spool.next_reading()  # also if the pages have repeated themselves
            newest = self._newest()
            await read_pages(caller, source, state.scan, take, moved, newest_ns=newest, late_ns=self._late_ns)

        await self._understood(read)

    async def _understood(self, attempt: Callable[[PatientCaller], Awaitable[T]]) -> T:
        """Return what ``attempt`` returns. Repeat it a few times if an answer is not understood."""
        for wait in UNDERSTAND_S:
            try:
                return await attempt(self._caller)
            except NotUnderstood as error:
                self.log.warning("history_postponed", reason=error.what, retry_in=wait)
                await self._wait(wait, "answer not understood")
        return await attempt(self._caller)

    async def _wait(self, seconds: float, cause: str) -> None:
        self.progress.wait(asyncio.get_running_loop().time() + seconds, cause)
        await asyncio.sleep(seconds)
        self.progress.go_on()

    # -- doubts

    async def _resolve_doubts(self) -> list[EndedOrder]:
        """Request missing rows again, a few times. Return the orders whose fills still do not add up."""
        for wait in (*DOUBT_S, None):
            states, short = self._states(), self._short_orders()
            lacking = evidence.rows_missing(states)
            if wait is None or not (lacking or short):
                break
            missing = sum(states[source].missing for source in lacking)
            reasons = [f"{counted(missing, 'row')} that Kraken counts"] if missing else []
            reasons += [f"the fills of {counted(len(short), 'order')}"] if short else []
            reason = " and ".join(reasons)
            self.log.warning("history_doubted", reason=reason, retry_in=wait)
            await self._wait(wait, "missing rows")
            for source in lacking:
                await self._read_again(source, states[source])
            if short and backfill.TRADES not in lacking:
                await self._read_fills_again(short)
        return short

    async def _read_again(self, source: Source, state: SourceState) -> None:
        """Repeat the query of a source from its first page, because rows are missing."""
        scan = replace(state.scan, offset=0, returned=0, counted=None, page=[])
        again = await self._read_doubtful(source, scan)
        if again is not None:
            state.missing = self._missing(source, again)
            self.spool.save_source(source.name, state)

    async def _read_fills_again(self, short: Sequence[EndedOrder]) -> None:
        """Query the time in which these orders were open, because fills are missing."""
        opened = (moment(value(parse(order.data), "opentm")) for order in short)
        closed = max(order.closed_ns for order in short)
        period = dict.fromkeys(self.channels, closed)
        scan = Scan(backfill.TRADES.name, min(opened) // NS - 1, -(-closed // NS), self._began(), period)
        await self._read_doubtful(backfill.TRADES, scan)

    async def _read_doubtful(self, source: Source, scan: Scan) -> SourceState | None:
        """Read a query that an interruption may lose; return its state, or None if it cannot be read."""
        state = SourceState(scan, Span(0, 0), 0)
        try:
            await self._read_to_end(source, state, saved=False)
        except (RequestRefused, NotUnderstood) as error:
            self.log.warning("history_refused", source=source.name, reason=error.why or error.what)
            return None
        return state

    def _missing(self, source: Source, state: SourceState) -> int:
        """Return how many rows Kraken counts and did not return."""
        counted = state.scan.counted
        return 0 if counted is None else max(0, counted - self.spool.returned(source, state.reading))

    def _short_orders(self) -> list[EndedOrder]:
        """Return the orders whose fills do not add up, if both lists were read."""
        states = self._states()
        both = [states.get(source) for source in (backfill.CLOSED_ORDERS, backfill.TRADES)]
        read = [state for state in both if state is not None and state.done]
        if len(read) < len(both):
            return []
        before_ns = min(evidence.proven_ns(state, self._late_ns) for state in read)
        since_ns = max(self._period.since_ns, *(state.scan.start * NS for state in read))
        return evidence.short_orders(self.spool, since_ns, min(before_ns, self._period.until_ns + 1))

    def _states(self) -> dict[Source, SourceState]:
        found = ((source, self.spool.source(source.name)) for source in self._sources)
        return {source: state for source, state in found if state is not None}

    @property
    def _period(self) -> Period:
        assert self.spool.period is not None  # it was fixed at the beginning
        return self.spool.period
