"""Keep what the screen shows of an account: its open orders, its last fills, and whether that is up to date.

It is built from the records of a tail with complete snapshots (``snapshots="all"``). Orders come from one channel and
fills from one, so that nothing is shown twice. ``executions`` has both; without it they come from ``openOrders`` and
``ownTrades``. Without ``ownTrades``, a fill is the growth of an order's executed volume.
"""

from __future__ import annotations

import contextlib
import copy
import heapq
from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal, DecimalException
from typing import Any

import msgspec

from ..records.types import Execution, Item, Live, Lost, Record, Trade
from ..records.types import Order as OrderRecord
from ..records.view import Fill, Order, is_past_trade, moment, parse, read_execution, read_fill, read_order, take

FILLS_KEPT = 100  # more than any screen shows
DIGITS = 20  # before or after the point; a number with more would be filled with zeros
ENDED_KEPT = 1000  # a snapshot from before an order's end comes within seconds of that end


class Row(msgspec.Struct):
    """An open order. ``changed`` has the fields that have changed, and when. All times here are unix nanoseconds."""

    order_id: str
    order: Order
    connection: str  # the last one that listed it
    opened_ns: int = 0  # 0: not known
    turn: int = 0  # the higher, the later it changed; 0: not since the first snapshot
    changed: dict[str, int] = {}


class Deal(msgspec.Struct, frozen=True):
    """A fill of an account; ``seen_ns`` is 0 if it happened before the watch began."""

    name: str  # the trade id, if it has one
    account: str
    fill: Fill
    time_ns: int
    seen_ns: int


class Account:
    """The open orders of one account, and the state of its channels."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.live: dict[str, bool] = {}  # by channel; those that were never live are missing
        self.since: dict[str, int] = {}  # by channel: since when
        self.ended: OrderedDict[str, None] = OrderedDict()  # so that an old snapshot cannot bring them back
        self.missing: OrderedDict[str, Order] = OrderedDict()  # REST may still report how they ended

    def known(self, order_id: str) -> Order | None:
        """Return the order as it was last seen; None once it has ended."""
        row = self.rows.get(order_id)
        return self.missing.get(order_id) if row is None else row.order

    def end(self, order_id: str) -> None:
        """Remove an order that is no longer open."""
        self.rows.pop(order_id, None)
        self.missing.pop(order_id, None)
        self.ended[order_id] = None
        _trim(self.ended)

    def sweep(self, connection: str | None) -> None:
        """Remove orders that a complete snapshot has not listed: they are no longer open."""
        for order_id in [name for name, row in self.rows.items() if row.connection != connection]:
            self.missing[order_id] = self.rows.pop(order_id).order
        _trim(self.missing)


class Overview:
    """Collects records, and returns the orders and fills to show.

    Args:
        channels: the channels that are tailed.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.orders_from = next((name for name in ("executions", "openOrders") if name in channels), None)
        self.fills_from = next((name for name in ("executions", "ownTrades", "openOrders") if name in channels), None)
        self._accounts: dict[str, Account] = {}
        self._deals: dict[tuple[str, str], Deal] = {}
        self._turns = 0

    def account(self, name: str) -> Account:
        """Return the data of an account; make it if it is missing."""
        return self._accounts.setdefault(name, Account())

    def rows(self, account: str, most: int) -> list[Row]:
        """Return at most ``most`` open orders: those that changed last, then the youngest."""
        rows = self.account(account).rows.values()
        return heapq.nlargest(most, rows, key=lambda row: (row.turn, row.opened_ns, row.order_id))

    def deals(self, most: int) -> list[Deal]:
        """Return at most ``most`` fills of all accounts, the newest first."""
        return heapq.nlargest(most, self._deals.values(), key=lambda deal: (deal.time_ns, deal.name))

    def take(self, record: Record, now_ns: int) -> None:
        """Handle a record that was received now."""
        account = self.account(record.account)
        match record:
            case Live(channel=channel):
                account.live[channel], account.since[channel] = True, moment(record.ts)
                if channel == self.orders_from:
                    account.sweep(record.connection)
            case Lost(channel=channel):
                account.live[channel], account.since[channel] = False, moment(record.last_ts)
            case OrderRecord() | Execution() | Trade():
                if record.channel == self.fills_from and record.exec_id is not None:
                    self._deal(record, record.exec_id, _fill(record), now_ns)
                if record.channel == self.orders_from and record.order_id is not None:
                    self._order(account, record, record.order_id, now_ns)

    def _order(self, account: Account, item: Item, order_id: str, now_ns: int) -> None:
        if is_past_trade(parse(item.data)) or (item.type == "backfill" and item.exec_id is not None):
            return  # a fill with an old state of its order
        known = account.known(order_id)
        order = _after(known, item)
        if self.fills_from == "openOrders" and order_id not in account.ended:
            self._grown(known, order, item, order_id, now_ns)
        if order.ended or item.type == "backfill":
            account.end(order_id)
        elif order_id not in account.ended:
            account.missing.pop(order_id, None)
            self._put(account, Row(order_id, order, item.connection, moment(order.opened)), item, now_ns)

    def _put(self, account: Account, row: Row, item: Item, now_ns: int) -> None:
        """Show the order, and mark the fields that changed."""
        before = account.rows.get(row.order_id)
        account.rows[row.order_id] = row
        row.turn, row.changed = (before.turn, before.changed) if before is not None else (0, {})
        was = Order() if before is None else before.order
        changed = [name for name in Order.__struct_fields__ if getattr(row.order, name) != getattr(was, name)]
        if changed and not self._is_history(item):
            self._turns += 1
            row.turn = self._turns
            row.changed.update(dict.fromkeys(changed, now_ns))

    def _grown(self, known: Order | None, order: Order, item: Item, order_id: str, now_ns: int) -> None:
        """Add a fill that is known only from its order's volume."""
        if known is None and item.type == "snapshot":
            return  # its time is unknown
        volume, cost, price = growth(known or Order(), order)
        if volume:
            fill = Fill(order_id, order.pair, order.side, order.kind, price, volume, cost, item.ts)
            self._deal(item, f"{order_id} {order.filled}", fill, now_ns)

    def _deal(self, item: Item, name: str, fill: Fill, now_ns: int) -> None:
        key = item.account, name
        if key in self._deals:
            return
        self._deals[key] = Deal(name, item.account, fill, moment(fill.time), 0 if self._is_history(item) else now_ns)
        if len(self._deals) > 2 * FILLS_KEPT:
            self._deals = {(deal.account, deal.name): deal for deal in self.deals(FILLS_KEPT)}

    def _is_history(self, item: Item) -> bool:
        """Return whether the item was there before the watch began."""
        return item.type == "snapshot" and item.channel not in self.account(item.account).live


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


def _fill(item: Item) -> Fill:
    """Return the fill of an item that is one. REST's fields are v1's."""
    found = read_execution(item.data) if isinstance(item, Execution) and item.type != "backfill" else None
    return found or read_fill(item.data)


def _after(known: Order | None, item: Item) -> Order:
    """Return the order after the item. An order in a snapshot is complete, unless it is older than the known one."""
    if item.type == "backfill":
        return read_order(item.data)
    order = copy.copy(known) if known is not None and item.type == "update" else Order()
    take(order, item.channel, parse(item.data))
    if known is None or item.type == "update":
        return order
    if growth(order, known)[0]:  # executed volumes never fall
        return known
    order.opened = known.opened or order.opened  # v2 has the time of the event
    return order


def _trim(remembered: OrderedDict[str, Any]) -> None:
    while len(remembered) > ENDED_KEPT:
        remembered.popitem(last=False)
