"""The exchange of the demo."""

from __future__ import annotations

import pytest

from kraken_feed.simulator.demo import AWAY_S, CUT_S, demo_exchange

NOW = 1_795_000_000.0


@pytest.mark.parametrize("seed", range(20))
def test_a_fill_and_an_orders_end_are_missed_while_the_exchange_of_the_demo_is_away(seed: int) -> None:
    exchange = demo_exchange(NOW, seed)
    exchange.advance(NOW + CUT_S)
    before = len(exchange.ledger.changes)
    exchange.advance(NOW + CUT_S + AWAY_S)
    missed = exchange.ledger.changes[before:]
    filled = {change.order.id for change in missed if change.trade is not None}
    assert filled & {change.order.id for change in missed if change.order.status == "closed"}
