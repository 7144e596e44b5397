"""The book: what may happen to an order, and what may not."""

from decimal import Decimal

import pytest

from tests.support.account import T0, quiet


def test_a_terminal_order_never_changes_again() -> None:
    exchange = quiet()
    mine = exchange.new_order(T0, volume="1")
    exchange.cancel(mine, T0 + 1)
    with pytest.raises(ValueError, match="is canceled"):
        exchange.fill(mine, "0.1", T0 + 2)
    with pytest.raises(ValueError, match="is canceled"):
        exchange.cancel(mine, T0 + 2)
    with pytest.raises(ValueError, match="is canceled"):
        exchange.expire(mine, T0 + 2)
    with pytest.raises(ValueError, match="is canceled"):
        exchange.amend(mine, T0 + 2, volume="2")


def test_no_fill_exceeds_what_is_left() -> None:
    exchange = quiet()
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "0.6", T0)
    for volume in ("0.5", "0", "-1"):
        with pytest.raises(ValueError, match="cannot fill"):
            exchange.fill(mine, volume, T0)


def test_a_market_order_needs_a_price_to_be_filled_and_pays_the_taker_fee() -> None:
    exchange = quiet()
    mine = exchange.new_order(T0, volume="1", price=None)
    with pytest.raises(ValueError, match="price"):
        exchange.fill(mine, "1", T0)
    exchange.fill(mine, "0.5", T0, price="61000.0")
    exchange.fill(mine, "0.5", T0, price="61001.0")
    order = exchange.order(mine)
    assert (order.status, order.average) == ("closed", Decimal("61000.5"))
    assert order.fee == Decimal("158.60130")


def test_an_amend_keeps_the_volume_above_what_is_executed() -> None:
    exchange = quiet()
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "0.6", T0)
    with pytest.raises(ValueError, match="not above"):
        exchange.amend(mine, T0, volume="0.6")


def test_a_client_id_and_a_userref_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude"):
        quiet().new_order(T0, userref=1, cl_ord_id="a")


def test_with_rate_zero_nothing_happens_by_itself_not_even_an_expiry() -> None:
    exchange = quiet()
    exchange.new_order(T0, expires=T0 + 1)
    before = len(exchange.ledger.changes)
    exchange.advance(T0 + 10_000)
    assert len(exchange.ledger.changes) == before


def test_orders_with_an_end_expire_at_it() -> None:
    exchange = quiet(rate=0.000001)
    mine = exchange.new_order(T0, expires=T0 + 30)
    exchange.advance(T0 + 29.9)
    assert exchange.order(mine).status == "open"
    exchange.advance(T0 + 31)
    assert (exchange.order(mine).status, exchange.order(mine).closed) == ("expired", T0 + 30)


def test_a_lively_exchange_shows_every_kind_of_change() -> None:
    exchange = quiet(rate=20.0)
    exchange.advance(T0 + 120)
    seen = {change.kind for change in exchange.ledger.changes}
    assert seen == {"pending", "open", "fill", "closed", "canceled", "expired", "amended"}
    orders = [change.order for change in exchange.ledger.changes]
    assert {order.ordertype for order in orders} == {"limit", "market"}
    assert any(order.cl_ord_id for order in orders)
    assert any(order.userref for order in orders)
    assert len({order.pair.rest for order in orders}) == 4
