"""Compose the line below the rows, which says that the tail is alive, and the row at the end, which sums it up.

The same figures make the same text: there is no clock and no terminal here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..telemetry.causes import STOP_REASONS
from ..telemetry.stats import EndpointFigures, Figures
from ..text import cell_width, counted, displayed
from .columns import cut
from .markers import CAUSES
from .zone import NS, Zone, elapsed

MARGIN = "  "  # below the marks; the cursor stands there
BETWEEN = " | "
MAX_WORD = 40  # of a cause or an engine's state: normally one word, but a peer may send anything
STOP = "Ctrl-C stops"


_NAMES = {"order": "order change", "trade": "trade", "balance": "balance change", "unknown": "unknown frame"}
_REASONS = {"SIGINT": "Ctrl-C", "defect": "a bug", "once": "--once", "count": "--count", "duration": "--duration"}


class Part(NamedTuple):
    """A part of the line: its text, a shorter one, and the order in which parts are left out, the highest first."""

    text: str
    short: str
    rank: int


class LastLine(NamedTuple):
    """The line, and whether it reports something that is wrong."""

    text: str
    alarm: bool


NO_LINE = LastLine("", alarm=False)


def last_line(accounts: Sequence[Figures], now_ns: int, zone: Zone, width: int) -> LastLine:
    """Return the line for the accounts' figures at a time, at most ``width`` cells long."""
    running = [account for account in accounts if not account.stopped]
    down = [(account, endpoint) for account in running for endpoint in account.endpoints if not endpoint.live]
    if not running:
        return NO_LINE
    several = len(accounts) > 1
    parts = _outage(running, down, several) if down else _live(running, now_ns, zone, several)
    parts += [Part(text := f"{each.account} has stopped", text, 3) for each in accounts if each.stopped]
    parts.append(Part(STOP, STOP, 6 if down else 2))
    return LastLine(_fitted(parts, width), bool(down) or len(running) < len(accounts))


def _live(running: Sequence[Figures], now_ns: int, zone: Zone, several: bool) -> list[Part]:
    """Return what to say while every channel is live."""
    endpoints = [endpoint for account in running for endpoint in account.endpoints]
    since = _ago(min((endpoint.live_s or 0.0 for endpoint in endpoints), default=0.0), now_ns, zone)
    who = f"{counted(len(running), 'account')} " if several else ""
    parts = [Part(f"{who}live since {since}", f"{who}live {since}", 0)]
    engines = dict.fromkeys(endpoint.engine for endpoint in endpoints if endpoint.engine not in (None, "online"))
    parts += [Part(text := f"engine {_word(str(engine))}", text, 1) for engine in engines]
    late = max((endpoint.late_s for endpoint in endpoints if endpoint.late_s is not None), default=None)
    if late is not None:
        parts.append(Part(f"records may be {elapsed(late)} late", f"late {elapsed(late)}", 1))
    missed = sum(account.outages.open for account in running)
    if missed:
        parts.append(Part(f"recovering {counted(missed, 'outage')}", "recovering", 3))
    if any(account.open_orders for account in running):
        orders = sum(max(account.open_orders.values(), default=0) for account in running)
        parts.append(Part(counted(orders, "open order"), f"{orders} open", 4))
    ages = [endpoint.last_frame_s for endpoint in endpoints if endpoint.last_frame_s is not None]
    if ages:  # of the connection that was silent for longest
        at = _ago(max(ages), now_ns, zone)
        parts.append(Part(f"last frame {at}", f"frame {at}", 5))
    return parts


def _outage(running: Sequence[Figures], down: Sequence[tuple[Figures, EndpointFigures]], several: bool) -> list[Part]:
    """Return what to say while a channel is not live: of the longest outage, and how many others there are."""
    account, endpoint = max(down, key=lambda each: each[1].down_s or 0.0)
    whose = f"{account.account} " if several else ""
    if any(other.live for other in account.endpoints):
        whose += f"{','.join(endpoint.channels)} "
    lasted = elapsed(endpoint.down_s or 0.0)
    was_live = any(account.records.get((channel, "feed.live")) for channel in endpoint.channels)
    if not was_live and not endpoint.cause:
        return [Part(f"{whose}connecting, {lasted}", f"connecting, {lasted}", 0)]
    state = f"down {lasted}" if was_live else f"not live yet, {lasted}"
    attempt = f"attempt {endpoint.attempts + (endpoint.retry_s is not None)} "
    attempt += f"in {elapsed(math.ceil(endpoint.retry_s))}" if endpoint.retry_s else "now"
    cause = CAUSES.get(endpoint.cause, _word(endpoint.cause))
    if endpoint.refused:
        cause = f"Kraken refused the {_word(endpoint.refused)}"
    parts = [Part(f"{whose}{state}", state, 0), Part(attempt, attempt, 1)]
    parts += [Part(cause, cause, 5)] if cause else []
    if several or len(account.endpoints) > 1:
        every = [one for each in running for one in each.endpoints]
        text = f"{sum(one.live for one in every)} of {len(every)} connections live"
        parts.append(Part(text, text.replace("connections ", ""), 3))
    return parts


def _ago(seconds: float, now_ns: int, zone: Zone) -> str:
    return zone.clock(now_ns - int(seconds * NS), now_ns)


def _fitted(parts: Sequence[Part], width: int) -> str:
    """Return the parts as a line that fits. The least important ones are shortened first, then left out."""
    room = max(width - len(MARGIN), 1)
    texts = {part: part.text for part in parts}
    last_first = sorted(parts, key=lambda part: -part.rank)
    for part in last_first:
        if cell_width(BETWEEN.join(texts.values())) <= room:
            break
        texts[part] = part.short
    for part in last_first[:-1]:
        if cell_width(BETWEEN.join(texts.values())) <= room:
            break
        del texts[part]
    text = BETWEEN.join(texts.values())
    return MARGIN + cut(displayed(text), room)


def _word(text: str) -> str:
    return text if len(text) <= MAX_WORD else f"{text[: MAX_WORD - 1]}…"


# ------------------------------------------------------------------------------------------------ the end


def summary(
    accounts: Sequence[Figures], reason: str, seconds: float, shown: Mapping[str, int], recovered: int, hidden: int
) -> str:
    """Return the sentence that sums up a run: why it ended, how long it took, what it has shown, and the outages.

    ``shown`` are the rows of events by kind; ``recovered`` of them were recovered. ``hidden`` rows were not selected.
    """
    counts = [counted(shown[kind], name) for kind, name in _NAMES.items() if shown.get(kind)]
    what = ", ".join(counts) or ("" if hidden else "nothing happened")
    what += f" ({recovered} recovered)" if recovered else ""
    facts = [
        f"stopped by {_REASONS.get(reason, reason if reason in STOP_REASONS else 'an error')} after {elapsed(seconds)}",
        what,
        f"{counted(hidden, 'row')} not selected" if hidden else "",
        counted(sum(account.reconnects for account in accounts), "reconnect"),
        counted(sum(account.outages.opened for account in accounts), "outage"),
        counted(sum(account.outages.gaps for account in accounts), "gap"),
    ]
    return "; ".join(filter(None, facts))
