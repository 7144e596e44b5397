"""Carry out order entry for both dialects: what requests do to an account, and Kraken's error texts.

It knows limit and market orders. Limit orders rest on the book: of the times in force, only GTD has an effect. A
market order is executed at once. Orders of other types can only be checked. There is no margin.

Sources: https://docs.kraken.com/api/docs/guides/spot-errors ; for the permissions
https://docs.kraken.com/api-reference/trading/add-order , …/edit-order , …/amend-order , …/cancel-order
"""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, cast

from msgspec import Struct

from ..access.key import ApiKey
from ..market.account import Account
from ..market.number import VOLUME_PLACES, is_integer
from ..market.order import Order, Side
from ..market.pair import CURRENCY, PAIRS, Pair, find
from ..market.stamp import rfc3339_seconds
from ..quirks.quirk import Quirks

MODIFY, CLOSE = "modify-trades", "close-trades"
ORDER_TYPES = (
    "limit", "market", "iceberg", "stop-loss", "stop-loss-limit", "take-profit", "take-profit-limit", "trailing-stop",
    "trailing-stop-limit", "settle-position",
)  # fmt: skip
STP_TYPES = ("cancel_newest", "cancel_oldest", "cancel_both")
TRADED = ("limit", "market", "iceberg")
MAX_TIMER_S = 86_400
_DEADLINE_S = 60.0
_FAR = 100  # times the market's price
_MAX_VOLUME = 10**9
_ORDERMIN = 1000  # a usual volume divided by the smallest one


class Refusal(Exception):
    """A request is refused: the text is what goes on the wire."""


Kind = Literal["text", "flag", "number", "integer", "texts", "integers", "object", "objects"]
Types = Mapping[str, Kind]
_FITS: dict[Kind, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "flag": lambda value: isinstance(value, bool),
    "number": lambda value: is_integer(value) or isinstance(value, float),
    "integer": is_integer,
    "texts": lambda value: isinstance(value, list) and all(isinstance(each, str) and each for each in value),
    "integers": lambda value: isinstance(value, list) and all(map(is_integer, value)),
    "object": lambda value: isinstance(value, dict),
    "objects": lambda value: isinstance(value, list) and all(isinstance(each, dict) for each in value),
}


def check_types(method: str, given: Mapping[str, Any], types: Types, around: Collection[str] = ()) -> None:
    """Refuse parameters that the method does not document, or documents with another JSON type.

    `validate` is left to `Desk.checks_only`: it is not known how Kraken handles one of the wrong type.
    """
    for name, value in given.items():
        if name in around:
            continue
        if name not in types:
            raise Refusal(f"Unsupported field: '{name}' for the given msg type: {method}")
        if name != "validate" and not _FITS[types[name]](value):
            raise invalid(name)


class Fields(dict[str, Any]):
    """The parameters of a request, whose types were checked. v1 writes numbers as strings, v2 as numbers."""

    def text(self, name: str, choices: Collection[str] = ()) -> str | None:
        value: str | None = self.get(name)
        if value is not None and choices and value not in choices:
            raise invalid(name)
        return value

    def needed(self, name: str, choices: Collection[str] = ()) -> str:
        value = self.text(name, choices)
        if not value:
            raise invalid(name)
        return value

    def decimal(self, name: str) -> Decimal | None:
        value = self.get(name)
        if value is None:
            return None
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            raise invalid(name) from None
        if not number.is_finite():
            raise invalid(name)
        return number

    def volume(self, name: str) -> Decimal:
        if (volume := self.decimal(name)) is None:
            raise invalid(name)
        return volume

    def side(self, name: str) -> Side:
        return cast(Side, self.needed(name, ("buy", "sell")))

    def pair(self, name: str, pairs: Sequence[Pair] = PAIRS) -> Pair:
        try:
            return find(self.needed(name), pairs)
        except KeyError:
            raise Refusal("EQuery:Unknown asset pair") from None

    def deadline(self, now: float) -> None:
        """Refuse a request that comes after its deadline, or whose deadline is too far away."""
        if (moment := self.moment("deadline")) is None:
            return
        if moment <= now:
            raise Refusal("EService:Deadline elapsed")
        if moment > now + _DEADLINE_S:
            raise invalid("deadline")

    def moment(self, name: str) -> float | None:
        if (text := self.text(name)) is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise invalid(name) from None
        if moment.tzinfo is None:
            raise invalid(name)
        return moment.timestamp()


class Wish(Struct, frozen=True):
    """A new order as it was requested."""

    pair: Pair
    side: Side
    ordertype: str
    volume: Decimal
    price: Decimal | None = None
    userref: int = 0
    cl_ord_id: str | None = None
    expires: float | None = None
    post_only: bool = False

    @staticmethod
    def edited(old: Order, **changes: Any) -> "Wish":
        """Return the order that replaces an old one: values that are not given stay."""
        kept = {"volume": old.volume, "price": old.price, "userref": old.userref}
        given = {name: value for name, value in changes.items() if value is not None}
        return Wish(side=old.side, ordertype=old.ordertype, expires=old.expires, **(kept | given))


class Desk(Struct, frozen=True):
    """The actions that a key may take on its account at a moment."""

    key: ApiKey
    now: float
    quirks: Quirks

    @property
    def account(self) -> Account:
        return self.key.account

    def checks_only(self, fields: Fields, kind: Kind) -> bool:
        """Return whether `validate`, which the method documents as this kind, asks for a check. The quirk
        `wrong_validate` decides about the other kind."""
        value = fields.get("validate")
        texts = ("true", "false")
        if "validate" not in fields or (isinstance(value, bool) if kind == "flag" else value in texts):
            return value in (True, "true")
        if self.quirks.wrong_validate == "ignored":
            return False
        if self.quirks.wrong_validate == "taken" and (isinstance(value, bool) or value in texts):
            return value in (True, "true")
        raise invalid("validate")

    def time_in_force(self, fields: Fields, name: str, choices: Collection[str]) -> str:
        """Return the time in force in upper case. Refuse unlisted spellings, unless a quirk accepts any case."""
        if self.quirks.any_case:
            text = fields.text(name, (*map(str.upper, choices), *map(str.lower, choices)))
        else:
            text = fields.text(name, choices)
        return (text or "GTC").upper()

    def may(self, *permissions: str, every: bool = True) -> None:
        """Refuse unless the key has all of these permissions or, without `every`, one of them."""
        has = [name in self.key.permissions for name in permissions]
        if not (all(has) if every else any(has)):
            raise Refusal("EGeneral:Permission denied")

    def check(self, wish: Wish) -> None:
        """Refuse an order that the market or the account does not allow."""
        if wish.cl_ord_id is not None and wish.userref:
            raise invalid("cl_ord_id")
        self._open_for_orders(post_only=wish.post_only)
        if wish.ordertype not in ("market", "settle-position") and wish.price is None:
            raise invalid("price")
        self._check_price(wish.pair, wish.price)
        if _finer(wish.volume, VOLUME_PLACES):
            raise invalid("volume")
        if wish.volume < wish.pair.lot / _ORDERMIN:
            raise Refusal("EOrder:Order minimum not met")
        price = self._price(wish.pair) if wish.price is None else wish.price
        asset, amount = (wish.pair.quote, price * wish.volume) if wish.side == "buy" else (wish.pair.base, wish.volume)
        if amount > self.account.book.balances[asset.v2]:
            raise Refusal("EOrder:Insufficient funds")

    def add(self, wish: Wish) -> Order:
        """Place an order, and return it."""
        self.check(wish)
        if wish.ordertype not in TRADED:
            raise invalid("ordertype")
        market = wish.ordertype == "market"
        order_id = self.account.new_order(
            self.now,
            pair=wish.pair.v1,
            side=wish.side,
            volume=wish.volume,
            price=None if market else wish.price,
            userref=wish.userref,
            cl_ord_id=wish.cl_ord_id,
            expires=wish.expires,
            post_only=wish.post_only,
        )
        if market:
            self.account.fill(order_id, wish.volume, self.now, price=self._price(wish.pair))
        return self.account.order(order_id)

    def edit(self, old: Order, wish: Wish, *, check_only: bool = False) -> Order:
        """Cancel the old order, and return a new one in its place."""
        if old.vol_exec or old.pair != wish.pair:
            raise Refusal("EOrder:Invalid order")
        self.check(wish)
        if check_only:
            return old
        self.account.cancel(old.id, self.now)
        return self.add(wish)

    def check_pair(self, order: Order, fields: Fields, name: str) -> None:
        """Refuse an amendment that names another pair than the order's, or none if the pair is not crypto."""
        if name not in fields:
            if order.pair.base.aclass != CURRENCY:
                raise invalid(name)
        elif fields.pair(name, self.account.book.pairs) != order.pair:
            raise Refusal("EOrder:Invalid order")

    def amend(self, order: Order, volume: Decimal | None, price: Decimal | None) -> Order:
        """Change the order's volume or price. If the new volume is executed already, the order is canceled."""
        self._open_for_orders(post_only=order.post_only)
        if price is not None and order.price is None:
            raise Refusal("EOrder:Invalid price")
        self._check_price(order.pair, price)
        if volume is not None and (volume > _MAX_VOLUME or _finer(volume, VOLUME_PLACES)):
            raise invalid("volume")
        if volume is not None and volume <= 0:
            raise Refusal("EOrder:Order minimum not met")
        if volume is not None and volume <= order.vol_exec:
            self.account.cancel(order.id, self.now)
        else:
            self.account.amend(order.id, self.now, volume=volume, price=price)
        return self.account.order(order.id)

    def amend_id(self) -> str:
        return self.account.book.ident("T")

    def cancel(self, order: Order) -> None:
        """Cancel the order, unless the engine's state forbids it."""
        self._working()
        self.account.cancel(order.id, self.now)

    def cancel_all(self) -> int:
        """Cancel all open orders, and return how many."""
        self.may(MODIFY, CLOSE, every=False)
        self._working()
        orders = list(self.account.book.open.values())
        for order in orders:
            self.account.cancel(order.id, self.now)
        return len(orders)

    def cancel_after(self, seconds: int | None) -> dict[str, object]:
        """Set the timer that cancels all orders, or switch it off (0); return the answer's times."""
        self.may(MODIFY, CLOSE, every=False)
        if seconds is None or not 0 <= seconds < MAX_TIMER_S:
            raise invalid("timeout")
        self.account.cancel_at = self.now + seconds if seconds else math.inf
        trigger = rfc3339_seconds(self.account.cancel_at) if seconds else "0"
        return {"currentTime": rfc3339_seconds(self.now), "triggerTime": trigger}

    def find(self, name: str) -> Order:
        """Return the one open order with that id, reference or client's id."""
        orders = self.named(name) or self.called(name)
        if len(orders) != 1:
            raise Refusal("EOrder:Unknown order")
        return orders[0]

    def named(self, name: str) -> list[Order]:
        """Return the open orders with that id or reference."""
        opened = self.account.book.open
        if name in opened:
            return [opened[name]]
        return [order for order in opened.values() if whole_number(name) and order.userref == int(name) != 0]

    def called(self, cl_ord_id: str) -> list[Order]:
        """Return the open orders with that client's id."""
        return [order for order in self.account.book.open.values() if order.cl_ord_id == cl_ord_id]

    def _check_price(self, pair: Pair, price: Decimal | None) -> None:
        """Refuse a price with too many decimals for the pair, or one that is absurdly far away."""
        if price is not None and not (0 < price < _FAR * self._price(pair) and not _finer(price, pair.price_decimals)):
            raise Refusal("EOrder:Invalid price")

    def _price(self, pair: Pair) -> Decimal:
        return self.account.engine.market(pair)

    def _working(self) -> None:
        if self.account.engine.status == "maintenance":
            raise Refusal("EService:Unavailable")

    def _open_for_orders(self, *, post_only: bool) -> None:
        self._working()
        status = self.account.engine.status
        if status == "cancel_only" or (status == "post_only" and not post_only):
            raise Refusal(f"EService:Market in {status} mode")


def invalid(name: str) -> Refusal:
    return Refusal(f"EGeneral:Invalid arguments:{name}")


def whole_number(text: str) -> bool:
    """Return whether the text is an integer in plain digits."""
    return re.fullmatch(r"-?\d{1,18}", text, re.A) is not None


def _finer(value: Decimal, places: int) -> bool:
    """Return whether the number has more decimals than that."""
    exponent = value.normalize().as_tuple().exponent
    return not isinstance(exponent, int) or -exponent > places
