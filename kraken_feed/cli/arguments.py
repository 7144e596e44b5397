"""Parse the command line, and suggest corrections for errors in it."""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, NoReturn

from .. import __version__
from ..errors import UsageError
from ..text import near_miss
from .times import past, seconds, when

DESCRIPTION = """\
Tail an account's private Kraken feeds as JSON lines.

Channels: openOrders, ownTrades (Spot v1), executions, balances (Spot v2).
"""

EXAMPLES = """\
examples:
  kraken-feed demo                              try it: no account, no network
  kraken-feed openOrders                        tail the order events of an account
  kraken-feed openOrders ownTrades | jq .data   two channels, into a pipeline
  kraken-feed executions --output fills.jsonl   append to a file; SIGHUP reopens it
  kraken-feed openOrders --once                 print the open orders and exit
  kraken-feed history --since 2h                what did I trade in the last two hours?
  kraken-feed watch                             open orders and fills on the whole screen; q quits
  kraken-feed token                             print a WebSocket token

`kraken-feed CHANNEL…` is short for `kraken-feed tail CHANNEL…`; `kraken-feed COMMAND --help` shows more.
The API key comes from KRAKEN_API_KEY and KRAKEN_API_SECRET, from files, commands or systemd credentials.
exit codes: 0 done, 1 bug in kraken-feed, 2 usage, 69 not reached, not complete or outage too long,
74 output failed, 75 state in use, 77 credentials refused, 78 configuration invalid, 130 interrupted;
`call` also 65 refused, 76 outcome unknown
"""

CALL = """\
methods, Spot v1: addOrder, editOrder, amendOrder, cancelOrder, cancelAll, cancelAllOrdersAfter
methods, Spot v2: add_order, amend_order, edit_order, cancel_order, cancel_all, cancel_all_orders_after,
                  batch_add, batch_cancel

key=value sends a string or a number, as Kraken requires; key:=JSON sends JSON. Repeat key=value for a list.
If a required parameter is missing, the error lists all parameters of the method.

Without --live, Kraken only checks the order (validate), if the method allows that. Other requests are printed
and not sent. With --live, a request is sent once. It is never repeated.

examples:
  kraken-feed call add_order order_type=limit side=buy symbol=BTC/USD order_qty=0.01 limit_price=61000.0
  kraken-feed call cancel_order order_id=OAAAAA-BBBBB-CCCCC1 order_id=OAAAAA-BBBBB-CCCCC2 --live
  kraken-feed call cancelAllOrdersAfter timeout=60 --live

exit codes: 0 success, or only checked or printed; 65 refused; 76 outcome unknown (the request was sent:
check the result before you send it again); 2, 69, 74, 77 and 78 as for `kraken-feed --help`
"""


HISTORY = """\
It reads from REST, needs no WebSocket permission and no state, and writes the oldest first.
A page of 50 rows takes up to 12 s, because of Kraken's limits.

examples:
  kraken-feed history --since 2h                            what did I trade in the last two hours?
  kraken-feed history ownTrades --since 7d --output fills.csv
  kraken-feed history balances --since 2026-10-01 --until 2026-11-01 --output october.jsonl

exit codes: 0 complete; 69 not complete, or Kraken did not answer: the message says what is missing
"""


class Command(NamedTuple):
    """One command: its text in ``--help``, its options, and the function that runs it and returns the exit code."""

    about: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser with our errors: the nearest valid name, and exit code 2."""

    def error(self, message: str) -> NoReturn:
        end = "" if message[-1:] in ".?" else "."
        raise UsageError(f"{message[:1].upper()}{message[1:]}{end}", remedy=f"Try: {self.prog} --help")


def parse(argv: list[str], known: Mapping[str, Command]) -> argparse.Namespace:
    """Parse the command line. ``run`` of the result is the function of the command.

    Raises:
        UsageError: the arguments are not valid.
    """
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
    argv = _with_command(argv, known)
    chosen: argparse.ArgumentParser = parser
    for name, (about, add_options, function) in known.items():
        command = commands.add_parser(name, help=about, description=_capital(about) + ".", allow_abbrev=False)
        command.set_defaults(run=function)
        if argv[0] == name:
            add_options(command)
            chosen = command
    arguments, unknown = parser.parse_known_args(argv)
    if hasattr(arguments, "words"):  # argparse takes none that follow an option
        arguments.words += [word for word in unknown if not word.startswith("-")]
        unknown = [word for word in unknown if word.startswith("-")]
    if unknown:
        if not unknown[0].startswith("-"):
            raise UsageError(f"Not expected here: {unknown[0]}.", remedy=f"Try: {chosen.prog} --help")
        options = dict.fromkeys(re.findall(r"--[a-z-]+", chosen.format_help()))
        raise UsageError(f"Unknown: {unknown[0]}.", remedy=near_miss(unknown[0].partition("=")[0], options))
    return arguments


def _with_command(argv: list[str], known: Mapping[str, Command]) -> list[str]:
    """Insert the default command: ``kraken-feed openOrders -v`` means ``kraken-feed tail openOrders -v``."""
    if argv and argv[0] in (*known, "-h", "--help", "--version"):
        return argv
    flags = list(itertools.takewhile(lambda word: word in ("-q", "--quiet", "-v", "--verbose"), argv))
    command = argv[len(flags) : len(flags) + 1]
    if flags and command and command[0] in known:
        return [*command, *flags, *argv[len(flags) + 1 :]]
    return ["tail", *argv]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _pair(text: str) -> str:
    """Return a pair with a slash, if it has a separator: other programs write ``BTC-USD``."""
    from ..records.pairs import is_pair

    pair = text.replace("-", "/").replace("_", "/")
    if not is_pair(pair):
        raise argparse.ArgumentTypeError(f"{text!r} is not a pair. Write it with a slash, as in BTC/USD")
    return pair


def _event(text: str) -> str:
    from ..output.selection import KINDS, STATUSES

    if text not in (*KINDS, *STATUSES):
        raise argparse.ArgumentTypeError(f"{text!r} is not an event. {near_miss(text, (*KINDS, *STATUSES))}")
    return text


_positive_int.__name__ = "positive integer"


# ------------------------------------------------------------------------------------------------ options


def common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--account", metavar="NAME", help="the account, as the configuration names it")
    _config_options(parser)


def _accounts_option(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--account", dest="accounts", metavar="NAME", action="append", default=[],
        help="an account, as the configuration names it; may be repeated; `all` means every account",
    )  # fmt: skip


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="PATH", help="the configuration file (TOML)")
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="write only errors to stderr")
    volume.add_argument("-v", "--verbose", action="store_true", help="write more to stderr")
    parser.add_argument(
        "--log-format", choices=("auto", "json", "console"), default="auto",
        help="the format of diagnostics on stderr (auto: console on a terminal, else json)",
    )  # fmt: skip


def output_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(writes_records=True)
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="openOrders, ownTrades, executions, balances")
    parser.add_argument("--output", metavar="PATH", default="-", help="append records to a file; - is stdout (default)")
    parser.add_argument(
        "--format", choices=("auto", "json", "console"), default="auto",
        help="the format of records (auto: rows on a terminal, else json)",
    )  # fmt: skip
    parser.add_argument(
        "--snapshots", choices=("changes", "all", "none"), default="changes",
        help="the items of a snapshot to write (default: those that differ from what was last written)",
    )  # fmt: skip
    _row_options(parser)
    parser.add_argument("--once", action="store_true", help="write every open order (or balance) and exit")
    parser.add_argument(
        "--timeout", type=seconds, metavar="TIME", help="with --once: exit with 69 after this time (default: 30s)"
    )
    parser.add_argument("--count", type=_positive_int, metavar="N", help="exit after N items; markers do not count")
    parser.add_argument(
        "--duration", type=seconds, metavar="TIME", help="exit after this time (90s, 5m, 2h, 7d); with --count: at most"
    )


def _utc_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--utc", action="store_true", help="show the times of rows in UTC (default: in the local zone)")


def _row_options(parser: argparse.ArgumentParser) -> None:
    _utc_option(parser)
    parser.add_argument(
        "--pair", dest="pairs", type=_pair, metavar="PAIR", action="append", default=[],
        help="show only rows of this pair, as in XBT/USD, BTC/USD or XXBTZUSD; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--event", dest="events", type=_event, metavar="EVENT", action="append", default=[],
        help="show only rows of this kind: order, trade, execution, balance, or a status such as open, closed, filled, "
        "canceled; may be repeated",
    )  # fmt: skip


def tail_options(parser: argparse.ArgumentParser) -> None:
    output_options(parser)
    parser.add_argument(
        "--state", metavar="DIRECTORY", help="where the output's checkpoint is kept; a pipe has one only with this"
    )
    parser.add_argument("--no-state", action="store_true", help="keep no checkpoint: every start is like the first one")
    parser.add_argument("--no-backfill", action="store_true", help="do not recover over REST; outages become gaps")
    parser.add_argument(
        "--since", type=when, metavar="WHEN",
        help="at a first start, also recover what happened since: 2h or 7d ago, a date, an RFC 3339 time",
    )  # fmt: skip
    _accounts_option(parser)
    _config_options(parser)


def watch_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "It is a tail of its own and keeps no checkpoint, so it can run beside a service, with an API key of its own."
    )
    whose = parser.add_mutually_exclusive_group()
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="executions (default), openOrders, ownTrades")
    whose.add_argument("--demo", action="store_true", help="an embedded exchange: no account, no network")
    _accounts_option(whose)
    parser.add_argument("--no-backfill", action="store_true", help="do not recover missed events over REST")
    parser.add_argument("--duration", type=seconds, metavar="TIME", help="exit after this time (90s, 5m, 2h, 7d)")
    parser.add_argument("--config", metavar="PATH", help="the configuration file (TOML)")


def check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channels", nargs="*", metavar="CHANNEL", help="openOrders, ownTrades, executions, balances")
    parser.add_argument("--json", action="store_true", help="one JSON object per line: every item, then the verdict")
    parser.add_argument("--output", metavar="PATH", help="the file that records will be appended to")
    parser.add_argument("--state", metavar="DIRECTORY", help="where the checkpoint is kept")
    parser.add_argument("--no-state", action="store_true", help="the tail will keep no checkpoint")
    _accounts_option(parser)
    _config_options(parser)


def history_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = HISTORY
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "channels", nargs="*", metavar="CHANNEL",
        help="openOrders (orders that ended), ownTrades (fills), executions (both), balances (ledger entries)",
    )  # fmt: skip
    parser.add_argument(
        "--since", type=past, required=True, metavar="WHEN",
        help="the beginning: 90s, 5m, 2h, 7d or 1w ago, a date (UTC), or an RFC 3339 time",
    )  # fmt: skip
    parser.add_argument("--until", type=past, metavar="WHEN", help="the end (default: now)")
    parser.add_argument(
        "--output", metavar="PATH", default="-",
        help="append to a file; the same command continues there after an interruption; - is stdout (default)",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("auto", "json", "csv", "console"), default="auto",
        help="the format (auto: rows on a terminal, csv for a file that ends in .csv, else json)",
    )  # fmt: skip
    _utc_option(parser)
    common_options(parser)


def token_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON object, with the seconds until it expires")
    common_options(parser)


def call_options(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = f"{parser.prog} METHOD [key=value…] [key:=JSON…] [options]"
    parser.epilog = CALL
    parser.add_argument("words", nargs="*", metavar="METHOD key=value key:=JSON", help="the method and its parameters")
    parser.add_argument(
        "--live", action="store_true", help="carry out the request; without it the account does not change"
    )
    parser.add_argument("--params", metavar="FILE", help="a file with parameters as a JSON object; - is stdin")
    parser.add_argument(
        "--allow-unknown", action="store_true", help="send parameters and values that this version does not know"
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="TIME", default=10.0,
        help="how long to wait for Kraken's answers (default: 10s)",
    )  # fmt: skip
    common_options(parser)


def demo_options(parser: argparse.ArgumentParser) -> None:
    output_options(parser)
    parser.add_argument("--account", metavar="NAME", help="the account's name on records (default: demo)")
    _config_options(parser)


def simulate_options(parser: argparse.ArgumentParser) -> None:
    from ..simulator.main import add_arguments

    add_arguments(parser)


def unit_options(parser: argparse.ArgumentParser) -> None:
    from ..service.units import add_arguments

    add_arguments(parser)
