"""The promise, checked against the exchange's ledger: every published item is on the output once with its exact
bytes, or lies between a ``feed.lost`` and the next ``feed.live``."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec


class Published(NamedTuple):
    """One item that the exchange has sent on one connection."""

    connection_id: int
    channel: str
    sequence: int
    data: bytes


class Line(msgspec.Struct):
    """What the check looks at in a record."""

    event_name: str
    channel: str
    connection: str | None = None
    sequence: int | None = None
    type: str | None = None
    data: msgspec.Raw = msgspec.Raw()


ITEMS = ("order", "trade", "execution", "balance")


def check(output: bytes, published: Iterable[Published], connections: Mapping[str, int]) -> dict[str, int]:
    """Assert the promise. ``connections`` maps names in the output to the exchange's numbers.

    Returns how many items were published, are on the output, and were not delivered because a connection broke.
    """
    assert not output or output.endswith(b"\n"), "the last line is torn"
    lines = [msgspec.json.decode(line, type=Line) for line in output.splitlines()]
    written: defaultdict[tuple[int, str], list[tuple[int | None, bytes]]] = defaultdict(list)
    ends: defaultdict[tuple[int, str], list[str]] = defaultdict(list)
    state: dict[str, str] = {}  # by channel: its last marker
    for line in lines:
        if line.connection is None or line.connection not in connections:  # one that was never opened, or none at all
            assert line.event_name in ("feed.stopped", "feed.gap", "feed.backfilled"), line
            continue
        key = (connections[line.connection], line.channel)
        if line.event_name in ITEMS and line.type == "backfill":
            continue
        if line.event_name in ITEMS:
            written[key].append((line.sequence, bytes(line.data)))
            assert "feed.lost" not in ends[key], "an item after its connection was declared lost"
        elif line.event_name in ("feed.live", "feed.lost", "feed.stopped"):
            ends[key].append(line.event_name)
            before = state.get(line.channel)
            assert (line.event_name == "feed.lost") <= (before == "feed.live"), "lost without having been live"
            assert (line.event_name == "feed.live") <= (before != "feed.live"), "live twice"
            state[line.channel] = line.event_name
    sent: defaultdict[tuple[int, str], list[tuple[int | None, bytes]]] = defaultdict(list)
    for item in published:
        sent[item.connection_id, item.channel].append((item.sequence, item.data))
    undelivered = 0
    for key, items in sent.items():
        mine = written.pop(key, [])
        assert mine == items[: len(mine)], f"not what was published on {key}"
        if len(mine) < len(items):
            undelivered += len(items) - len(mine)
            # What was live was declared lost, or the whole run was ended; what was not live lies in an outage anyway.
            assert "feed.live" not in ends[key] or ends[key][-1] in ("feed.lost", "feed.stopped"), (
                f"a silent outage {key}"
            )
    assert not written, "items on the output that nobody has published"
    total = sum(map(len, sent.values()))
    return {"published": total, "written": total - undelivered, "undelivered": undelivered}


def main(output: str, diagnostics: str, ledger: str) -> None:
    """Check files: what the command wrote to stdout and, with ``-v --log-format json``, to stderr, and the ledger of
    ``kraken-feed simulate --ledger``."""
    records = [msgspec.json.decode(line) for line in Path(ledger).read_bytes().splitlines()]
    published = [
        Published(r["connection_id"], r["channel"], r["sequence"], _value(r["data"], r["dialect"], r["ids"]))
        for r in records
        if r["record"] == "item"
    ]
    entries = [msgspec.json.decode(line) for line in Path(diagnostics).read_bytes().splitlines() if line[:1] == b"{"]
    connections = {e["connection"]: int(e["kraken_connection"]) for e in entries if e["event"] == "greeted"}
    written = Path(output).read_bytes()
    connections |= _ungreeted(written, published, connections)
    counts = check(written, published, connections)
    faults = Counter(r["kind"] for r in records if r["record"] == "fault")
    print(*(f"{name}: {count}" for name, count in counts.items()), f"faults: {dict(faults)}", sep="\n")


def _ungreeted(output: bytes, published: list[Published], connections: Mapping[str, int]) -> dict[str, int]:
    """Connections that Kraken did not greet, known by the first item that they brought."""
    known = set(connections.values())
    first = {(p.channel, p.data): p.connection_id for p in reversed(published) if p.connection_id not in known}
    found: dict[str, int] = {}
    for line in (msgspec.json.decode(line, type=Line) for line in output.splitlines()):
        if line.event_name in ITEMS and line.connection and line.connection not in connections:
            found.setdefault(line.connection, first[line.channel, bytes(line.data)])
    return found


def _value(data: str, dialect: str, ids: list[str]) -> bytes:
    """The object behind the id: v1 has ``{"<id>":{…}}`` in the array, v2 the object itself."""
    return data.encode() if dialect == "v2" else data[len(ids[0]) + 4 : -1].encode()


if __name__ == "__main__":
    main(*sys.argv[1:])
