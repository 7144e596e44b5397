"""Which frames answer a request of order entry, what they say, and when all are there."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.order_entry.methods import METHODS
from kraken_feed.order_entry.request import build
from kraken_feed.order_entry.responses import Answers

from ...support.cases import each
from ...support.frame_files import FRAMES, frame

WORDS = {
    "addOrder": ["ordertype=market", "type=buy", "pair=XBT/USD", "volume=1"],
    "editOrder": ["orderid=OA", "pair=XBT/USD"],
    "amendOrder": ["txid=OA", "volume=1"],
    "cancelOrder": ["txid=OA", "txid=OB"],
    "add_order": ["order_type=market", "side=buy", "symbol=BTC/USD", "order_qty=1"],
    "edit_order": ["order_id=OA", "symbol=BTC/USD"],
    "amend_order": ["order_id=OA", "order_qty=1"],
    "cancel_order": ["order_id=OA", "order_id=OB"],
    "cancel_all_orders_after": ["timeout=0"],
    "cancelAllOrdersAfter": ["timeout=0"],
    "batch_add": ["symbol=BTC/USD", 'orders:=[{"order_type":"market","side":"buy","order_qty":1},'
                  '{"order_type":"market","side":"buy","order_qty":1}]'],
    "batch_cancel": ["orders=OA", "orders=OB"],
}  # fmt: skip


def answers(method: str, number: int = 7, *words: str) -> Answers:
    return Answers(build([method, *(words or WORDS.get(method, []))], None, number, 0.0, live=True, unknown=False))


def v1(status: str = "ok", **fields: object) -> bytes:
    return json.dumps({"event": "cancelOrderStatus", "reqid": 7, "status": status, **fields}).encode()


def v2(order: str = "", error: str = "", at: int = 0) -> bytes:
    told = {"error": error} if error else {"result": {"order_id": order}}
    return json.dumps({"method": "cancel_order", "req_id": 7, "success": not error, **told, "time_out": at}).encode()


@each(
    ("name", "method", "number", "success", "orders"),
    [
        ("v1-addOrderStatus-ok", "addOrder", 101, True, ("OAAAAA-BBBBB-CCCCCD",)),
        ("v1-addOrderStatus-error", "addOrder", 5, False, ()),  # without a number
        ("v1-editOrderStatus-ok", "editOrder", 102, True, ("OAAAAA-BBBBB-CCCCCE",)),
        ("v1-amendOrderStatus-ok", "amendOrder", 103, True, ("OAAAAA-BBBBB-CCCCCE",)),
        ("v1-cancelAllStatus-ok", "cancelAll", 105, True, ()),
        ("v1-cancelAllOrdersAfterStatus-ok", "cancelAllOrdersAfter", 106, True, ()),
        ("v1-error-malformed", "addOrder", 5, False, ()),
        ("v1-error-rate-bare", "addOrder", 5, False, ()),
        ("v2-add_order-ok", "add_order", 41, True, ("OAAAAA-BBBBB-CCCCC6",)),
        ("v2-add_order-error", "add_order", 5, False, ()),  # without a number
        ("v2-amend_order-ok", "amend_order", 42, True, ()),
        ("v2-edit_order-ok", "edit_order", 43, True, ("OAAAAA-BBBBB-CCCCC7",)),
        ("v2-cancel_all_orders_after-ok", "cancel_all_orders_after", 45, True, ()),
        ("v2-batch_add-array", "batch_add", 46, True, ("OAAAAA-BBBBB-CCCCC8", "OAAAAA-BBBBB-CCCCC9")),
        ("v2-batch_add-orders", "batch_add", 47, False, ("OAAAAA-BBBBB-CCCCC8",)),
        ("v2-batch_cancel-ok", "batch_cancel", 48, True, ()),
        ("v2-error-bare", "add_order", 5, False, ()),
    ],
)
def test_an_answer_of_the_field_is_read(
    name: str, method: str, number: int, success: bool, orders: tuple[str, ...]
) -> None:
    waiting = answers(method, number)
    answer = waiting.take(frame(name))
    assert answer is not None
    assert (answer.success, answer.orders, answer.frame) == (success, orders, frame(name))
    assert bool(answer.errors) is not success
    assert waiting.complete


@each("method", METHODS)
def test_nothing_that_is_said_to_all_or_to_another_is_an_answer(method: str) -> None:
    waiting = answers(method, 999_999)
    for file in FRAMES:
        if file.dialect == waiting._request.method.dialect and file.kind not in ("order-status", "error", "ack-error"):
            assert waiting.take(file.frame) is None, file.name
    assert waiting.take(frame("v1-editOrderStatus-ok")) is None
    assert waiting.take(frame("v2-edit_order-ok")) is None
    assert not waiting.complete


def test_each_of_several_orders_is_answered_by_itself() -> None:
    waiting = answers("cancel_order")
    for text in (v2("OA"), v2(error="EOrder:Unknown order")):
        assert not waiting.complete
        assert waiting.take(text) is not None
    assert waiting.complete
    assert not waiting.open_ended


def test_an_answer_that_comes_again_is_not_the_other_orders() -> None:
    waiting = answers("cancel_order")
    for text in (v2("OA"), v2("OA"), v2("OA", at=1)):
        waiting.take(text)
    assert (len(waiting.known), waiting.repeated, waiting.complete) == (1, 2, False)


def test_an_error_of_v2_that_comes_again_to_the_byte_is_not_the_other_orders() -> None:
    waiting = answers("cancel_order")
    for text in (v2(error="EOrder:Unknown order"), v2(error="EOrder:Unknown order")):
        waiting.take(text)
    assert (waiting.repeated, waiting.complete) == (1, False)
    waiting.take(v2(error="EOrder:Unknown order", at=1))
    assert waiting.complete


def test_in_v1_two_orders_have_the_same_answer_and_a_third_one_is_too_many() -> None:
    waiting = answers("cancelOrder")
    for text in (v1(), v1()):
        assert not waiting.complete
        waiting.take(text)
    assert waiting.complete
    assert waiting.open_ended
    assert not waiting.surplus
    waiting.take(v1())
    assert waiting.surplus


def test_the_single_answer_of_v1_counts_once_however_often_it_comes() -> None:
    waiting = answers("cancelOrder", 7, "txid=OA")
    waiting.take(v1())
    waiting.take(v1())
    assert (waiting.repeated, waiting.complete, waiting.surplus) == (1, True, False)


def test_a_count_speaks_for_several_orders() -> None:
    waiting = answers("cancelOrder")
    waiting.take(v1(count=2))
    assert waiting.complete


def test_the_name_that_kraken_documents_once_for_the_answer_is_taken() -> None:
    waiting = answers("cancelOrder", 7, "txid=OA")
    assert waiting.take(b'{"event":"cancelAllStatus","reqid":7,"status":"ok"}') is not None


@each("text", ["EGeneral:Permission denied", "EAPI:Invalid token", "Exceeded msg rate"])
def test_a_refusal_of_the_request_is_one_answer_to_all_but_is_waited_upon(text: str) -> None:
    for waiting, refusal in (
        (answers("cancel_order"), v2(error=text)),
        (answers("cancelOrder"), v1("error", errorMessage=text)),
    ):
        waiting.take(refusal)
        assert waiting.complete
        assert waiting.open_ended


@each("method", ["cancelOrder", "cancel_order"])
def test_a_reference_may_bring_more_answers_than_orders_were_named(method: str) -> None:
    waiting = answers(method, 7, "txid=12" if method == "cancelOrder" else "order_userref=12")
    for order in ("OA", "OB"):
        waiting.take(v1() if method == "cancelOrder" else v2(order))
    assert waiting.complete
    assert waiting.open_ended
    assert not waiting.surplus


@each("text", [b'{"event":"addOrderStatus","reqid":7}', b'{"event":"addOrderStatus","reqid":7,"status":1}'])
def test_an_answer_that_says_neither_yes_nor_no_is_neither(text: bytes) -> None:
    answer = answers("addOrder").take(text)
    assert answer is not None
    assert answer.success is None


@each("result", [5, "x", [], [5], {"orders": 5}, {"orders": [5, {"success": False, "error": None}]}])
def test_a_result_of_another_shape_is_read_as_far_as_it_goes(result: object) -> None:
    answer = answers("batch_add").take(
        json.dumps({"method": "batch_add", "req_id": 7, "success": True, "result": result}).encode()
    )
    assert answer is not None
    assert answer.errors == (("an error without a text",) if "None" in str(result) else ())


@each(
    ("method", "text"),
    [
        ("add_order", b'{"method":"add_order","req_id":7,"success":true,"error":"x","result":{"order_id":"OA"}}'),
        ("addOrder", b'{"event":"addOrderStatus","reqid":7,"status":"ok","errorMessage":"x","txid":"OA"}'),
    ],
)
def test_a_success_with_an_error_is_neither_yes_nor_no_and_its_order_is_seen(method: str, text: bytes) -> None:
    answer = answers(method).take(text)
    assert answer is not None
    assert (answer.success, answer.errors, answer.orders) == (None, (), ("OA",))


ROW, REFUSED = {"order_id": "OA"}, {"success": False, "error": "EOrder:Invalid price"}


@each(
    ("fields", "uneven"),
    [
        ({"result": [ROW, ROW]}, ""),
        ({"result": {"orders": [ROW, REFUSED]}}, ""),
        ({"orders": [ROW, REFUSED]}, ""),
        ({"result": [ROW]}, "1 of 2 orders"),
        ({"result": [ROW, ROW, ROW]}, "3 of 2 orders"),
        ({"result": [ROW, {}]}, "1 of 2 orders"),
        ({"result": []}, "0 of 2 orders"),
        ({}, "0 of 2 orders"),
    ],
)
def test_a_batch_tells_what_became_of_every_order_or_is_uneven(fields: dict[str, object], uneven: str) -> None:
    waiting = answers("batch_add")
    answer = waiting.take(json.dumps({"method": "batch_add", "req_id": 7, "success": True, **fields}).encode())
    assert answer is not None
    assert answer.success is ("Invalid price" not in str(fields))
    assert waiting.uneven == uneven


@each(
    ("words", "fields", "uneven"),
    [
        ("orders=OA orders=OB", {"orders_cancelled": 2}, ""),
        ("orders=OA orders=OB", {"orders_cancelled": 1}, "1 of 2 orders"),
        ("orders=OA cl_ord_id=b", {"orders_cancelled": 0}, "0 of 2 orders"),
        ("orders=OA orders=OB", {"count": 1}, "1 of 2 orders"),
        ("orders=OA orders=OB", {"result": {"count": 1}}, "1 of 2 orders"),
        ("orders=OA orders=OB", {}, ""),
        ("orders=OA orders=12", {"orders_cancelled": 5}, ""),  # a user's reference stands for any number
    ],
)
def test_the_count_of_a_batch_that_cancels_is_held_against_its_orders(
    words: str, fields: dict[str, object], uneven: str
) -> None:
    waiting = answers("batch_cancel", 7, *words.split())
    waiting.take(json.dumps({"method": "batch_cancel", "req_id": 7, "success": True, **fields}).encode())
    assert waiting.uneven == uneven


def test_a_batch_that_is_refused_or_was_to_be_checked_only_is_not_uneven() -> None:
    refusal = b'{"method":"batch_add","req_id":7,"success":false,"error":"EOrder:Insufficient funds"}'
    check = b'{"method":"batch_add","req_id":7,"success":true,"result":[]}'
    for waiting, text in (
        (answers("batch_add"), refusal),
        (answers("batch_add", 7, *WORDS["batch_add"], "validate=true"), check),
    ):
        waiting.take(text)
        assert (len(waiting.known), waiting.uneven) == (1, "")


def test_several_errors_are_several() -> None:
    for told, errors in (
        (["EGeneral:Internal error", "EOrder:x"], ("EGeneral:Internal error", "EOrder:x")),
        ([], ("an error without a text",)),
    ):
        answer = answers("add_order").take(json.dumps({"req_id": 7, "success": False, "error": told}).encode())
        assert answer is not None
        assert answer.errors == errors


def test_a_frame_that_cannot_be_read_is_counted() -> None:
    waiting = answers("addOrder")
    for text in (b"{", b"\xff", b"[" * 100_000):
        assert waiting.take(text) is None
    assert waiting.unreadable == 3


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
FIELDS = ("event", "method", "status", "success", "error", "errorMessage", "result", "txid", "count", "reqid", "req_id")
MESSAGES = st.dictionaries(
    st.sampled_from(FIELDS),
    VALUES | st.sampled_from(["addOrderStatus", "cancelOrderStatus", "cancel_order", "error", 7])
    | st.fixed_dictionaries({}, optional={"orders": VALUES, "order_id": VALUES, "error": VALUES, "success": VALUES}),
)  # fmt: skip


@given(st.sampled_from(sorted(METHODS)), st.lists(MESSAGES | VALUES, max_size=4), st.lists(MESSAGES, max_size=4))
def test_no_frame_whatever_it_says_is_an_error_of_ours(
    method: str, messages: list[object], meant: list[dict[str, object]]
) -> None:
    waiting = answers(method)
    ours = {"event": f"{method}Status", "method": method, "reqid": 7, "req_id": 7}
    for message in [*messages, *({**fields, **ours} for fields in meant)]:
        waiting.take(json.dumps(message).encode())
    assert len(waiting.known) + waiting.repeated >= len(meant)
    assert isinstance(waiting.complete, bool)
    assert isinstance(waiting.surplus, bool)
