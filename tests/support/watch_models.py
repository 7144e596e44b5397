"""Boards and screens for tests: records out of recorded frames, and figures beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from kraken_feed.protocol.wire import Data
from kraken_feed.records.render import timestamp
from kraken_feed.records.types import Execution, Live, Lost, Order, Trade
from kraken_feed.telemetry.stats import Figures
from kraken_feed.watch.model import Overview
from kraken_feed.watch.screen import Said, View, draw

from .figures import LOST, MAIN, V1, V2
from .frame_files import DIRECTORY
from .frame_files import load as load_frame

NOW_NS = 1_760_000_800 * 10**9  # ten minutes after the recorded frames
Brought = Order | Trade | Execution
KINDS: dict[str, type[Brought]] = {"openOrders": Order, "ownTrades": Trade, "executions": Execution}


def item(
    channel: str,
    data: bytes,
    order_id: str | None = "OAAAAA-BBBBB-CCCCC1",
    *,
    kind: Literal["snapshot", "update", "backfill"] = "update",
    connection: str = "c1",
    exec_id: str | None = None,
    account: str = "main",
) -> Brought:
    """One record of an item."""
    return KINDS[channel](
        id="x", ts=timestamp(NOW_NS), account=account, channel=channel, type=kind, connection=connection,
        order_id=order_id, exec_id=exec_id, data=data,
    )  # fmt: skip


def items(name: str, *, connection: str = "c1", account: str = "main") -> Iterator[Brought]:
    """The records of a recorded frame."""
    file = load_frame(DIRECTORY / f"{name}.json")
    said = file.module.decode(file.frame)
    assert isinstance(said, Data)
    for one in said.items:
        kind: Literal["snapshot", "update"] = "snapshot" if file.kind == "snapshot" else "update"
        yield item(
            said.channel, one.data, one.order_id, kind=kind, connection=connection, exec_id=one.exec_id, account=account
        )


def live(channel: str, connection: str = "c1", account: str = "main") -> Live:
    return Live(
        id="x",
        ts=timestamp(NOW_NS),
        account=account,
        channel=channel,
        connection=connection,
        attempt=1,
        engine="online",
    )


def lost(channel: str, connection: str = "c1", account: str = "main") -> Lost:
    return Lost(
        id="x", ts=timestamp(NOW_NS), account=account, channel=channel, connection=connection, cause="closed",
        detail="", last_sequence=1, last_ts=timestamp(NOW_NS - 2 * 10**9),
    )  # fmt: skip


def overview(*names: str, channels: Sequence[str] = ("executions",), now_ns: int = NOW_NS) -> Overview:
    """A overview that has taken in these frames; every channel is live after the first."""
    made = Overview(channels)
    for index, name in enumerate(names):
        for record in items(name):
            made.take(record, now_ns)
        for channel in channels if index == 0 else ():
            made.take(live(channel), now_ns)
    return made


def crowd(count: int, account: str = "main") -> Iterator[Brought]:
    """A snapshot of so many orders, each as the recorded one."""
    (one,) = items("v1-openOrders-snapshot-one", account=account)
    for number in range(count):
        yield msgspec.structs.replace(one, order_id=f"O{number:05d}-BBBBB-CCCCCC")


def figures(account: str = "main", *, down: bool = False, channel: str = "executions") -> Figures:
    """An account with one connection."""
    endpoint = msgspec.structs.replace(LOST if down else V1, channels=(channel,))
    return msgspec.structs.replace(MAIN, account=account, endpoints=(endpoint,))


BOTH = msgspec.structs.replace(MAIN, endpoints=(V1, V2))


def shown(
    made: Overview,
    width: int = 80,
    height: int = 24,
    *,
    accounts: Sequence[Figures] = (),
    notices: Sequence[Said] = (),
    now_ns: int = NOW_NS,
) -> list[str]:
    """The screen's lines, as text."""
    view = View(made, accounts or (figures(),), notices, width, height, now_ns)
    return [text.plain.rstrip() for text in draw(view)]
