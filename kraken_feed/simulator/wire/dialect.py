"""Define what v1 and v2 have in common: parsed requests, and the interface of a dialect."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from ..market.book import Book
from ..market.ledger import FrameKind, Item
from ..market.order import Change
from ..quirks.quirk import Quirks
from .order_entry import Desk
from .subscription import Options

SNAPSHOT_TRADES = 50  # a snapshot has the newest fifty trades, never more


class Request(Struct, frozen=True):
    """A client's message that was understood."""

    kind: Literal["ping", "subscribe", "unsubscribe", "order"]
    event: str  # as the client called it
    reqid: object = None  # an integer, or as the exchange spells it
    channels: tuple[str, ...] = ()
    token: str = ""
    options: Options = Options()
    echo: object = None  # what an error ack repeats
    message: Mapping[str, Any] = {}  # the complete message, where more of it is needed


class Complaint(Struct, frozen=True):
    """The frame that answers a wrong message of a client."""

    reply: bytes


class Dialect(Protocol):
    """The interface of the modules `v1` and `v2`."""

    CHANNELS: tuple[str, ...]

    def parse(self, text: bytes, now: float) -> Request | Complaint:
        """Parse a client's frame; never raises because of its content."""

    def status(self, connection_id: int, state: str) -> bytes: ...

    def status_changed(self, connection_id: int, state: str) -> bytes: ...

    def heartbeat(self) -> bytes: ...

    def pong(self, request: Request, now: float) -> bytes: ...

    def subscribed(self, request: Request, channel: str, limit: int, now: float) -> bytes: ...

    def unsubscribed(self, channel: str, now: float, reqid: object = None) -> bytes: ...

    def refused(self, request: Request, text: str, now: float) -> bytes: ...

    def order(self, event: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
        """Carry out a request of order entry, and return the answers."""

    def rate_exceeded(self, request: Request | None, variant: str, now: float) -> bytes: ...

    def unknown(self, variant: str) -> bytes: ...

    def big(self, size: int) -> bytes: ...


class Feeds(Protocol):
    """The interface of the modules `v1_feed` and `v2_feed`."""

    def snapshot(self, channel: str, book: Book, options: Options) -> list[Item] | None:
        """Return the items of the snapshot; None if the options ask for none."""

    def updates(self, channel: str, changes: Sequence[Change], options: Options) -> list[Item]: ...

    def bare_end(self, channel: str, change: Change) -> list[Item]:
        """Return the end of an order with only its state, as documents show it."""

    def dressed(self, item: Item, quirks: Quirks) -> Item:
        """Return the item with the additions of the quirks."""

    def frame(self, channel: str, kind: FrameKind, sequence: bytes, payload: bytes) -> bytes: ...

    def notice(self, channel: str, sequence: bytes) -> bytes:
        """Return a frame of an unknown type, with a number of the channel's sequence."""
