"""Keep one channel on one connection: the permissions it needs, the client's options, and its sequence."""

from dataclasses import dataclass

from msgspec import Struct

from ..faults.fault import Fault

OPEN_TRADES, CLOSED_TRADES, FUNDS = "query-open-trades", "query-closed-trades", "query-funds"

# The permissions that a key needs to subscribe.
PERMISSIONS: dict[str, tuple[str, ...]] = {
    "openOrders": (OPEN_TRADES,),
    "ownTrades": (CLOSED_TRADES,),
    "executions": (OPEN_TRADES, CLOSED_TRADES),
    "balances": (FUNDS,),
}


class Options(Struct, frozen=True):
    """The parameters of a subscription, with Kraken's defaults."""

    snapshot: bool = True
    snap_orders: bool = True
    snap_trades: bool = False
    order_status: bool = True
    ratecounter: bool = False
    all_users: bool = False


class Restart(Struct, frozen=True):
    """A server restart behind an open socket: until it ends, a channel's updates are lost uncounted."""

    until: float
    fault: Fault


@dataclass(eq=False, repr=False)
class Subscription:
    """One channel on one connection, with its own sequence."""

    channel: str
    options: Options
    token: str
    sequence: int = 0
    lose: bool = False  # the next update is counted, but lost
    last: bytes | None = None
    restart: Restart | None = None

    def next_sequence(self) -> int:
        self.sequence += 1
        return self.sequence
