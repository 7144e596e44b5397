"""What the output already holds of one channel: open orders, ended orders, fills; and so which items are news.

Everything is kept as the bytes that were written. Changes are merged only when a snapshot has to be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal
from zlib import crc32

from ..protocol.wire import Item
from ..records.view import Fields, is_past_trade, parse, value
from ..state.checkpoint import Entry, Known
from .order_states import compare as compare
from .order_states import compare_fields
from .order_states import fold as fold
from .order_states import merged as merged
from .volumes import Volumes as Volumes
from .volumes import raises_executed

# ---------------------------------- Ids that the output holds, bounded, and what the feed brought under each of them
#
# An id is a claim: the feed can bring two different items under one. So the CRC-32 of the bytes is remembered with it.


# What is known of an id that comes (again), see :meth:`Remembered.add`.
Standing = Literal["new", "known", "repeat", "other"]

_NEVER = -1  # no CRC-32 is negative


class Remembered:
    """A bounded set of ids, the oldest forgotten first: the last ``limit`` at least, three times as many at most.

    It has two generations; when the new one is full, the old one is forgotten completely. Each id has the CRC-32 of the
    bytes that an update of the feed brought under it, or None if it came only by a snapshot or from REST: their bytes
    differ from an update's although they tell the same fact.
    """

    def __init__(self, limit: int, ids: Sequence[Known] = ()) -> None:
        self._limit = limit
        self._old: dict[str, int | None] = {}
        self._new: dict[str, int | None] = {}
        self._added: list[Known] = []  # since the last take()
        for known in ids[-2 * limit :]:
            name, crc = (known, None) if isinstance(known, str) else known
            before = self._old.pop(name, None)  # and put behind the others
            self._old[name] = before if crc is None else crc

    def __contains__(self, name: object) -> bool:
        return name in self._new or name in self._old

    def __len__(self) -> int:
        return len(self._new.keys() | self._old.keys())

    def add(self, name: str, crc: int | None = None) -> Standing:
        """Remember an id, and return what was known of it.

        ``new``: nothing. ``repeat``: an update brought the same bytes before. ``other``: an update brought other bytes
        before; those stay the ones that are remembered. ``known``: one of the two did not come by an update, so their
        bytes cannot be compared.

        Knowing an id again makes it new again, so that what every snapshot repeats is never the oldest.
        """
        new = self._new
        before = new.get(name, _NEVER)
        fresh = before != _NEVER
        if not fresh:
            before = self._old.get(name, _NEVER)
        kept = crc if before == _NEVER or before is None else before
        if not fresh or kept != before:
            new[name] = kept
            self._added.append(name if kept is None else (name, kept))
            if len(new) >= self._limit:
                self._old, self._new = new, {}
                if len(self._added) > 2 * self._limit:
                    del self._added[: -2 * self._limit]  # forgotten by now
        if before == _NEVER:
            return "new"
        if before is None or crc is None:
            return "known"
        return "repeat" if before == crc else "other"

    def crc(self, name: str) -> int | None:
        """Return the CRC-32 of what an update brought under an id; None if no update has."""
        found = self._new.get(name)
        return self._old.get(name) if found is None else found

    def take(self) -> list[Known]:
        """Return what was added since the last call, the oldest first."""
        taken, self._added = self._added, []
        return _storable(taken)

    def everything(self) -> list[Known]:
        """Return all of them, the oldest first."""
        both = {name: crc for name, crc in self._old.items() if name not in self._new} | self._new
        return _storable([name if crc is None else (name, crc) for name, crc in both.items()])


def _storable(ids: list[Known]) -> list[Known]:
    """Leave out ids with lone surrogates, which no database takes: what has such an id is written again after a
    restart."""
    names = "".join([known if isinstance(known, str) else known[0] for known in ids])
    if names.isascii():  # as all of Kraken's
        return ids
    return [known for known in ids if is_storable(known if isinstance(known, str) else known[0])]


def is_storable(name: str) -> bool:
    """Return whether a name can be encoded as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


Snapshots = Literal["changes", "all", "none"]

ENDED_KEPT = 10_000  # ended orders whose late news is known to be late: 45 minutes of them at a pair's limits
SEEN_KEPT = 20_000  # fills and ledger entries; a snapshot repeats fifty, and an outage of so many is 400 calls to REST
CHANGES_KEPT = 32  # changes of one order that are kept apart before they are folded into one object

END = ":end"  # what the identity of an order end ends with
AGAIN = "~"  # between an identity and the CRC-32 of another item that claims it
ORDER_CHANNELS = ("openOrders", "executions")
CURRENCY = "currency"  # the asset class that every balance had for years

_NOBODY: Collection[str] = ()


class Knowledge:
    """What the output holds of one channel.

    Every item that arrives is told to it, and it says which are to be written: an update is, unless it is a fill or an
    end that was written before; an item of a snapshot is, if it is not as it was last written.

    An identity is a claim. An item under a known identity is left out only if it is the same item: its bytes are those
    of the update that was written, or it tells the same fact another way (a snapshot, an update and REST have different
    bytes for one fact). Otherwise it is written under an identity of its own, made of the claimed one and its CRC-32,
    so that a repeat of it is recognised as well, also after a restart.

    ``orders`` has the open orders by id, each as its last complete object and the changes since; for balances, the
    assets, see :func:`balance_key`. ``missing`` are orders that are known open and were not in the last snapshot.
    ``classes`` are the asset classes of balances beyond ``currency``. ``repeats`` counts updates that were left out
    because the same bytes had come before. ``volumes`` compares executed volumes with fills; None: nobody does.
    """

    def __init__(
        self,
        channel: str,
        orders: Mapping[str, Sequence[bytes]] | None = None,
        ended: Sequence[Known] = (),
        seen: Sequence[Known] = (),
        *,
        first: bool = True,
        volumes: Volumes | None = None,
    ) -> None:
        self.channel = channel
        self._of_orders = channel in ORDER_CHANNELS
        self.orders: dict[str, list[bytes]] = {name: list(parts) for name, parts in (orders or {}).items()}
        self.ended = Remembered(ENDED_KEPT, ended)
        # An entry that REST tells is remembered by its id, and by its bytes.
        self.seen = Remembered(2 * SEEN_KEPT if channel == "balances" else SEEN_KEPT, seen)
        self.missing: set[str] = set()
        self.classes: set[str] = set()
        if channel == "balances":
            self.classes = {name.partition(" ")[2] for name in self.orders if " " in name}
        self.repeats = 0
        self.volumes = volumes
        self.changed: set[str] = set()  # names in `orders` that changed since the last take()
        # Of each order that the checkpoint has been told of, how many of its objects; 0 if those are others by now.
        self._kept: dict[str, int] = {name: len(parts) for name, parts in self.orders.items()}
        self.first = first  # no snapshot was ever taken in
        self._behind: set[str] = set()  # orders of which an update was left out, because REST had told its fill
        self._rows: dict[tuple[str, str], int] = {}  # of this pass, by method and identity: the CRC-32 of the first
        # Orders whose live fills matter to `volumes`: those whose end REST told, and those with a claim.
        self._closed: Collection[str] = volumes.closed if volumes is not None else _NOBODY
        self._owed: Collection[str] = volumes.owed if volumes is not None else _NOBODY

    def update(self, item: Item) -> bool:
        """Take in an item of an update, and say whether it is to be written. It may get another identity."""
        if item.identity and not self._unseen(item, crc32(item.data)):
            return False
        order_id = item.order_id
        if self._of_orders:
            if not order_id:
                return True
            parts = self.orders.get(order_id)
            if parts is None:
                if order_id in self.ended:
                    if order_id in self._closed and item.exec_id:
                        self._cover(item)  # REST was ahead of the feed
                    return True
                parts = self.orders[order_id] = []
            elif order_id in self._owed and item.exec_id and self.volumes is not None:
                self.volumes.live_fill(order_id, merged(parts), item.data)
            parts.append(item.data)
            if len(parts) > CHANGES_KEPT:
                self._replace(order_id, fold(parts))
            self.changed.add(order_id)
            if self.missing:
                self.missing.discard(order_id)
        elif self._closed and order_id in self._closed:
            self._cover(item)
        elif self.channel == "balances":
            self._forget(self._balance(item))  # the next snapshot shows what has become of it
        return True

    def snapshot(self, items: Sequence[Item], policy: Snapshots) -> Iterator[bool]:
        """Say for each item of a complete snapshot whether it is to be written. An item is taken in when its answer is
        asked for."""
        first, self.first = self.first, False
        hold = policy == "none" and first
        volumes = None if first else self.volumes  # what was executed before the first snapshot is nobody's debt
        if self._of_orders:
            self.missing = self.orders.keys() - {item.order_id for item in items if self._is_open(item)}
        rows: dict[tuple[str, str], int] = {}
        behind, self._behind = self._behind, set()

        def is_written(item: Item) -> bool:
            if item.identity:
                news = self._unseen_row(item, rows, "", volumes)
            else:
                news = self._is_news(item, volumes) or item.order_id in behind
            return policy == "all" or (news and not hold)

        return map(is_written, items)

    def begin_pass(self) -> None:
        """Begin to read REST's history once more: the next rows are compared with each other, not with earlier ones."""
        self._rows.clear()

    def backfilled(self, item: Item, source: str = "") -> bool:
        """Take in a row of REST, and say whether it is to be written: fills, ends and ledger entries that are not yet.
        It may get another identity.

        An order that REST calls open is no news: what it is now is in the snapshot. Rows of one pass and one ``source``
        (a method) that have one identity and different bytes are different items: each of them is written. Two
        methods show one order differently, so their rows are not compared.
        """
        if not item.identity:
            return False
        # Another channel that takes the same row may have given it an identity of its own.
        item.identity = item.identity.removesuffix(f"{AGAIN}{crc32(item.data):08x}")
        if self.channel == "balances" and not is_end(item.identity):
            return self._unseen_entry(item)
        return self._unseen_row(item, self._rows, source, self.volumes)

    def forget_order(self, order_id: str) -> None:
        """Forget an open order that nobody can tell about any more, also in the checkpoint."""
        self.missing.discard(order_id)
        self._forget(order_id)
        if self.volumes is not None:
            self.volumes.clear(order_id)

    def take(self) -> Entry:
        """Return what is known by now and was not at the last call."""
        entry = Entry(ended=self.ended.take(), seen=self.seen.take())
        for name in self.changed:
            parts, kept = self.orders.get(name), self._kept.get(name, 0)
            if not name.isascii() and not is_storable(name):
                continue  # no database takes it: the next run writes the order again
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
        """Return all that is known. It includes what :meth:`take` has just returned, and can be saved instead of
        that."""
        orders = {name: parts.copy() for name, parts in self.orders.items() if is_storable(name)}
        return Entry(orders, ended=self.ended.everything(), seen=self.seen.everything())

    # -- identities

    def _unseen(self, item: Item, crc: int | None = None) -> bool:
        """Return whether nothing with the item's identity was written, or only another item. An end also closes the
        order. ``crc`` is that of an update's bytes."""
        identity = item.identity
        assert identity  # the callers have looked
        if identity.endswith(END):
            order_id = identity.removesuffix(END)
            self.missing.discard(order_id)
            self._forget(order_id)
            standing = self.ended.add(order_id, crc)
        else:
            standing = self.seen.add(identity, crc)
        if standing == "other":
            assert crc is not None  # else there was nothing to compare
            return self._is_another(item, crc, crc)
        if standing == "repeat":
            self.repeats += 1
        elif standing == "known" and crc is not None and item.exec_id and self._of_orders:
            self._catch_up(item)
        return standing == "new"

    def _is_another(self, item: Item, crc: int, of_update: int | None) -> bool:
        """Give the item an identity of its own, and return whether it was not written under that."""
        identity = f"{item.identity}{AGAIN}{crc:08x}"
        standing = (self.ended if is_end(identity) else self.seen).add(identity, of_update)
        item.identity = identity
        if standing != "new" and of_update is not None:
            self.repeats += 1
        return standing == "new"

    def _unseen_row(self, item: Item, rows: dict[tuple[str, str], int], source: str, volumes: Volumes | None) -> bool:
        """Return whether an item of a snapshot or a row of REST was not written. It is compared with its neighbours
        only: what an update brought has other bytes anyway."""
        claimed = item.identity
        assert claimed  # the callers have looked
        crc = crc32(item.data)
        if rows.setdefault((source, claimed), crc) != crc:
            written = self._is_another(item, crc, None)
            if volumes is not None and item.exec_id and written:
                self._cover(item)
            return written
        if volumes is None:
            return self._unseen(item)
        if claimed.endswith(END):
            order_id = claimed.removesuffix(END)
            before = merged(self.orders.get(order_id, ()))
            written = self._unseen(item)
            if written and self._may_claim(volumes):
                volumes.claim(order_id, before, parse(item.data), ended=True)
            return written
        live = self._is_of_update(item)
        written = self._unseen(item)
        if item.exec_id and (written or volumes.since is not None):
            self._cover(item, live=live and not written)
        return written

    def _unseen_entry(self, item: Item) -> bool:
        """Return whether a ledger entry of REST was not written. Two legs of a transfer can have one id, and stand on
        different pages, or in different asset classes. A row never changes, so each is remembered by its bytes, too."""
        claimed, seen = item.identity, self.seen
        assert claimed  # the caller has looked
        by_bytes = f"{claimed}{AGAIN}{crc32(item.data):08x}"
        of_feed = seen.crc(claimed) is not None
        if seen.add(by_bytes) != "new":
            return False
        if of_feed and seen.add(f"{claimed}{AGAIN}") == "new":
            return False  # the first row under an id of the feed's tells the same as the feed
        if of_feed or seen.add(claimed) != "new":
            item.identity = by_bytes
        return True

    # -- volumes

    def _catch_up(self, item: Item) -> None:
        """Take in what an update of ``executions`` says of its order, although its fill is known from REST or a
        snapshot. The output does not have that state of the order: the next snapshot tells it."""
        parts = self.orders.get(item.order_id or "")
        if parts is None or not item.order_id or not raises_executed(merged(parts), parse(item.data)):
            return
        parts.append(item.data)
        self.changed.add(item.order_id)
        self._behind.add(item.order_id)
        if self.volumes is not None and item.identity:
            self.volumes.uncover(item.identity)

    def _may_claim(self, volumes: Volumes) -> bool:
        """Return whether volumes can be compared: v1 tells of fills on another channel, so that has to have an outage
        as well."""
        return self.channel == "executions" or volumes.since is not None

    def _is_of_update(self, item: Item) -> bool:
        """Return whether a fill is known to be no part of what snapshots claim: one frame of v2 told the fill and the
        order's volume. In v1 the connection may have been lost between the two frames."""
        assert item.identity  # the caller has looked
        return self.channel == "executions" and self.seen.crc(item.identity) is not None

    def _cover(self, item: Item, *, live: bool = False) -> None:
        volumes = self.volumes
        if volumes is not None and item.identity and item.order_id and self._may_claim(volumes):
            volumes.cover(item.identity, item.order_id, item.data, live=live)

    # -- orders and balances

    def _is_open(self, item: Item) -> bool:
        """Return whether an item of a snapshot shows an open order."""
        return not item.identity and not self._is_fill(item)

    def _is_fill(self, item: Item) -> bool:
        """Return whether an item of ``executions`` is a fill, also one without an id."""
        return self.channel == "executions" and b"cum_qty" not in item.data and is_past_trade(parse(item.data))

    def _is_news(self, item: Item, volumes: Volumes | None) -> bool:
        if self.channel == "balances":
            name = self._balance(item)
        else:
            name = item.order_id if self._of_orders and item.order_id and not self._is_fill(item) else ""
        if not name:
            return True  # nothing tells it apart from others
        if name in self.ended:
            return False  # an old snapshot: what has ended does not reopen
        known = self.orders.get(name)
        if known is not None and len(known) == 1 and known[0] == item.data:
            return False
        before, now = merged(known or ()), parse(item.data)
        difference = compare_fields(before, now) if known else "newer"
        if difference != "older":
            if volumes is not None and self._may_claim(volumes):
                volumes.claim(name, before, now)
            self._replace(name, item.data)
            self.changed.add(name)
        return difference == "newer"

    def _balance(self, item: Item) -> str:
        """Return the key of a balance, and note its asset class."""
        key = balance_key(parse(item.data))
        asset_class = key.partition(" ")[2]
        if asset_class and asset_class not in self.classes:
            self.classes.add(asset_class)
            # For the checkpoint: an asset is forgotten when it changes, its class is not.
            self.orders[f" {asset_class}"] = [b"{}"]
            self.changed.add(f" {asset_class}")
        return key

    def _replace(self, name: str, complete: bytes) -> None:
        """The order is one object from here on."""
        self.orders[name] = [complete]
        if name in self._kept:
            self._kept[name] = 0

    def _forget(self, name: str) -> None:
        if self.orders.pop(name, None) is None:
            return
        if self._behind:
            self._behind.discard(name)
        if name in self._kept:
            self._kept[name] = 0
            self.changed.add(name)
        else:
            self.changed.discard(name)  # it came and went, and no checkpoint ever heard of it


def is_end(identity: str) -> bool:
    """Return whether an identity is an order end's: ``O…:end``, or ``O…:end~…`` of another end of the same order."""
    return identity.endswith(END) or f"{END}{AGAIN}" in identity


def balance_key(fields: Fields) -> str:
    """Return what tells a balance apart: its asset, with the asset class behind a blank unless that is ``currency``.
    One name can be an asset in two classes. Empty if there is no asset."""
    asset, asset_class = value(fields, "asset"), value(fields, "asset_class")
    return f"{asset} {asset_class}" if asset and asset_class not in ("", CURRENCY) else asset
