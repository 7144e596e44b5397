"""`kraken-feed simulate`: the exchange on a loopback port until a signal comes."""

import argparse
import asyncio
import contextlib
import os
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.ledger import Ledger, Sink
from kraken_feed.simulator.scenario import Scenario, ScenarioError, load
from kraken_feed.simulator.server import Server

MAX_RATE = 10_000.0  # more than one core can render
EX_CONFIG = 78  # sysexits.h: something was found in an unconfigured or misconfigured state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of the command."""
    parser.add_argument("--scenario", type=Path, metavar="FILE", help="TOML script of faults")
    parser.add_argument("--seed", type=int, metavar="N", help="makes keys, ids and orders repeatable")
    parser.add_argument("--rate", type=_rate, default=2.0, metavar="R", help="events a second (default 2)")
    parser.add_argument("--port", type=_port, default=0, metavar="P", help="port on 127.0.0.1 (default: free)")
    parser.add_argument("--tls", nargs=2, type=Path, metavar=("CERT", "KEY"), help="serve over TLS")
    parser.add_argument("--ledger", type=Path, metavar="PATH", help="write what was published, as JSON lines")
    parser.add_argument("--open-orders", type=int, default=5, metavar="N", help="at the start (default 5)")


def run(args: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    try:
        scenario = Scenario() if args.scenario is None else load(args.scenario)
        tls = None if args.tls is None else _tls(*args.tls)
        with _sink(args.ledger) as sink:
            exchange = Exchange(
                now=time.time(),
                seed=secrets.randbits(32) if args.seed is None else args.seed,
                rate=args.rate,
                scenario=scenario,
                open_orders=args.open_orders,
                ledger=Ledger(sink, keep=False),
            )
            asyncio.run(_serve(exchange, args.port, tls))
    except ScenarioError as exc:
        sys.stderr.write(f"kraken-feed simulate: {exc}\n")
        return EX_CONFIG
    except OSError as exc:  # the port is taken, a file cannot be opened
        sys.stderr.write(f"kraken-feed simulate: {exc}\n")
        return 1
    return 0


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 <= rate <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"between 0 and {MAX_RATE:g} events a second")
    return rate


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port < 2**16:
        raise argparse.ArgumentTypeError("between 0 and 65535")
    return port


async def _serve(exchange: Exchange, port: int, tls: ssl.SSLContext | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Server(exchange, port=port, tls=tls) as server:
        sys.stdout.buffer.write(msgspec.json.encode(_ready(server)) + b"\n")
        sys.stdout.buffer.flush()
        await stop.wait()


def _ready(server: Server) -> dict[str, object]:
    return {
        "rest": server.rest_url,
        "ws_v1": server.ws_v1_url,
        "ws_v2": server.ws_v2_url,
        "key": server.exchange.key,
        "secret": server.exchange.secret,
        "pid": os.getpid(),
    }


def _tls(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@contextlib.contextmanager
def _sink(path: Path | None) -> Iterator[Sink | None]:
    """Writes each batch of lines through to the file."""
    if path is None:
        yield None
        return
    with path.open("wb", buffering=0) as file:
        yield lambda lines: _write(file.fileno(), lines)


def _write(descriptor: int, lines: bytes) -> None:
    while lines:
        lines = lines[os.write(descriptor, lines) :]


def main(argv: list[str] | None = None) -> int:
    """`python -m kraken_feed.simulator`."""
    parser = argparse.ArgumentParser(prog="kraken-feed simulate", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args(argv))
