"""What data frames tell of changes, rendered once for all connections that ask for the same."""

from collections.abc import Sequence

from msgspec import Struct

from kraken_feed.simulator.dialect import Dialect, Options
from kraken_feed.simulator.ledger import Item
from kraken_feed.simulator.order import TERMINAL, Change
from kraken_feed.simulator.quirk import Quirks, draw
from kraken_feed.simulator.shape import payload


class Content(Struct, frozen=True, gc=False):
    """What a data frame tells: its items, and the array that they stand in."""

    items: tuple[Item, ...]
    payload: bytes


# What each frame tells of some changes, by channel and options.
Rendered = dict[tuple[str, Options], list[Content]]


def content(speak: Dialect, items: Sequence[Item], quirks: Quirks) -> Content:
    """Put the items into a frame's array."""
    if quirks.unknown_members or quirks.surrogates:
        items = [speak.dressed(item, quirks) for item in items]
    return Content(tuple(items), payload(items, quirks))


def render(speak: Dialect, channel: str, changes: Sequence[Change], options: Options, quirks: Quirks) -> list[Content]:
    """Return what each frame that tells of the changes holds: one frame, two if orders end twice, or none."""
    if quirks.double_ends == "once":
        items = speak.updates(channel, changes, options)
        return [content(speak, items, quirks)] if items else []
    first: list[Item] = []
    again: list[Item] = []
    for change in changes:
        told = speak.updates(channel, [change], options)
        bare = speak.bare_end(channel, change) if change.kind in TERMINAL else []
        first += bare if bare and _richer(change, quirks) else told
        again += told if bare else []
    return [content(speak, items, quirks) for items in (first, again) if items]


def _richer(change: Change, quirks: Quirks) -> bool:
    """Whether the second end of the order says more than the first, instead of the same."""
    return quirks.double_ends == "richer" or (
        quirks.double_ends == "both" and draw("richer end", change.order.id) < 0.5
    )
