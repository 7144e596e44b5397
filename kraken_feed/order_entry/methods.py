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
TEXTS, INTEGERS, FLAG_TEXT = Parameter("texts"), Parameter("integers"), Parameter("flag text")
NEEDED = Parameter("text", required=True)


def _one(*choices: str, required: bool = False) -> Parameter:
    return Parameter("text", choices, required)


ORDER_TYPES = (
    "limit", "market", "iceberg", "stop-loss", "stop-loss-limit", "take-profit", "take-profit-limit", "trailing-stop",
    "trailing-stop-limit", "settle-position",
)  # fmt: skip
CLOSE_TYPES = tuple(kind for kind in ORDER_TYPES if kind not in ("market", "iceberg", "settle-position"))
SIDES = ("buy", "sell")
PRICE_TYPE = _one("static", "pct", "quote")
STP_TYPE = _one("cancel_newest", "cancel_oldest", "cancel_both")  # REST writes stptype, with hyphens
TRIGGERED = ("stop-loss", "take-profit", "trailing-stop")

# ------------------------------------------------------------------------------------------------ v1: strings

_V1_ORDER = Shape(
    {
        "ordertype": _one(*ORDER_TYPES, required=True),
        "type": _one(*SIDES, required=True),
        "pair": NEEDED,
        "price": PRICE,
        "price2": PRICE,
        "volume": Parameter("amount", required=True),
        "display_volume": AMOUNT,
        "leverage": TEXT,
        "margin": FLAG,
        "reduce_only": FLAG,
        "oflags": Parameter("flags", ("viqc", "fcib", "fciq", "nompp", "post")),
        "starttm": TEXT,
        "expiretm": TEXT,
        "deadline": DEADLINE,
        "userref": DIGITS,
        "cl_ord_id": TEXT,
        "sender_sub_id": TEXT,
        "validate": FLAG_TEXT,  # a string here, a boolean in editOrder
        "timeinforce": Parameter("text", ("GTC", "IOC", "GTD", "FOK"), any_case=True),
        "trigger": _one("last", "index"),
        "stp_type": STP_TYPE,
        "close[ordertype]": _one(*CLOSE_TYPES),
        "close[price]": PRICE,
        "close[price2]": PRICE,
    },
    alone=(("userref", "cl_ord_id"),),
    needs={
        "limit": ("price",),
        "iceberg": ("price", "display_volume"),
        **dict.fromkeys(TRIGGERED, ("price",)),
        **dict.fromkeys((f"{kind}-limit" for kind in TRIGGERED), ("price", "price2")),
    },
)
_V1_EDIT = Shape(
    {
        "orderid": NEEDED,
        "pair": NEEDED,
        "price": PRICE,
        "price2": PRICE,
        "volume": AMOUNT,
        "oflags": Parameter("flags", ("post",)),
        "newuserref": DIGITS,
        "validate": FLAG,  # Kraken might ignore a string, and carry out the edit
    }
)
_V1_AMEND = Shape(
    {
        "txid": TEXT,
        "cl_ord_id": TEXT,
        "volume": AMOUNT,
        "display_volume": AMOUNT,
        "limit_price": PRICE,
        "trigger_price": PRICE,
        "post_only": FLAG,
        "pair": TEXT,
        "deadline": DEADLINE,
    },
    some=(("txid", "cl_ord_id"), ("volume", "display_volume", "limit_price", "trigger_price", "post_only")),
    alone=(("txid", "cl_ord_id"),),
)
_V1_CANCEL = Shape({"txid": TEXTS, "cl_ord_id": TEXTS}, some=(("txid", "cl_ord_id"),))
_TIMEOUT = Shape({"timeout": Parameter("seconds", required=True)})

# ------------------------------------------------------------------------------------------------ v2: numbers

_TRIGGERS = Parameter(
    "object",
    shape=Shape(
        {
            "price": Parameter("number", required=True),
            "reference": _one("last", "index"),
            "price_type": PRICE_TYPE,
        }
    ),
)
_CONDITIONAL = Parameter(
    "object",
    shape=Shape(
        {
            "order_type": _one(*CLOSE_TYPES, required=True),
            "limit_price": NUMBER,
            "limit_price_type": PRICE_TYPE,
            "trigger_price": NUMBER,
            "trigger_price_type": PRICE_TYPE,
        }
    ),
)
_ORDER: dict[str, Parameter] = {
    "order_type": _one(*ORDER_TYPES, required=True),
    "side": _one(*SIDES, required=True),
    "order_qty": NUMBER,
    "cash_order_qty": NUMBER,
    "limit_price": NUMBER,
    "limit_price_type": PRICE_TYPE,
    "triggers": _TRIGGERS,
    "conditional": _CONDITIONAL,
    "time_in_force": Parameter("text", ("gtc", "gtd", "ioc", "fok"), any_case=True),
    "margin": FLAG,
    "post_only": FLAG,
    "reduce_only": FLAG,
    "effective_time": TEXT,
    "expire_time": TEXT,
    "cl_ord_id": TEXT,
    "order_userref": INTEGER,
    "display_qty": NUMBER,
    "fee_preference": _one("base", "quote"),
    "no_mpp": FLAG,
    "stp_type": STP_TYPE,
    "sender_sub_id": TEXT,
}
_BATCHED = Shape(
    _ORDER,
    some=(("order_qty", "cash_order_qty"),),
    alone=(("cl_ord_id", "order_userref"), ("order_qty", "cash_order_qty")),
    needs={
        "limit": ("limit_price",),
        "iceberg": ("limit_price", "display_qty"),
        **dict.fromkeys(TRIGGERED, ("triggers",)),
        **dict.fromkeys((f"{kind}-limit" for kind in TRIGGERED), ("triggers", "limit_price")),
    },
)
_V2_ADD = _BATCHED._replace(fields=_ORDER | {"symbol": NEEDED, "deadline": DEADLINE, "validate": FLAG})
_V2_EDIT = Shape(
    {
        "order_id": NEEDED,
        "symbol": NEEDED,
        "order_qty": NUMBER,
        "limit_price": NUMBER,
        "triggers": _TRIGGERS,
        "display_qty": NUMBER,
        "post_only": FLAG,
        "reduce_only": FLAG,
        "fee_preference": _one("base", "quote"),
        "no_mpp": FLAG,
        "order_userref": INTEGER,
        "deadline": DEADLINE,
        "validate": FLAG,
    }
)
_V2_AMEND = Shape(
    {
        "order_id": TEXT,
        "cl_ord_id": TEXT,
        "symbol": TEXT,
        "order_qty": NUMBER,
        "display_qty": NUMBER,
        "limit_price": NUMBER,
        "limit_price_type": PRICE_TYPE,
        "trigger_price": NUMBER,
        "trigger_price_type": PRICE_TYPE,
        "post_only": FLAG,
        "deadline": DEADLINE,
    },
    some=(("order_id", "cl_ord_id"), ("order_qty", "display_qty", "limit_price", "trigger_price", "post_only")),
    alone=(("order_id", "cl_ord_id"),),
)
_NAMES = ("order_id", "cl_ord_id", "order_userref")
_V2_CANCEL = Shape(
    {"order_id": TEXTS, "cl_ord_id": TEXTS, "order_userref": INTEGERS},
    some=(_NAMES,),
    alone=(("order_id", "cl_ord_id"), ("order_id", "order_userref"), ("cl_ord_id", "order_userref")),
)
_V2_BATCH_ADD = Shape(
    {
        "symbol": NEEDED,
        "orders": Parameter("objects", required=True, least=2, most=15, shape=_BATCHED),
        "deadline": DEADLINE,
        "validate": FLAG,
    }
)
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
        Method("cancelAllOrdersAfter", "v1", _TIMEOUT),
        Method("add_order", "v2", _V2_ADD, checks=True),
        Method("amend_order", "v2", _V2_AMEND),
        Method("edit_order", "v2", _V2_EDIT, checks=True),
        Method("cancel_order", "v2", _V2_CANCEL, named=_NAMES),
        Method("cancel_all", "v2", Shape({})),
        Method("cancel_all_orders_after", "v2", _TIMEOUT),
        Method("batch_add", "v2", _V2_BATCH_ADD, checks=True),
        Method("batch_cancel", "v2", _V2_BATCH_CANCEL),
    )
}
