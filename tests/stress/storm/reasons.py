"""Which gaps have a right to be declared: each kind of reason needs something in the plan that can have caused it."""

from __future__ import annotations

from typing import Literal, NamedTuple

QUARTER_S = 15 * 60.0  # before that, a client that got no answer may not declare a gap
SLACK_S = 5.0  # of the clocks
WINDOW_S = 30 * 60.0  # a cause lies at most so long before the gap's end, or between that and its declaration

Cause = Literal["rest", "key_span", "state_lost", "busy", "odd", "withheld", "repeated"]


class Kind(NamedTuple):
    """What was found: the kind of reason, and whether it has a cause."""

    name: str
    legal: bool


class Reason(NamedTuple):
    """A kind of reason: how its text begins, and what may cause it."""

    name: str
    begins: str
    causes: tuple[Cause, ...]


UNANSWERED = "REST does not answer"

# A text can hold several reasons; the first kind that fits its beginning is counted.
REASONS = (
    Reason("key span", "the API key may only query", ("key_span",)),
    Reason("key span", "EGeneral:Invalid arguments", ("key_span",)),
    Reason("unknown beginning", "its beginning is not known", ("state_lost",)),
    Reason("order open in history only", "Kraken's history calls these orders open", ()),
    # Orders of an earlier outage, of which REST did not tell, are still missing after a later one.
    Reason("unknown state", "these orders are in a state that this version does not know", ("odd", "rest", "busy")),
    Reason("unknown end", "Kraken does not say how these orders ended", ("odd", "rest", "busy", "key_span")),
    Reason("volumes", "the fills of these orders do not add up", ("withheld", "key_span")),
    Reason("contradiction", "QueryOrders: the answer has two different rows of order", ("repeated",)),
    Reason("counted rows", "ClosedOrders counts", ("withheld",)),
    Reason("counted rows", "Ledgers counts", ("withheld",)),
    *(
        Reason(UNANSWERED, f"{method}{separator}", ("rest", "busy"))
        for method in ("ClosedOrders", "QueryOrders", "TradesHistory", "Ledgers", "GetApiKeyInfo")
        for separator in (": ", " was")
    ),
    Reason(UNANSWERED, "After an earlier refusal, no call is allowed", ("rest", "busy")),
)


class Excuses:
    """What a plan does that can make an interval unrecoverable, and when: unix seconds of Kraken's clock."""

    def __init__(self) -> None:
        self._spans: list[tuple[Cause, float, float]] = []

    def add(self, cause: Cause, begin: float, end: float) -> None:
        """Something was the case from then to then."""
        self._spans.append((cause, begin, end))

    def hold(self, causes: tuple[Cause, ...], begin: float, end: float) -> bool:
        """Return whether one of the causes was at work between two moments."""
        return any(cause in causes and since <= end and begin <= to for cause, since, to in self._spans)


def legal(reason: str, since: float, to: float, now: float, excuses: Excuses) -> Kind:
    """Classify a gap. A reason that is in no kind is never legal."""
    for kind in REASONS:
        if reason.startswith(kind.begins):
            if kind.name == UNANSWERED and now < to + QUARTER_S - SLACK_S:
                return Kind(f"{kind.name}, too early", legal=False)
            begin = max(since, to - WINDOW_S)
            return Kind(kind.name, excuses.hold(kind.causes, begin, max(now, to)))
    return Kind(f"? {reason[:60]}", legal=False)
