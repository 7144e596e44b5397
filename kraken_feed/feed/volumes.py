"""Compare executed volumes with fills. If the fills add up to less, REST's history is late.

While a channel is live, an order's executed volume and its fills arrive together. After an outage they come from
different places. The snapshot, or an order end from REST, *claims* an executed volume. The fills in the snapshot and in
REST's history *cover* it.

A false doubt costs minutes and in the end a declared gap. So whatever is not certain counts as covered.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal
from typing import NamedTuple, Protocol

from ..records.view import Fields, moment, parse, value
from .order_states import EXECUTED, number

NS = 1_000_000_000
# A fill arrives within a second of its time. An outage's ends are known to within a second or two.
SLACK_NS = 10 * NS
PLACES = 30  # digits before and behind the point that a volume can have: Kraken's have at most 13 and 10
_exact = Context(prec=4 * PLACES)

_VOLUMES = ("vol", "last_qty")  # of a fill: v1's and REST's, v2's
_SIZES = ("vol", "order_qty")  # only in a complete order: v1's and REST's, v2's


class _Cover(NamedTuple):
    """A fill that may cover a claim; ``time_ns`` is its time at Kraken, 0 if it has none.

    A fill that came ``live`` counts only for an order of which nothing but the end is known.
    """

    order_id: str
    volume: Decimal
    time_ns: int
    live: bool


class Interval(Protocol):
    """An outage, in Kraken's time; None: not known (yet)."""

    @property
    def start_ns(self) -> int | None: ...

    @property
    def end_ns(self) -> int | None: ...


class _Instant(NamedTuple):
    """The interval in which an order ended. Its missing fills lie in the outage around that time."""

    start_ns: int | None
    end_ns: int | None


class Volumes:
    """The executed volume that each order claims, and the fills that cover it.

    ``executions`` has one of its own. ``openOrders`` (claims) and ``ownTrades`` (fills) share one.

    ``since`` and ``until`` are the bounds of the outages that are being recovered, in Kraken's time: use :meth:`widen`.
    An order that was not known before claims a volume only if it was opened in the outage. In v1, orders and fills are
    on two channels. There nothing counts without ``since``, which may only be set while both have an outage.
    """

    def __init__(self) -> None:
        self.since: int | None = None
        self.until: int | None = None  # None: not known
        self.claims: dict[str, Decimal] = {}  # by order. Never replaced: Knowledge keeps a reference
        self.ended_by_rest: set[str] = set()  # orders that have no later fills. Never replaced, either
        self.only_end_known: set[str] = set()  # orders of which only the end is known: it also claims their live fills
        self._covers: dict[str, _Cover] = {}  # by the fill's identity
        self._outages: list[Interval] = []  # of the channel whose snapshots claim
        self._of_fills: list[Interval] = []  # of the channel with the fills, if that is another one
        self._claimed: dict[str, Decimal] = {}  # the executed volume in the order's last claim
        self._spans: dict[str, list[Interval]] = {}  # when the fills happened that the order's claims need

    def widen(self, since: int, until: int | None = None) -> None:
        """Extend the bounds to an outage from ``since`` to ``until``; None if it has not ended."""
        self.since = since if self.since is None else min(self.since, since)
        if until is not None:
            self.until = until if self.until is None else max(self.until, until)

    def add_outage(self, outage: Interval) -> None:
        """Add an outage, which may have no end yet: the snapshot after it claims what was executed in it."""
        self._outages.append(outage)

    def add_outage_of_fills(self, outage: Interval) -> None:
        """Add an outage of the channel with the fills: those in it will be read from REST. Others came live."""
        self._of_fills.append(outage)

    def claim(self, order_id: str, before: Fields, now: Fields, *, ended: bool = False) -> None:
        """Add the claim of an order in a snapshot, or of an order end from REST: what was executed since ``before``."""
        executed = _executed(now)
        if executed is None or not (_is_countable(before) and _is_countable(now)):
            return
        if ended:
            self.ended_by_rest.add(order_id)
        closed = moment(value(now, "closetm"))
        # Find the outage whose fills are missing: the one before the snapshot, or the one around the order's end.
        around: Interval | None = self._outages[-1] if self._outages else None
        if ended and closed:
            around = next((one for one in reversed(self._outages) if _overlap(one, closed, closed)), None)
        # Find out how much was executed before: the claim is only the difference.
        known = _executed(before)
        if known is None:
            known = self._claimed.get(order_id)  # forgotten since, and read again
        if known is None:
            if not any(name in before for name in _SIZES) and not (around and _opened_in(around, now)):
                return  # it is unknown how much was executed before
            known = Decimal(0)
            if ended:
                self.only_end_known.add(order_id)
        if ended and self.since is not None and 0 < closed < self.since - SLACK_NS:
            return  # it ended before the first outage
        # A claim counts only if the fills that it needs will be read.
        if executed > known and self._are_fills_read(around, now, only_end_known=order_id in self.only_end_known):
            span: Interval = _Instant(closed, closed) if ended or around is None else around
            self._spans.setdefault(order_id, []).append(span)
            self._claimed[order_id] = executed
            self.claims[order_id] = _exact.add(self.claims.get(order_id, Decimal(0)), _exact.subtract(executed, known))

    def cover(self, identity: str, order_id: str, data: bytes, *, live: bool = False) -> None:
        """Add a fill of the outage, or one that came ``live``. The same fill can be added again."""
        fields, known = parse(data), self._covers.get(identity)
        volume = _volume(fields)
        if volume is not None and (known is None or (known.live and not live)):
            time = value(fields, "time") or value(fields, "timestamp")
            self._covers[identity] = _Cover(order_id, volume, moment(time), live)

    def uncover(self, identity: str) -> None:
        """Remove a fill: it came live, as an execution that the claim does not include."""
        self._covers.pop(identity, None)

    def live_fill(self, order_id: str, before: Fields, data: bytes) -> None:
        """Add a fill of v2 that came live after the order's snapshot.

        If it does not raise the executed volume, the snapshot included it, and it covers that claim.
        """
        fields = parse(data)
        volume, executed, known = _volume(fields), _executed(fields), _executed(before)
        if volume is None or executed is None or known is None or order_id not in self.claims:
            return
        had = _exact.subtract(volume, max(Decimal(0), _exact.subtract(executed, known)))
        if had > 0:
            self.claims[order_id] = _exact.subtract(self.claims[order_id], had)

    def missing_volumes(self) -> dict[str, Decimal]:
        """Return the orders whose fills add up to less than was executed, each with the missing volume."""
        missing = dict(self.claims)
        for cover in self._covers.values():
            if cover.order_id in missing and self._counts(cover):
                missing[cover.order_id] = _exact.subtract(missing[cover.order_id], cover.volume)
        return {order_id: volume for order_id, volume in missing.items() if volume > 0}

    def may_concern(self, order_id: str, start_ns: int, end_ns: int) -> bool:
        """Return whether fills that the order's claims need can lie in an interval."""
        return any(_overlap(span, start_ns, end_ns) for span in self._spans.get(order_id, ()))

    def clear(self, order_id: str | None = None) -> None:
        """Forget an order, or everything including the outages, when these are recovered or declared as gaps."""
        if order_id is not None:
            self.claims.pop(order_id, None)
            self._spans.pop(order_id, None)
            self._claimed.pop(order_id, None)
            self.ended_by_rest.discard(order_id)
            self.only_end_known.discard(order_id)
            return
        self.since = self.until = None
        self.claims.clear()
        self.ended_by_rest.clear()
        self.only_end_known.clear()
        self._covers.clear()
        self._spans.clear()
        self._claimed.clear()
        self._outages.clear()
        self._of_fills.clear()

    def _are_fills_read(self, around: Interval | None, now: Fields, *, only_end_known: bool) -> bool:
        """Return whether all fills that a claim needs are read: from the outage's start, or from when the order was
        opened in it. In v1, only fills in outages of the channel with the fills are read."""
        if not self._of_fills or around is None or around.start_ns is None:
            return True
        begin = max(around.start_ns, _opened(now)) if only_end_known else around.start_ns
        return any((one.start_ns or 0) <= begin + SLACK_NS and (one.end_ns or begin) >= begin for one in self._of_fills)

    def _counts(self, cover: _Cover) -> bool:
        """Return whether a fill lies in the outage. An open order has later fills, which its claim does not need."""
        if cover.live:
            return cover.order_id in self.only_end_known
        if cover.time_ns == 0:
            return True
        if self.since is not None and cover.time_ns < self.since - SLACK_NS:
            return False
        return self.until is None or cover.order_id in self.ended_by_rest or cover.time_ns <= self.until + SLACK_NS


def _overlap(span: Interval, start_ns: int, end_ns: int) -> bool:
    """Return whether a span and an interval may overlap."""
    return (span.start_ns or 0) <= end_ns + SLACK_NS and (not span.end_ns or span.end_ns >= start_ns - SLACK_NS)


def _opened_in(outage: Interval, fields: Fields) -> bool:
    """Return whether the order was opened in the outage and replaces no other, whose executed volume it may include."""
    if outage.start_ns is None or value(fields, "refid") or value(fields, "ord_ref_id"):
        return False
    return _opened(fields) > outage.start_ns


def _opened(fields: Fields) -> int:
    return moment(value(fields, "opentm") or value(fields, "timestamp"))


def is_short(order: Fields, fills: Iterable[bytes], since_ns: int) -> bool:
    """Return whether the fills of an ended order add up to less than was executed.

    Only an order that was opened after ``since_ns``, and replaces no other, has all of its fills after that time. What
    is not certain counts as covered.
    """
    executed = _executed(order)
    if executed is None or not _is_countable(order) or not _opened_in(_Instant(since_ns, None), order):
        return False
    for fill in fills:
        volume = _volume(parse(fill))
        if volume is None:
            return False
        executed = _exact.subtract(executed, volume)
    return executed > 0


def raises_executed(before: Fields, now: Fields) -> bool:
    """Return whether an order's executed volume is larger now than before."""
    known, executed = _executed(before), _executed(now)
    return executed is not None and (known is None or executed > known)


def _is_countable(fields: Fields) -> bool:
    """Return whether the order's executed volume is the sum of its fills. It is not if it is in the quote currency, nor
    for the settlement of a position, which is not a trade."""
    if "viqc" in value(fields, "oflags") or number(fields.get("cash_order_qty")):
        return False
    kind = value(fields, "order_type") or value(parse(fields.get("descr", b"")), "ordertype")
    return kind != "settle-position"


def _executed(fields: Fields) -> Decimal | None:
    return _first(fields, EXECUTED)


def _volume(fields: Fields) -> Decimal | None:
    return _first(fields, _VOLUMES)


def _first(fields: Fields, names: tuple[str, ...]) -> Decimal | None:
    """Return the first of these members that is a volume, and short enough to be added without rounding."""
    for name in names:
        found = number(fields.get(name))
        if found is not None and found >= 0 and _is_short(found):
            return found
    return None


def _is_short(volume: Decimal) -> bool:
    exponent = volume.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -PLACES and (not volume or volume.adjusted() < PLACES)
