"""Know what the output already holds of one channel (open orders, ended orders, fills), and so which items are new.

Everything is kept as the bytes that were written. Changes are merged only when a snapshot has to be compared.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal
from zlib import crc32

from ..protocol.wire import Item
from ..records.view import Fields, is_past_trade, parse, value
from ..state.checkpoint import Entry, Known
from .order_states import compare_fields, fold, merged
from .volumes import Volumes, raises_executed

# -- the ids that the output holds. Kraken can send two different items under one id: so the CRC-32 is kept with it.

# What is known of an id, see :meth:`Remembered.add`.
Standing = Literal["new", "known", "repeat", "other"]

_NEVER = -1  # no CRC-32 is negative


class Remembered:
    """A bounded set of ids that forgets the oldest first: it has the last ``limit`` ids, and at most three times that.

    It has two generations. When the new one is full, the old one is dropped. Each id has the CRC-32 of the update's
    bytes, or None if it came only in a snapshot or from REST: those have different bytes for the same item.
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
        """Add an id, with the CRC-32 of the bytes if an update had it; return what was known of it.

        - ``new``: nothing;
        - ``repeat``: an earlier update had the same bytes;
        - ``other``: an earlier update had other bytes; their CRC-32 is kept;
        - ``known``: one of the two was not an update, so their bytes cannot be compared.

        An id that is added again becomes the newest: what every snapshot repeats is never forgotten.
        """
        new = self._new
        before = new.get(name, _NEVER)
        in_new = before != _NEVER
        if not in_new:
            before = self._old.get(name, _NEVER)
        kept = crc if before == _NEVER or before is None else before
        if not in_new or kept != before:
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
        """Return the CRC-32 of the update with this id; None if there was none."""
        found = self._new.get(name)
        return self._old.get(name) if found is None else found

    def take(self) -> list[Known]:
        """Return the ids that were added since the last call, the oldest first."""
        taken, self._added = self._added, []
        return _storable(taken)

    def everything(self) -> list[Known]:
        """Return all ids, the oldest first."""
        both = {name: crc for name, crc in self._old.items() if name not in self._new} | self._new
        return _storable([name if crc is None else (name, crc) for name, crc in both.items()])


def _storable(ids: list[Known]) -> list[Known]:
    """Leave out ids with lone surrogates, which SQLite rejects. Their items are written again after a restart."""
    names = "".join([known if isinstance(known, str) else known[0] for known in ids])
    if names.isascii():  # as all of Kraken's
        return ids
    return [known for known in ids if is_storable(known if isinstance(known, str) else known[0])]


def is_storable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


Snapshots = Literal["changes", "all", "none"]

ENDED_KEPT = 10_000  # ended orders whose late items are recognised: 45 minutes at the rate limit of a pair
SEEN_KEPT = 20_000  # fills and ledger entries; a snapshot repeats fifty, and an outage of so many is 400 calls to REST
CHANGES_KEPT = 32  # changes of one order that are kept apart before they are folded into one object

END = ":end"  # the suffix of an order end's identity
AGAIN = "~"  # between an identity and the CRC-32 of another item under that identity
ORDER_CHANNELS = ("openOrders", "executions")
CURRENCY = "currency"  # the asset class that every balance had for years

_NOBODY: Collection[str] = ()


class Knowledge:
    """What the output holds of one channel, and so which items have to be written.

    An update is written, unless it is a fill or an order end that was written before. An item of a snapshot is written
    if it differs from what was last written.

    Kraken can send two different items under one identity. An item with a known identity is a repeat if it and the
    earlier item are updates with the same bytes, or if one of the two came from a snapshot or REST, where the same item
    has other bytes. Two updates with different bytes are two items. So are two items with different bytes within one
    snapshot, or within one pass over REST. The second one's identity gets its CRC-32 as a suffix, so that its repeats
    are recognised, too.

    ``orders`` has the open orders by id, each as its last complete object and the changes since. For balances it has
    the assets, see :func:`balance_key`. ``vanished`` are orders that were open and were not in the last snapshot.
    ``repeated`` tells of the last item of a snapshot whether the output held it already. ``classes`` are the asset
    classes of balances besides ``currency``. ``repeats`` counts updates that were left out
    because an earlier one had the same bytes. ``volumes`` compares executed volumes with fills, if it is not None.
    """

    def __init__(
        self,
        channel: str,
        orders: Mapping[str, Sequence[bytes]] | None = None,
        ended: Sequence[Known] = (),
        seen: Sequence[Known] = (),
        *,
        before_first_snapshot: bool = True,
        volumes: Volumes | None = None,
    ) -> None:
        self.channel = channel
        self._of_orders = channel in ORDER_CHANNELS
        self.orders: dict[str, list[bytes]] = {name: list(parts) for name, parts in (orders or {}).items()}
        self.ended = Remembered(ENDED_KEPT, ended)
        # A ledger entry from REST is kept under its id and under its CRC-32.
        self.seen = Remembered(2 * SEEN_KEPT if channel == "balances" else SEEN_KEPT, seen)
        self.vanished: set[str] = set()
        self.repeated = False
        self.classes: set[str] = set()
        if channel == "balances":
            self.classes = {name.partition(" ")[2] for name in self.orders if " " in name}
        self.repeats = 0
        self.volumes = volumes
        self.changed: set[str] = set()  # names in `orders` that changed since the last take()
        # How many objects of each order the checkpoint has; 0 if they were replaced since.
        self._kept: dict[str, int] = {name: len(parts) for name, parts in self.orders.items()}
        self.before_first_snapshot = before_first_snapshot
        # Orders with an update that was not written, because its fill was known from REST: the output lacks its state.
        self._stale_orders: set[str] = set()
        self._rows: dict[tuple[str, str], int] = {}  # this pass's first CRC-32, by method and identity
        # Orders whose live fills matter to `volumes`: those whose end came from REST, and those with a claim.
        self._ended_by_rest: Collection[str] = volumes.ended_by_rest if volumes is not None else _NOBODY
        self._claims: Collection[str] = volumes.claims if volumes is not None else _NOBODY

    def update(self, item: Item) -> bool:
        """Add an item of an update; return whether it has to be written. Its identity may change."""
        if item.identity and not self._unseen(item, crc32(item.data)):
            return False
        order_id = item.order_id
        if self._of_orders:
            if not order_id:
                return True
            parts = self.orders.get(order_id)
            if parts is None:
                if order_id in self.ended:  # late: written, but an ended order does not reopen
                    if order_id in self._ended_by_rest and item.exec_id:
                        self._cover(item)  # REST was ahead of the feed
                    return True
                parts = self.orders[order_id] = []
            elif order_id in self._claims and item.exec_id and self.volumes is not None:
                # The snapshot may have counted this fill already.
                self.volumes.live_fill(order_id, merged(parts), item.data)
            # Merging costs much more than appending, so it waits until a snapshot comes or the changes are many.
            parts.append(item.data)
            if len(parts) > CHANGES_KEPT:
                self._replace(order_id, fold(parts))
            self.changed.add(order_id)
            if self.vanished:
                self.vanished.discard(order_id)
        elif self._ended_by_rest and order_id in self._ended_by_rest:
            # ownTrades: the order's end came from REST, its fill comes now.
            self._cover(item)
        elif self.channel == "balances":
            self._forget(self._balance(item))  # an update is a ledger entry, not a balance
        return True

    def snapshot(self, items: Sequence[Item], policy: Snapshots) -> Iterator[bool]:
        """Yield for each item of a complete snapshot whether it has to be written. An item is added when its result is
        taken from the iterator, so take the results in order."""
        first, self.before_first_snapshot = self.before_first_snapshot, False
        suppressed = policy == "none" and first
        volumes = None if first else self.volumes  # fills from before the first snapshot are not expected
        if self._of_orders:
            self.vanished = self.orders.keys() - {item.order_id for item in items if self._is_open(item)}
        rows: dict[tuple[str, str], int] = {}
        stale_orders, self._stale_orders = self._stale_orders, set()

        def is_written(item: Item) -> bool:
            if item.identity:
                news = self._unseen_row(item, rows, "", volumes)
            else:
                news = self._is_news(item, volumes) or item.order_id in stale_orders
            self.repeated = not news
            return policy == "all" or (news and not suppressed)

        return map(is_written, items)

    def open_orders(self) -> Mapping[str, Sequence[bytes]]:
        """Return the orders that are open as far as is known: those that have vanished are not."""
        if not self.vanished:
            return self.orders
        return {name: parts for name, parts in self.orders.items() if name not in self.vanished}

    def begin_pass(self) -> None:
        """Begin another pass over REST's history: rows are compared with each other within one pass only."""
        self._rows.clear()

    def backfilled(self, item: Item, source: str = "") -> bool:
        """Add a row of REST; return whether it has to be written: a fill, an order end or a ledger entry that is new.
        Its identity may change.

        An order that REST calls open is not written: the snapshot shows it. Rows of one pass and one ``source``
        (a method) with one identity and different bytes are different items: each is written. Two methods show one
        order differently, so their rows are not compared.
        """
        if not item.identity:
            return False
        # Another channel that takes the same row may have given it an identity of its own.
        item.identity = item.identity.removesuffix(f"{AGAIN}{crc32(item.data):08x}")
        if self.channel == "balances" and not is_end(item.identity):
            return self._unseen_entry(item)
        return self._unseen_row(item, self._rows, source, self.volumes)

    def forget_order(self, order_id: str) -> None:
        """Forget an open order whose end cannot be found, also in the checkpoint."""
        self.vanished.discard(order_id)
        self._forget(order_id)
        if self.volumes is not None:
            self.volumes.clear(order_id)

    def take(self) -> Entry:
        """Return what changed since the last call, for the checkpoint."""
        entry = Entry(ended=self.ended.take(), seen=self.seen.take())
        for name in self.changed:
            parts, kept = self.orders.get(name), self._kept.get(name, 0)
            if not name.isascii() and not is_storable(name):
                continue  # SQLite rejects it: the next run writes the order again
            if parts is None:  # the order ended: an empty list removes it
                del self._kept[name]
                entry.orders[name] = []
                continue
            if kept:  # the saved objects are unchanged: only the new ones are saved
                entry.grown[name] = parts[kept:]
            else:
                entry.orders[name] = parts.copy()
            self._kept[name] = len(parts)
        self.changed.clear()
        return entry

    def everything(self) -> Entry:
        """Return all that is known, including what :meth:`take` has returned last: it can be saved instead of that."""
        orders = {name: parts.copy() for name, parts in self.orders.items() if is_storable(name)}
        return Entry(orders, ended=self.ended.everything(), seen=self.seen.everything())

    # -- identities

    def _unseen(self, item: Item, crc: int | None = None) -> bool:
        """Return whether the item is new: no item with its identity was written, or it is an update and differs from
        the earlier update. An order end also closes the order. ``crc`` is that of an update's bytes, else None."""
        identity = item.identity
        assert identity  # the callers have checked
        if identity.endswith(END):
            order_id = identity.removesuffix(END)
            self.vanished.discard(order_id)
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
        """Add the CRC-32 to the item's identity; return whether it was not yet written under the new one."""
        identity = f"{item.identity}{AGAIN}{crc:08x}"
        standing = (self.ended if is_end(identity) else self.seen).add(identity, of_update)
        item.identity = identity
        if standing != "new" and of_update is not None:
            self.repeats += 1
        return standing == "new"

    def _unseen_row(self, item: Item, rows: dict[tuple[str, str], int], source: str, volumes: Volumes | None) -> bool:
        """Return whether an item of a snapshot or a row of REST is new. Its bytes are compared only
        within that snapshot or list: an update has other bytes for the same item."""
        claimed = item.identity
        assert claimed  # the callers have checked
        crc = crc32(item.data)
        # A second item under one identity is written under an identity of its own.
        if rows.setdefault((source, claimed), crc) != crc:
            written = self._is_another(item, crc, None)
            if volumes is not None and item.exec_id and written:
                self._cover(item)
            return written
        if volumes is None:
            return self._unseen(item)
        # An order end claims the executed volume that is not known yet.
        if claimed.endswith(END):
            order_id = claimed.removesuffix(END)
            before = merged(self.orders.get(order_id, ()))
            written = self._unseen(item)
            if written and self._may_claim(volumes):
                volumes.claim(order_id, before, parse(item.data), ended=True)
            return written
        # A fill covers claims, also if it was written before.
        live = self._is_of_update(item)
        written = self._unseen(item)
        if item.exec_id and (written or volumes.since is not None):
            self._cover(item, live=live and not written)
        return written

    def _unseen_entry(self, item: Item) -> bool:
        """Return whether a ledger entry of REST is new. Two legs of a transfer can have one id, and be on different
        pages or in different asset classes. A row never changes, so it is also known by its CRC-32."""
        claimed, seen = item.identity, self.seen
        assert claimed  # the caller has checked
        by_bytes = f"{claimed}{AGAIN}{crc32(item.data):08x}"
        of_feed = seen.crc(claimed) is not None
        if seen.add(by_bytes) != "new":
            return False
        # `ID~` notes that a row of REST was seen under an id that the feed has sent. The first such row is the feed's
        # entry. A later one with other bytes is another entry.
        if of_feed and seen.add(f"{claimed}{AGAIN}") == "new":
            return False
        if of_feed or seen.add(claimed) != "new":
            item.identity = by_bytes
        return True

    # -- volumes

    def _catch_up(self, item: Item) -> None:
        """Add the order's new state from an update of ``executions`` that is not written, because its fill was written
        from REST or a snapshot before. The output lacks that state, so the order is written with the next snapshot."""
        parts = self.orders.get(item.order_id or "")
        if parts is None or not item.order_id or not raises_executed(merged(parts), parse(item.data)):
            return
        parts.append(item.data)
        self.changed.add(item.order_id)
        self._stale_orders.add(item.order_id)
        if self.volumes is not None and item.identity:
            self.volumes.uncover(item.identity)

    def _may_claim(self, volumes: Volumes) -> bool:
        """Return whether volumes can be compared. In v1 the fills are on another channel, which needs an outage too."""
        return self.channel == "executions" or volumes.since is not None

    def _is_of_update(self, item: Item) -> bool:
        """Return whether the fill came in an update of v2. Then no claim needs it: the same frame had the order's
        executed volume. In v1 the two come in two frames, and the connection may be lost between them."""
        assert item.identity  # the caller has checked
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
            return True  # it has no key to compare it by
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
            # The checkpoint forgets an asset when it changes, but has to keep its class.
            self.orders[f" {asset_class}"] = [b"{}"]
            self.changed.add(f" {asset_class}")
        return key

    def _replace(self, name: str, complete: bytes) -> None:
        """Replace an order's objects by a complete one."""
        self.orders[name] = [complete]
        if name in self._kept:
            self._kept[name] = 0

    def _forget(self, name: str) -> None:
        if self.orders.pop(name, None) is None:
            return
        if self._stale_orders:
            self._stale_orders.discard(name)
        if name in self._kept:
            self._kept[name] = 0
            self.changed.add(name)
        else:
            self.changed.discard(name)  # opened and closed between two saves: no checkpoint has it


def is_end(identity: str) -> bool:
    """Return whether an identity is an order end's: ``O…:end``, or ``O…:end~…`` of a second end of the order."""
    return identity.endswith(END) or f"{END}{AGAIN}" in identity


def balance_key(fields: Fields) -> str:
    """Return the key of a balance: the asset, then a blank and the asset class unless that is ``currency``. One name
    can be an asset in two classes. Empty if there is no asset."""
    asset, asset_class = value(fields, "asset"), value(fields, "asset_class")
    return f"{asset} {asset_class}" if asset and asset_class not in ("", CURRENCY) else asset
