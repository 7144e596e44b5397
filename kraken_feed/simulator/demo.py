"""The exchange of a fifteen second show: lively, and cut off once."""

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario

REST_DECAY = 100.0  # points per second: Kraken's own counter would let the recovery take longer than the show
CUT_S = 6.0  # late enough to have seen the feed live, early enough to see it come back


def demo_exchange(now: float, seed: int = 7) -> Exchange:
    """About three events a second, five open orders, one forced disconnect after six seconds."""
    cut = Fault("drop", at=CUT_S, code=1001)
    exchange = Exchange(now=now, seed=seed, rate=3.0, open_orders=5, scenario=Scenario(faults=(cut,)))
    for key in exchange.keys.values():
        key.counter.decay = REST_DECAY
    return exchange
