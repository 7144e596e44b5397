"""Kraken Spot's private WebSocket v1: requests out, frames in.

Source: https://docs.kraken.com/api/docs/websocket-v1/openorders and …/owntrades . Control frames are objects with
``event``; data frames are arrays ``[[{id: object}, …], channel, {"sequence": n}]``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .wire import HEARTBEAT, PONG, Ack, Data, EngineStatus, Frame, Item, ServerError, is_text, one_line, unreadable

NAME = "v1"
EVENT_NAMES = {"openOrders": "order", "ownTrades": "trade"}
TERMINAL = ("closed", "canceled", "expired")

_ABSENT = msgspec.Raw()


class _Tail(msgspec.Struct, gc=False):
    sequence: int | None = None


class _Data(msgspec.Struct, array_like=True, gc=False):
    entries: list[dict[str, msgspec.Raw]]
    channel: str
    tail: _Tail | None = None  # very old servers sent two elements


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
    event: str = ""
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
    """What ``frame`` says. Never raises: what cannot be read is ``Unknown``."""
    if not (frame.isascii() or is_text(frame)):
        return unreadable(frame, "not UTF-8")
    try:
        if frame[:1] == b"[" or frame.lstrip()[:1] == b"[":
            return _decode_data(frame)
        return _decode_control(frame) or unreadable(frame, "an event that this version does not know")
    except (msgspec.DecodeError, RecursionError) as error:
        return unreadable(frame, str(error))


def _decode_data(frame: bytes) -> Frame:
    if 10 in frame or 13 in frame:  # as numbers: a search for a bytes object takes ten times as long
        frame = one_line(frame)
    envelope = _data(frame)
    channel, entries, tail = envelope.channel, envelope.entries, envelope.tail
    sequence = tail.sequence if tail is not None else None
    items: list[Item] = []
    partial = False
    if channel == "openOrders":
        for entry in entries:
            for order_id, raw in entry.items():
                order = _order(raw)
                if order.descr is _ABSENT:
                    partial = True
                status = order.status
                end = f"{order_id}:end" if status is not None and status in TERMINAL else None
                items.append(Item(bytes(raw), order_id, None, end))
    elif channel == "ownTrades":
        for entry in entries:
            for trade_id, raw in entry.items():
                trade = _trade(raw)
                partial = partial or trade.userref is not None or trade.cl_ord_id is not None
                of_order = trade.ordertxid if isinstance(trade.ordertxid, str) else None
                items.append(Item(bytes(raw), of_order, trade_id, trade_id))
    else:
        return unreadable(frame, "a channel that this version does not know")
    if len(items) < len(entries):
        return unreadable(frame, "an entry without an id")
    return Data(channel, items, sequence, None, partial)


def _decode_control(frame: bytes) -> Frame | None:
    control = _control(frame)
    match control.event:
        case "heartbeat":
            return HEARTBEAT
        case "systemStatus":
            return EngineStatus(str(control.status), bytes(control.connectionID).decode())
        case "pong":
            return PONG
        case "subscriptionStatus":
            return _ack(control)
        case "error":
            return ServerError(str(control.errorMessage), control.reqid)
        case "" if control.Error is not None:
            return ServerError(str(control.Error))
    return None


def _ack(control: _Control) -> Ack:
    channel = control.subscription.name if control.subscription is not None else None
    if not isinstance(channel, str):
        channel = control.channelName if isinstance(control.channelName, str) else None
    if control.status in ("subscribed", "ok"):
        return Ack("subscribe", control.reqid, channel, None)
    if control.status == "unsubscribed":
        return Ack("unsubscribe", control.reqid, channel, None)
    text = control.errorMessage if isinstance(control.errorMessage, str) else f"status {control.status!r}"
    return Ack("subscribe", control.reqid, channel, text)


def subscribe(channel: str, token: str, req_id: int) -> str:
    """The request for ``openOrders`` (which always sends a snapshot) or ``ownTrades``."""
    subscription: dict[str, object] = {"name": channel, "token": token}
    if channel == "ownTrades":
        # Kraken's defaults, said aloud: what REST is asked for later has to be asked for alike.
        subscription |= {"snapshot": True, "consolidate_taker": True}
    return msgspec.json.encode({"event": "subscribe", "reqid": req_id, "subscription": subscription}).decode()


def ping(req_id: int) -> str:
    """The application ping, answered by ``{"event": "pong"}``."""
    return msgspec.json.encode({"event": "ping", "reqid": req_id}).decode()
