"""The invariants: what the output has to hold of what the exchange did, and what it must not hold.

The checker reads the exchange's changes, the frames that the client has read, and the output, each once. Times are
Kraken's, in unix seconds.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

import msgspec

from kraken_feed.json_members import NotJson, members
from kraken_feed.simulator.market.ledger import Frame
from kraken_feed.simulator.market.order import Change
from kraken_feed.simulator.market.pair import ASSETS, SOL_SHARE

from .disk import Mark
from .reasons import Excuses, legal

CHANNELS_OF = {"end": ("openOrders", "executions"), "fill": ("ownTrades", "executions"), "entry": ("balances",)}
PATIENCE_S = 20 * 60.0  # an outage is recovered or declared within so long
SETTLED_S = 120.0  # `feed.backfilled` may be ahead of what a slow network line still brings
REMEMBERED = 10_000  # records after which a client need not know any more what it has written
BLUR_S = 1e-5  # times are cut to microseconds, and an order closes microseconds after its last fill
_ODD = re.compile(rb'"status":"[^"]*"')
_ENDS_V1 = frozenset({"closed", "canceled", "expired"})
_ENDS_V2 = frozenset({"filled", "canceled", "expired"})


class Violation(NamedTuple):
    """A promise that was broken: which invariant, and by what."""

    invariant: str
    item: str


class Line(msgspec.Struct, gc=False):
    """What is looked at in a record."""

    id: str
    event_name: str
    channel: str
    account: str
    type: str = ""
    order_id: str = ""
    exec_id: str = ""
    since: str | None = msgspec.field(name="from", default=None)
    to: str = ""
    reason: str = ""
    data: msgspec.Raw = msgspec.Raw()


class Item(msgspec.Struct, gc=False):
    """What an item of a frame tells of its identity; v1's and v2's members have different names."""

    status: str | None = None
    exec_type: str | None = None
    exec_id: str | None = None
    order_id: str | None = None
    ledger_id: str | None = None


class Interval(NamedTuple):
    """A declared or recovered one."""

    since: float
    to: float


class Written(msgspec.Struct, gc=False):
    """Where an id was last written: by which run, as what, and its bytes."""

    run: int
    type: str
    data: bytes
    number: int  # how many records of the channel came before


class Wait(NamedTuple):
    """For how long something may be missing. See :meth:`Checker.check`."""

    now: float
    up_since: float
    pending: Sequence[Interval]
    patience_s: float
    at_the_end: bool

    def may_be_over(self, channel: Channel) -> bool:
        """Return whether anything that is due may have to be on the output by now. Most of what is due for long lies
        in pending outages: then looking at each item would take most of the storm's time."""
        if self.now - self.up_since <= PATIENCE_S:
            return False
        late = sorted(channel.due.values())
        del late[bisect_left(late, self.now - PATIENCE_S) :]
        if not late:
            return False
        excused = covered = 0
        for since, to in sorted(self.pending):
            first, last = bisect_left(late, since - BLUR_S), bisect_right(late, to + BLUR_S)
            excused += max(0, last - max(first, covered))
            covered = max(covered, last)
        return excused < len(late) or late[0] < self.now - self.patience_s

    def is_over(self, at: float) -> bool:
        """Return whether what happened at that moment has to be on the output by now."""
        if self.at_the_end:
            return True
        excused = any(since - BLUR_S <= at <= to + BLUR_S for since, to in self.pending)
        return self.now - max(at, self.up_since) > (self.patience_s if excused else PATIENCE_S)


Key = tuple[str, bytes]  # an item: in v1 the id that it stands under, and its bytes


class Channel:
    """What is known of one channel."""

    def __init__(self, account: str, name: str) -> None:
        self.name = name
        self.prefix = f"{account}:{name}:"
        self.live_since: float | None = None  # when the first `feed.live` was written
        self.records = 0
        self.due: dict[str, float] = {}  # ids that are not on the output, and when they happened
        self.read: dict[Key, list[float]] = {}  # items that were read and are not on the output, and when each was sent
        self.content: set[int] = set()  # hashes of the items that are
        # Hashes of items that need not be written: of v1's snapshots, which do not say that they are snapshots, and of
        # frames that came twice.
        self.shown: set[int] = set()
        self.gaps: list[Interval] = []
        self.recovered: list[tuple[Interval, float]] = []  # with when the checker read it
        self.declared: dict[Interval, list[tuple[str, float]]] = {}  # what each gap is about
        self.answers = 0  # gaps and recovered outages that were written
        self.looked_at = (0, 0)  # how many there were at the last full look at what is due, and how many had settled


_decode_line = msgspec.json.Decoder(Line).decode
_decode_item = msgspec.json.Decoder(Item).decode


class Checker:
    """Compares one account's output with the truth.

    Args:
        account: its name on the records.
        channels: what is tailed.
        secrets: must not be on the output; tokens are added to it.
        excuses: what gives a gap its right.
        every_snapshot: all items of every snapshot are written, and so repeat what was written.
        odd: REST calls ends of orders by names that nobody knows; a row that does tells of the end all the same.
        facts: ids of ledger entries can be empty or shared, so entries are compared by what they say.
    """

    def __init__(
        self,
        account: str,
        channels: Sequence[str],
        secrets: Iterable[bytes],
        excuses: Excuses,
        *,
        every_snapshot: bool = False,
        odd: bool = False,
        facts: bool = False,
    ) -> None:
        self.every_snapshot = every_snapshot
        self.account = account
        self.channels = {name: Channel(account, name) for name in channels}
        self.secrets = list(secrets)
        self.excuses = excuses
        self.violations: list[Violation] = []
        self.gaps: Counter[str] = Counter()  # by kind of reason
        self.recovered = 0
        self.lines = 0
        self.written: dict[str, Written] = {}
        self.told: set[str] = set()  # ends of orders that came by an odd name, and facts
        self._odd = odd
        self._facts = facts
        self.clean: set[int] = set()  # runs after which nothing may be repeated
        self._texts: set[int] = set()  # hashes of all lines
        self.rescued: set[int] = set()  # runs whose output was removed: they may write a part of it again
        self._channels_of = {
            kind: [self.channels[name] for name in names if name in self.channels]
            for kind, names in CHANNELS_OF.items()
        }

    # -- what happened

    def happened(self, changes: Iterable[Change]) -> None:
        """Take in the truth."""
        ends, fills, entries = (self._channels_of[kind] for kind in ("end", "fill", "entry"))
        for change in changes:
            if change.order.terminal:
                for channel in ends:
                    self._due(channel, f"{channel.prefix}{change.order.id}:end", change.at)
            if change.trade is not None:
                for channel in fills:
                    self._due(channel, f"{channel.prefix}{change.trade.id}", change.at)
                for channel in entries:
                    for entry in change.entries:
                        name = _fact(entry.fact) if self._facts else entry.id
                        self._due(channel, channel.prefix + name, change.at)

    def _due(self, channel: Channel, name: str, at: float) -> None:
        if name not in self.written and name not in self.told:
            channel.due[name] = at

    def read(self, frame: Frame, *, again: bool = False) -> None:
        """Take in a data frame that the client has read. One that comes ``again`` need not be written again."""
        channel = self.channels.get(frame.channel)
        if channel is None:
            return
        v2, is_snapshot = frame.dialect == "v2", frame.kind == "snapshot"
        if is_snapshot and v2:
            return
        for item in frame.items:
            key = ("", item.data) if v2 else (item.ids[0], item.data[len(item.ids[0]) + 4 : -1])
            if is_snapshot or again:
                channel.shown.add(hash(key))
            elif (times := channel.read.get(key)) is not None:
                times.append(frame.at)
            else:
                channel.read[key] = [frame.at]

    # -- what was written

    def output(self, content: bytes, begin: int, marks: Sequence[Mark], noted: dict[bytes, float], now: float) -> None:
        """Take in lines of the output that begin at an offset. ``noted``: when ``feed.live`` records were written."""
        for secret in self.secrets:
            if secret in content:
                self._violated("a secret is on the output", _around(content, secret))
        offsets, offset = [mark.offset for mark in marks], begin
        run, following = 0, begin  # the run that writes up to that offset
        for line in content.splitlines(keepends=True):
            if offset >= following:
                index = bisect_right(offsets, offset)
                run = marks[index - 1].run if index else 0
                following = offsets[index] if index < len(offsets) else 1 << 62
            offset += len(line)
            self._line(line, run, noted, now)

    def _line(self, text: bytes, run: int, noted: dict[bytes, float], now: float) -> None:
        self.lines += 1
        known = len(self._texts)
        self._texts.add(hash(text))
        if run in self.rescued and len(self._texts) == known:
            return  # the same line, with its time and connection: rescued from a file that was removed
        try:
            line = _read_line(text)
        except (msgspec.DecodeError, NotJson):
            self._violated("a line is no record", text[:200].decode("utf-8", "replace"))
            return
        if line.account != self.account:
            return
        channel = self.channels.get(line.channel)
        if channel is None:
            if line.event_name != "unknown":
                self._violated("a record of a channel that is not tailed", line.id)
            return
        data = bytes(line.data)
        key = _KEY[line.channel](line), data
        before, now_written = self.written.get(line.id), Written(run, line.type, data, channel.records)
        if before is not None:
            self._again(line, before, now_written)
        self.written[line.id] = now_written
        if data:
            channel.records += 1
            channel.due.pop(line.id, None)
            if self._odd and line.type == "backfill" and line.id.startswith(f"{channel.prefix}{line.order_id}:"):
                self._tell(channel, f"{channel.prefix}{line.order_id}:end")
            if self._facts and line.channel == "balances" and (fact := _fact_of(data)):
                self._tell(channel, channel.prefix + fact)
            if line.type == "update":
                self._update(channel, line.id, key)
        elif line.event_name == "feed.live":
            if channel.live_since is None and text in noted:
                channel.live_since = noted[text]
        elif line.event_name == "feed.gap":
            self._gap(channel, line, now)
        elif line.event_name == "feed.backfilled":
            self._backfilled(channel, line, now)

    def _tell(self, channel: Channel, name: str) -> None:
        """Something is on the output under another name."""
        self.told.add(name)
        channel.due.pop(name, None)

    def _again(self, line: Line, before: Written, now: Written) -> None:
        """An id was written before. Only what was written around a crash may be repeated, as the same thing."""
        if self.every_snapshot and now.type == "snapshot":
            return
        if now.number - before.number > REMEMBERED and now.type == "backfill":
            return
        if before.run == now.run:
            self._violated("an id is written twice by one run", f"{line.id} ({before.type}, {now.type})")
        elif all(run in self.clean for run in range(before.run, now.run)):
            self._violated("an id is repeated after a clean stop", line.id)
        elif before.type == now.type != "snapshot" and self._differ(before.data, now.data):
            both = f"{before.data.decode()} | {now.data.decode()}"
            self._violated("an id stands for two items", f"{line.id} ({line.type}): {both}")

    def _differ(self, before: bytes, now: bytes) -> bool:
        """Return whether two items under one id are two. Their bytes are the same, but for the state's name where REST
        has odd ones. (Those of snapshots differ: a fill there says how its order is.)"""
        return before != now and not (self._odd and _ODD.sub(b"", before) == _ODD.sub(b"", now))

    def _update(self, channel: Channel, name: str, key: Key) -> None:
        channel.content.add(hash(key))
        times = channel.read.get(key)
        if times is None:
            if hash(key) in channel.shown:
                return
            self._violated("an update on the output was not read", f"{name} {key[1][:200].decode()}")
            return
        times.pop(0)
        if not times:
            del channel.read[key]

    def _gap(self, channel: Channel, line: Line, now: float) -> None:
        interval = _interval(line)
        kind = legal(line.reason, interval.since, interval.to, now, self.excuses)
        self.gaps[kind.name] += 1
        if not kind.legal:
            self._violated("a gap without a reason", f"{channel.name} {line.since} {line.to}: {line.reason}")
        channel.answers += 1
        channel.gaps.append(interval)
        channel.declared[interval] = []

    def _backfilled(self, channel: Channel, line: Line, now: float) -> None:
        interval = _interval(line)
        self.recovered += 1
        if interval in channel.declared:  # what was declared lost was recovered after all, or so it says
            channel.gaps.remove(interval)
            for name, at in channel.declared.pop(interval):
                self._due(channel, name, at)
        channel.answers += 1
        channel.recovered.append((interval, now))

    # -- the comparison

    def check(
        self,
        now: float,
        *,
        up_since: float,
        pending: Mapping[str, Sequence[Interval]] = {},
        patience_s: float = PATIENCE_S,
        at_the_end: bool = False,
    ) -> None:
        """Look for what is missing up to ``now``.

        Args:
            up_since: from when on the client could have done something.
            pending: outages that it is still at work on, by channel. They may take ``patience_s``.
            at_the_end: nothing more will come.
        """
        for channel in self.channels.values():
            wait = Wait(now, up_since, pending.get(channel.name, ()), patience_s, at_the_end)
            settled = sum(seen < now - SETTLED_S for _, seen in channel.recovered)
            answered = (channel.answers, settled)
            news, channel.looked_at = answered != channel.looked_at, answered
            if channel.due and (news or at_the_end or channel.live_since is None or wait.may_be_over(channel)):
                self._check_due(channel, wait)
            if channel.read:
                self._check_read(channel, wait)

    def _check_due(self, channel: Channel, wait: Wait) -> None:
        now, at_the_end = wait.now, wait.at_the_end
        for name, at in list(channel.due.items()):
            if at > now:
                continue
            if channel.live_since is None:
                if at_the_end:
                    del channel.due[name]
                continue
            if at <= channel.live_since:
                del channel.due[name]
                continue
            gap = next((gap for gap in channel.gaps if gap.since - BLUR_S <= at <= gap.to + BLUR_S), None)
            if gap is not None:
                del channel.due[name]
                channel.declared[gap].append((name, at))
                continue
            claim = next(
                (
                    i
                    for i, seen in channel.recovered
                    if i.since + BLUR_S < at < i.to - BLUR_S and seen < now - SETTLED_S
                ),
                None,
            )
            if claim is not None:
                self._violated("an interval counts as recovered and is not", f"{name} of {at:.6f}, in {claim}")
            elif wait.is_over(at):
                self._violated("something is lost silently", f"{name} of {at:.6f}")
            else:
                continue
            del channel.due[name]

    def _check_read(self, channel: Channel, wait: Wait) -> None:
        """Items that the client has read are on the output, or known in another way, or in an outage that was dealt
        with: then only their order's last state counts."""
        for key, times in list(channel.read.items()):
            name = _identity(channel, *key)
            known = self.written.get(name) if name else None
            if known is not None and (known.type != "update" or hash(key) in channel.content):
                del channel.read[key]
                continue
            left = [at for at in times if not _dealt_with(channel, at)]
            if left and left[0] <= wait.now and wait.is_over(left[0]):
                what = f"{channel.name} {left[0]:.6f} {key[0]} {key[1][:300].decode()}"
                self._violated("an update was read and is not on the output", what)
                left = []
            if left:
                channel.read[key] = left
            else:
                del channel.read[key]

    def forget(self, channels: Iterable[str]) -> None:
        """Start again with these channels: neither state nor output tell of them, and a client that finds nothing may
        take it for a first start."""
        for name in channels:
            channel = self.channels[name]
            channel.live_since = None
            channel.due.clear()
            channel.read.clear()

    def secret_in(self, text: str) -> None:
        """Look for secrets in a diagnostic."""
        for secret in self.secrets:
            if secret.decode() in text:
                self._violated("a secret is in the diagnostics", text[:200])

    def _violated(self, invariant: str, item: str) -> None:
        self.violations.append(Violation(invariant, item))

    def violated(self, invariant: str, item: str) -> None:
        """Record what somebody else has found."""
        self._violated(invariant, item)


_KEY: dict[str, Callable[[Line], str]] = {
    "openOrders": lambda line: line.order_id,
    "ownTrades": lambda line: line.exec_id,
    "executions": lambda line: "",
    "balances": lambda line: "",
}


def _read_line(text: bytes) -> Line:
    """Return a record, also one with lone surrogates in Kraken's own strings, which msgspec refuses."""
    try:
        return _decode_line(text)
    except msgspec.DecodeError:
        if rb"\ud800" not in text:
            raise
        fields = dict(members(text))
        data = fields.pop("data", b"")
        line = _decode_line(b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), raw) for name, raw in fields.items()))
        line.data = msgspec.Raw(data)
        return line


def _identity(channel: Channel, ident: str, data: bytes) -> str | None:
    """Return the id of an update's item that is a fact which can come in several ways; None for a mere change."""
    try:
        item = _decode_item(data.replace(rb"\ud800", b""))
    except msgspec.DecodeError:
        return None
    if channel.name == "ownTrades":
        return channel.prefix + ident
    if channel.name == "openOrders":
        return f"{channel.prefix}{ident}:end" if (item.status or "").lower() in _ENDS_V1 else None
    if channel.name == "balances":
        return channel.prefix + item.ledger_id if item.ledger_id else None
    kind = (item.exec_type or "").lower()
    if kind == "trade" and item.exec_id:
        return channel.prefix + item.exec_id
    return f"{channel.prefix}{item.order_id}:end" if kind in _ENDS_V2 else None


class Leg(msgspec.Struct, gc=False):
    """A ledger entry, as the feed or REST writes it."""

    ref_id: str = ""
    refid: str = ""
    asset: str = ""
    asset_class: str = ""
    aclass: str = ""
    amount: msgspec.Raw = msgspec.Raw()
    balance: msgspec.Raw = msgspec.Raw()


_decode_leg = msgspec.json.Decoder(Leg).decode
_ASSETS = {asset.rest: asset.v2 for asset in (*ASSETS, SOL_SHARE)}


def _fact_of(data: bytes) -> str | None:
    """Return what a record of a ledger entry says; None if it is a mere balance."""
    leg = _decode_leg(data.replace(rb"\ud800", b""))
    numbers = bytes(leg.amount).strip(b'"').decode(), bytes(leg.balance).strip(b'"').decode()
    if leg.refid:
        return _fact((leg.refid, _ASSETS[leg.asset], leg.aclass, *numbers))
    return _fact((leg.ref_id, leg.asset, leg.asset_class, *numbers)) if leg.ref_id else None


def _fact(fact: Iterable[str]) -> str:
    return f"fact:{'|'.join(fact)}"


def _dealt_with(channel: Channel, at: float) -> bool:
    around = (interval for interval, _ in channel.recovered)
    return any(i.since - 1e-3 <= at <= i.to + 1e-3 for i in (*channel.gaps, *around))


def _interval(line: Line) -> Interval:
    return Interval(-math.inf if line.since is None else _unix(line.since), _unix(line.to))


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def _around(content: bytes, found: bytes) -> str:
    at = content.index(found)
    return content[max(0, at - 80) : at].decode("utf-8", "replace")
