"""The account's book: every order, trade and balance, and the only place that changes them."""

from collections.abc import Iterator
from decimal import Decimal
from random import Random

from msgspec.structs import replace

from kraken_feed.simulator.counter import Counter, Tier, engine_cost
from kraken_feed.simulator.ident import Idents
from kraken_feed.simulator.number import ZERO, quantum
from kraken_feed.simulator.order import Change, Entry, Kind, Order, Side, Trade
from kraken_feed.simulator.pair import ASSETS, PAIRS, Asset, Pair

MAKER_FEE = Decimal("0.0016")
TAKER_FEE = Decimal("0.0026")
_MATCHED_S = 0.000009  # an order closes microseconds after its last fill


class Book:
    """Exact decimal bookkeeping.

    Every method that changes something returns the changes, in order, and raises ValueError or KeyError for
    what cannot be: a terminal order never changes again, no fill exceeds what is left.
    """

    def __init__(self, rng: Random, tier: Tier) -> None:
        self._idents = Idents(rng)
        self.tier = tier
        self.open: dict[str, Order] = {}
        self.ends: dict[str, float] = {}  # of the open orders that have an end, when it comes
        self.states: dict[str, list[tuple[float, Order]]] = {}
        self.trades: dict[str, Trade] = {}
        self.entries: dict[str, Entry] = {}
        self.balances: dict[str, Decimal] = {
            asset.v2: (Decimal(1_000_000) / asset.usd).quantize(quantum(4)) for asset in ASSETS
        }
        self._numbers = {pair.rest: 1_000_000 + rng.randrange(60_000_000) for pair in PAIRS}
        self._counters = {pair.rest: Counter(tier.engine_decay, 0.0) for pair in PAIRS}

    def order(self, order_id: str) -> Order:
        """The order's latest state."""
        return self.states[order_id][-1][1]

    def ident(self, prefix: str) -> str:
        """A new id, of something that is no order, trade or ledger entry."""
        return self._idents.transaction(prefix)

    def orders(self) -> Iterator[Order]:
        """The latest state of every order there ever was, oldest first."""
        return (states[-1][1] for states in self.states.values())

    def submit(
        self,
        now: float,
        *,
        pair: Pair,
        side: Side,
        volume: Decimal,
        price: Decimal | None = None,
        userref: int = 0,
        cl_ord_id: str | None = None,
        expires: float | None = None,
        post_only: bool = False,
    ) -> list[Change]:
        """A new order arrives: one `pending` change. Without a price it is a market order."""
        if volume <= 0:
            raise ValueError(f"volume {volume} is not positive")
        if cl_ord_id is not None and userref:
            raise ValueError("cl_ord_id and userref exclude each other")
        order = Order(
            id=self._idents.transaction("O"),
            pair=pair,
            side=side,
            volume=volume,
            price=price,
            opened=now,
            userref=userref,
            cl_ord_id=cl_ord_id,
            expires=expires,
            post_only=post_only,
        )
        return [self._change("pending", order, now, action="add")]

    def accept(self, order_id: str, now: float) -> list[Change]:
        """The order comes onto the book."""
        order = self._alive(order_id)
        if order.status != "pending":
            raise ValueError(f"{order_id} is {order.status}, not pending")
        return [self._change("open", replace(order, status="open"), now)]

    def fill(self, order_id: str, volume: Decimal, now: float, *, price: Decimal | None = None) -> list[Change]:
        """An execution: a `fill`, and a `closed` after it when nothing is left."""
        order = self._alive(order_id)
        if not 0 < volume <= order.remaining:
            raise ValueError(f"cannot fill {volume} of {order.remaining}")
        trade = self._trade(order, volume, now, price)
        self.trades[trade.id] = trade
        entries = tuple(self._entries(trade))
        changes = [self._change("fill", trade.order, now, trade=trade, entries=entries)]
        if not trade.order.remaining:
            at = now + _MATCHED_S
            closed = replace(trade.order, status="closed", closed=at)
            changes.append(self._change("closed", closed, at))
        return changes

    def cancel(self, order_id: str, now: float, reason: str = "User requested") -> list[Change]:
        """The order is taken off the book, filled or not."""
        order = replace(self._alive(order_id), status="canceled", closed=now, reason=reason)
        return [self._change("canceled", order, now, action="cancel")]

    def expire(self, order_id: str, now: float) -> list[Change]:
        """The order's time is over."""
        order = replace(self._alive(order_id), status="expired", closed=now)
        return [self._change("expired", order, now)]

    def amend(
        self, order_id: str, now: float, *, volume: Decimal | None = None, price: Decimal | None = None
    ) -> list[Change]:
        """The order keeps its id and gets another volume or limit price."""
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
            self.ends.pop(order.id, None)
        else:
            if order.expires is not None:
                self.ends[order.id] = order.expires
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
            order,
            vol_exec=order.vol_exec + volume,
            cost=order.cost + cost,
            notional=order.notional + at_price * volume,
            fee=order.fee + fee,
            fee_usd=order.fee_usd + fee_usd,
            trades=(*order.trades, trade_id),
        )
        return Trade(
            id=trade_id,
            position=self._idents.transaction("T"),
            number=self._numbers[order.pair.rest],
            at=now,
            order=after,
            price=at_price,
            volume=volume,
            cost=cost,
            fee=fee,
            fee_usd=fee_usd,
            maker=maker,
        )

    def _entries(self, trade: Trade) -> Iterator[Entry]:
        """Both legs, the asset that is paid first; the fee is taken in the quote currency.

        Balances are settled to the asset's own decimals, which may be fewer than those of a cost.
        """
        pair, sign = trade.order.pair, 1 if trade.order.side == "buy" else -1
        legs = [(pair.quote, -sign * trade.cost, trade.fee), (pair.base, sign * trade.volume, ZERO)]
        for asset, amount, fee in legs if sign > 0 else reversed(legs):
            yield self._entry(trade, asset, amount, fee)

    def _entry(self, trade: Trade, asset: Asset, amount: Decimal, fee: Decimal) -> Entry:
        step = quantum(asset.decimals)
        amount, fee = amount.quantize(step) + ZERO, fee.quantize(step)  # nothing is 0, never -0
        balance = self.balances[asset.v2] + amount - fee
        self.balances[asset.v2] = balance
        entry = Entry(self._idents.transaction("L"), trade.id, trade.at, asset, amount, fee, balance)
        self.entries[entry.id] = entry
        return entry
