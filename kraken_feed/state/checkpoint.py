"""Define the values of a checkpoint: what the output holds, as read at the start, and the changes since a save."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# A known id; with the CRC-32 of its bytes if an update of the feed brought them.
Known = str | tuple[str, int]


class Outage(msgspec.Struct):
    """An interval in which a channel was not live, or may have missed records. Times are Kraken's, in unix nanoseconds.

    ``start_ns`` is None if it is unknown, ``end_ns`` until the channel is live again. ``missing`` are orders that were
    open before the outage and are not in the snapshot that ended it. ``short`` are orders whose fills did not add up
    at the last comparison before the gap was declared. ``complete`` is the time by source up to which that source was
    read completely. ``tries`` counts the attempts that did not recover it. ``declared_ns`` is when it was declared as a
    gap, 0 if it was not; after that it is tried less often. ``due_ns`` is the time of the next try.
    """

    channel: str
    start_ns: int | None
    cause: str
    end_ns: int | None = None
    missing: set[str] = msgspec.field(default_factory=set)
    short: set[str] = msgspec.field(default_factory=set)
    complete: dict[str, int] = msgspec.field(default_factory=dict)
    orders: int = 0
    trades: int = 0
    tries: int = 0
    declared_ns: int = 0
    due_ns: int = 0


class Scan(msgspec.Struct):
    """A history query in progress: the next run continues at ``offset``. Times are unix seconds, and Kraken's
    nanoseconds where the name ends in ``_ns``.

    ``began_ns`` is the earliest possible time at which it began. ``channels`` are the channels that its rows are
    written for, each with a time up to which. ``returned`` counts the different rows so far. ``counted`` is the number
    of rows according to Kraken, None if it gives none. ``page`` has the CRC-32 of each row of the last page.
    """

    source: str
    start: int
    end: int | None
    began_ns: int
    channels: dict[str, int]
    offset: int = 0
    newest_ns: int = 0
    returned: int = 0
    counted: int | None = None
    page: list[int] = []


class ChannelState(msgspec.Struct):
    """The part of the checkpoint for one channel.

    ``complete_ns``: the time up to which nothing but the outages is missing, in Kraken's time; 0: never complete.
    ``orders``: per open order the last complete object and the changes since, as they were written (for balances: the
    asset's last object). ``ended`` and ``seen``: ids of ended orders, of trades and ledger entries, the oldest first;
    the caller bounds them.
    """

    complete_ns: int = 0
    orders: dict[str, list[bytes]] = {}
    ended: list[Known] = []
    seen: list[Known] = []
    outages: list[Outage] = []


class CallLevel(msgspec.Struct, frozen=True):
    """The level of the key's call counter, and its time in Kraken's unix nanoseconds."""

    level: float
    at_ns: int


class Checkpoint(msgspec.Struct):
    """A checkpoint as it was saved. ``nonce`` is the highest saved nonce. ``saved_ns`` is Kraken's time if it was
    known, else this machine's. ``legacy``: an older version wrote it, and its times are those of this machine's wall
    clock."""

    nonce: int = 0
    saved_ns: int = 0
    channels: dict[str, ChannelState] = {}
    counter: CallLevel | None = None
    scans: list[Scan] = []
    legacy: bool = False


class Entry(msgspec.Struct, omit_defaults=True):
    """The changes of one channel. Later entries build on earlier ones.

    ``orders`` replaces an order's objects, and removes the order if there are none; ``grown`` appends to them, after
    ``orders``. ``ended`` and ``seen`` are appended; an id that is there already moves to the end.
    """

    orders: dict[str, list[bytes]] = {}
    grown: dict[str, list[bytes]] = {}
    ended: list[Known] = []
    seen: list[Known] = []

    def set_order(self, order_id: str, objects: Iterable[bytes]) -> None:
        """Replace an order's objects by a complete object with its changes, or by nothing if the order is gone."""
        self.orders[order_id] = list(objects)
        self.grown.pop(order_id, None)

    def grow_order(self, order_id: str, changes: Iterable[bytes]) -> None:
        (self.orders[order_id] if order_id in self.orders else self.grown.setdefault(order_id, [])).extend(changes)

    def merge(self, later: Entry) -> None:
        """Add the changes of a later entry."""
        for order_id, objects in later.orders.items():
            self.set_order(order_id, objects)
        for order_id, changes in later.grown.items():
            self.grow_order(order_id, changes)
        self.ended += later.ended
        self.seen += later.seen

    def apply(self, state: ChannelState) -> None:
        """Apply the changes to the channel's state. Repeated ids stay in it twice."""
        for order_id, objects in self.orders.items():
            if objects:
                state.orders[order_id] = objects
            else:
                state.orders.pop(order_id, None)
        for order_id, changes in self.grown.items():
            state.orders.setdefault(order_id, []).extend(changes)
        state.ended += self.ended
        state.seen += self.seen


class Changes(msgspec.Struct):
    """Everything that changed since the last save. To save the same changes twice is harmless.

    If ``nonce``, ``counter`` or ``scans`` is None, the saved value stays; ``complete`` and ``outages`` replace theirs.
    ``replaced`` are channels whose entry is complete: their earlier entries are dropped.
    """

    nonce: int | None = None
    saved_ns: int = 0
    complete: dict[str, int] = {}
    outages: dict[str, list[Outage]] = {}
    entries: dict[str, Entry] = {}
    replaced: set[str] = set()
    counter: CallLevel | None = None
    scans: list[Scan] | None = None

    def entry(self, channel: str) -> Entry:
        """Return the channel's entry; make it if it is missing."""
        return self.entries.setdefault(channel, Entry())

    def merge(self, later: Changes) -> None:
        """Add later changes, so that saving the result saves both. Used when a save has failed."""
        self.nonce = self.nonce if later.nonce is None else later.nonce
        self.saved_ns = later.saved_ns
        self.complete.update(later.complete)
        self.outages.update(later.outages)
        self.counter = later.counter or self.counter
        self.scans = self.scans if later.scans is None else later.scans
        self.replaced |= later.replaced
        for channel in later.replaced & self.entries.keys():
            del self.entries[channel]
        for channel, entry in later.entries.items():
            self.entry(channel).merge(entry)
