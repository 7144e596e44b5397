"""Kraken Spot's private WebSocket v2: requests out, frames in.

Source: https://docs.kraken.com/api/docs/websocket-v2/executions and …/balances . Every frame is an object, with
``method`` (an answer) or ``channel`` (data). Numbers are JSON numbers whose trailing zeros mean something.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .wire import (
    HEARTBEAT,
    PONG,
    Ack,
    Data,
    EngineStatus,
    Frame,
    Item,
    ServerError,
    is_text,
    one_line,
    unreadable,
)

NAME = "v2"
EVENT_NAMES = {"executions": "execution", "balances": "balance"}
CHANNELS = tuple(EVENT_NAMES)  # to look up what may be any JSON value
TYPES = ("update", "snapshot")
TERMINAL = ("filled", "canceled", "expired")

_ABSENT = msgspec.Raw()


class _Result(msgspec.Struct):
    channel: Any = None
    warnings: Any = None


class _Envelope(msgspec.Struct, gc=False):
    channel: Any = None
    type: Any = None
    sequence: int | None = None
    data: list[msgspec.Raw] | None = None
    method: Any = None
    req_id: Any = None
    success: Any = None
    error: Any = None
    result: msgspec.Raw = _ABSENT


class _Status(msgspec.Struct):
    system: Any = None
    connection_id: msgspec.Raw = _ABSENT  # above 2^63: kept as text


class _Peek(msgspec.Struct, gc=False):
    order_id: Any = None
    exec_id: Any = None
    exec_type: Any = None
    ledger_id: Any = None


_envelope = msgspec.json.Decoder(_Envelope).decode
_status = msgspec.json.Decoder(_Status).decode
_result: msgspec.json.Decoder[_Result | None] = msgspec.json.Decoder(_Result | None)
_peek = msgspec.json.Decoder(_Peek).decode


def decode(frame: bytes) -> Frame:
    """What ``frame`` says. Never raises: what cannot be read is ``Unknown``."""
    if not (frame.isascii() or is_text(frame)):
        return unreadable(frame, "not UTF-8")
    try:
        if 10 in frame or 13 in frame:  # as numbers: a search for a bytes object takes ten times as long
            frame = one_line(frame)
        envelope = _envelope(frame)
        channel, rows = envelope.channel, envelope.data
        if rows is not None and channel in CHANNELS and envelope.type in TYPES:
            return Data(channel, [_item(raw) for raw in rows], envelope.sequence, envelope.type)
        known = _decode_state(envelope) if channel is not None else _decode_answer(envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        return unreadable(frame, str(error))
    return known or unreadable(frame, "a frame that this version does not know")


def _decode_state(envelope: _Envelope) -> Frame | None:
    if envelope.channel == "heartbeat":
        return HEARTBEAT
    if envelope.channel == "status" and envelope.data:
        status = _status(envelope.data[0])
        return EngineStatus(str(status.system), bytes(status.connection_id).decode())
    return None


def _item(raw: msgspec.Raw) -> Item:
    peek = _peek(raw)
    order_id, kind, exec_id, ledger_id = peek.order_id, peek.exec_type, peek.exec_id, peek.ledger_id
    if not isinstance(order_id, str):
        order_id = None
    identity = None
    if isinstance(kind, str):
        kind = kind.lower()
        if kind == "trade" and isinstance(exec_id, str):
            return Item(bytes(raw), order_id, exec_id, exec_id)
        if kind in TERMINAL and order_id is not None:
            identity = f"{order_id}:end"
    if identity is None and isinstance(ledger_id, str):
        identity = ledger_id
    return Item(bytes(raw), order_id, None, identity)


def _decode_answer(envelope: _Envelope) -> Frame | None:
    if envelope.method in ("subscribe", "unsubscribe"):
        return _ack(envelope)
    if envelope.method == "pong":
        return PONG
    if envelope.method in (None, "error", "ping") and envelope.error is not None:
        return ServerError(str(envelope.error), envelope.req_id)
    return None


def _ack(envelope: _Envelope) -> Ack:
    channel: str | None = None
    warnings: tuple[str, ...] = ()
    if envelope.result is not _ABSENT:
        result = _result.decode(envelope.result) or _Result()
        channel = result.channel if isinstance(result.channel, str) else None
        if isinstance(result.warnings, list):
            warnings = tuple(str(text) for text in result.warnings)
    error = None
    if envelope.success is not True:  # absent, or no boolean, is a failure too
        error = str(envelope.error) if envelope.error is not None else "no success, and no error either"
    return Ack(envelope.method, envelope.req_id, channel, error, warnings)


def subscribe(channel: str, token: str, req_id: int) -> str:
    """The request for ``executions`` (open orders and the last 50 trades) or ``balances``."""
    params: dict[str, object] = {"channel": channel, "token": token}
    if channel == "executions":
        params |= {"snap_orders": True, "snap_trades": True, "order_status": True}
    else:
        params |= {"snapshot": True}
    return msgspec.json.encode({"method": "subscribe", "params": params, "req_id": req_id}).decode()


def ping(req_id: int) -> str:
    """The application ping, answered by ``{"method": "pong"}``."""
    return msgspec.json.encode({"method": "ping", "req_id": req_id}).decode()
