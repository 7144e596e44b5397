"""Define assets and pairs, each with its three spellings: REST, v1 and v2."""

from collections.abc import Sequence
from decimal import Decimal

from msgspec import Struct
from msgspec.structs import force_setattr

from .number import MONEY_PLACES

CURRENCY, TOKENIZED = "currency", "tokenized_asset"


class Asset(Struct, frozen=True):
    """An asset: `XXBT` in REST, `XBT` in v1, `BTC` in v2."""

    rest: str
    v1: str
    v2: str
    usd: Decimal  # the value of one unit, for fee_usd_equiv
    decimals: int = 10  # of its balance and of the ledger's amounts
    aclass: str = CURRENCY

    @property
    def key(self) -> str:
        """The unique name: the same name in another class is another asset."""
        return self.v2 if self.aclass == CURRENCY else f"{self.v2}:{self.aclass}"

    @property
    def rest_balance(self) -> str:
        """The name in REST's Balance, which marks tokenized assets."""
        return self.rest if self.aclass == CURRENCY else f"{self.rest}.T"


class Pair(Struct, frozen=True):
    """A base and a quote asset, and the decimals of their prices and amounts."""

    rest: str
    base: Asset
    quote: Asset
    price_decimals: int
    price: Decimal  # the market's price when the exchange starts
    lot: Decimal  # a usual volume
    base_name: str = ""  # in the pair's names, if it is not the asset's own
    wide_decimals: int = MONEY_PLACES  # of costs and fees everywhere, and of prices in v1 and the trade history

    def __post_init__(self) -> None:
        force_setattr(self, "wide_decimals", max(MONEY_PLACES, self.price_decimals))

    @property
    def v1(self) -> str:
        return f"{self.base_name or self.base.v1}/{self.quote.v1}"

    @property
    def v2(self) -> str:
        return f"{self.base_name or self.base.v2}/{self.quote.v2}"

    @property
    def altname(self) -> str:
        return f"{self.base_name or self.base.v1}{self.quote.v1}"


XBT = Asset("XXBT", "XBT", "BTC", Decimal(61000))
ETH = Asset("XETH", "ETH", "ETH", Decimal(3300))
SOL = Asset("SOL", "SOL", "SOL", Decimal(150))
ADA = Asset("ADA", "ADA", "ADA", Decimal("0.5"))
USD = Asset("ZUSD", "USD", "USD", Decimal(1), 4)
EUR = Asset("ZEUR", "EUR", "EUR", Decimal("1.08"), 4)
ASSETS = (XBT, ETH, SOL, ADA, USD, EUR)

PAIRS = (
    Pair("XXBTZUSD", XBT, USD, 1, Decimal(61000), Decimal("0.05")),
    Pair("XETHZUSD", ETH, USD, 2, Decimal(3300), Decimal("0.8")),
    Pair("SOLUSD", SOL, USD, 2, Decimal(150), Decimal(12)),
    Pair("ADAEUR", ADA, EUR, 6, Decimal("0.45"), Decimal(900)),
)

# A share that has the name of a currency, for exchanges that know both classes.
SOL_SHARE = Asset("SOL", "SOL", "SOL", Decimal(12), aclass=TOKENIZED)
SHARE_PAIR = Pair("SOLxUSD", SOL_SHARE, USD, 2, Decimal(12), Decimal(40), base_name="SOLx")


def find(name: str, pairs: Sequence[Pair] = PAIRS) -> Pair:
    """Return the pair with that name in any spelling. Raises KeyError if there is none."""
    for pair in pairs:
        if name in (pair.v1, pair.v2, pair.rest, pair.altname):
            return pair
    raise KeyError(name)
