"""Generate a flow of orders from a seed: when the next event happens, and what it is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import InitVar, dataclass
from decimal import Decimal
from random import Random

from .book import Book
from .number import VOLUME_PLACES, ZERO, quantum
from .order import Change, Order, Side
from .pair import Pair

Frames = list[list[Change]]  # changes, divided into the frames that report them

FEW, MANY = 3, 40  # below, only new orders come; above, none
_ACCEPTED_S = 0.000049  # between arrival and the book
_REASONS = ("User requested", "User requested", "User requested", "CancelAllOrdersAfter Timeout")
_WEIGHTS = {"new": 30, "fill": 36, "cancel": 12, "amend": 9, "market": 6, "crowd": 7}
_ALLOWED = {  # by the engine's state: nothing is matched before it is online again
    "online": tuple(_WEIGHTS),
    "post_only": ("new", "cancel"),
    "cancel_only": ("cancel",),
    "maintenance": (),
}


def apart(changes: Sequence[Change]) -> Frames:
    """Put each change in a frame of its own, the usual case."""
    return [[change] for change in changes]


@dataclass(eq=False, repr=False)
class Engine:
    """Draws `rate` events per second. With rate 0 nothing happens by itself, not even an expiry.

    The times and the events depend on the seed and on nothing else, so a flow can be repeated.
    """

    book: Book
    rng: Random
    rate: float
    now: InitVar[float]

    def __post_init__(self, now: float) -> None:
        self.status = "online"
        self._market = {pair.rest: pair.price for pair in self.book.pairs}
        self._next = now + self._pause()
        self._client_id = 0
        self._events: dict[str, Callable[[float], Frames]] = {
            "new": self._new,
            "fill": self._fill,
            "cancel": self._cancel,
            "amend": self._amend,
            "market": self._take,
            "crowd": self._crowd,
        }

    def due(self) -> float:
        """Return when `live` should be called next."""
        if not self.rate:
            return math.inf
        return min(self._next, self._expiry())

    def live(self, now: float) -> Frames:
        """Return the frames of what happens at `now`; none if nothing is due."""
        frames: Frames = []
        if not self.rate:
            return frames
        if self._expiry() <= now:
            for order_id in self.book.expiring(now):
                frames += apart(self.book.expire(order_id, now))
        if self._next <= now:
            at = self._next
            self._next = at + self._pause()
            frames += self._events[kind](at) if (kind := self._choose()) else []
        return frames

    def market(self, pair: Pair) -> Decimal:
        """Return the pair's present price, rounded to its decimals."""
        return self._market[pair.rest].quantize(quantum(pair.price_decimals))

    def populate(self, count: int, now: float, *, age: float = 0.0) -> list[Change]:
        """Bring `count` open orders onto the book; with an `age`, they have been there that long."""
        changes: list[Change] = []
        for _ in range(count):
            changes += self._submit(now - age, age)
            changes += self.book.accept(changes[-1].order.id, now - age + _ACCEPTED_S)
        return changes

    def past(self, count: int, now: float) -> list[Change]:
        """Add orders that were executed before the exchange started, one hour ago and earlier."""
        changes: list[Change] = []
        for index in range(count):
            at = now - 3600 + index * 3000 / count
            changes += self.populate(1, at)
            order = changes[-1].order
            changes += self.book.fill(order.id, order.volume, at + 60)
        return changes

    def lifetime(self, now: float) -> list[Change]:
        """Run one order from its arrival to its end: pending, open, two fills, closed."""
        changes = self.populate(1, now)
        order = changes[-1].order
        part = self._part(order)
        changes += self.book.fill(order.id, part, now + 0.0001)
        changes += self.book.fill(order.id, order.volume - part, now + 0.0002)
        return changes

    def _pause(self) -> float:
        return self.rng.expovariate(self.rate) if self.rate else math.inf

    def _expiry(self) -> float:
        if self.status == "maintenance":
            return math.inf
        return self.book.expiry()

    def _choose(self) -> str | None:
        allowed = _ALLOWED[self.status]
        living = len(self.book.open)
        if "new" in allowed and living < FEW:
            return "new"
        kinds = [kind for kind in allowed if living < MANY or kind not in ("new", "market")]
        if not kinds or not living:
            return None
        return self.rng.choices(kinds, [_WEIGHTS[kind] for kind in kinds])[0]

    def _pick(self) -> Order:
        return self.rng.choice(list(self.book.open.values()))

    def _new(self, now: float) -> Frames:
        changes = self._submit(now)
        order = changes[0].order
        if order.post_only and self.rng.random() < 0.3:
            return apart(changes + self.book.cancel(order.id, now + _ACCEPTED_S, "Post only order"))
        changes += self.book.accept(order.id, now + _ACCEPTED_S)
        return [changes] if self.rng.random() < 0.2 else apart(changes)

    def _fill(self, now: float) -> Frames:
        order = self._pick()
        volume = self._part(order) if self.rng.random() < 0.55 else order.remaining
        changes = self.book.fill(order.id, volume, now)
        return [changes] if self.rng.random() < 0.15 else apart(changes)

    def _cancel(self, now: float) -> Frames:
        return apart(self.book.cancel(self._pick().id, now, self.rng.choice(_REASONS)))

    def _amend(self, now: float) -> Frames:
        order = self._pick()
        volume = order.vol_exec + self._volume(order.pair)
        price = self._price(order.pair, order.side) if self.rng.random() < 0.7 else None
        return apart(self.book.amend(order.id, now, volume=volume, price=price))

    def _take(self, now: float) -> Frames:
        pair, side, userref, cl_ord_id = self._draw()
        ident, volume = self.book.ident("O"), self._volume(pair)
        changes = self.book.submit(Order(ident, pair, side, volume, None, now, userref=userref, cl_ord_id=cl_ord_id))
        order = changes[0].order
        changes += self.book.accept(order.id, now + _ACCEPTED_S)
        part = self._part(order)
        price = self.market(pair)
        changes += self.book.fill(order.id, part, now + 0.0001, price=price)
        step = quantum(pair.price_decimals) * self.rng.randrange(1, 5)
        price += step if side == "buy" else -step
        changes += self.book.fill(order.id, order.volume - part, now + 0.0001, price=price)
        return apart(changes)

    def _crowd(self, now: float) -> Frames:
        """Make several changes at once, sent in one frame; the same order may be in it twice."""
        frame: list[Change] = []
        for step in range(self.rng.randrange(2, 5)):
            at = now + step * 0.00001
            event = self.rng.choice((self._fill, self._amend, self._new)) if self.book.open else self._new
            frame += [change for part in event(at) for change in part]
        return [frame]

    def _draw(self) -> tuple[Pair, Side, int, str | None]:
        pair = self.rng.choice(self.book.pairs)
        side: Side = "buy" if self.rng.random() < 0.5 else "sell"
        if self.book.balances[pair.quote.v2] < 100_000:
            side = "sell"  # an account that ran out of money buys no more
        if self.rng.random() < 0.5:
            return pair, side, self.rng.choice((0, 0, 7, 1_000_001)), None
        self._client_id += 1
        return pair, side, 0, f"grid-{self._client_id}-{self.rng.choice('ab')}"

    def _submit(self, now: float, age: float = 0.0) -> list[Change]:
        pair, side, userref, cl_ord_id = self._draw()
        order = Order(
            self.book.ident("O"), pair, side, self._volume(pair), self._price(pair, side), now,
            userref=userref, cl_ord_id=cl_ord_id,
            expires=self._end(now + age) if self.rng.random() < 0.15 else None,
            post_only=self.rng.random() < 0.2,
        )  # fmt: skip
        return self.book.submit(order)

    def _end(self, now: float) -> float:
        """Return when a good-till-date order expires: soon enough that some live until then at this rate."""
        return now + self.rng.uniform(1, 20) * (5 / self.rate if self.rate else 12)

    def _volume(self, pair: Pair) -> Decimal:
        scale = Decimal(self.rng.randrange(100, 3000)) / 1000
        places = VOLUME_PLACES if self.rng.random() < 0.3 else 4
        return max(quantum(places), (pair.lot * scale / 7).quantize(quantum(places)))

    def _price(self, pair: Pair, side: Side) -> Decimal:
        market = self._market[pair.rest] * (1 + Decimal(self.rng.randrange(-10, 11)) / 10_000)
        self._market[pair.rest] = min(max(market, pair.price / 2), pair.price * 2)
        away = Decimal(self.rng.randrange(1, 200)) / 10_000
        price = market * (1 - away if side == "buy" else 1 + away)
        return price.quantize(quantum(pair.price_decimals))

    def _part(self, order: Order) -> Decimal:
        """Return a part of the remaining volume: never nothing and, if it can be divided, never all."""
        step = quantum(VOLUME_PLACES)
        share = (order.remaining * self.rng.randrange(20, 80) / 100).quantize(step)
        return min(max(share, step), max(order.remaining - step, step), order.remaining or ZERO)
