"""Every parameter of every method of order entry, in the JSON type that Kraken documents, byte for byte."""

from __future__ import annotations

import json
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.errors import UsageError
from kraken_feed.order_entry.methods import METHODS
from kraken_feed.order_entry.request import build
from kraken_feed.simulator.wire import v1_orders, v2_orders
from kraken_feed.simulator.wire.order_entry import Refusal, check_types

from ...support.cases import each

NOW = 1_760_000_000.0
DEADLINE = "2025-10-09T08:53:25.000Z"
ROW = '{"order_type":"limit","side":"buy","order_qty":0.10,"limit_price":61000.0}'

# Of every parameter: what the user types, and the bytes on the wire. v1 writes numbers as strings, v2 as numbers.
_DEADLINE = {"deadline": (f"deadline={DEADLINE}", f'"{DEADLINE}"')}
_TIMEOUT = {"timeout": ("timeout=60", "60")}
_V2_ORDER = {
    "order_type": ("order_type=limit", '"limit"'),
    "side": ("side=buy", '"buy"'),
    "order_qty": ("order_qty=0.10", "0.10"),
    "cash_order_qty": ("cash_order_qty=100.0", "100.0"),
    "limit_price": ("limit_price=61000.0", "61000.0"),
    "limit_price_type": ("limit_price_type=static", '"static"'),
    "triggers": (
        'triggers:={"price":60000.0,"reference":"last","price_type":"static"}',
        '{"price":60000.0,"reference":"last","price_type":"static"}',
    ),
    "conditional": (
        'conditional:={"order_type":"stop-loss-limit","limit_price":6.10,"limit_price_type":"static",'
        '"trigger_price":6.2,"trigger_price_type":"pct"}',
        '{"order_type":"stop-loss-limit","limit_price":6.10,"limit_price_type":"static",'
        '"trigger_price":6.2,"trigger_price_type":"pct"}',
    ),
    "time_in_force": ("time_in_force=GTD", '"gtd"'),
    "margin": ("margin=true", "true"),
    "post_only": ("post_only=true", "true"),
    "reduce_only": ("reduce_only=false", "false"),
    "effective_time": (f"effective_time={DEADLINE}", f'"{DEADLINE}"'),
    "expire_time": (f"expire_time={DEADLINE}", f'"{DEADLINE}"'),
    "cl_ord_id": ("cl_ord_id=7", '"7"'),
    "order_userref": ("order_userref=7", "7"),
    "display_qty": ("display_qty=0.01", "0.01"),
    "fee_preference": ("fee_preference=quote", '"quote"'),
    "no_mpp": ("no_mpp=true", "true"),
    "stp_type": ("stp_type=cancel_both", '"cancel_both"'),
    "sender_sub_id": ("sender_sub_id=8", '"8"'),
}  # fmt: skip
DOCUMENTED: dict[str, dict[str, tuple[str, str]]] = {
    "addOrder": {
        "ordertype": ("ordertype=limit", '"limit"'),
        "type": ("type=buy", '"buy"'),
        "pair": ("pair=XBT/USD", '"XBT/USD"'),
        "price": ("price=61000.0", '"61000.0"'),
        "price2": ("price2=-1.5%", '"-1.5%"'),
        "volume": ("volume=0.10", '"0.10"'),
        "display_volume": ("display_volume=0.01", '"0.01"'),
        "leverage": ("leverage=2", '"2"'),
        "margin": ("margin=true", "true"),
        "reduce_only": ("reduce_only=true", "true"),
        "oflags": ("oflags=post,nompp", '"post,nompp"'),
        "starttm": ("starttm=+30", '"+30"'),
        "expiretm": ("expiretm=1760000900", '"1760000900"'),
        **_DEADLINE,
        "userref": ("userref=7", '"7"'),
        "cl_ord_id": ("cl_ord_id=7", '"7"'),
        "sender_sub_id": ("sender_sub_id=8", '"8"'),
        "validate": ("validate=true", '"true"'),
        "timeinforce": ("timeinforce=gtc", '"GTC"'),
        "trigger": ("trigger=index", '"index"'),
        "stp_type": ("stp_type=cancel_oldest", '"cancel_oldest"'),
        "close[ordertype]": ("close[ordertype]=limit", '"limit"'),
        "close[price]": ("close[price]=#2", '"#2"'),
        "close[price2]": ("close[price2]=60000", '"60000"'),
    },
    "editOrder": {
        "orderid": ("orderid=7", '"7"'),
        "pair": ("pair=XBT/USD", '"XBT/USD"'),
        "price": ("price=60500", '"60500"'),
        "price2": ("price2=60400", '"60400"'),
        "volume": ("volume=0.10", '"0.10"'),
        "oflags": ("oflags=post", '"post"'),
        "newuserref": ("newuserref=8", '"8"'),
        "validate": ("validate=true", "true"),
    },
    "amendOrder": {
        "txid": ("txid=OA", '"OA"'),
        "cl_ord_id": ("cl_ord_id=7", '"7"'),
        "volume": ("volume=0.10", '"0.10"'),
        "display_volume": ("display_volume=0.01", '"0.01"'),
        "limit_price": ("limit_price=60400.0", '"60400.0"'),
        "trigger_price": ("trigger_price=+1%", '"+1%"'),
        "post_only": ("post_only=true", "true"),
        "pair": ("pair=AAPLx/USD", '"AAPLx/USD"'),
        **_DEADLINE,
    },
    "cancelOrder": {"txid": ("txid=7", '["7"]'), "cl_ord_id": ("cl_ord_id=a", '["a"]')},
    "cancelAll": {},
    "cancelAllOrdersAfter": _TIMEOUT,
    "add_order": _V2_ORDER | _DEADLINE | {
        "symbol": ("symbol=BTC/USD", '"BTC/USD"'),
        "validate": ("validate=true", "true"),
    },
    "amend_order": {
        "order_id": ("order_id=OA", '"OA"'),
        "cl_ord_id": ("cl_ord_id=7", '"7"'),
        "symbol": ("symbol=AAPLx/USD", '"AAPLx/USD"'),
        "order_qty": ("order_qty=0.10", "0.10"),
        "display_qty": ("display_qty=0.01", "0.01"),
        "limit_price": ("limit_price=60400.0", "60400.0"),
        "limit_price_type": ("limit_price_type=static", '"static"'),
        "trigger_price": ("trigger_price=1.5", "1.5"),
        "trigger_price_type": ("trigger_price_type=pct", '"pct"'),
        "post_only": ("post_only=true", "true"),
        **_DEADLINE,
    },
    "edit_order": {
        "order_id": ("order_id=OA", '"OA"'),
        "symbol": ("symbol=BTC/USD", '"BTC/USD"'),
        **{name: _V2_ORDER[name] for name in (
            "order_qty", "limit_price", "triggers", "display_qty", "post_only", "reduce_only", "fee_preference",
            "no_mpp", "order_userref",
        )},
        **_DEADLINE,
        "validate": ("validate=true", "true"),
    },
    "cancel_order": {
        "order_id": ("order_id=OA", '["OA"]'),
        "cl_ord_id": ("cl_ord_id=7", '["7"]'),
        "order_userref": ("order_userref=7", "[7]"),
    },
    "cancel_all": {},
    "cancel_all_orders_after": _TIMEOUT,
    "batch_add": {
        "symbol": ("symbol=BTC/USD", '"BTC/USD"'),
        "orders": (f"orders:=[{ROW},{ROW}]", f"[{ROW},{ROW}]"),
        **_DEADLINE,
        "validate": ("validate=true", "true"),
    },
    "batch_cancel": {
        "orders": ('orders:=["OA","7"]', '["OA","7"]'),
        "cl_ord_id": ('cl_ord_id:=["a","b"]', '["a","b"]'),
    },
}  # fmt: skip
EVERY = [(method, name) for method, parameters in DOCUMENTED.items() for name in parameters]
# What has to stand beside a parameter, where the method takes no frame without it.
BESIDE = {
    "addOrder": ("ordertype", "type", "pair", "volume", "price"),
    "editOrder": ("orderid", "pair"),
    "amendOrder": ("txid", "limit_price"),
    "add_order": ("order_type", "side", "symbol", "order_qty", "limit_price"),
    "amend_order": ("order_id", "limit_price"),
    "edit_order": ("order_id", "symbol"),
    "batch_add": ("symbol", "orders"),
}
INSTEAD = {
    ("amendOrder", "cl_ord_id"): "txid",
    ("amend_order", "cl_ord_id"): "order_id",
    ("add_order", "cash_order_qty"): "order_qty",
}


def frame(method: str, *names: str) -> str:
    """The frame that the client sends for these parameters, with what has to stand beside them."""
    needed = [name for name in BESIDE.get(method, ()) if name not in names]
    needed = [name for name in needed if not any(INSTEAD.get((method, given)) == name for given in names)]
    words = [DOCUMENTED[method][name][0] for name in (*needed, *names)]
    return build([method, *words], None, 7, NOW, live=True, unknown=False).frame("T")


def expected(method: str, *names: str) -> str:
    needed = [name for name in BESIDE.get(method, ()) if name not in names]
    needed = [name for name in needed if not any(INSTEAD.get((method, given)) == name for given in names)]
    members = ",".join(f'"{name}":{DOCUMENTED[method][name][1]}' for name in (*needed, *names))
    if METHODS[method].dialect == "v1":
        return f'{{"event":"{method}","token":"T","reqid":7{"," * bool(members)}{members}}}'
    return f'{{"method":"{method}","params":{{{members}{"," * bool(members)}"token":"T"}},"req_id":7}}'


def test_the_table_has_every_parameter_of_every_method() -> None:
    assert {method: set(parameters) for method, parameters in DOCUMENTED.items()} == {
        name: set(method.shape.fields) for name, method in METHODS.items()
    }


@each(("method", "name"), EVERY)
def test_a_parameter_is_sent_in_the_documented_type_byte_for_byte(method: str, name: str) -> None:
    assert frame(method, name) == expected(method, name)


@each("method", ["cancelAll", "cancel_all"])
def test_a_method_without_parameters_is_sent_byte_for_byte(method: str) -> None:
    assert frame(method) == expected(method)


@each(("method", "name"), EVERY)
def test_the_simulator_documents_the_same_types_by_itself(method: str, name: str) -> None:
    known = v1_orders._KNOWN if METHODS[method].dialect == "v1" else v2_orders._KNOWN
    value = json.loads(DOCUMENTED[method][name][1])
    check_types(method, {name: value}, known[method])
    if name == "validate":
        assert known[method][name] == ("flag" if isinstance(value, bool) else "text")
        return
    wrong: list[Any] = ["1", 1.5, True, [None], {"x": 1}, None]
    right = type(value) if not isinstance(value, float) else (int, float)
    for other in wrong:
        if not isinstance(other, right) or (isinstance(other, bool) and not isinstance(value, bool)):
            with pytest.raises(Refusal, match=rf"Invalid arguments:{name.partition('[')[0]}"):
                check_types(method, {name: other}, known[method])


# ------------------------------------------------------------------------------------------------ validate

VALUES = st.sampled_from(
    ["true", "false", '"true"', '"false"', '"TRUE"', '"1"', '""', "1", "0", "null", "[true]", '["true"]', "{}"]
)
FORMS: st.SearchStrategy[Literal["word", "json", "file"]] = st.sampled_from(["word", "json", "file"])


@given(st.sampled_from(["addOrder", "editOrder"]), st.none() | VALUES, FORMS, st.booleans(), st.booleans())
def test_validate_is_only_ever_sent_in_the_documented_type(
    method: str, value: str | None, form: str, live: bool, unknown: bool
) -> None:
    """A string might let Kraken carry an edit out."""
    words = [DOCUMENTED[method][name][0] for name in BESIDE[method]]
    given = None
    if value is not None and form == "file":
        given = f'{{"validate":{value}}}'
    elif value is not None:
        words.append(f"validate{':=' if form == 'json' else '='}{value}")
    try:
        request = build([method, *words], given, 7, NOW, live=live, unknown=unknown)
    except UsageError:
        return
    sent = json.loads(request.frame("T"))
    if value is None and live:
        assert "validate" not in sent
        return
    documented = {"addOrder": ("true", "false"), "editOrder": (True, False)}[method]
    assert type(sent["validate"]) is type(documented[0])
    assert sent["validate"] in documented
    assert request.live is (sent["validate"] == documented[1])
    assert live or not request.live


@each("given", ['{"validate":"true"}', '{"validate":"false"}'])
@each("live", [True, False])
def test_an_edit_whose_validate_is_a_string_is_refused_whatever_is_allowed(given: str, live: bool) -> None:
    with pytest.raises(UsageError, match="editOrder: validate must be true or false, not"):
        build(["editOrder", "orderid=OA", "pair=XBT/USD"], given, 7, NOW, live=live, unknown=True)


@each("method", [name for name, method in METHODS.items() if method.checks])
def test_without_live_the_check_is_asked_for_in_the_documented_type(method: str) -> None:
    words = [DOCUMENTED[method][name][0] for name in BESIDE[method]]
    request = build([method, *words], None, 7, NOW, live=False, unknown=False)
    assert f'"validate":{DOCUMENTED[method]["validate"][1]}' in request.frame("T")
    assert not request.live


# ------------------------------------------------------------------------------------------------ words of both cases


@each("word", ["gtd", "GTD", "Gtd"])
def test_time_in_force_is_taken_in_any_case_and_sent_as_documented(word: str) -> None:
    v1 = [DOCUMENTED["addOrder"][name][0] for name in BESIDE["addOrder"]]
    v2 = [DOCUMENTED["add_order"][name][0] for name in BESIDE["add_order"]]
    row = ROW.replace("}", f',"time_in_force":"{word}"}}')
    for unknown in (False, True):
        built = build(["addOrder", *v1, f"timeinforce={word}"], None, 7, NOW, live=True, unknown=unknown)
        assert '"timeinforce":"GTD"' in built.frame("T")
        built = build(["add_order", *v2, f"time_in_force={word}"], None, 7, NOW, live=True, unknown=unknown)
        assert '"time_in_force":"gtd"' in built.frame("T")
        built = build(
            ["batch_add", "symbol=BTC/USD", f"orders:=[{row},{row}]"], None, 7, NOW, live=True, unknown=unknown
        )
        assert built.frame("T").count('"time_in_force":"gtd"') == 2


def test_what_is_not_listed_stays_as_it_was_typed() -> None:
    v1 = [DOCUMENTED["addOrder"][name][0] for name in BESIDE["addOrder"]]
    built = build(["addOrder", *v1, "timeinforce=Ioq"], None, 7, NOW, live=True, unknown=True)
    assert '"timeinforce":"Ioq"' in built.frame("T")


@each("word", ["stp_type=cancel-newest", "stptype=cancel_newest"])
def test_v1_takes_stp_type_with_underscores_only(word: str) -> None:
    v1 = [DOCUMENTED["addOrder"][name][0] for name in BESIDE["addOrder"]]
    with pytest.raises(UsageError) as caught:
        build(["addOrder", *v1, word], None, 7, NOW, live=True, unknown=False)
    said = str(caught.value)
    assert "cancel_newest, cancel_oldest, cancel_both" in said or "Did you mean stp_type?" in said


def test_nested_objects_are_written_out_in_the_table() -> None:
    for method in ("add_order", "edit_order"):
        for name, field in METHODS[method].shape.fields.items():
            if field.shape is not None and field.kind == "object":
                assert set(json.loads(DOCUMENTED[method][name][1])) == set(field.shape.fields)
