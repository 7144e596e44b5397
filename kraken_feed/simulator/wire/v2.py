"""Speak the v2 dialect: control messages and requests. The feeds are in `v2_feed`.

Sources: https://docs.kraken.com/api/docs/websocket-v2/executions , …/balances , …/status , …/ping
"""

from collections.abc import Mapping, Set
from typing import Any

import msgspec

from ..market.number import is_integer
from ..market.stamp import rfc3339
from ..quirks.shape import JsonObject
from .dialect import Complaint, Request
from .subscription import Options
from .v2_orders import METHODS
from .v2_orders import order as order

CHANNELS: tuple[str, ...] = ("executions", "balances")

_TOP_FIELDS = {"method", "params", "req_id"}
_FLAGS = {
    "executions": {
        "snap_orders", "snap_trades", "order_status", "ratecounter", "rebased", "consolidate_taker",
        "snapshot", "snapshot_trades",
    },
    "balances": {"snapshot", "rebased"},
}  # fmt: skip
_WARNINGS = (
    "cancel_reason is deprecated, use reason",
    "stop_price is deprecated, use triggers.price",
    "trigger is deprecated use triggers.reference",
    "triggered_price is deprecated use triggers.last_price",
)
_UNREADABLE = "error"  # the method in the answer to a request whose own could not be read
_HANDLING_S = 0.000123  # seconds that an answer takes
_encode = msgspec.json.encode


def status(connection_id: int, state: str) -> bytes:
    """Return the greeting, with the engine's state."""
    data = {"version": "2.0.10", "system": state, "api_version": "v2", "connection_id": connection_id}
    return _encode({"channel": "status", "type": "update", "data": [data]})


def status_changed(connection_id: int, state: str) -> bytes:
    """Return the frame for a change of the engine's state: without the id, and with its type after its data."""
    data = {"api_version": "v2", "system": state, "version": "2.0.10"}
    return _encode({"channel": "status", "data": [data], "type": "update"})


def heartbeat() -> bytes:
    return b'{"channel":"heartbeat"}'


def pong(request: Request, now: float) -> bytes:
    return _encode({"method": "pong", **_req_id(request.reqid), **_times(now)})


def subscribed(request: Request, channel: str, limit: int, now: float) -> bytes:
    """Return the positive ack; it repeats the accepted parameters."""
    options = request.options
    result: JsonObject
    if channel == "executions":
        result = {
            "channel": channel,
            "maxratecount": limit,
            "snap_orders": options.snap_orders,
            "snap_trades": options.snap_trades,
            "snapshot": options.snap_orders or options.snap_trades,
            "warnings": _WARNINGS,
        }
    else:
        result = {"channel": channel, "snapshot": options.snapshot}
    return _success("subscribe", request.reqid, result, now)


def unsubscribed(channel: str, now: float, reqid: object = None) -> bytes:
    """Return the ack of an unsubscribe or, without a req_id, the frame for the server's own decision."""
    return _success("unsubscribe", reqid, {"channel": channel}, now)


def refused(request: Request, text: str, now: float) -> bytes:
    """Return a negative answer. It names no channel, and the socket stays open after it."""
    return _failure(request.event, request.reqid, text, now)


def rate_exceeded(request: Request | None, variant: str, now: float) -> bytes:
    """Return `Exceeded msg rate`: an error without a method, an ack (status, as recorded), or bare."""
    text = "Exceeded msg rate"
    if variant == "bare":
        return _encode({"error": text})
    if variant == "status" and request is not None:
        return _failure(request.event, request.reqid, text, now)
    return _failure(_UNREADABLE, request.reqid if request else None, text, now)


def unknown(variant: str) -> bytes:
    """Return a well-formed frame of a kind that no client knows."""
    if variant == "channel":
        return b'{"channel":"notes","type":"update","data":[{"note":"new"}],"sequence":1}'
    return b'{"method":"notice","result":{"text":"something new"},"success":true}'


def big(size: int) -> bytes:
    """Return a well-formed frame of about that many bytes, on a channel that no client knows."""
    return b'{"channel":"notes","type":"update","data":[{"note":"' + b"x" * size + b'"}]}'


def parse(text: bytes, now: float) -> Request | Complaint:
    """Parse a client's frame; a wrong one becomes a Complaint."""
    try:
        message: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Complaint(_failure(_UNREADABLE, None, "Malformed request", now))
    if not isinstance(message, dict):
        return Complaint(_failure(_UNREADABLE, None, "Malformed request", now))
    method, reqid = message.get("method"), message.get("req_id")
    if not isinstance(method, str) or not (reqid is None or (is_integer(reqid) and 0 <= reqid < 2**64)):
        return Complaint(_failure(_UNREADABLE, None, "Malformed request", now))
    if method == "ping":
        unsupported = _unsupported(method, message, _TOP_FIELDS - {"params"})
        return Complaint(_failure(method, reqid, unsupported, now)) if unsupported else Request("ping", method, reqid)
    if method in METHODS:
        params = message.get("params")
        token = params.get("token", "") if isinstance(params, dict) else ""
        return Request("order", method, reqid, token=str(token), message=message)
    if method not in ("subscribe", "unsubscribe"):
        return Complaint(_failure(method, reqid, "Unsupported event", now))
    problem = _problem(method, message)
    if problem:
        return Complaint(_failure(method, reqid, problem, now))
    return _request(method, reqid, message["params"])


def _request(method: str, reqid: int | None, params: dict[str, Any]) -> Request:
    options = Options(
        snapshot=params.get("snapshot", True),
        snap_orders=params.get("snap_orders", params.get("snapshot", True)),
        snap_trades=params.get("snap_trades", params.get("snapshot_trades", False)),
        order_status=params.get("order_status", True),
        ratecounter=params.get("ratecounter", False),
        all_users=params.get("users") == "all",
    )
    return Request(
        "subscribe" if method == "subscribe" else "unsubscribe",
        method,
        reqid,
        channels=(params["channel"],),
        token=params.get("token", ""),
        options=options,
    )


def _problem(method: str, message: dict[str, Any]) -> str:
    params = message.get("params")
    if unsupported := _unsupported(method, message, _TOP_FIELDS):
        return unsupported
    if not isinstance(params, dict) or not isinstance(params.get("channel"), str):
        return "Malformed request"
    channel = params["channel"]
    if channel not in CHANNELS:
        return "Subscription name invalid"
    if unsupported := _unsupported(method, params, _FLAGS[channel] | {"channel", "token", "users"}):
        return unsupported
    for field, value in params.items():
        wrong = not isinstance(value, bool) if field in _FLAGS[channel] else not isinstance(value, str)
        if wrong or (field == "users" and value != "all"):
            return f"EGeneral:Invalid arguments:{field}"
    if method == "subscribe" and not params.get("token"):
        return "Token(s) not found"
    return ""


def _unsupported(method: str, given: Mapping[str, object], known: Set[str]) -> str:
    """Return the complaint about the first unknown field; empty if there is none."""
    for field in given:
        if field not in known:
            return f"Unsupported field: '{field}' for the given msg type: {method}"
    return ""


def _req_id(reqid: object) -> JsonObject:
    return {} if reqid is None else {"req_id": reqid}


def _times(now: float) -> JsonObject:
    return {"time_in": rfc3339(now), "time_out": rfc3339(now + _HANDLING_S)}


def _success(method: str, reqid: object, result: JsonObject, now: float) -> bytes:
    return _encode({"method": method, **_req_id(reqid), "result": result, "success": True, **_times(now)})


def _failure(method: str, reqid: object, text: str, now: float) -> bytes:
    """Return a failure. Only the refusal of a session was seen with a status beside its success."""
    status = {"status": "error"} if text == "ESession:Invalid session" else {}
    named = {"error": text, "method": method, **_req_id(reqid)}
    return _encode({**named, **status, "success": False, **_times(now)})
