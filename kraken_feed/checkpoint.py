"""What the output holds, as values: the whole of it at a start, and what has changed since it was last kept."""

from __future__ import annotations

import msgspec

Key = tuple[str, str]  # channel, order id


class Hole(msgspec.Struct, frozen=True):
    """A time in which the channel was not heard; unix nanoseconds.

    ``start_ns`` is None if nobody knows since when, ``end_ns`` as long as it is open.
    """

    channel: str
    start_ns: int | None
    end_ns: int | None
    cause: str
    connection: str


class ChannelState(msgspec.Struct):
    """What the output holds of one channel.

    ``whole_ns``: until when nothing is missing but the holes; 0: since never. ``orders``: of each open order the last
    whole object and the changes since, as they were written (of balances: the asset's last object). ``ended`` and
    ``seen``: ids of ended orders, of trades and ledger entries, the oldest first; the caller bounds them.
    """

    whole_ns: int = 0
    orders: dict[str, list[bytes]] = {}
    ended: list[str] = []
    seen: list[str] = []
    holes: list[Hole] = []


class Checkpoint(msgspec.Struct):
    """All that a save left behind. ``nonce`` is the highest that was handed out, as far as it was saved."""

    nonce: int = 0
    saved_ns: int = 0
    channels: dict[str, ChannelState] = {}


class Ids(msgspec.Struct):
    """Changes to a list of ids. What is in both was dropped first: it moves to the end."""

    dropped: set[str] = set()
    added: dict[str, None] = {}  # a dict for its order

    def add(self, identity: str) -> None:
        """Append; an id that is there already keeps its place."""
        self.added.setdefault(identity)

    def drop(self, identity: str) -> None:
        self.added.pop(identity, None)
        self.dropped.add(identity)

    def merge(self, later: Ids) -> None:
        for identity in later.dropped:
            self.drop(identity)
        for identity in later.added:
            self.add(identity)


class Changes(msgspec.Struct):
    """What is new since the last save. Saving the same changes twice is harmless, ``grown`` excepted.

    ``nonce`` is kept if None, ``whole`` and ``holes`` replace; ``orders`` replaces an order's objects, and forgets it
    if there are none; ``grown`` appends to them, after ``orders``.
    """

    nonce: int | None = None
    saved_ns: int = 0
    whole: dict[str, int] = {}
    holes: dict[str, list[Hole]] = {}
    orders: dict[Key, list[bytes]] = {}
    grown: dict[Key, list[bytes]] = {}
    ended: dict[str, Ids] = {}
    seen: dict[str, Ids] = {}

    def set_order(self, channel: str, order_id: str, *objects: bytes) -> None:
        """The order is this now: a whole object, and perhaps changes to it."""
        self.orders[channel, order_id] = list(objects)
        self.grown.pop((channel, order_id), None)

    def grow_order(self, channel: str, order_id: str, change: bytes) -> None:
        """The order has changed."""
        key = channel, order_id
        (self.orders[key] if key in self.orders else self.grown.setdefault(key, [])).append(change)

    def forget_order(self, channel: str, order_id: str) -> None:
        """The order is not open any more."""
        self.set_order(channel, order_id)

    def add_ended(self, channel: str, order_id: str) -> None:
        self.ended.setdefault(channel, Ids()).add(order_id)

    def drop_ended(self, channel: str, order_id: str) -> None:
        self.ended.setdefault(channel, Ids()).drop(order_id)

    def add_seen(self, channel: str, identity: str) -> None:
        self.seen.setdefault(channel, Ids()).add(identity)

    def drop_seen(self, channel: str, identity: str) -> None:
        self.seen.setdefault(channel, Ids()).drop(identity)

    def merge(self, later: Changes) -> None:
        """Take in what came after: saving the result is saving both. For when a save has failed."""
        self.nonce = self.nonce if later.nonce is None else later.nonce
        self.saved_ns = later.saved_ns
        self.whole.update(later.whole)
        self.holes.update(later.holes)
        for (channel, order_id), objects in later.orders.items():
            self.set_order(channel, order_id, *objects)
        for (channel, order_id), changes in later.grown.items():
            for change in changes:
                self.grow_order(channel, order_id, change)
        for ours, theirs in ((self.ended, later.ended), (self.seen, later.seen)):
            for channel, ids in theirs.items():
                ours.setdefault(channel, Ids()).merge(ids)
