"""Answer one REST request with one reply, with Kraken's checks in Kraken's order.

Sources: https://docs.kraken.com/api/docs/guides/spot-rest-auth , …/spot-rest-ratelimits , …/spot-errors
"""

import math
from collections import deque
from collections.abc import Mapping
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from ..access.key import ApiKey, signed
from ..market.stamp import http_date
from ..quirks.shape import errors
from ..world import World
from . import private, public
from .call import Call, RestError
from .reply import Reply, failure, faulty, success

PRIVATE, PUBLIC = "/0/private/", "/0/public/"
LOCKOUT_AFTER = 10  # bad keys, nonces or signatures within a minute …
LOCKOUT_WINDOW_S = 60.0
LOCKOUT_S = 900.0  # … and the key is locked for a quarter of an hour
CALLER = "127.0.0.1"  # the address of every client
_FAULTS = ("http_502", "http_429", "http_403", "rest_timeout", "rest_error")
_BURNING = ("EAPI:Invalid key", "EAPI:Invalid signature", "EAPI:Invalid nonce")


class RestApi:
    """Answers requests from the world's state."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._failures: dict[str, deque[float]] = {}
        self._locked: dict[str, float] = {}

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        """Answer one request. The reply's Date is the exchange's clock, also on errors."""
        reply = self._handle(method, path, headers, body, now)
        date = http_date(self._world.shown_time(now))
        return replace(reply, headers={"Date": date, **reply.headers})

    def _handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        route, _, query = path.partition("?")
        name = route.rsplit("/", 1)[-1]
        spoiled = self._fault(name, now)
        if spoiled is not None and not spoiled.delay:
            return spoiled
        delay = 0.0 if spoiled is None else spoiled.delay
        low = {key.lower(): value for key, value in headers.items()}
        try:
            if route.startswith(PUBLIC):
                result = public.answer(self._world, name, dict(parse_qsl(query)), now)
            elif route.startswith(PRIVATE) and method == "POST" and name in private.METHODS:
                result = self._private(name, route, low, body, now)
            else:
                raise RestError("EGeneral:Unknown method")
        except RestError as error:
            return failure(str(error), delay)
        return success(result, errors(self._world.quirks), delay)

    def _private(self, name: str, route: str, headers: Mapping[str, str], body: bytes, now: float) -> object:
        world = self._world
        if world.status == "maintenance":
            raise RestError("EService:Unavailable")
        key_name = headers.get("api-key", "")
        if self._locked.get(key_name, -math.inf) > now:
            raise RestError("EGeneral:Temporary lockout")
        try:
            key, params = self._authenticate(key_name, route, headers, body, now)
        except RestError as error:
            self._burn(key_name, str(error), now)
            raise
        key.last_used = now
        if key.otp is not None and params.get("otp") != key.otp:
            raise RestError("EGeneral:Permission denied")
        if not key.counter.call(private.cost(name, world.quirks), world.tier.rest_limit, now):
            raise RestError("EAPI:Rate limit exceeded")
        return private.answer(Call(world, key, name, params, now))

    def _authenticate(
        self, key_name: str, route: str, headers: Mapping[str, str], body: bytes, now: float
    ) -> tuple[ApiKey, dict[str, str]]:
        key = self._world.keys.get(key_name)
        if key is None or key.limits.expired(now) or not key.limits.admit(CALLER):
            raise RestError("EAPI:Invalid key")
        params = _params(headers.get("content-type", ""), body)
        nonce = params.get("nonce", "")
        if not signed(key.secret, route, nonce, body, headers.get("api-sign", "")):
            raise RestError("EAPI:Invalid signature")
        if not (nonce.isascii() and nonce.isdigit() and int(nonce) < 2**64 and key.accept(int(nonce))):
            raise RestError("EAPI:Invalid nonce")
        return key, params

    def _burn(self, key_name: str, error: str, now: float) -> None:
        """Count a failed authentication; too many of them lock the key out."""
        if error not in _BURNING:
            return
        failures = self._failures.setdefault(key_name, deque(maxlen=LOCKOUT_AFTER))
        failures.append(now)
        if len(failures) == LOCKOUT_AFTER and now - failures[0] < LOCKOUT_WINDOW_S:
            self._locked[key_name] = now + LOCKOUT_S
            failures.clear()

    def _fault(self, name: str, now: float) -> Reply | None:
        token = self._world.token_calls if name == "GetWebSocketsToken" else None
        for kind in _FAULTS:
            fault = self._world.schedule.take(kind, now, method=name, token=token)
            if fault is not None:
                self._world.ledger.struck(kind, now)
                return faulty(fault)
        return None


def _params(content_type: str, body: bytes) -> dict[str, str]:
    """Return the body's fields as text, from a form or from JSON."""
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
