"""Define orders, their trades and ledger entries as frozen states, and the changes between them."""

from decimal import Decimal
from typing import Literal

from msgspec import Struct

from .number import ZERO, fixed, quantum
from .pair import Asset, Pair

Status = Literal["pending", "open", "closed", "canceled", "expired"]
Kind = Literal["pending", "open", "fill", "closed", "canceled", "expired", "amended"]
Side = Literal["buy", "sell"]
TERMINAL: frozenset[str] = frozenset({"closed", "canceled", "expired"})


class Order(Struct, frozen=True, gc=False):
    """One state of an order. A change makes a new state; no state is ever modified."""

    id: str
    pair: Pair
    side: Side
    volume: Decimal
    price: Decimal | None  # None: a market order
    opened: float
    status: Status = "pending"
    userref: int = 0
    cl_ord_id: str | None = None
    expires: float | None = None
    post_only: bool = False
    vol_exec: Decimal = ZERO
    cost: Decimal = ZERO
    notional: Decimal = ZERO  # the cost before it is rounded to money, for the average price
    fee: Decimal = ZERO
    fee_usd: Decimal = ZERO
    closed: float | None = None
    reason: str | None = None
    amended: bool = False
    trades: tuple[str, ...] = ()

    @property
    def ordertype(self) -> str:
        return "market" if self.price is None else "limit"

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL

    @property
    def remaining(self) -> Decimal:
        return self.volume - self.vol_exec

    @property
    def average(self) -> Decimal:
        """The average fill price, 0 before the first fill."""
        if not self.vol_exec:
            return ZERO
        return (self.notional / self.vol_exec).quantize(quantum(self.pair.wide_decimals))

    @property
    def time_in_force(self) -> str:
        return "GTC" if self.expires is None else "GTD"

    @property
    def oflags(self) -> str:
        return "fciq,post" if self.post_only else "fciq"


class Trade(Struct, frozen=True, gc=False):
    """One execution of an order, with its price, volume and fee."""

    id: str
    position: str
    number: int  # unique within the pair
    at: float
    order: Order  # the order's state after this trade
    price: Decimal
    volume: Decimal
    cost: Decimal
    fee: Decimal
    fee_usd: Decimal
    maker: bool


class Entry(Struct, frozen=True, gc=False):
    """One leg of a trade in the account's ledger.

    A quirk can make its id empty, or equal to the other leg's. `fact` identifies it in any case.
    """

    id: str
    ref: str
    at: float
    asset: Asset
    amount: Decimal
    fee: Decimal
    balance: Decimal

    @property
    def fact(self) -> tuple[str, str, str, str, str]:
        """The reference, asset (v2's name), class, amount and balance, the last two as the feed and REST write them."""
        places = self.asset.decimals
        return self.ref, self.asset.v2, self.asset.aclass, fixed(self.amount, places), fixed(self.balance, places)


class Change(Struct, frozen=True, gc=False):
    """A change of an order; `order` is its state afterwards."""

    kind: Kind
    at: float
    order: Order
    trade: Trade | None = None
    entries: tuple[Entry, ...] = ()
    ratecount: int = 0
