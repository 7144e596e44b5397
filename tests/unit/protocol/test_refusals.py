"""Every error string that Kraken is known to send, and what it means for a client that only reads."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.errors import CredentialsRefused, FeedError, RequestRefused
from kraken_feed.protocol import refusals
from kraken_feed.protocol.permissions import needed_for
from kraken_feed.protocol.refusals import Kind, classify

from ...support.cases import each
from ...support.examples import examples

NOW = 1_760_000_000.0
NEVER = None

Row = tuple[str, Kind, int | None, type[FeedError], float, float]

# String, kind, how many in a row are final (None: none is), the error of the final one, least and longest delay.
# fmt: off
TABLE: list[Row] = [
    # Authentication, permission, session
    ("EAPI:Invalid key", "permanent", 2, CredentialsRefused, 5, 60),
    ("EAPI:Invalid signature", "permanent", 1, CredentialsRefused, 0, 60),
    ("EAPI:Invalid nonce", "permanent", 2, CredentialsRefused, 0, 60),
    ("EAPI:Invalid token", "transient", NEVER, RequestRefused, 1, 5),
    ("EAPI:Bad request", "permanent", 1, RequestRefused, 0, 60),
    ("EAPI:Permission denied", "permanent", 1, CredentialsRefused, 0, 60),
    ("EGeneral:Permission denied", "permanent", 1, CredentialsRefused, 0, 60),
    ("EAPI:Feature disabled", "permanent", 1, CredentialsRefused, 0, 60),
    ("EGeneral:Temporary lockout", "locked_out", NEVER, RequestRefused, 900, 3600),
    ("EAuth:Account temporary disabled", "permanent", 1, CredentialsRefused, 0, 60),
    ("EAuth:Account unconfirmed", "permanent", 1, CredentialsRefused, 0, 60),
    ("EAuth:Rate limit exceeded", "throttled", NEVER, RequestRefused, 120, 900),
    ("EAuth:Too many requests", "throttled", NEVER, RequestRefused, 120, 900),
    ("EAccount:Invalid permissions", "permanent", 1, CredentialsRefused, 0, 60),
    ("ESession:Invalid session", "transient", NEVER, RequestRefused, 1, 5),
    ("EAuth:Failed", "permanent", 1, CredentialsRefused, 0, 60),
    # Throttling
    ("EAPI:Rate limit exceeded", "throttled", NEVER, RequestRefused, 5, 60),
    ("EGeneral:Too many requests", "throttled", NEVER, RequestRefused, 60, 900),
    ("EService:Throttled", "throttled", NEVER, RequestRefused, 1, 60),
    ("EService:Throttled:1760000123", "throttled", NEVER, RequestRefused, 123, 123),
    ("EOrder:Rate limit exceeded", "throttled", NEVER, RequestRefused, 1, 60),
    ("EOrder:Domain rate limit exceeded", "throttled", NEVER, RequestRefused, 1, 60),
    ("EOrder:Orders limit exceeded", "permanent", 1, RequestRefused, 0, 60),
    ("EBM:limit exceeded:CAL", "permanent", 1, RequestRefused, 0, 60),
    ("Exceeded msg rate", "throttled", NEVER, RequestRefused, 1, 60),
    # State of the service
    ("EService:Unavailable", "transient", NEVER, RequestRefused, 5, 10),
    ("EService:Busy", "transient", NEVER, RequestRefused, 1, 10),
    ("EService:Deadline elapsed", "permanent", 1, RequestRefused, 0, 60),
    ("EService:Market in cancel_only mode", "transient", NEVER, RequestRefused, 1, 10),
    ("EService:Market in post_only mode", "transient", NEVER, RequestRefused, 1, 10),
    ("EService:Market in limit_only mode", "transient", NEVER, RequestRefused, 1, 10),
    ("EService:Timeout", "transient", NEVER, RequestRefused, 1, 10),
    ("EService:Something new", "transient", NEVER, RequestRefused, 1, 10),
    ("EGeneral:Internal error", "transient", NEVER, RequestRefused, 1, 10),
    ("EGeneral:Internal error:1760000123", "transient", NEVER, RequestRefused, 1, 10),
    ("EDatabase:Internal error", "transient", NEVER, RequestRefused, 1, 10),
    # Arguments and objects
    ("EGeneral:Invalid arguments", "permanent", 1, RequestRefused, 0, 60),
    ("EGeneral:Invalid arguments:ordertype", "permanent", 1, RequestRefused, 0, 60),
    ("EGeneral:Unknown Method", "permanent", 1, RequestRefused, 0, 60),
    ("EGeneral:Unknown method", "permanent", 1, RequestRefused, 0, 60),
    ("EQuery:Unknown asset pair", "permanent", 1, RequestRefused, 0, 60),
    ("EQuery:Unknown asset", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Unknown order", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Invalid order", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Insufficient funds", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Insufficient margin", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Order minimum not met", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Cost minimum not met", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Tick size check failed", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Invalid price", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Cannot open position", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Margin allowance exceeded", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Margin level too low", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Positions limit exceeded", "permanent", 1, RequestRefused, 0, 60),
    ("EOrder:Unknown position", "permanent", 1, RequestRefused, 0, 60),
    ("ETrade:User Locked", "permanent", 1, CredentialsRefused, 0, 60),
    ("ETrade:Invalid request", "permanent", 1, RequestRefused, 0, 60),
    ("EFunding:Unknown withdraw key", "permanent", 1, RequestRefused, 0, 60),
    # Unknown ones: of the key or account, of the service
    ("EAPI:Something new", "permanent", 2, CredentialsRefused, 5, 60),
    ("EAuth:Something new", "permanent", 2, CredentialsRefused, 5, 60),
    ("EAccount:Something new", "permanent", 2, CredentialsRefused, 5, 60),
    ("ESession:Something new", "transient", NEVER, RequestRefused, 1, 5),
    ("EGeneral:Something new", "transient", NEVER, RequestRefused, 1, 10),
    ("EBrandNew:Something new", "transient", NEVER, RequestRefused, 1, 10),
    # Plain texts of the WebSocket
    ("Already subscribed", "transient", NEVER, RequestRefused, 0, 10),
    ("Subscription Not Found", "transient", NEVER, RequestRefused, 0, 10),
    ("Subscription name invalid", "permanent", 1, RequestRefused, 0, 60),
    ("Subscription field must be an object", "permanent", 1, RequestRefused, 0, 60),
    ("Subscription object unsupported field", "permanent", 1, RequestRefused, 0, 60),
    ("Pair field unsupported for this subscription type", "permanent", 1, RequestRefused, 0, 60),
    ("Pair field must be an array", "permanent", 1, RequestRefused, 0, 60),
    ("Pair(s) not found", "permanent", 1, RequestRefused, 0, 60),
    ("Currency pair not supported", "permanent", 1, RequestRefused, 0, 60),
    ("Currency pair not supported XBT/ABC", "permanent", 1, RequestRefused, 0, 60),
    ("Currency pair not in ISO 4217-A3 format", "permanent", 1, RequestRefused, 0, 60),
    ("Subscription depth not supported", "permanent", 1, RequestRefused, 0, 60),
    ("Subscription book depth must be an integer", "permanent", 1, RequestRefused, 0, 60),
    ("Subscription ohlc interval not supported", "permanent", 1, RequestRefused, 0, 60),
    ("Public channels not available in this endpoint", "permanent", 1, RequestRefused, 0, 60),
    ("Event(s) not found", "permanent", 1, RequestRefused, 0, 60),
    ("Unsupported field: 'pair' for the given msg type: subscribe", "permanent", 1, RequestRefused, 0, 60),
    ("Unsupported field: 'pair'", "permanent", 1, RequestRefused, 0, 60),
    ("Malformed request", "permanent", 1, RequestRefused, 0, 60),
    ("Reqid field must be a positive integer less than 18446744073709551616", "permanent", 1, RequestRefused, 0, 60),
    ("Token(s) not found", "permanent", 1, RequestRefused, 0, 60),
    ("Symbol(s) not found", "permanent", 1, RequestRefused, 0, 60),
    ("Symbol field must be an array", "permanent", 1, RequestRefused, 0, 60),
    # Unknown plain texts: permanent after one retry on a fresh connection
    ("Private data and trading are unavailable on this endpoint", "permanent", 2, RequestRefused, 1, 60),
    ("Nobody has ever seen this", "permanent", 2, RequestRefused, 1, 60),
    ("", "permanent", 2, RequestRefused, 1, 60),
]
# fmt: on


@each(("text", "kind", "attempts", "error", "least", "longest"), TABLE)
def test_string_has_its_verdict(
    text: str, kind: Kind, attempts: int | None, error: type[FeedError], least: float, longest: float
) -> None:
    refusal = classify(text, NOW)
    assert (refusal.kind, refusal.attempts, refusal.error) == (kind, attempts, error)
    assert least <= refusal.delay <= longest
    assert refusal.meaning


@each("row", TABLE)
def test_case_and_blanks_do_not_change_the_verdict(row: Row) -> None:
    text = row[0]
    for variant in (text.upper(), text.lower(), text.replace(":", ": "), text.replace(":", " :\t"), f"  {text}\r\n"):
        assert classify(variant, NOW) == classify(text, NOW)


@each(
    ("text", "delay"),
    [
        ("EService:Throttled:1760000123", 123.0),
        ("EService: Throttled: 1760000123", 123.0),
        ("EService:Throttled:1760000006", 6.0),
        ("EService:Throttled:1760000001", refusals.SERVICE_S),  # too near to be worth a request
        ("EService:Throttled:1760000000", refusals.SERVICE_S),
        ("EService:Throttled:1759999000", refusals.SERVICE_S),  # past
        ("EService:Throttled:0", refusals.SERVICE_S),
        ("EService:Throttled:1760009999", refusals.LOCKOUT_S),
        ("EService:Throttled:1760000000123", refusals.LOCKOUT_S),  # milliseconds
        ("EService:Throttled:" + "9" * 15, refusals.LOCKOUT_S),
        ("EService:Throttled:" + "9" * 5000, refusals.SERVICE_S),
        ("EService:Throttled:-5", refusals.SERVICE_S),
        ("EService:Throttled:soon", refusals.SERVICE_S),
        ("EService:Throttled:", refusals.SERVICE_S),
        ("EService:Throttled:１７６０", refusals.SERVICE_S),
    ],
)
def test_throttle_waits_until_the_named_time_within_bounds(text: str, delay: float) -> None:
    refusal = classify(text, NOW)
    assert (refusal.kind, refusal.delay, refusal.attempts) == ("throttled", delay, None)


@each("text", ["Every channel needs a token", "Endpoint does not exist", "eh?"])
def test_unknown_plain_text_that_begins_with_an_e_is_no_error_code(text: str) -> None:
    """A code is ``E``, a category and a colon; anything else is plain text: permanent after one retry."""
    refusal = classify(text, NOW)
    assert (refusal.kind, refusal.attempts) == ("permanent", 2)


def test_delays_are_ordered_by_what_hammering_costs() -> None:
    delays = [
        classify(text, NOW).delay
        for text in (
            "ESession:Invalid session",
            "EService:Unavailable",
            "EAPI:Rate limit exceeded",
            "EGeneral:Too many requests",
            "EAuth:Too many requests",
            "EGeneral:Temporary lockout",
        )
    ]
    assert delays == sorted(set(delays))


def test_final_counts_in_a_row() -> None:
    once, twice, never = (classify(t, NOW) for t in ("EAPI:Invalid signature", "EAPI:Invalid key", "EService:Busy"))
    assert [once.final(seen) for seen in (1, 2)] == [True, True]
    assert [twice.final(seen) for seen in (1, 2, 3)] == [False, True, True]
    assert not any(never.final(seen) for seen in (1, 2, 1_000_000))


def test_only_what_a_human_must_change_is_final() -> None:
    for text, kind, *_ in TABLE:
        assert (classify(text, NOW).attempts is None) == (kind != "permanent")


def test_permission_is_named_in_all_its_spellings() -> None:
    named = needed_for("GetWebSocketsToken")
    assert "WebSocket interface" in named
    assert "Access WebSockets API" in named
    assert all(map(needed_for, ("openOrders", "ownTrades", "executions", "balances")))


@settings(max_examples=examples(200))
@given(st.text(max_size=60), st.floats(0, 4e9))
def test_any_text_has_a_verdict_with_a_bounded_delay(text: str, now: float) -> None:
    refusal = classify(text, now)
    assert refusal.kind in ("permanent", "transient", "throttled", "locked_out")
    assert 0.0 <= refusal.delay <= refusals.LOCKOUT_S


@settings(max_examples=examples(200))
@given(st.integers(-(10**20), 10**20), st.floats(0, 4e9))
def test_no_throttle_waits_longer_than_a_lockout(until: int, now: float) -> None:
    assert refusals.SERVICE_S <= classify(f"EService:Throttled:{until}", now).delay <= refusals.LOCKOUT_S
