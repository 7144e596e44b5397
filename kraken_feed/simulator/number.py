"""Numbers as Kraken writes them: plain decimal notation with a fixed count of decimals, zeros kept."""

from decimal import Decimal

from msgspec import Raw

ZERO = Decimal(0)
MONEY_PLACES = 5  # costs and fees are settled to five decimals; all sums of them are exact
V2_PLACES = 10  # v2 prints money and balances with ten
VOLUME_PLACES = 8


def fixed(value: Decimal, places: int) -> str:
    """The value with exactly `places` decimals, never in exponent notation: `0.00010000`."""
    return f"{value:.{places}f}"


def number(value: Decimal, places: int) -> Raw:
    """The same as a JSON number token, which keeps the zeros that a float would lose."""
    return Raw(fixed(value, places).encode())


def number_or_zero(value: Decimal, places: int) -> Raw:
    """As `number`, but nothing is `0.0`, as v2 prints it in order events."""
    return number(value, places) if value else Raw(b"0.0")


def quantum(places: int) -> Decimal:
    """The smallest step of that many decimals: `quantum(2)` is `0.01`."""
    return Decimal(1).scaleb(-places)
