"""Judge whether an answer is complete: up to when, and what is missing, by the rules of the recovery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..errors import HistoryIncomplete
from ..feed.backfill import Source, Span
from ..feed.gap_reasons import GapReason, shown_ids
from ..feed.volumes import is_short
from ..records.render import timestamp
from ..records.view import parse
from .spool import ENTRY_KIND, ORDER_KIND, TRADE_KIND, Answer, EndedOrder, OddOrder, Period, SourceState, Spool

NS = 1_000_000_000
ENDED_OPEN = "Kraken lists these orders among those that ended, and calls them open: {}"


def proven_ns(state: SourceState, late_ns: int) -> int:
    """Return the time before which a source is complete, by what its query has seen.

    Rows become visible in the order of their times: all rows that are older than the newest one are there. And history
    is late by ``late_ns`` at most, counted from the earliest time at which the query can have begun.
    """
    return max(state.scan.newest_ns, state.seen_ns, state.scan.began_ns - late_ns + 1)


def outside(period: Period, spans: Sequence[Span]) -> str:
    """Return which part of the history the key may query, in words, if the period has another part; else "". The key
    had these ``spans`` while it was read."""
    first = max(span.from_s for span in spans)
    last = min((span.to_s for span in spans if span.to_s), default=0)
    words = [f"from {timestamp(first * NS)} on"] if first * NS > period.since_ns else []
    words += [f"up to {timestamp(last * NS)}"] if last and last * NS < period.until_ns else []
    return GapReason.KEY_LIMITED.format(" ".join(words)) if words else ""


def rows_missing(sources: Mapping[Source, SourceState]) -> list[Source]:
    """Return the sources of which Kraken counts more rows than it returned."""
    return [source for source, state in sources.items() if state.missing]


def short_orders(spool: Spool, since_ns: int, before_ns: int) -> list[EndedOrder]:
    """Return the orders that ended before a time, and whose fills do not add up to what was executed.

    Both lists have to be complete up to that time. Only orders that were opened after ``since_ns`` can be judged.
    """
    return [
        order
        for order in spool.ended_orders(before_ns)
        if is_short(parse(order.data), spool.fills(order.order_id), since_ns)
    ]


def reasons(
    sources: Mapping[Source, SourceState], odd: Sequence[OddOrder], short: Iterable[EndedOrder], limits: str
) -> tuple[str, ...]:
    """Return what is missing or doubtful, in words."""
    found = [f"{source.name}: {state.problem}" for source, state in sources.items() if state.problem]
    found += [limits] if limits else []
    found += [GapReason.ROWS_MISSING.format(source.method, sources[source].missing) for source in rows_missing(sources)]
    unknown = [order for order in odd if order.state == "unknown"]
    still_open = [order for order in odd if order.state == "open"]
    if unknown:
        words = ", ".join(sorted({order.status for order in unknown}))
        found.append(GapReason.UNKNOWN_STATE.format(words, shown_ids(order.order_id for order in unknown)))
    if still_open:
        found.append(ENDED_OPEN.format(shown_ids(order.order_id for order in still_open)))
    names = [order.order_id for order in short]
    if names:
        found.append(GapReason.FILLS_MISSING.format(shown_ids(names)))
    return tuple(found)


# -- what is said about it


def summary(answer: Answer) -> str:
    """Return what was found, and up to when it is complete, in two lines."""
    period = answer.period
    late = "" if answer.proven_ns > period.until_ns else "; what came later may be missing"
    return (
        f"{_counts(answer)} since {_clock(period.since_ns)} UTC.\n"
        f"  Complete up to {_clock(answer.complete_ns)} UTC{late}."
    )


def incomplete(answer: Answer) -> HistoryIncomplete:
    """Return the error that says what is missing, and what to do about it."""
    period, why, remedy = answer.period, list(answer.missing), []
    if not answer.is_proven:
        why.insert(
            0,
            f"Kraken's history can be late. Nothing proves that it had caught up with {_clock(period.until_ns)} UTC: "
            f"it is complete up to {_clock(answer.complete_ns)} UTC.",
        )
        since, until = (timestamp(ns).replace(".000000", "") for ns in (period.since_ns, period.until_ns))
        words = f"--since {since}" + (f" --until {until}" if period.bounded else "")
        remedy.append(f"Run it again after {_clock(answer.provable_ns)} UTC, with {words}.")
    if answer.missing:
        remedy.append("Run it again in an hour. If the same is missing, look it up at Kraken.")
    what = f"The history is not complete. What was found is written: {_counts(answer)}."
    return HistoryIncomplete(what, why="\n".join(map(_sentence, why)), remedy=" ".join(remedy))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _counts(answer: Answer) -> str:
    nouns = {ORDER_KIND: "order", TRADE_KIND: "fill", ENTRY_KIND: "ledger entry"}
    found = [_counted(answer.counts[kind], noun) for kind, noun in nouns.items() if answer.counts.get(kind)]
    return ", ".join(found) or "nothing"


def _counted(number: int, noun: str) -> str:
    plural = "ledger entries" if noun == "ledger entry" else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def _clock(ns: int) -> str:
    """Return a time for people: in UTC, in seconds."""
    return timestamp(ns)[:19].replace("T", " ")
