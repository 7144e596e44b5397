"""Record what happened and what was published, to compare a client's output with."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec import Struct

from ..quirks.shape import JsonObject
from .order import Change, Entry
from .stamp import unix_text

Sink = Callable[[bytes], None]
FrameKind = Literal["snapshot", "update"]


class Item(Struct, frozen=True, gc=False):
    """One element of a data frame: its ids, and its exact bytes."""

    ids: tuple[str, ...]
    data: bytes


class Content(Struct, frozen=True, gc=False):
    """The content of a data frame: its items, and their array."""

    items: tuple[Item, ...]
    payload: bytes


class Frame(Struct, frozen=True, gc=False):
    """One data frame of a subscription, as it was handed to the socket; `at` is when it was made."""

    connection_id: int
    dialect: str
    channel: str
    sequence: int
    kind: FrameKind
    items: tuple[Item, ...]
    text: bytes
    at: float


class Published(Struct, frozen=True):
    """One item of a frame; `data` is the array element exactly as it stands in the frame.

    In v1 that is `{"<id>":{…}}`; `value` is the inner object. In v2 both are the same.
    """

    connection_id: int
    dialect: str
    channel: str
    sequence: int
    type: FrameKind
    index: int
    ids: tuple[str, ...]
    data: bytes

    @property
    def value(self) -> bytes:
        if self.dialect == "v2":
            return self.data
        return self.data[len(self.ids[0]) + 4 : -1]


class Struck(Struct, frozen=True):
    """A fault that took effect, on one connection or (None) on the whole exchange."""

    at: float
    kind: str
    connection_id: int | None


@dataclass(eq=False, repr=False)
class Ledger:
    """Keeps the records in memory and hands each batch, as JSON lines, to `sink`.

    `changes` is what happened, regardless of quirks and faults: each order state, fill and entry once. An entry has the
    id that the feed and REST give it (compare entries by their `fact`). `frames` is what was sent, byte for byte, also
    ends that were sent twice. Frames that only count in a sequence are not in it.

    With `keep=False` only the sink sees them, for runs that last for days. A ledger is one account's; in the sink, the
    records of all but the first name it.
    """

    sink: Sink | None = None
    keep: bool = True
    account: int = 1

    def __post_init__(self) -> None:
        self.changes: list[Change] = []
        self.frames: list[Frame] = []
        self.faults: list[Struck] = []

    @property
    def published(self) -> Iterator[Published]:
        """Every published item, in the order in which it was sent."""
        return (item for frame in self.frames for item in items(frame))

    def happened(self, changes: Iterable[Change]) -> None:
        """Record changes of the account's orders, with their fills and entries."""
        batch = list(changes)
        if self.keep:
            self.changes += batch
        if self.sink is not None:
            self._write([_change_record(change) for change in batch])

    def publish(self, frame: Frame) -> None:
        """Record a data frame at the moment it is sent."""
        if self.keep:
            self.frames.append(frame)
        if self.sink is not None:
            self._write([_frame_record(frame), *(_item_record(item) for item in items(frame))])

    def struck(self, kind: str, at: float, connection_id: int | None = None) -> None:
        self.faults.append(Struck(at, kind, connection_id))
        self._write([{"record": "fault", "at": unix_text(at), "kind": kind, "connection_id": connection_id}])

    def _write(self, records: list[JsonObject]) -> None:
        if self.sink is not None and records:
            whose = {} if self.account == 1 else {"account": self.account}
            self.sink(b"".join(msgspec.json.encode(record | whose) + b"\n" for record in records))


def items(frame: Frame) -> Iterator[Published]:
    """Yield the frame's items as separate records."""
    for index, item in enumerate(frame.items):
        place = (frame.connection_id, frame.dialect, frame.channel, frame.sequence, frame.kind, index)
        yield Published(*place, item.ids, item.data)


def _frame_record(frame: Frame) -> JsonObject:
    return {
        "record": "frame",
        "connection_id": frame.connection_id,
        "dialect": frame.dialect,
        "channel": frame.channel,
        "sequence": frame.sequence,
        "type": frame.kind,
        "items": len(frame.items),
    }


def _item_record(item: Published) -> JsonObject:
    return {"record": "item", **msgspec.structs.asdict(item), "data": item.data.decode()}


def _entry_record(entry: Entry) -> JsonObject:
    """Return an entry with all that its `fact` is made of: an id can be empty or shared."""
    names = ("ref", "asset", "asset_class", "amount", "balance")
    return {"id": entry.id, **dict(zip(names, entry.fact, strict=True)), "fee": str(entry.fee)}


def _change_record(change: Change) -> JsonObject:
    order, trade = change.order, change.trade
    return {
        "record": "change",
        "at": unix_text(change.at),
        "kind": change.kind,
        "order_id": order.id,
        "status": order.status,
        "pair": order.pair.v1,
        "side": order.side,
        "vol": str(order.volume),
        "vol_exec": str(order.vol_exec),
        "cost": str(order.cost),
        "fee": str(order.fee),
        "userref": order.userref,
        "cl_ord_id": order.cl_ord_id,
        "reason": order.reason,
        "trade": None
        if trade is None
        else {
            "id": trade.id,
            "price": str(trade.price),
            "vol": str(trade.volume),
            "cost": str(trade.cost),
            "fee": str(trade.fee),
        },
        "entries": [_entry_record(entry) for entry in change.entries],
    }
