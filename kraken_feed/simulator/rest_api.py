"""The REST side: one request in, one reply out, with Kraken's checks in Kraken's order.

Sources: https://docs.kraken.com/api/docs/guides/spot-rest-auth , …/spot-rest-ratelimits , …/spot-errors
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kraken_feed.simulator import rest_private, rest_public
from kraken_feed.simulator.fault import Fault
from kraken_feed.simulator.key import ApiKey, signed
from kraken_feed.simulator.rest_private import Call, RestError
from kraken_feed.simulator.shape import errors
from kraken_feed.simulator.stamp import http_date

if TYPE_CHECKING:
    from kraken_feed.simulator.exchange import Exchange

PRIVATE, PUBLIC = "/0/private/", "/0/public/"
LOCKOUT_AFTER = 10  # bad keys, nonces or signatures within a minute …
LOCKOUT_WINDOW_S = 60.0
LOCKOUT_S = 900.0  # … and the key is locked for a quarter of an hour
CALLER = "127.0.0.1"  # where every client is
_CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Cloudflare</body></html>"
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"
_BURNING = ("EAPI:Invalid key", "EAPI:Invalid signature", "EAPI:Invalid nonce")


class Reply(Struct, frozen=True):
    """An HTTP reply; it comes `delay` seconds late, or never (`hang`)."""

    status: int
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
    hang: bool = False


class RestApi:
    """Answers requests out of the exchange's state."""

    def __init__(self, exchange: "Exchange") -> None:
        self._exchange = exchange
        self._failures: dict[str, deque[float]] = {}
        self._locked: dict[str, float] = {}

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        """One request, one reply. Its Date is the exchange's clock, whatever else is wrong with it."""
        reply = self._handle(method, path, headers, body, now)
        date = http_date(self._exchange.shown_time(now))
        return replace(reply, headers={"Date": date, **reply.headers})

    def _handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        route, _, query = path.partition("?")
        name = route.rsplit("/", 1)[-1]
        faulty = self._fault(name, now)
        if faulty is not None and not faulty.delay:
            return faulty
        delay = 0.0 if faulty is None else faulty.delay
        low = {key.lower(): value for key, value in headers.items()}
        try:
            if route.startswith(PUBLIC):
                result = rest_public.answer(self._exchange, name, dict(parse_qsl(query)), now)
            elif route.startswith(PRIVATE) and method == "POST" and name in rest_private.METHODS:
                result = self._private(name, route, low, body, now)
            else:
                raise RestError("EGeneral:Unknown method")
        except RestError as error:
            return _json_error(str(error), delay)
        return _json(result, errors(self._exchange.quirks), delay)

    def _private(self, name: str, route: str, headers: Mapping[str, str], body: bytes, now: float) -> object:
        exchange = self._exchange
        if exchange.status == "maintenance":
            raise RestError("EService:Unavailable")
        given = headers.get("api-key", "")
        if self._locked.get(given, -math.inf) > now:
            raise RestError("EGeneral:Temporary lockout")
        try:
            key, params = self._authenticate(given, route, headers, body, now)
        except RestError as error:
            self._burn(given, str(error), now)
            raise
        key.last_used = now
        if key.otp is not None and params.get("otp") != key.otp:
            raise RestError("EGeneral:Permission denied")
        if not key.counter.call(rest_private.cost(name, exchange.quirks), exchange.tier.rest_limit, now):
            raise RestError("EAPI:Rate limit exceeded")
        return rest_private.answer(Call(exchange, key, name, params, now))

    def _authenticate(
        self, given: str, route: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> tuple[ApiKey, dict[str, str]]:
        key = self._exchange.keys.get(given)
        if key is None or key.limits.expired(now) or not key.limits.admit(CALLER):
            raise RestError("EAPI:Invalid key")
        params = _params(headers.get("content-type", ""), body)
        nonce = params.get("nonce", "")
        if not signed(key.secret, route, nonce, body, headers.get("api-sign", "")):
            raise RestError("EAPI:Invalid signature")
        if not (nonce.isascii() and nonce.isdigit() and int(nonce) < 2**64 and key.accept(int(nonce))):
            raise RestError("EAPI:Invalid nonce")
        return key, params

    def _burn(self, given: str, error: str, now: float) -> None:
        """Counts a failed proof; too many of them lock the key out."""
        if error not in _BURNING:
            return
        failures = self._failures.setdefault(given, deque(maxlen=LOCKOUT_AFTER))
        failures.append(now)
        if len(failures) == LOCKOUT_AFTER and now - failures[0] < LOCKOUT_WINDOW_S:
            self._locked[given] = now + LOCKOUT_S
            failures.clear()

    def _fault(self, name: str, now: float) -> Reply | None:
        token = self._exchange.token_calls if name == "GetWebSocketsToken" else None
        for kind in _FAULTS:
            fault = self._exchange.schedule.take(kind, now, method=name, token=token)
            if fault is not None:
                self._exchange.ledger.struck(kind, now)
                return _faulty(fault)
        return None


_FAULTS = ("http_502", "http_429", "http_403", "rest_timeout", "rest_error")


def _faulty(fault: Fault) -> Reply:
    html = {"Content-Type": "text/html; charset=UTF-8"}
    if fault.kind == "http_502":
        return Reply(502, html, _BAD_GATEWAY)
    if fault.kind == "http_403":
        return Reply(403, html, _CHALLENGE)
    if fault.kind == "http_429":
        seconds = 5 if fault.retry_after is None else fault.retry_after
        return Reply(429, {**html, "Retry-After": str(seconds)}, b"<html><body>Too Many Requests</body></html>")
    if fault.kind == "rest_timeout":
        return Reply(200, {}, b"", delay=fault.seconds or 0.0, hang=fault.seconds is None)
    return _json_error(fault.text or "EService:Unavailable", 0.0)


def _params(content_type: str, body: bytes) -> dict[str, str]:
    """The body's fields as text, from a form or from JSON."""
    try:
        if "json" not in content_type and not body.startswith(b"{"):
            return dict(parse_qsl(body.decode(), keep_blank_values=True))
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
        raise RestError("EAPI:Bad request") from exc
    if not isinstance(fields, dict):
        raise RestError("EAPI:Bad request")
    return {name: _text(value) for name, value in fields.items() if value is not None}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _json(result: object, errors: object, delay: float) -> Reply:
    body = msgspec.json.encode({"error": errors, "result": result})
    return Reply(200, {"Content-Type": "application/json"}, body, delay)


def _json_error(text: str, delay: float) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, msgspec.json.encode({"error": [text]}), delay)
