"""Keep API keys: their permissions, the limits of their use, and the proof that a request was signed with one.

Sources: https://docs.kraken.com/api/docs/guides/spot-rest-auth ,
https://docs.kraken.com/api/docs/rest-api/get-api-key-info
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

from msgspec import Struct

from ..market.account import Account
from ..market.counter import Counter

# All permissions of a key, in the documented order.
PERMISSIONS = (
    "query-funds", "add-funds", "withdraw-funds", "earn-funds", "query-open-trades", "query-closed-trades",
    "modify-trades", "close-trades", "query-ledger", "export-data", "create-ws-token", "add-withdraw-address",
    "update-withdraw-address",
)  # fmt: skip
READ_PERMISSIONS = ("query-funds", "query-open-trades", "query-closed-trades", "query-ledger", "create-ws-token")

TRADING_PERMISSIONS = ("modify-trades", "close-trades")


class Limits(Struct, frozen=True):
    """The limits of a key besides its permissions, as its owner set them. Times are unix seconds; 0 is no limit."""

    valid_until: int = 0
    query_from: int = 0
    query_to: int = 0
    nonce_window: int = 0  # in the client's unit
    ip_allowlist: tuple[str, ...] = ()  # addresses or networks; empty: any

    def __post_init__(self) -> None:
        for text in self.ip_allowlist:
            ip_network(text)  # raises ValueError

    def admit(self, address: str) -> bool:
        """Return whether a call may come from this address."""
        return not self.ip_allowlist or any(ip_address(address) in ip_network(text) for text in self.ip_allowlist)

    def expired(self, now: float) -> bool:
        return 0 < self.valid_until <= now

    def shows(self, moment: float) -> bool:
        """Return whether the history of that moment may be read."""
        return self.query_from <= moment and (not self.query_to or moment <= self.query_to)


NO_LIMITS = Limits()


@dataclass
class ApiKey:
    """One key, and the server's memory of it."""

    key: str
    secret: str
    counter: Counter
    account: Account
    permissions: tuple[str, ...] = READ_PERMISSIONS
    otp: str | None = None
    limits: Limits = NO_LIMITS
    nonce: int = -1  # the highest one accepted
    last_used: float = 0.0
    created: float = field(default=0.0)
    _used: set[int] = field(default_factory=set)  # the nonces within the window

    def accept(self, nonce: int) -> bool:
        """Use up a nonce, and return whether it is valid: above all others, or unused and within the window below."""
        window = self.limits.nonce_window
        if nonce <= self.nonce - window - 1 or nonce in self._used:
            return False
        self.nonce = max(self.nonce, nonce)
        self._used = {used for used in self._used if used >= self.nonce - window} | {nonce}
        return True


def signature(secret: str, path: str, nonce: str, body: bytes) -> str:
    """Return the right `API-Sign` for these exact bytes."""
    inner = hashlib.sha256(nonce.encode() + body).digest()
    mac = hmac.new(base64.b64decode(secret), path.encode() + inner, hashlib.sha512)
    return base64.b64encode(mac.digest()).decode()


def signed(secret: str, path: str, nonce: str, body: bytes, claimed: str) -> bool:
    """Return whether the given signature is the right one."""
    expected = signature(secret, path, nonce, body)
    return hmac.compare_digest(expected.encode(), claimed.encode("utf-8", "replace"))
