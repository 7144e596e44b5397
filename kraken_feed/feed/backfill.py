"""Request what happened in an interval over REST, page by page: order ends, fills, ledger entries.

A *source* is one list that Kraken keeps. Its pages have up to fifty rows, newest first. Only an empty page ends the
list: one with fewer rows need not be the last. Each page is one call, so an interrupted query continues at its offset.
Rows are identified by their ids, like items of the feed.

Sources: https://docs.kraken.com/api/docs/rest-api/get-closed-orders , …/get-trade-history , …/get-orders-info ,
…/get-ledgers , …/get-api-key-info
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import Literal, NamedTuple, Protocol
from zlib import crc32

import msgspec

from ..errors import NotUnderstood, RequestRefused
from ..json_members import NotJson, elements, members, scalar
from ..protocol import key_info
from ..protocol.key_info import KeyInfo
from ..protocol.wire import Item, one_line
from ..text import encodable
from ..transport.backoff import CALL_COST, HISTORY_COST

PAGE = 50  # rows on a page, at most
QUERY = 50  # ids that QueryOrders takes at a time
RESERVE = 6.0  # points of the call counter that a backfill leaves to the tokens of reconnects: 6 of Starter's 14

OPEN = ("open", "pending")
ENDED = ("closed", "canceled", "expired")
NAMELESS = "row-"  # the identity of a row without an id begins with it
_MAX_STATUS = 40  # characters of an unknown state, which becomes part of an id
_MAX_DIGITS = 18  # before the point: no time and no count has more

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_EXACT = Context(prec=100)  # digits of a time: Kraken sends 14

_TAKER = ("consolidate_taker", "true")  # as in the subscription: otherwise fills differ in id and size

State = Literal["open", "ended", "unknown"]

_ABSENT = msgspec.Raw()


class Caller(Protocol):
    """Makes the calls, as :class:`rest.Rest` does."""

    async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
        """Return the result of a private method."""


class Source(msgspec.Struct, frozen=True):
    """One list at Kraken: ``key`` is the member of the result that holds the rows, ``time`` a row's time."""

    name: str
    method: str
    key: str
    time: str
    parameters: tuple[tuple[str, str], ...] = ()


class Row(msgspec.Struct, frozen=True):
    """A row as an item, with its time in unix nanoseconds; None if it has no readable one.

    ``status`` is an order's state as Kraken calls it, and empty for other rows.
    """

    item: Item
    time_ns: int | None
    status: str = ""


class Page(msgspec.Struct, frozen=True):
    """The rows of one call, the oldest first, and ``count``, Kraken's number of all rows; None if it is not given.

    ``length`` is what the next page's offset adds. Rows with the same id count once, and so do rows without an id that
    have the same time: the next page may then repeat rows, but skips none.
    """

    rows: list[Row]
    count: int | None
    length: int


class _Peek(msgspec.Struct, gc=False):
    """The members of a row that are read."""

    closetm: msgspec.Raw = _ABSENT
    time: msgspec.Raw = _ABSENT
    status: msgspec.Raw = _ABSENT
    ordertxid: msgspec.Raw = _ABSENT


_peek = msgspec.json.Decoder(_Peek).decode


class Span(NamedTuple):
    """The part of the history that a key may query, in unix seconds; 0: no limit."""

    from_s: int
    to_s: int


CLOSED_ORDERS = Source("ClosedOrders", "ClosedOrders", "closed", "closetm", (("closetime", "close"), _TAKER))
# Kraken may count a taker order's fills before it merges them: then rows would seem to be missing.
TRADES = Source("TradesHistory", "TradesHistory", "trades", "time", (_TAKER, ("without_count", "true")))
LEDGERS = Source("Ledgers", "Ledgers", "ledger", "time")
CURRENCY = "currency"  # the asset class that Ledgers shows unless it is asked for another
TOKENIZED = "tokenized_asset"  # the other class that Kraken documents: stocks as tokens


def sources_of(channel: str, classes: Iterable[str] = ()) -> tuple[Source, ...]:
    """Return the sources that together have every item of a channel. ``classes``: the asset classes of balances."""
    match channel:
        case "openOrders":
            return (CLOSED_ORDERS,)
        case "executions":
            return CLOSED_ORDERS, TRADES
        case "ownTrades":
            return (TRADES,)
        case "balances":
            return LEDGERS, *(_ledgers_of(name) for name in sorted(set(classes) - {CURRENCY}))
    raise ValueError(f"no history of {channel}")


def _ledgers_of(asset_class: str) -> Source:
    return Source(f"Ledgers:{asset_class}", LEDGERS.method, LEDGERS.key, LEDGERS.time, (("aclass", asset_class),))


# ------------------------------------------------------------------------------------------------ calls


async def page(rest: Caller, source: Source, start: int, end: int | None, offset: int) -> Page:
    """Return the page at ``offset`` of the rows after ``start`` and not after ``end``, in Kraken's unix seconds.

    Without an ``end``, new rows shift the offsets: rows may repeat, none is skipped.

    Raises:
        NotUnderstood: the answer is malformed.
        FeedError: as of :meth:`rest.Rest.call`.
    """
    bounds = {"start": str(start), "ofs": str(offset)}
    if end is not None:
        bounds["end"] = str(end)
    parameters = bounds | dict(source.parameters)
    result = await rest.call(source.method, cost=HISTORY_COST, reserve=RESERVE, **parameters)
    return read_page(source, bytes(result))


async def named_orders(rest: Caller, ids: Collection[str]) -> dict[str, Row]:
    """Return the current rows of these orders. Unknown and refused ids are left out.

    If Kraken refuses a batch, its halves are requested, so that one refused id does not affect the others.

    Raises:
        NotUnderstood: the answer is malformed, or has two different rows of one order.
        FeedError: as of :meth:`rest.Rest.call`, but for refused ids.
    """
    wanted = sorted({order_id for order_id in ids if order_id and "," not in order_id})
    found: dict[str, Row] = {}
    batches = [wanted[start : start + QUERY] for start in range(0, len(wanted), QUERY)]
    while batches:
        batch = batches.pop()
        try:
            found |= await _query_orders(rest, batch)
        except RequestRefused:
            if len(batch) > 1:
                middle = len(batch) // 2
                batches += [batch[middle:], batch[:middle]]
    return {order_id: found[order_id] for order_id in wanted if order_id in found}


async def _query_orders(rest: Caller, batch: Sequence[str]) -> dict[str, Row]:
    method = "QueryOrders"
    parameters = {"txid": ",".join(batch), **dict([_TAKER])}
    result = await rest.call(method, cost=CALL_COST, reserve=RESERVE, **parameters)
    found: dict[str, Row] = {}
    for order_id, raw in _rows(method, "result", one_line(bytes(result))):
        row = _row(CLOSED_ORDERS, method, order_id, raw)
        if order_id in found and found[order_id] != row:
            raise NotUnderstood(f"{method}: the answer has two different rows of order {encodable(order_id)}.")
        found[order_id] = row
    return found


async def key_settings(rest: Caller) -> KeyInfo:
    """Return the key's settings: its permissions, and the part of the history that it may query. The call needs no
    permission.

    Raises:
        NotUnderstood: the answer is malformed, or a limit of the history cannot be read.
        FeedError: as of :meth:`rest.Rest.call`.
    """
    method = "GetApiKeyInfo"
    result = await rest.call(method, cost=CALL_COST, reserve=RESERVE)
    try:
        info = key_info.read(result)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotUnderstood(f"{method}: the answer is not an object.") from error
    for limit in ("query_from", "query_to"):
        if limit in info.unreadable:
            raise NotUnderstood(f"{method}: `{limit}` is not a time.")
    return info


async def key_span(rest: Caller) -> Span:
    """Return the part of the history that the key may query. Outside of it REST returns no rows, and no error. Raises
    as :func:`key_settings`."""
    info = await key_settings(rest)
    return Span(info.query_from, info.query_to)


# ------------------------------------------------------------------------------------------------ answers


def read_page(source: Source, result: bytes) -> Page:
    """Parse the result of a source's method. The bytes of rows stay as they were sent, except for line breaks.

    Raises:
        NotUnderstood: it is malformed.
    """
    method, key = source.method, source.key
    try:
        outer = members(one_line(result))
    except NotJson as error:
        raise NotUnderstood(f"{method}: the answer is not an object.") from error
    lists = [raw for name, raw in outer if name == key]
    if not lists:
        raise NotUnderstood(f"{method}: the answer has no `{key}`.")
    found = [pair for held in lists for pair in _rows(method, f"`{key}`", held)]
    rows = [_row(source, method, name, raw) for name, raw in reversed(found)]
    # A repeated row can have other bytes. Without an id, only its time tells that it is one row.
    nameless = {row.time_ns or row.item.data for (name, _), row in zip(reversed(found), rows, strict=True) if not name}
    length = len({name for name, _ in found if name}) + len(nameless)
    if all(row.time_ns is not None for row in rows):
        rows.sort(key=lambda row: row.time_ns or 0)
    counts = [raw for name, raw in outer if name == "count"]
    return Page(rows, _count(method, counts[-1]) if counts else None, length)


def state(row: Row) -> State:
    """Return whether the row's order is open or ended."""
    return _state(row.status)


def _state(status: str) -> State:
    """Return what Kraken's word for a state means, regardless of case; ``unknown`` for an unknown word."""
    folded = status.casefold()
    if folded in OPEN:
        return "open"
    return "ended" if folded in ENDED else "unknown"


def _rows(method: str, what: str, raw: bytes) -> list[tuple[str, bytes]]:
    """Return an object's rows with their ids, which can repeat. An empty array counts as an empty object."""
    try:
        return members(raw)
    except NotJson as error:
        if _is_empty_array(raw):
            return []
        raise NotUnderstood(f"{method}: {what} is not an object.") from error


def _is_empty_array(raw: bytes) -> bool:
    try:
        return not elements(raw)
    except NotJson:
        return False


def _row(source: Source, method: str, name: str, raw: bytes) -> Row:
    """Parse the few members of a row that identify it."""
    try:
        fields = _fields(raw)
    except NotJson as error:
        raise NotUnderstood(f"{method}: a row is not an object.") from error
    time_ns = unix_ns(fields.get(source.time, b""))
    ident = encodable(name) or None
    # Without an id the bytes identify the row: REST never changes them.
    identity = ident or f"{NAMELESS}{crc32(raw):08x}"
    if source.key == CLOSED_ORDERS.key:
        status = _status(fields.get("status"))
        of_order = _order_identity(ident, status) if ident is not None else identity
        return Row(Item(raw, ident, None, None if _state(status) == "open" else of_order), time_ns, status)
    if source.key == TRADES.key:
        return Row(Item(raw, _text(fields.get("ordertxid")), ident, identity), time_ns)
    return Row(Item(raw, None, None, identity), time_ns)


def _fields(raw: bytes) -> dict[str, bytes]:
    """Return the members of :class:`_Peek`. msgspec is far faster than :func:`members`, but rejects lone surrogates.

    Raises:
        NotJson: it is not an object.
    """
    try:
        found = _peek(raw)
    except (msgspec.DecodeError, RecursionError):
        return dict(members(raw))
    return {name: bytes(value) for name in _Peek.__struct_fields__ if (value := getattr(found, name)) is not _ABSENT}


def _order_identity(order_id: str, status: str) -> str:
    """Return the identity of an order's row: that of its end, or one per unknown state, so that it is written once."""
    if _state(status) == "ended":
        return f"{order_id}:end"
    folded = status.casefold().replace(":", " ")
    return f"{order_id}:({folded})" if folded.startswith("end") else f"{order_id}:{folded}"


def _status(raw: bytes | None) -> str:
    """Return an order's state. A value that is not a string is an unknown state, named by its JSON."""
    if raw is None:
        return "absent"
    value = scalar(raw)
    text = value.strip() if isinstance(value, str) else raw.decode()
    return encodable(text)[:_MAX_STATUS] or "empty"


def _text(raw: bytes | None) -> str | None:
    """Return a string that is not empty; None for anything else."""
    value = scalar(raw) if raw is not None else None
    return encodable(value) or None if isinstance(value, str) else None


def _count(method: str, raw: bytes) -> int | None:
    if raw == b"null":
        return None
    number = _number(raw)
    if number is None or number < 0 or number != int(number):
        raise NotUnderstood(f"{method}: `count` is not a number of rows.")
    return int(number)


def unix_ns(raw: bytes) -> int | None:
    """Return a time of REST (unix seconds with a fraction) in nanoseconds, exactly.

    None if it is unreadable or 0, which is how Kraken writes that there is none.
    """
    seconds = _number(raw)
    return int(seconds.scaleb(9, _EXACT)) if seconds is not None and seconds > 0 else None


def _number(raw: bytes) -> Decimal | None:
    """Return the value of a JSON number, or of a string that has one; None for anything else and if it is too large."""
    text = raw.decode().strip('"')
    if not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.adjusted() < _MAX_DIGITS else None
