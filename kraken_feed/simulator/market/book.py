"""Keep the account's book: every order, trade and balance. Only this module changes them."""

import math
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from heapq import heappop, heappush
from random import Random

from msgspec.structs import replace

from ..quirks.quirk import USUAL, Quirks, draw, share
from .counter import Counter, Tier, engine_cost
from .ident import Idents
from .number import ZERO, quantum
from .order import Change, Entry, Kind, Order, Trade
from .pair import ASSETS, CURRENCY, PAIRS, SHARE_PAIR, SOL_SHARE, TOKENIZED, Asset
from .timeline import Timeline

MAKER_FEE = Decimal("0.0016")
TAKER_FEE = Decimal("0.0026")
_MATCHED_S = 0.000009  # an order closes microseconds after its last fill


class Book:
    """The account's book, with exact decimals.

    Every method that changes something returns the changes, in order. It raises ValueError or KeyError for impossible
    changes: a terminal order never changes again, and no fill exceeds the remaining volume.
    """

    def __init__(self, rng: Random, tier: Tier, quirks: Quirks = USUAL) -> None:
        self._idents = Idents(rng)
        self._quirks = quirks
        self.tier = tier
        self.assets = (*ASSETS, SOL_SHARE) if quirks.asset_classes else ASSETS
        self.pairs = (*PAIRS, SHARE_PAIR) if quirks.asset_classes else PAIRS
        self.open: dict[str, Order] = {}
        self.states: dict[str, list[tuple[float, Order]]] = {}
        self.ended = Timeline[Order](lambda order: order.closed or order.opened)
        self.trades: dict[str, Trade] = {}
        self.fills = Timeline[Trade](lambda trade: trade.at, partial(_raw, quirks))
        self.entries: dict[str, Timeline[Entry]] = {
            aclass: Timeline[Entry](lambda entry: entry.at) for aclass in (CURRENCY, TOKENIZED)
        }
        self.entry_times: dict[str, float] = {}
        self.balances: dict[str, Decimal] = {
            asset.key: (Decimal(1_000_000) / asset.usd).quantize(quantum(4)) for asset in self.assets
        }
        self._expiries: list[tuple[float, str]] = []  # a heap; orders that have ended are still in it
        self._legs: dict[str, tuple[str, ...]] = {}
        self._numbers = {pair.rest: 1_000_000 + rng.randrange(60_000_000) for pair in self.pairs}
        self._counters = {pair.rest: Counter(tier.engine_decay, 0.0) for pair in self.pairs}

    def order(self, order_id: str) -> Order:
        """Return the latest state of an order. Raises KeyError for an unknown id."""
        return self.states[order_id][-1][1]

    def ident(self, prefix: str) -> str:
        """Return a new id."""
        return self._idents.transaction(prefix)

    def orders(self) -> Iterator[Order]:
        """Yield the latest state of every order, oldest first."""
        return (states[-1][1] for states in self.states.values())

    def legs(self, trade_id: str) -> tuple[str, ...]:
        """Return the ids of a trade's ledger entries."""
        return self._legs.get(trade_id, ())

    def expiry(self) -> float:
        """Return when the next open order expires."""
        heap = self._expiries
        while heap and heap[0][1] not in self.open:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def expiring(self, now: float) -> list[str]:
        """Return the open orders whose end has come, in the order of their ends, each only once."""
        found = []
        while self.expiry() <= now:
            found.append(heappop(self._expiries)[1])
        return found

    def submit(self, order: Order) -> list[Change]:
        """Add a new order: one `pending` change."""
        if order.volume <= 0:
            raise ValueError(f"volume {order.volume} is not positive")
        if order.cl_ord_id is not None and order.userref:
            raise ValueError("cl_ord_id and userref exclude each other")
        return [self._change("pending", order, order.opened, action="add")]

    def accept(self, order_id: str, now: float) -> list[Change]:
        """Accept a pending order onto the book."""
        order = self._alive(order_id)
        if order.status != "pending":
            raise ValueError(f"{order_id} is {order.status}, not pending")
        return [self._change("open", replace(order, status="open"), now)]

    def fill(self, order_id: str, volume: Decimal, now: float, *, price: Decimal | None = None) -> list[Change]:
        """Execute a part of an order: a `fill`, and a `closed` after it if nothing is left."""
        order = self._alive(order_id)
        if not 0 < volume <= order.remaining:
            raise ValueError(f"cannot fill {volume} of {order.remaining}")
        trade = self._trade(order, volume, now, price)
        self.trades[trade.id] = trade
        self.fills.add(trade)
        entries = tuple(self._entries(trade))
        self._legs[trade.id] = tuple(entry.id for entry in entries)
        changes = [self._change("fill", trade.order, now, trade=trade, entries=entries)]
        if not trade.order.remaining:
            at = now + _MATCHED_S
            closed = replace(trade.order, status="closed", closed=at)
            changes.append(self._change("closed", closed, at))
        return changes

    def cancel(self, order_id: str, now: float, reason: str = "User requested") -> list[Change]:
        """Cancel the order, filled in part or not: one `canceled` change."""
        order = replace(self._alive(order_id), status="canceled", closed=now, reason=reason)
        return [self._change("canceled", order, now, action="cancel")]

    def expire(self, order_id: str, now: float) -> list[Change]:
        """Expire the order: one `expired` change."""
        order = replace(self._alive(order_id), status="expired", closed=now)
        return [self._change("expired", order, now)]

    def amend(
        self, order_id: str, now: float, *, volume: Decimal | None = None, price: Decimal | None = None
    ) -> list[Change]:
        """Change the order's volume or limit price; it keeps its id."""
        order = self._alive(order_id)
        if volume is not None and volume <= order.vol_exec:
            raise ValueError(f"volume {volume} is not above what is executed, {order.vol_exec}")
        if price is not None and order.price is None:
            raise ValueError("a market order has no limit price")
        amended = replace(
            order,
            volume=order.volume if volume is None else volume,
            price=order.price if price is None else price,
            amended=True,
        )
        return [self._change("amended", amended, now, action="amend")]

    def _alive(self, order_id: str) -> Order:
        order = self.order(order_id)
        if order.terminal:
            raise ValueError(f"{order_id} is {order.status}")
        return order

    def _change(
        self,
        kind: Kind,
        order: Order,
        at: float,
        *,
        trade: Trade | None = None,
        entries: tuple[Entry, ...] = (),
        action: str | None = None,
    ) -> Change:
        self.states.setdefault(order.id, []).append((at, order))
        if order.terminal:
            self.open.pop(order.id, None)
            self.ended.add(order)
        else:
            if order.expires is not None and kind == "pending":
                heappush(self._expiries, (order.expires, order.id))
            self.open[order.id] = order
        counter = self._counters[order.pair.rest]
        if action is not None:
            counter.add(engine_cost(action, at - order.opened), at)
        return Change(kind, at, order, trade, entries, int(counter.level(at)))

    def _trade(self, order: Order, volume: Decimal, now: float, price: Decimal | None) -> Trade:
        at_price = order.price if price is None else price
        if at_price is None:
            raise ValueError("a fill of a market order needs a price")
        maker = order.price is not None
        money = quantum(order.pair.wide_decimals)
        cost = (at_price * volume).quantize(money)
        fee = (cost * (MAKER_FEE if maker else TAKER_FEE)).quantize(money)
        fee_usd = (fee * order.pair.quote.usd).quantize(money)
        trade_id = self._idents.transaction("T")
        self._numbers[order.pair.rest] += 1
        after = replace(
            order, vol_exec=order.vol_exec + volume, cost=order.cost + cost, fee=order.fee + fee,
            fee_usd=order.fee_usd + fee_usd, notional=order.notional + at_price * volume,
            trades=(*order.trades, trade_id),
        )  # fmt: skip
        number, position = self._numbers[order.pair.rest], self._idents.transaction("T")
        return Trade(trade_id, position, number, now, after, at_price, volume, cost, fee, fee_usd, maker)

    def _entries(self, trade: Trade) -> Iterator[Entry]:
        """Yield both legs, the asset that is paid first. The fee is taken in the quote currency.

        Balances are settled to the asset's own decimals, which may be fewer than those of a cost.
        """
        pair, sign = trade.order.pair, 1 if trade.order.side == "buy" else -1
        legs = [(pair.quote, -sign * trade.cost, trade.fee), (pair.base, sign * trade.volume, ZERO)]
        ident = self._idents.transaction("L")
        idents = [ident, self._idents.transaction("L")]
        if share(self._quirks.shared_ledger_ids, "shared ledger id", trade.id):
            idents = [ident, ident]
        for ident, (asset, amount, fee) in zip(idents, legs if sign > 0 else reversed(legs), strict=True):
            if share(self._quirks.empty_ledger_ids, "empty ledger id", f"{trade.id} {asset.key}"):
                yield self._entry("", trade, asset, amount, fee)
            else:
                yield self._entry(ident, trade, asset, amount, fee)

    def _entry(self, ident: str, trade: Trade, asset: Asset, amount: Decimal, fee: Decimal) -> Entry:
        step = quantum(asset.decimals)
        amount, fee = amount.quantize(step) + ZERO, fee.quantize(step)  # nothing is 0, never -0
        balance = self.balances[asset.key] + amount - fee
        self.balances[asset.key] = balance
        entry = Entry(ident, trade.id, trade.at, asset, amount, fee, balance)
        self.entries[asset.aclass].add(entry)
        if ident:
            self.entry_times[ident] = entry.at
        return entry


def _raw(quirks: Quirks, trade: Trade) -> int:
    """Return how many fills a trade was before they were merged: a taker's may have been several."""
    return 2 + int(3 * draw("raw fills", trade.id)) if quirks.merged_pages and not trade.maker else 1
