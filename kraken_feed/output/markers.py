"""Say what markers mean, in one sentence per event: a connection that is lost is one event of all its channels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config.schema import CHANNELS
from ..records.view import moment
from ..telemetry.causes import STOP_REASONS
from ..telemetry.status import span
from ..text import counted
from .zone import NS, Zone

# A few words for each cause of a loss; telemetry/causes.py says what to do.
CAUSES = {
    "closed": "connection closed",
    "silence": "no data",
    "sequence": "a frame is missing",
    "unsubscribed": "unsubscribed by Kraken",
    "frame_too_big": "frame too big",
    "no_ack": "subscription not answered",
    "no_snapshot": "no snapshot",
    "refused": "subscription refused",
    "maintenance": "Kraken is online again",
    "connect": "no connection",
    "upgrade": "refused by Kraken",
    "token": "no token",
    "throttled": "too many requests",
    "locked_out": "key locked by Kraken",
    "resnapshot": "another snapshot",
}

Record = Mapping[str, Any]


@dataclass(eq=False, repr=False)
class Markers:
    """Turns markers into sentences. It remembers which channels are live, and since when the others are not."""

    channels: Sequence[str]  # of every account; those of one dialect share a connection
    zone: Zone
    open_orders: Callable[[str, str], int | None]  # by account and channel; None: such a channel has no orders

    def __post_init__(self) -> None:
        # By account and dialect: the channels that are live, and the engine's state that was reported last.
        self._live: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._engines: dict[tuple[str, str], object] = {}
        # By account and channel: when it was lost, and whether that was because of a second snapshot.
        self._lost_ns: dict[tuple[str, str], int] = {}
        self._resnapshot: set[tuple[str, str]] = set()
        self._stopped: set[str] = set()  # accounts

    def sentence(self, record: Record) -> str | None:
        """Return what to say of a marker; None if that was said with another channel's, or will be."""
        account, channel, name = record["account"], record["channel"], record["event"].removeprefix("feed.")
        connection = account, CHANNELS.get(channel, channel)
        match name:
            case "live":
                return self._say_live(record, connection)
            case "lost":
                return self._say_lost(record, connection)
            case "status":
                before, engine = self._engines.get(connection), record.get("engine")
                self._engines[connection] = engine
                return None if engine == before else f"Kraken's engine: {engine}"
            case "backfilled":
                return self._say_recovered(record)
            case "gap":
                return f"GAP: {channel} {self._interval(record)} could not be recovered; {record.get('reason')}"
            case "stopped":
                return self._say_stopped(record)
        return f"{name}: {channel}"

    def _say_live(self, record: Record, connection: tuple[str, str]) -> str | None:
        account, channel = record["account"], record["channel"]
        live = self._live[connection]
        live.append(channel)
        shown = live
        if (account, channel) in self._resnapshot:
            self._resnapshot.discard((account, channel))
            shown = [channel]
        elif {name for name in self.channels if CHANNELS.get(name) == connection[1]} - set(live):
            return None  # it is said when the connection's last channel is live
        self._engines[connection] = engine = record.get("engine")
        lost = [ns for name in shown if (ns := self._lost_ns.pop((account, name), 0))]
        again = f" again after {span((moment(record['ts']) - min(lost)) / NS)}" if lost else ""
        orders = [count for name in shown if (count := self.open_orders(account, name)) is not None]
        facts = [
            f"live{again}: {', '.join(shown)}",
            counted(max(orders), "open order") if orders else "",
            f"Kraken's engine: {engine}" if engine not in (None, "online") else "",
        ]
        return "; ".join(filter(None, facts))

    def _say_lost(self, record: Record, connection: tuple[str, str]) -> str | None:
        account, channel, cause = record["account"], record["channel"], record.get("cause") or ""
        self._lost_ns[account, channel] = moment(record["ts"])
        live = self._live[connection]
        if channel not in live:
            return None  # it was said with the connection's first channel
        lost = [channel] if cause == "resnapshot" else live.copy()
        if cause == "resnapshot":
            self._resnapshot.add((account, channel))
        for name in lost:
            live.remove(name)
        why = ": ".join(filter(None, (CAUSES.get(cause, cause), record.get("detail"))))
        return f"lost: {', '.join(lost)}; {why}"

    def _say_recovered(self, record: Record) -> str:
        orders, trades = record.get("orders") or 0, record.get("trades") or 0
        noun = "change" if record["channel"] == "balances" else "trade"
        found = [counted(orders, "order")] * bool(orders) + [counted(trades, noun)] * bool(trades)
        what = f"from history: {', '.join(found)}" if found else "nothing more in history"
        return f"recovered: {record['channel']} {self._interval(record)}; {what}"

    def _say_stopped(self, record: Record) -> str | None:
        """Return why an account has stopped. The last row of a run says what has stopped all of them."""
        first = record["account"] not in self._stopped
        self._stopped.add(record["account"])
        return f"stopped: {record.get('reason')}" if first and record.get("reason") not in STOP_REASONS else None

    def _interval(self, record: Record) -> str:
        """Return the beginning and the end of an outage."""
        now_ns = moment(record["ts"])
        start, end = record.get("from"), record.get("to") or record["ts"]
        until = self.zone.clock(moment(end), now_ns)
        return f"{self.zone.clock(moment(start), now_ns)} to {until}" if start else f"up to {until}"
