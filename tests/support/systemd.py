"""The installed command as systemd would run the shipped unit, with the test in systemd's place."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from asyncio.subprocess import Process
from functools import cache

from .installed import COMMAND, Site
from .timeouts import TIMEOUT_S

Message = dict[str, str]


class Unit:
    """What is written in a unit file, as far as tests want to know."""

    def __init__(self, text: str) -> None:
        self.settings = re.findall(r"^([A-Z]\w+)=(.*)$", text, re.M)

    def all(self, name: str) -> list[str]:
        """Every value of a setting, in order."""
        return [value for key, value in self.settings if key == name]

    def one(self, name: str) -> str:
        (value,) = self.all(name)
        return str(value)


@cache
def printed(*arguments: str) -> str:
    """What ``kraken-feed unit`` prints."""
    done = subprocess.run([COMMAND, "unit", *arguments], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    return done.stdout


class Systemd:
    """The socket that the service notifies, and the directories that it is given.

    Args:
        place: the exchange; the directories are made beside its configuration.
        watchdog: seconds, if the service is to be watched.
    """

    def __init__(self, place: Site, watchdog: float | None = None) -> None:
        self.place = place
        self.output = place.home / "logs" / "main.jsonl"
        self.told: list[Message] = []
        self._watchdog = watchdog
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(place.home / "notify"))
        for directory in ("state", "logs", "credentials"):
            (place.home / directory).mkdir(mode=0o700)
        secrets = {"api-key": place.exchange.key, "api-secret": place.exchange.secret}
        for name in [entry.partition(":")[0] for entry in Unit(printed()).all("LoadCredential")]:
            (place.home / "credentials" / name).write_text(secrets[name] + "\n")
            (place.home / "credentials" / name).chmod(0o400)

    def environment(self) -> dict[str, str]:
        """All that a service gets from systemd 252 (no HOME: the user's is ``/``), and where the test's exchange is."""
        home = self.place.home
        settings = dict(entry.split("=", 1) for entry in Unit(printed()).all("Environment"))
        watchdog = {} if self._watchdog is None else {"WATCHDOG_USEC": str(round(self._watchdog * 1e6))}
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8",
            "USER": "kraken-feed",
            "LOGNAME": "kraken-feed",
            "INVOCATION_ID": "00000000000000000000000000000000",
            "JOURNAL_STREAM": "9:1",
            "NOTIFY_SOCKET": str(home / "notify"),
            "CREDENTIALS_DIRECTORY": str(home / "credentials"),
            "STATE_DIRECTORY": str(home / "state"),
            "LOGS_DIRECTORY": str(home / "logs"),
            "KRAKEN_FEED_CONFIG": str(home / "config.toml"),
            **settings,
            **watchdog,
        }

    def command(self) -> list[str]:
        """The unit's command line for the account ``main``, with the test's directory for the logs."""
        line = Unit(printed()).one("ExecStart").replace("%i", "main")
        return line.replace("/var/log/kraken-feed/", f"{self.output.parent}/").split()

    async def start(self, *before: str, without: tuple[str, ...] = (), driver: str | None = None) -> Process:
        """Start it with the unit's umask; ``before`` is put before the command, and a ``driver`` runs in its place."""
        command = self.command()
        if driver is not None:
            command = [sys.executable, "-c", driver, *command[1:]]
        if self._watchdog is not None:  # as systemd does, who knows the number before
            before = ("sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh", *before)
        env = {name: value for name, value in self.environment().items() if name not in without}
        return await asyncio.create_subprocess_exec(
            *before, *command, env=env, umask=int(Unit(printed()).one("UMask"), 8),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def message(self) -> Message:
        """The next message."""
        async with asyncio.timeout(TIMEOUT_S):
            content = await asyncio.get_running_loop().sock_recv(self._socket, 65536)
        self.told.append(dict(line.split("=", 1) for line in content.decode().split("\n")))
        return self.told[-1]

    async def until(self, name: str, value: str | None = None) -> list[Message]:
        """Every message up to the first with such a field, or with such a text in it."""
        seen = [await self.message()]
        while name not in seen[-1] or (value is not None and value not in seen[-1][name]):
            seen.append(await self.message())
        return seen

    def close(self) -> None:
        self._socket.close()


def fields(messages: list[Message], *names: str) -> list[str]:
    """The names of those fields in the order of their coming."""
    return [name for message in messages for name in message if name in names]
