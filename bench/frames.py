"""Frames as Kraken sends them to an account that trades: shapes of tests/frames, values from a seed.

Every order lives the same life: pending, open, a partial fill, another fill, the end; then a new order takes its
place. All stages are equally frequent from the first frame on, however many orders are open, so that scripts of
different sizes can be compared.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from bench import shapes_v1, shapes_v2
from bench.orders import Account, Order

Dialect = Literal["v1", "v2"]
DIALECTS: tuple[Dialect, ...] = ("v1", "v2")
CHANNEL = {"v1": "openOrders", "v2": "executions"}
WARM_UP = 2_000  # frames before the first figure: code is specialised, buffers have grown
CHUNK_BYTES = 256 * 1024  # what the server hands to the kernel at once


class Shapes(Protocol):
    """What a module of a dialect's frames offers."""

    @property
    def GREETING(self) -> bytes: ...

    def acknowledgement(self, request: object) -> str:
        """The answer to the subscription of that number, if it has one."""

    def snapshot(self, account: Account, sequence: int) -> str:
        """All open orders."""

    def event(self, order: Order, sequence: int) -> str:
        """What happens next to an order."""

    def mark(self, name: str, sequence: int) -> str:
        """An update that is found again by its order's name."""

    def stamped(self, now_ns: int, sequence: int) -> str:
        """An update that carries the time of its sending, to be found again in whatever prints it."""


SHAPES: dict[Dialect, Shapes] = {"v1": shapes_v1, "v2": shapes_v2}


@dataclass(frozen=True)
class Script:
    """What the server says on one connection.

    ``phases`` are numbers of updates; each phase ends with a mark, and all but the first wait for a word. The snapshot
    is at the start of the first; with ``hold`` that one waits too. With ``rate`` the last phase is sent frame by
    frame, so many a second, each stamped with the time of its sending. ``active`` orders have events, or all of them.
    """

    dialect: Dialect
    open_orders: int
    phases: tuple[int, ...]
    hold: bool = False
    rate: int = 0
    active: int = 0
    lazy: bool = False  # made while sending: for scripts too long to keep


def mark(number: int) -> bytes:
    """What is in the frame that ends a phase, and nowhere else."""
    return b"OMARKS-AAAAAA-%06d" % number


def phases(script: Script) -> Iterator[Iterator[bytes]]:
    """The phases of a script, each as its frames' payloads. They are to be taken in their order."""
    account, sequences = Account(script.open_orders, script.active), itertools.count(1)
    shapes = SHAPES[script.dialect]
    for number, updates in enumerate(script.phases):

        def frames(number: int = number, updates: int = updates) -> Iterator[bytes]:
            if number == 0:
                yield shapes.snapshot(account, next(sequences)).encode()
            for _ in range(updates):
                order, sequence = account.next(), next(sequences)
                yield shapes.event(order, sequence).encode()
                order.stage += 1
            yield shapes.mark(mark(number).decode(), next(sequences)).encode()

        yield frames()


def text_frame(payload: bytes) -> bytes:
    """An unmasked WebSocket text frame (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 1 << 16:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)


def chunks(payloads: Iterator[bytes]) -> Iterator[bytes]:
    """WebSocket frames joined to large pieces that end with a frame."""
    piece, size = [], 0
    for payload in payloads:
        frame = text_frame(payload)
        piece.append(frame)
        size += len(frame)
        if size >= CHUNK_BYTES:
            yield b"".join(piece)
            piece, size = [], 0
    if piece:
        yield b"".join(piece)
