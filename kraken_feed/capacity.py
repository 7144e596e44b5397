"""How many descriptors and connects a tail of so many accounts needs, and whether it may have them."""

from __future__ import annotations

from .config import ReconnectConfig
from .errors import ConfigError
from .findings import Finding

OWN = 32  # descriptors of a process: standard streams, event loop, output, metrics, scrapers, name lookups
OF_STATE = 5  # an account's database, its two companions, its lock, and one while it is replaced
OF_REST = 2  # an account's connection to REST, and one that is about to be replaced


def files_needed(accounts: int, endpoints: int) -> int:
    """Return the descriptors of a tail; of each WebSocket, the new one can open before the old one is closed."""
    return OWN + accounts * (OF_STATE + OF_REST + 2 * endpoints)


def descriptors(accounts: int, endpoints: int, allowed: int | None) -> Finding:
    """Say whether the descriptors suffice. ``allowed`` is the hard limit; None: there is none."""
    needed = files_needed(accounts, endpoints)
    facts = {"needed": needed, "allowed": allowed}
    if allowed is None or needed <= allowed:
        limit = "any number" if allowed is None else str(allowed)
        return Finding("OK", "descriptors", f"{needed} needed at most, {limit} allowed", facts=facts)
    return Finding(
        "FAIL", "descriptors", f"{accounts} accounts need up to {needed} descriptors, and {allowed} are allowed.",
        "Without one, no connection can be opened and no checkpoint saved.",
        f"Allow more (LimitNOFILE={needed} in the unit, ulimit -Hn {needed} in a shell), or split the accounts over "
        "several processes.", facts=facts, exit_code=ConfigError.exit_code,
    )  # fmt: skip


def connects(accounts: int, endpoints: int, policy: ReconnectConfig) -> Finding:
    """Say whether the budget of connects has room for a start of all accounts."""
    needed, budget = accounts * endpoints, policy.budget
    facts = {"needed": needed, "budget": budget, "window_s": policy.window_s}
    per = f"per {policy.window_s:g} s"
    if needed <= budget:
        what = f"{needed} at a start, {budget} {per} allowed (reconnect.budget)"
        return Finding("OK", "connects", what, facts=facts)
    windows = (needed - 1) // budget
    return Finding(
        "WARN", "connects", f"A start needs {needed} connects, and reconnect.budget allows {budget} {per}.",
        f"The last account is live after {windows * policy.window_s:g} s at the earliest, and so after each outage "
        "of the network.",
        "Split the accounts over several addresses: Kraken bans one for about 150 connects in ten minutes.",
        facts=facts,
    )  # fmt: skip
