"""Keep what the screen shows of an account: its open orders, its last fills, and whether that is up to date.

It is built from the records of a tail with complete snapshots (``snapshots="all"``). Orders come from one channel and
fills from one, so that nothing is shown twice. ``executions`` has both; without it they come from ``openOrders`` and
``ownTrades``. Without ``ownTrades``, a fill is the growth of an order's executed volume.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import msgspec

from ..records.open_orders import OpenOrders, growth
from ..records.types import Execution, Item, Live, Lost, Record, Trade
from ..records.types import Order as OrderRecord
from ..records.view import Fill, Order, moment, read_execution, read_fill

FILLS_KEPT = 100  # more than any screen shows


class Row(msgspec.Struct):
    """An open order. ``changed`` has the fields that have changed, and when. All times here are unix nanoseconds."""

    order_id: str
    order: Order
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
        self.orders = OpenOrders()
        self.rows: dict[str, Row] = {}  # of the open orders
        self.live: dict[str, bool] = {}  # by channel; those that were never live are missing
        self.since: dict[str, int] = {}  # by channel: since when


class Overview:
    """Collects records of these channels, and returns the orders and fills to show."""

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
                    account.orders.sweep(record.connection)
                    account.rows = {name: row for name, row in account.rows.items() if name in account.orders.open}
            case Lost(channel=channel):
                account.live[channel], account.since[channel] = False, moment(record.last_ts)
            case OrderRecord() | Execution() | Trade():
                if record.channel == self.fills_from and record.exec_id is not None:
                    self._deal(record, record.exec_id, _fill(record), now_ns)
                if record.channel == self.orders_from and record.order_id:
                    self._order(account, record, record.order_id, now_ns)

    def _order(self, account: Account, item: Item, order_id: str, now_ns: int) -> None:
        if item.type == "backfill" and item.exec_id is not None:
            return  # a fill with an old state of its order
        orders, rows = account.orders, account.rows
        known, ended = orders.known(order_id), order_id in orders.ended
        order = orders.apply(item.channel, item.type, order_id, item.data, item.connection)
        if self.fills_from == "openOrders" and not ended:
            self._grown(known, order, item, order_id, now_ns)
        if order_id not in orders.open:
            rows.pop(order_id, None)
            return
        was, row = rows.get(order_id), Row(order_id, order, moment(order.opened))
        if was is not None:
            row.turn, row.changed = was.turn, was.changed
        rows[order_id] = row
        before = Order() if was is None else was.order
        changed = [name for name in Order.__struct_fields__ if getattr(order, name) != getattr(before, name)]
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


def _fill(item: Item) -> Fill:
    """Return the fill of an item that is one. REST's fields are v1's."""
    found = read_execution(item.data) if isinstance(item, Execution) and item.type != "backfill" else None
    return found or read_fill(item.data)
