"""Keep one account: its book, the flow of its orders, its ledger, and its listening connections."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from .book import Book
from .engine import Engine, apart
from .ledger import Content, Ledger
from .order import Change, Order, Side
from .pair import find

_CROWD = 500  # orders per frame when many come at once


# The rendered content of frames, by options: listeners with the same options share it.
Rendered = dict[Hashable, list[Content]]


class Listener(Protocol):
    """Receives the changes of an account's orders: a connection."""

    def tell(self, changes: Sequence[Change], rendered: Rendered, now: float) -> None:
        """Handle the changes. The listener renders content that is not in `rendered` yet, and adds it."""


@dataclass(eq=False, repr=False)
class Account:
    """The data of one customer of the exchange.

    `number` counts from 1. The methods that change something do not run other events that are due; call the exchange's
    `advance` for that.
    """

    number: int
    ledger: Ledger
    book: Book
    engine: Engine
    mixed_frames: bool
    cancel_at: float = math.inf  # when all orders are canceled, unless the client postpones it
    listeners: list[Listener] = field(default_factory=list)  # in the order of their first valid tokens

    def begin(self, past_trades: int, open_orders: int, now: float) -> None:
        """Give the account a history, which is not sent to anybody."""
        self.ledger.happened(self.engine.past(past_trades, now))
        self.ledger.happened(self.engine.populate(open_orders, now, age=600.0))

    def due(self) -> float:
        """Return when `live` should be called next."""
        return min(self.engine.due(), self.cancel_at)

    def live(self, now: float) -> None:
        """Run the account's orders until now."""
        if self.cancel_at <= now:
            self.cancel_at = math.inf
            for order_id in list(self.book.open):
                self.cancel(order_id, now, "CancelAllOrdersAfter Timeout")
        for frame in self.engine.live(now):
            self.publish(frame, now)

    def publish(self, changes: Sequence[Change], now: float) -> None:
        """Record the changes in the ledger and send them to all listeners, in one frame per channel.

        Without `mixed_frames`, it is one frame per channel and change; both legs of a trade are one event.
        """
        self.ledger.happened(changes)
        for frame in [changes] if self.mixed_frames else apart(changes):
            rendered: Rendered = {}
            for listener in list(self.listeners):
                listener.tell(frame, rendered, now)

    def crowd(self, count: int, now: float) -> None:
        """Add that many new orders, sent in large frames."""
        changes = self.engine.populate(count, now)
        for start in range(0, len(changes), 2 * _CROWD):
            self.publish(changes[start : start + 2 * _CROWD], now)

    def _apart(self, changes: Sequence[Change], now: float) -> None:
        for frame in apart(changes):
            self.publish(frame, now)

    def new_order(
        self,
        now: float,
        *,
        pair: str = "XBT/USD",
        side: Side = "buy",
        volume: str | Decimal = "0.25",
        price: str | Decimal | None = "61000.0",
        userref: int = 0,
        cl_ord_id: str | None = None,
        expires: float | None = None,
        post_only: bool = False,
        accept: bool = True,
    ) -> str:
        """Place a new order, and return its id. It is sent in two frames (pending, open), without `accept` in one."""
        order = Order(
            self.book.ident("O"), find(pair, self.book.pairs), side, Decimal(volume), _decimal(price), now,
            userref=userref, cl_ord_id=cl_ord_id, expires=expires, post_only=post_only,
        )  # fmt: skip
        changes = self.book.submit(order)
        if accept:
            changes += self.book.accept(order.id, now)
        self._apart(changes, now)
        return order.id

    def fill(self, order_id: str, volume: str | Decimal, now: float, *, price: str | Decimal | None = None) -> None:
        """Execute a part of an order, sent in one frame, and in a second one if it completes the order."""
        self._apart(self.book.fill(order_id, Decimal(volume), now, price=_decimal(price)), now)

    def cancel(self, order_id: str, now: float, reason: str = "User requested") -> None:
        """Cancel the order, sent in one frame."""
        self._apart(self.book.cancel(order_id, now, reason), now)

    def expire(self, order_id: str, now: float) -> None:
        """Let the order expire, sent in one frame."""
        self._apart(self.book.expire(order_id, now), now)

    def amend(
        self, order_id: str, now: float, *, volume: str | Decimal | None = None, price: str | Decimal | None = None
    ) -> None:
        """Change the order's volume or limit price, sent in one frame."""
        self._apart(self.book.amend(order_id, now, volume=_decimal(volume), price=_decimal(price)), now)

    def order(self, order_id: str) -> Order:
        """Return the latest state of an order. Raises KeyError for an unknown id."""
        return self.book.order(order_id)


def _decimal(value: str | Decimal | None) -> Decimal | None:
    return None if value is None else Decimal(value)
