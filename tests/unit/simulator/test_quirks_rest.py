"""Quirks of REST, as a client meets them: in replies."""

import json
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import Any

from kraken_feed.simulator.access.key import Limits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.quirks.quirk import Quirks
from tests.support.account import T0, Account, Tap, quiet

from ...support.cases import each

NOW = T0 + 1000.0
TABLES = {"ClosedOrders": "closed", "TradesHistory": "trades", "Ledgers": "ledger"}


def quirky(*, rest_lag: float = 0.0, **quirks: Any) -> Exchange:
    """An empty account whose history calls cost nothing."""
    scenario = Scenario(rest_lag=rest_lag, quirks=Quirks(**{"history_cost": 0.0, **quirks}))
    return quiet(open_orders=0, past_trades=0, scenario=scenario)


def ended(exchange: Exchange, count: int, **order: Any) -> list[str]:
    """So many orders that were filled at once, a second apart; their ids."""
    ids = []
    for second in range(count):
        ids.append(exchange.new_order(T0 + second, volume="1", **order))
        exchange.fill(ids[-1], "1", T0 + second)
    return ids


def pairs(account: Account, name: str, **params: str) -> list[tuple[str, Any]]:
    """A page's rows, also those of one id."""
    reply = json.loads(account.raw(name, NOW, **params).body, object_pairs_hook=lambda members: members)
    table = dict(dict(reply)["result"]).get(TABLES[name], [])
    return [(ident, dict(row)) for ident, row in table]


def walk(account: Account, name: str, *, step: int = 0, **params: str) -> list[list[str]]:
    """The ids of each page up to an empty one; a step by rows received, or a fixed one."""
    pages: list[list[str]] = []
    offset = 0
    while page := [ident for ident, _ in pairs(account, name, ofs=str(offset), **params)]:
        pages.append(page)
        offset += step or len(page)
    return pages


def shown(account: Account) -> set[str]:
    """The fills on all pages."""
    return {ident for page in walk(account, "TradesHistory") for ident in page}


@each("name", TABLES)
def test_short_pages_have_one_to_fifty_rows_and_miss_none(name: str) -> None:
    exchange = quirky(short_pages=True)
    ended(exchange, 130)
    account = Account(exchange)
    pages = walk(account, name)
    rows = [ident for page in pages for ident in page]
    assert len(rows) == len(set(rows)) == (260 if name == "Ledgers" else 130)
    assert all(1 <= len(page) <= 50 for page in pages)
    assert any(len(page) < 50 for page in pages[:-1])
    assert walk(account, name) == pages  # the same question, the same page


def test_merged_pages_skip_raw_fills_and_repeat_rows_for_a_step_by_rows() -> None:
    exchange = quirky(merged_pages=True)
    for second in range(80):
        order = exchange.new_order(T0 + second, volume="1", price=None)
        exchange.fill(order, "1", T0 + second, price="61000")
    account = Account(exchange)
    newest = list(reversed(exchange.book.trades))
    by_rows = walk(account, "TradesHistory")
    assert all(len(page) <= 25 for page in by_rows)
    assert [*dict.fromkeys(ident for page in by_rows for ident in page)] == newest
    assert sum(map(len, by_rows)) > 80
    by_fifty = walk(account, "TradesHistory", step=50)
    assert [*dict.fromkeys(ident for page in by_fifty for ident in page)] == newest
    assert len(by_fifty) < len(by_rows)


@each("name", TABLES)
def test_repeated_rows_have_one_id_and_other_bytes(name: str) -> None:
    exchange = quirky(repeated_rows=0.5)
    ended(exchange, 20)
    rows = pairs(Account(exchange), name)
    twice = [(first, second) for first, second in pairwise(rows) if first[0] == second[0]]
    assert 0 < len(twice) < 40
    assert all(first[1] != second[1] for first, second in twice)


def test_withheld_rows_are_counted_and_missing_for_ever_or_for_a_while() -> None:
    exchange = quirky(withheld_rows=0.3, withheld_s=100.0)
    ended(exchange, 120)
    account = Account(exchange)
    fresh = account.result("TradesHistory", T0 + 120, ofs="0")
    assert fresh["count"] == 120
    assert len(fresh["trades"]) < 50
    assert sorted(shown(account)) == sorted(exchange.book.trades)
    never = quirky(withheld_rows=0.3)
    ended(never, 120)
    assert 60 < len(shown(Account(never))) < 110


def test_a_page_of_withheld_rows_only_shows_later_ones() -> None:
    exchange = quirky(withheld_rows=0.97)
    ended(exchange, 300)
    assert 0 < len(shown(Account(exchange))) < 30


@each(("count", "asked", "unasked"), [("asked", 3, "absent"), ("always", 3, 3), ("null", None, None)])
def test_a_count_can_come_unasked_or_be_null(count: Any, asked: int | None, unasked: object) -> None:
    exchange = quirky(count=count)
    ended(exchange, 3)
    account = Account(exchange)
    assert account.result("ClosedOrders", NOW)["count"] == asked
    assert account.result("ClosedOrders", NOW, without_count="true").get("count", "absent") == unasked


def allowed(exchange: Exchange, name: str) -> int:
    """How many calls fit into an empty counter of fifteen points."""
    account = Account(exchange)
    calls = 0
    while account.call(name, NOW)["error"] == []:
        calls += 1
    return calls


@each(
    ("quirks", "closed", "others"),
    [
        (Quirks(), 3, 3),
        (Quirks(history_cost=2.0), 7, 7),
        (Quirks(closed_orders_cost=1.0), 15, 3),
    ],
)
def test_history_calls_have_the_price_that_is_set(quirks: Quirks, closed: int, others: int) -> None:
    for name, calls in (("ClosedOrders", closed), ("TradesHistory", others), ("Ledgers", others)):
        assert allowed(quiet(scenario=Scenario(quirks=quirks)), name) == calls


def test_each_source_is_late_by_its_own_time() -> None:
    exchange = quirky(rest_lag=5.0, orders_lag=40.0, query_lag=10.0, trades_lag=20.0, ledger_lag=30.0)
    (order,) = ended(exchange, 1)
    account = Account(exchange)

    def known(after: float) -> list[bool]:
        at = T0 + after
        return [
            account.result("QueryOrders", at, txid=order)[order]["status"] == "closed",
            bool(account.result("TradesHistory", at)["trades"]),
            bool(account.result("Ledgers", at)["ledger"]),
            bool(account.result("ClosedOrders", at)["closed"]),
            not account.result("OpenOrders", at)["open"],
        ]

    assert known(9) == [False] * 5
    assert known(11) == [True, False, False, False, False]
    assert known(21) == [True, True, False, False, False]
    assert known(31) == [True, True, True, False, False]
    assert known(41) == [True] * 5


def test_late_orders_are_unknown_until_the_lag_is_over() -> None:
    exchange = quirky(rest_lag=200.0, late_orders=True)
    order = exchange.new_order(T0)
    account = Account(exchange)
    assert account.result("QueryOrders", T0 + 199, txid=order) == {}
    assert account.result("OpenOrders", T0 + 199) == {"open": {}}
    assert set(account.result("OpenOrders", T0 + 201)["open"]) == {order}


def test_ended_orders_have_odd_states_in_one_answer_and_usual_ones_in_the_other() -> None:
    exchange = quirky(odd_states=0.7)
    orders = ended(exchange, 40)
    still_open = exchange.new_order(T0)
    account = Account(exchange)
    listed = account.result("ClosedOrders", NOW)["closed"]
    assert {row["status"] for row in listed.values()} == {"closed", "rejected", "Closed", "CLOSED"}
    asked = account.result("QueryOrders", NOW, txid=",".join([*orders, still_open]))
    assert {row["status"] for row in asked.values()} == {"closed", "open"}
    other = quirky(odd_query_states=1.0)
    (order,) = ended(other, 1)
    answer = Account(other).result("QueryOrders", NOW, txid=order)
    assert answer[order]["status"] in ("rejected", "Closed", "CLOSED")


def test_one_unknown_id_spoils_a_batch_of_query_orders() -> None:
    exchange = quirky(refuse_unknown=True)
    (order,) = ended(exchange, 1)
    account = Account(exchange)
    assert account.error("QueryOrders", NOW, txid=f"{order},OAAAAA-AAAAA-AAAAAA") == "EOrder:Invalid order"
    assert set(account.result("QueryOrders", NOW, txid=order)) == {order}


def test_a_refused_id_spoils_a_batch_of_query_orders() -> None:
    exchange = quirky()
    first, second = ended(exchange, 2)
    exchange.world.refused_ids.add(first)
    account = Account(exchange)
    assert account.error("QueryOrders", NOW, txid=f"{second},{first}") == "EOrder:Invalid order"
    assert set(account.result("QueryOrders", NOW, txid=second)) == {second}
    some = quirky(refused_ids=0.5)
    outcomes = [Account(some).call("QueryOrders", NOW, txid=order)["error"] for order in ended(some, 12)]
    assert {tuple(error) for error in outcomes} == {(), ("EOrder:Invalid order",)}


@each(("mode", "outside", "overlapping"), [("silent", False, False), ("outside", True, False), ("overlap", True, True)])
def test_a_question_outside_of_a_keys_span_can_be_an_error(mode: Any, outside: bool, overlapping: bool) -> None:
    exchange = quirky(key_span=mode)
    orders = ended(exchange, 20)
    key = exchange.add_key(limits=Limits(query_from=int(T0) + 5, query_to=int(T0) + 10))
    account = Account(exchange, key.key, key.secret)

    def refused(name: str, **params: str) -> bool:
        return bool(account.call(name, NOW, **params)["error"] == ["EGeneral:Invalid arguments"])

    for name in TABLES:
        assert refused(name, start=str(T0 + 11), end=str(T0 + 15)) is outside
        assert refused(name, start=str(T0 + 6), end=str(T0 + 15)) is overlapping
        assert not refused(name, start=str(T0 + 6), end=str(T0 + 9))
    assert refused("QueryOrders", txid=orders[0]) is outside
    assert not refused("QueryOrders", txid=orders[7])


def test_empty_objects_can_be_lists() -> None:
    account = Account(quirky(empty_as_list=True))
    assert account.result("OpenOrders", NOW) == {"open": []}
    assert account.result("ClosedOrders", NOW) == {"closed": [], "count": 0}
    assert account.result("TradesHistory", NOW) == {"trades": [], "count": 0}
    assert account.result("Ledgers", NOW) == {"ledger": [], "count": 0}
    assert account.call("QueryOrders", NOW, txid="OAAAAA-AAAAA-AAAAAA")["result"] == []


@each(("errors", "value"), [("object", {}), ("warning", ["WGeneral:Deprecated parameter"])])
def test_a_result_can_come_beside_an_empty_object_or_a_warning(errors: Any, value: object) -> None:
    exchange = quirky(errors=errors)
    answer = Account(exchange).call("OpenOrders", NOW)
    assert answer == {"error": value, "result": {"open": {}}}
    assert Account(exchange).call("Ledgers", NOW, start="soon")["error"] == ["EGeneral:Invalid arguments:start"]


@each(("integers", "text"), [("float", b'"count":2.0'), ("text", b'"count":"2"')])
def test_a_count_has_another_spelling(integers: Any, text: bytes) -> None:
    exchange = quirky(integers=integers)
    ended(exchange, 2)
    assert text in Account(exchange).raw("ClosedOrders", NOW).body


@each("name", TABLES)
def test_rows_have_unknown_members_and_lone_surrogates(name: str) -> None:
    exchange = quirky(unknown_members=True, surrogates=1.0)
    ended(exchange, 2)
    body = Account(exchange).raw(name, NOW).body
    assert body.count(b'"\\ud800') == body.count(b'"x_new":{') == (4 if name == "Ledgers" else 2)
    json.loads(body)


def test_ledger_entries_can_have_no_id_or_share_one() -> None:
    exchange = quirky(empty_ledger_ids=0.4, shared_ledger_ids=0.4)
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("balances", Account(exchange).token(T0), T0)
    tap.frames()
    ended(exchange, 20)
    rows = pairs(Account(exchange), "Ledgers")
    idents = [ident for ident, _ in rows]
    assert len(rows) == 40
    assert idents.count("") > 1
    shared = {ident for ident in idents if ident and idents.count(ident) == 2}
    assert shared
    entries = [entry for change in exchange.ledger.changes for entry in change.entries]
    assert sorted(entry.id for entry in entries) == sorted(idents)
    told = [item for frame in tap.frames() if frame.get("channel") == "balances" for item in frame["data"]]
    assert [(item["ledger_id"], item["ref_id"], str(item["balance"])) for item in told] == [
        (entry.id, entry.ref, str(entry.balance)) for entry in entries
    ]


def test_one_asset_name_in_two_classes() -> None:
    exchange = quirky(asset_classes=True)
    tap = Tap(exchange, "v2", T0)
    tap.subscribe("balances", Account(exchange).token(T0), T0)
    (snapshot,) = [frame for frame in tap.frames() if frame.get("type") == "snapshot"]
    assert [item["asset_class"] for item in snapshot["data"] if item["asset"] == "SOL"] == [
        "currency",
        "tokenized_asset",
    ]
    ended(exchange, 1, pair="SOL/USD", price="150.00")
    ended(exchange, 1, pair="SOLx/USD", price="12.00")
    told = [item for frame in tap.frames() if frame.get("channel") == "balances" for item in frame["data"]]
    assert [(item["asset"], item["asset_class"]) for item in told] == [
        ("USD", "currency"),
        ("SOL", "currency"),
        ("USD", "currency"),
        ("SOL", "tokenized_asset"),
    ]
    account = Account(exchange)
    plain = account.result("Ledgers", NOW)["ledger"].values()
    assert [(row["asset"], row["aclass"]) for row in plain].count(("SOL", "currency")) == 1
    (other,) = account.result("Ledgers", NOW, aclass="tokenized_asset")["ledger"].values()
    assert (other["asset"], other["aclass"]) == ("SOL", "tokenized_asset")
    assert {"SOL", "SOL.T"} <= set(account.result("Balance", NOW))


def test_every_reply_has_the_exchanges_date() -> None:
    exchange = quirky()
    exchange.world.clock_offset_s = 3600.0
    replies = [
        exchange.rest("GET", "/0/public/Time", {}, b"", T0),
        exchange.rest("POST", "/0/private/Balance", {}, b"", T0),
        Account(exchange).raw("Balance", T0),
    ]
    for reply in replies:
        assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == T0 + 3600
