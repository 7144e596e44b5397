"""Write numbers as Kraken does: plain decimal notation with a fixed count of decimals, zeros kept."""

from decimal import Decimal
from functools import lru_cache
from typing import TypeGuard

from msgspec import Raw

ZERO = Decimal(0)
MONEY_PLACES = 5  # costs and fees are settled to at least five decimals (Pair.wide_decimals); their sums are exact
SNAPSHOT_PLACES = 10  # decimals of the costs and fees in a v2 snapshot's orders
VOLUME_PLACES = 8


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether a decoded JSON value is an integer; `true` is not one."""
    return isinstance(value, int) and not isinstance(value, bool)


def fixed(value: Decimal, places: int) -> str:
    """Return the value with exactly `places` decimals, never in exponent notation: `0.00010000`."""
    return f"{value:.{places}f}" if value else _nothing(places)


def number(value: Decimal, places: int) -> Raw:
    """Return the value as a JSON number token, which keeps the zeros that a float would lose."""
    return Raw(f"{value:.{places}f}".encode()) if value else _no_number(places)


@lru_cache
def _nothing(places: int) -> str:
    """Return zero with that many decimals. Most amounts of an order are zero, so the text is cached."""
    return f"{ZERO:.{places}f}"


@lru_cache
def _no_number(places: int) -> Raw:
    return Raw(_nothing(places).encode())


@lru_cache
def quantum(places: int) -> Decimal:
    """Return the smallest step of that many decimals: `quantum(2)` is `0.01`."""
    return Decimal(1).scaleb(-places)
