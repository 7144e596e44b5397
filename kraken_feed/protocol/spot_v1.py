"""Encode requests and decode frames of Kraken Spot's private WebSocket v1.

Source: https://docs.kraken.com/api/docs/websocket-v1/openorders and …/owntrades . Control frames are objects with
``event``; data frames are arrays ``[[{id: object}, …], channel, {"sequence": n}]``.

Every frame is first read the fast way, which knows only the shapes above. A frame that does not fit is read again, part
by part, before it counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..json_members import NotJson, elements, members, scalar
from ..text import word
from .wire import (
    DEPTH,
    HEARTBEAT,
    SHALLOW_BYTES,
    TOO_DEEP,
    Ack,
    Data,
    EngineStatus,
    Frame,
    Item,
    Pong,
    ServerError,
    Unknown,
    is_text,
    legible,
    not_json,
    number,
    one_line,
    too_deep,
    unreadable,
)

EVENT_NAMES = {"openOrders": "order", "ownTrades": "trade"}
TERMINAL = ("closed", "canceled", "expired")

_ABSENT = msgspec.Raw()


class _Trailer(msgspec.Struct, gc=False):
    sequence: int | None = None


class _Data(msgspec.Struct, array_like=True, gc=False, forbid_unknown_fields=True):
    entries: list[dict[str, msgspec.Raw]]
    channel: str
    trailer: _Trailer | None = None  # very old servers sent two elements


class _OrderPeek(msgspec.Struct, gc=False):
    status: Any = None
    descr: msgspec.Raw = _ABSENT


class _TradePeek(msgspec.Struct, gc=False):
    ordertxid: Any = None
    userref: Any = None  # on updates only
    cl_ord_id: Any = None


class _Subscription(msgspec.Struct):
    name: Any = None


class _Control(msgspec.Struct):
    event: Any = None
    status: Any = None
    reqid: Any = None
    channelName: Any = None
    subscription: _Subscription | None = None
    errorMessage: Any = None
    connectionID: msgspec.Raw = _ABSENT  # above 2^63: kept as text
    Error: Any = None


_data = msgspec.json.Decoder(_Data).decode
_control = msgspec.json.Decoder(_Control).decode
_order = msgspec.json.Decoder(_OrderPeek).decode
_trade = msgspec.json.Decoder(_TradePeek).decode


def decode(frame: bytes) -> Frame:
    """Return the meaning of ``frame``. Never raises: a frame that cannot be read is ``Unknown``."""
    size = len(frame)
    if (
        size >= SHALLOW_BYTES
        and (arrays := frame.count(b"[")) > DEPTH - (size - SHALLOW_BYTES) // 3
        and arrays + frame.count(b"{") > DEPTH
        and too_deep(frame)
    ):
        return TOO_DEEP
    if not (frame.isascii() or is_text(frame)):
        return unreadable(frame, "not UTF-8")
    said: Frame | None
    try:
        if frame[:1] == b"[" or frame.lstrip()[:1] == b"[":
            said = _decode_data(frame)
        else:
            said = _decode_control(_control(frame))
    except (msgspec.DecodeError, RecursionError):
        said = None
    return said or _decode_slowly(frame)


# ------------------------------------------------------------------------------------------------ data, the fast way


def _decode_data(frame: bytes) -> Data | None:
    """Return the data of a frame if every part is as expected. Otherwise return None, or raise an error of msgspec."""
    if 10 in frame or 13 in frame:  # as numbers: a search for a bytes object takes ten times as long
        frame = one_line(frame)
    envelope = _data(frame)
    channel, entries, trailer = envelope.channel, envelope.entries, envelope.trailer
    sequence = trailer.sequence if trailer is not None else None
    items: list[Item] = []
    partial = False
    if channel == "openOrders":
        for entry in entries:
            for order_id, raw in entry.items():
                order = _order(raw)
                if order.descr is _ABSENT:
                    partial = True
                status = order.status
                ended = isinstance(status, str) and word(status) in TERMINAL and order_id
                items.append(Item(bytes(raw), order_id or None, None, f"{order_id}:end" if ended else None))
    elif channel == "ownTrades":
        for entry in entries:
            for trade_id, raw in entry.items():
                trade = _trade(raw)
                partial = partial or trade.userref is not None or trade.cl_ord_id is not None
                of_order = trade.ordertxid if isinstance(trade.ordertxid, str) else None
                items.append(Item(bytes(raw), of_order or None, trade_id or None, trade_id or None))
    else:
        return None
    if len(items) < len(entries):
        return None
    return Data(channel, items, sequence, None, partial)


# ------------------------------------------------------------------------------------------------ control frames


def _decode_control(control: _Control) -> Frame | None:
    match control.event:
        case "heartbeat":
            return HEARTBEAT
        case "systemStatus" if isinstance(control.status, str):
            return EngineStatus(legible(control.status), bytes(control.connectionID).decode())
        case "pong":
            return Pong(control.reqid)
        case "subscriptionStatus":
            return _ack(control)
        case "error":
            return ServerError(legible(control.errorMessage), control.reqid)
        case None | "" if control.Error is not None:
            return ServerError(legible(control.Error))
    return None


def _ack(control: _Control) -> Ack:
    channel = control.subscription.name if control.subscription is not None else None
    if not isinstance(channel, str):
        channel = control.channelName if isinstance(control.channelName, str) else None
    channel = legible(channel) if channel is not None else None
    if control.status in ("subscribed", "ok"):
        return Ack("subscribe", control.reqid, channel, None)
    if control.status == "unsubscribed":
        return Ack("unsubscribe", control.reqid, channel, None)
    text = legible(control.errorMessage) if isinstance(control.errorMessage, str) else f"status {control.status!r}"
    return Ack("subscribe", control.reqid, channel, text)


# ------------------------------------------------------------------------------------------------ the slow way


def _decode_slowly(frame: bytes) -> Frame:
    """Read a frame part by part: integers in another spelling, lone surrogates, parts of another type."""
    error = not_json(frame)
    if error is not None:
        return Unknown(json=False, why=error)
    frame = one_line(frame)
    try:
        if frame.lstrip()[:1] == b"[":
            return _data_by_parts(elements(frame))
        control = _control_by_parts(members(frame))
    except NotJson:  # another kind of value
        control = None
    return _or_unknown(control)


def _or_unknown(control: _Control | None) -> Frame:
    said = _decode_control(control) if control is not None else None
    return said or Unknown(json=True, why="an event that this version does not know")


def _control_by_parts(parts: Iterable[tuple[str, bytes]]) -> _Control:
    fields = dict(parts)
    values = {
        name: scalar(fields[name])
        for name in ("event", "status", "reqid", "channelName", "errorMessage", "Error")
        if name in fields
    }
    subscription = scalar(fields.get("subscription", b"null"))
    name = subscription.get("name") if isinstance(subscription, dict) else None
    connection_id = msgspec.Raw(fields.get("connectionID", b""))
    return _Control(**values, subscription=_Subscription(name), connectionID=connection_id)


def _data_by_parts(parts: list[bytes]) -> Frame:
    values = [scalar(part) for part in parts]
    # Look where they belong first, then anywhere.
    channel = next((v for v in values[1:2] + values if isinstance(v, str) and v in EVENT_NAMES), None)
    if channel is None:
        return Unknown(json=True, why="a channel that this version does not know")
    sequences = (number(v.get("sequence")) for v in values[2:] + values[:2] if isinstance(v, dict))
    sequence = next((n for n in sequences if n is not None), None)
    if values[:1] == [None]:
        values[0], parts = [], [b"[]", *parts[1:]]  # null for an empty list
    if values[1:2] != [channel] or not isinstance(values[0], list):
        return Unknown(json=True, why="data of another shape", channel=channel, sequence=sequence)
    # Only two shapes are known: with a sequence as the third element, and without a third element.
    said = Data(channel, [], sequence, odd=len(parts) > 3 or (len(parts) == 3 and sequence is None))
    read = _read_order if channel == "openOrders" else _read_trade
    for entry in elements(parts[0]):
        try:
            pairs = members(entry)
        except NotJson:  # not an object
            pairs = []
        if not pairs:
            said.odd = True
        for name, raw in pairs:
            fields = scalar(raw)
            if isinstance(fields, dict):
                read(said, name, raw, fields)
            else:
                said.odd = True
    said.partial = said.partial or said.odd  # a part that was not understood may be a change
    return said


def _read_order(said: Data, order_id: str, raw: bytes, fields: dict[str, Any]) -> None:
    status = fields.get("status")
    ended = isinstance(status, str) and word(status) in TERMINAL and order_id
    said.partial = said.partial or "descr" not in fields
    said.items.append(Item(raw, order_id or None, None, f"{order_id}:end" if ended else None))


def _read_trade(said: Data, trade_id: str, raw: bytes, fields: dict[str, Any]) -> None:
    of_order = fields.get("ordertxid")
    said.partial = said.partial or fields.get("userref") is not None or fields.get("cl_ord_id") is not None
    order_id = of_order if isinstance(of_order, str) else None
    said.items.append(Item(raw, order_id or None, trade_id or None, trade_id or None))


# ------------------------------------------------------------------------------------------------ requests


def subscribe(channel: str, token: str, req_id: int) -> str:
    """Return the request for ``openOrders`` (which always sends a snapshot) or ``ownTrades``."""
    subscription: dict[str, object] = {"name": channel, "token": token}
    if channel == "ownTrades":
        # Kraken's defaults, sent explicitly: later REST calls must use the same ones.
        subscription |= {"snapshot": True, "consolidate_taker": True}
    return msgspec.json.encode({"event": "subscribe", "reqid": req_id, "subscription": subscription}).decode()


def ping(req_id: int) -> str:
    """Return the application ping, answered by ``{"event": "pong"}``."""
    return msgspec.json.encode({"event": "ping", "reqid": req_id}).decode()
