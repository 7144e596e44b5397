"""Decide whether rows are written instead of JSON, and which are selected. Only rows load :mod:`.row_output`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..state.place import kind_of

if TYPE_CHECKING:
    from ..output.selection import Selection

IN_ROWS = ("connection_lost", "gap")  # events of the diagnostics that rows on the same terminal show


def wanted(fmt: str, fd: int) -> bool:
    """Return whether rows are written to the descriptor."""
    return fmt == "console" or (fmt == "auto" and os.isatty(fd))


def events_in_rows(arguments: argparse.Namespace) -> Collection[str]:
    """Return the events of the diagnostics that need not be logged: rows on the same terminal show them."""
    rows = getattr(arguments, "output", "") == "-" and wanted(arguments.format, 1)
    return IN_ROWS if rows and same_terminal(1, 2) and not arguments.verbose else ()


def choose(arguments: argparse.Namespace, channels: Sequence[str]) -> Selection | None:
    """Return the rows that the command line selects; None for all.

    Raises:
        UsageError: what is written are not rows, or not for a person.
    """
    if not (arguments.pairs or arguments.events):
        return None
    kind = kind_of(arguments.output)
    if kind == "file":
        raise UsageError(
            "--pair and --event narrow rows on a terminal. A file gets every record.",
            remedy="Leave them out, and select when you read the file, for example with jq.",
        )
    if arguments.format != "console" and (arguments.format == "json" or kind != "terminal"):
        raise UsageError(
            "--pair and --event narrow rows, but this output gets every record as JSON.",
            remedy="Add --format console for rows, or leave them out and select with jq.",
        )
    if arguments.count is not None:
        raise UsageError(
            "--count counts all items, also those that --pair and --event hide.", remedy="Leave one of them out."
        )
    if arguments.pairs and set(channels) == {"balances"}:
        raise UsageError("--pair selects orders and trades, but balances has neither.", remedy="Leave it out.")
    from ..output.selection import Selection
    from ..records.pairs import pair_key

    return Selection(frozenset(map(pair_key, arguments.pairs)), frozenset(arguments.events))


def same_terminal(one: int, other: int) -> bool:
    """Return whether two descriptors are the same terminal."""
    return os.isatty(one) and os.isatty(other) and os.fstat(one).st_rdev == os.fstat(other).st_rdev
