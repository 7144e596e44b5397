"""Several accounts on one exchange: nobody hears of another's orders, and everybody meets the same faults."""

from typing import Any, Literal

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.market import account as simulated
from tests.support.account import T0, Account, Tap, quiet

from ...support.cases import each

V1V2: tuple[Literal["v1", "v2"], ...] = ("v1", "v2")
CHANNEL = {"v1": "openOrders", "v2": "executions"}


def calls(exchange: Exchange, account: simulated.Account) -> Account:
    key = exchange.world.first_key(account)
    return Account(exchange, key.key, key.secret)


def tap(exchange: Exchange, account: simulated.Account, dialect: Literal["v1", "v2"], *channels: str) -> Tap:
    """A connection of that account; what it was greeted with is read."""
    line = Tap(exchange, dialect, T0)
    token = calls(exchange, account).token(T0)
    for channel in channels or (CHANNEL[dialect],):
        line.subscribe(channel, token, T0)
    line.frames()
    return line


def error(line: Tap, token: str, channel: str) -> str | None:
    """The refusal of a subscription."""
    line.frames()
    line.subscribe(channel, token, T0)
    ack = line.frames()[0]
    text = ack.get("errorMessage") if line.dialect == "v1" else ack.get("error")
    return None if text is None else str(text)


@each("dialect", V1V2)
def test_a_connection_hears_of_its_own_account_only(dialect: Literal["v1", "v2"]) -> None:
    exchange = quiet(accounts=2)
    first, second = exchange.accounts
    lines = [tap(exchange, account, dialect) for account in (first, second)]
    order = second.new_order(T0)
    assert [len(line.bytes()) for line in lines] == [0, 2]
    second.fill(order, "0.25", T0)
    exchange.new_order(T0)
    assert [len(line.bytes()) for line in lines] == [2, 2]
    assert all(order not in str(change) for change in first.ledger.changes)


@each(("dialect", "channel"), [("v1", "openOrders"), ("v2", "executions"), ("v2", "balances")])
def test_a_snapshot_shows_what_belongs_to_the_tokens_account(dialect: Literal["v1", "v2"], channel: str) -> None:
    exchange = quiet(accounts=2, open_orders=2)
    for account in exchange.accounts:
        line = Tap(exchange, dialect, T0)
        line.subscribe(channel, calls(exchange, account).token(T0), T0)
        line.bytes()
        (snapshot,) = account.ledger.frames
        shown = {ident for item in snapshot.items for ident in item.ids}
        assert shown == (set(account.book.balances) if channel == "balances" else set(account.book.open))


def test_rest_answers_for_the_account_of_the_key() -> None:
    exchange = quiet(accounts=2, open_orders=2, past_trades=2)
    for account in exchange.accounts:
        asked = calls(exchange, account)
        assert set(asked.result("OpenOrders", T0)["open"]) == set(account.book.open)
        assert set(asked.result("TradesHistory", T0, ledgers="true")["trades"]) == set(account.book.trades)
        assert set(asked.result("Ledgers", T0)["ledger"]) == set(account.book.entry_times)
    first, second = (set(account.book.trades) for account in exchange.accounts)
    assert not first & second
    assert calls(exchange, exchange.accounts[1]).result("QueryTrades", T0, txid=first.pop()) == {}


def test_counters_and_lockouts_are_those_of_each_key() -> None:
    exchange = quiet(accounts=2)
    first, second = (calls(exchange, account) for account in exchange.accounts)
    for _ in range(15):
        first.result("Balance", T0)
    assert first.error("Balance", T0) == "EAPI:Rate limit exceeded"
    second.result("Balance", T0)


@each("dialect", V1V2)
def test_another_accounts_token_is_no_session_on_a_connection_that_belongs_to_somebody(
    dialect: Literal["v1", "v2"],
) -> None:
    exchange = quiet(accounts=2)
    line = tap(exchange, exchange.accounts[0], dialect)
    other = "ownTrades" if dialect == "v1" else "balances"
    strange = calls(exchange, exchange.accounts[1]).token(T0)
    assert error(line, strange, other) == "ESession:Invalid session"
    assert error(Tap(exchange, dialect, T0), strange, other) is None  # and it has not been used up


def test_a_refused_token_does_not_say_whose_a_connection_is() -> None:
    exchange = quiet(accounts=2)
    line = Tap(exchange, "v1", T0)
    exchange.inject(Fault("expired_token"), T0)
    stale = calls(exchange, exchange.accounts[0]).token(T0)
    assert error(line, stale, "openOrders") == "ESession:Invalid session"
    assert error(line, calls(exchange, exchange.accounts[1]).token(T0), "openOrders") is None


def test_each_ledger_holds_what_its_account_was_sent() -> None:
    exchange = quiet(accounts=2)
    lines = [tap(exchange, account, "v2") for account in exchange.accounts]
    for account in exchange.accounts:
        account.new_order(T0)
    for line, account in zip(lines, exchange.accounts, strict=True):
        sent = [*line.bytes()]
        assert [frame.text for frame in account.ledger.frames[1:]] == sent
        assert {frame.connection_id for frame in account.ledger.frames} == {line.peer.connection_id}


def test_faults_hit_the_connections_of_every_account_or_of_the_one_they_name() -> None:
    exchange = quiet(accounts=2)
    first, second = (tap(exchange, account, "v1") for account in exchange.accounts)
    exchange.inject(Fault("drop", account=2), T0)
    assert (first.peer.closed, second.peer.closed) == (False, True)
    second = tap(exchange, exchange.accounts[1], "v1")
    exchange.inject(Fault("drop"), T0)
    assert first.peer.closed
    assert second.peer.closed
    assert [struck.connection_id for struck in exchange.ledger.faults][1:] == [
        line.peer.connection_id for line in (first, second)
    ]


def test_a_fault_for_one_account_spares_a_connection_that_is_nobodys_yet() -> None:
    exchange = quiet(accounts=2)
    anonymous = Tap(exchange, "v1", T0)
    exchange.inject(Fault("drop", account=1), T0)
    assert not anonymous.peer.closed


@each("kind", ["multi", "many_orders"])
def test_what_befalls_the_whole_exchange_befalls_every_account(kind: str) -> None:
    exchange = quiet(accounts=2, open_orders=0, past_trades=0)
    exchange.inject(Fault(kind, count=3 if kind == "many_orders" else None), T0)
    counts = [len(account.ledger.changes) for account in exchange.accounts]
    assert counts[0] == counts[1] > 0


def test_a_maintenance_is_everybodys() -> None:
    exchange = Exchange(now=T0, seed=1, rate=10.0, accounts=2)
    lines = [tap(exchange, account, "v1") for account in exchange.accounts]
    exchange.inject(Fault("maintenance", maintenance=10.0), T0)
    exchange.advance(T0)
    before = [len(account.ledger.changes) for account in exchange.accounts]
    exchange.advance(T0 + 9.0)
    assert [len(account.ledger.changes) for account in exchange.accounts] == before
    assert all(any('"maintenance"' in text.decode() for text in line.bytes()) for line in lines)
    exchange.advance(T0 + 60.0)
    assert all(len(a.ledger.changes) > count for a, count in zip(exchange.accounts, before, strict=True))


def test_further_accounts_leave_the_first_ones_keys_ids_and_orders_as_they_were() -> None:
    def story(accounts: int) -> tuple[Any, ...]:
        exchange = Exchange(now=T0, seed=3, rate=20.0, accounts=accounts)
        exchange.advance(T0 + 10.0)
        return exchange.key, exchange.secret, [(c.kind, c.at, c.order) for c in exchange.ledger.changes]

    assert story(1) == story(3)


def test_every_accounts_orders_live_by_themselves() -> None:
    exchange = Exchange(now=T0, seed=3, rate=20.0, accounts=2, open_orders=0, past_trades=0)
    exchange.advance(T0 + 10.0)
    first, second = ([(change.kind, change.at) for change in account.ledger.changes] for account in exchange.accounts)
    assert len(first) > 100
    assert len(second) > 100
    assert first != second


def test_a_connection_that_ended_is_told_nothing_more() -> None:
    exchange = quiet(accounts=2)
    account = exchange.accounts[1]
    line = tap(exchange, account, "v1")
    assert account.listeners == [line.peer]
    line.peer.disconnect()
    assert account.listeners == []
