"""Make the exchange of `kraken-feed demo`: busy, and disconnected once, after six seconds."""

from .exchange import Exchange
from .faults.fault import Fault
from .faults.scenario import Scenario

REST_DECAY = 100.0  # points per second: with Kraken's own, the recovery would take minutes
CUT_S = 6.0  # late enough to show the feed live, early enough to show its return


def demo_exchange(now: float, seed: int = 7) -> Exchange:
    """Return an exchange with about three events per second, five open orders, and a disconnect after six seconds."""
    cut = Fault("drop", at=CUT_S, code=1001)
    exchange = Exchange(now=now, seed=seed, rate=3.0, open_orders=5, scenario=Scenario(faults=(cut,)))
    for key in exchange.keys.values():
        key.counter.decay = REST_DECAY
    return exchange
