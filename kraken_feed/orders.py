"""What the output already holds of one channel: open orders, ended orders, fills; and so which items are news.

Everything is kept as the bytes that were written. Changes are merged only when a snapshot has to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from .checkpoint import Entry
from .view import Fields, parse, value
from .wire import Item

Snapshots = Literal["changes", "all", "none"]

ENDED_KEPT = 10_000  # ended orders whose late news is known to be late: 45 minutes of them at a pair's limits
SEEN_KEPT = 20_000  # fills and ledger entries; a snapshot repeats fifty, and a hole of so many is 400 calls to REST
CHANGES_KEPT = 32  # changes of one order that are kept apart before they are folded into one object

# What differs between a change and a snapshot without the order's state being another: v2's kind of event and its
# time, and a fee that is the trade's in one and the order's in the other.
_PASSING = frozenset({"exec_type", "timestamp", "fee_usd_equiv", "lastupdated", "ratecount"})
_VOLUMES = ("vol_exec", "cum_qty")
END = ":end"  # what the identity of an order's end ends with
ORDER_CHANNELS = ("openOrders", "executions")


class Remembered:
    """A bounded set of ids, the oldest forgotten first: the last ``limit`` at least, three times as many at most.

    It has two generations; when the new one is full, the old one is forgotten as a whole.
    """

    def __init__(self, limit: int, ids: Sequence[str] = ()) -> None:
        self._limit = limit
        self._old: dict[str, None] = dict.fromkeys(ids[-2 * limit :])
        self._new: dict[str, None] = {}
        self._added: list[str] = []  # since the last take()

    def __contains__(self, name: object) -> bool:
        return name in self._new or name in self._old

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def add(self, name: str) -> bool:
        """Remember an id as a new one; False if it was known. Knowing it again makes it new again, so that what every
        snapshot repeats is never the oldest."""
        if name in self._new:
            return False
        known = name in self._old
        self._new[name] = None
        self._added.append(name)
        if len(self._new) >= self._limit:
            self._old, self._new = self._new, {}
            if len(self._added) > 2 * self._limit:
                del self._added[: -2 * self._limit]  # forgotten by now
        return not known

    def take(self) -> list[str]:
        """What was added since the last call, the oldest first."""
        taken, self._added = self._added, []
        return taken

    def everything(self) -> list[str]:
        """All of them, the oldest first."""
        return [*(name for name in self._old if name not in self._new), *self._new]


class Knowledge:
    """What the output holds of one channel.

    Every item that arrives is told to it, and it says which are to be written: an update is, unless it is a fill or an
    end that was written before; an item of a snapshot is, if it is not as it was last written.

    ``orders`` has the open orders by id, each as its last whole object and the changes since; for balances, the
    assets. ``missing`` are orders that are known open and were not in the last snapshot.
    """

    def __init__(
        self,
        channel: str,
        orders: Mapping[str, Sequence[bytes]] | None = None,
        ended: Sequence[str] = (),
        seen: Sequence[str] = (),
        *,
        first: bool = True,
    ) -> None:
        self.channel = channel
        self._of_orders = channel in ORDER_CHANNELS
        self.orders: dict[str, list[bytes]] = {name: list(parts) for name, parts in (orders or {}).items()}
        self.ended = Remembered(ENDED_KEPT, ended)
        self.seen = Remembered(SEEN_KEPT, seen)
        self.missing: set[str] = set()
        self.changed: set[str] = set()  # names in `orders` that changed since the last take()
        # Of each order that the checkpoint has been told of, how many of its objects; 0 if those are others by now.
        self._kept: dict[str, int] = {name: len(parts) for name, parts in self.orders.items()}
        self.first = first  # no snapshot was ever taken in

    def update(self, item: Item) -> bool:
        """Take in an item of an update, and say whether it is to be written."""
        if item.identity is not None and not self._unseen(item):
            return False
        order_id = item.order_id
        if self._of_orders:
            if order_id is None:
                return True
            parts = self.orders.get(order_id)
            if parts is None:
                if order_id in self.ended:
                    return True
                parts = self.orders[order_id] = []
            parts.append(item.data)
            if len(parts) > CHANGES_KEPT:
                self._replace(order_id, fold(parts))
            self.changed.add(order_id)
            if self.missing:
                self.missing.discard(order_id)
        elif self.channel == "balances":
            self._forget(_asset(item))  # the next snapshot shows what has become of it
        return True

    def snapshot(self, items: Sequence[Item], policy: Snapshots) -> Iterator[bool]:
        """Whether each item of a whole snapshot is to be written. An item is taken in when its answer is."""
        hold = policy == "none" and self.first
        self.first = False
        if self.channel in ORDER_CHANNELS:
            self.missing = self.orders.keys() - {item.order_id for item in items if item.identity is None}

        def is_written(item: Item) -> bool:
            news = self._is_news(item)
            return policy == "all" or (news and not hold)

        return map(is_written, items)

    def take(self) -> Entry:
        """What is known by now and was not at the last call."""
        entry = Entry(ended=self.ended.take(), seen=self.seen.take())
        for name in self.changed:
            parts, kept = self.orders.get(name), self._kept.get(name, 0)
            if parts is None:
                del self._kept[name]
                entry.orders[name] = []
                continue
            if kept:
                entry.grown[name] = parts[kept:]
            else:
                entry.orders[name] = parts.copy()
            self._kept[name] = len(parts)
        self.changed.clear()
        return entry

    def everything(self) -> Entry:
        """All that is known. Whoever has kept it, instead of what :meth:`take` has just said, goes on with that."""
        orders = {name: parts.copy() for name, parts in self.orders.items()}
        return Entry(orders, ended=self.ended.everything(), seen=self.seen.everything())

    def backfilled(self, item: Item) -> bool:
        """Take in what REST says, and say whether it is to be written: fills and ends that are not yet. An order that
        REST calls open is no news: what it is now is in the snapshot."""
        return item.identity is not None and self._unseen(item)

    def _unseen(self, item: Item) -> bool:
        """Whether nothing with the item's identity was written. An end also closes the order."""
        if item.identity is None:
            return True
        if not item.identity.endswith(END):
            return self.seen.add(item.identity)
        order_id = item.identity.removesuffix(END)
        self.missing.discard(order_id)
        self._forget(order_id)
        return self.ended.add(order_id)

    def _is_news(self, item: Item) -> bool:
        if item.identity is not None:
            return self._unseen(item)
        name = item.order_id if item.order_id is not None else _asset(item)
        if name in self.ended:
            return False  # an old snapshot: what has ended does not reopen
        known = self.orders.get(name)
        standing = compare(known, item.data) if known else "newer"
        if standing != "older":
            self._replace(name, item.data)
            self.changed.add(name)
        return standing == "newer"

    def _replace(self, name: str, whole: bytes) -> None:
        """An order as one object."""
        self.orders[name] = [whole]
        if name in self._kept:
            self._kept[name] = 0

    def _forget(self, name: str) -> None:
        if self.orders.pop(name, None) is None:
            return
        if name in self._kept:
            self._kept[name] = 0
            self.changed.add(name)
        else:
            self.changed.discard(name)  # it came and went, and no checkpoint ever heard of it


def _asset(item: Item) -> str:
    return value(parse(item.data), "asset")


def merged(parts: Sequence[bytes]) -> Fields:
    """A whole object and its changes as one set of fields, each still the bytes that were sent."""
    fields: Fields = {}
    for part in parts:
        fields.update(parse(part))
    return fields


def fold(parts: Sequence[bytes]) -> bytes:
    """The same as one object."""
    return msgspec.json.encode(merged(parts))


def compare(known: Sequence[bytes], whole: bytes) -> Literal["same", "newer", "older"]:
    """How a snapshot's object stands to what is known of the order.

    Cumulative volumes never fall: an object with less executed is older. Numbers are compared by value, since a
    snapshot may print them with another scale; what passes (the kind of event, its time) is left out.
    """
    before, now = merged(known), parse(whole)
    for name in _VOLUMES:
        if name in now and name in before and (_number(now[name]) or 0) < (_number(before[name]) or 0):
            return "older"
    return "same" if all(n in _PASSING or _equal(before.get(n), raw) for n, raw in now.items()) else "newer"


def _equal(before: msgspec.Raw | None, now: msgspec.Raw) -> bool:
    if before is None:  # not said so far: as good as nothing
        return bytes(now) in (b"null", b'""', b"false") or _number(now) == 0
    if bytes(before) == bytes(now):
        return True
    numbers = _number(before), _number(now)
    if None not in numbers:
        return numbers[0] == numbers[1]
    try:
        decoded: list[object] = [msgspec.json.decode(raw) for raw in (before, now)]
    except msgspec.DecodeError:
        return False
    return decoded[0] == decoded[1]


def _number(raw: msgspec.Raw) -> Decimal | None:
    try:
        return Decimal(bytes(raw).strip(b'"').decode())
    except (InvalidOperation, UnicodeDecodeError):
        return None
