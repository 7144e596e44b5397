"""Kraken Spot's private WebSocket v2: requests out, frames in.

Source: https://docs.kraken.com/api/docs/websocket-v2/executions and …/balances . Every frame is an object, with
``method`` (an answer) or ``channel`` (data). Numbers are JSON numbers whose trailing zeros mean something.
"""

from __future__ import annotations

from typing import Any, Literal

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
TERMINAL = ("filled", "canceled", "expired")

_ABSENT = msgspec.Raw()


class _Result(msgspec.Struct):
    channel: Any = None
    warnings: Any = None


class _Envelope(msgspec.Struct):
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


class _Peek(msgspec.Struct):
    order_id: Any = None
    exec_id: Any = None
    exec_type: Any = None
    ledger_id: Any = None


_envelope = msgspec.json.Decoder(_Envelope)
_status = msgspec.json.Decoder(_Status)
_result: msgspec.json.Decoder[_Result | None] = msgspec.json.Decoder(_Result | None)
_peek = msgspec.json.Decoder(_Peek)


def decode(frame: bytes) -> Frame:
    """What ``frame`` says. Never raises: what cannot be read is ``Unknown``."""
    if not (frame.isascii() or is_text(frame)):
        return unreadable(frame, "not UTF-8")
    try:
        envelope = _envelope.decode(one_line(frame))
        known = _decode_channel(envelope) if envelope.channel is not None else _decode_answer(envelope)
    except (msgspec.DecodeError, RecursionError) as error:
        return unreadable(frame, str(error))
    return known or unreadable(frame, "a frame that this version does not know")


def _decode_channel(envelope: _Envelope) -> Frame | None:
    channel, rows = envelope.channel, envelope.data
    if isinstance(channel, str) and channel in EVENT_NAMES:
        kind = _frame_type(envelope.type)
        if rows is None or kind is None:
            return None
        return Data(channel, [_item(raw) for raw in rows], envelope.sequence, kind)
    if channel == "heartbeat":
        return HEARTBEAT
    if channel == "status" and rows:
        status = _status.decode(rows[0])
        return EngineStatus(str(status.system), bytes(status.connection_id).decode())
    return None


def _frame_type(kind: object) -> Literal["snapshot", "update"] | None:
    if kind == "update":
        return "update"
    return "snapshot" if kind == "snapshot" else None


def _item(raw: msgspec.Raw) -> Item:
    peek = _peek.decode(raw)
    data, order_id, kind, exec_id, ledger_id = bytes(raw), peek.order_id, peek.exec_type, peek.exec_id, peek.ledger_id
    if not isinstance(order_id, str):
        order_id = None
    if isinstance(kind, str):
        kind = kind.lower()
        if kind == "trade" and isinstance(exec_id, str):
            return Item(data, order_id, exec_id, exec_id)
        if kind in TERMINAL and order_id is not None:
            return Item(data, order_id, None, f"{order_id}:end")
    return Item(data, order_id, None, ledger_id if isinstance(ledger_id, str) else None)


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
