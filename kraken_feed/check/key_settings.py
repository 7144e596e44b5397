"""Judge what an API key's settings mean for a tail, as results."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from ..errors import CredentialsRefused
from ..protocol.key_info import KeyInfo
from ..protocol.permissions import CREATE_TOKEN, NEEDED, NEEDED_TO_RECOVER, OTHERS, READING, spelled
from .machine import span
from .report import CheckResult

SETTINGS = "Kraken's settings (Security > API)"
OWN_KEY = f"Make a key for each program in {SETTINGS}."
SOON_S = 30 * 86400  # a month: time to make a new key without haste


class Nonces(NamedTuple):
    """The nonces of a key that are known here. ``known`` is the last one in the account's state (0: none); ``first``
    and ``last`` are the bounds of those that this check has used."""

    known: int
    first: int
    last: int


ITEMS = ("permissions", "backfill", "rights", "expiry", "addresses", "nonce window", "other use")


def judge(
    info: KeyInfo, channels: Sequence[str], unix_now: float, *, backfill: bool, nonces: Nonces | None = None
) -> list[CheckResult]:
    """Return the results for the key's settings and a tail of these channels: some for each of :data:`ITEMS`."""
    return [
        *_permissions(info, channels),
        _recovery(info, channels, backfill),
        _rights(info),
        _expiry(info, unix_now),
        _addresses(info),
        _nonce_window(info),
        _other_use(info, nonces, unix_now),
    ]


def needs(channels: Sequence[str]) -> dict[str, list[str]]:
    """Return the rights without which a tail cannot start, and what each is for."""
    uses: dict[str, list[str]] = {CREATE_TOKEN: ["every channel"]}
    for channel in channels:
        for right in NEEDED[channel]:
            uses.setdefault(right, []).append(channel)
    return uses


def _permissions(info: KeyInfo, channels: Sequence[str]) -> list[CheckResult]:
    if info.permissions is None:
        return [
            CheckResult(
                "WARN", "permissions", "Kraken does not list the key's permissions.",
                remedy="Nothing to do: the results below show whether they are enough.",
            )
        ]  # fmt: skip
    facts = {"permissions": list(info.permissions)}
    missing = {right: uses for right, uses in needs(channels).items() if right not in info.permissions}
    if not missing:
        return [CheckResult("OK", "permissions", f"enough for {', '.join(channels)}", facts=facts)]
    return [
        CheckResult(
            "FAIL",
            "permissions",
            f"The key lacks {spelled(right)}.",
            f"Needed for {', '.join(uses)}.",
            f"Switch it on for this key in {SETTINGS}.",
            facts={**facts, "missing": right},
            exit_code=CredentialsRefused.exit_code,
        )
        for right, uses in missing.items()
    ]


def _recovery(info: KeyInfo, channels: Sequence[str], enabled: bool) -> CheckResult:
    if not enabled:
        return CheckResult("OK", "backfill", "switched off: events missed while disconnected are declared as a gap")
    if info.query_from or info.query_to:
        since = f" from {_day(info.query_from)}" if info.query_from else ""
        until = f" up to {_day(info.query_to)}" if info.query_to else ""
        return CheckResult(
            "WARN", "backfill", f"The key may only query{since}{until}.",
            "Kraken returns nothing outside of that: events missed there stay a gap.",
            f"Remove the limit in {SETTINGS}.",
            facts={"query_from": info.query_from, "query_to": info.query_to},
        )  # fmt: skip
    allowed = info.permissions if info.permissions is not None else tuple(READING)
    missing: dict[str, list[str]] = {}
    for channel in channels:
        if NEEDED_TO_RECOVER[channel] not in allowed:
            missing.setdefault(NEEDED_TO_RECOVER[channel], []).append(channel)
    if missing:
        names = " and ".join(spelled(right) for right in missing)
        of = ", ".join(channel for several in missing.values() for channel in several)
        return CheckResult(
            "WARN", "backfill", f"The key lacks {names}.",
            f"Events of {of} missed while disconnected cannot be fetched: they become a gap in the output.",
            f"Switch on what is missing for this key in {SETTINGS}.",
            facts={"missing": list(missing)},
        )  # fmt: skip
    return CheckResult("OK", "backfill", "events missed while disconnected can be fetched")


def _rights(info: KeyInfo) -> CheckResult:
    """Warn about rights beyond reading: a thief of the key, or of one of its tokens, gets them too."""
    beyond = [right for right in info.permissions or () if right not in READING]
    if not beyond:
        return CheckResult("OK", "rights", "none beyond what tails need")
    names = ", ".join(spelled(right) if right in OTHERS else right for right in beyond)
    return CheckResult(
        "WARN", "rights", f"The key may do more than a tail needs: {names}.",
        "Anyone who gets the key has these rights, too.",
        f"Switch these rights off in {SETTINGS}, or make a key only for tails.",
        facts={"beyond": beyond},
    )  # fmt: skip


def _expiry(info: KeyInfo, unix_now: float) -> CheckResult:
    if not info.valid_until:
        return CheckResult("OK", "expiry", "none", facts={"valid_until": 0})
    facts = {"valid_until": info.valid_until}
    day, left = _day(info.valid_until), info.valid_until - unix_now
    new = f"Make a new key in {SETTINGS}, or extend this one."
    if left <= 0:
        code = CredentialsRefused.exit_code
        return CheckResult("FAIL", "expiry", f"The key expired on {day}.", remedy=new, facts=facts, exit_code=code)
    if left < SOON_S:
        days = "today" if left < 86400 else f"in {left // 86400:.0f} days"
        return CheckResult("WARN", "expiry", f"The key expires {days}, on {day}.", remedy=new, facts=facts)
    return CheckResult("OK", "expiry", f"on {day}", facts=facts)


def _addresses(info: KeyInfo) -> CheckResult:
    everywhere = [text for text in info.allow_list or () if text.strip().endswith("/0")]
    if info.allow_list and not everywhere:
        some = "1 address" if len(info.allow_list) == 1 else f"{len(info.allow_list)} addresses"
        return CheckResult("OK", "addresses", f"only from {some}, including this one")
    if info.allow_list is None:
        return CheckResult("OK", "addresses", "Kraken does not say whether the key has an allow-list")
    return CheckResult(
        "WARN", "addresses", "The key works from every address.",
        remedy=f"If this machine's address is fixed, add it to the key's IP allow-list in {SETTINGS}.",
    )  # fmt: skip


def _nonce_window(info: KeyInfo) -> CheckResult:
    facts = {"nonce_window": info.nonce_window}
    if not info.nonce_window:
        return CheckResult("OK", "nonce window", "none", facts=facts)
    return CheckResult(
        "WARN", "nonce window", f"The key has a nonce window of {info.nonce_window}.",
        "A tail does not need one, and it weakens the protection against requests that are sent again.",
        f"Set it to 0 in {SETTINGS}, unless another program needs it.",
        facts=facts,
    )  # fmt: skip


def _other_use(info: KeyInfo, nonces: Nonces | None, unix_now: float) -> CheckResult:
    """Compare the key's last nonce with those that are known here."""
    facts = {"nonce": info.nonce, "last_used": info.last_used}
    mine = nonces is None or nonces.first <= info.nonce <= nonces.last
    if nonces is None or not info.nonce:
        return CheckResult("OK", "other use", "Kraken does not say which nonces the key has used", facts=facts)
    if mine or info.nonce <= nonces.known or (info.nonce < nonces.first and not nonces.known):
        return CheckResult("OK", "other use", "no sign that another program uses the key", facts=facts)
    when = f", last {span(max(0.0, unix_now - info.last_used))} ago" if info.last_used else ""
    if info.nonce > nonces.last:
        what = f"The key is used elsewhere{when}, with higher nonces than this machine's."
    else:
        what = f"The key was used since the account's last checkpoint{when}."
    return CheckResult(
        "WARN", "other use", what,
        "Two programs with one key refuse each other's nonces, and share its call counter. An earlier check, `token` "
        "or `call` counts, too.", OWN_KEY, facts=facts,
    )  # fmt: skip


# For a key whose nonce Kraken has refused.
NONCE_REFUSED = CheckResult(
    "WARN", "other use", "The key was used with a higher nonce than this machine's.",
    "Another program uses it, or used it with a clock that was ahead of this one.", OWN_KEY,
)  # fmt: skip


def _day(unix: int) -> str:
    try:
        return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"unix time {unix}"
