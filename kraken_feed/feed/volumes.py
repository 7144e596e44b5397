"""Executed volumes that the fills have to add up to: where they do not, REST's history is behind.

Live, an order's volume and its fills come together. Across an outage they come apart: the snapshot, or an order end
from REST, says how much was executed; the fills come from the snapshot and from REST's history. The first claims a
volume, the second cover it.

A false doubt costs minutes and in the end a declared gap. So whatever cannot be told for certain counts as covered.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import NamedTuple, Protocol

from ..records.view import Fields, moment, parse, value
from .order_states import EXECUTED, number

NS = 1_000_000_000
# A fill is told within a second of its time. The outage's ends are known to within a second or two.
SLACK_NS = 10 * NS
PLACES = 30  # digits before and behind the point that a volume can have: Kraken's have at most 13 and 10
_exact = Context(prec=4 * PLACES)

_VOLUMES = ("vol", "last_qty")  # of a fill: v1's and REST's, v2's
_SIZES = ("vol", "order_qty")  # what only a complete order has: v1's and REST's, v2's


class _Cover(NamedTuple):
    """A fill that may cover a claim; ``time_ns`` is Kraken's time, 0 if the fill does not say it.

    One that the feed told ``live`` covers only what an order claims of which nothing but the end is known.
    """

    order_id: str
    volume: Decimal
    time_ns: int
    live: bool


class Interval(Protocol):
    """An outage, in Kraken's time; None: not known, or not yet."""

    @property
    def start_ns(self) -> int | None: ...

    @property
    def end_ns(self) -> int | None: ...


class _Instant(NamedTuple):
    """When an order ended that was known before: what is missing lies in the outage around that."""

    start_ns: int | None
    end_ns: int | None


class Volumes:
    """Adds up, by order, the executed volume that is claimed and the fills that cover it.

    ``executions`` has one of its own. ``openOrders`` (claims) and ``ownTrades`` (fills) share one.

    ``since`` and ``until`` are the bounds of the outages that are being recovered, in Kraken's time: use :meth:`widen`.
    An order that was not known before claims something only if it was opened in the outage. Orders and fills of v1 come
    on two channels: for these nothing counts without ``since``, and it may only be set while both have an outage.
    """

    def __init__(self) -> None:
        self.since: int | None = None
        self.until: int | None = None  # None: not known
        self.owed: dict[str, Decimal] = {}  # claims. The same object for ever: others look into it
        self.closed: set[str] = set()  # orders whose end came from REST: they get no later fill. The same object, too
        self.unseen: set[str] = set()  # orders whose end is all that was known: it claims their live fills, too
        self._covers: dict[str, _Cover] = {}  # by the fill's identity
        self._outages: list[Interval] = []  # of the channel whose snapshots claim
        self._of_fills: list[Interval] = []  # of the channel that tells the fills, if that is another one
        self._claimed: dict[str, Decimal] = {}  # what was executed of an order by its last claim
        self._spans: dict[str, list[Interval]] = {}  # when the fills were made that an order's claims ask for

    def widen(self, since: int, until: int | None = None) -> None:
        """An outage that begins at ``since`` has to be recovered; it ended at ``until``, if that is known already."""
        self.since = since if self.since is None else min(self.since, since)
        if until is not None:
            self.until = until if self.until is None else max(self.until, until)

    def add_outage(self, outage: Interval) -> None:
        """Let the snapshot that ends ``outage`` claim what was executed in it. It may have no end yet."""
        self._outages.append(outage)

    def add_outage_of_fills(self, outage: Interval) -> None:
        """Let what was executed in ``outage`` be claimed: its fills will be read. Others were told live."""
        self._of_fills.append(outage)

    def claim(self, order_id: str, before: Fields, now: Fields, *, ended: bool = False) -> None:
        """Take in an order that a snapshot shows, or whose end REST tells, and what was known of it before."""
        executed = _executed(now)
        if executed is None or not (_is_countable(before) and _is_countable(now)):
            return
        if ended:
            self.closed.add(order_id)
        closed = moment(value(now, "closetm"))
        # Of an order that is known, nothing is missing from before the outage of which the snapshot or the end tells.
        around: Interval | None = self._outages[-1] if self._outages else None
        if ended and closed:
            around = next((one for one in reversed(self._outages) if _overlap(one, closed, closed)), None)
        known = _executed(before)
        if known is None:
            known = self._claimed.get(order_id)  # forgotten since, and read again
        if known is None:
            if not any(name in before for name in _SIZES) and not (around and _opened_in(around, now)):
                return  # nobody knows how much of it was executed before
            known = Decimal(0)
            if ended:
                self.unseen.add(order_id)
        if ended and self.since is not None and 0 < closed < self.since - SLACK_NS:
            return  # it was over before anything was missed
        if executed > known and self._are_fills_read(around, now, unseen=order_id in self.unseen):
            span: Interval = _Instant(closed, closed) if ended or around is None else around
            self._spans.setdefault(order_id, []).append(span)
            self._claimed[order_id] = executed
            self.owed[order_id] = _exact.add(self.owed.get(order_id, Decimal(0)), _exact.subtract(executed, known))

    def cover(self, identity: str, order_id: str, data: bytes, *, live: bool = False) -> None:
        """Take in a fill of the outage, or one that the feed told ``live``. The same one can come again."""
        fields, known = parse(data), self._covers.get(identity)
        volume = _volume(fields)
        if volume is not None and (known is None or (known.live and not live)):
            time = value(fields, "time") or value(fields, "timestamp")
            self._covers[identity] = _Cover(order_id, volume, moment(time), live)

    def uncover(self, identity: str) -> None:
        """Take back a fill: the feed has told it by now, as an execution later than what is claimed."""
        self._covers.pop(identity, None)

    def live_fill(self, order_id: str, before: Fields, data: bytes) -> None:
        """Take in a fill of v2 that the feed brought after the order's snapshot.

        It raises the executed volume by its own; if it does not, the snapshot had it already, and it covers that claim.
        """
        fields = parse(data)
        volume, executed, known = _volume(fields), _executed(fields), _executed(before)
        if volume is None or executed is None or known is None or order_id not in self.owed:
            return
        had = _exact.subtract(volume, max(Decimal(0), _exact.subtract(executed, known)))
        if had > 0:
            self.owed[order_id] = _exact.subtract(self.owed[order_id], had)

    def short(self) -> dict[str, Decimal]:
        """Return the orders whose fills do not add up to what was executed, and the volume that is missing."""
        owed = dict(self.owed)
        for cover in self._covers.values():
            if cover.order_id in owed and self._counts(cover):
                owed[cover.order_id] = _exact.subtract(owed[cover.order_id], cover.volume)
        return {order_id: volume for order_id, volume in owed.items() if volume > 0}

    def may_concern(self, order_id: str, start_ns: int, end_ns: int) -> bool:
        """Return whether fills that the order's claims ask for can lie in an interval."""
        return any(_overlap(span, start_ns, end_ns) for span in self._spans.get(order_id, ()))

    def clear(self, order_id: str | None = None) -> None:
        """Forget an order; or everything, the outages included: they are recovered, or declared as gaps."""
        if order_id is not None:
            self.owed.pop(order_id, None)
            self._spans.pop(order_id, None)
            self._claimed.pop(order_id, None)
            self.closed.discard(order_id)
            self.unseen.discard(order_id)
            return
        self.since = self.until = None
        self.owed.clear()
        self.closed.clear()
        self.unseen.clear()
        self._covers.clear()
        self._spans.clear()
        self._claimed.clear()
        self._outages.clear()
        self._of_fills.clear()

    def _are_fills_read(self, around: Interval | None, now: Fields, *, unseen: bool) -> bool:
        """Return whether everything that a claim asks for is read: from the outage's beginning on, or from when the
        order was opened in it. Of v1, only what the channel of the fills has missed is read."""
        if not self._of_fills or around is None or around.start_ns is None:
            return True
        begin = max(around.start_ns, _opened(now)) if unseen else around.start_ns
        return any((one.start_ns or 0) <= begin + SLACK_NS and (one.end_ns or begin) >= begin for one in self._of_fills)

    def _counts(self, cover: _Cover) -> bool:
        """Return whether a fill lies in the outage. An order that goes on has later fills, which its claim has not."""
        if cover.live:
            return cover.order_id in self.unseen
        if cover.time_ns == 0:
            return True
        if self.since is not None and cover.time_ns < self.since - SLACK_NS:
            return False
        return self.until is None or cover.order_id in self.closed or cover.time_ns <= self.until + SLACK_NS


def _overlap(span: Interval, start_ns: int, end_ns: int) -> bool:
    """Return whether a span and an interval may overlap, as far as is known."""
    return (span.start_ns or 0) <= end_ns + SLACK_NS and (not span.end_ns or span.end_ns >= start_ns - SLACK_NS)


def _opened_in(outage: Interval, fields: Fields) -> bool:
    """Return whether the order was opened in the outage, by itself: an order that replaces another may say what was
    executed of that one."""
    if outage.start_ns is None or value(fields, "refid") or value(fields, "ord_ref_id"):
        return False
    return _opened(fields) > outage.start_ns


def _opened(fields: Fields) -> int:
    return moment(value(fields, "opentm") or value(fields, "timestamp"))


def raises_executed(before: Fields, now: Fields) -> bool:
    """Return whether an order's executed volume is larger now than what was known of it."""
    known, executed = _executed(before), _executed(now)
    return executed is not None and (known is None or executed > known)


def _is_countable(fields: Fields) -> bool:
    """Return whether the order's executed volume is the sum of its fills'. It is none if it is in the quote currency;
    settling a position is said to be no trade."""
    if "viqc" in value(fields, "oflags") or number(fields.get("cash_order_qty")):
        return False
    kind = value(fields, "order_type") or value(parse(fields.get("descr", b"")), "ordertype")
    return kind != "settle-position"


def _executed(fields: Fields) -> Decimal | None:
    return _first(fields, EXECUTED)


def _volume(fields: Fields) -> Decimal | None:
    return _first(fields, _VOLUMES)


def _first(fields: Fields, names: tuple[str, ...]) -> Decimal | None:
    """Return the first of these that is a volume: a number that can be added to others without being rounded."""
    for name in names:
        found = number(fields.get(name))
        if found is not None and found >= 0 and _is_short(found):
            return found
    return None


def _is_short(volume: Decimal) -> bool:
    exponent = volume.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -PLACES and (not volume or volume.adjusted() < PLACES)
