"""Requests of order entry: the frames byte for byte, and everything that is wrong before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.cli.arguments import CALL
from kraken_feed.errors import UsageError
from kraken_feed.order_entry.methods import METHODS
from kraken_feed.order_entry.request import Request, build
from kraken_feed.protocol.permissions import needed_for

from ...support.cases import each

NOW = 1_760_000_000.0
LIMIT = ("order_type=limit", "side=buy", "symbol=BTC/USD", "order_qty=0.10", "limit_price=61000.0")
V1_LIMIT = ("ordertype=limit", "type=buy", "pair=XBT/USD", "volume=0.10", "price=61000.0")
ROW = '{"order_type":"limit","side":"buy","order_qty":0.10,"limit_price":61000.0}'


def ask(*words: str, given: str | None = None, live: bool = True, unknown: bool = False) -> Request:
    return build(words, given, 7, NOW, live=live, unknown=unknown)


def ahead(seconds: float) -> str:
    return (datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds)).isoformat()


# ------------------------------------------------------------------------------------------------ right

RIGHT: dict[str, tuple[Sequence[str], str]] = {
    "addOrder": (
        ["addOrder", *V1_LIMIT, "userref=7", "oflags=post,fciq", "close[ordertype]=limit", "close[price]=+2%"],
        '{"event":"addOrder","token":"T","reqid":7,"ordertype":"limit","type":"buy","pair":"XBT/USD","volume":"0.10",'
        '"price":"61000.0","userref":"7","oflags":"post,fciq","close[ordertype]":"limit","close[price]":"+2%"}',
    ),
    "editOrder": (
        ["editOrder", "orderid=OA", "pair=XBT/USD", "price=60500", "newuserref=666", "reqid=12"],
        '{"event":"editOrder","token":"T","reqid":12,"orderid":"OA","pair":"XBT/USD","price":"60500","newuserref":"666"}',
    ),
    "amendOrder": (
        ["amendOrder", "txid=OA", "limit_price=60400.0", "post_only=true"],
        '{"event":"amendOrder","token":"T","reqid":7,"txid":"OA","limit_price":"60400.0","post_only":true}',
    ),
    "cancelOrder": (
        ["cancelOrder", "txid=OA", "txid=OB", "cl_ord_id=a,b"],
        '{"event":"cancelOrder","token":"T","reqid":7,"txid":["OA","OB"],"cl_ord_id":["a,b"]}',
    ),
    "cancelAll": (["cancelAll"], '{"event":"cancelAll","token":"T","reqid":7}'),
    "cancelAllOrdersAfter": (
        ["cancelAllOrdersAfter", "timeout=60"],
        '{"event":"cancelAllOrdersAfter","token":"T","reqid":7,"timeout":60}',
    ),
    "add_order": (
        ["add_order", *LIMIT, "post_only=true", "order_userref=-3",
         'conditional:={"order_type":"limit","limit_price":6.10}'],
        '{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.10,'
        '"limit_price":61000.0,"post_only":true,"order_userref":-3,'
        '"conditional":{"order_type":"limit","limit_price":6.10},"token":"T"},"req_id":7}',
    ),
    "amend_order": (
        ["amend_order", "cl_ord_id=x=y", "order_qty:=1.50", "req_id=99"],
        '{"method":"amend_order","params":{"cl_ord_id":"x=y","order_qty":1.50,"token":"T"},"req_id":99}',
    ),
    "edit_order": (
        ["edit_order", "order_id=OA", "symbol=BTC/USD", "limit_price=60500.10"],
        '{"method":"edit_order","params":{"order_id":"OA","symbol":"BTC/USD","limit_price":60500.10,"token":"T"},"req_id":7}',
    ),
    "cancel_order": (
        ["cancel_order", "order_userref=5", "order_userref=6"],
        '{"method":"cancel_order","params":{"order_userref":[5,6],"token":"T"},"req_id":7}',
    ),
    "cancel_all": (["cancel_all"], '{"method":"cancel_all","params":{"token":"T"},"req_id":7}'),
    "cancel_all_orders_after": (
        ["cancel_all_orders_after", "timeout=0"],
        '{"method":"cancel_all_orders_after","params":{"timeout":0,"token":"T"},"req_id":7}',
    ),
    "batch_add": (
        ["batch_add", "symbol=BTC/USD", f"orders:=[{ROW}, {ROW}]"],
        '{"method":"batch_add","params":{"symbol":"BTC/USD","orders":[' + f"{ROW},{ROW}" + '],"token":"T"},"req_id":7}',
    ),
    "batch_cancel": (
        ["batch_cancel", "orders=OA", "cl_ord_id=ü"],
        '{"method":"batch_cancel","params":{"orders":["OA"],"cl_ord_id":["ü"],"token":"T"},"req_id":7}',
    ),
}  # fmt: skip


def test_every_method_is_here_and_in_the_help_and_has_its_permission_named() -> None:
    assert list(RIGHT) == list(METHODS)
    listed = re.findall(r"\w+", re.sub(r"(?m)^methods, Spot v\d:", "", CALL.partition("\n\n")[0]))
    assert listed == list(METHODS)
    assert all(map(needed_for, METHODS))


@each("name", RIGHT)
def test_the_frame_is_this_byte_for_byte(name: str) -> None:
    words, frame = RIGHT[name]
    assert ask(*words).frame("T") == frame


def test_a_bare_reference_of_v1_is_sent_as_the_documented_string() -> None:
    assert ask("addOrder", *V1_LIMIT, "userref:=7").frame("T").endswith('"price":"61000.0","userref":"7"}')


@each("name", RIGHT)
def test_only_live_may_change_the_account_and_what_can_be_checked_is(name: str) -> None:
    words, frame = RIGHT[name]
    request = ask(*words, live=False)
    assert ask(*words).live
    assert not request.live
    if not request.method.checks:
        assert request.frame("T") == frame
    elif request.method.dialect == "v1":
        word = {"addOrder": '"true"', "editOrder": "true"}[name]
        assert request.frame("T") == frame.removesuffix("}") + f',"validate":{word}}}'
    else:
        assert request.frame("T") == frame.replace(',"token"', ',"validate":true,"token"')


@each("word", ["validate=true", "validate:=true"])
def test_a_check_that_is_asked_for_stays_one_with_live(word: str) -> None:
    assert not ask("add_order", *LIMIT, word).live
    assert not ask("addOrder", *V1_LIMIT, word).live
    assert ask("addOrder", *V1_LIMIT, "validate=false").live


@given(st.from_regex(r"(0|[1-9][0-9]{0,12})(\.[0-9]{1,12})?", fullmatch=True))
def test_a_number_is_sent_as_it_was_typed(digits: str) -> None:
    words = [word for word in LIMIT if not word.startswith("order_qty")]
    for word in (f"order_qty={digits}", f"order_qty:={digits}"):
        assert f'"order_qty":{digits},' in ask("add_order", *words, word).frame("T")
    words = [word for word in V1_LIMIT if not word.startswith("volume")]
    assert f'"volume":"{digits}"' in ask("addOrder", *words, f"volume={digits}").frame("T")


def test_a_whole_object_is_taken_and_words_add_to_it() -> None:
    given = '{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.10}'
    assert ask("add_order", "limit_price=61000.0", given=given).frame("T") == ask("add_order", *LIMIT).frame("T")


def test_what_is_not_known_is_sent_if_that_is_wished() -> None:
    frame = ask("add_order", *LIMIT, "brand_new=1", "newer:=[1.0]", "stp_type=cancel_none", unknown=True).frame("T")
    assert '"brand_new":"1","newer":[1.0],"stp_type":"cancel_none"' in frame


@each("seconds", [0.5, 5, 60])
def test_a_deadline_that_kraken_takes_passes(seconds: float) -> None:
    assert f'"deadline":"{ahead(seconds)}"' in ask("add_order", *LIMIT, f"deadline={ahead(seconds)}").frame("T")


@each("zone", ["Z", "+00:00", ".5Z", ".123456789-00:00"])
def test_a_deadline_may_have_any_fraction_and_zone(zone: str) -> None:
    text = ahead(5).partition("+")[0] + zone
    assert f'"deadline":"{text}"' in ask("add_order", *LIMIT, f"deadline={text}").frame("T")


def test_a_file_that_holds_no_json_is_to_be_corrected_and_a_word_to_be_quoted() -> None:
    with pytest.raises(UsageError) as caught:
        ask("cancel_all", given="{")
    assert caught.value.remedy == "Correct the file."
    with pytest.raises(UsageError) as caught:
        ask("add_order", *LIMIT, "triggers:={")
    assert caught.value.remedy.startswith("Quote it for the shell:")


def test_orders_and_names_tell_what_to_look_for() -> None:
    request = ask("cancelOrder", "txid=OA", "txid=12", "cl_ord_id=a")
    assert request.orders == ("OA", "12", "a")
    assert request.names == "reqid 7, cl_ord_id a, txid OA 12"
    row = ROW.replace("}", ',"cl_ord_id":"a"}')
    assert ask("batch_add", "symbol=BTC/USD", f"orders:=[{row},{ROW}]").names == "req_id 7, cl_ord_id a"
    assert ask("batch_cancel", "orders=OA", "orders=OB").names == "req_id 7, orders OA OB"


# ------------------------------------------------------------------------------------------------ wrong

WRONG: list[tuple[Sequence[str], str]] = [
    ([], "No method is named."),
    (["addorder"], "Did you mean addOrder?"),
    (["AddOrder"], "Did you mean addOrder?"),
    (["place"], 'There is no method "place".'),
    (["cancel_all", "now"], '"now" is not a parameter.'),
    (["add_order", *LIMIT, "limit_prise=1"], "Did you mean limit_price?"),
    (["addOrder", *V1_LIMIT, "limit_price=1"], 'there is no parameter "limit_price"'),
    (["add_order", *LIMIT, "token=x"], "kraken-feed sets token itself"),
    (["add_order", *LIMIT, "side=buy"], "side is given twice"),
    (["add_order", *LIMIT, "order_qty:=2"], "order_qty is given twice"),
    (["batch_cancel", "orders:=0.25", "orders=O1"], "orders is given twice"),
    (["add_order"], "add_order needs order_type."),
    (["add_order"], "Parameters: order_type*, side*, order_qty"),
    (["cancel_all_orders_after"], "needs timeout"),
    (["add_order", *LIMIT[:4]], "needs limit_price for limit"),
    (["add_order", *LIMIT[:3], LIMIT[4]], "needs order_qty or cash_order_qty"),
    (["add_order", "order_type=stop-loss", *LIMIT[1:4]], "needs triggers for stop-loss"),
    (["addOrder", "ordertype=stop-loss-limit", *V1_LIMIT[1:]], "needs price2 for stop-loss-limit"),
    (["amend_order", "limit_price=1"], "needs order_id or cl_ord_id"),
    (["amendOrder", "txid=a"], "needs volume or display_volume or limit_price or trigger_price or post_only"),
    (["cancelOrder"], "needs txid or cl_ord_id"),
    (["add_order", *LIMIT, "cl_ord_id=a", "order_userref=1"], "cl_ord_id and order_userref exclude each other"),
    (["addOrder", *V1_LIMIT, "cl_ord_id=a", "userref=1"], "userref and cl_ord_id exclude each other"),
    (["cancel_order", "order_id=a", "cl_ord_id=b"], "order_id and cl_ord_id exclude each other"),
    (["add_order", *LIMIT[:4], "limit_price=1,5"], 'limit_price must be a number, such as 0.25, not 1,5'),
    (["add_order", *LIMIT[:4], "limit_price=+1"], "not +1"),
    (["add_order", *LIMIT[:4], "limit_price=01"], "not 01"),
    (["add_order", *LIMIT[:4], "limit_price=١"], "not ١"),
    (["add_order", *LIMIT[:4], 'limit_price:="1"'], 'not "1"'),
    (["addOrder", *V1_LIMIT[:4], "price:=1"], "price must be a price in a string"),
    (["addOrder", *V1_LIMIT[:4], "price=1e3"], 'not "1e3"'),
    (["addOrder", *V1_LIMIT, "userref=a"], "userref must be a whole number, in a string or bare"),
    (["addOrder", *V1_LIMIT, "validate=yes"], "validate must be true or false"),
    (["add_order", *LIMIT, "post_only=yes"], "post_only must be true or false"),
    (["add_order", *LIMIT, "order_userref=1.5"], "order_userref must be a whole number"),
    (["add_order", *LIMIT, "cl_ord_id="], "cl_ord_id must be a string that is not empty"),
    (["add_order", *LIMIT, "triggers=1"], "Write triggers:='…' with JSON in it."),
    (["add_order", *LIMIT, "triggers:={"], "triggers is not valid JSON"),
    (["add_order", *LIMIT, 'triggers:={"prise":1}'], "Did you mean triggers.price?"),
    (["add_order", *LIMIT, "triggers:={}"], "needs triggers.price"),
    (["add_order", *LIMIT, 'triggers:={"price":"1"}'], "triggers.price must be a number"),
    (["add_order", "order_type=limited", *LIMIT[1:]], 'order_type cannot be "limited".'),
    (["addOrder", *V1_LIMIT, "oflags=post,past"], 'oflags cannot be "past".'),
    (["cancel_order", "order_userref=a"], "order_userref must be a list of whole numbers"),
    (["cancel_all_orders_after", "timeout=86400"], "timeout must be a whole number of seconds from 0 to 86399"),
    (["cancelAllOrdersAfter", "timeout=-1"], "not -1"),
    (["cancel_order", "order_id=a", "order_id=a"], "order_id has the same element twice"),
    (["cancel_order", "order_id:=[]"], "order_id takes 1 to 1000 elements, not 0"),
    (["batch_add", "symbol=BTC/USD", f"orders:=[{ROW}]"], "orders takes 2 to 15 elements, not 1"),
    (["batch_add", "symbol=BTC/USD", 'orders:=[{"side":"buy"},{}]'], "batch_add needs orders[0].order_type."),
    (["batch_add", "symbol=BTC/USD", "orders:=[1,2]"], "orders must be a list of JSON objects"),
    (["batch_cancel", "orders=OA"], "batch_cancel takes 2 to 50 orders, not 1."),
    (["batch_cancel", *[f"orders=O{n}" for n in range(40)], *[f"cl_ord_id={n}" for n in range(11)]], "not 51"),
    (["cancel_all", "req_id=0"], "req_id must be a whole number above 0 and below 2^64"),
    (["cancel_all", "req_id=18446744073709551616"], "req_id must be a whole number"),
    (["cancel_all", f"req_id={'1' * 5000}"], "req_id must be a whole number"),
    (["cancel_all_orders_after", f"timeout={'1' * 5000}"], "timeout must be a whole number of seconds"),
    (["add_order", *LIMIT, f"order_userref={'1' * 5000}"], "order_userref must be a whole number"),
    (["add_order", *LIMIT, "triggers:=" + "[" * 450 + "]" * 450], "nested too deeply"),
    (["add_order", *LIMIT, "deadline=soon"], "deadline must be an RFC 3339 time with its zone"),
    (["add_order", *LIMIT, "deadline=2025-10-09T08:53:25"], "deadline must be an RFC 3339 time with its zone"),
    *((["add_order", *LIMIT, f"deadline={text}"], "deadline must be an RFC 3339 time") for text in (
        "20251009T085325Z", "2025-10-09 08:53:25Z", "2025-W41-4T08:53:25Z", "2025-10-09T08:53Z",
        "2025-10-09T08:53:25+00", "2025-10-09T08:53:25,5Z", "2025-13-09T08:53:25Z",
    )),
    (["add_order", *LIMIT, f"deadline={ahead(0.4)}"], "is +0.400 s from now"),
    (["add_order", *LIMIT, f"deadline={ahead(61)}"], "is +61.000 s from now"),
    (["addOrder", *V1_LIMIT, f"deadline={ahead(-3)}"], "is -3.000 s from now"),
    (["add_order", *LIMIT, "cl_ord_id=\udcff"], "a parameter is not valid Unicode"),
]  # fmt: skip


@each(("words", "says"), WRONG)
def test_what_is_wrong_is_said_before_anything_is_sent(words: Sequence[str], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        ask(*words)
    assert says in str(caught.value)


@each("given", ["[]", "1", "nothing", '{"a":1,"a":1}'])
def test_a_file_that_holds_no_object_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        ask("cancel_all", given=given)


@each("word", ["txid=OA", 'txid:=["OA"]'])
def test_a_list_of_the_file_is_not_added_to(word: str) -> None:
    with pytest.raises(UsageError, match="txid is given twice"):
        ask("cancelOrder", word, given='{"txid":["OB"]}')


@each("word", ["validate=false", "validate:=false"])
@each("order", [["add_order", *LIMIT], ["addOrder", *V1_LIMIT]])
def test_who_switches_the_check_off_has_to_say_live(order: Sequence[str], word: str) -> None:
    with pytest.raises(UsageError, match="validate is false, but --live is not given"):
        ask(*order, word, live=False)


@each("word", ["validate=FALSE", "validate:=0", 'validate:="no"', "validate:=null", "validate="])
@each("order", [["add_order", *LIMIT], ["addOrder", *V1_LIMIT]])
def test_nothing_else_passes_for_a_check_whatever_else_is_allowed(order: Sequence[str], word: str) -> None:
    for live in (True, False):
        with pytest.raises(UsageError):
            ask(*order, word, live=live, unknown=True)


@given(st.sampled_from(sorted(METHODS)), st.lists(st.text(max_size=20)), st.none() | st.text(max_size=20))
def test_any_words_are_a_request_or_a_usage_error(method: str, words: list[str], given: str | None) -> None:
    try:
        request = ask(method, *words, given=given, live=False, unknown=True)
    except UsageError:
        return
    assert not request.live
