"""Recover outages from Kraken's history over REST, or declare them as gaps.

An outage opens when a channel is lost and ends when it is live again. It counts as recovered only with evidence:

- every source was read to its end, and had caught up with the outage's end;
- every order that vanished has a known state;
- the fills add up to the executed volumes.

Doubtful answers are requested again. If the doubt remains for a quarter of an hour the outage is declared as a gap, and
tried again every hour for three days.

The live feed goes on meanwhile; recovered records are written between its own. Times are Kraken's, in unix nanoseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass
from typing import Protocol

from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from ..config.schema import BackfillConfig
from ..errors import CredentialsRefused, FeedError, RequestRefused, Transient
from ..protocol.wire import Item
from ..records.render import timestamp
from ..state.checkpoint import Outage, Scan
from ..transport.kraken_clock import NS, KrakenClock
from . import backfill
from .backfill import Caller, Row, Source, Span
from .doubts import Doubts
from .gap_reasons import GapReason, shown_ids
from .known_state import ORDER_CHANNELS, Knowledge
from .pages import SKEW_S
from .scanner import Scanner
from .schedule import HOURLY_S, RETRY_MAX_S, RETRY_S, Schedule
from .volumes import Volumes

GIVE_UP_S = 3 * 86400.0  # Kraken keeps its history, but doubts that remain after three days do not go away
SPAN_S = 3600.0  # how long an answer about the key's span is used


class Output(Protocol):
    """Where recovered records and markers are written."""

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write one record of type ``backfill``."""

    def write_outage(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``."""


@dataclass(eq=False, repr=False)
class Recovery:
    """Recovers the outages of one account's channels."""

    config: BackfillConfig  # the overlap, and when REST has usually caught up
    rest: Caller
    knowledge: Mapping[str, Knowledge]  # by channel; decides which rows are new
    output: Output  # where records go
    log: FilteringBoundLogger
    clock: KrakenClock
    scans: InitVar[Iterable[Scan]] = ()  # queries that an earlier run has begun

    def __post_init__(self, scans: Iterable[Scan]) -> None:
        self.outages: list[Outage] = []
        self.scanner = Scanner(self.config, self.rest, self.clock, scans, self._note_change)
        self._inherited: set[int] = set()  # outages whose fills an earlier run has read: they cannot be added up here
        self.schedule = Schedule(self.outages, self.clock, self.config.second_pass_s)
        self.opened = 0
        self.recovered = 0
        self.gaps = 0  # declared
        self.changed = False  # since the checkpointer last cleared it
        self._span: Span | None = None
        self._span_ns = 0
        self._failures = 0  # passes in a row in which REST did not answer
        self._woken = asyncio.Event()

    def _note_change(self) -> None:
        self.changed = True

    # -- calls of the feed

    @property
    def pending(self) -> int:
        """The number of outages that are neither recovered nor declared."""
        return sum(not outage.declared_ns for outage in self.outages)

    def resume(self, outage: Outage) -> None:
        """Go on with an outage that an earlier run has left."""
        self._add(outage)
        self.schedule.begin(outage)
        if outage.complete.get(backfill.TRADES.name):
            self._inherited.add(id(outage))

    def open(self, channel: str, start_ns: int | None, cause: str) -> None:
        """Open an outage of the channel at ``start_ns`` (None: unknown). If one is open already, it gets the earlier
        of the two starts."""
        for outage in self.outages:
            if outage.channel == channel and outage.end_ns is None:
                known = None not in (outage.start_ns, start_ns)
                outage.start_ns = min(outage.start_ns or 0, start_ns or 0) if known else None
                break
        else:
            self._add(Outage(channel, start_ns, cause))
        for outage in self.outages:
            if outage.channel == channel:  # an order that is back and vanishes again belongs to another outage
                outage.missing &= self.knowledge[channel].vanished
        self._widen(channel)
        self.changed = True

    def end(self, channel: str, end_ns: int) -> None:
        """End the channel's outage at ``end_ns``: it is live again, and its history can be read up to there."""
        for outage in self.outages:
            if outage.channel == channel and outage.end_ns is None:
                outage.end_ns = end_ns
                self.schedule.begin(outage)
                if outage.start_ns is not None and outage.start_ns > end_ns:
                    outage.start_ns = None  # the clocks were wrong: the length is unknown
                earlier = {name for o in self.outages if o.channel == channel and o is not outage for name in o.missing}
                outage.missing = self.knowledge[channel].vanished - earlier
                self.changed = True
        self._widen(channel)
        self._woken.set()

    def _add(self, outage: Outage) -> None:
        """Add the outage, also to the volumes: the snapshot after it shows executed volumes that the fills must add up
        to. A snapshot of ownTrades shows fills instead."""
        self.outages.append(outage)
        self.opened += 1
        volumes = self.knowledge[outage.channel].volumes
        if volumes is not None and outage.channel == "ownTrades":
            volumes.add_outage_of_fills(outage)
        elif volumes is not None:
            volumes.add_outage(outage)

    def _widen(self, channel: str) -> None:
        """Set the interval in which executed volumes are compared with fills: that of all outages. v1 has orders and
        fills on two channels, and both need an outage."""
        volumes = self.knowledge[channel].volumes
        if volumes is None:
            return
        sharing = [name for name, knowledge in self.knowledge.items() if knowledge.volumes is volumes]
        outages = [outage for outage in self.outages if outage.channel in sharing]
        starts = [outage.start_ns for outage in outages if outage.start_ns is not None]
        if starts and {outage.channel for outage in outages} == set(sharing):
            ends = [outage.end_ns for outage in outages]
            volumes.widen(min(starts), None if None in ends else max(end or 0 for end in ends))

    def give_up(self, reason: str) -> None:
        """Declare every outage that is not recovered: no later run will try."""
        for outage in list(self.outages):
            outage.end_ns = outage.end_ns or self.clock.latest() or outage.start_ns or 0
            self._declare(outage, reason)
            self._remove(outage)

    # -- the loop

    async def run(self) -> None:
        """Recover outages until cancelled."""
        while True:
            self._woken.clear()
            ready = self.schedule.ready()
            if ready:
                await self._pass(ready)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.schedule.wait_s()):
                    await self._woken.wait()

    async def _pass(self, outages: Sequence[Outage]) -> None:
        """Read what these outages need over REST, write what is new, and judge each outage."""
        if not self.config.enabled:
            for outage in outages:
                self._declare(outage, GapReason.SWITCHED_OFF.format())
                self._remove(outage)
            return
        # Rows outside of the key's interval are never returned: that part is declared, not requested.
        began = self.clock.boot()
        doubts = Doubts()
        ready = await self._drop_outside_span(outages, doubts)
        for channel in {outage.channel for outage in ready}:
            self.knowledge[channel].begin_pass()
        # What claims executed volumes (order ends) has to be read before the fills that cover them.
        vanished = await self._ask_vanished(ready, doubts)
        sources = dict.fromkeys(source for outage in ready for source in self._sources_of(outage))
        for source in sorted(sources, key=backfill.TRADES.__eq__):
            await self._ask(source, ready, doubts)
        self._doubt_vanished(vanished, ready, doubts)
        for outage in ready:
            self._compare(outage, doubts)
        if any(self._is_recovered(outage, doubts) for outage in ready):
            # The key may have been limited during the pass: REST leaves out rows without an error.
            ready = await self._drop_outside_span(ready, doubts, refresh=True)
        self._failures = self._failures + 1 if doubts.unanswered else 0
        for outage in ready:
            self._judge(outage, doubts, began)
        self.changed = True

    # -- what the key may see

    async def _drop_outside_span(
        self, outages: Sequence[Outage], doubts: Doubts, *, refresh: bool = False
    ) -> list[Outage]:
        """Declare what the key may not see as gaps; return the outages that are left, cut to what it may see.

        A key can be limited to an interval. Outside of it REST returns no rows, or calls the query malformed.
        Source: https://docs.kraken.com/api/docs/rest-api/get-api-key-info
        """
        if refresh:
            self._span = None
        span = await self._key_span(outages, doubts)
        ready = []
        for outage in outages:
            if span is None or not self._declare_outside_span(outage, span):
                ready.append(outage)
        return ready

    async def _key_span(self, outages: Sequence[Outage], doubts: Doubts) -> Span | None:
        now = self.clock.latest() or 0
        retried = any(outage.declared_ns for outage in outages)  # the key's limits may have been removed
        if self._span is None or retried or now - self._span_ns > SPAN_S * NS:
            try:
                self._span, self._span_ns = await backfill.key_span(self.rest), now
            except Transient as error:
                self._note_unanswered(outages, error, doubts)
            except FeedError as error:
                self.log.warning("key_not_checked", reason=error.what)
                self._span, self._span_ns = Span(0, 0), now
        return self._span

    def _declare_outside_span(self, outage: Outage, span: Span) -> bool:
        """Declare the part of the outage that the key may not see; return whether that is all of it."""
        assert outage.end_ns is not None  # only ended outages are asked for
        start = outage.end_ns if outage.start_ns is None else outage.start_ns
        first, last = span.from_s * NS, span.to_s * NS if span.to_s else math.inf
        if start >= first and outage.end_ns <= last:
            return False
        reason = _limits(span)
        if outage.end_ns <= first or start >= last:
            self._postpone_declared(outage, reason)
            return True
        if start < first:
            self._declare_part(outage, outage.start_ns, first, reason)
            outage.start_ns = first
        if outage.end_ns > last:
            self._declare_part(outage, int(last), outage.end_ns, reason)
            outage.end_ns = int(last)
        return False

    def _declare_part(self, outage: Outage, start_ns: int | None, end_ns: int, reason: str) -> None:
        """Declare a part of an outage as an outage of its own."""
        part = Outage(outage.channel, start_ns, outage.cause, end_ns)
        self.outages.append(part)
        self.opened += 1
        self._postpone_declared(part, reason)

    # -- the requests of a pass

    async def _ask_vanished(self, outages: Sequence[Outage], doubts: Doubts) -> dict[str, Row | None]:
        """Request the state of every order that vanished; return the rows by order id, None for an unknown order."""
        concerned = [outage for outage in outages if outage.channel in ORDER_CHANNELS]
        channels = {outage.channel for outage in concerned}
        ids = {name for channel in channels for name in self.knowledge[channel].vanished}
        if not ids:
            return {}
        try:
            rows = await backfill.named_orders(self.rest, ids)
        except FeedError as error:
            self._note_failure(concerned, error, doubts)
            return {}
        for row in rows.values():
            if backfill.state(row) != "open":
                self._take(row, "QueryOrders", dict.fromkeys(channels), outages)
        return {name: rows.get(name) for name in ids}

    def _doubt_vanished(self, rows: Mapping[str, Row | None], outages: Sequence[Outage], doubts: Doubts) -> None:
        """Doubt the outages in which orders vanished whose end is not known."""
        for outage in outages:
            vanished = self.knowledge[outage.channel].vanished & outage.missing & rows.keys()
            known = {name: row for name in vanished if (row := rows[name]) is not None}
            still = {name for name, row in known.items() if backfill.state(row) == "open"}
            odd = {name: row.status for name, row in known.items() if backfill.state(row) == "unknown"}
            silent = vanished - known.keys()
            if still:
                doubts.add(outage, GapReason.STILL_OPEN.format(shown_ids(still)))
            if odd:
                words = ", ".join(sorted(set(odd.values())))
                doubts.add(outage, GapReason.UNKNOWN_STATE.format(words, shown_ids(odd)))
            if silent:
                doubts.add(outage, GapReason.UNKNOWN_END.format(shown_ids(silent)))

    def _sources_of(self, outage: Outage) -> tuple[Source, ...]:
        return backfill.sources_of(outage.channel, self.knowledge[outage.channel].classes)

    async def _ask(self, source: Source, outages: Sequence[Outage], doubts: Doubts) -> None:
        """Read a source to its end, for every outage that still needs it.

        A continued query serves only the outages for which it was begun. The others get a new query.
        """
        of_source = [outage for outage in outages if source in self._sources_of(outage)]
        needed = [outage for outage in of_source if not self.scanner.proven(source, outage)]
        doubts.partly_read_before |= {id(outage) for outage in of_source if self.scanner.proven(source, outage)}

        def take(row: Row, channels: Mapping[str, int]) -> None:
            self._take(row, source.method, channels, needed)

        while needed:
            try:
                scan, missing = await self.scanner.read(source, needed, self._span, take)
            except FeedError as error:
                self._note_failure(needed, error, doubts)
                return
            served = [outage for outage in needed if self.scanner.serves(scan, source, outage)]
            if scan is self.scanner.resumed.get(source.name):
                doubts.partly_read_before |= set(map(id, served))
                self._inherited |= set(map(id, served)) if source is backfill.TRADES else set()
            assert served  # a query is made, or continued, for at least one of them
            for outage in served:
                read_from, read_to = self.scanner.from_ns(source, outage), self.scanner.caught_up(scan, outage)
                outage.complete[source.name] = max(read_from, read_to)
                if missing:
                    doubts.add(outage, GapReason.ROWS_MISSING.format(source.method, missing), rows=True)
            needed = [outage for outage in needed if outage not in served]

    def _take(
        self, row: Row, source: str, channels: Mapping[str, int | None] | Mapping[str, int], outages: Sequence[Outage]
    ) -> None:
        """Write a row for each channel that lacks it, unless the row is the live feed's: later than the outage's end,
        or between two outages. One query may cover hours in which nothing was missed."""
        for channel, end in channels.items():
            if end is not None and row.time_ns is not None and not self._may_be_missing(channel, row.time_ns, end):
                continue
            item = replace(row.item)  # a copy: each channel may change its identity
            if not self.knowledge[channel].backfilled(item, source):
                continue
            self.output.write_backfill(channel, item)
            of_channel = [outage for outage in outages if outage.channel == channel]
            outage = next((o for o in of_channel if (o.end_ns or 0) >= (row.time_ns or 0)), None)
            outage = outage or (of_channel[-1] if of_channel else None)
            if outage is not None and item.exec_id is None and item.order_id is not None:
                outage.orders += 1
            elif outage is not None:
                outage.trades += 1

    def _may_be_missing(self, channel: str, time_ns: int, last_ns: int) -> bool:
        """Return whether the channel may have missed an event then: not after ``last_ns``, nor between two outages."""
        overlap, skew = self.config.overlap_s * NS, SKEW_S * NS
        if time_ns > last_ns + skew:
            return False
        earlier = later = False
        for outage in self.outages:
            if outage.channel != channel:
                continue
            begun = outage.start_ns is None or outage.start_ns - overlap <= time_ns
            over = outage.end_ns is not None and outage.end_ns + skew < time_ns
            if begun and not over:
                return True
            earlier, later = earlier or over, later or not begun
        return not (earlier and later)

    # -- what went wrong

    def _note_failure(self, outages: Sequence[Outage], error: FeedError, doubts: Doubts) -> None:
        """Note why the requests for these outages failed."""
        if not isinstance(error, CredentialsRefused | RequestRefused):
            self._note_unanswered(outages, error, doubts)
            return
        reason = error.why or error.what
        if isinstance(error, RequestRefused) and self._span is not None and self._span != Span(0, 0):
            reason = f"{reason} ({_limits(self._span)})"
        doubts.final |= dict.fromkeys(map(id, outages), reason)

    def _note_unanswered(self, outages: Sequence[Outage], error: FeedError, doubts: Doubts) -> None:
        words = " ".join(filter(None, (error.what, error.why)))
        doubts.unanswered |= dict.fromkeys(map(id, outages), words)
        backoff = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(self._failures, 10))
        doubts.wait = max(doubts.wait, backoff, error.delay if isinstance(error, Transient) else 0.0)
        self.log.warning("backfill_postponed", reason=words, retry_in=round(doubts.wait, 1))

    # -- the judgement

    def _compare(self, outage: Outage, doubts: Doubts) -> None:
        """Note the orders whose fills do not add up, once the fills were read.

        The missing fills may belong to another outage whose fills were not read yet: then this one waits for it.
        """
        volumes = self.knowledge[outage.channel].volumes
        if volumes is None or not self._has_fills(outage):
            return
        short = set(volumes.missing_volumes())
        if outage.declared_ns:
            # A declared outage keeps its orders: those of later outages do not belong to it. After a restart the
            # volumes are not known, so they cannot make the set smaller.
            short = outage.short
            if short <= volumes.claims.keys():
                short = short & volumes.missing_volumes().keys()
        else:
            # An order counts for one outage only.
            of_others = [
                o.short for o in self.outages if o is not outage and self.knowledge[o.channel].volumes is volumes
            ]
            short = short.difference(*of_others)
            outage.short = short = {name for name in short if self._concerns(outage, name, volumes)}
        # Doubt the outage now, or wait until the other outages' fills are read, or read all of its own fills again.
        others = [other for other in self.outages if other.channel == outage.channel and not other.declared_ns]
        if short and not outage.declared_ns and not all(map(self._has_fills, others)):
            outage.short = set()
            doubts.waiting.add(id(outage))
        elif short and id(outage) in self._inherited and not outage.declared_ns:
            outage.short = set()
            doubts.to_read_again.add(id(outage))
        elif short:
            doubts.add(outage, GapReason.FILLS_MISSING.format(shown_ids(short)), rows=True)

    def _concerns(self, outage: Outage, order_id: str, volumes: Volumes) -> bool:
        """Return whether the order's missing fills can lie in this outage. True if they can lie in no known outage."""
        concerned = self._concerned(outage.channel, order_id, volumes)
        return not concerned or any(other is outage for other in concerned)

    def _concerned(self, channel: str, order_id: str, volumes: Volumes) -> list[Outage]:
        """Return the outages of the channel in which the order's missing fills can lie."""
        return [
            outage
            for outage in self.outages
            if outage.channel == channel
            and outage.end_ns is not None
            and volumes.may_concern(order_id, outage.start_ns or 0, outage.end_ns)
        ]

    def _has_fills(self, outage: Outage) -> bool:
        """Return whether the outage's fills have a source, and all were read."""
        if outage.end_ns is None:
            return False
        return backfill.TRADES in self._sources_of(outage) and self.scanner.proven(backfill.TRADES, outage)

    def _is_recovered(self, outage: Outage, doubts: Doubts) -> bool:
        """Return whether the outage is proven to be recovered, and without doubts."""
        proven = all(self.scanner.proven(source, outage) for source in self._sources_of(outage))
        doubtful = doubts.reason(outage) or id(outage) in doubts.to_read_again
        return proven and outage.start_ns is not None and not doubtful

    def _judge(self, outage: Outage, doubts: Doubts, began: int) -> None:
        """Count the outage as recovered, declare it, or set when it is tried again. The pass ``began`` at that time of
        this machine's own clock."""
        assert outage.end_ns is not None  # only ended outages are asked for
        key, now, reason = id(outage), self.schedule.now() or outage.end_ns, doubts.reason(outage)

        # Without a known start nothing can be proven: what was found is written, and the rest is a gap.
        if outage.start_ns is None:
            reason = "; ".join(filter(None, (GapReason.UNKNOWN_BEGINNING.format(outage.cause), reason)))
            self._declare(outage, reason)
            self._forget_fills(outage)
            self._remove(outage)
            return

        # Everything is proven. Missing fills may lie in another outage, whose fills are not read yet: then wait for it.
        if self._is_recovered(outage, doubts):
            if key in doubts.waiting:
                outage.due_ns = now + int(self.config.second_pass_s * NS)
            else:
                self._finish(outage)
            return

        outage.tries += 1
        if key in doubts.with_missing_rows | doubts.to_read_again:
            # Older rows are late, or this run has not added up all of them: read everything again.
            outage.complete.clear()
            self._inherited.discard(key)

        # After a quarter of an hour history is not late any more: then any doubt declares the outage.
        is_overdue = bool(reason) and self.schedule.age_ns(outage, began) >= self.scanner.longest_ns
        if key in doubts.final or outage.declared_ns:
            # REST's answer will not change soon: declare the outage now, or try a declared one again in an hour.
            self._postpone_declared(outage, reason)
        elif key in doubts.to_read_again:
            # Another run has read some of the fills. Read all of them now, to add them up.
            outage.due_ns = now + int(doubts.wait * NS)
        elif is_overdue and key in doubts.with_missing_rows & doubts.partly_read_before:
            # Some sources were read in an earlier pass. Read all of them in one pass, before a gap is declared.
            outage.due_ns = now
        elif is_overdue:
            self._postpone_declared(outage, reason)
        elif key in doubts.unanswered:
            outage.due_ns = now + int(doubts.wait * NS)
        else:
            outage.due_ns = self.schedule.next_pass_ns(outage, bool(reason), began, now)

    def _postpone_declared(self, outage: Outage, reason: str) -> None:
        """Declare the outage if that was not done, and try again in an hour. Give up after three days."""
        now = self.schedule.now() or outage.end_ns or 0
        if not outage.declared_ns:
            self._declare(outage, reason)
            outage.declared_ns = now
        outage.due_ns = now + int(HOURLY_S * NS)
        if now - outage.declared_ns > GIVE_UP_S * NS:
            self._forget(outage)
            self._remove(outage)
        self.changed = True

    def _forget(self, outage: Outage) -> None:
        """Forget the orders whose end or fills could not be found: the declared gap stands for them."""
        knowledge = self.knowledge[outage.channel]
        for order_id in (outage.missing & knowledge.vanished) | outage.short:
            knowledge.forget_order(order_id)
        self._forget_fills(outage)

    def _forget_fills(self, outage: Outage) -> None:
        """Forget the missing fills that can lie in no other outage: they are not searched for any more."""
        volumes = self.knowledge[outage.channel].volumes
        if volumes is None or backfill.TRADES not in self._sources_of(outage):
            return
        for order_id in list(volumes.claims):
            concerned = self._concerned(outage.channel, order_id, volumes)
            if len(concerned) == 1 and concerned[0] is outage:
                volumes.clear(order_id)

    def _remove(self, outage: Outage) -> None:
        """Remove an outage. When none is left, forget the volumes, too."""
        self.outages.remove(outage)
        self._inherited.discard(id(outage))
        self.schedule.forget(outage)
        volumes = self.knowledge[outage.channel].volumes
        sharing = [name for name, knowledge in self.knowledge.items() if knowledge.volumes is volumes]
        if volumes is not None and not any(other.channel in sharing for other in self.outages):
            volumes.clear()

    def _finish(self, outage: Outage) -> None:
        assert outage.end_ns is not None
        assert outage.start_ns is not None
        self._remove(outage)
        self.recovered += 1
        self.output.write_outage(
            outage.channel, "feed.backfilled", outage.start_ns, outage.end_ns, orders=outage.orders,
            trades=outage.trades, cause=outage.cause,
        )  # fmt: skip
        self.log.info(
            "backfilled", channel=outage.channel, since=timestamp(outage.start_ns), orders=outage.orders,
            trades=outage.trades,
        )  # fmt: skip

    def _declare(self, outage: Outage, reason: str) -> None:
        """Write ``feed.gap``, once per outage."""
        assert outage.end_ns is not None  # an open outage is not declared
        self.changed = True
        if outage.declared_ns:
            return
        self.gaps += 1
        self.output.write_outage(
            outage.channel, "feed.gap", outage.start_ns, outage.end_ns, reason=reason, cause=outage.cause
        )
        self.log.error("gap", channel=outage.channel, reason=reason)


def _limits(span: Span) -> str:
    """Return the key's limits, in words."""
    words = [f"from unix time {span.from_s} on"] if span.from_s else []
    words += [f"up to unix time {span.to_s}"] if span.to_s else []
    return GapReason.KEY_LIMITED.format(" ".join(words))
