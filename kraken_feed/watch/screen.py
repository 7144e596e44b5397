"""Draw the screen of ``watch``: orders, the feed's figures and the last warnings, as lines for any terminal size.

From top to bottom: the state of each connection, the open orders by account, the last fills, and the last warnings.
The same input makes the same lines; there is no clock and no terminal here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment
from rich.text import Text

from ..telemetry.stats import EndpointFigures, Figures
from ..telemetry.status import span
from ..text import counted, word
from .model import Deal, Overview, Row
from .table import FLASH_NS, SIDES, Column, clock, cut, deal_columns, fitted, flashes, heading, line, order_columns
from .table import plain as escaped

ROOMY = 16  # lines from which there are blank lines between the parts
TALL = 40  # lines from which more than one warning is shown
NOTICES = 3  # warnings on such a screen
SEVERE = {"error": "bold red", "warning": "yellow"}


class Said(NamedTuple):
    """A diagnostic: its time, its level and its text."""

    unix_ns: int
    level: str
    text: str


class View(NamedTuple):
    """The input of one picture: ``now_ns`` in unix nanoseconds, ``width`` and ``height`` in cells."""

    overview: Overview
    accounts: Sequence[Figures]
    notices: Sequence[Said]
    width: int
    height: int
    now_ns: int

    @property
    def roomy(self) -> bool:
        """Whether there is room for blank lines and headings."""
        return self.height >= ROOMY

    @property
    def names(self) -> list[str]:
        return [figures.account for figures in self.accounts]


class Painter:
    """Turns lines into escape sequences, of colour and emphasis only. None of them come from Kraken."""

    def __init__(self, *, colors: bool) -> None:
        self._colors = colors
        self._console = Console(
            color_system="standard", force_terminal=True, width=80, height=24, legacy_windows=False, _environ={}
        )

    def paint(self, lines: Iterable[Text]) -> list[str]:
        """Return each line as it is written to the terminal."""
        return ["".join(map(self._painted, self._segments(text))) for text in lines]

    def _segments(self, text: Text) -> Iterable[Segment]:
        segments = text.render(self._console)
        return segments if self._colors else Segment.remove_color(segments)

    def _painted(self, segment: Segment) -> str:
        style = segment.style
        return segment.text if style is None else style.render(segment.text, color_system=ColorSystem.STANDARD)


def draw(view: View) -> list[Text]:
    """Return the lines of the screen: ``height`` lines, none wider than ``width``."""
    top = [_title(view), *_states(view)]
    bottom = _bottom(view)
    gap = int(view.roomy)
    room = view.height - len(top) - len(bottom) - 2 * gap
    orders_room, fills_room = _divide(view, room)
    body = _orders(view, orders_room)
    fills = _fills(view, fills_room)
    if body and fills and gap:
        body.append(Text())
    lines = [*top, *[Text()] * gap, *body, *fills]
    lines = lines[: max(0, view.height - len(bottom))]
    lines += [Text()] * (view.height - len(bottom) - len(lines))
    lines = [*lines, *bottom][: view.height]
    for text in lines:
        text.truncate(view.width, overflow="ellipsis")
    return lines


def _divide(view: View, room: int) -> tuple[int, int]:
    """Return how many lines orders and fills get, headings included. Fills get a third, and what orders do not need."""
    overview, head = view.overview, 1 + view.roomy
    if overview.orders_from is None:
        return 0, max(0, room)
    several = len(view.accounts) > 1
    orders = head + sum(max(1, len(overview.account(name).rows)) + several for name in view.names)
    fills = head + max(1, len(overview.deals(room))) if room > 0 else 0
    between = int(view.roomy)
    left = max(0, room - between)
    room_of_fills = min(fills, max(left // 3, left - orders))
    if room_of_fills <= head:  # a heading alone is useless
        return max(0, room), 0
    return left - room_of_fills, room_of_fills


# ------------------------------------------------------------------------------------------------ the state of the feed


def _title(view: View) -> Text:
    now = clock(view.now_ns, view.now_ns) + " UTC"
    text = Text.assemble(("kraken-feed watch", "bold"), ("  q quits", "dim"), no_wrap=True)
    text.truncate(max(0, view.width - len(now) - 2), pad=True)
    return text.append(f"  {now}", style="dim")


class _State(NamedTuple):
    """One connection: whether it is live, its name, and its state."""

    live: bool
    name: str
    text: Text


def _states(view: View) -> list[Text]:
    """Return one line per connection; if there are too many, those that are not live come first."""
    states = [state for figures in view.accounts for state in _account(figures, view.now_ns)]
    room, more = max(1, view.height // 3), []
    if len(states) > room:
        states.sort(key=lambda state: state.live)
        hidden, states = states[room - 1 :], states[: room - 1]
        trouble = sum(not state.live for state in hidden)
        more = [Text(f"+ {len(hidden)} more, {trouble or 'all'} {'not ' if trouble else ''}live", style="dim")]
    width = min(max((len(state.name) for state in states), default=0), max(8, view.width // 4))
    return [Text.assemble((cut(state.name, width), "bold"), "  ", state.text) for state in states] + more


def _account(figures: Figures, now_ns: int) -> list[_State]:
    several, states = len(figures.endpoints) > 1, []
    for index, endpoint in enumerate(figures.endpoints):
        text = _endpoint(endpoint, now_ns)
        if figures.stopped:
            text = Text(f"stopped: {escaped(figures.stopped)}", style="bold red")
        if index == 0:
            outages = figures.outages
            text.append(f"  {counted(figures.reconnects, 'reconnect')}  {counted(outages.opened, 'outage')}")
            text.append(f" ({outages.open} open)" if outages.open else "", style="yellow")
            text.append(f"  {counted(outages.gaps, 'gap')}" if outages.gaps else "", style="bold red")
        text.append("  " + ",".join(endpoint.channels), style="dim")
        name = figures.account + (f" {endpoint.dialect}" if several else "")
        states.append(_State(endpoint.live and not figures.stopped, name, text))
    return states


def _endpoint(endpoint: EndpointFigures, now_ns: int) -> Text:
    if endpoint.live:
        since = endpoint.live_s or 0.0
        text = Text.assemble(("live", "bold green"), f" since {_since(since, now_ns)} ({span(since)})")
        if endpoint.engine not in (None, "online"):
            text.append(f"  engine {escaped(str(endpoint.engine))}", style="yellow")
        if endpoint.last_frame_s is not None:
            text.append(f"  frame {span(endpoint.last_frame_s)}")
        return text
    since = endpoint.down_s or 0.0
    if not endpoint.cause:
        return Text(f"connecting ({span(since)})", style="yellow")
    text = Text.assemble(("down", "bold red"), f" since {_since(since, now_ns)} ({span(since)}): ")
    text.append(escaped(endpoint.cause), style="red")
    retry = "now" if endpoint.retry_s is None else f"in {span(endpoint.retry_s)}"
    return text.append(f"  attempt {endpoint.attempts + (endpoint.retry_s is not None)} {retry}")


def _since(seconds: float, now_ns: int) -> str:
    return clock(now_ns - int(seconds * 1e9), now_ns)


# ------------------------------------------------------------------------------------------------ open orders


def _orders(view: View, room: int) -> list[Text]:
    """Return the open orders by account, in at most ``room`` lines."""
    overview, names = view.overview, view.names
    if room < 2 or overview.orders_from is None:
        return []
    total = sum(len(overview.account(name).rows) for name in names)
    one = names[0] if len(names) == 1 else None
    title = Text.assemble((f"Open orders {total}", "bold"), _stale(view, one, overview.orders_from) if one else "")
    room -= 1 + view.roomy
    shown, more = names, 0
    if one is None and len(names) > room:
        shown = names[: room - 1]
        more = len(names) - len(shown)
    heads = int(one is None)
    needs = [heads + len(overview.account(name).rows) for name in shown]
    shares = allot(needs, room - int(more > 0))
    rows = {name: overview.rows(name, share) for name, share in zip(shown, shares, strict=True)}
    widths = fitted(
        order_columns(view.width), [row for group in rows.values() for row in group], view.width, view.now_ns
    )
    lines = [title, *([heading(widths)] if view.roomy else [])]
    for name, share in zip(shown, shares, strict=True):
        if heads:
            count = len(overview.account(name).rows)
            lines.append(Text.assemble((f"{name}: {count}", "bold"), _stale(view, name, overview.orders_from)))
        lines += _group(view, name, rows[name], share - heads, widths)
    return lines + ([Text(f"+ {more} more accounts", style="dim")] if more else [])


def _group(
    view: View, name: str, rows: Sequence[Row], room: int, widths: Sequence[tuple[Column[Row], int]]
) -> list[Text]:
    """Return one account's orders, in at most ``room`` lines."""
    account = view.overview.account(name)
    stale = not account.live.get(view.overview.orders_from or "")

    def style(row: Row, column: Column[Row]) -> str:
        return _style(column, row.order.side, flashing=flashes(row, column, view.now_ns), stale=stale)

    if len(account.rows) <= room:
        return [line(widths, row, view.now_ns, style) for row in rows]
    lines = [line(widths, row, view.now_ns, style) for row in rows[: max(0, room - 1)]]
    return [*lines, Text(f"+ {len(account.rows) - len(lines)} more", style="dim")] if room > 0 else []


def _style(column: Column[Any], side: str, *, flashing: bool, stale: bool) -> str:
    color = SIDES.get(word(side), "") if column.heading == "side" else ""
    return " ".join(filter(None, (color, "reverse" if flashing else "", "dim" if stale else "")))


def _stale(view: View, name: str, channel: str) -> Text:
    """Return a warning if the orders shown are not up to date, else an empty text."""
    account = view.overview.account(name)
    match account.live.get(channel):
        case None:
            return Text("  waiting for the snapshot", style="yellow")
        case False:
            return Text(f"  as of {clock(account.since[channel], view.now_ns)}", style="bold red")
    return Text()


def allot(needs: Sequence[int], room: int) -> list[int]:
    """Divide ``room``: small needs are met in full, and the rest is shared equally among the larger ones."""
    shares = [0] * len(needs)
    while room > 0 and (wanting := [i for i, need in enumerate(needs) if shares[i] < need]):
        each = max(1, room // len(wanting))
        for index in wanting:
            more = min(each, needs[index] - shares[index], room)
            shares[index] += more
            room -= more
    return shares


# ------------------------------------------------------------------------------------------------ fills, and the rest


def _fills(view: View, room: int) -> list[Text]:
    """Return the last fills, in at most ``room`` lines."""
    overview, names = view.overview, view.names
    if room < 2 or overview.fills_from is None:
        return []
    deals = overview.deals(room - 1 - view.roomy)
    widths = fitted(deal_columns(len(names) > 1), deals, view.width, view.now_ns)
    lines = [Text("Last fills", style="bold"), *([heading(widths)] if view.roomy else [])]

    def style(deal: Deal, column: Column[Deal]) -> str:
        stale = not overview.account(deal.account).live.get(overview.fills_from or "")
        return _style(column, deal.fill.side, flashing=0 <= view.now_ns - deal.seen_ns < FLASH_NS, stale=stale)

    return lines + [line(widths, deal, view.now_ns, style) for deal in deals]


def _bottom(view: View) -> list[Text]:
    """Return the lines of the last warnings, more of them on a tall terminal."""
    if view.height < 3:
        return []
    return [
        Text(f"{clock(said.unix_ns, view.now_ns)} {escaped(said.text)}", style=SEVERE.get(said.level, ""))
        for said in view.notices[-(NOTICES if view.height >= TALL else 1) :]
    ]
