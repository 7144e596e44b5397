"""Who runs: each contender as the command of a whole process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.frames import CHANNEL, Dialect

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACE = ROOT / ".bench"  # results, and programs that were installed for the comparison
KRAKEN_FEED = str(Path(sysconfig.get_path("scripts")) / "kraken-feed")
KEY = {"KRAKEN_API_KEY": "EXAMPLE-KEY", "KRAKEN_API_SECRET": "A" * 86 + "=="}

# A large snapshot is one frame; the server does not speak while it waits for its word.
_CONFIG = """
[endpoints]
rest = "{rest}"
ws_{dialect} = "{websocket}"
[connection]
ack_timeout_s = 120.0
silence_s = 120.0
max_frame_bytes = 268435456
"""


@dataclass(frozen=True)
class Target:
    """Where the server is for one run, and a directory that nobody has used before."""

    dialect: Dialect
    rest: str
    websocket: str
    home: Path

    @property
    def subscription(self) -> str:
        """The request of those who make none themselves."""
        channel = CHANNEL[self.dialect]
        if self.dialect == "v1":
            return json.dumps({"event": "subscribe", "subscription": {"name": channel, "token": "EXAMPLE+token"}})
        return json.dumps({"method": "subscribe", "params": {"channel": channel, "token": "EXAMPLE+token"}})


@dataclass(frozen=True)
class Command:
    """How to start a contender. ``stdin`` is written, and kept open."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    stdin: str = ""


@dataclass(frozen=True)
class Contender:
    """One program of the comparison. ``share`` of the frames is enough to measure a slow one."""

    name: str
    command: Callable[[Target], Command]
    share: float = 1.0


def environment(target: Target, further: dict[str, str]) -> dict[str, str]:
    """Nothing of the person who measures but the path."""
    bare = {"PATH": os.environ["PATH"], "HOME": str(target.home), "LANG": "C.UTF-8"}
    return {**bare, **KEY, "SSL_CERT_FILE": str(PLACE / "authority.pem"), **further}


def kraken_feed(*options: str, name: str = "kraken-feed") -> Contender:
    """The installed command, with everything on that is on by default."""

    def command(target: Target) -> Command:
        config = target.home / "config.toml"
        config.write_text(
            _CONFIG.format(rest=target.rest, dialect=target.dialect, websocket=target.websocket), encoding="utf-8"
        )
        return Command([KRAKEN_FEED, CHANNEL[target.dialect], "--config", str(config), *options])

    return Contender(name, command)


OURS = kraken_feed()


def floor(*options: str, name: str = "floor") -> Contender:
    """`websockets` alone: receive, write, nothing else."""

    def command(target: Target) -> Command:
        program = str(HERE / "contenders" / "floor.py")
        return Command([sys.executable, program, target.websocket, target.subscription, *options])

    return Contender(name, command)


def _client(program: str, python: Callable[[], str]) -> Callable[[Target], Command]:
    return lambda target: Command([python(), str(HERE / "contenders" / program), target.rest, target.websocket])


def python_kraken_sdk() -> Contender:
    return Contender("python-kraken-sdk", _client("python_kraken_sdk.py", lambda: sys.executable), share=0.25)


def ccxt() -> Contender:
    """In the environment that tests/command/interop makes for it."""
    from tests.command.interop.run import environment as interop_environment

    python = str(interop_environment("ccxt"))
    return Contender("ccxt.pro", _client("ccxt_orders.py", lambda: python), share=0.05)


def kraken_cli(program: str) -> Contender:
    """krakenfx/kraken-cli. It speaks TLS only, and trusts the certificates that it was built with, or any."""

    def command(target: Target) -> Command:
        env = {
            "KRAKEN_SPOT_URL": target.rest,
            "KRAKEN_WS_AUTH_URL": target.websocket,
            "KRAKEN_DANGER_ALLOW_ANY_URL_HOST": "1",
            "KRAKEN_DANGER_ACCEPT_INVALID_CERTS": "1",
        }
        return Command([program, "ws", "executions", "-o", "json"], env)

    return Contender("kraken-cli", command)


def websocat(program: str) -> Contender:
    def command(target: Target) -> Command:
        argv = [program, "--insecure", "--text", "--buffer-size", "16777216", target.websocket]
        return Command(argv, stdin=target.subscription + "\n")

    return Contender("websocat", command)


def rust_programs() -> tuple[list[Contender], list[str]]:
    """Those that are at hand, and why the others are not."""
    found, missing = [], []
    cli = os.environ.get("KRAKEN_CLI")
    if cli:
        found.append(kraken_cli(cli))
    else:
        missing.append("kraken-cli: in no registry under krakenfx's name; KRAKEN_CLI=PATH names the program")
    cat = os.environ.get("WEBSOCAT") or shutil.which("websocat", path=f"{os.environ['PATH']}:{PLACE / 'cargo' / 'bin'}")
    if cat:
        found.append(websocat(cat))
    else:
        missing.append("websocat: not on the path; `cargo install websocat --root .bench/cargo` puts it where we look")
    return found, missing
