"""Describe Kraken's methods of order entry: the parameters of each, as a table.

Source: https://docs.kraken.com/exchange/api-reference/spot-websocket-v1/addorder , …/editorder , …/amendorder ,
…/cancelorder , …/cancelall , …/cancelallordersafter ; https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/
add_order , …/amend_order , …/edit_order , …/cancel_order , …/cancel_all , …/cancel_after , …/batch_add , …/batch_cancel
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

Kind = Literal[
    "text", "flags", "price", "amount", "digits", "flag text", "deadline",  # JSON strings
    "number", "integer", "seconds", "flag", "texts", "integers", "object", "objects",
]  # fmt: skip


class Parameter(NamedTuple):
    """One parameter: its form on the wire, the values that it may have, an array's length, an object's ``shape``.
    ``any_case``: a value may be written in any case; it is sent as in ``choices``."""

    kind: Kind
    choices: tuple[str, ...] = ()
    required: bool = False
    least: int = 1
    most: int = 1000
    shape: Shape | None = None
    any_case: bool = False


class Shape(NamedTuple):
    """The parameters and their combinations: at least one of each group in ``some``, at most one of each group in
    ``alone``, and those that an order type ``needs``."""

    fields: Mapping[str, Parameter]
    some: tuple[tuple[str, ...], ...] = ()
    alone: tuple[tuple[str, ...], ...] = ()
    needs: Mapping[str, tuple[str, ...]] = {}


class Method(NamedTuple):
    """One method. ``checks``: Kraken can only check the request (``validate``). ``named`` are the parameters with one
    answer per element. ``unproven``: no recording shows that a check by this method leaves the account unchanged, so
    an unanswered check may have changed it."""

    name: str
    dialect: Literal["v1", "v2"]
    shape: Shape
    checks: bool = False
    named: tuple[str, ...] = ()
    unproven: bool = False

    @property
    def number(self) -> str:
        """The name of the request's number: ``reqid`` or ``req_id``."""
        return "reqid" if self.dialect == "v1" else "req_id"


TEXT, NUMBER, INTEGER, FLAG = Parameter("text"), Parameter("number"), Parameter("integer"), Parameter("flag")
PRICE, AMOUNT, DIGITS, DEADLINE = Parameter("price"), Parameter("amount"), Parameter("digits"), Parameter("deadline")
TEXTS = Parameter("texts")


def _one(*choices: str) -> Parameter:
    return Parameter("text", choices)


def _shape(
    table: Mapping[str, Parameter],
    names: str,
    *,
    some: tuple[tuple[str, ...], ...] = (),
    alone: tuple[tuple[str, ...], ...] = (),
    needs: Mapping[str, tuple[str, ...]] = {},  # it is not changed
    **different: Parameter,
) -> Shape:
    """Return the shape with these of the table's parameters, a star after the required ones. ``different`` are those
    that have another form here."""
    fields = {}
    for word in names.split():
        name = word.rstrip("*")
        fields[name] = different.get(name, table[name])._replace(required=word.endswith("*"))
    return Shape(fields, some, alone, needs)


ORDER_TYPES = (
    "limit", "market", "iceberg", "stop-loss", "stop-loss-limit", "take-profit", "take-profit-limit", "trailing-stop",
    "trailing-stop-limit", "settle-position",
)  # fmt: skip
CLOSE_TYPES = tuple(kind for kind in ORDER_TYPES if kind not in ("market", "iceberg", "settle-position"))
SIDES = ("buy", "sell")
PRICE_TYPE = _one("static", "pct", "quote")
STP_TYPE = _one("cancel_newest", "cancel_oldest", "cancel_both")  # REST writes stptype, with hyphens
TRIGGERED = ("stop-loss", "take-profit", "trailing-stop")
TIMEOUT = Shape({"timeout": Parameter("seconds", required=True)})

# ------------------------------------------------------------------------------------------------ v1: strings

_V1 = {
    "ordertype": _one(*ORDER_TYPES),
    "type": _one(*SIDES),
    **dict.fromkeys(("price", "price2", "limit_price", "trigger_price", "close[price]", "close[price2]"), PRICE),
    **dict.fromkeys(("volume", "display_volume"), AMOUNT),
    **dict.fromkeys(("pair", "orderid", "txid", "cl_ord_id", "sender_sub_id"), TEXT),
    **dict.fromkeys(("leverage", "starttm", "expiretm"), TEXT),
    **dict.fromkeys(("userref", "newuserref"), DIGITS),
    **dict.fromkeys(("margin", "reduce_only", "post_only"), FLAG),
    "validate": FLAG,  # Kraken might ignore a string in editOrder, and carry out the edit
    "oflags": Parameter("flags", ("viqc", "fcib", "fciq", "nompp", "post")),
    "deadline": DEADLINE,
    "timeinforce": Parameter("text", ("GTC", "IOC", "GTD", "FOK"), any_case=True),
    "trigger": _one("last", "index"),
    "stp_type": STP_TYPE,
    "close[ordertype]": _one(*CLOSE_TYPES),
}
_V1_ORDER = _shape(
    _V1,
    "ordertype* type* pair* price price2 volume* display_volume leverage margin reduce_only oflags starttm expiretm "
    "deadline userref cl_ord_id sender_sub_id validate timeinforce trigger stp_type close[ordertype] close[price] "
    "close[price2]",
    alone=(("userref", "cl_ord_id"),),
    needs={
        "limit": ("price",),
        "iceberg": ("price", "display_volume"),
        **dict.fromkeys(TRIGGERED, ("price",)),
        **dict.fromkeys((f"{kind}-limit" for kind in TRIGGERED), ("price", "price2")),
    },
    validate=Parameter("flag text"),
)
_V1_EDIT = _shape(
    _V1, "orderid* pair* price price2 volume oflags newuserref validate", oflags=Parameter("flags", ("post",))
)
_V1_AMEND = _shape(
    _V1,
    "txid cl_ord_id volume display_volume limit_price trigger_price post_only pair deadline",
    some=(("txid", "cl_ord_id"), ("volume", "display_volume", "limit_price", "trigger_price", "post_only")),
    alone=(("txid", "cl_ord_id"),),
)
_V1_CANCEL = _shape(_V1, "txid cl_ord_id", some=(("txid", "cl_ord_id"),), txid=TEXTS, cl_ord_id=TEXTS)

# ------------------------------------------------------------------------------------------------ v2: numbers

_V2 = {
    "order_type": _one(*ORDER_TYPES),
    "side": _one(*SIDES),
    **dict.fromkeys(("order_qty", "cash_order_qty", "display_qty", "limit_price", "trigger_price", "price"), NUMBER),
    **dict.fromkeys(("limit_price_type", "trigger_price_type", "price_type"), PRICE_TYPE),
    **dict.fromkeys(("order_id", "cl_ord_id", "symbol", "sender_sub_id", "effective_time", "expire_time"), TEXT),
    **dict.fromkeys(("margin", "post_only", "reduce_only", "no_mpp", "validate"), FLAG),
    "order_userref": INTEGER,
    "reference": _one("last", "index"),
    "time_in_force": Parameter("text", ("gtc", "gtd", "ioc", "fok"), any_case=True),
    "fee_preference": _one("base", "quote"),
    "stp_type": STP_TYPE,
    "deadline": DEADLINE,
}
_V2["triggers"] = Parameter("object", shape=_shape(_V2, "price* reference price_type"))
_V2["conditional"] = Parameter(
    "object",
    shape=_shape(
        _V2, "order_type* limit_price limit_price_type trigger_price trigger_price_type", order_type=_one(*CLOSE_TYPES)
    ),
)
_BATCHED = _shape(
    _V2,
    "order_type* side* order_qty cash_order_qty limit_price limit_price_type triggers conditional time_in_force margin "
    "post_only reduce_only effective_time expire_time cl_ord_id order_userref display_qty fee_preference no_mpp "
    "stp_type sender_sub_id",
    some=(("order_qty", "cash_order_qty"),),
    alone=(("cl_ord_id", "order_userref"), ("order_qty", "cash_order_qty")),
    needs={
        "limit": ("limit_price",),
        "iceberg": ("limit_price", "display_qty"),
        **dict.fromkeys(TRIGGERED, ("triggers",)),
        **dict.fromkeys((f"{kind}-limit" for kind in TRIGGERED), ("triggers", "limit_price")),
    },
)
_V2_ADD = _BATCHED._replace(fields={**_BATCHED.fields, **_shape(_V2, "symbol* deadline validate").fields})
_V2_EDIT = _shape(
    _V2,
    "order_id* symbol* order_qty limit_price triggers display_qty post_only reduce_only fee_preference no_mpp "
    "order_userref deadline validate",
)
_V2_AMEND = _shape(
    _V2,
    "order_id cl_ord_id symbol order_qty display_qty limit_price limit_price_type trigger_price trigger_price_type "
    "post_only deadline",
    some=(("order_id", "cl_ord_id"), ("order_qty", "display_qty", "limit_price", "trigger_price", "post_only")),
    alone=(("order_id", "cl_ord_id"),),
)
_NAMES = ("order_id", "cl_ord_id", "order_userref")
_V2_CANCEL = _shape(
    _V2,
    "order_id cl_ord_id order_userref",
    some=(_NAMES,),
    alone=(("order_id", "cl_ord_id"), ("order_id", "order_userref"), ("cl_ord_id", "order_userref")),
    order_id=TEXTS,
    cl_ord_id=TEXTS,
    order_userref=Parameter("integers"),
)
_V2["orders"] = Parameter("objects", least=2, most=15, shape=_BATCHED)
_V2_BATCH_ADD = _shape(_V2, "symbol* orders* deadline validate")
_V2_BATCH_CANCEL = Shape({"orders": Parameter("texts", most=50), "cl_ord_id": Parameter("texts", most=50)})

BATCH_CANCEL = (2, 50)  # elements of orders and cl_ord_id together
METHODS = {
    method.name: method
    for method in (
        Method("addOrder", "v1", _V1_ORDER, checks=True),
        Method("editOrder", "v1", _V1_EDIT, checks=True, unproven=True),
        Method("amendOrder", "v1", _V1_AMEND),
        Method("cancelOrder", "v1", _V1_CANCEL, named=("txid", "cl_ord_id")),
        Method("cancelAll", "v1", Shape({})),
        Method("cancelAllOrdersAfter", "v1", TIMEOUT),
        Method("add_order", "v2", _V2_ADD, checks=True),
        Method("amend_order", "v2", _V2_AMEND),
        Method("edit_order", "v2", _V2_EDIT, checks=True),
        Method("cancel_order", "v2", _V2_CANCEL, named=_NAMES),
        Method("cancel_all", "v2", Shape({})),
        Method("cancel_all_orders_after", "v2", TIMEOUT),
        Method("batch_add", "v2", _V2_BATCH_ADD, checks=True),
        Method("batch_cancel", "v2", _V2_BATCH_CANCEL),
    )
}
