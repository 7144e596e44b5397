"""Define the vocabulary of frames: what a dialect's ``decode`` returns, and the interface of a dialect.

A frame is decoded once. The items of a data frame stay the bytes that Kraken sent; only the fields that the record
needs are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from itertools import accumulate
from typing import Any, Literal, Protocol

import msgspec

FrameType = Literal["snapshot", "update"]

DEPTH = 500  # levels of nesting; Kraken's frames have six. Python's own limits differ: 1,000 in 3.11, none in 3.14
# A shorter frame cannot nest deeper: each level has two brackets. A level that is an object has three more bytes, for
# its name and a colon. So a frame that is only a little longer can be too deep only if nearly all of its levels are
# arrays. Counting `[` is a quick test for that.
SHALLOW_BYTES = 2 * DEPTH


class Item(msgspec.Struct, gc=False):
    """One order, trade, execution or balance entry.

    ``data`` is Kraken's object, its bytes unchanged except that line breaks between tokens become blanks.
    ``identity`` is the same for an item in a snapshot, in an update and from REST: a trade id, a ledger id, an order's
    end. It is None if only the frame's place identifies the item. No id is ever the empty string.
    """

    data: bytes
    order_id: str | None = None
    exec_id: str | None = None
    identity: str | None = None


class Data(msgspec.Struct, gc=False):
    """A frame of one channel.

    ``type`` is None where the dialect does not say (v1), until the session has decided it. Then ``partial`` tells
    whether an item looks like a change instead of a complete object. A snapshot has no changes. ``odd``: a part of the
    frame was not understood, so the complete frame is to be written as unknown too.

    ``epoch`` counts the channel's snapshots on this connection after the first; the session sets it. Kraken may start
    its sequence again with a snapshot, so the place of a frame is its epoch and its sequence.
    """

    channel: str
    items: list[Item]
    sequence: int | None = None
    type: FrameType | None = None
    partial: bool = False
    odd: bool = False
    epoch: int = 0


class Ack(msgspec.Struct):
    """The answer to a request to subscribe or unsubscribe, or one without a request.

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
    """A heartbeat: no data to send, and the subscription works."""


class Pong(msgspec.Struct):
    """The answer to an application ping. The times are Kraken's, in unix nanoseconds: when it received the ping and
    when it sent the answer. None: it did not say."""

    req_id: Any = None
    time_in_ns: int | None = None
    time_out_ns: int | None = None


class ServerError(msgspec.Struct):
    """An error that belongs to no subscription, or does not name one."""

    text: str
    req_id: Any = None


class Unknown(msgspec.Struct):
    """A frame that this version cannot read.

    ``json`` tells whether it is JSON at all; ``why`` is for diagnostics. ``channel`` and ``sequence`` are set if
    they could still be read.
    """

    json: bool
    why: str
    channel: str | None = None
    sequence: int | None = None


Frame = Data | Ack | EngineStatus | Heartbeat | Pong | ServerError | Unknown

HEARTBEAT = Heartbeat()
TOO_DEEP = Unknown(json=False, why=f"nested deeper than {DEPTH} levels")


class Dialect(Protocol):
    """The interface of a dialect's module. ``EVENT_NAMES`` maps its channels to the ``event_name`` of their items."""

    @property
    def EVENT_NAMES(self) -> Mapping[str, str]: ...

    def decode(self, frame: bytes) -> Frame:
        """Return the meaning of ``frame``. Never raises: a frame that cannot be read is :class:`Unknown`."""

    def subscribe(self, channel: str, token: str, req_id: int) -> str:
        """Return the request for a channel, with its snapshot."""

    def ping(self, req_id: int) -> str:
        """Return the application ping. Its answer proves more than a WebSocket pong does."""


# ------------------------------------------------------------------------------------------------ values

_INTEGRAL = re.compile(r"-?[0-9]{1,40}(\.0{0,40})?")
_EXPONENT = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?[eE][+-]?[0-9]{1,2}")
_RFC_3339 = re.compile(r"([0-9-]{10})[Tt ]([0-9:]{8})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})")


def number(value: object) -> int | None:
    """Return an integer in any spelling: ``1``, ``1.0``, ``3e0`` or a string of these.

    Anything else gives None, true and false included. So does a string of more than forty digits.
    """
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        if _INTEGRAL.fullmatch(value):
            return int(value.partition(".")[0])
        if _EXPONENT.fullmatch(value):
            exact = Decimal(value)
            return int(exact) if exact == exact.to_integral_value() else None
    return None


def unix_ns(value: object) -> int | None:
    """Return the unix nanoseconds of an RFC 3339 time; None if ``value`` is not one."""
    found = _RFC_3339.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    date, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
        return int(moment.timestamp()) * 1_000_000_000 + int(((fraction or "") + "000000000")[:9])
    except (ValueError, OverflowError):
        return None


def legible(value: object) -> str:
    """Return ``value`` as text for people: a lone surrogate, which no encoding can carry, becomes an escape."""
    return str(value).encode("utf-8", "backslashreplace").decode()


# ------------------------------------------------------------------------------------------------ frames as bytes

_any_json = msgspec.json.Decoder(msgspec.Raw)
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"?')
_SURROGATE = re.compile(rb"(\\)(u[dD][89a-fA-F][0-9a-fA-F]{2}|.)", re.DOTALL)
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def too_deep(frame: bytes) -> bool:
    """Return whether ``frame`` nests deeper than ``DEPTH`` levels.

    Call it only for a frame of ``SHALLOW_BYTES`` or more with more than ``DEPTH`` opening brackets: it looks at every
    bracket outside strings.
    """
    if b"\\" in frame:
        frame = _ESCAPE.sub(b"", frame)  # now every remaining quote begins or ends a string
    # Two adjacent quotes are an empty string, or end one string and begin the next: they can be removed.
    brackets = frame.translate(None, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b"")
    if b'"' in brackets:
        brackets = _STRING.sub(b"", brackets)
    return max(accumulate(map(_STEP.__getitem__, brackets), initial=0)) > DEPTH


def unreadable(frame: bytes, why: str) -> Unknown:
    """Return ``frame`` as :class:`Unknown`, after a check whether it is JSON."""
    error = not_json(frame)
    return Unknown(json=False, why=error) if error is not None else Unknown(json=True, why=why)


def not_json(frame: bytes) -> str | None:
    """Return why ``frame`` is not JSON; None if it is. Lone surrogates are allowed, as in the grammar."""
    if not is_text(frame):
        return "not UTF-8"
    try:
        _any_json.decode(_SURROGATE.sub(_replaced, frame) if b"\\" in frame else frame)
    except (msgspec.DecodeError, RecursionError) as error:
        return f"not JSON: {error}"
    return None


def _replaced(escape: re.Match[bytes]) -> bytes:
    """Return another character's escape in place of a surrogate's, which msgspec refuses unless it is one of a pair."""
    return escape[0] if len(escape[2]) == 1 else b"\\uFFFD"


def one_line(frame: bytes) -> bytes:
    """Return ``frame`` without line breaks. JSON has them only between tokens: inside strings they are escaped."""
    return frame.replace(b"\n", b" ").replace(b"\r", b" ")


def is_text(frame: bytes) -> bool:
    """Return whether ``frame`` is UTF-8. Decoders do not check the parts that they skip."""
    if frame.isascii():
        return True
    try:
        frame.decode()
    except UnicodeDecodeError:
        return False
    return True
