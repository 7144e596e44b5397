"""The installed command as a subprocess, against the simulated exchange on real sockets in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sysconfig
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.net.server import Server

from . import fork_server
from .timeouts import TIMEOUT_S

COMMAND = str(Path(sysconfig.get_path("scripts")) / "kraken-feed")
LOOK_S = 0.05

QUICK = """
[connection]
open_timeout_s = 5.0
ack_timeout_s = 1.0
silence_s = 2.5
[reconnect]
initial_s = 0.02
max_s = 0.1
stable_s = 1.0
budget = 100000
"""


class Site:
    """A running exchange, and a home directory with a configuration that points at it."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server = server
        self.exchange = server.exchange
        self.home = home
        self.configure()

    def configure(self, further: str = QUICK, before: str = "") -> Path:
        path = self.home / "config.toml"
        endpoints = f'[endpoints]\nrest = "{self.server.rest_url}"\nws_v1 = "{self.server.ws_v1_url}"\n'
        path.write_text(f'{before}\n{endpoints}ws_v2 = "{self.server.ws_v2_url}"\n{further}')
        return path

    def environment(self, **further: str) -> dict[str, str]:
        return {
            **bare(self.home),
            **key(self.exchange),
            "KRAKEN_FEED_CONFIG": str(self.home / "config.toml"),
            **further,
        }

    def accounts(self, *names: str) -> str:
        """The configuration's tables for the exchange's accounts, in their order, their keys in files."""
        tables = []
        for name, account in zip(names, self.exchange.accounts, strict=True):
            key_file, secret_file = self.home / f"{name}.key", self.home / f"{name}.secret"
            key = self.exchange.world.first_key(account)
            for path, text in ((key_file, key.key), (secret_file, key.secret)):
                path.touch(mode=0o600)
                path.write_text(text)
            tables.append(f'[accounts.{name}]\nkey_file = "{key_file}"\nsecret_file = "{secret_file}"\n')
        return "".join(tables)

    def inject(self, *faults: Any) -> None:
        for fault in faults:
            self.exchange.inject(fault, self.server.now())
        self.server.tick()


def bare(home: Path) -> dict[str, str]:
    """An environment without anything of the person who runs the tests."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}


def key(exchange: Exchange) -> dict[str, str]:
    return {"KRAKEN_API_KEY": exchange.key, "KRAKEN_API_SECRET": exchange.secret}


@contextlib.asynccontextmanager
async def site(
    home: Path, *, rate: float = 0.0, seed: int = 1, scenario: Scenario | None = None, **options: Any
) -> AsyncIterator[Site]:
    exchange = Exchange(now=time.time(), seed=seed, rate=rate, scenario=scenario, **options)
    async with Server(exchange) as server:
        yield Site(server, home)


async def start(
    *arguments: str, env: Mapping[str, str], stdout: int = PIPE, stderr: int = PIPE, fresh: bool = False
) -> Process:
    """Start the command; in a ``fresh`` process if the test is about the start. See :mod:`.fork_server`."""
    if not fresh and fork_server.suits(arguments, env):
        return cast("Process", await fork_server.fork(arguments, env, stdout, stderr))
    return await asyncio.create_subprocess_exec(
        COMMAND, *arguments, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=stdout, stderr=stderr, limit=1 << 26
    )


class Done(msgspec.Struct):
    """A process that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def named(self, event_name: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event_name"] == event_name]


async def finish(process: Process) -> Done:
    """Read what there is to read and wait for the end; a process that does not end is killed and fails the test."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode is not None
    return Done(process.returncode, out or b"", (err or b"").decode())


async def run(*arguments: str, env: Mapping[str, str], fresh: bool = False) -> Done:
    return await finish(await start(*arguments, env=env, fresh=fresh))


async def lines(process: Process, wanted: Callable[[dict[str, Any]], bool]) -> list[dict[str, Any]]:
    """The records up to the first that is wanted."""
    assert process.stdout is not None
    seen: list[dict[str, Any]] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not seen or not wanted(seen[-1]):
            line = await process.stdout.readline()
            assert line, "the output ended"
            seen.append(json.loads(line))
    return seen


def named(event_name: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: bool(record["event_name"] == event_name)


async def said(process: Process, text: str, times: int = 1) -> str:
    """Everything on stderr up to the line with that text, or to the one that has it so many times after others."""
    assert process.stderr is not None
    found = ""
    async with asyncio.timeout(TIMEOUT_S):
        while found.count(text) < times and (line := await process.stderr.readline()):
            found += line.decode()
    return found


async def logged(process: Process, event: str) -> dict[str, Any]:
    """The first diagnostic of that name."""
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        while line := await process.stderr.readline():
            entry: dict[str, Any] = json.loads(line)
            if entry["event"] == event:
                return entry
    raise AssertionError(f"no {event} on stderr")


async def until(
    true: Callable[[], Any], seconds: float = TIMEOUT_S, *, over: Callable[[], bool] = lambda: False
) -> bool:
    """Wait for what another process does to files, at most so long, or until there is nothing more to wait for.

    A file has no event that could be waited for, so this looks again and again; how often decides nothing, and how long
    it waits only when something is broken. Everything else in the tests waits for a frame, a line or a virtual clock.
    """
    ends = time.monotonic() + seconds
    while not true():
        if over() or time.monotonic() > ends:
            return bool(true())
        await asyncio.sleep(LOOK_S)
    return True
