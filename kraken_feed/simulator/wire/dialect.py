"""What v1 and v2 have in common: requests once they are understood, and what a dialect must be able to say."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from kraken_feed.simulator.market.book import Book
from kraken_feed.simulator.market.ledger import Item
from kraken_feed.simulator.market.order import Change
from kraken_feed.simulator.quirks.quirk import Quirks
from kraken_feed.simulator.wire.order_entry import Desk
from kraken_feed.simulator.wire.subscription import Options

SNAPSHOT_TRADES = 50  # a snapshot tells the newest fifty trades, never more


class Request(Struct, frozen=True):
    """A client's message that could be understood."""

    kind: Literal["ping", "subscribe", "unsubscribe", "order"]
    event: str  # as the client called it
    reqid: object = None  # an integer, or as the exchange spells it
    channels: tuple[str, ...] = ()
    token: str = ""
    options: Options = Options()
    echo: object = None  # what an error ack repeats
    message: Mapping[str, Any] = {}  # the whole of it, where more than that is needed


class Complaint(Struct, frozen=True):
    """A client's message that was wrong, and the frame that says so."""

    reply: bytes


class Dialect(Protocol):
    """The functions of the modules `v1` and `v2`."""

    CHANNELS: tuple[str, ...]

    def parse(self, text: bytes, now: float) -> Request | Complaint:
        """Reads a client's frame; never raises for what stands in it."""
        ...

    def status(self, connection_id: int, state: str) -> bytes: ...

    def status_changed(self, connection_id: int, state: str) -> bytes: ...

    def heartbeat(self) -> bytes: ...

    def pong(self, request: Request, now: float) -> bytes: ...

    def subscribed(self, request: Request, channel: str, limit: int, now: float) -> bytes: ...

    def unsubscribed(self, channel: str, now: float, reqid: object = None) -> bytes: ...

    def refused(self, request: Request, text: str, now: float) -> bytes: ...

    def order(self, event: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
        """Does what a request of order entry asks for: the answers."""
        ...

    def rate_exceeded(self, request: Request | None, variant: str, now: float) -> bytes: ...

    def unknown(self, variant: str) -> bytes: ...

    def big(self, size: int) -> bytes: ...

    def snapshot(self, channel: str, book: Book, options: Options) -> list[Item] | None:
        """The items of the snapshot; None when the options ask for none."""
        ...

    def updates(self, channel: str, changes: Sequence[Change], options: Options) -> list[Item]: ...

    def bare_end(self, channel: str, change: Change) -> list[Item]:
        """The end of an order without anything but its state, as documents show it."""
        ...

    def dressed(self, item: Item, quirks: Quirks) -> Item:
        """The item with what quirks add to it."""
        ...

    def frame(self, channel: str, kind: Literal["snapshot", "update"], sequence: bytes, payload: bytes) -> bytes: ...

    def notice(self, channel: str, sequence: bytes) -> bytes:
        """A frame of a type that no client knows, with a sequence of the channel."""
        ...
