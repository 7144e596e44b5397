"""The types of records in a Python program: one record per line of the output, one type per ``event_name``.

Kraken's object is there twice: ``data`` is its bytes, unchanged, and ``fields`` is the parsed object, in which a number
is the :class:`~decimal.Decimal` of the digits that were sent.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any, ClassVar, Literal

import msgspec

from . import render

Type = Literal["snapshot", "update", "backfill"]

# Numbers that Spot v1 and REST send as strings: amounts, prices, and times in unix seconds. Sources:
# https://docs.kraken.com/api/docs/websocket-v1/openorders and …/owntrades,
# https://docs.kraken.com/api/docs/rest-api/get-closed-orders, …/get-trade-history and …/get-ledgers
NUMBERS = frozenset({
    "vol", "vol_exec", "cost", "fee", "price", "avg_price", "limitprice", "stopprice", "display_volume",
    "display_volume_remain", "displayvol", "displayvolremain", "margin", "ratecount",
    "cprice", "ccost", "cfee", "cvol", "cmargin", "net",
    "amount", "balance",
    "opentm", "starttm", "expiretm", "closetm", "lastupdated", "time",
})  # fmt: skip
# Nested objects and their numbers. A sign there makes a price relative: it stays a string, as does "5%".
INNER = {"descr": frozenset({"price", "price2"}), "contingent": frozenset({"price", "price2"})}

_number = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_unsigned = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class _Base(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The fields that every record has.

    ``id`` is stable and unique. ``ts`` is when the frame was received (a backfill or a marker: when it was written), in
    UTC, as the line has it.
    """

    event_name: ClassVar[str]

    id: str
    ts: str
    account: str
    channel: str

    @property
    def time(self) -> datetime:
        """The time ``ts`` as a datetime, in UTC."""
        return datetime.fromisoformat(self.ts)

    @property
    def line(self) -> bytes:
        """The line that the command writes for this record, with its line feed."""
        return render.render({"event_name": self.event_name, "v": render.SCHEMA_VERSION, **self._members()})

    def _members(self) -> dict[str, Any]:
        """Return the keys of the line and their values, without those that are constant for the type."""
        return {_KEYS.get(name, name): getattr(self, name) for name in self.__struct_fields__}


class Item(_Base, frozen=True, kw_only=True):
    """Something of the account: an order, a trade, an execution or a balance entry.

    ``type`` says how it was received. ``sequence`` is Kraken's counter of the frame, None on ``backfill``; ``order_id``
    and ``exec_id`` (the trade id ``T…`` of a fill) are None where the item has none. ``data`` is Kraken's object: its
    bytes unchanged.
    """

    type: Type
    connection: str
    sequence: int | None = None
    order_id: str | None = None
    exec_id: str | None = None
    data: bytes

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The parsed ``data``, cached at the first access; otherwise as ``json`` parses it.

        Every JSON number is a ``Decimal`` of the digits that were sent, with trailing zeros and exponent. So are
        numbers that Spot v1 or REST send as strings (:data:`NUMBERS`).
        """
        fields: dict[str, Any] = json.loads(self.data, parse_float=Decimal, parse_int=Decimal)
        if self.type == "backfill" or self.channel in ("openOrders", "ownTrades"):
            _convert(fields, NUMBERS, _number)
            for name, numbers in INNER.items():
                if isinstance(fields.get(name), dict):
                    _convert(fields[name], numbers, _unsigned)
        return fields

    def _members(self) -> dict[str, Any]:
        return {name: value for name, value in super()._members().items() if value is not None}


class Order(Item, frozen=True, kw_only=True):
    """An order of ``openOrders``: the complete object, or its changes."""

    event_name = "order"


class Trade(Item, frozen=True, kw_only=True):
    """A fill of the channel ``ownTrades``."""

    event_name = "trade"


class Execution(Item, frozen=True, kw_only=True):
    """An order's event or a fill of ``executions``."""

    event_name = "execution"


class Balance(Item, frozen=True, kw_only=True):
    """A balance or a ledger entry of ``balances``."""

    event_name = "balance"


class Unknown(_Base, frozen=True, kw_only=True):
    """A complete frame that this version does not know. ``json`` tells whether it is JSON."""

    event_name = "unknown"

    connection: str | None = None
    json: bool
    data: bytes

    def _members(self) -> dict[str, Any]:
        members = super()._members()
        if not members.pop("json"):
            members["data_base64"] = base64.b64encode(members.pop("data")).decode()
        return members


class Marker(_Base, frozen=True, kw_only=True):
    """A statement about a channel: whether it is complete."""


class Live(Marker, frozen=True, kw_only=True):
    """The channel is complete from here on: it was acknowledged, and its snapshot came before this record.

    ``attempt`` counts connects since it was last live. ``engine`` is the state of Kraken's engine (``online``, …).
    """

    event_name = "feed.live"

    connection: str | None
    attempt: int
    engine: str | None


class Lost(Marker, frozen=True, kw_only=True):
    """The channel is no longer live. ``cause`` is a word, ``detail`` is for people. ``last_ts`` is Kraken's time up to
    which the channel is complete: RFC 3339, UTC."""

    event_name = "feed.lost"

    connection: str | None
    cause: str
    detail: str
    last_sequence: int | None
    last_ts: str


class Backfilled(Marker, frozen=True, kw_only=True):
    """The outage from ``start`` to ``end`` was recovered: ``from`` and ``to`` on the line, Kraken's times in RFC 3339.
    ``orders`` and ``trades`` count the recovered records."""

    event_name = "feed.backfilled"

    start: str
    end: str
    orders: int
    trades: int
    cause: str


class Gap(Marker, frozen=True, kw_only=True):
    """The outage from ``start`` (None: unknown) to ``end`` could not be recovered completely; times as in
    :class:`Backfilled`. ``reason`` is for people."""

    event_name = "feed.gap"

    start: str | None
    end: str
    reason: str
    cause: str


class Status(Marker, frozen=True, kw_only=True):
    """The state of Kraken's engine has changed."""

    event_name = "feed.status"

    connection: str | None
    engine: str


class Stopped(Marker, frozen=True, kw_only=True):
    """The channel's last record of this run; ``reason`` is a signal, a limit, or ``error: …``."""

    event_name = "feed.stopped"

    connection: str | None
    reason: str


Record = Order | Trade | Execution | Balance | Unknown | Live | Lost | Backfilled | Gap | Status | Stopped

_KEYS = {"start": "from", "end": "to"}  # keys of the line that cannot be names in Python

_TYPES: Mapping[str, type[Record]] = {kind.event_name: kind for kind in Record.__args__}
_FIELDS = {field.name: field.type for kind in _TYPES.values() for field in msgspec.structs.fields(kind)}
# Every key that a line can have. Those that it lacks are None or empty.
_Line = msgspec.defstruct(
    "_Line",
    [
        ("event_name", str),
        *((name, kind | None, None) for name, kind in _FIELDS.items() if name != "data"),
        ("data", msgspec.Raw, msgspec.Raw()),
        ("data_base64", bytes, b""),
    ],
    rename=_KEYS,
)
_line: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Line)


def read(line: bytes) -> Record:
    """Parse a line that :mod:`kraken_feed.records.render` has rendered, and return its record."""
    keys = _line.decode(line)
    kind = _TYPES[keys.event_name]
    given = {name: getattr(keys, name) for name in kind.__struct_fields__}
    if "data" in given:
        given["data"] = bytes(keys.data) or keys.data_base64
    if kind is Unknown:
        given["json"] = bool(bytes(keys.data))
    return kind(**given)


def _convert(fields: dict[str, Any], names: frozenset[str], pattern: re.Pattern[str]) -> None:
    """Convert the values of these names that are strings of digits to ``Decimal``, in place."""
    for name in names & fields.keys():
        value = fields[name]
        if isinstance(value, str) and pattern.fullmatch(value):
            fields[name] = Decimal(value)
