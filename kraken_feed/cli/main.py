"""Run the command: arguments, signals, exit codes.

Nothing heavy is imported before the arguments are parsed: ``--help`` loads argparse and little else, and ``--version``
not even that.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from .. import __version__, early
from ..errors import FeedError, OutputFailed, ReaderGone, UsageError
from ..service.signals import INTERRUPTED, end_by_signal
from ..text import Secrets, printable, trace
from .stdout import STDOUT, print_line, replace_unencodable

if TYPE_CHECKING:
    import argparse


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the console script, and exit with one of the exit codes in docs/commands.md."""
    words = list(sys.argv[1:] if argv is None else argv)
    early.receive(words)
    stdout_closed = _occupy_standard_descriptors()
    replace_unencodable()
    sys.modules.setdefault("rich", cast("Any", None))  # structlog would load it for tracebacks: half of its start
    log_format, secrets = "auto", Secrets()
    gc.disable()  # during the imports, whose objects stay: to collect them takes a tenth of the start
    try:
        if early.command(words) not in early.UNDONE:
            # In those, an unexpected exception can end as another one: anyio's, in the middle of a connect.
            early.interruptible()
        if words == ["--version"] and not stdout_closed:
            print_line(f"kraken-feed {__version__}")
            _leave(0)
        arguments = _parse(words)
        log_format = getattr(arguments, "log_format", "auto")
        arguments.secrets = secrets
        output = arguments.output if getattr(arguments, "writes_records", False) else None
        reopens = output not in (None, *STDOUT)
        early.expect_hangups(output is not None and (reopens or not os.isatty(1)), reopens=reopens)
        if stdout_closed and not reopens:
            sent = "Nothing was sent. " if early.command(words) == "call" else ""
            raise OutputFailed("Stdout is closed.", remedy=f"{sent}Redirect it to a file, a pipe or /dev/null.")
        code = arguments.run(arguments)
    except FeedError as error:
        code = complain(error, log_format, secrets)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001  # the entry point: an unexpected exception is reported as a defect
        code = complain(_defect(error, secrets), log_format, secrets)
    if code == INTERRUPTED:
        end_by_signal(signal.SIGINT)
    _leave(code)


def _parse(words: list[str]) -> argparse.Namespace:
    from .arguments import parse
    from .commands import COMMANDS

    return parse(words, COMMANDS)


def _leave(code: int) -> NoReturn:
    """End the process now, without waiting for threads. Records were written to descriptors already."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):
            stream.flush()
    os._exit(code)


def complain(error: FeedError, log_format: str, secrets: Secrets) -> int:
    """Write to stderr why the process ends, in a few lines or as one JSON object, and return the exit code.

    An error in the command line is shown as text, wherever stderr goes: a person typed it.
    """
    from ..telemetry.stderr import Stderr, json_line

    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    if isinstance(error, ReaderGone):
        return error.exit_code
    if as_json and not isinstance(error, UsageError):
        fields: dict[str, object] = {"level": "error", "event": "exit", "exit_code": error.exit_code}
        said = {"what": error.what, "why": error.why, "remedy": error.remedy}
        text = json_line(sys.stderr, fields | {name: secrets.mask_long(value) for name, value in said.items()})
    else:
        lines = [line for part in (error.what, error.why, error.remedy) for line in part.splitlines()]
        text = "\n  ".join(printable(secrets.mask_long(line)) for line in lines)
        text = f"kraken-feed: {text}"
    Stderr(sys.stderr).error(text)
    return error.exit_code


def _defect(error: Exception, secrets: Secrets) -> FeedError:
    """Return the error for an unexpected exception. Its traceback shows code, but no values."""
    return FeedError(
        "This is a bug in kraken-feed.",
        why=trace(error, secrets.mask),
        remedy="Please report it with the lines above and the version (kraken-feed --version).",
    )


def _occupy_standard_descriptors() -> bool:
    """Open /dev/null for each of 0, 1 and 2 that the shell closed. Otherwise a socket of ours could get the number, and
    records would go there. Return whether stdout was closed."""
    closed = []
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            closed.append(os.open(os.devnull, os.O_RDWR))
    if 2 in closed:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  # for the life of the process
    return 1 in closed
