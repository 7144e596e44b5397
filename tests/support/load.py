"""The installed command under load, appending to a file; afterwards its files against the exchange's ledger."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from kraken_feed.simulator.faults.scenario import Scenario

from .installed import QUICK, Site, site, start, until
from .ledger_check import ITEMS, Line
from .timeouts import TIMEOUT_S

ALL = ("openOrders", "ownTrades", "executions", "balances")


class Record(Line):
    """What is looked at in a record."""

    id: str = ""


class Comparison(msgspec.Struct):
    """What files hold of what the exchange has published."""

    published: int
    items: int  # records that are no markers
    lines: int
    lost: int
    foreign: int  # nobody has published them
    torn: int
    twice: int

    @property
    def good(self) -> bool:
        """Whether everything is there once, and nothing else."""
        return not (self.lost or self.foreign or self.torn or self.twice)


class Load:
    """The command on a busy exchange that does it no harm."""

    process: Process

    def __init__(self, place: Site, output: Path, *further: str) -> None:
        self.place = place
        self._arguments = ("--output", str(output), "--format", "json", "--snapshots", "all", "-v", *further)
        self._stderr = place.home / "stderr.log"
        self._lives = 0
        self._items = self._frames = self._read = 0
        self._said: dict[str, list[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Start it, once or once more, and wait until it is live on every channel."""
        with self._stderr.open("ab") as stderr:
            self.process = await start(
                *ALL, *self._arguments, env=self.place.environment(), stderr=stderr.fileno(), stdout=DEVNULL, fresh=True
            )
        self._lives += len(ALL)
        await self.until_said("live", self._lives)

    @property
    def published(self) -> int:
        """Items that the exchange has sent."""
        frames = self.place.exchange.ledger.frames
        self._items += sum(len(frame.items) for frame in frames[self._frames :])
        self._frames = len(frames)
        return self._items

    def said(self, event: str) -> list[dict[str, Any]]:
        """The diagnostics of that name so far."""
        with self._stderr.open("rb") as file:
            file.seek(self._read)
            content = file.read()
        content = content[: content.rfind(b"\n") + 1]
        self._read += len(content)
        for entry in map(msgspec.json.decode, content.splitlines()):
            self._said.setdefault(entry["event"], []).append(entry)
        return self._said.get(event, [])

    async def until_said(self, event: str, count: int = 1) -> dict[str, Any]:
        """Wait for the diagnostic of that name, or for so many."""
        assert await self.until(lambda: len(self.said(event)) >= count), f"no {event} on stderr"
        return self.said(event)[count - 1]

    async def until_published(self, more: int) -> None:
        """Wait until the exchange has sent so many items more."""
        before = self.published
        assert await self.until(lambda: self.published >= before + more)

    async def until(self, condition: Callable[[], bool], seconds: float = TIMEOUT_S) -> bool:
        """Wait until it is so; False if the command ends before or if it takes too long."""
        return await until(condition, seconds, over=lambda: self.process.returncode is not None)

    async def calm(self, files: Callable[[], Iterable[Path]], elsewhere: int = 0) -> dict[str, Any]:
        """Let nothing happen any more and everything arrive in the files, but for the lines that are elsewhere: what
        the command says of itself then."""
        self.place.exchange.engine.rate = 0.0
        self.place.server.tick()
        markers = len(ALL)  # feed.live
        wanted = self.published + markers - elsewhere

        async def growing(least: int) -> bool:
            return await self.until(lambda: sum(map(_lines, files())) > least)

        written = 0
        while written < wanted and await growing(written):  # a slow machine takes its time; what stands still is hung
            written = sum(map(_lines, files()))
        return await self.state()

    async def state(self) -> dict[str, Any]:
        """What the command says of itself now."""
        told = len(self.said("state"))
        self.process.send_signal(signal.SIGUSR1)
        return await self.until_said("state", told + 1)

    def reopen(self) -> None:
        """SIGHUP."""
        self.process.send_signal(signal.SIGHUP)

    async def end(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            return await self.process.wait()

    def compare(self, contents: Iterable[bytes]) -> Comparison:
        """Compare what the files hold, the oldest first, with the ledger."""
        connections = {entry["connection"]: int(entry["kraken_connection"]) for entry in self.said("greeted")}
        found: Counter[tuple[int, str, int | None, bytes]] = Counter()
        ids: Counter[str] = Counter()
        torn = 0
        for text in b"".join(contents).splitlines(keepends=True):
            try:
                record = msgspec.json.decode(text, type=Record)
            except msgspec.DecodeError:
                torn += 1
                continue
            torn += not text.endswith(b"\n")
            ids[record.id] += 1
            if record.event_name in ITEMS:
                connection = connections[record.connection or ""]
                found[connection, record.channel, record.sequence, bytes(record.data)] += 1
        published = list(self.place.exchange.ledger.published)
        wanted: Counter[tuple[int, str, int | None, bytes]] = Counter(
            (item.connection_id, item.channel, item.sequence, item.value) for item in published
        )
        return Comparison(
            published=len(published),
            items=found.total(),
            lines=ids.total() + torn,
            lost=(wanted - found).total(),
            foreign=(found - wanted).total(),
            torn=torn,
            twice=sum(count - 1 for count in ids.values()),
        )


@contextlib.asynccontextmanager
async def load(
    home: Path, output: Path, *further: str, rate: float, config: str = "", backfill: bool = False
) -> AsyncIterator[Load]:
    """The command, live on every channel, while so many things happen a second."""
    async with site(home, rate=rate, scenario=Scenario(tier="pro")) as place:
        place.configure(QUICK.replace("silence_s = 2.5", "silence_s = 30.0") + config)
        run = Load(place, output, *further, *(() if backfill else ("--no-backfill",)))
        try:
            await run.start()
            yield run
        finally:
            if run.process.returncode is None:
                run.process.kill()
                await run.process.wait()


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")
