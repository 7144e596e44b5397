"""Keep the open orders of one channel: what the rows on a terminal and the screen of ``watch`` know of them.

Most changes name neither pair nor side, so each order is remembered until it has ended.
"""

from __future__ import annotations

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from decimal import Decimal, DecimalException
from typing import Any

from .view import Fields, Order, is_past_trade, parse, read_order, take

DIGITS = 20  # before or after the point; a number with more would be filled with zeros
ENDED_KEPT = 1000  # a snapshot from before an order's end comes within seconds of that end


class OpenOrders:
    """The open orders of one channel (``openOrders`` or ``executions``) of one account, by id."""

    def __init__(self) -> None:
        self.open: dict[str, Order] = {}
        self.ended: OrderedDict[str, None] = OrderedDict()  # so that an old snapshot cannot bring them back
        self._missing: OrderedDict[str, Order] = OrderedDict()  # REST may still report how they ended
        self._listed: dict[str, str | None] = {}  # by id, the last connection that listed the order

    def known(self, order_id: str) -> Order | None:
        """Return the order as it was last seen; None once it has ended."""
        return self.open.get(order_id) or self._missing.get(order_id)

    def apply(self, channel: str, kind: str, order_id: str | None, data: bytes, connection: str | None) -> Order:
        """Return the order as it is after an item of the channel.

        ``kind`` is the record's ``type``: a snapshot has the complete order, an update its changes, a backfill an order
        that has ended. An item without an id is not remembered: two of them need not belong to one order.
        """
        known = self.known(order_id) if order_id else None
        fields = parse(data)
        if is_past_trade(fields):
            return known or Order()
        order = read_order(data) if kind == "backfill" else _after(known, channel, kind, fields)
        if not order_id:
            return order
        if order.ended or kind == "backfill":
            for remembered in (self.open, self._listed, self._missing):
                remembered.pop(order_id, None)
            self.ended[order_id] = None
            _trim(self.ended)
        elif order_id not in self.ended:
            self._missing.pop(order_id, None)
            self.open[order_id], self._listed[order_id] = order, connection
        return order

    def sync(self, channel: str, orders: Mapping[str, Sequence[bytes]]) -> None:
        """Know the same open orders as ``orders``: each as a complete object and its changes. What is known of an order
        already stays."""
        for order_id in self.open.keys() - orders.keys():
            self._missing[order_id] = self.open.pop(order_id)
            self._listed.pop(order_id, None)
        _trim(self._missing)
        for order_id in orders.keys() - self.open.keys() - self.ended.keys():
            self._missing.pop(order_id, Order())
            order = self.open[order_id] = Order()
            for part in orders[order_id]:
                take(order, channel, parse(part))

    def sweep(self, connection: str | None) -> None:
        """Remove the orders that this connection's complete snapshot has not listed: they are no longer open."""
        for order_id in [name for name, listed in self._listed.items() if listed != connection]:
            self._missing[order_id] = self.open.pop(order_id)
            del self._listed[order_id]
        _trim(self._missing)


def _after(known: Order | None, channel: str, kind: str, fields: Fields) -> Order:
    """Return the order after an item. An order in a snapshot is complete, unless it is older than the known one."""
    order = copy.copy(known) if known is not None and kind == "update" else Order()
    take(order, channel, fields)
    if known is None or kind == "update":
        return order
    if growth(order, known)[0]:  # executed volumes never fall
        return known
    order.opened = known.opened or order.opened  # v2 has the time of the event
    return order


def growth(before: Order, after: Order) -> tuple[str, str, str]:
    """Return the volume and the cost that an order's fills have gained, and their price with the average's digits;
    empty texts if they have not grown."""
    try:
        volume = Decimal(after.filled or "0") - Decimal(before.filled or "0")
        cost = Decimal(after.cost or "0") - Decimal(before.cost or "0")
        if not volume > 0:
            return "", "", ""
        with contextlib.suppress(DecimalException):
            return _plain(volume), _plain(cost), _plain((cost / volume).quantize(Decimal(after.average or "0")))
    except DecimalException:  # they are not numbers
        return "", "", ""
    return _plain(volume), _plain(cost), ""


def _plain(number: Decimal) -> str:
    return f"{number:f}" if -DIGITS < number.adjusted() < DIGITS else str(number)


def _trim(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > ENDED_KEPT:
        remembered.popitem(last=False)
