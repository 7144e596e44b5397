"""Holes: they open when a channel is lost, end when it is live again, and are closed by what REST knows, or declared.

Everything here happens beside the live feed: records are written between its records, never instead of them.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from . import backfill
from .backfill import Caller, Window
from .config import BackfillConfig
from .errors import CredentialsRefused, FeedError, RequestRefused, Transient
from .orders import ORDER_CHANNELS, Knowledge
from .record import timestamp
from .wire import Item

SKEW_S = 10.0  # by how much Kraken's clock may be ahead of ours
RETRY_S = 5.0  # the first wait after a failed pass; it doubles
RETRY_MAX_S = 60.0
PATIENCE_S = 900.0  # REST out of order for so long: the hole is declared a gap, and the next one starts afresh
NS = 1_000_000_000


class Hole(msgspec.Struct):
    """A span of time in which a channel was not whole. Unix nanoseconds; ``end`` is None while it is open, ``start``
    is None where its beginning is not known. ``missing`` are the orders that were open before it and
    not in the snapshot that ended it."""

    channel: str
    start: int | None
    cause: str
    end: int | None = None
    passes: int = 0
    missing: set[str] = msgspec.field(default_factory=set)
    orders: int = 0
    trades: int = 0

    def window(self, overlap: float) -> Window:
        """What to ask REST for. Of a hole without a beginning, only the overlap. Our clock tells the hole's ends and
        Kraken's the rows' times, so the end has a margin too; what lies behind it is known by its ids."""
        assert self.end is not None  # only closed spans are asked for
        start = self.end if self.start is None else self.start
        return Window(math.floor(start / NS - overlap), math.ceil(self.end / NS + SKEW_S))


class Output(Protocol):
    """Where recovered records and markers are written."""

    def write_backfill(self, channel: str, item: Item) -> None:
        """Write one record of type ``backfill``."""

    def mark_hole(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        """Write ``feed.backfilled`` or ``feed.gap``."""


class Recovery:
    """Closes the holes of one account's channels.

    Args:
        config: the overlap, and when REST has caught up for certain.
        rest: makes the calls.
        knowledge: by channel; decides what is news.
        output: where records go.
        log: diagnostics.
        unix_ns: the wall clock.
        holes: what an earlier run has left.
    """

    def __init__(
        self,
        config: BackfillConfig,
        rest: Caller,
        knowledge: Mapping[str, Knowledge],
        output: Output,
        log: FilteringBoundLogger,
        unix_ns: Callable[[], int],
        holes: Iterable[Hole] = (),
    ) -> None:
        self.holes: list[Hole] = list(holes)
        self.opened = len(self.holes)
        self.closed = 0
        self.gaps = 0  # declared
        self.changed = False  # since somebody last cleared it: for the checkpoint
        self._config = config
        self._rest = rest
        self._knowledge = knowledge
        self._output = output
        self._log = log
        self._unix_ns = unix_ns
        self._still_open: set[str] = set()  # orders that REST called open in the pass under way
        self._woken = asyncio.Event()

    def resume(self, hole: Hole) -> None:
        """Go on with a hole that an earlier run has left."""
        self.holes.append(hole)
        self.opened += 1

    def open(self, channel: str, start: int | None, cause: str) -> None:
        """A channel is not whole from ``start`` on. While it has an open hole already, that one goes on."""
        if not any(hole.channel == channel and hole.end is None for hole in self.holes):
            self.holes.append(Hole(channel, start, cause))
            self.opened += 1
            self.changed = True

    def end(self, channel: str, end: int) -> None:
        """The channel is whole again from ``end`` on: what lies before can be fetched."""
        for hole in self.holes:
            if hole.channel == channel and hole.end is None:
                hole.end = end
                hole.missing = set(self._knowledge[channel].missing)
                self.changed = True
        self._woken.set()

    def give_up(self, reason: str) -> None:
        """Declare what is not closed, because nobody will come back to it."""
        for hole in list(self.holes):
            hole.end = hole.end or self._unix_ns()
            self._declare(hole, reason)

    async def run(self) -> None:
        """Close holes for ever."""
        while True:
            self._woken.clear()
            due = self._due()
            if due is None or due > 0:
                try:
                    async with asyncio.timeout(due):
                        await self._woken.wait()
                except TimeoutError:
                    pass
                continue
            await self._close(self._ready())

    def _wait(self, hole: Hole) -> float:
        """Seconds until it is the hole's turn: at once for the first pass, and when REST has caught up for the
        second."""
        assert hole.end is not None
        return 0.0 if hole.passes == 0 else hole.end / NS + self._config.second_pass_s - self._unix_ns() / NS

    def _due(self) -> float | None:
        waits = [self._wait(hole) for hole in self.holes if hole.end is not None]
        return max(0.0, min(waits)) if waits else None

    def _ready(self) -> list[Hole]:
        """The holes whose turn it is. One window holds them all: a row is asked for once."""
        return [hole for hole in self.holes if hole.end is not None and self._wait(hole) <= 0]

    async def _close(self, holes: Sequence[Hole]) -> None:
        if not self._config.enabled:
            for hole in holes:
                self._declare(hole, "backfill is switched off")
            return
        reasons = await self._pass(holes)
        for hole in holes:
            hole.passes += 1
            if hole.channel in reasons:
                self._declare(hole, reasons[hole.channel])
            elif hole.passes >= 2:
                self._finish(hole)
        self.changed = True

    async def _pass(self, holes: Sequence[Hole]) -> dict[str, str]:
        """Ask REST for what the channels need, and write what is news; why a channel cannot be closed, by channel."""
        window = backfill.total([hole.window(self._config.overlap_s) for hole in holes])
        wanted = {hole.channel for hole in holes}
        limit = await self._key_limit(window)
        self._still_open.clear()
        reasons: dict[str, str] = {}
        for channels, source in (
            (wanted & set(ORDER_CHANNELS), lambda: self._missing(wanted)),
            (wanted & set(ORDER_CHANNELS), lambda: backfill.ended_orders(self._rest, window)),
            (wanted & {"ownTrades", "executions"}, lambda: backfill.fills(self._rest, window)),
            (wanted & {"balances"}, lambda: backfill.ledger_entries(self._rest, window)),
        ):
            if channels and (reason := await self._patiently(channels, source, holes)):
                reasons |= dict.fromkeys(channels, reason)
        if limit is not None:
            reasons = dict.fromkeys(wanted, limit) | reasons
        for hole in holes:
            lost = (hole.missing & self._knowledge[hole.channel].missing) - self._still_open
            if lost and hole.passes >= 1:
                some = ", ".join(sorted(lost)[:20])
                reasons.setdefault(hole.channel, f"Kraken does not say how these orders ended: {some}")
        return reasons

    async def _key_limit(self, window: Window) -> str | None:
        """What the key may not see of the window. Not knowing is no reason for a gap."""
        try:
            return await backfill.outside_of_key(self._rest, window)
        except (FeedError, msgspec.DecodeError) as error:
            self._log.warning("key_not_checked", reason=_words(error))
            return None

    def _missing(self, wanted: set[str]) -> AsyncIterator[Item]:
        ids = {name for channel in wanted for name in self._knowledge[channel].missing}
        return backfill.named_orders(self._rest, ids)

    async def _patiently(
        self, channels: set[str], source: Callable[[], AsyncIterator[Item]], holes: Sequence[Hole]
    ) -> str | None:
        """Write what a source has for these channels; the reason if it cannot be had. Starting over writes nothing
        twice: what was written is known."""
        loop = asyncio.get_running_loop()
        patience, wait = loop.time() + PATIENCE_S, RETRY_S
        while True:
            try:
                async for item in source():
                    self._take(item, channels, holes)
                return None
            except (CredentialsRefused, RequestRefused) as error:
                return error.why or error.what
            except (Transient, msgspec.DecodeError) as error:
                delay = max(wait, error.delay) if isinstance(error, Transient) else wait
                if loop.time() + delay > patience:
                    return f"REST could not be asked for {PATIENCE_S:g} s: {_words(error)}"
                self._log.warning("backfill_postponed", reason=_words(error), retry_in=round(delay, 1))
                await asyncio.sleep(delay)
                wait = min(2 * wait, RETRY_MAX_S)

    def _take(self, item: Item, channels: set[str], holes: Sequence[Hole]) -> None:
        if item.identity is None and item.order_id is not None:
            self._still_open.add(item.order_id)  # the snapshot had not all: nothing is missing
        for channel in channels:
            if self._knowledge[channel].backfilled(item):
                self._output.write_backfill(channel, item)
                hole = next(hole for hole in reversed(holes) if hole.channel == channel)
                if item.exec_id is None and item.order_id is not None:
                    hole.orders += 1
                else:
                    hole.trades += 1

    def _finish(self, hole: Hole) -> None:
        assert hole.end is not None
        if hole.start is None:
            self._declare(hole, f"its beginning is not known ({hole.cause})")
            return
        self.holes.remove(hole)
        self.closed += 1
        self._output.mark_hole(
            hole.channel, "feed.backfilled", hole.start, hole.end, orders=hole.orders, trades=hole.trades,
            cause=hole.cause,
        )  # fmt: skip
        self._log.info("backfilled", channel=hole.channel, since=timestamp(hole.start), orders=hole.orders)

    def _declare(self, hole: Hole, reason: str) -> None:
        assert hole.end is not None
        self.holes.remove(hole)
        self.gaps += 1
        self.changed = True
        self._output.mark_hole(hole.channel, "feed.gap", hole.start, hole.end, reason=reason, cause=hole.cause)
        self._log.error("gap", channel=hole.channel, reason=reason)


def _words(error: Exception) -> str:
    return error.what if isinstance(error, FeedError) else str(error)
