"""The orders of an account that trades: what happens to which of them next."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

STAGES = 5  # pending, open, fill, fill, end: the frames of one order
SEED = 20_251_121
EPOCH = 1_760_000_000

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_PAIRS = (("XBT/USD", "BTC/USD", 61000), ("ETH/USD", "ETH/USD", 3500), ("SOL/USD", "SOL/USD", 180))


@dataclass(slots=True)
class Order:
    """One of the places where an order can be; ``stage`` is what comes next."""

    name: str
    number: int
    stage: int
    pair: tuple[str, str, int]
    price: int
    units: int  # of 0.01: the volume

    def executed(self) -> int:
        return {3: self.units * 2 // 5, 4: self.units}.get(self.stage, 0)


class Account:
    """The orders of one script, and the random choice of the next that something happens to."""

    def __init__(self, open_orders: int, active: int) -> None:
        self._draw = random.Random(SEED)
        self._numbers = itertools.count(1)
        self.places = [self._made(index % STAGES) for index in range(_places(open_orders))]
        self._draw.shuffle(self.places)
        self._active = _places(active) if active else len(self.places)

    def _made(self, stage: int) -> Order:
        number = next(self._numbers)
        pair = _PAIRS[number % len(_PAIRS)]
        return Order(name("O", number), number, stage, pair, pair[2] + number % 97, 20 + number % 480)

    def next(self) -> Order:
        """The order of the next event; after its end a new one is in its place."""
        index = self._draw.randrange(self._active)
        order = self.places[index]
        if order.stage == STAGES:
            order = self.places[index] = self._made(0)
        return order


def _places(orders: int) -> int:
    """Of five places one is empty: its order has ended, and the next has not come yet."""
    return max(1, orders * STAGES // (STAGES - 1))


def name(kind: str, number: int) -> str:
    """An id such as ``OABCDE-FGHIJ-KLMNOP``: unique, and spread as if drawn."""
    spread = number * 0x9E3779B97F4A7C15 & ((1 << 80) - 1)
    letters = "".join(_ALPHABET[spread >> shift & 31] for shift in range(0, 80, 5))
    return f"{kind}{letters[:5]}-{letters[5:10]}-{letters[10:]}"
