"""The vocabulary of frames: what a dialect's ``decode`` gives, and the interface that every dialect has.

A frame is decoded once. The items of a data frame stay the bytes that Kraken sent; only the few fields that the
record needs are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import msgspec

FrameType = Literal["snapshot", "update"]


class Item(msgspec.Struct, gc=False):
    """One order, trade, execution or balance entry.

    ``data`` is Kraken's object, its bytes unchanged but for line breaks between tokens, which become blanks.
    ``identity`` is what makes the item the same item whichever way it came: a trade id, a ledger id, an order's end;
    None where only the frame's place tells it apart.
    """

    data: bytes
    order_id: str | None = None
    exec_id: str | None = None
    identity: str | None = None


class Data(msgspec.Struct, gc=False):
    """A frame of one channel. ``type`` is None where the dialect does not say (v1): then ``partial`` tells whether
    an item looks like a change rather than a whole, which a snapshot never has."""

    channel: str
    items: list[Item]
    sequence: int | None = None
    type: FrameType | None = None
    partial: bool = False


class Ack(msgspec.Struct):
    """The answer to a request to subscribe or unsubscribe, or one that nobody asked for.

    ``error`` is None on success. ``channel`` is None where the frame does not say (every v2 error).
    """

    verb: Literal["subscribe", "unsubscribe"]
    req_id: Any
    channel: str | None
    error: str | None
    warnings: tuple[str, ...] = ()


class EngineStatus(msgspec.Struct):
    """Kraken's system state, on connect and on change; ``connection_id`` is an unsigned 64-bit number, as text."""

    engine: str
    connection_id: str = ""


class Heartbeat(msgspec.Struct):
    """Nothing happened, and the subscription is alive."""


class Pong(msgspec.Struct):
    """The answer to an application ping."""


class ServerError(msgspec.Struct):
    """An error that belongs to no subscription, or does not say to which."""

    text: str
    req_id: Any = None


class Unknown(msgspec.Struct):
    """A frame that this version cannot read. ``json`` tells whether it is JSON at all; ``why`` is for diagnostics."""

    json: bool
    why: str


Frame = Data | Ack | EngineStatus | Heartbeat | Pong | ServerError | Unknown

HEARTBEAT = Heartbeat()
PONG = Pong()


class Dialect(Protocol):
    """What a module of a dialect offers. ``EVENT_NAMES`` maps its channels to the ``event_name`` of their items."""

    @property
    def NAME(self) -> str: ...

    @property
    def EVENT_NAMES(self) -> Mapping[str, str]: ...

    def decode(self, frame: bytes) -> Frame:
        """What ``frame`` says. Never raises: what cannot be read is :class:`Unknown`."""

    def subscribe(self, channel: str, token: str, req_id: int) -> str:
        """The request for a channel, with its snapshot."""

    def ping(self, req_id: int) -> str:
        """The application ping: its answer proves more than a WebSocket pong does."""


_any_json = msgspec.json.Decoder(msgspec.Raw)


def unreadable(frame: bytes, why: str) -> Unknown:
    """``frame`` as :class:`Unknown`, looked at once more to tell whether it is JSON."""
    try:
        frame.decode()
        _any_json.decode(frame)
    except UnicodeDecodeError:
        return Unknown(json=False, why="not UTF-8")
    except (msgspec.DecodeError, RecursionError) as error:
        return Unknown(json=False, why=f"not JSON: {error}")
    return Unknown(json=True, why=why)


def one_line(frame: bytes) -> bytes:
    """``frame`` without line breaks. JSON has them only between tokens: inside strings they are escaped."""
    return frame.replace(b"\n", b" ").replace(b"\r", b" ")


def is_text(frame: bytes) -> bool:
    """Whether ``frame`` is UTF-8. Decoders do not look into what they skip."""
    if frame.isascii():
        return True
    try:
        frame.decode()
    except UnicodeDecodeError:
        return False
    return True
