"""What the output holds, as values: the whole of it at a start, and what has changed since it was last kept."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec


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


class Entry(msgspec.Struct, omit_defaults=True):
    """What is new of one channel. Later entries build on earlier ones.

    ``orders`` replaces an order's objects, and forgets the order if there are none; ``grown`` appends to them, after
    ``orders``. ``ended`` and ``seen`` are appended; an id that is there already moves to the end.
    """

    orders: dict[str, list[bytes]] = {}
    grown: dict[str, list[bytes]] = {}
    ended: list[str] = []
    seen: list[str] = []

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

    ``nonce`` is kept if None, ``whole`` and ``holes`` replace. ``anew`` are channels whose entry is all that there is
    to know of them: those that were kept before are dropped.
    """

    nonce: int | None = None
    saved_ns: int = 0
    whole: dict[str, int] = {}
    holes: dict[str, list[Hole]] = {}
    entries: dict[str, Entry] = {}
    anew: set[str] = set()

    def entry(self, channel: str) -> Entry:
        """The channel's, made if it is missing."""
        return self.entries.setdefault(channel, Entry())

    def merge(self, later: Changes) -> None:
        """Take in what came after: saving the result is saving both. For when a save has failed."""
        self.nonce = self.nonce if later.nonce is None else later.nonce
        self.saved_ns = later.saved_ns
        self.whole.update(later.whole)
        self.holes.update(later.holes)
        self.anew |= later.anew
        for channel in later.anew & self.entries.keys():
            del self.entries[channel]
        for channel, entry in later.entries.items():
            self.entry(channel).merge(entry)
