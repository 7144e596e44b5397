"""Speak the v1 dialect: control messages and requests. The feeds are in `v1_feed`.

Sources: https://docs.kraken.com/api/docs/websocket-v1/openorders , …/owntrades , …/subscriptionstatus ,
https://support.kraken.com/hc/en-us/articles/360022326871
"""

from typing import Any

import msgspec

from ..market.number import is_integer
from ..quirks.shape import JsonObject
from .dialect import Complaint, Request
from .subscription import Options
from .v1_orders import EVENTS
from .v1_orders import order as order

CHANNELS: tuple[str, ...] = ("openOrders", "ownTrades")

_PUBLIC = ("ticker", "ohlc", "trade", "book", "spread")
_TOP_FIELDS = {"event", "reqid", "pair", "subscription"}
_FIELDS = {"name", "token", "ratecounter", "snapshot", "consolidate_taker", "rebased"}
_MAX_REQID = 2**64
_encode = msgspec.json.encode


def status(connection_id: int, state: str) -> bytes:
    """Return the greeting, with the engine's state."""
    return _encode({"connectionID": connection_id, "event": "systemStatus", "status": state, "version": "1.9.6"})


def status_changed(connection_id: int, state: str) -> bytes:
    """Return the frame for a change of the engine's state: the same as the greeting."""
    return status(connection_id, state)


def heartbeat() -> bytes:
    return b'{"event":"heartbeat"}'


def pong(request: Request, now: float) -> bytes:
    return _encode({"event": "pong", **_reqid(request.reqid)})


def subscribed(request: Request, channel: str, limit: int, now: float) -> bytes:
    """Return the positive ack; only openOrders has the engine counter's limit."""
    subscription: JsonObject = {"maxratecount": limit} if channel == "openOrders" else {}
    return _subscription_status("subscribed", channel, request.reqid, subscription)


def unsubscribed(channel: str, now: float, reqid: object = None) -> bytes:
    """Return the ack of an unsubscribe or, without a reqid, the frame for the server's own decision."""
    return _subscription_status("unsubscribed", channel, reqid, {})


def refused(request: Request, text: str, now: float) -> bytes:
    """Return a negative answer; the socket stays open after it."""
    if request.kind == "order":
        answer = {"errorMessage": text, "event": f"{request.event}Status", **_reqid(request.reqid)}
        return _encode({**answer, "status": "error"})
    return _refusal(text, request.reqid, request.echo)


def rate_exceeded(request: Request | None, variant: str, now: float) -> bytes:
    """Return `Exceeded msg rate` in one of the three shapes that were seen: error, status, bare."""
    text = "Exceeded msg rate"
    reqid = _reqid(request.reqid if request else None)
    if variant == "bare":
        return _encode({"Error": text})
    if variant == "status":
        return _encode({"event": "subscriptionStatus", **reqid, "status": "error", "errorMessage": text})
    return _encode({"errorMessage": text, "event": "error", **reqid})


def unknown(variant: str) -> bytes:
    """Return a well-formed frame of a kind that no client knows."""
    if variant == "channel":
        return b'[[{"NAAAAA-BBBBB-CCCCCC":{"note":"new"}}],"ownNotes",{"sequence":1}]'
    return b'{"event":"notice","text":"something new","level":1}'


def big(size: int) -> bytes:
    """Return a well-formed control frame of about that many bytes."""
    return b'{"event":"notice","text":"' + b"x" * size + b'"}'


def parse(text: bytes, now: float) -> Request | Complaint:
    """Parse a client's frame; a wrong one becomes a Complaint."""
    try:
        message: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _complain("Malformed request")
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        return _complain("Malformed request")
    reqid = message.get("reqid")
    # 0 is acknowledged, although the error's text says "positive".
    if "reqid" in message and not (is_integer(reqid) and 0 <= reqid < _MAX_REQID):
        return _complain("Reqid field must be a positive integer less than 18446744073709551616")
    event = message["event"]
    if event == "ping":
        return Request("ping", event, reqid)
    if event in EVENTS:
        return Request("order", event, reqid, token=str(message.get("token", "")), message=message)
    if event not in ("subscribe", "unsubscribe"):
        return _complain("Event(s) not found", reqid)
    return _parse_subscription(event, reqid, message)


def _parse_subscription(event: str, reqid: int | None, message: dict[str, Any]) -> Request | Complaint:
    for field in message:
        if field not in _TOP_FIELDS:
            return _complain(f"Unsupported field: '{field}' for the given msg type: {event}", reqid)
    if "subscription" not in message:
        return _complain("Malformed request", reqid)
    subscription = message["subscription"]
    if not isinstance(subscription, dict):
        return Complaint(_refusal("Subscription field must be an object", reqid, None))
    problem = _problem(event, message, subscription)
    if problem == "Malformed request":
        return _complain(problem, reqid)
    if problem:
        return Complaint(_refusal(problem, reqid, subscription))
    name = subscription["name"]
    return Request(
        "subscribe" if event == "subscribe" else "unsubscribe",
        event,
        reqid,
        channels=CHANNELS if name == "*" else (name,),
        token=str(subscription.get("token", "")),
        options=Options(
            snapshot=_flag(subscription.get("snapshot", True)),
            ratecounter=_flag(subscription.get("ratecounter", False)),
        ),
        echo=subscription,
    )


def _problem(event: str, message: dict[str, Any], subscription: dict[str, Any]) -> str:
    name = subscription.get("name")
    if name in _PUBLIC:  # with their pairs and, as usual, without a token
        return "Public channels not available in this endpoint"
    if name is None or (event == "subscribe" and "token" not in subscription):
        return "Malformed request"
    if name not in CHANNELS and not (name == "*" and event == "unsubscribe"):
        return "Subscription name invalid"
    if "pair" in message:
        return "Pair field unsupported for this subscription type"
    flags = [subscription[field] for field in _FIELDS - {"name", "token"} if field in subscription]
    if set(subscription) - _FIELDS:
        return "Subscription object unsupported field"
    if any(value not in (True, False, "true", "false") for value in flags):
        return "EGeneral:Invalid arguments"
    return ""


def _flag(value: object) -> bool:
    """Return a flag's value. One sample of the docs shows the string `"true"`, so both types are accepted."""
    return value in (True, "true")


def _reqid(reqid: object) -> JsonObject:
    return {} if reqid is None else {"reqid": reqid}


def _subscription_status(state: str, channel: str, reqid: object, subscription: JsonObject) -> bytes:
    return _encode(
        {
            "channelName": channel,
            "event": "subscriptionStatus",
            **_reqid(reqid),
            "status": state,
            "subscription": {**subscription, "name": channel},
        }
    )


def _refusal(text: str, reqid: object, echo: object) -> bytes:
    """Return an error status. The echoed subscription holds the token, as on the real host."""
    answer = {"errorMessage": text, "event": "subscriptionStatus", **_reqid(reqid), "status": "error"}
    if isinstance(echo, dict):
        answer["subscription"] = {key: echo[key] for key in ("name", "token") if key in echo}
    return _encode(answer)


def _complain(text: str, reqid: int | None = None) -> Complaint:
    return Complaint(_encode({"errorMessage": text, "event": "error", **_reqid(reqid)}))
