"""The open orders that the console and ``watch`` share: merged, ended, swept, whatever the letter case."""

from __future__ import annotations

import pytest

from kraken_feed.records.open_orders import OpenOrders
from kraken_feed.records.view import Order

NEW = b'{"symbol":"BTC/USD","side":"buy","order_qty":2,"order_status":"new","exec_type":"new"}'


def _apply(orders: OpenOrders, data: bytes, kind: str = "update", name: str | None = "OA", by: str = "c1") -> Order:
    return orders.apply("executions", kind, name, data, by)


def test_a_change_completes_what_is_known_of_its_order() -> None:
    orders = OpenOrders()
    _apply(orders, NEW, "snapshot")
    order = _apply(orders, b'{"cum_qty":1.0,"order_status":"partially_filled"}')
    assert (order.pair, order.filled) == ("BTC/USD", "1.0")
    assert orders.open == {"OA": order}


@pytest.mark.parametrize("name", [None, ""])
def test_an_item_without_an_id_is_read_and_not_remembered(name: str | None) -> None:
    orders = OpenOrders()
    assert _apply(orders, NEW, name=name).pair == "BTC/USD"
    assert orders.open == {}


@pytest.mark.parametrize("kind", ["trade", "Trade", "TRADE"])
def test_a_past_fill_of_a_snapshot_changes_no_order(kind: str) -> None:
    orders = OpenOrders()
    _apply(orders, NEW, "snapshot")
    _apply(orders, b'{"exec_type":"%b","order_status":"filled"}' % kind.encode(), "snapshot")
    assert orders.open["OA"].status == "new"


def test_a_complete_snapshot_removes_the_orders_that_it_does_not_list() -> None:
    orders = OpenOrders()
    for name in ("OA", "OB"):
        _apply(orders, NEW, "snapshot", name)
    _apply(orders, NEW, "snapshot", "OB", by="c2")
    orders.sweep("c2")
    assert list(orders.open) == ["OB"]
    assert orders.known("OA") is not None  # REST may still report its end
    _apply(orders, b'{"status":"canceled"}', "backfill", "OA")
    assert orders.known("OA") is None


def test_open_orders_are_taken_over_as_an_output_holds_them() -> None:
    orders = OpenOrders()
    _apply(orders, NEW, "snapshot", "OA")
    _apply(orders, NEW, "snapshot", "OB")
    _apply(orders, b'{"order_status":"canceled"}', name="OC")
    change = b'{"cum_qty":1.0,"order_status":"partially_filled"}'
    orders.sync("executions", {"OB": [], "OC": [NEW], "OD": [NEW, change]})
    assert orders.open.keys() == {"OB", "OD"}, "what has ended does not reopen"
    assert orders.open["OB"].pair == "BTC/USD", "what is known stays"
    assert (orders.open["OD"].pair, orders.open["OD"].filled) == ("BTC/USD", "1.0")
    assert orders.known("OA") is not None, "REST may still report its end"
    orders.sync("executions", {"OA": [NEW]})
    assert orders.open.keys() == {"OA"}
