"""Classify Kraken's error strings: permanent, transient, throttled or locked out, and how long to wait.

Source of the strings: https://docs.kraken.com/api/docs/guides/spot-errors and
https://support.kraken.com/hc/en-us/articles/360001491786 ; strings that only clients have recorded are here too.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from ..errors import CredentialsRefused, FeedError, RequestRefused

Kind = Literal["permanent", "transient", "throttled", "locked_out"]

SERVICE_S = 5.0  # Kraken asks for at most one attempt in five seconds during maintenance
TOKEN_S = 1.0  # the token service can lag a deployment; 1–5 s is what clients wait
SLOW_RETRY_S = 5.0  # an Invalid key was seen spuriously during outages: one slow retry, never a loop
CALL_COUNTER_S = 15.0  # a Starter key's counter needs 45 s to drain; after 15 a history call fits again
EDGE_S = 60.0  # throttled at the edge: by address, not by key
AUTH_THROTTLE_S = 300.0  # "auth attempts throttled: back off minutes"
LOCKOUT_S = 900.0  # no calls at all for a quarter of an hour, then one

MAX_TEXT = 200  # characters that are read; a peer's text may be of any length


class Refusal(NamedTuple):
    """The meaning of one error string for a client that only reads.

    ``delay`` is in seconds. ``attempts`` is how many times in a row the string may come before it is final (``None``:
    never final, ``1``: at once). ``error`` is the class of the error that a final refusal raises.
    """

    kind: Kind
    delay: float = 0.0
    attempts: int | None = None
    error: type[FeedError] = RequestRefused
    meaning: str = ""

    def final(self, seen: int) -> bool:
        """Return whether the refusal is final after it came ``seen`` times in a row."""
        return self.attempts is not None and seen >= self.attempts

    def refuses(self, otherwise: str) -> str:
        """Return what is refused, in one word for people: the account, the key, or ``otherwise`` if it is neither.
        Return the empty text if Kraken only asks to wait."""
        if self.kind != "permanent":
            return ""
        if self.error is not CredentialsRefused:
            return otherwise
        return "account" if self in OF_ACCOUNT else "key"


def _refused(meaning: str, *, attempts: int = 1, delay: float = SLOW_RETRY_S) -> Refusal:
    return Refusal("permanent", delay, attempts, CredentialsRefused, meaning)


_DEFECT = Refusal("permanent", SERVICE_S, 1, RequestRefused, "Kraken calls this request malformed")
_SERVICE = Refusal("transient", SERVICE_S, meaning="Kraken's service or its matching engine is not available")
PERMISSION = _refused("the API key lacks a permission")
_SESSION = Refusal("transient", TOKEN_S, meaning="the WebSocket token is no longer valid")
_OPTION = Refusal("permanent", SERVICE_S, 1, RequestRefused, "Kraken does not accept this field (any more)")

NONCE = _refused(
    "the key was used with a higher nonce: by another program (perhaps with a clock ahead of this one), or before this "
    "machine's clock was set back",
    attempts=2,
    delay=TOKEN_S,
)

_LOCKED = _refused("the account is locked")
_UNCONFIRMED = _refused("the account is not verified")
_SUSPENDED = _refused("the account is suspended, locked, or not yet open for trading")
OF_ACCOUNT = (_LOCKED, _UNCONFIRMED, _SUSPENDED)  # no other key would help

# Refusals of order entry, and their meanings.
_ORDERS = {
    "EService:Deadline elapsed": "the deadline had passed before the order could be matched",
    "EOrder:Insufficient funds": "the account's free balance is too small for the order and its fees",
    "EOrder:Insufficient margin": "the account's free margin is too small for the order",
    "EOrder:Unknown order": "there is no such open order: it never existed, or it was filled, canceled or has expired",
    "EOrder:Invalid order": "the order is not open, or its parameters contradict each other",
    "EOrder:Invalid price": "the pair does not accept this price: too many decimals, or too far from the market",
    "EOrder:Tick size check failed": "the price is not a multiple of the pair's tick size",
    "EOrder:Order minimum not met": "the volume is below the pair's minimum (ordermin)",
    "EOrder:Cost minimum not met": "volume times price is below the pair's minimum (costmin)",
    "EOrder:Post only order": "the order is post-only, but would have taken liquidity",
    "EOrder:Orders limit exceeded": "the account has the maximum number of open orders in this pair",
    "EOrder:Positions limit exceeded": "the account has the maximum number of positions",
    "EOrder:Cannot open": "the account may not trade on margin here",
    "EOrder:Margin": "the account's margin limit is reached",
    "EOrder:Unknown position": "there is no such position",
    "EOrder:Reduce only:Non-PC": "the account is not certified for margin trading as a Permitted Client",
    "EOrder:Reduce only:No position exists": "the order is reduce-only, but there is no open position",
    "EOrder:Reduce only:Position is closed":
        "the order is reduce-only and larger than the position: a part can be filled, the rest is canceled",
    "EOrder:Reduce only": "Kraken does not accept the order as reduce-only",
    "EOrder:Scheduled orders limit exceeded":
        "the account has the maximum number of orders with a start time (starttm, effective_time)",
    "EOrder:": "Kraken does not accept the order, for a reason that this version does not know",
    "EBM:": "the request exceeds a limit of Kraken",
}  # fmt: skip

_DEFECTS = (
    "EAPI:Bad request", "EGeneral:Invalid arguments", "EGeneral:Unknown method", "EQuery:", "ETrade:",
    "EFunding:", "Subscription name invalid", "Subscription field must be an object", "Subscription", "Pair",
    "Currency pair", "Symbol", "Token(s) not found", "Event(s) not found", "Malformed request",
    "Reqid field must be",
)  # fmt: skip

# Longest prefix wins; prefixes are compared without regard to case and to blanks after a colon.
_TABLE: dict[str, Refusal] = {
    "EAPI:Invalid key": _refused(
        "the API key is unknown, disabled, expired, or not allowed from this address", attempts=2
    ),
    "EAPI:Invalid signature": _refused("the API secret does not belong to the key"),
    "EAPI:Invalid nonce": NONCE,
    "EAPI:Invalid token": _SESSION,
    "EAPI:Permission denied": PERMISSION,
    "EAPI:Feature disabled": _refused("the feature is switched off for this account"),
    "EAPI:Rate limit exceeded": Refusal(
        "throttled", CALL_COUNTER_S, meaning="the key's call counter is full; another program may use the key"
    ),
    "EAPI:": _refused("an answer about the key that this version does not know", attempts=2),
    "EGeneral:Permission denied": PERMISSION,
    "EGeneral:Temporary lockout": Refusal(
        "locked_out", LOCKOUT_S, meaning="too many refused calls: Kraken has locked the key or address for a while"
    ),
    "EGeneral:Too many requests": Refusal("throttled", EDGE_S, meaning="this address is throttled"),
    "EGeneral:Internal error": Refusal("transient", TOKEN_S, meaning="a fault at Kraken"),
    "EDatabase:Internal error": Refusal("transient", TOKEN_S, meaning="a fault at Kraken"),
    "EAuth:Account temporary disabled": _LOCKED,
    "EAuth:Account unconfirmed": _UNCONFIRMED,
    "EAuth:Failed": _refused("authentication failed"),
    "EAuth:Rate limit exceeded": Refusal("throttled", AUTH_THROTTLE_S, meaning="too many attempts to authenticate"),
    "EAuth:Too many requests": Refusal("throttled", AUTH_THROTTLE_S, meaning="too many attempts to authenticate"),
    "EAuth:": _refused("an answer about the account that this version does not know", attempts=2),
    "EAccount:Invalid permissions": _refused("the product is not available to this account or key"),
    "EAccount:": _refused("an answer about the account that this version does not know", attempts=2),
    "ESession:Invalid session": _SESSION,
    "ESession:": _SESSION,
    "EService:Throttled": Refusal("throttled", SERVICE_S, meaning="too many requests at a time"),
    "EService:Market in": _SERVICE._replace(meaning="the market does not accept such orders now: see Kraken's text"),
    "EService:": _SERVICE,
    "EOrder:Rate limit exceeded": Refusal("throttled", SERVICE_S, meaning="the engine's counter is full"),
    "EOrder:Domain rate limit exceeded": Refusal("throttled", SERVICE_S, meaning="the engine's counter is full"),
    **{prefix: Refusal("permanent", SERVICE_S, 1, RequestRefused, meaning) for prefix, meaning in _ORDERS.items()},
    "ETrade:User locked": _SUSPENDED,
    **dict.fromkeys(_DEFECTS, _DEFECT),
    # Plain texts of the WebSocket.
    "Already subscribed": Refusal("transient", meaning="the connection has a subscription that it should not have"),
    "Subscription Not Found": Refusal("transient", meaning="the connection lacks a subscription that it should have"),
    "Exceeded msg rate": Refusal("throttled", TOKEN_S, meaning="too many messages at a time"),
    "Subscription object unsupported field": _OPTION,
    "Unsupported field": _OPTION,
    "Public channels not available": Refusal(
        "permanent", SERVICE_S, 1, RequestRefused, "this is not the endpoint of the private feeds"
    ),
}
_UNKNOWN_TEXT = Refusal("permanent", SLOW_RETRY_S, 2, RequestRefused, "a refusal that this version does not know")
_UNKNOWN_CODE = Refusal("transient", TOKEN_S, meaning="an error that this version does not know")
UNKNOWN = (_UNKNOWN_TEXT, _UNKNOWN_CODE)  # the refusals on what the table does not have
_CODE = re.compile(r"e[a-z]+:")
_BY_LENGTH = sorted(((prefix.casefold(), refusal) for prefix, refusal in _TABLE.items()), key=lambda row: -len(row[0]))
_BLANKS = re.compile(r"\s*:\s*")


def normal(text: str) -> str:
    """Return the beginning of an error string in the form in which prefixes are compared."""
    return _BLANKS.sub(":", text[:MAX_TEXT].strip()).casefold()


def counter_full(text: str) -> bool:
    """Return whether the text means that the key's call counter is full."""
    return normal(text).startswith("eapi:rate limit exceeded")


def classify(text: str, unix_now: float) -> Refusal:
    """Return the refusal on one error string, from REST's ``error`` array or from an acknowledgement.

    ``EService:Throttled:<unix seconds>`` names the time to wait for; waits are capped at :data:`LOCKOUT_S`.
    """
    plain = normal(text)
    unknown = _UNKNOWN_CODE if _CODE.match(plain) else _UNKNOWN_TEXT
    prefix, refusal = next((row for row in _BY_LENGTH if plain.startswith(row[0])), ("", unknown))
    if prefix == "eservice:throttled":
        until = plain.rpartition(":")[2]
        if until.isascii() and until.isdigit() and len(until) < 16:
            return refusal._replace(delay=min(max(int(until) - unix_now, SERVICE_S), LOCKOUT_S))
    return refusal
