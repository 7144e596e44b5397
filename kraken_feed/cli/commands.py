"""Run each command of the command line. A command's modules are imported when it runs."""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, OutputFailed, Transient, UsageError
from ..service.signals import INTERRUPTED, end_by_signal
from . import arguments as options
from .arguments import Command
from .stdout import as_utf8, print_line, shown, write_line
from .times import when

if TYPE_CHECKING:
    from ..config.schema import Config
    from ..protocol.signing import Credentials
    from ..text import Secrets
    from ..transport.rest import Token

START_S = 1.0  # by then everything is imported that the first REST request needs
AGAIN = "Try again in a minute. `kraken-feed check` tests each step to Kraken."


def _tail(arguments: argparse.Namespace) -> int:
    from ..config.credentials import find_all
    from ..config.schema import choose_accounts
    from ..output.descriptors import raise_limit
    from ..service.rows import choose
    from ..service.run import serve
    from ..service.systemd import take

    notifier, watchdog = take(os.environ, os.getpid())  # before a command of the configuration's is run
    config = _config(arguments)
    channels = _channels(arguments.channels or config.channels)
    _check_limits(arguments)
    arguments.selection = choose(arguments, channels)
    credentials = find_all(config, choose_accounts(config, arguments.accounts), os.environ, _stderr_logger(arguments))
    raise_limit()  # after the commands that print keys: a child might not expect so many
    return _run(serve(arguments, config, channels, credentials, notifier, watchdog))


def _demo(arguments: argparse.Namespace) -> int:
    from ..config.schema import check_account
    from ..service.rows import choose
    from ..service.run import serve

    config = _config(arguments)
    channels = _channels(arguments.channels or ("openOrders", "ownTrades"))
    arguments.selection = choose(arguments, channels)
    account = arguments.account or "demo"
    check_account(account)
    _check_limits(arguments)

    async def demo() -> str:
        async with _embedded(config) as (embedded, credentials):
            return await serve(arguments, embedded, channels, {account: credentials})

    return _run(demo())


def _check_limits(arguments: argparse.Namespace) -> None:
    """Raise UsageError for options of a tail that exclude each other."""
    if not arguments.once:
        if arguments.timeout:
            raise UsageError("--timeout belongs to --once.", remedy="To end a tail after a time, use --duration.")
        return
    others = {
        "--since": getattr(arguments, "since", None),
        "--count": arguments.count,
        "--duration": arguments.duration,
    }
    for option, value in others.items():
        if value is not None:
            remedy = {"--since": "For an earlier period, use `kraken-feed history --since …`."}.get(
                option, f"Leave {option} out; --timeout limits how long --once may take."
            )
            raise UsageError(f"--once and {option} exclude each other.", remedy=remedy)
    if arguments.snapshots == "none":
        raise UsageError(
            "--once prints the snapshot, and --snapshots none leaves it out.", remedy="Use one of the two."
        )


@contextlib.asynccontextmanager
async def _embedded(config: Config) -> AsyncIterator[tuple[Config, Credentials]]:
    """Run an exchange on loopback for as long as the context lasts. Yield the configuration for it, and its key."""
    from ..config.schema import Endpoints, for_demo
    from ..protocol.signing import Credentials
    from ..simulator.demo import demo_exchange
    from ..simulator.net.server import Server

    async with Server(demo_exchange(time.time())) as server:
        endpoints = Endpoints(rest=server.rest_url, ws_v1=server.ws_v1_url, ws_v2=server.ws_v2_url)
        key = Credentials(server.exchange.key, server.exchange.secret, source="the embedded exchange")
        yield for_demo(config, endpoints), key


def _watch(arguments: argparse.Namespace) -> int:
    from ..config.credentials import find_all
    from ..config.schema import choose_accounts
    from ..output.descriptors import raise_limit
    from ..watch.terminal import check_terminal

    check_terminal(1, os.environ, arguments.channels or ("openOrders",))
    with _extra("rich", "watch"):
        from ..watch import app
    config = _config(arguments)
    channels = app.check(_channels(arguments.channels or app.CHANNELS))

    async def demo() -> str:
        async with _embedded(config) as (embedded, key):
            return await app.watch(arguments, embedded, channels, {"demo": key})

    if arguments.demo:
        return _run(demo())
    credentials = find_all(config, choose_accounts(config, arguments.accounts), os.environ, _stderr_logger(arguments))
    raise_limit()
    return _run(app.watch(arguments, config, channels, credentials))


@contextlib.contextmanager
def _extra(library: str, name: str) -> Iterator[None]:
    """Raise ConfigError if an import inside needs ``library``, and its extra is not installed."""
    if sys.modules.get(library) is None:
        sys.modules.pop(library, None)
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != library:
            raise
        raise ConfigError(
            f"{name} needs {library}, which is not installed.", remedy=f"pip install 'kraken-feed[{name}]'"
        ) from None


def _token(arguments: argparse.Namespace) -> int:
    from ..config.credentials import find
    from ..records.render import encode
    from ..service.run import diagnostics

    config = _config(arguments)
    credentials = find(config, arguments.account or config.account, os.environ, _stderr_logger(arguments))
    diagnostics(arguments, [credentials])

    async def fetch() -> str:
        token = await _fetch_token(config, credentials, arguments.secrets)
        as_json = encode({"token": token.value, "expires": token.expires})
        print_line(shown(as_json if arguments.json else token.value))
        return ""

    return _run(fetch())


async def _fetch_token(config: Config, credentials: Credentials, secrets: Secrets) -> Token:
    import asyncio

    from ..protocol.signing import Nonce
    from ..transport.rest import Rest

    rest = Rest(config.endpoints.rest, credentials, Nonce(), mask=secrets.mask)
    try:
        while True:
            try:
                return await rest.token()
            except Transient as error:
                if error.cause != "refused":
                    error.remedy = error.remedy or AGAIN
                    raise
                await asyncio.sleep(error.delay)  # a refusal may be repeated a few times; then it is final
    finally:
        await rest.close()


def _call(arguments: argparse.Namespace) -> int:
    from ..config.credentials import find
    from ..order_entry.call import Call
    from ..order_entry.request import build
    from ..service.run import diagnostics
    from ..service.signals import handle_signals
    from ..telemetry.stderr import Stderr
    from ..text import MASK

    params = None if arguments.params is None else _read(arguments.params)
    request = build(
        arguments.words, params, time.time_ns() // 1000, time.time(),
        live=arguments.live, unknown=arguments.allow_unknown,
    )  # fmt: skip
    as_utf8()
    # A method that Kraken cannot check is only shown without --live.
    if not arguments.live and not request.method.checks:
        try:
            print_line(shown(request.frame(MASK)))
        except OutputFailed as error:
            error.remedy = f"Nothing was sent. {error.remedy}"
            raise
        if not arguments.quiet:
            Stderr(sys.stderr).info("kraken-feed: nothing was sent. This is what --live would send.")
        return 0
    config = _config(arguments)
    account = arguments.account or config.account
    credentials = find(config, account, os.environ, _stderr_logger(arguments))
    log = diagnostics(arguments, [credentials])

    def say(line: str) -> None:
        write_line(shown(line))

    async def token() -> str:
        return (await _fetch_token(config, credentials, arguments.secrets)).value

    async def call() -> str:
        call = Call(
            request, config, credentials, token=token, say=say, secrets=arguments.secrets,
            timeout=arguments.timeout, log=log, look=_look(arguments),
        )  # fmt: skip
        handle_signals(call)
        return await call.run()

    if stopped := _reason(call()):
        Stderr(sys.stderr).error(f"kraken-feed: nothing was sent: {stopped} came first.")
        if stopped == "SIGINT":
            return INTERRUPTED
        end_by_signal(signal.Signals[stopped])
    if not (request.live or arguments.quiet):
        if request.method.unproven:
            Stderr(sys.stderr).info("kraken-feed: probably only checked: Kraken's answer names no new order.")
        elif arguments.live:
            Stderr(sys.stderr).info("kraken-feed: only checked (validate): the account did not change.")
        else:
            Stderr(sys.stderr).info(
                "kraken-feed: only checked: the account did not change. Add --live to carry out the request."
            )
    return 0


def _look(arguments: argparse.Namespace) -> str:
    """Return the command that shows the open orders and the last trades."""
    import shlex

    chosen = {name: getattr(arguments, name) for name in ("account", "config")}
    options = [f"--{name} {shlex.quote(value)}" for name, value in chosen.items() if value]
    return " ".join(["kraken-feed executions --once", *options])


def _check(arguments: argparse.Namespace) -> int:
    import resource
    import shutil

    from ..check import preflight
    from ..check.report import Report
    from ..config.schema import load
    from ..service.run import diagnostics
    from ..telemetry.loggers import wants_color

    channels = _channels(arguments.channels) if arguments.channels else ()
    diagnostics(arguments, [])
    if arguments.json:
        as_utf8()
    columns, colors = shutil.get_terminal_size((100, 24)).columns, wants_color(1, os.environ)
    report = Report(print_line, arguments.secrets, as_json=arguments.json, colors=colors, columns=columns)
    asked = preflight.Options(
        channels, tuple(arguments.accounts), arguments.output, arguments.state, arguments.no_state
    )
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    max_files = None if hard == resource.RLIM_INFINITY else hard
    surroundings = preflight.Surroundings(os.environ, max_files=max_files)
    codes: list[int] = []

    async def checked() -> str:
        codes.append(
            await preflight.run(
                lambda: load(arguments.config, os.environ), asked, report, arguments.secrets, surroundings
            )
        )
        return ""

    return _run(checked()) or codes[0]


def _history(arguments: argparse.Namespace) -> int:
    from functools import partial

    from ..config.credentials import find
    from ..config.schema import check_account
    from ..query.reader import default_channels
    from .history import history

    config = _config(arguments)
    channels = _channels(arguments.channels or default_channels(config))
    account = arguments.account or config.account
    check_account(account)
    since = partial(when, arguments.since)
    until = None if arguments.until is None else partial(when, arguments.until)
    credentials = find(config, account, os.environ, _stderr_logger(arguments))
    stopped = _reason(history(arguments, config, account, channels, since, until, credentials))
    if stopped not in ("", "SIGINT"):
        end_by_signal(signal.Signals[stopped])
    return INTERRUPTED if stopped else 0


def _simulate(arguments: argparse.Namespace) -> int:
    from ..simulator.main import run

    gc.enable()
    return run(arguments)


def _unit(arguments: argparse.Namespace) -> int:
    from ..service.units import compose

    as_utf8()
    print_line(compose(arguments))
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    from ..records.render import encode
    from ..records.schema import record_schema

    as_utf8()
    print_line(encode(record_schema()))
    return 0


COMMANDS = {
    "tail": Command("tail one or more channels (the default command)", options.tail_options, _tail),
    "check": Command("check everything that a tail needs, and change nothing", options.check_options, _check),
    "call": Command("check an order, or with --live place, change or cancel one", options.call_options, _call),
    "watch": Command(
        "show open orders, latest fills and the feed's state on a terminal", options.watch_options, _watch
    ),
    "history": Command(
        "write what happened in a period, from Kraken's REST history", options.history_options, _history
    ),
    "token": Command("print one WebSocket token on stdout", options.token_options, _token),
    "demo": Command(
        "run the real tail against an embedded exchange: no account, no network", options.demo_options, _demo
    ),
    "simulate": Command("run a simulated Kraken for testing", options.simulate_options, _simulate),
    "unit": Command("print the systemd unit, or another file that it needs", options.unit_options, _unit),
    "schema": Command("print the JSON Schema of a record", lambda parser: None, _schema),
}


def _run(main: Coroutine[Any, Any, str]) -> int:
    """Run a command to its end, and return the exit code."""
    return INTERRUPTED if _reason(main) == "SIGINT" else 0


def _reason(main: Coroutine[Any, Any, str]) -> str:
    """Run a command to its end, and leave its event loop open: closing it would wait for threads that look up names."""
    import asyncio

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.call_later(START_S, _collect)
    return loop.run_until_complete(main)


def _collect() -> None:
    """Collect garbage from now on, but ignore all objects that exist already: they stay."""
    gc.freeze()
    gc.enable()


def _stderr_logger(arguments: argparse.Namespace) -> Callable[..., None]:
    """Return a function that logs what a command of the configuration writes to stderr."""

    def log_stderr(**said: str) -> None:
        from ..service.run import diagnostics

        diagnostics(arguments, []).warning("command_said", **said)

    return log_stderr


def _channels(named: Sequence[str]) -> tuple[str, ...]:
    """Return the channels. The error for an unknown one may suggest a command: a single word may mean one."""
    from ..config.schema import CHANNELS, check_channels

    return check_channels(named, CHANNELS if len(named) > 1 else (*CHANNELS, *COMMANDS))


def _config(arguments: argparse.Namespace) -> Config:
    """Return the configuration of the first file that exists, or the defaults."""
    from ..config.schema import load

    return load(arguments.config, os.environ)[0]


def _read(path: str) -> str:
    """Return the text of a file; ``-`` is stdin.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with open(0 if path == "-" else path, encoding="utf-8", closefd=path != "-") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = f"{error.strerror}." if isinstance(error, OSError) else "It is not UTF-8."
        raise UsageError(f"Cannot read --params {path}.", why=why) from error
