"""Render changes as the content of data frames, once for all connections with the same options."""

from collections.abc import Sequence

from ..market.ledger import Content, Item
from ..market.order import TERMINAL, Change
from ..quirks.quirk import Quirks, draw
from .dialect import Feeds
from .subscription import Options


def content(feeds: Feeds, items: Sequence[Item], quirks: Quirks) -> Content:
    """Return the items with the array of a frame that contains them."""
    if quirks.unknown_members or quirks.surrogates:
        items = [feeds.dressed(item, quirks) for item in items]
    return Content(tuple(items), _payload(items, quirks))


def render(feeds: Feeds, channel: str, changes: Sequence[Change], options: Options, quirks: Quirks) -> list[Content]:
    """Return the contents of the frames that report the changes: one frame, two if orders end twice, or none."""
    if quirks.double_ends == "once":
        items = feeds.updates(channel, changes, options)
        return [content(feeds, items, quirks)] if items else []
    first: list[Item] = []
    again: list[Item] = []
    for change in changes:
        told = feeds.updates(channel, [change], options)
        bare = feeds.bare_end(channel, change) if change.kind in TERMINAL else []
        first += bare if bare and _richer(change, quirks) else told
        again += told if bare else []
    return [content(feeds, items, quirks) for items in (first, again) if items]


def _payload(items: Sequence[Item], quirks: Quirks) -> bytes:
    """Write the items of a data frame: an array, with a null in front, or null if there are none."""
    if not items:
        return b"null" if quirks.null_snapshots else b"[]"
    body = b",".join([item.data for item in items])
    return b"[null,%b]" % body if quirks.null_items else b"[%b]" % body


def _richer(change: Change, quirks: Quirks) -> bool:
    """Return whether the second end of the order says more than the first, instead of the same."""
    return quirks.double_ends == "richer" or (
        quirks.double_ends == "both" and draw("richer end", change.order.id) < 0.5
    )
