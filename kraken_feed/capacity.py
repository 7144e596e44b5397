"""Say whether this machine and Kraken's limits allow a tail of so many accounts."""

from __future__ import annotations

from . import descriptors
from .backoff import Budget, excess
from .errors import ConfigError
from .findings import Finding, failed


def open_files(accounts: int, endpoints: int, *, state: bool, allowed: int | None) -> Finding:
    """Judge the descriptors of ``accounts`` with so many ``endpoints`` each. ``allowed`` is the hard limit, to which a
    tail raises the soft one; None: there is none."""
    needed = descriptors.needed(accounts, endpoints, state=state)
    facts = {"needed": needed, "allowed": allowed}
    if allowed is not None:
        try:
            descriptors.require(accounts, endpoints, state=state, limit=allowed)
        except ConfigError as error:
            return failed("descriptors", error, facts=facts)
    limit = "any number" if allowed is None else str(allowed)
    return Finding("OK", "descriptors", f"{needed} needed at most, {limit} allowed", facts=facts)


def connects(accounts: int, endpoints: int, budget: Budget, *, public: bool) -> Finding:
    """Judge whether all accounts can connect at once. ``public`` is whether they connect to Kraken's edge."""
    wanted, most = accounts * endpoints, excess(accounts * endpoints, budget, public=public)
    facts = {"needed": wanted, "budget": budget.limit, "window_s": budget.window}
    per = f"per {budget.window:g} s"
    if most is None:
        what = f"{wanted} at a start, {budget.limit} {per} allowed (reconnect.budget)"
        return Finding("OK", "connects", what, facts=facts)
    allows = "reconnect.budget allows" if most == budget.limit else "Kraken bears"
    return Finding(
        "WARN", "connects", f"A start needs {wanted} connects, and {allows} {most} {per}.",
        f"The last account connects after {budget.span(wanted):.0f} s, and so after each outage of the network.",
        "Split the accounts over several addresses: Kraken bans one for about 150 connects in ten minutes.",
        facts=facts,
    )  # fmt: skip
