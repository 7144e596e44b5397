"""Encode requests and decode frames of Kraken Spot's private WebSocket v2.

Source: https://docs.kraken.com/api/docs/websocket-v2/executions and …/balances . Every frame is an object, with
``method`` (an answer) or ``channel`` (data). Numbers are JSON numbers whose trailing zeros are significant.

Every frame is first read the fast way, which knows only the shapes above. A frame that does not fit is read again, part
by part, before it counts as unknown.
"""

from __future__ import annotations

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
    FrameType,
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
    unix_ns,
    unreadable,
)

EVENT_NAMES = {"executions": "execution", "balances": "balance"}
CHANNELS = tuple(EVENT_NAMES)  # a tuple: the value looked up may be any JSON value, also an unhashable one
TYPES: tuple[FrameType, ...] = ("update", "snapshot")
TERMINAL = ("filled", "canceled", "expired")

_ABSENT = msgspec.Raw()


class _Data(msgspec.Struct, gc=False):
    channel: Any = None
    type: Any = None
    sequence: int | None = None
    data: list[msgspec.Raw] | None = None


class _Envelope(msgspec.Struct):
    channel: Any = None
    data: list[msgspec.Raw] | None = None
    method: Any = None
    req_id: Any = None
    success: Any = None
    error: Any = None
    result: msgspec.Raw = _ABSENT
    time_in: Any = None
    time_out: Any = None


class _Peek(msgspec.Struct, gc=False):
    order_id: str | None = None
    exec_id: str | None = None
    exec_type: str | None = None
    ledger_id: str | None = None


_data = msgspec.json.Decoder(_Data).decode
_envelope = msgspec.json.Decoder(_Envelope).decode
_peek = msgspec.json.Decoder(_Peek).decode


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
    try:
        # As numbers: a search for a bytes object takes ten times as long.
        line = one_line(frame) if 10 in frame or 13 in frame else frame
        data = _data(line)
        channel, rows = data.channel, data.data
        if rows is not None and channel in CHANNELS and data.type in TYPES:
            return Data(channel, [_item(bytes(raw), _peek(raw)) for raw in rows], data.sequence, data.type)
        said = _decode_other(_envelope(line))
    except (msgspec.DecodeError, RecursionError):
        said = None
    return said or _decode_slowly(frame)


# ------------------------------------------------------------------------------------------------ data, the fast way


def _item(data: bytes, peek: _Peek) -> Item:
    order_id = peek.order_id or None
    if peek.exec_type is not None:
        kind = word(peek.exec_type)
        if kind == "trade" and peek.exec_id:
            return Item(data, order_id, peek.exec_id, peek.exec_id)
        if kind in TERMINAL and order_id is not None:
            return Item(data, order_id, None, f"{order_id}:end")
    return Item(data, order_id, None, peek.ledger_id or None)


# ------------------------------------------------------------------------------------------------ all other frames


def _decode_other(envelope: _Envelope) -> Frame | None:
    """Return the meaning of a frame that is not data; None if this version does not know it."""
    if envelope.channel is not None:
        return _decode_state(envelope)
    if envelope.method in ("subscribe", "unsubscribe"):
        return _ack(envelope)
    if envelope.method == "pong":
        return _pong(envelope)
    if envelope.method in (None, "error", "ping") and envelope.error is not None:
        return ServerError(legible(envelope.error), envelope.req_id)
    return None


def _decode_state(envelope: _Envelope) -> Frame | None:
    if envelope.channel == "heartbeat":
        return HEARTBEAT
    if envelope.channel == "status" and envelope.data:
        try:
            fields = dict(members(bytes(envelope.data[0])))
            engine = scalar(fields.get("system", b"null"))
        except NotJson:  # not an object
            return None
        if isinstance(engine, str):
            return EngineStatus(legible(engine), fields.get("connection_id", b"").decode())  # above 2^63: kept as text
    return None


def _pong(envelope: _Envelope) -> Pong:
    """Return a pong, with Kraken's times if both are there and in order."""
    time_in, time_out = unix_ns(envelope.time_in), unix_ns(envelope.time_out)
    if time_in is None or time_out is None or time_in > time_out:
        time_in = time_out = None
    return Pong(envelope.req_id, time_in, time_out)


def _ack(envelope: _Envelope) -> Ack:
    try:
        result = scalar(bytes(envelope.result))
    except NotJson:  # absent
        result = None
    channel = warnings = None
    if isinstance(result, dict):
        channel, warnings = result.get("channel"), result.get("warnings")
    error = None
    if envelope.success is not True:  # absent or not a boolean: a failure too
        error = legible(envelope.error) if envelope.error is not None else "the answer says neither success nor error"
    return Ack(
        envelope.method,
        envelope.req_id,
        legible(channel) if isinstance(channel, str) else None,
        error,
        tuple(map(legible, warnings)) if isinstance(warnings, list) else (),
    )


# ------------------------------------------------------------------------------------------------ the slow way


def _decode_slowly(frame: bytes) -> Frame:
    """Read a frame part by part: integers in another spelling, lone surrogates, parts of another type."""
    error = not_json(frame)
    if error is not None:
        return Unknown(json=False, why=error)
    try:
        parts = members(one_line(frame))
    except NotJson:  # another kind of value
        return Unknown(json=True, why="not an object")
    fields = dict(parts)
    values: dict[str, Any] = {name: scalar(raw) for name, raw in fields.items() if name not in ("data", "result")}
    channel = values.get("channel")
    if channel in CHANNELS:
        return _data_by_parts(channel, fields, values, repeated=len(fields) < len(parts))
    envelope = _Envelope(**{name: values[name] for name in _OF_OTHERS if name in values})
    envelope.result = msgspec.Raw(fields.get("result", b""))
    try:
        envelope.data = [msgspec.Raw(row) for row in elements(fields.get("data", b"[]"))]
    except NotJson:  # not an array
        envelope.data = None
    return _decode_other(envelope) or Unknown(json=True, why="a frame that this version does not know")


_OF_OTHERS = ("channel", "method", "req_id", "success", "error", "time_in", "time_out")


def _data_by_parts(channel: str, fields: dict[str, bytes], values: dict[str, Any], *, repeated: bool) -> Frame:
    sequence, kind = number(values.get("sequence")), values.get("type")
    if kind not in TYPES or "data" not in fields:
        return Unknown(json=True, why="data of another type", channel=channel, sequence=sequence)
    try:
        rows = [] if fields["data"] == b"null" else elements(fields["data"])
    except NotJson:  # not an array
        return Unknown(json=True, why="data of another shape", channel=channel, sequence=sequence)
    said = Data(channel, [], sequence, kind)
    # A repeated member hides its first value. A sequence that cannot be read makes the next one a jump.
    said.odd = repeated or (sequence is None and values.get("sequence") is not None)
    for row in rows:
        item = scalar(row)
        if isinstance(item, dict):
            texts = (value if isinstance(value := item.get(name), str) else None for name in _Peek.__struct_fields__)
            said.items.append(_item(row, _Peek(*texts)))
        else:
            said.odd = True
    return said


# ------------------------------------------------------------------------------------------------ requests


def subscribe(channel: str, token: str, req_id: int) -> str:
    """Return the request for ``executions`` (open orders and the last 50 trades) or ``balances``."""
    params: dict[str, object] = {"channel": channel, "token": token}
    if channel == "executions":
        params |= {"snap_orders": True, "snap_trades": True, "order_status": True}
    else:
        params |= {"snapshot": True}
    return msgspec.json.encode({"method": "subscribe", "params": params, "req_id": req_id}).decode()


def ping(req_id: int) -> str:
    """Return the application ping, answered by ``{"method": "pong"}``."""
    return msgspec.json.encode({"method": "ping", "req_id": req_id}).decode()
