"""Merge and compare the states of one order: a complete object and the changes since, as the bytes that Kraken sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import msgspec

from ..records.view import Fields, parse

Difference = Literal["same", "newer", "older"]

# Members that differ between a change and a snapshot of the same state: v2's kind of event and its time, and a fee that
# is the trade's in one and the order's in the other.
_PASSING = frozenset({"exec_type", "timestamp", "fee_usd_equiv", "lastupdated", "ratecount"})
EXECUTED = ("vol_exec", "cum_qty")  # cumulative volumes: v1's and REST's, v2's

_exact = msgspec.json.Decoder(float_hook=Decimal).decode


def merged(parts: Sequence[bytes]) -> Fields:
    """Merge a complete object and its changes into one set of fields, each as the bytes that were sent."""
    fields: Fields = {}
    for part in parts:
        fields.update(parse(part))
    return fields


def fold(parts: Sequence[bytes]) -> bytes:
    """Merge a complete object and its changes into one object."""
    fields = merged(parts)
    try:
        return msgspec.json.encode(fields)
    except UnicodeEncodeError:  # a name with a lone surrogate
        members = (b"%b:%b" % (json.dumps(name).encode(), bytes(raw)) for name, raw in fields.items())
        return b"{%b}" % b",".join(members)


def compare_fields(before: Fields, now: Fields) -> Difference:
    """Return how a snapshot's fields differ from the known state of the order.

    Cumulative volumes never fall, so an object with less executed is older. Otherwise all members are compared, except
    those of an event (its kind, its time). Numbers are compared by value, since a snapshot may print them with another
    scale. An object that is unreadable or empty counts as newer.
    """
    if not now:
        return "newer"
    for name in EXECUTED:
        if name in now and name in before and (number(now[name]) or 0) < (number(before[name]) or 0):
            return "older"
    return "same" if all(n in _PASSING or _equal(before.get(n), raw) for n, raw in now.items()) else "newer"


def _equal(before: msgspec.Raw | None, now: msgspec.Raw) -> bool:
    if before is None:  # a new member: the same state only if it is empty
        return bytes(now) in (b"null", b'""', b"false") or number(now) == 0
    if bytes(before) == bytes(now):
        return True
    numbers = number(before), number(now)
    if None not in numbers:
        return numbers[0] == numbers[1]
    try:
        return _decoded(before) == _decoded(now)
    except (
        ValueError,
        InvalidOperation,
        RecursionError,
    ):  # since Python 3.14 deep nesting decodes, but cannot be compared
        return False


def _decoded(raw: msgspec.Raw) -> object:
    try:
        return _exact(raw)
    except msgspec.DecodeError:  # a lone surrogate
        return json.loads(bytes(raw), parse_float=Decimal)


def number(raw: msgspec.Raw | None) -> Decimal | None:
    """Return the value of a JSON number, or of a string that holds one; None if it is neither."""
    if raw is None:
        return None
    try:
        value = Decimal(bytes(raw).strip(b'"').decode())
    except (InvalidOperation, UnicodeDecodeError):
        return None
    return value if value.is_finite() else None
