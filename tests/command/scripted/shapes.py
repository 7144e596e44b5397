"""The four channels as the scripts of tests need them: frames, items and rows of history, all values invented."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from .exchange import Answer, Close, Script, Step, dialect_of, result

T0 = int(time.time()) - 100  # the oldest row; the spans that the client asks for begin some minutes ago
STAMP = datetime.fromtimestamp(T0, UTC).isoformat().replace("+00:00", "Z")


class Source(msgspec.Struct, frozen=True):
    """One of REST's histories: its method, the key of its rows, how their ids begin."""

    method: str
    key: str
    letter: str

    def id(self, number: int) -> str:
        return f"{self.letter}AAAAA-BBBBB-{number:06}"

    def row(self, number: int, more: str = "") -> str:
        """Return row ``number`` as a member of an object; ``more`` are further members of it."""
        at = f"{T0 + number}.1"
        value = {
            "ClosedOrders": f'"refid":null,"userref":0,"status":"canceled","opentm":{at},"closetm":{at},"starttm":0,'
            f'"expiretm":0,"vol":"1.0","vol_exec":"0.0","misc":"","oflags":"fciq"',
            "TradesHistory": f'"ordertxid":"OAAAAA-TTTTT-{number:06}","pair":"XXBTZUSD","time":{at},"type":"buy",'
            f'"ordertype":"limit","price":"1.0","cost":"1.0","fee":"0.0","vol":"1.0","margin":"0.0","misc":""',
            "Ledgers": f'"refid":"FTAAAA-BBBBB-{number:06}","time":{at},"type":"deposit","subtype":"",'
            f'"aclass":"currency","asset":"ZEUR","amount":"1.0","fee":"0.0","balance":"1.0"',
        }[self.method]
        return f'"{self.id(number)}":{{{value}{more}}}'

    def page(self, rows: Sequence[str], more: str = "") -> bytes:
        """Return the answer with these rows."""
        return result(f'{{"{self.key}":{{{",".join(rows)}}}{more}}}')

    def pages(self, *sizes: int, count: str = "") -> Answer:
        """Return an answer that pages through rows 1 to the sum of the sizes, newest first.

        However the client steps: it gets what lies between its offset and the end of the page that this is on.
        """
        total = sum(sizes)
        ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
        more = f',"count":{count}' if count else ""

        def answer(form: Mapping[str, str]) -> bytes:
            offset = int(form.get("ofs", "0"))
            end = next((end for end in ends if end > offset), offset)
            return self.page([self.row(total - place) for place in range(offset, end)], more)

        return answer


ORDERS = Source("ClosedOrders", "closed", "O")
TRADES = Source("TradesHistory", "trades", "T")
LEDGER = Source("Ledgers", "ledger", "L")
HISTORIES: Mapping[str, tuple[Source, ...]] = {
    "openOrders": (ORDERS,),
    "ownTrades": (TRADES,),
    "executions": (ORDERS, TRADES),
    "balances": (LEDGER,),
}
SOURCES = (ORDERS, TRADES, LEDGER)
CHANNELS = tuple(HISTORIES)
OF_ONE_SOURCE = ("openOrders", "ownTrades", "balances")  # each alone asks its method: the answers come in their order
OF_ORDERS = ("openOrders", "executions")


def frame(channel: str, kind: str, sequence: int | str, data: str) -> bytes:
    """Return a data frame; ``data`` and a ``sequence`` that is text are raw JSON."""
    if dialect_of(channel) == "v1":
        return f'[{data},"{channel}",{{"sequence":{sequence}}}]'.encode("utf-8", "surrogatepass")
    return f'{{"channel":"{channel}","type":"{kind}","sequence":{sequence},"data":{data}}}'.encode()


def snapshot(channel: str, sequence: int | str = 1, *items: str) -> bytes:
    """Return a snapshot with these items, by default an empty one."""
    return frame(channel, "snapshot", sequence, f"[{','.join(items)}]")


def update(channel: str, sequence: int | str, *items: str) -> bytes:
    """Return an update with these items."""
    return frame(channel, "update", sequence, f"[{','.join(items)}]")


def item(channel: str, number: int) -> str:
    """Return the item of an update. No two numbers have anything in common."""
    return {
        "openOrders": f'{{"OAAAAA-BBBBB-{number:06}":{{"status":"open","userref":{number}}}}}',
        "ownTrades": f'{{"TAAAAA-BBBBB-{number:06}":{{"ordertxid":"OAAAAA-BBBBB-{number:06}","vol":"1.0",'
        f'"userref":{number}}}}}',
        "executions": f'{{"order_id":"OAAAAA-BBBBB-{number:06}","exec_type":"status","n":{number}}}',
        "balances": f'{{"asset":"EUR","asset_class":"currency","amount":1.0,"balance":{number}.0,'
        f'"ledger_id":"LAAAAA-BBBBB-{number:06}"}}',
    }[channel]


def value(channel: str, number: int) -> dict[str, object]:
    """Return ``data`` of the record of ``item(channel, number)``."""
    decoded: dict[str, dict[str, object]] = msgspec.json.decode(item(channel, number))
    return next(iter(decoded.values())) if dialect_of(channel) == "v1" else dict(decoded)


def order(channel: str, number: int, **members: str) -> str:
    """Return an open order of a snapshot; ``members`` are raw JSON that stands in the place of the usual."""
    order_id = f"OAAAAA-BBBBB-{number:06}"
    if channel == "openOrders":
        usual = {
            "status": '"open"', "descr": '{"pair":"XBT/USD","type":"buy","ordertype":"limit","price":"1.0"}',
            "opentm": f'"{T0}.1"', "vol": '"1.00000000"', "vol_exec": '"0.00000000"', "cost": '"0.00000"',
            "userref": "0",
        }  # fmt: skip
        return f'{{"{order_id}":{_object(usual | members)}}}'
    usual = {
        "order_id": f'"{order_id}"', "exec_type": '"new"', "order_status": '"new"', "symbol": '"BTC/USD"',
        "side": '"buy"', "order_type": '"limit"', "order_qty": "1.0", "limit_price": "1.0", "cum_qty": "0",
        "timestamp": f'"{STAMP}"',
    }  # fmt: skip
    return _object(usual | members)


def _object(members: Mapping[str, str]) -> str:
    return f"{{{','.join(f'{json_name(name)}:{text}' for name, text in members.items())}}}"


def json_name(name: str) -> str:
    return msgspec.json.encode(name).decode()


def lost_once(
    channels: Sequence[str], rest: Mapping[str, Sequence[Answer]], before: Mapping[str, Sequence[str]] | None = None
) -> Script:
    """Return a script with one outage: live with these items in the snapshots, lost, and live again with none."""
    items = before or {}
    first: dict[str, list[Step]] = {
        channel: [snapshot(channel, 1, *items.get(channel, ())), Close()] for channel in channels
    }
    return Script(connections=[first, {channel: [snapshot(channel)] for channel in channels}], rest=rest)
