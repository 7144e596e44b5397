"""A client of the simulated exchange, in memory: signs REST calls by itself, parses what a peer sends."""

import base64
import hashlib
import hmac
import json
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import urlencode

import msgspec

from kraken_feed.simulator.exchange import Exchange, Refused
from kraken_feed.simulator.rest.reply import Reply
from kraken_feed.simulator.wire.outgoing import Text

from .repository import FRAMES

T0 = 1_760_000_000.0


def frame(name: str) -> bytes:
    """The bytes of a frame that was recorded; see tests/frames/README.md."""
    return bytes(msgspec.json.decode((FRAMES / f"{name}.json").read_bytes(), type=dict[str, msgspec.Raw])["frame"])


def sign(secret: str, path: str, nonce: str, body: bytes) -> str:
    """`API-Sign`, written down a second time so that the exchange is not its own witness."""
    inner = hashlib.sha256(nonce.encode() + body).digest()
    return base64.b64encode(hmac.digest(base64.b64decode(secret), path.encode() + inner, "sha512")).decode()


class Account:
    """REST calls with one key; the nonce goes up by one each time."""

    def __init__(self, exchange: Exchange, key: str | None = None, secret: str | None = None) -> None:
        self.exchange = exchange
        self.key = key or exchange.key
        self.secret = secret or exchange.secret
        known = exchange.keys.get(self.key)
        self.nonce = 0 if known is None else max(known.nonce, 0)

    def raw(self, name: str, now: float, **params: str) -> Reply:
        self.nonce += 1
        body = urlencode({"nonce": str(self.nonce), **params}).encode()
        path = f"/0/private/{name}"
        headers = {"API-Key": self.key, "API-Sign": sign(self.secret, path, str(self.nonce), body)}
        return self.exchange.rest("POST", path, headers, body, now)

    def call(self, name: str, now: float, **params: str) -> Any:
        return json.loads(self.raw(name, now, **params).body)

    def result(self, name: str, now: float, **params: str) -> Any:
        answer = self.call(name, now, **params)
        assert not any(text.startswith("E") for text in answer["error"])
        return answer["result"]

    def error(self, name: str, now: float, **params: str) -> str:
        (text,) = self.call(name, now, **params)["error"]
        return str(text)

    def token(self, now: float) -> str:
        return str(self.result("GetWebSocketsToken", now)["token"])


class Tap:
    """One connection: what it was sent, as bytes and parsed."""

    def __init__(self, exchange: Exchange, dialect: Literal["v1", "v2"], now: float) -> None:
        peer = exchange.connect(dialect, now)
        if isinstance(peer, Refused):
            raise ConnectionRefusedError(peer.status)
        self.exchange = exchange
        self.peer = peer
        self.dialect = dialect

    def send(self, message: object, now: float) -> None:
        self.peer.receive(json.dumps(message).encode(), now)

    def subscribe(self, channel: str, token: str, now: float, **options: object) -> None:
        if self.dialect == "v1":
            subscription = {"name": channel, "token": token, **options}
            self.send({"event": "subscribe", "reqid": 1, "subscription": subscription}, now)
        else:
            params = {"channel": channel, "token": token, **options}
            self.send({"method": "subscribe", "req_id": 1, "params": params}, now)

    def bytes(self) -> list[bytes]:
        """The text frames since the last call."""
        return [message.data for message in self.peer.outgoing() if isinstance(message, Text)]

    def frames(self) -> list[Any]:
        """The same, parsed; numbers with a fraction as Decimal."""
        return [json.loads(text, parse_float=Decimal) for text in self.bytes()]

    def ask(self, message: object, now: float) -> Any:
        """The one answer to a message."""
        self.frames()
        self.send(message, now)
        (answer,) = self.frames()
        return answer


def quiet(**options: Any) -> Exchange:
    """An exchange on which nothing happens by itself."""
    return Exchange(now=T0, seed=1, **{"rate": 0.0, **options})


def opened(exchange: Exchange, dialect: Literal["v1", "v2"], *channels: str, now: float = T0, **options: object) -> Tap:
    """A connection with these subscriptions, everything up to now already read."""
    account = Account(exchange, *_fresh(exchange, now))
    tap = Tap(exchange, dialect, now)
    token = account.token(now)
    for channel in channels:
        tap.subscribe(channel, token, now, **options)
    tap.frames()
    return tap


def _fresh(exchange: Exchange, now: float) -> tuple[str, str]:
    """A key of its own, so that counters and nonces of a test stay untouched."""
    key = exchange.add_key(now=now)
    return key.key, key.secret
