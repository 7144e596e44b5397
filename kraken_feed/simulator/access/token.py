"""Issue WebSocket tokens: valid for 15 minutes until used, then as long as the connection that used them."""

from collections.abc import Set
from dataclasses import dataclass, field
from random import Random

from ..market.ident import token
from .key import ApiKey

LIFETIME_S = 900.0  # the `expires` that REST announces


@dataclass
class _Token:
    key: ApiKey
    expires: float
    connections: set[int] = field(default_factory=set)  # the connections that used it


class Tokens:
    """All tokens that the exchange has issued."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._tokens: dict[str, _Token] = {}

    def issue(self, key: ApiKey, now: float, lifetime: float = LIFETIME_S) -> str:
        """Return a new token; older ones stay valid."""
        value = token(self._rng)
        self._tokens[value] = _Token(key, now + lifetime)
        return value

    def owner(self, value: str) -> ApiKey | None:
        """Return the key that the token was issued to, whether or not it is valid."""
        known = self._tokens.get(value)
        return None if known is None else known.key

    def redeem(
        self, value: str, connection_id: int, now: float, opened: Set[int], subscribed: Set[int]
    ) -> ApiKey | str:
        """Return the key behind the token, or the error text.

        A token that a connection has used becomes invalid with it: a client must fetch a new one after a drop.
        """
        known = self._tokens.get(value)
        if known is None:
            return "EAPI:Invalid token"
        held = known.connections & subscribed
        fresh = now < known.expires and (not known.connections or known.connections & opened)
        if not (held or fresh):
            return "ESession:Invalid session"
        known.connections.add(connection_id)
        return known.key
