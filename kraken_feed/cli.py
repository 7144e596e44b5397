"""The door: arguments, signals, exit codes.

Nothing heavy is imported before the arguments are parsed: ``--help`` and ``--version`` load argparse and little else.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .errors import ConfigError, FeedError, OutputFailed, ReaderGone, Transient, UsageError
from .text import Secrets, near_miss, printable

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from .auth import Credentials
    from .config import Config
    from .feed import Feed
    from .log import FeedLogger
    from .sink import Sink
    from .store import Opened

_INTERRUPTED = 128 + signal.SIGINT

DESCRIPTION = """\
Tail an account's private Kraken feeds as JSON lines.

Channels: openOrders, ownTrades (Spot v1), executions, balances (Spot v2).
"""

EXAMPLES = """\
examples:
  kraken-feed demo                              look at it: no account, no network
  kraken-feed openOrders                        tail the order events of an account
  kraken-feed openOrders ownTrades | jq .data   two channels, into a pipeline
  kraken-feed executions --output fills.jsonl   append to a file; SIGHUP reopens it
  kraken-feed openOrders --once                 print the open orders and exit
  kraken-feed token                             print a WebSocket token

`kraken-feed CHANNEL…` is short for `kraken-feed tail CHANNEL…`; `kraken-feed COMMAND --help` tells more.
The API key comes from KRAKEN_API_KEY and KRAKEN_API_SECRET, from files, commands or systemd credentials.
exit codes: 0 done, 1 a defect, 2 usage, 69 outage too long, 74 output failed, 77 credentials refused,
78 configuration invalid, 130 interrupted
"""


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are ours: with the nearest valid name, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", remedy=f"Try: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The console script: run, and leave with the contract's exit code."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until somebody can answer it
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # until there is something to write out
    stdout_closed = _occupy_standard_descriptors()
    log_format, secrets = "auto", Secrets()
    try:
        arguments = _parse(list(sys.argv[1:] if argv is None else argv))
        log_format = getattr(arguments, "log_format", "auto")
        arguments.secrets = secrets
        if stdout_closed:
            raise OutputFailed("Stdout is closed.", remedy="Redirect it: to a file, a pipe or /dev/null.")
        code = arguments.run(arguments)
    except FeedError as error:
        code = complain(error, log_format, secrets)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception:  # noqa: BLE001  # the door: what nobody foresaw is a defect, and said to be one
        code = complain(_defect(), log_format, secrets)
    if code == _INTERRUPTED:
        _die_of(signal.SIGINT)
    _leave(code)


def _run(main: Coroutine[Any, Any, int]) -> int:
    """Run to the end on a loop that is then left as it is: closing it would wait for threads that look up names."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(main)


def _leave(code: int) -> NoReturn:
    """End the process now, without waiting for such threads either. Records were written to descriptors already."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)


def complain(error: FeedError, log_format: str, secrets: Secrets) -> int:
    """Say on stderr why the process ends, in a few lines or as one JSON object; the exit code.

    A mistake in the command line is answered to the person who typed it, wherever stderr goes.
    """
    from .record import encode
    from .stderr import Stderr

    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    if isinstance(error, ReaderGone):
        return error.exit_code
    if as_json and not isinstance(error, UsageError):
        fields: dict[str, object] = {"level": "error", "event": "exit", "exit_code": error.exit_code}
        said = {"what": error.what, "why": error.why, "remedy": error.remedy}
        text = encode(fields | {name: secrets.mask(value) for name, value in said.items()})
    else:
        lines = [line for part in (error.what, error.why, error.remedy) for line in part.splitlines()]
        text = "\n  ".join(printable(secrets.mask(line)) for line in lines)
        text = f"kraken-feed: {text}"
    Stderr(sys.stderr).msg(text)
    return error.exit_code


def _defect() -> FeedError:
    """The error for an exception that nobody foresaw. Its traceback shows code, no values."""
    return FeedError(
        "This is a defect of kraken-feed.",
        why=traceback.format_exc(chain=True),
        remedy="Please report it, with the lines above and the version.",
    )


def _occupy_standard_descriptors() -> bool:
    """Open /dev/null where the shell closed 0, 1 or 2, lest a socket of ours gets the number and records go there.
    Whether stdout was one of them."""
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))
    if 2 in closed:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # for the life of the process
    return 1 in closed


def _die_of(number: int) -> NoReturn:
    """End as the signal would have ended us, so that shells and supervisors see it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    sys.exit(128 + number)  # if the signal is blocked


# ------------------------------------------------------------------------------------------------ arguments


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(
        prog="kraken-feed",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        usage="kraken-feed [COMMAND] [CHANNEL…] [options]",
    )
    parser.add_argument("--version", action="version", version=f"kraken-feed {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", prog=parser.prog, required=True, parser_class=_Parser
    )
    argv = _with_command(argv)
    chosen: argparse.ArgumentParser = parser
    for name, (about, add_options, function) in _COMMANDS.items():
        command = commands.add_parser(name, help=about, description=_capital(about) + ".", allow_abbrev=False)
        command.set_defaults(run=function)
        if argv[0] == name:
            add_options(command)
            chosen = command
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        if not unknown[0].startswith("-"):
            raise UsageError(f"Not expected here: {unknown[0]}.", remedy=f"Try: {chosen.prog} --help")
        options = dict.fromkeys(re.findall(r"--[a-z-]+", chosen.format_help()))
        raise UsageError(f"Unknown: {unknown[0]}.", remedy=near_miss(unknown[0].partition("=")[0], options))
    return arguments


def _with_command(argv: list[str]) -> list[str]:
    """``kraken-feed openOrders -v`` is short for ``kraken-feed tail openOrders -v``."""
    if argv and argv[0] in (*_COMMANDS, "-h", "--help", "--version"):
        return argv
    flags = list(itertools.takewhile(lambda word: word in ("-q", "--quiet", "-v", "--verbose"), argv))
    command = argv[len(flags) : len(flags) + 1]
    if flags and command and command[0] in _COMMANDS:
        return [*command, *flags, *argv[len(flags) + 1 :]]
    return ["tail", *argv]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _positive_seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _moment(text: str) -> int:
    """Unix nanoseconds of a time that many ago (``90s``, ``2h``) or of an RFC 3339 time with its zone."""
    ago = re.fullmatch(r"(\d{1,9})([smhd])", text)
    if ago:
        return time.time_ns() - int(ago[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]] * 1_000_000_000
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError
    return int(moment.timestamp() * 1_000_000_000)


_moment.__name__ = "time (2h, 30m, 7d, 2026-01-31T08:00:00Z)"
_positive_int.__name__ = "positive integer"
_positive_seconds.__name__ = "number of seconds"


def _common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="PATH", help="the configuration file (TOML)")
    parser.add_argument("--account", metavar="NAME", help="the account, as the configuration names it")
    _log_options(parser)


def _log_options(parser: argparse.ArgumentParser) -> None:
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="only errors on stderr")
    volume.add_argument("-v", "--verbose", action="store_true", help="more on stderr")
    parser.add_argument(
        "--log-format", choices=("auto", "json", "console"), default="auto",
        help="how diagnostics look on stderr (auto: console on a terminal, else json)",
    )  # fmt: skip


def _output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="openOrders, ownTrades, executions, balances")
    parser.add_argument("--output", metavar="PATH", default="-", help="append records to a file; - is stdout (default)")
    parser.add_argument(
        "--format", choices=("auto", "json", "console"), default="auto",
        help="how records look (auto: rows on a terminal, else json)",
    )  # fmt: skip
    parser.add_argument(
        "--snapshots", choices=("changes", "all", "none"), default="changes",
        help="which items of a snapshot are written (default: those that differ from what was last written)",
    )  # fmt: skip
    parser.add_argument("--once", action="store_true", help="write the snapshot and exit")
    parser.add_argument("--count", type=_positive_int, metavar="N", help="exit after N items; markers do not count")
    parser.add_argument("--duration", type=_positive_seconds, metavar="SECONDS", help="exit after so long")


def _tail_options(parser: argparse.ArgumentParser) -> None:
    _output_options(parser)
    parser.add_argument("--state", metavar="DIRECTORY", help="where the checkpoint is kept")
    parser.add_argument("--no-state", action="store_true", help="keep no checkpoint: every start is the first")
    parser.add_argument("--no-backfill", action="store_true", help="ask REST for nothing; holes are declared as gaps")
    parser.add_argument(
        "--since", type=_moment, metavar="WHEN",
        help="recover what happened from then on, if the state does not know better: 2h, 30m, 7d, or RFC 3339",
    )  # fmt: skip
    _common_options(parser)


def _token_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as a JSON object, with the seconds until it expires")
    _common_options(parser)


def _demo_options(parser: argparse.ArgumentParser) -> None:
    _output_options(parser)
    _common_options(parser)


def _simulate_options(parser: argparse.ArgumentParser) -> None:
    from .simulator.main import add_arguments

    add_arguments(parser)


def _no_options(parser: argparse.ArgumentParser) -> None:
    pass


# ------------------------------------------------------------------------------------------------ commands


def _tail(arguments: argparse.Namespace) -> int:
    from .config import check_account
    from .credentials import find

    config = _config(arguments)
    channels = _channels(arguments.channels or config.channels)
    account = arguments.account or config.account
    check_account(account)
    credentials = find(config, account, os.environ)
    return _run(_feed(arguments, config, account, channels, credentials))


def _demo(arguments: argparse.Namespace) -> int:
    from .auth import Credentials
    from .config import Endpoints, check_account, for_demo
    from .simulator.demo import demo_exchange
    from .simulator.server import Server

    config = _config(arguments)
    channels = _channels(arguments.channels or ("openOrders", "ownTrades"))
    account = arguments.account or "demo"
    check_account(account)

    async def demo() -> int:
        async with Server(demo_exchange(time.time())) as server:
            endpoints = Endpoints(rest=server.rest_url, ws_v1=server.ws_v1_url, ws_v2=server.ws_v2_url)
            credentials = Credentials(server.exchange.key, server.exchange.secret, source="the embedded exchange")
            return await _feed(arguments, for_demo(config, endpoints), account, channels, credentials)

    return _run(demo())


def _token(arguments: argparse.Namespace) -> int:
    from .auth import Nonce
    from .credentials import find
    from .record import encode
    from .rest import Rest

    config = _config(arguments)
    credentials = find(config, arguments.account or config.account, os.environ)
    _diagnostics(arguments, credentials)

    async def fetch() -> int:
        rest = Rest(config.endpoints.rest, credentials, Nonce())
        try:
            token = await rest.token()
        except Transient as error:
            if error.cause != "refused":
                raise
            await asyncio.sleep(error.delay)  # the one slow retry that a refusal may have; the next one is final
            token = await rest.token()
        finally:
            await rest.close()
        return _print(encode({"token": token.value, "expires": token.expires}) if arguments.json else token.value)

    return _run(fetch())


def _simulate(arguments: argparse.Namespace) -> int:
    from .simulator.main import run

    return run(arguments)


def _schema(arguments: argparse.Namespace) -> int:
    from .record import encode
    from .schema import record_schema

    return _print(encode(record_schema()))


# Name, what --help says, its options, what it does.
_COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "tail": ("tail one or more channels (the word itself may be left out)", _tail_options, _tail),
    "token": ("print one WebSocket token on stdout", _token_options, _token),
    "demo": ("the real tail against an embedded exchange: no account, no network", _demo_options, _demo),
    "simulate": ("only the exchange, for other clients", _simulate_options, _simulate),
    "schema": ("print the JSON Schema of a record", _no_options, _schema),
}


def _channels(named: Sequence[str]) -> tuple[str, ...]:
    """The channels; a word that is none may have been meant for a command."""
    from .config import CHANNELS, check_channels

    return check_channels(named, CHANNELS if len(named) > 1 else (*CHANNELS, *_COMMANDS))


def _config(arguments: argparse.Namespace) -> Config:
    """The first configuration file there is, or the defaults."""
    from .config import Config, candidates, parse

    for path, required in candidates(os.environ, arguments.config):
        try:
            with open(path, "rb") as file:
                return parse(file.read(), path)
        except OSError as error:
            if required or not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise ConfigError(f"Cannot read the configuration {path}.", why=f"{error.strerror}.") from error
    return Config()


def _print(line: str) -> int:
    """A line on stdout, or the reason why not."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what Python still holds would fail once more at exit
        if isinstance(error, BrokenPipeError):
            raise ReaderGone("The reader of stdout has closed it.") from None
        raise OutputFailed("Cannot write to stdout.", why=f"{error.strerror}.") from error
    return 0


# ------------------------------------------------------------------------------------------------ the feed's process


async def _feed(
    arguments: argparse.Namespace, config: Config, account: str, channels: Sequence[str], credentials: Credentials
) -> int:
    """Run a feed until a signal, a limit or an error ends it; the exit code."""
    from .config import without_backfill
    from .feed import Feed, Limits

    log = _diagnostics(arguments, credentials)
    opened = _state(arguments, config, account, log)
    if getattr(arguments, "no_backfill", False):
        config = without_backfill(config)
    sink, feed_log = _output(arguments, lambda error: feed.fail(error))
    feed = Feed(
        config,
        account,
        channels,
        credentials,
        sink=sink,
        feed_log=feed_log,
        log=log,
        secrets=arguments.secrets,
        limits=Limits(arguments.once, arguments.count, arguments.duration),
        snapshots=arguments.snapshots,
        since_ns=getattr(arguments, "since", None),
        store=opened.store if opened else None,
        checkpoint=opened.checkpoint if opened else None,
        damaged=opened is not None and opened.set_aside is not None,
    )
    _obey_signals(feed, sink, log)
    reason = await feed.run()
    sink.close()
    return _INTERRUPTED if reason == "SIGINT" else 0


def _state(arguments: argparse.Namespace, config: Config, account: str, log: FilteringBoundLogger) -> Opened | None:
    """The account's state, unless none is wanted; the demo's exchange lives no longer than the demo."""
    from .store import Store

    if getattr(arguments, "no_state", True):
        return None
    directory = arguments.state or config.state.directory or state_directory(os.environ)
    opened = Store.open(os.path.expanduser(directory), account, time.time_ns())
    if opened.set_aside is not None:
        log.error("state_damaged", kept_as=opened.set_aside, what="what was missed since the last run is not known")
    return opened


def state_directory(environ: Mapping[str, str]) -> str:
    """Where the state is if nobody says: systemd's directory, or the user's."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].partition(":")[0]
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/var/lib"), ".local", "state")
    return os.path.join(home, "kraken-feed")


def _output(arguments: argparse.Namespace, failed: Callable[[FeedError], None]) -> tuple[Sink, FeedLogger]:
    """Where records go, and the logger that brings them there in the format that fits."""
    from .console import Rows
    from .log import feed_logger, wants_color
    from .sink import Sink, open_output

    path = None if arguments.output == "-" else arguments.output
    fd = 1 if path is None else open_output(path)
    sink = Sink(fd, "stdout" if path is None else path, failed, path)
    if arguments.format == "console" or (arguments.format == "auto" and os.isatty(fd)):
        return sink, feed_logger(
            sink, Rows(colors=wants_color(fd, os.environ), columns=shutil.get_terminal_size((160, 24)).columns)
        )
    return sink, feed_logger(sink)


def _diagnostics(arguments: argparse.Namespace, credentials: Credentials) -> FilteringBoundLogger:
    """The logger for stderr, which masks what must not leave the process."""
    from .log import Level, diagnostics_logger, wants_color

    arguments.secrets.add(*credentials.secrets())
    fmt = arguments.log_format
    if fmt == "auto":
        fmt = "console" if sys.stderr.isatty() else "json"
    watched = os.isatty(1) and os.isatty(2)  # the rows on the same terminal say already what is live and what is lost
    level: Level = "error" if arguments.quiet else "debug" if arguments.verbose else "warning" if watched else "info"
    return diagnostics_logger(arguments.secrets, level=level, fmt=fmt, colors=wants_color(2, os.environ))


def _obey_signals(feed: Feed, sink: Sink, log: FilteringBoundLogger) -> None:
    """SIGTERM and SIGINT stop, a second one at once; SIGHUP reopens the output; SIGUSR1 tells the state."""
    from .record import encode
    from .stderr import Stderr

    loop = asyncio.get_running_loop()
    stderr = Stderr(sys.stderr)
    terminal = os.isatty(1)  # asked now: once it is gone nobody can tell any more
    asked: list[int] = []

    def stop(number: int) -> None:
        if asked:
            _die_of(number)
        asked.append(number)
        log.info("stopping", signal=signal.Signals(number).name)
        feed.stop(signal.Signals(number).name)

    def reopen() -> None:
        if sink.path is not None:
            try:
                sink.reopen()
            except OutputFailed as error:
                log.error("output_not_reopened", path=sink.path, reason=error.why)
            else:
                log.info("output_reopened", path=sink.path)
        elif terminal:
            stop(signal.SIGHUP)  # the terminal has gone
        else:
            log.info("nothing_to_reopen", output=sink.name)

    def tell() -> None:
        stderr.msg(encode({"event": "state", **feed.state()}))

    loop.add_signal_handler(signal.SIGTERM, stop, signal.SIGTERM)
    loop.add_signal_handler(signal.SIGINT, stop, signal.SIGINT)
    loop.add_signal_handler(signal.SIGUSR1, tell)
    if sink.path is not None or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means it
        loop.add_signal_handler(signal.SIGHUP, reopen)
