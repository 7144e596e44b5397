"""API keys: what they may do, and the proof that a request was signed with one.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-auth
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from kraken_feed.simulator.counter import Counter

READ_PERMISSIONS = (
    "query-funds",
    "query-open-trades",
    "query-closed-trades",
    "query-ledger",
    "create-ws-token",
)


@dataclass
class ApiKey:
    """One key and what the server remembers of it."""

    key: str
    secret: str
    counter: Counter
    permissions: tuple[str, ...] = READ_PERMISSIONS
    otp: str | None = None
    nonce: int = -1  # the highest one accepted
    last_used: float = 0.0
    created: float = field(default=0.0)


def signature(secret: str, path: str, nonce: str, body: bytes) -> str:
    """What `API-Sign` must be for these exact bytes."""
    inner = hashlib.sha256(nonce.encode() + body).digest()
    mac = hmac.new(base64.b64decode(secret), path.encode() + inner, hashlib.sha512)
    return base64.b64encode(mac.digest()).decode()


def signed(secret: str, path: str, nonce: str, body: bytes, given: str) -> bool:
    """Whether the signature that was given is the right one."""
    expected = signature(secret, path, nonce, body)
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
