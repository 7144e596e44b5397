"""Play a script against the installed command, until the output says what the test waits for.

A process costs a second, so most scripts are played to several channels at once; ``Played.each`` tells them apart.
"""

from __future__ import annotations

import json
from asyncio.subprocess import DEVNULL
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tests.support.installed import bare, finish, start, until
from tests.support.timeouts import scaled

from .exchange import SECRET, Exchange, Script

TIMEOUT_S = scaled(20.0)  # everything here takes a second or two
SECOND_PASS_S = 0.1  # so that the last look at a doubt comes after a second

CONFIG = f"""
[connection]
ack_timeout_s = 2.0
[reconnect]
initial_s = 0.05
max_s = 0.2
budget = 100000
[backfill]
second_pass_s = {SECOND_PASS_S}
rest_counter = 1000
rest_decay = 10000.0
"""


class Played(msgspec.Struct):
    """What the command has written so far, about one channel or all, and what it asked."""

    exchange: Exchange
    output: Path
    stderr: Path
    channels: tuple[str, ...]
    only: str | None = None

    @property
    def each(self) -> list[Played]:
        """Return what was written about each channel, in their order."""
        return [msgspec.structs.replace(self, channels=(channel,), only=channel) for channel in self.channels]

    @property
    def channel(self) -> str:
        """Return the only channel."""
        (channel,) = self.channels
        return channel

    @property
    def lines(self) -> list[bytes]:
        """Return the complete lines of the output."""
        content = self.output.read_bytes() if self.output.exists() else b""
        lines = content[: content.rfind(b"\n") + 1].splitlines()
        return [line for line in lines if self.only is None or json.loads(line)["channel"] == self.only]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the records, decoded."""
        return [json.loads(line) for line in self.lines]

    def named(self, event_name: str) -> list[dict[str, Any]]:
        """Return the records of that name."""
        return [record for record in self.records if record["event_name"] == event_name]

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Return the records of that type: snapshot, update or backfill."""
        return [record for record in self.records if record.get("type") == kind]

    def data(self, kind: str) -> list[Any]:
        """Return the data of the records of that type."""
        return [record["data"] for record in self.of_type(kind)]

    @property
    def recovered(self) -> list[dict[str, Any]]:
        return self.named("feed.backfilled")

    @property
    def gaps(self) -> list[dict[str, Any]]:
        return self.named("feed.gap")

    @property
    def settled(self) -> list[dict[str, Any]]:
        """Return the outages that are over, one way or the other."""
        return self.recovered + self.gaps

    @property
    def log(self) -> str:
        """Return what the command said on stderr."""
        return self.stderr.read_text(encoding="utf-8", errors="backslashreplace")

    @property
    def repeated_ids(self) -> list[str]:
        """Return the ids that two records have."""
        return [name for name, times in Counter(record["id"] for record in self.records).items() if times > 1]

    def __str__(self) -> str:
        return "\n".join([*(line.decode() for line in self.lines), self.log])


def settled(played: Played) -> bool:
    """Return whether every channel had an outage that is over."""
    return all(one.settled for one in played.each)


Until = Callable[[Played], Any]


async def play(home: Path, script: Script, *channels: str, to: Until) -> Played:
    """Run the command on the script until ``to`` holds, then stop it; fail if that takes too long."""
    async with Exchange(script).running() as exchange:
        config, played = home / "config.toml", Played(exchange, home / "out.jsonl", home / "stderr.log", channels)
        urls = f'rest = "{exchange.rest_url}"\nws_v1 = "{exchange.ws_url}"\nws_v2 = "{exchange.ws_url}/v2"\n'
        config.write_text(f"[endpoints]\n{urls}{CONFIG}")
        arguments = ("--config", str(config), "--state", str(home / "state"), "--output", str(played.output))
        env = bare(home) | {"KRAKEN_API_KEY": "fictional-key", "KRAKEN_API_SECRET": SECRET}
        with played.stderr.open("wb") as stderr:
            process = await start(
                *channels, *arguments, "--format", "json", env=env, stdout=DEVNULL, stderr=stderr.fileno()
            )
        try:
            over = await until(lambda: to(played), TIMEOUT_S, over=lambda: process.returncode is not None)
        finally:
            if process.returncode is None:
                process.terminate()
            await finish(process)
    assert over, f"what was waited for did not come:\n{played}"
    return played
