"""The exchange as a whole, without sockets, clock or disk: time is an argument, chance comes from the seed."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from random import Random
from typing import Literal

from msgspec import Struct

from kraken_feed.simulator.book import Book
from kraken_feed.simulator.counter import TIERS, Counter
from kraken_feed.simulator.engine import Engine, apart
from kraken_feed.simulator.fault import EXCHANGE_KINDS, OCCASION_KINDS, Fault
from kraken_feed.simulator.ident import connection_id, public_key, secret
from kraken_feed.simulator.key import READ_PERMISSIONS, ApiKey
from kraken_feed.simulator.ledger import Ledger
from kraken_feed.simulator.order import Change, Order, Side
from kraken_feed.simulator.pair import find
from kraken_feed.simulator.peer import Peer
from kraken_feed.simulator.rest_api import Reply, RestApi
from kraken_feed.simulator.scenario import Scenario
from kraken_feed.simulator.schedule import Schedule
from kraken_feed.simulator.strike import strike
from kraken_feed.simulator.token import LIFETIME_S, Tokens

_CROWD = 500  # orders a frame when many come at once
_RECOVERY: tuple[Literal["maintenance", "cancel_only", "post_only"], ...] = (
    "maintenance",
    "cancel_only",
    "post_only",
)


class Refused(Struct, frozen=True):
    """A WebSocket upgrade that the edge turns down."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Waiting(Struct, frozen=True):
    """A strike that finds nothing to hit yet; with a peer, it is meant for that one only."""

    fault: Fault
    due: float
    peer: Peer | None = None


class Exchange:
    """One account at one exchange.

    `now` is unix seconds and never goes back. Call `advance` at `next_wakeup` at the latest, and drain every
    peer's `outgoing` after each call. The same seed gives the same keys, ids and flow of orders, whatever the
    clients do.
    """

    def __init__(
        self,
        *,
        now: float,
        seed: int = 0,
        rate: float = 2.0,
        scenario: Scenario | None = None,
        open_orders: int = 5,
        past_trades: int = 3,
        ledger: Ledger | None = None,
        strict_queries: bool = False,
    ) -> None:
        scenario = scenario or Scenario()
        self.started = self._moment = now
        self.rest_lag = scenario.rest_lag
        self.mixed_frames = scenario.mixed_frames
        self.strict_queries = strict_queries  # an unknown txid is an error instead of being left out
        self.tier = TIERS[scenario.tier]
        self.ledger = ledger or Ledger()
        self.book = Book(_rng(seed, "ids"), self.tier)
        self.engine = Engine(self.book, _rng(seed, "flow"), rate, now)
        self.schedule = Schedule(_rng(seed, "faults"), scenario.random, now)
        self.tokens = Tokens(_rng(seed, "tokens"))
        self.keys: dict[str, ApiKey] = {}
        self.peers: list[Peer] = []
        self.connections = 0
        self.token_calls = 0
        self._key_rng = _rng(seed, "keys")
        self._connection_rng = _rng(seed, "connections")
        self._waiting: list[_Waiting] = []
        self._recovery: list[tuple[float, str]] = []
        self._rest = RestApi(self)
        first = self.add_key(now=now)
        self.key, self.secret = first.key, first.secret
        self.ledger.happened(self.engine.past(past_trades, now))
        self.ledger.happened(self.engine.populate(open_orders, now, age=600.0))
        for fault in scenario.faults:
            self.schedule.add(fault, now)

    @property
    def status(self) -> str:
        """The engine's state: online, maintenance, cancel_only or post_only."""
        return self.engine.status

    def add_key(
        self,
        *,
        permissions: Sequence[str] = READ_PERMISSIONS,
        otp: str | None = None,
        now: float | None = None,
    ) -> ApiKey:
        """A further API key of the same account."""
        at = self.started if now is None else now
        key = ApiKey(
            key=public_key(self._key_rng),
            secret=secret(self._key_rng),
            counter=Counter(self.tier.rest_decay, at),
            permissions=tuple(permissions),
            otp=otp,
            created=at,
        )
        self.keys[key.key] = key
        return key

    # Connections and calls.

    def connect(self, dialect: Literal["v1", "v2"], now: float) -> Peer | Refused:
        """A client asks for an upgrade; the greeting is queued unless a fault withholds it."""
        self.advance(now)
        self.connections += 1
        number = self.connections
        refusal = self.schedule.take("upgrade_refused", now, dialect=dialect, connection=number)
        if refusal is not None:
            self.ledger.struck("upgrade_refused", now)
            return _refused(refusal)
        peer = Peer(self, dialect, number, connection_id(self._connection_rng), now)
        self.peers.append(peer)
        if self.schedule.take("no_greeting", now, dialect=dialect, connection=number) is None:
            peer.say(peer.speak.status(peer.connection_id, self.status), now)
        else:
            self.ledger.struck("no_greeting", now, peer.connection_id)
        for fault in self.schedule.connected(number):
            if fault.kind in EXCHANGE_KINDS:
                self._happen(fault, now)
            else:
                self._waiting.append(_Waiting(fault, now + fault.after, peer))
        self.retry(now)
        return peer

    def forget(self, peer: Peer) -> None:
        """The connection is over; tokens that it used die with it."""
        if peer in self.peers:
            self.peers.remove(peer)

    def redeem(self, value: str, peer: Peer, now: float) -> ApiKey | str:
        """The key behind a token, or why it is not good."""
        opened = {other.connection_id for other in self.peers}
        subscribed = {other.connection_id for other in self.peers if other.subscriptions}
        return self.tokens.redeem(value, peer.connection_id, now, opened, subscribed)

    def issue_token(self, key: ApiKey, now: float) -> str:
        """A new WebSocket token, unless a fault makes it stale from the start."""
        stale = self.schedule.take("expired_token", now, token=self.token_calls)
        if stale is not None:
            self.ledger.struck("expired_token", now)
        return self.tokens.issue(key, now, LIFETIME_S if stale is None else -1.0)

    def rest(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        """Answers one HTTP request."""
        self.advance(now)
        if path.endswith("/GetWebSocketsToken"):
            self.token_calls += 1
            for fault in self.schedule.called(self.token_calls):
                self._happen(fault, now)
        return self._rest.handle(method, path, headers, body, now)

    # Time.

    def advance(self, now: float) -> None:
        """Lets everything happen that is due, in the order of its time."""
        while (due := self._due()) <= now:
            self._moment = max(self._moment, due)  # what was put off by a maintenance happens after it
            self._step(self._moment)
        self._moment = max(self._moment, now)

    def next_wakeup(self, now: float) -> float:
        """When `advance` should be called next, if nothing else happens before."""
        return max(now, self._due())

    def _due(self) -> float:
        recovery = self._recovery[0][0] if self._recovery else math.inf
        later = (waiting.due for waiting in self._waiting if not math.isinf(waiting.due))
        return min(
            self.engine.due(),
            self.schedule.due(),
            recovery,
            min(later, default=math.inf),
            min((peer.due() for peer in self.peers), default=math.inf),
        )

    def _step(self, now: float) -> None:
        for frame in self.engine.live(now):
            self.publish(frame, now)
        for fault in self.schedule.fire(now):
            self._happen(fault, now)
        chance = self.schedule.roll(now)
        if chance is not None:
            self._happen(chance, now, patient=False)
        while self._recovery and self._recovery[0][0] <= now:
            self._set_status(self._recovery.pop(0)[1], now)
        self.retry(now)
        for peer in list(self.peers):
            peer.live(now)

    # Faults.

    def inject(self, fault: Fault, now: float) -> None:
        """Lets a fault happen now or, when it has a trigger, as if the scenario started now."""
        self.advance(now)
        if fault.triggered:
            self.schedule.add(fault, now)
        else:
            self._happen(fault, now)

    def retry(self, now: float) -> None:
        """Strikes again with the faults that have found nothing to hit so far."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.peer is not None and one.peer.closed:
                continue
            if not math.isinf(one.due) and one.due > now:
                self._waiting.append(one)
            elif not self._strike(one.fault, now, one.peer):
                self._waiting.append(_Waiting(one.fault, math.inf, one.peer))

    def _happen(self, fault: Fault, now: float, *, patient: bool = True) -> None:
        """A fault that finds nobody to hit waits if it is `patient`; one that repeats waits once."""
        if fault.kind in OCCASION_KINDS:
            self.schedule.ready(fault, now)
        elif fault.kind in EXCHANGE_KINDS:
            self.ledger.struck(fault.kind, now)
            self._afflict(fault, now)
        elif not self._strike(fault, now, None) and patient and not self._waits(fault):
            self._waiting.append(_Waiting(fault, math.inf))

    def _waits(self, fault: Fault) -> bool:
        return fault.every is not None and any(waiting.fault is fault for waiting in self._waiting)

    def _strike(self, fault: Fault, now: float, only: Peer | None) -> bool:
        hit = [peer for peer in list(self.peers) if only in (None, peer) and strike(peer, fault, now)]
        for peer in hit:
            self.ledger.struck(fault.kind, now, peer.connection_id)
        return bool(hit)

    def _afflict(self, fault: Fault, now: float) -> None:
        if fault.kind == "multi":
            self.publish(self.engine.lifetime(now), now)
        elif fault.kind == "many_orders":
            changes = self.engine.populate(10_000 if fault.count is None else fault.count, now)
            for start in range(0, len(changes), 2 * _CROWD):
                self.publish(changes[start : start + 2 * _CROWD], now)
        else:
            seconds = (fault.maintenance, fault.cancel_only, fault.post_only)
            at, plan = now, []
            for state, length in zip(_RECOVERY, seconds, strict=True):
                plan += [(at, state)] if length > 0 else []
                at += max(0.0, length)
            self._recovery = [*plan, (at, "online")]

    def _set_status(self, state: str, now: float) -> None:
        self.engine.status = state
        for peer in self.peers:
            peer.say(peer.speak.status_changed(peer.connection_id, state), now)

    # The account. These leave everything else that is due alone; call `advance` for that.

    def publish(self, changes: Sequence[Change], now: float) -> None:
        """Enters the changes in the ledger and tells them to everybody, in one frame a channel.

        Without `mixed_frames`, it is a frame a channel for each change; both legs of a trade are one event.
        """
        self.ledger.happened(changes)
        for frame in [changes] if self.mixed_frames else apart(changes):
            for peer in list(self.peers):
                peer.tell(frame, now)

    def _apart(self, changes: Sequence[Change], now: float) -> None:
        for frame in apart(changes):
            self.publish(frame, now)

    def new_order(
        self,
        now: float,
        *,
        pair: str = "XBT/USD",
        side: Side = "buy",
        volume: str | Decimal = "0.25",
        price: str | Decimal | None = "61000.0",
        userref: int = 0,
        cl_ord_id: str | None = None,
        expires: float | None = None,
        post_only: bool = False,
        accept: bool = True,
    ) -> str:
        """A new order, told in two frames (pending, open) or, without `accept`, in one; returns its id."""
        changes = self.book.submit(
            now,
            pair=find(pair),
            side=side,
            volume=Decimal(volume),
            price=None if price is None else Decimal(price),
            userref=userref,
            cl_ord_id=cl_ord_id,
            expires=expires,
            post_only=post_only,
        )
        order_id = changes[0].order.id
        if accept:
            changes += self.book.accept(order_id, now)
        self._apart(changes, now)
        return order_id

    def fill(self, order_id: str, volume: str | Decimal, now: float, *, price: str | Decimal | None = None) -> None:
        """An execution, told in one frame, and a second one when it completes the order."""
        at = None if price is None else Decimal(price)
        self._apart(self.book.fill(order_id, Decimal(volume), now, price=at), now)

    def cancel(self, order_id: str, now: float, reason: str = "User requested") -> None:
        """The order is taken off the book, told in one frame."""
        self._apart(self.book.cancel(order_id, now, reason), now)

    def expire(self, order_id: str, now: float) -> None:
        """The order's time is over, told in one frame."""
        self._apart(self.book.expire(order_id, now), now)

    def amend(
        self,
        order_id: str,
        now: float,
        *,
        volume: str | Decimal | None = None,
        price: str | Decimal | None = None,
    ) -> None:
        """The order gets another volume or limit price, told in one frame."""
        new_volume = None if volume is None else Decimal(volume)
        new_price = None if price is None else Decimal(price)
        self._apart(self.book.amend(order_id, now, volume=new_volume, price=new_price), now)

    def order(self, order_id: str) -> Order:
        """The order's latest state."""
        return self.book.order(order_id)


def _rng(seed: int, purpose: str) -> Random:
    """A generator for each purpose, so that what a client does cannot change the flow of orders."""
    return Random(f"{seed}:{purpose}")


def _refused(fault: Fault) -> Refused:
    headers = {"Content-Type": "text/html"}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    return Refused(fault.status, headers, b"<html><body>refused</body></html>")
