"""What a person wants to see of an account: its open orders, its last fills, and whether that is how things are now.

It is made of the records of a tail whose snapshots are whole (``snapshots="all"``). Orders are those of one channel and
fills those of one, so that nothing is there twice: ``executions`` has both; without it there are ``openOrders`` and
``ownTrades``; and without ``ownTrades`` a fill is what an order's executed volume has grown by.
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
DIGITS = 20  # before or after the point; a number with more would be written out in zeros
ENDED_KEPT = 1000  # a snapshot that is older than the end of an order comes within seconds of it


class Row(msgspec.Struct):
    """An open order. ``changed`` has the fields that have changed, and when: unix nanoseconds, as all times here."""

    order_id: str
    order: Order
    connection: str  # that mentioned it last
    opened_ns: int = 0  # 0: not known
    turn: int = 0  # the higher, the later it changed; 0: not since the first snapshot
    changed: dict[str, int] = {}


class Deal(msgspec.Struct, frozen=True):
    """A fill of an account; ``seen_ns`` is 0 if it was history when the watch began."""

    name: str  # the trade id, if it has one
    account: str
    fill: Fill
    time_ns: int
    seen_ns: int


class Account:
    """The open orders of one account, and how its channels are."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.live: dict[str, bool] = {}  # by channel; those that were never live are missing
        self.since: dict[str, int] = {}  # by channel: when it became so
        self.ended: OrderedDict[str, None] = OrderedDict()  # whatever an old snapshot may say
        self.missing: OrderedDict[str, Order] = OrderedDict()  # REST may tell yet how they ended

    def known(self, order_id: str) -> Order | None:
        """The order as it was last seen; None once it has ended."""
        row = self.rows.get(order_id)
        return self.missing.get(order_id) if row is None else row.order

    def end(self, order_id: str) -> None:
        """The order is no longer open."""
        self.rows.pop(order_id, None)
        self.missing.pop(order_id, None)
        self.ended[order_id] = None
        _trim(self.ended)

    def sweep(self, connection: str | None) -> None:
        """A snapshot is whole: what its connection has not mentioned is no longer open."""
        for order_id in [name for name, row in self.rows.items() if row.connection != connection]:
            self.missing[order_id] = self.rows.pop(order_id).order
        _trim(self.missing)


class Board:
    """Takes records in, and says what is on the board now.

    Args:
        channels: those that are tailed.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.orders_from = next((name for name in ("executions", "openOrders") if name in channels), None)
        self.fills_from = next((name for name in ("executions", "ownTrades", "openOrders") if name in channels), None)
        self._accounts: dict[str, Account] = {}
        self._deals: dict[tuple[str, str], Deal] = {}
        self._turns = 0

    def account(self, name: str) -> Account:
        """What is known of an account."""
        return self._accounts.setdefault(name, Account())

    def rows(self, account: str, most: int) -> list[Row]:
        """The open orders that changed last, and below them the youngest; so many at most."""
        rows = self.account(account).rows.values()
        return heapq.nlargest(most, rows, key=lambda row: (row.turn, row.opened_ns, row.order_id))

    def deals(self, most: int) -> list[Deal]:
        """The last fills of all accounts, the newest first; so many at most."""
        return heapq.nlargest(most, self._deals.values(), key=lambda deal: (deal.time_ns, deal.name))

    def take(self, record: Record, now_ns: int) -> None:
        """Take in a record; it came now."""
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
            return  # a fill, and old news of its order
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
        """Put the order on the board, and mark what is new about it."""
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
        """Take in a fill that only its order tells of."""
        if known is None and item.type == "snapshot":
            return  # nobody knows when
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
        """Whether it was so before the watch began."""
        return item.type == "snapshot" and item.channel not in self.account(item.account).live


def growth(before: Order, after: Order) -> tuple[str, str, str]:
    """The volume and the cost by which an order's fills have grown, and the price that they make, in as many digits as
    the average has; empty if there is none."""
    try:
        volume = Decimal(after.filled or "0") - Decimal(before.filled or "0")
        cost = Decimal(after.cost or "0") - Decimal(before.cost or "0")
        if not volume > 0:
            return "", "", ""
        with contextlib.suppress(DecimalException):
            return _plain(volume), _plain(cost), _plain((cost / volume).quantize(Decimal(after.average or "0")))
    except DecimalException:  # they are no numbers
        return "", "", ""
    return _plain(volume), _plain(cost), ""


def _plain(number: Decimal) -> str:
    return f"{number:f}" if -DIGITS < number.adjusted() < DIGITS else str(number)


def _fill(item: Item) -> Fill:
    """The fill of an item that is one. REST's fields are v1's."""
    found = read_execution(item.data) if isinstance(item, Execution) and item.type != "backfill" else None
    return found or read_fill(item.data)


def _after(known: Order | None, item: Item) -> Order:
    """The order after the item. A snapshot's is whole, unless it is older than what is known."""
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
