"""What an output holds of what happened to an account: lost, duplicated, torn, and which outages are still open."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from kraken_feed.records.render import timestamp
from kraken_feed.simulator.market.order import Change

ITEMS = ("order", "trade", "execution", "balance")
KINDS = ("end", "fill", "entry")
NAMES = {"end": "order ends", "fill": "fills", "entry": "ledger entries"}
CHANNELS = {"end": ("openOrders", "executions"), "fill": ("ownTrades", "executions"), "entry": ("balances",)}


class Ended(NamedTuple):
    """How a run of the command ended: by which signal, when (unix seconds), and what the file held then: its size up
    to the last line feed, and the torn line after it."""

    signal: str
    at: float
    size: int
    torn: bytes


class Line(msgspec.Struct):
    """What is looked at in a record."""

    id: str
    account: str
    ts: str
    event_name: str
    channel: str
    since: str | None = msgspec.field(name="from", default=None)
    to: str = ""
    cause: str = ""
    reason: str = ""
    last_ts: str | None = None


class Again(NamedTuple):
    """An id that two runs have written: which one did first, and when."""

    id: str
    run: int
    ts: str


_line = msgspec.json.Decoder(Line)


class Output:
    """One account's part of a file that several runs of the command have appended to, read as far as it goes."""

    def __init__(self, path: Path, ends: list[Ended], account: str = "main") -> None:
        self.account = account
        self.torn: list[bytes] = []  # lines that are no record
        self.cut = 0  # … not counting the last before a SIGKILL, which stands on a line of its own
        self.within: list[str] = []  # ids that one run has written twice
        self.again: list[Again] = []
        self.lines = 0
        self.seen: dict[str, tuple[int, str]] = {}
        self.live: defaultdict[str, list[str]] = defaultdict(list)
        self.lost: defaultdict[str, list[str]] = defaultdict(list)
        self.closed: defaultdict[str, list[Line]] = defaultdict(list)
        self.gaps: defaultdict[str, list[Line]] = defaultdict(list)
        self._path, self._ends, self._offset = path, ends, 0

    def read(self) -> None:
        """Take in the whole lines that were added."""
        self._read(self._path)

    def rotated(self, old: Path) -> None:
        """The file was moved there and is complete; what follows is in a new one. Only for a single run."""
        rest = self._read(old)
        if rest:
            self.torn.append(rest)
        self._offset = 0

    def _read(self, path: Path) -> bytes:
        """What there is of a last line without its end."""
        with path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content.rfind(b"\n") + 1
        for line in content[:whole].splitlines(keepends=True):
            self._take(line.rstrip(b"\n"), bisect_right([end.size for end in self._ends], self._offset))
            self._offset += len(line)
        return content[whole:]

    def _take(self, text: bytes, run: int) -> None:
        try:
            line = _line.decode(text)
        except msgspec.DecodeError:
            if run and text == self._ends[run - 1].torn and self._ends[run - 1].signal == "SIGKILL":
                self.cut += 1
            else:
                self.torn.append(text)
            return
        if line.account != self.account:
            return
        self.lines += 1
        before = self.seen.get(line.id)
        if before is not None and before[0] == run:
            self.within.append(line.id)
        elif before is not None:
            self.again.append(Again(line.id, *before))
        self.seen[line.id] = run, line.ts
        if line.event_name == "feed.live":
            self.live[line.channel].append(line.ts)
        elif line.event_name == "feed.lost":
            self.lost[line.channel].append(line.last_ts or line.ts)
        elif line.event_name == "feed.backfilled":
            self.closed[line.channel].append(line)
        elif line.event_name == "feed.gap":
            self.gaps[line.channel].append(line)

    def unclosed(self) -> list[tuple[str, str]]:
        """Channel and beginning of each span without the feed that no ``feed.backfilled`` or ``feed.gap`` covers."""
        found = []
        for channel, live in self.live.items():
            covered = _union((line.since or "", line.to) for line in self.closed[channel] + self.gaps[channel])
            for start in [*self.lost[channel], *(timestamp(round(end.at * 1e9)) for end in self._ends)]:
                next_live = bisect_right(live, start)
                end = live[next_live] if next_live < len(live) else "9"
                if not any(since <= start and end <= to for since, to in covered):
                    found.append((channel, start))
        return found

    def declared(self, channel: str, at: str) -> bool:
        """Whether that moment lies within a gap."""
        return any((gap.since or "") <= at <= gap.to for gap in self.gaps[channel])


class Count(msgspec.Struct):
    """Of one kind of thing, over the channels that tell of it."""

    ledger: int = 0
    output: int = 0
    declared: int = 0
    lost: list[str] = []


def expected(changes: Iterable[Change]) -> Iterator[tuple[str, str, str]]:
    """What the ledger says there has to be on the output: kind, identity, and when it happened."""
    for change in changes:
        at = timestamp(int(change.at * 1e9))
        if change.order.terminal:
            yield "end", f"{change.order.id}:end", at
        if change.trade is not None:
            yield "fill", change.trade.id, at
        for entry in change.entries:
            yield "entry", entry.id, at


def compare(output: Output, changes: Iterable[Change]) -> dict[str, Count]:
    """Ledger and output, from the first ``feed.live`` of each channel on."""
    counts = {kind: Count() for kind in KINDS}
    first = {channel: live[0] for channel, live in output.live.items()}
    for kind, identity, at in expected(changes):
        for channel in CHANNELS[kind]:
            if at <= first.get(channel, ""):
                continue
            count, name = counts[kind], f"{output.account}:{channel}:{identity}"
            count.ledger += 1
            if name in output.seen:
                count.output += 1
            elif output.declared(channel, at):
                count.declared += 1
            else:
                count.lost.append(name)
    return counts


def causes(outages: Iterable[Line]) -> Counter[str]:
    return Counter(line.cause for line in outages)


def _union(spans: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    merged: list[tuple[str, str]] = []
    for since, to in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], to)
        else:
            merged.append((since, to))
    return merged
