"""Make the exchange of `kraken-feed demo`: busy, and away once, after six seconds, while an order is filled."""

from .exchange import Exchange
from .faults.fault import Fault
from .faults.scenario import Scenario

REST_DECAY = 100.0  # points per second: with Kraken's own, the recovery would take minutes
CUT_S = 6.0  # late enough to show the feed live, early enough to show its return
AWAY_S = 0.9  # for so long it accepts no connection
MISSED_S = 0.4  # after the cut an order comes, is filled and ends: the recovery has something to bring


def demo_exchange(now: float, seed: int = 7) -> Exchange:
    """Return an exchange with about three events per second and five open orders, that is away once."""
    faults = (
        Fault("drop", at=CUT_S, code=1001),
        Fault("upgrade_refused", at=CUT_S, duration=AWAY_S),
        Fault("multi", at=CUT_S + MISSED_S),
    )
    exchange = Exchange(now=now, seed=seed, rate=3.0, open_orders=5, scenario=Scenario(faults=faults))
    for key in exchange.keys.values():
        key.counter.decay = REST_DECAY
    return exchange
