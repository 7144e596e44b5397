"""What the output holds, as values: the whole of it at a start, and what has changed since it was last kept."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

# An id that is known, and the CRC-32 of the bytes that an update of the feed brought under it, if one has.
Known = str | tuple[str, int]


class Outage(msgspec.Struct):
    """An interval in which a channel was not live. Times are Kraken's, in unix nanoseconds.

    ``start_ns`` is None if nobody knows it, ``end_ns`` as long as the channel is not live again. ``missing`` are orders
    that were open before it and are not in the snapshot that ended it, ``short`` those whose fills did not add up when
    it was declared. ``complete`` says, by source, up to when that source has been read completely. ``tries``
    counts the passes that did not recover it. ``declared_ns`` is when it was declared as a gap, 0 if it was not; after
    that it is tried less often. ``due_ns`` is when it is tried next.
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
    """A history query that is under way: the next run goes on at ``offset``. Unix seconds, and Kraken's nanoseconds.

    ``channels`` says for which channels its rows are written, and up to which time. ``returned`` counts the different
    rows so far, ``counted`` is how many Kraken says there are, None if it does not; ``page`` has the CRC-32 of each row
    of the last page.
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
    """What the output holds of one channel.

    ``complete_ns``: until when nothing is missing but the outages, in Kraken's time; 0: since never. ``orders``: of
    each open order the last whole object and the changes since, as they were written (of balances: the asset's last
    object). ``ended`` and ``seen``: ids of ended orders, of trades and ledger entries, the oldest first; the caller
    bounds them.
    """

    complete_ns: int = 0
    orders: dict[str, list[bytes]] = {}
    ended: list[Known] = []
    seen: list[Known] = []
    outages: list[Outage] = []


class CallLevel(msgspec.Struct, frozen=True):
    """Where the key's call counter stood, and when in Kraken's time (unix nanoseconds)."""

    level: float
    at_ns: int


class Checkpoint(msgspec.Struct):
    """All that a save left behind. ``nonce`` is the highest that was handed out, as far as it was saved; ``saved_ns``
    is Kraken's time where it was known, else this machine's. ``legacy``: an older version has written it, and its
    times are those of this machine's wall clock."""

    nonce: int = 0
    saved_ns: int = 0
    channels: dict[str, ChannelState] = {}
    counter: CallLevel | None = None
    scans: list[Scan] = []
    legacy: bool = False


class Entry(msgspec.Struct, omit_defaults=True):
    """What is new of one channel. Later entries build on earlier ones.

    ``orders`` replaces an order's objects, and forgets the order if there are none; ``grown`` appends to them, after
    ``orders``. ``ended`` and ``seen`` are appended; an id that is there already moves to the end.
    """

    orders: dict[str, list[bytes]] = {}
    grown: dict[str, list[bytes]] = {}
    ended: list[Known] = []
    seen: list[Known] = []

    def set_order(self, order_id: str, objects: Iterable[bytes]) -> None:
        """The order is this now: a whole object, and perhaps changes to it; or nothing."""
        self.orders[order_id] = list(objects)
        self.grown.pop(order_id, None)

    def grow_order(self, order_id: str, changes: Iterable[bytes]) -> None:
        """The order has changed."""
        (self.orders[order_id] if order_id in self.orders else self.grown.setdefault(order_id, [])).extend(changes)

    def merge(self, later: Entry) -> None:
        """Take in what came after."""
        for order_id, objects in later.orders.items():
            self.set_order(order_id, objects)
        for order_id, changes in later.grown.items():
            self.grow_order(order_id, changes)
        self.ended += later.ended
        self.seen += later.seen

    def apply(self, state: ChannelState) -> None:
        """Bring it into what was known before. Ids that come again are still there twice."""
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
    """What is new since the last save. Saving the same changes twice is harmless.

    ``nonce``, ``counter`` and ``scans`` are kept if None; ``complete`` and ``outages`` replace. ``anew`` are channels
    whose entry is all that there is to know of them: those that were kept before are dropped.
    """

    nonce: int | None = None
    saved_ns: int = 0
    complete: dict[str, int] = {}
    outages: dict[str, list[Outage]] = {}
    entries: dict[str, Entry] = {}
    anew: set[str] = set()
    counter: CallLevel | None = None
    scans: list[Scan] | None = None

    def entry(self, channel: str) -> Entry:
        """The channel's, made if it is missing."""
        return self.entries.setdefault(channel, Entry())

    def merge(self, later: Changes) -> None:
        """Take in what came after: saving the result is saving both. For when a save has failed."""
        self.nonce = self.nonce if later.nonce is None else later.nonce
        self.saved_ns = later.saved_ns
        self.complete.update(later.complete)
        self.outages.update(later.outages)
        self.counter = later.counter or self.counter
        self.scans = self.scans if later.scans is None else later.scans
        self.anew |= later.anew
        for channel in later.anew & self.entries.keys():
            del self.entries[channel]
        for channel, entry in later.entries.items():
            self.entry(channel).merge(entry)
