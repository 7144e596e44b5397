"""Simulate the exchange without sockets, clock or disk: time is an argument, randomness comes from the seed."""

import math
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from .access.key import ApiKey
from .faults.fault import EXCHANGE_KINDS, OCCASION_KINDS, Fault
from .faults.scenario import Scenario
from .market.ident import connection_id
from .market.ledger import Ledger
from .rest.api import RestApi
from .rest.reply import Reply
from .strike import strike
from .wire.peer import Peer
from .world import World, generator


class Refused(Struct, frozen=True):
    """A WebSocket upgrade that the edge refuses."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Waiting(Struct, frozen=True):
    """A fault that has found nothing to hit yet; with a peer, it is meant for that peer only."""

    fault: Fault
    due: float
    peer: Peer | None = None


class Exchange:
    """One exchange and its accounts.

    Its attributes for one account (`key`, `ledger`, `book`, `new_order`, …) are the first account's. REST finds the
    account by the API key. A connection has no account until its first valid token, and then that token's account. No
    public source says what happens to another account's token on it: here it is an invalid session.

    `now` is unix seconds and never goes back. Call `advance` at `next_wakeup` at the latest, and then
    drain every peer's `outgoing`.
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
        accounts: int = 1,
        ledger: Ledger | None = None,
    ) -> None:
        self.world = world = World(
            now, seed, rate, scenario or Scenario(), open_orders, past_trades, accounts, ledger or Ledger()
        )
        self.peers: list[Peer] = []
        self.connections = 0
        self._moment = now
        self._connection_rng = generator(seed, "connections")
        self._waiting: list[_Waiting] = []
        self._recovery: list[tuple[float, str]] = []
        self._rest = RestApi(world)
        self.accounts, self.ledger = world.accounts, world.ledger
        self.keys, self.add_key = world.keys, world.add_key
        first = self.accounts[0]
        key = world.first_key(first)
        self.key, self.secret = key.key, key.secret
        self.book, self.engine = first.book, first.engine
        self.publish, self.order, self.new_order = first.publish, first.order, first.new_order
        self.fill, self.cancel, self.expire, self.amend = first.fill, first.cancel, first.expire, first.amend

    @property
    def moment(self) -> float:
        """The time up to which everything has happened."""
        return self._moment

    # Connections and calls.

    def connect(self, dialect: Literal["v1", "v2"], now: float) -> Peer | Refused:
        """Accept or refuse a WebSocket upgrade. The greeting is queued, unless a fault withholds it."""
        self.advance(now)
        self.connections += 1
        number = self.connections
        refusal = self.world.schedule.take("upgrade_refused", now, dialect=dialect, connection=number)
        if refusal is not None:
            self.ledger.struck("upgrade_refused", now)
            return _refused(refusal)
        peer = Peer(self, dialect, number, connection_id(self._connection_rng), now)
        self.peers.append(peer)
        if self.world.schedule.take("no_greeting", now, dialect=dialect, connection=number) is None:
            peer.greet(self.world.schedule.take("late_online", now, dialect=dialect, connection=number), now)
        else:
            self.ledger.struck("no_greeting", now, peer.connection_id)
        for fault in self.world.schedule.connected(number):
            if fault.kind in EXCHANGE_KINDS:
                self._happen(fault, now)
            else:
                self._waiting.append(_Waiting(fault, now + fault.after, peer))
        self.retry(now)
        return peer

    def forget(self, peer: Peer) -> None:
        """Remove a connection; tokens that it used become invalid."""
        if peer in self.peers:
            self.peers.remove(peer)
        if peer.account is not None and peer in peer.account.listeners:
            peer.account.listeners.remove(peer)

    def redeem(self, value: str, peer: Peer, now: float) -> ApiKey | str:
        """Return the key behind a token, or why the token is not valid. The first valid one sets the peer's account."""
        owner = self.world.tokens.owner(value)
        if owner is not None and peer.account not in (None, owner.account):
            return "ESession:Invalid session"
        opened = {other.connection_id for other in self.peers}
        subscribed = {other.connection_id for other in self.peers if other.subscriptions}
        key = self.world.tokens.redeem(value, peer.connection_id, now, opened, subscribed)
        if isinstance(key, ApiKey) and peer.account is None:
            peer.account = key.account
            key.account.listeners.append(peer)
        return key

    def rest(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        """Answer one HTTP request, and start the faults that wait for a token call."""
        self.advance(now)
        if path.endswith("/GetWebSocketsToken"):
            self.world.token_calls += 1
            for fault in self.world.schedule.called(self.world.token_calls):
                self._happen(fault, now)
        return self._rest.handle(method, path, headers, body, now)

    # Time.

    def advance(self, now: float) -> None:
        """Let all events happen that are due, in the order of their times."""
        while (due := self._due()) <= now:
            self._moment = max(self._moment, due)  # events that a maintenance delayed happen after it
            self._step(self._moment)
        self._moment = max(self._moment, now)

    def next_wakeup(self, now: float) -> float:
        """Return when `advance` should be called next, if nothing else happens before."""
        return max(now, self._due())

    def _due(self) -> float:
        due = [self.world.schedule.due()]
        due += [account.due() for account in self.accounts]
        due += [peer.due() for peer in self.peers]
        due += [waiting.due for waiting in self._waiting]
        if self._recovery:
            due.append(self._recovery[0][0])
        return min(due)

    def _step(self, now: float) -> None:
        for account in self.accounts:
            account.live(now)
        for fault in self.world.schedule.fire(now):
            self._happen(fault, now)
        chance = self.world.schedule.roll(now)
        if chance is not None:
            self._happen(chance, now, patient=False)
        while self._recovery and self._recovery[0][0] <= now:
            self._set_status(self._recovery.pop(0)[1], now)
        self.retry(now)
        for peer in list(self.peers):
            peer.live(now)

    # Faults.

    def inject(self, fault: Fault, now: float) -> None:
        """Start a fault now. If it has a trigger, its times count as if the scenario started now."""
        self.advance(now)
        if fault.triggered:
            self.world.schedule.add(fault, now)
        else:
            self._happen(fault, now)

    def retry(self, now: float) -> None:
        """Try the faults again that have found nothing to hit so far."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.peer is not None and one.peer.closed:
                continue
            if not math.isinf(one.due) and one.due > now:
                self._waiting.append(one)
            elif not self._strike(one.fault, now, one.peer):
                self._waiting.append(_Waiting(one.fault, math.inf, one.peer))

    def _happen(self, fault: Fault, now: float, *, patient: bool = True) -> None:
        """Start a fault. If it finds nothing to hit, it waits if it is `patient`; a repeated one waits only once."""
        if fault.kind in OCCASION_KINDS:
            self.world.schedule.ready(fault, now)
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
            for account in self.accounts:
                account.publish(account.engine.lifetime(now), now)
        elif fault.kind == "many_orders":
            for account in self.accounts:
                account.crowd(10_000 if fault.count is None else fault.count, now)
        else:
            at, self._recovery = now, []
            for state in ("maintenance", "cancel_only", "post_only"):
                length = max(0.0, getattr(fault, state))
                self._recovery += [(at, state)] if length else []
                at += length
            self._recovery.append((at, "online"))
            self.world.untold = fault.shape == "untold"

    def _set_status(self, state: str, now: float) -> None:
        self.world.set_status(state)
        for peer in self.peers:
            peer.say(peer.speak.status_changed(peer.connection_id, state), now)


def _refused(fault: Fault) -> Refused:
    headers = {"Content-Type": "text/html"}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    return Refused(fault.status, headers, b"<html><body>refused</body></html>")
