"""Every place that a tail fills is searched for its secrets: files, metrics, notifications, a dump of its stacks.

One run has two accounts and an exchange that puts their secrets into everything it says; in the end the run is
aborted. Another is refused for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from kraken_feed.simulator.faults.fault import Fault

from ..support.cases import each
from ..support.figures import ask
from ..support.installed import QUICK, Site, bare, finish, site, start
from ..support.timeouts import TIMEOUT_S
from .test_secrets import ALL, Watched, leaks

ACCOUNTS = ("main", "b")
TORN = b'{"id":"torn'

# Each place, and what shows that it was filled: what is expected of it, and where texts of the exchange get to, that
# the secrets in them were masked there.
PLACES = {
    "output": (
        b'"event_name":"feed.lost"', b'"cause":"closed","detail":"1001 [masked] [masked]"',
        b'"reason":"EQuery:Unknown [masked] [masked] [masked] [masked] [masked] [masked]',
    ),
    "output.torn": (TORN,),
    "state": (b"SQLite format 3", b"-wal", b".lock"),
    "stderr": (b'"event":"connection_lost"', b"[masked]", b"Fatal Python error: Aborted", b"most recent call first"),
    "state line": (b'"event":"state"', b'"account":"main"', b'"account":"b"', b'"stopping":"error: ', b"[masked]"),
    "notifications": (b"STATUS=main: ", b" | b: "),
    "/metrics": (b'cause="refused"', b'account="b"'),
    "/healthz": (b'"status"',),
    "/readyz": (b'"reason":"stopped: error: Kraken refused the API key', b"[masked]"),
    "refused: output": (b'"reason":"error: Kraken refused the API key', b"[masked]"),
    "refused: state": (b"SQLite format 3",),
    "refused: stderr": (b'"exit_code":77', b"[masked]"),
    "refused: notifications": (b"STOPPING=1", b"STATUS=stopping: Kraken refused", b"[masked]"),
}  # fmt: skip


class Filled(NamedTuple):
    """What was found in every place, and the secrets that must not be."""

    places: dict[str, bytes]
    secrets: set[str]


class Told:
    """The socket of ``$NOTIFY_SOCKET``: every datagram, as it comes."""

    def __init__(self, path: Path) -> None:
        self.content = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.content += self._socket.recv(65536) + b"\n"

    def close(self) -> None:
        self._read()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()


class Stderr:
    """What a process says, kept, and read up to an event."""

    def __init__(self, process: Process) -> None:
        assert process.stderr is not None
        self.content = b""
        self._stream = process.stderr

    async def until(self, event: str, times: int = 1) -> dict[str, Any]:
        """The last of so many events of a name."""
        return (await self.all(*[event] * times))[-1]

    async def all(self, *events: str) -> list[dict[str, Any]]:
        """One event for each of the names, in whichever order they come."""
        missing, seen = Counter(events), []
        async with asyncio.timeout(TIMEOUT_S):
            while missing.total() and (line := await self._stream.readline()):
                self.content += line
                entry = msgspec.json.decode(line)
                if missing[entry["event"]]:
                    missing[entry["event"]] -= 1
                    seen.append(entry)
        assert not missing.total(), f"no {missing} on stderr:\n{self.content.decode()}"
        return seen


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    """Both runs."""
    with _without_cores():
        aborted = asyncio.run(_aborted(tmp_path_factory.mktemp("aborted")))
    refused = asyncio.run(_refused(tmp_path_factory.mktemp("refused")))
    return Filled(aborted.places | refused.places, aborted.secrets | refused.secrets)


@contextlib.contextmanager
def _without_cores() -> Iterator[None]:
    """What is started meanwhile leaves no core when it is aborted, as the unit has it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def _tables(place: Site) -> tuple[str, list[str]]:
    """The accounts' tables, each with a key of its own that has a one-time password; the texts of all of them."""
    tables, secrets = [], []
    for name, account in zip(ACCOUNTS, place.exchange.accounts, strict=True):
        otp = f"SENTINEL/{name}+otp0123456789"
        key = place.exchange.add_key(account=account, otp=otp)
        key.counter.decay = 1e9
        tables.append(f"[accounts.{name}]")
        for part, text in {"key": key.key, "secret": key.secret, "otp": otp}.items():
            path = place.home / f"{name}.{part}"
            path.touch(mode=0o600)
            path.write_text(text)
            tables.append(f'{part}_file = "{path}"')
            secrets.append(text)
    return "\n".join(tables), secrets


@contextlib.asynccontextmanager
async def _tailing(place: Site, *accounts: str) -> AsyncIterator[tuple[Process, Told]]:
    """A tail that has a file, a state and somebody to tell; killed if it is not waited for."""
    home = place.home
    env = bare(home) | {
        "KRAKEN_FEED_CONFIG": str(home / "config.toml"),
        "NOTIFY_SOCKET": str(home / "notify"),
        "PYTHONASYNCIODEBUG": "1",
        "PYTHONFAULTHANDLER": "1",
    }
    with contextlib.closing(Told(home / "notify")) as told:
        process = await start(
            *ALL, "-v", "--output", str(home / "output"), "--state", str(home / "state"), *accounts, env=env
        )
        try:
            yield process, told
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _aborted(home: Path) -> Filled:
    (home / "output").write_bytes(TORN)
    async with site(home, rate=50.0, accounts=len(ACCOUNTS)) as place:
        tables, secrets = _tables(place)
        quick = QUICK.replace("[reconnect]", "[reconnect]\nrefused_s = 0.0")  # a key that has worked is not waited for
        place.configure(f'{quick}[backfill]\nrest_decay = 1e9\n[metrics]\nlisten = "127.0.0.1:0"\n{tables}')
        watched = Watched(place.exchange)
        async with _tailing(place, "--account", "all") as (process, told):
            stderr = Stderr(process)
            url = (await stderr.until("metrics_listening"))["url"]
            await stderr.until("live", len(ACCOUNTS) * len(ALL))
            await _provoke(place, stderr, secrets)
            process.send_signal(signal.SIGUSR1)
            state = await stderr.until("state")
            answers = {path: await asyncio.to_thread(ask, url, path) for path in ("/metrics", "/healthz", "/readyz")}
            process.send_signal(signal.SIGABRT)
            done = await finish(process)
    # CPython's faulthandler prints the frames of threads that still run, and can be killed by what it then reads.
    assert done.code in (-signal.SIGABRT, -signal.SIGSEGV)
    assert done.out == b""
    places = {path: answer.body for path, answer in answers.items()} | {
        "output": (home / "output").read_bytes(),
        "output.torn": (home / "output.torn").read_bytes(),
        "state": _files(home / "state"),
        "stderr": stderr.content + done.err.encode(),
        "state line": msgspec.json.encode(state),
        "notifications": told.content,
    }
    return Filled(places, watched.seen.union(secrets))


async def _provoke(place: Site, stderr: Stderr, secrets: list[str]) -> None:
    """Let Kraken put secrets into a reason to close (which has room for two), a refusal that passes, one that stops an
    account, and an error of REST that leaves the other account with gaps."""
    every = " ".join(secrets)
    place.inject(
        Fault("rest_error", method="ClosedOrders", text=f"EQuery:Unknown {every}", duration=1e9),
        Fault("refuse_token", channel="ownTrades", text=f"ESession:Invalid {every}"),
        Fault("refuse_token", channel="balances", text=f"EGeneral:Permission denied {every}"),
        Fault("drop", code=1001, reason=f"{secrets[0]} {secrets[-1]}"),
    )
    await stderr.all("account_stopped", "connection_failed", "gap")


async def _refused(home: Path) -> Filled:
    async with site(home, rate=50.0, accounts=len(ACCOUNTS)) as place:
        tables, secrets = _tables(place)
        place.configure(f"{QUICK}\n{tables}")
        watched, own = Watched(place.exchange), " ".join(secrets[:3])
        place.inject(Fault("refuse_token", channel="balances", text=f"EGeneral:Permission denied {own}", duration=1e9))
        async with _tailing(place, "--account", "main") as (process, told):
            done = await finish(process)
    assert done.code == 77
    places = {
        "output": (home / "output").read_bytes(),
        "state": _files(home / "state"),
        "stderr": done.err.encode(),
        "notifications": told.content,
    }
    return Filled({f"refused: {name}": content for name, content in places.items()}, watched.seen.union(secrets))


def _files(directory: Path) -> bytes:
    """All files of a directory, each after its name."""
    return b"".join(os.fsencode(path.name) + b"\n" + path.read_bytes() for path in sorted(directory.iterdir()))


# ------------------------------------------------------------------------------------------------ what is there


@each("place", PLACES)
def test_no_secret_is_in(place: str, filled: Filled) -> None:
    assert leaks(filled.places[place], filled.secrets) == []


@each("place", PLACES)
def test_what_was_searched_had_been_filled(place: str, filled: Filled) -> None:
    for expected in PLACES[place]:
        assert expected in filled.places[place]


def test_no_place_was_forgotten(filled: Filled) -> None:
    assert set(filled.places) == set(PLACES)


@each("place", PLACES)
def test_a_secret_would_be_found_in(place: str, filled: Filled) -> None:
    content, secret = filled.places[place], min(filled.secrets)
    half = len(content) // 2
    assert leaks(content[:half] + secret.encode() + content[half:], filled.secrets)
