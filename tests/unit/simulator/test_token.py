"""WebSocket tokens: how long they are good for, and for whom."""

from tests.support.account import T0, Account, Tap, opened, quiet

from ...support.cases import each


def answer(tap: Tap, channel: str, token: str, now: float) -> str:
    tap.exchange.advance(now)
    tap.frames()
    tap.subscribe(channel, token, now)
    ack = tap.frames()[0]
    if tap.dialect == "v1":
        return str(ack.get("errorMessage", ack["status"]))
    return str(ack.get("error", "subscribed"))


def test_an_unused_token_dies_after_fifteen_minutes() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    assert answer(Tap(exchange, "v1", T0 + 901), "openOrders", token, T0 + 901) == "ESession:Invalid session"


def test_a_used_token_stays_good_while_its_subscription_lives() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v1", T0)
    assert answer(tap, "openOrders", token, T0) == "subscribed"
    assert answer(tap, "ownTrades", token, T0 + 5000) == "subscribed"


def test_a_token_dies_with_the_connection_that_used_it() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v2", T0)
    answer(tap, "executions", token, T0)
    tap.peer.disconnect()
    assert answer(Tap(exchange, "v2", T0 + 1), "executions", token, T0 + 1) == "ESession:Invalid session"


def test_parallel_connections_may_share_a_token() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    assert answer(Tap(exchange, "v1", T0), "openOrders", token, T0) == "subscribed"
    assert answer(Tap(exchange, "v2", T0), "executions", token, T0) == "subscribed"


def test_a_token_survives_an_unsubscribe() -> None:
    exchange = quiet()
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v1", T0)
    answer(tap, "openOrders", token, T0)
    tap.send({"event": "unsubscribe", "subscription": {"name": "openOrders"}}, T0)
    assert answer(tap, "openOrders", token, T0) == "subscribed"


@each(
    ("permission", "dialect", "channel"),
    [
        ("query-open-trades", "v1", "openOrders"),
        ("query-closed-trades", "v1", "ownTrades"),
        ("query-open-trades", "v2", "executions"),
        ("query-closed-trades", "v2", "executions"),
        ("query-funds", "v2", "balances"),
    ],
)
def test_a_key_without_the_permission_is_denied(permission: str, dialect: str, channel: str) -> None:
    exchange = quiet()
    every = exchange.keys[exchange.key].permissions
    key = exchange.add_key(permissions=[one for one in every if one != permission])
    token = Account(exchange, key.key, key.secret).token(T0)
    tap = Tap(exchange, "v1" if dialect == "v1" else "v2", T0)
    assert answer(tap, channel, token, T0) == "EGeneral:Permission denied"


def test_issuing_a_second_token_leaves_the_first_one_good() -> None:
    exchange = quiet()
    account = Account(exchange)
    first, _ = account.token(T0), account.token(T0)
    tap = opened(exchange, "v1")
    assert answer(tap, "openOrders", first, T0) == "subscribed"
