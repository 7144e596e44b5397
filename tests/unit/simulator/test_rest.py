"""REST: the checks, the counter, the history."""

import json
from typing import Any

from kraken_feed.simulator.access.key import PERMISSIONS, ApiKey, Limits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.quirks.quirk import Quirks
from tests.support.account import T0, Account, quiet, sign

from ...support.cases import each

FREE = Scenario(quirks=Quirks(history_cost=0.0))


def limited(exchange: Exchange, **limits: Any) -> tuple[ApiKey, Account]:
    """A key with these limits, and calls with it."""
    key = exchange.add_key(limits=Limits(**limits))
    return key, Account(exchange, key.key, key.secret)


def json_call(exchange: Exchange, body: bytes, nonce: str, now: float = T0) -> list[str]:
    path = "/0/private/Balance"
    headers = {
        "api-key": exchange.key,
        "api-sign": sign(exchange.secret, path, nonce, body),
        "content-type": "application/json",
    }
    errors = json.loads(exchange.rest("POST", path, headers, body, now).body)["error"]
    return list(errors)


def test_a_token_comes_with_its_lifetime() -> None:
    result = Account(quiet()).result("GetWebSocketsToken", T0)
    assert result["expires"] == 900
    assert len(result["token"]) == 43


def test_json_bodies_are_accepted_with_the_nonce_as_number_or_string() -> None:
    exchange = quiet()
    assert json_call(exchange, b'{"nonce":1}', "1") == []
    assert json_call(exchange, b'{"nonce": "2"}', "2") == []
    assert json_call(exchange, b'{"nonce": "2"}', "2") == ["EAPI:Invalid nonce"]


def test_a_body_changed_after_signing_is_refused() -> None:
    exchange = quiet()
    path = "/0/private/Balance"
    headers = {"API-Key": exchange.key, "API-Sign": sign(exchange.secret, path, "1", b"nonce=1")}
    reply = exchange.rest("POST", path, headers, b"nonce=1&ofs=0", T0)
    assert (reply.status, reply.body) == (200, b'{"error":["EAPI:Invalid signature"]}')


def test_a_nonce_must_be_above_the_last_one_of_its_key() -> None:
    exchange = quiet()
    account = Account(exchange)
    account.nonce = 100
    account.result("Balance", T0)
    account.nonce = 50
    assert account.error("Balance", T0) == "EAPI:Invalid nonce"
    other = exchange.add_key()
    Account(exchange, other.key, other.secret).result("Balance", T0)


def test_an_unknown_key_is_invalid() -> None:
    exchange = quiet()
    assert Account(exchange, "nobody", exchange.secret).error("Balance", T0) == "EAPI:Invalid key"


def test_unknown_methods_are_named_so() -> None:
    exchange = quiet()
    assert Account(exchange).error("AddOrder", T0) == "EGeneral:Unknown method"
    for method, path in (("GET", "/0/private/Balance"), ("GET", "/0/public/Ticker"), ("GET", "/")):
        assert b"EGeneral:Unknown method" in exchange.rest(method, path, {}, b"", T0).body


@each(
    ("permission", "name", "params"),
    [
        ("create-ws-token", "GetWebSocketsToken", {}),
        ("query-open-trades", "OpenOrders", {}),
        ("query-closed-trades", "ClosedOrders", {}),
        ("query-closed-trades", "TradesHistory", {}),
        ("query-funds", "Balance", {}),
        ("query-funds", "BalanceEx", {}),
        ("query-ledger", "Ledgers", {}),
    ],
)
def test_a_missing_permission_is_denied(permission: str, name: str, params: dict[str, str]) -> None:
    exchange = quiet()
    every = exchange.keys[exchange.key].permissions
    key = exchange.add_key(permissions=[one for one in every if one != permission])
    account = Account(exchange, key.key, key.secret)
    assert account.error(name, T0, **params) == "EGeneral:Permission denied"
    assert permission not in account.result("GetApiKeyInfo", T0)["permissions"]


def test_a_key_with_a_second_factor_needs_the_otp_in_the_signed_body() -> None:
    exchange = quiet()
    key = exchange.add_key(otp="static-password")
    account = Account(exchange, key.key, key.secret)
    assert account.error("Balance", T0) == "EGeneral:Permission denied"
    assert account.error("Balance", T0, otp="wrong") == "EGeneral:Permission denied"
    account.result("Balance", T0, otp="static-password")


def test_a_key_may_hold_every_right_that_kraken_knows() -> None:
    exchange = quiet()
    key = exchange.add_key(permissions=PERMISSIONS)
    shown = Account(exchange, key.key, key.secret).result("GetApiKeyInfo", T0)["permissions"]
    assert {"withdraw-funds", "modify-trades", "close-trades", "update-withdraw-address"} < set(shown)


def test_a_key_tells_about_itself_as_recorded_or_as_documented() -> None:
    exchange = quiet()
    key, account = limited(
        exchange, valid_until=1_800_000_000, query_from=1, query_to=2, nonce_window=3, ip_allowlist=("127.0.0.1",)
    )
    snake = account.result("GetApiKeyInfo", T0)
    assert list(snake) == [
        "api_key_name", "api_key", "nonce", "nonce_window", "permissions", "iban", "valid_until", "query_from",
        "query_to", "created_time", "modified_time", "ip_allowlist", "last_used",
    ]  # fmt: skip
    assert snake == snake | {
        "api_key": key.key, "nonce": "1", "nonce_window": "3", "valid_until": "1800000000", "query_from": "1",
        "query_to": "2", "ip_allowlist": ["127.0.0.1"],
    }  # fmt: skip
    exchange.world.key_info_style = "camel"
    camel = account.result("GetApiKeyInfo", T0)
    assert list(camel) == [
        "apiKeyName", "apiKey", "nonce", "nonceWindow", "permissions", "iban", "validUntil", "queryFrom", "queryTo",
        "createdTime", "modifiedTime", "ipAllowlist", "lastUsed",
    ]  # fmt: skip
    assert list(camel.values()) == [*{**snake, "nonce": "2", "nonce_window": 3}.values()]


def test_a_key_ends_when_it_is_no_longer_valid() -> None:
    _, account = limited(quiet(), valid_until=int(T0) + 10)
    account.result("GetApiKeyInfo", T0 + 9.9)
    assert account.error("GetApiKeyInfo", T0 + 10) == "EAPI:Invalid key"


@each(
    ("allowed", "good"),
    [
        ((), True),
        (("127.0.0.1",), True),
        (("192.0.2.1", "127.0.0.0/8"), True),
        (("192.0.2.1",), False),
        (("2001:db8::/32",), False),
    ],
)
def test_a_key_is_refused_from_an_address_that_is_not_allowed(allowed: tuple[str, ...], good: bool) -> None:
    _, account = limited(quiet(), ip_allowlist=allowed)
    assert account.call("Balance", T0)["error"] == ([] if good else ["EAPI:Invalid key"])


def test_a_nonce_window_takes_late_nonces_once() -> None:
    _, account = limited(quiet(), nonce_window=10)
    outcomes = []
    for nonce in (100, 90, 90, 95, 100, 89, 111, 100, 101, 112):
        account.nonce = nonce - 1
        outcomes.append(account.call("GetApiKeyInfo", T0)["error"] == [])
    assert outcomes == [True, True, False, True, False, False, True, False, True, True]


def test_a_key_limited_in_time_sees_the_history_of_that_time_only() -> None:
    exchange = quiet(open_orders=0, past_trades=0, scenario=FREE)
    ended = []
    for second in (10, 20, 30):
        ended.append(exchange.new_order(T0, volume="1"))
        exchange.fill(ended[-1], "1", T0 + second)
    still_open = exchange.new_order(T0)
    trades = [trade.id for trade in exchange.book.trades.values()]
    _, account = limited(exchange, query_from=int(T0) + 15, query_to=int(T0) + 25)
    assert list(account.result("ClosedOrders", T0 + 40)["closed"]) == ended[1:2]
    assert list(account.result("TradesHistory", T0 + 40)["trades"]) == trades[1:2]
    assert {e["refid"] for e in account.result("Ledgers", T0 + 40)["ledger"].values()} == {trades[1]}
    assert list(account.result("QueryTrades", T0 + 40, txid=",".join(trades))) == trades[1:2]
    assert set(account.result("QueryOrders", T0 + 40, txid=",".join([*ended, still_open]))) == {ended[1], still_open}
    assert list(account.result("OpenOrders", T0 + 40)["open"]) == [still_open]


def test_the_call_counter_refuses_the_sixteenth_point_and_drains_again() -> None:
    account = Account(quiet())
    for _ in range(15):
        account.result("Balance", T0)
    assert account.error("Balance", T0) == "EAPI:Rate limit exceeded"
    assert account.error("Balance", T0 + 3.1) == "EAPI:Rate limit exceeded"  # the refused calls count, too
    account.result("Balance", T0 + 3.1 + 6.1)


def test_history_calls_cost_four() -> None:
    account = Account(quiet())
    for _ in range(3):
        account.result("TradesHistory", T0)
    assert account.error("ClosedOrders", T0) == "EAPI:Rate limit exceeded"


def test_ten_bad_proofs_within_a_minute_lock_the_key() -> None:
    exchange = quiet()
    account = Account(exchange, exchange.key, exchange.add_key().secret)
    assert {account.error("Balance", T0 + second) for second in range(10)} == {"EAPI:Invalid signature"}
    right = Account(exchange)
    assert right.error("Balance", T0 + 10) == "EGeneral:Temporary lockout"
    right.result("Balance", T0 + 10 + 901)


def test_open_and_closed_orders_have_the_documented_fields() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    account = Account(exchange)
    mine = exchange.new_order(T0, volume="0.5", price="61000.5", userref=7)
    exchange.fill(mine, "0.2", T0 + 1)
    (order,) = account.result("OpenOrders", T0 + 2, trades="true")["open"].values()
    assert (order["status"], order["userref"], order["price"]) == ("open", 7, "61000.5")
    assert (order["vol"], order["vol_exec"]) == ("0.50000000", "0.20000000")
    assert order["descr"]["pair"] == "XBTUSD"
    assert order["descr"]["order"] == "buy 0.50000000 XBTUSD @ limit 61000.5"
    assert len(order["trades"]) == 1
    exchange.cancel(mine, T0 + 3)
    closed = account.result("ClosedOrders", T0 + 4)
    assert closed["count"] == 1
    order = closed["closed"][mine]
    assert (order["status"], order["reason"], order["closetm"]) == ("canceled", "User requested", T0 + 3)
    assert account.result("OpenOrders", T0 + 4) == {"open": {}}
    assert account.result("QueryOrders", T0 + 5, txid=f"{mine},OAAAAA-AAAAA-AAAAAA").keys() == {mine}


def test_closed_orders_are_filtered_by_the_time_that_was_asked_for() -> None:
    exchange = quiet(open_orders=0, past_trades=0, scenario=FREE)
    account = Account(exchange)
    early = exchange.new_order(T0 + 1)
    exchange.cancel(early, T0 + 100)
    late = exchange.new_order(T0 + 50)
    exchange.cancel(late, T0 + 51)

    def ids(**params: str) -> list[str]:
        return list(account.result("ClosedOrders", T0 + 200, **params)["closed"])

    assert ids() == [early, late]  # newest end first
    assert ids(closetime="close", start=str(T0 + 51)) == [early]  # start is exclusive
    assert ids(closetime="close", end=str(T0 + 51)) == [late]  # end is inclusive
    assert ids(closetime="open", start=str(T0 + 10)) == [late]
    assert ids(closetime="open", start=early) == [late]  # a txid stands for its opening time
    assert account.error("ClosedOrders", T0 + 201, closetime="never") == "EGeneral:Invalid arguments:closetime"
    assert account.error("ClosedOrders", T0 + 202, start="soon") == "EGeneral:Invalid arguments:start"


def test_pages_hold_fifty_rows_newest_first() -> None:
    exchange = quiet(open_orders=0, past_trades=0)
    account = Account(exchange)
    mine = exchange.new_order(T0, volume="1")
    for second in range(1, 61):
        exchange.fill(mine, "0.01", T0 + second)
    first = account.result("TradesHistory", T0 + 100)
    rest = account.result("TradesHistory", T0 + 100, ofs="50", without_count="true", consolidate_taker="false")
    times = [trade["time"] for trade in [*first["trades"].values(), *rest["trades"].values()]]
    assert first["count"] == 60
    assert "count" not in rest
    assert len(first["trades"]) == 50
    assert times == [T0 + second for second in range(60, 0, -1)]


def test_trades_can_be_asked_for_by_id_and_name_their_ledger_entries() -> None:
    exchange = quiet(open_orders=0, past_trades=1, scenario=FREE)
    account = Account(exchange)
    ((trade_id, trade),) = account.result("TradesHistory", T0, ledgers="true")["trades"].items()
    entries = account.result("Ledgers", T0)["ledger"]
    assert set(trade["ledgers"]) == set(entries)
    assert {entry["refid"] for entry in entries.values()} == {trade_id}
    assert account.result("QueryTrades", T0, txid=trade_id)[trade_id]["ordertxid"] == trade["ordertxid"]
    many = ",".join([trade_id] * 21)
    assert account.error("QueryTrades", T0, txid=many) == "EGeneral:Invalid arguments:txid"


def test_rest_learns_late_of_fills_and_ends_when_it_lags() -> None:
    exchange = quiet(open_orders=0, past_trades=0, scenario=Scenario(rest_lag=30.0, tier="pro"))
    account = Account(exchange)
    mine = exchange.new_order(T0, volume="1")
    exchange.fill(mine, "1", T0 + 10)
    assert account.result("QueryOrders", T0 + 11, txid=mine)[mine]["status"] == "open"
    assert account.result("OpenOrders", T0 + 11)["open"][mine]["vol_exec"] == "0.00000000"
    assert account.result("TradesHistory", T0 + 12)["count"] == 0
    assert account.result("ClosedOrders", T0 + 39)["count"] == 0
    assert account.result("ClosedOrders", T0 + 41)["closed"][mine]["vol_exec"] == "1.00000000"
    assert account.result("TradesHistory", T0 + 41)["count"] == 1


def test_public_methods_tell_time_state_and_pairs() -> None:
    exchange = quiet()

    def get(path: str) -> object:
        return json.loads(exchange.rest("GET", path, {}, b"", T0).body)["result"]

    assert get("/0/public/Time") == {"unixtime": 1760000000, "rfc1123": "Thu,  9 Oct 25 08:53:20 +0000"}
    assert get("/0/public/SystemStatus") == {"status": "online", "timestamp": "2025-10-09T08:53:20Z"}
    pairs = get("/0/public/AssetPairs?pair=XBTUSD")
    assert isinstance(pairs, dict)
    assert pairs["XXBTZUSD"]["wsname"] == "XBT/USD"


@each("offset", [90.0, -90.0])
def test_the_clock_that_is_shown_may_be_wrong_and_nonces_do_not_care(offset: float) -> None:
    exchange = quiet()
    exchange.world.clock_offset_s = offset

    def get(path: str) -> Any:
        return json.loads(exchange.rest("GET", path, {}, b"", T0).body)["result"]

    assert get("/0/public/Time")["unixtime"] == T0 + offset
    assert get("/0/public/Time")["rfc1123"] == f"Thu,  9 Oct 25 08:{54 if offset > 0 else 51}:50 +0000"
    assert get("/0/public/SystemStatus")["timestamp"] == f"2025-10-09T08:{54 if offset > 0 else 51}:50Z"
    account = Account(exchange)
    account.nonce = int(T0)
    account.result("Balance", T0)


def test_extended_balances_tell_what_open_orders_hold() -> None:
    exchange = quiet(open_orders=0)
    account = Account(exchange)
    plain = account.result("Balance", T0)
    exchange.new_order(T0, volume="0.25", price="61000.0")
    sold = exchange.new_order(T0, pair="ETH/USD", side="sell", volume="2", price="3500.00")
    exchange.fill(sold, "0.5", T0)
    extended = account.result("BalanceEx", T0)
    assert list(extended) == list(plain)
    assert extended["ZUSD"]["hold_trade"] == "15250.0000"
    assert extended["XETH"]["hold_trade"] == "1.5000000000"
    assert extended["XXBT"] == {"balance": plain["XXBT"], "hold_trade": "0.0000000000"}
