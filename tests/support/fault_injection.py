"""What long runs of the command under faults have in common: scaled time, the faults of an ordinary day.

Seconds are real, but an account that is as busy as these, REST's lag of a minute and the key's call counter are a
hundred times faster than Kraken's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import OCCASION_KINDS, PEER_KINDS, Fault
from kraken_feed.simulator.rest.reply import Reply

from .installed import Site

ALL = ("openOrders", "ownTrades", "executions", "balances")
LAG_S = 1.0  # REST's, for Kraken's minute
DECAY = 0.33 * 600  # the Starter key's counter; the account is busier than a real one by about as much
MIB = 1 << 20

SCALED = f"""
[connection]
open_timeout_s = 3.0
ack_timeout_s = 1.0
silence_s = 2.5
[reconnect]
initial_s = 0.02
max_s = 0.2
stable_s = 1.0
budget = 1000000
[backfill]
overlap_s = 5.0
second_pass_s = {1.5 * LAG_S}
rest_counter = 15
rest_decay = {DECAY}
"""

# What a client gets over within seconds, one step after the other.
ORDINARY: tuple[Sequence[Fault], ...] = (
    (Fault("drop"),),
    (Fault("drop", code=1001),),
    (Fault("half_open", duration=3.5),),
    (Fault("half_open", duration=0.7),),
    (Fault("silent", duration=3.5),),
    (Fault("unsubscribe"),),
    (Fault("sequence_skip"),),
    (Fault("sequence_skip", variant="lost"),),
    (Fault("duplicate_frame"),),
    (Fault("garbage_frame"),),
    (Fault("garbage_frame", variant="not_utf8"),),
    (Fault("garbage_frame", variant="other_shape"),),
    (Fault("garbage_frame", variant="nested"),),
    (Fault("big_frame", bytes=MIB),),
    (Fault("unknown_frame"), Fault("unknown_frame", variant="channel")),
    (Fault("split", duration=1.0), Fault("multi")),
    (Fault("split", duration=1.0, variant="writes"), Fault("many_orders", count=20)),
    (Fault("multi"),),
    (Fault("maintenance", maintenance=0.3, cancel_only=0.2, post_only=0.2),),
    (Fault("maintenance", variant="untold", maintenance=0.3, cancel_only=0.2, post_only=0.2),),
    (Fault("late_online", seconds=0.5),),
    (Fault("resnapshot", duration=0.3),),
    (Fault("resnapshot", duration=0.3, variant="jump"),),
    (Fault("no_pong"),),
    (Fault("no_greeting"),),
    (Fault("no_ack"),),
    (Fault("no_ack", variant="lost"),),
    (Fault("no_snapshot"),),
    (Fault("refuse_token"),),
    (Fault("delay_ack", seconds=0.3), Fault("early_data")),
    (Fault("msg_rate"),),
    (Fault("upgrade_refused", times=2),),
    (Fault("expired_token"),),
    (Fault("http_502", method="GetWebSocketsToken"),),
    (Fault("http_502", method="TradesHistory"),),
    (Fault("rest_error", text="EGeneral:Internal error"),),
    (Fault("rest_timeout", seconds=0.3),),
)


class CountingExchange(Exchange):
    """Counts the calls of REST."""

    def __init__(self, **options: Any) -> None:
        self.calls: Counter[str] = Counter()
        self.limited = 0
        super().__init__(**options)

    def rest(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        """One request, counted."""
        self.calls[path.rpartition("/")[2]] += 1
        reply = super().rest(method, path, headers, body, now)
        self.limited += b"EAPI:Rate limit exceeded" in reply.body
        return reply


def drain_faster(exchange: Exchange) -> None:
    """Scale the call counters of all keys."""
    for key in exchange.keys.values():
        key.counter.decay = DECAY


def strike(place: Site, faults: Sequence[Fault], account: int | None = None) -> None:
    """Let these happen, to one account's connections or to everybody's; what waits for a connect gets one."""
    place.inject(*(replace(fault, account=account) if fault.kind in PEER_KINDS else fault for fault in faults))
    if any(fault.kind in OCCASION_KINDS for fault in faults):
        place.inject(Fault("drop", code=1001, account=account))
