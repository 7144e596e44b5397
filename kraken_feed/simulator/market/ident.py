"""Make ids in Kraken's format: `OAAAAA-BBBBB-CCCCCC` and the like, unique within one exchange."""

import base64
from random import Random

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_LETTERS = ALPHABET.encode() * 8  # for each byte one, all equally likely
_CONNECTION_FLOOR = 2**63  # above every signed 64-bit integer, as on the real hosts


class Idents:
    """Draws ids from one generator and never the same one twice."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._seen: set[str] = set()

    def transaction(self, prefix: str) -> str:
        """Return an order (`O`), trade (`T`) or ledger (`L`) id."""
        while True:
            text = self._rng.randbytes(16).translate(_LETTERS).decode()
            ident = f"{prefix}{text[:5]}-{text[5:10]}-{text[10:]}"
            if ident not in self._seen:
                self._seen.add(ident)
                return ident


def connection_id(rng: Random) -> int:
    """Return a 64-bit id above 2**63, so that parsers that use doubles or signed integers fail."""
    return _CONNECTION_FLOOR + rng.randrange(2**63)


def secret(rng: Random) -> str:
    """Return an API secret: base64 of 64 bytes."""
    return base64.b64encode(rng.randbytes(64)).decode()


def public_key(rng: Random) -> str:
    """Return an API key: 56 characters of base64."""
    return base64.b64encode(rng.randbytes(42)).decode()


def token(rng: Random) -> str:
    """Return a WebSocket token: 43 characters of base64, `+` and `/` among them."""
    return base64.b64encode(rng.randbytes(32)).decode().rstrip("=")
