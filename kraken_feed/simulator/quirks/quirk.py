"""Define quirks: behaviours for a whole run that Kraken's documents allow, and that still surprise clients.

Kraken's documents leave much open, and recordings show more than the documents say. Each quirk is one such behaviour;
the defaults are the usual ones. A fault happens at a moment, a quirk holds for the whole run.

A *share* is a number from 0 to 1. The id of the order, trade or ledger entry decides whether it is hit, so the
same seed always hits the same ones.
"""

from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints
from zlib import crc32

import msgspec
from msgspec import Struct


class Quirks(Struct, frozen=True, forbid_unknown_fields=True):
    """The exchange's behaviours that Kraken's documents leave open. Raises ValueError for impossible numbers.

    `QUIRKS` says of each what it does.
    """

    # REST: pages of the history
    short_pages: bool = False
    merged_pages: bool = False
    repeated_rows: float = 0.0
    withheld_rows: float = 0.0
    withheld_s: float = 0.0
    count: Literal["asked", "always", "null"] = "asked"
    # REST: costs of calls. Kraken's pages say 2 or 4; a client has to expect 4.
    history_cost: float = 4.0
    closed_orders_cost: float | None = None
    # REST: delays, in seconds; None is the scenario's rest_lag
    orders_lag: float | None = None
    query_lag: float | None = None
    trades_lag: float | None = None
    ledger_lag: float | None = None
    late_orders: bool = False
    # REST: states, ids and spans
    odd_states: float = 0.0
    odd_query_states: float = 0.0
    refuse_unknown: bool = False
    refused_ids: float = 0.0
    key_span: Literal["silent", "outside", "overlap"] = "silent"
    # REST: shapes
    empty_as_list: bool = False
    errors: Literal["list", "object", "warning"] = "list"
    # Shapes on both sides
    integers: Literal["plain", "float", "text"] = "plain"
    unknown_members: bool = False
    surrogates: float = 0.0
    # The feeds
    double_ends: Literal["once", "richer", "identical", "both"] = "once"
    null_snapshots: bool = False
    null_items: bool = False
    strange_frames: float = 0.0
    no_v1_heartbeats: bool = False
    # Pings and the line
    pongs: Literal["echo", "bare", "text", "never"] = "echo"
    pong_delay: float = 0.0
    lost_pongs: float = 0.0
    line_rate: float = 0.0
    # Balances
    empty_ledger_ids: float = 0.0
    shared_ledger_ids: float = 0.0
    asset_classes: bool = False
    # Order entry
    wrong_validate: Literal["refused", "ignored", "taken"] = "refused"
    edit_needs_volume: bool = False
    any_case: bool = False
    # The clock
    clock_offset: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or name == "clock_offset":
                continue
            if value < 0 or (name in SHARES and value > 1):
                raise ValueError(f"{name}: {value:g} is not {'from 0 to 1' if name in SHARES else '0 or more'}")


class Quirk(Struct, frozen=True):
    """A quirk's description, and its value when only its name is given."""

    alone: object
    does: str


QUIRKS: dict[str, Quirk] = {
    "short_pages": Quirk(True, "a history page has any number of rows from 1 to 50, though more follow"),
    "merged_pages": Quirk(
        True, "TradesHistory counts a taker's fills before it merges them, so ofs counts more than the rows shown"
    ),
    "repeated_rows": Quirk(0.2, "share of history rows that stand twice on their page, with different bytes"),
    "withheld_rows": Quirk(0.05, "share of history rows that are counted but not on any page"),
    "withheld_s": Quirk(60.0, "after so many seconds they are on their page after all (0: never)"),
    "count": Quirk("null", 'whether pages tell "count": when it is asked for, always, or as null'),
    "history_cost": Quirk(2.0, "what a history call adds to the call counter (usually 4)"),
    "closed_orders_cost": Quirk(1.0, "what ClosedOrders adds (usually as history_cost)"),
    "orders_lag": Quirk(90.0, "seconds by which OpenOrders and ClosedOrders are late"),
    "query_lag": Quirk(90.0, "seconds by which QueryOrders is late"),
    "trades_lag": Quirk(90.0, "seconds by which TradesHistory and QueryTrades are late"),
    "ledger_lag": Quirk(90.0, "seconds by which Ledgers is late"),
    "late_orders": Quirk(
        True, "REST does not know an order that is younger than the lag (usually it shows it as open)"
    ),
    "odd_states": Quirk(0.3, "share of ended orders with an unusual state in ClosedOrders: rejected, Canceled"),
    "odd_query_states": Quirk(0.3, "the same in QueryOrders"),
    "refuse_unknown": Quirk(True, "QueryOrders refuses a batch if REST does not know one of its ids"),
    "refused_ids": Quirk(0.05, "share of orders whose id makes QueryOrders refuse the batch"),
    "key_span": Quirk(
        "outside",
        "if a key is limited in time, REST refuses queries outside of its limits (outside), or also those that reach "
        "beyond them (overlap); usually it returns no rows",
    ),
    "empty_as_list": Quirk(True, "REST writes [] for an object without members"),
    "errors": Quirk("warning", 'REST has "error": {}, or a warning in it beside the result'),
    "integers": Quirk("float", "sequences and request ids are written as 1.0 (float) or as strings (text)"),
    "unknown_members": Quirk(True, "items and rows have members that no document names"),
    "surrogates": Quirk(0.2, "share of items and rows that have a lone surrogate in a string"),
    "double_ends": Quirk(
        "both",
        "an order's end comes twice: first without volumes, then with them (richer); with the same bytes (identical); "
        "or some orders one way and some the other (both)",
    ),
    "null_snapshots": Quirk(True, "an empty snapshot is null instead of []"),
    "null_items": Quirk(True, "data frames begin with an item that is null"),
    "strange_frames": Quirk(0.1, "share of updates after which a frame of an unknown type has the next sequence"),
    "no_v1_heartbeats": Quirk(True, "v1 sends no heartbeats"),
    "pongs": Quirk("bare", "pongs lack their id (bare), have it as a string (text), or never come"),
    "pong_delay": Quirk(5.0, "seconds by which a pong is late"),
    "lost_pongs": Quirk(0.2, "share of pings that get no answer"),
    "line_rate": Quirk(
        2000.0, "bytes per second that leave a connection (0: no limit); a cut loses the bytes that have not left"
    ),
    "empty_ledger_ids": Quirk(0.3, "share of balance changes whose ledger id is empty"),
    "shared_ledger_ids": Quirk(0.3, "share of trades whose two ledger entries have one id"),
    "asset_classes": Quirk(True, "SOL is a currency and a tokenized_asset; Ledgers shows currencies unless asked"),
    "wrong_validate": Quirk(
        "ignored",
        "if validate has a wrong JSON type, the request is refused (refused), carried out (ignored), or only checked "
        "(taken)",
    ),
    "edit_needs_volume": Quirk(
        True, "editOrder refuses an edit without a volume (Kraken's table requires one, its sample has none)"
    ),
    "any_case": Quirk(True, "order entry takes the time in force in upper and lower case in both dialects"),
    "clock_offset": Quirk(60.0, "seconds by which Kraken's whole clock is ahead of this machine's"),
}
SHARES = frozenset({
    "repeated_rows", "withheld_rows", "odd_states", "odd_query_states", "refused_ids", "surrogates", "strange_frames",
    "lost_pongs", "empty_ledger_ids", "shared_ledger_ids",
})  # fmt: skip
USUAL = Quirks()  # checked with SHARES, so it is defined below them


def share(portion: float, purpose: str, ident: str) -> bool:
    """Return whether the thing with this id is in the portion. Different purposes are independent of each other."""
    return portion > 0 and draw(purpose, ident) < portion


def draw(purpose: str, ident: str) -> float:
    """Return a number from 0 to 1 that depends only on the purpose and the id."""
    return crc32(f"{purpose}:{ident}".encode()) / 2**32


def parse(text: str) -> tuple[str, object]:
    """Parse a quirk's name and value from `NAME` or `NAME=VALUE`. Raises ValueError."""
    name, equals, value = text.partition("=")
    _known(name)
    chosen = value if equals else QUIRKS[name].alone
    choices = get_args(get_type_hints(Quirks)[name])
    if str in map(type, choices) and chosen not in choices:
        raise ValueError(f'{name}: "{chosen}" is not one of {", ".join(choices)}')
    try:
        made = msgspec.convert({name: chosen}, Quirks, strict=False)
    except ValueError as exc:
        raise ValueError(f"{name}: {_plain(exc)}") from exc
    return name, getattr(made, name)


def convert(table: object) -> Quirks:
    """Read the quirks from a table of a scenario file. Raises ValueError that names the wrong key."""
    for name in table if isinstance(table, dict) else ():
        _known(name)
    return msgspec.convert(table, Quirks)


def catalogue() -> str:
    """Return the list of quirks, one line per quirk."""
    names = [(f"{name}{_value(quirk.alone)}", quirk.does) for name, quirk in QUIRKS.items()]
    width = max(len(name) for name, _ in names)
    return "".join(f"{name:{width}}  {does}\n" for name, does in names)


def nearest(name: str, names: Any) -> str:
    """Return `, did you mean "drop"?`, or nothing if no name is near."""
    found = get_close_matches(name, list(names), n=1)
    return f', did you mean "{found[0]}"?' if found else ""


def _known(name: str) -> None:
    if name not in QUIRKS:
        raise ValueError(f'unknown quirk "{name}"{nearest(name, QUIRKS)}')


def _value(alone: Any) -> str:
    if alone is True:
        return ""
    return f"={alone:g}" if isinstance(alone, float) else f"={alone}"


def _plain(exc: ValueError) -> str:
    """Return the message without the place, which is known. Our own messages name the quirk."""
    text = str(exc).partition(" - at ")[0]
    return text.partition(": ")[2] or text
