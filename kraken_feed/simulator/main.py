"""Run `kraken-feed simulate`: the exchange on a loopback port until a signal comes."""

import argparse
import asyncio
import contextlib
import math
import os
import secrets
import shlex
import signal
import ssl
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from .access.key import PERMISSIONS, READ_PERMISSIONS, TRADING_PERMISSIONS
from .exchange import Exchange
from .faults.fault import PARAMETERS
from .faults.scenario import Scenario, ScenarioError, load
from .market.ledger import Ledger, Sink
from .net.server import Server
from .quirks import quirk

MAX_RATE = 10_000.0  # more than one core can render
MAX_ACCOUNTS = 100  # the rate applies to each
MAX_ORDERS = 100_000  # a snapshot of them is 70 MB
EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state


_DESCRIPTION = """\
A simulation of Kraken's private REST and WebSocket v1 and v2, on one loopback port. It prints one line of JSON when it
is ready (rest, ws_v1, ws_v2, key, secret, pid; with several accounts, accounts lists the key and secret of each) and
serves until SIGTERM or SIGINT."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--scenario", type=Path, metavar="FILE", help="faults, quirks and more, in TOML (default: none)"
    )
    parser.add_argument(
        "--quirk",
        type=_quirk,
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help='a behaviour for the whole run; may be repeated; "list" shows all (default: none)',
    )
    parser.add_argument(
        "--seed",
        type=_seed,
        metavar="N",
        help="the same seed gives the same keys, ids, orders and random faults (default: random)",
    )
    parser.add_argument(
        "--rate", type=_rate, default=2.0, metavar="R", help="events per second and account; 0: no events (default: 2)"
    )
    parser.add_argument(
        "--port", type=_port, default=0, metavar="P", help="the port on 127.0.0.1 (default: any free port)"
    )
    parser.add_argument(
        "--tls", nargs=2, type=Path, metavar=("CERT", "KEY"), help="serve https and wss with these PEM files"
    )
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="write what happens and what is published, as JSON lines"
    )
    parser.add_argument(
        "--open-orders", type=_orders, default=5, metavar="N", help="number of open orders at the start (default: 5)"
    )
    may = parser.add_mutually_exclusive_group()
    may.add_argument("--trading", action="store_true", help="let the keys trade (default: they may only read)")
    may.add_argument(
        "--permissions",
        type=_permissions,
        metavar="NAME,…",
        help=f"the only permissions of the keys, to try what is missing (default: {','.join(READ_PERMISSIONS)})",
    )
    prints = parser.add_mutually_exclusive_group()
    prints.add_argument("--env", action="store_true", help="print shell variables instead of JSON")
    prints.add_argument("--config", action="store_true", help="print a configuration for `kraken-feed --config`")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n\n".join(
        textwrap.fill(f"{what}: {', '.join(names)}.", 78, subsequent_indent="  ", break_on_hyphens=False)
        for what, names in (
            ("faults, for --scenario", sorted(PARAMETERS)),
            ("quirks, for --quirk (--quirk list says what they do)", quirk.QUIRKS),
            ("permissions", PERMISSIONS),
        )
    )
    parser.add_argument(
        "--accounts", type=_accounts, default=1, metavar="N", help="number of accounts, each with a key (default: 1)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code."""
    if None in args.quirk:
        sys.stdout.write(quirk.catalogue())
        return 0
    try:
        scenario = Scenario() if args.scenario is None else load(args.scenario)
        scenario = replace(scenario, quirks=replace(scenario.quirks, **dict(args.quirk)))
        tls = None if args.tls is None else _tls(*args.tls)
        with _sink(args.ledger) as sink:
            exchange = Exchange(
                now=time.time() + scenario.quirks.clock_offset,
                seed=secrets.randbits(32) if args.seed is None else args.seed,
                rate=args.rate,
                scenario=scenario,
                open_orders=args.open_orders,
                accounts=args.accounts,
                ledger=Ledger(sink, keep=False),
            )
            for key in exchange.keys.values():
                key.permissions += TRADING_PERMISSIONS if args.trading else ()
                key.permissions = key.permissions if args.permissions is None else args.permissions
            ready = _as_variables if args.env else _as_configuration if args.config else _as_json
            asyncio.run(_serve(exchange, args.port, tls, ready))
    except ScenarioError as exc:
        sys.stderr.write(f"kraken-feed simulate: {exc}\n")
        return EX_CONFIG
    except OSError as exc:  # the port is taken, a file cannot be opened
        sys.stderr.write(f"kraken-feed simulate: {exc}\n")
        return 1
    return 0


def _quirk(text: str) -> tuple[str, object] | None:
    """Parse a quirk's name and value; None asks for the list."""
    if text in ("list", "help"):
        return None
    try:
        return quirk.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and {MAX_RATE:g} events a second")
    return rate


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _whole(text: str, *, most: int, least: int = 0) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


_port = partial(_whole, most=2**16 - 1)
_orders = partial(_whole, most=MAX_ORDERS)
_accounts = partial(_whole, most=MAX_ACCOUNTS, least=1)


def _permissions(text: str) -> tuple[str, ...]:
    names = tuple(filter(None, text.split(",")))
    for name in names:
        if name not in PERMISSIONS:
            raise argparse.ArgumentTypeError(f'there is no permission "{name}"{quirk.nearest(name, PERMISSIONS)}')
    return names


async def _serve(exchange: Exchange, port: int, tls: ssl.SSLContext | None, ready: Callable[[Server], bytes]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Server(exchange, port=port, tls=tls) as server:
        sys.stdout.buffer.write(ready(server))
        sys.stdout.buffer.flush()
        await stop.wait()


def _ready(server: Server) -> dict[str, object]:
    first = [server.exchange.world.first_key(account) for account in server.exchange.accounts]
    accounts = [{"key": key.key, "secret": key.secret} for key in first]
    return {
        **_urls(server),
        "key": server.exchange.key,
        "secret": server.exchange.secret,
        "pid": os.getpid(),
        **({"accounts": accounts} if len(accounts) > 1 else {}),
    }


def _as_json(server: Server) -> bytes:
    return msgspec.json.encode(_ready(server)) + b"\n"


def _as_variables(server: Server) -> bytes:
    """Return what a shell evaluates to point a client at the exchange."""
    values = {
        "KRAKEN_API_KEY": server.exchange.key,
        "KRAKEN_API_SECRET": server.exchange.secret,
        "KRAKEN_REST": server.rest_url,
        "KRAKEN_WS_V1": server.ws_v1_url,
        "KRAKEN_WS_V2": server.ws_v2_url,
        "KRAKEN_SIMULATE_PID": str(os.getpid()),
    }
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()).encode()


def _as_configuration(server: Server) -> bytes:
    """Return a configuration file. It has no secrets, but commands that print the simulated ones."""
    lines = ["[endpoints]", *(f'{name} = "{url}"' for name, url in _urls(server).items())]
    for number, account in enumerate(server.exchange.accounts, 1):
        key = server.exchange.world.first_key(account)
        lines += ["", f"[accounts.{'main' if number == 1 else f'account{number}'}]"]
        commands = (("key", key.key), ("secret", key.secret))
        lines += [f'{what}_command = ["printf", "%s", "{value}"]' for what, value in commands]
    return "".join(f"{line}\n" for line in lines).encode()


def _urls(server: Server) -> dict[str, str]:
    return {"rest": server.rest_url, "ws_v1": server.ws_v1_url, "ws_v2": server.ws_v2_url}


def _tls(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key)
    except OSError as exc:  # it names neither file; ssl.SSLError is one
        raise OSError(f"--tls {cert} {key}: {exc.strerror or exc}") from exc
    return context


@contextlib.contextmanager
def _sink(path: Path | None) -> Iterator[Sink | None]:
    """Return a function that writes each batch of lines to the file at once."""
    if path is None:
        yield None
        return
    with path.open("wb", buffering=0) as file:
        yield lambda lines: _write(file.fileno(), lines)


def _write(descriptor: int, lines: bytes) -> None:
    while lines:
        lines = lines[os.write(descriptor, lines) :]


def main(argv: list[str] | None = None) -> int:
    """Run the command of `python -m kraken_feed.simulator`, and return the exit code."""
    parser = argparse.ArgumentParser(prog="kraken-feed simulate", description=_DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))
