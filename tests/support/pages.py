"""The parts of docs/ that are generated from tables in the code: between ``<!-- generated: NAME -->`` and
``<!-- end -->``.

``make docs`` runs this module, which rewrites them. tests/unit/test_pages.py fails if one is stale.
"""

from __future__ import annotations

import inspect
import re
import signal
from collections.abc import Callable, Iterable

from kraken_feed import errors
from kraken_feed.config.schema import CHANNELS
from kraken_feed.errors import CallRefused, FeedError, OutcomeUnknown
from kraken_feed.feed.gap_reasons import GapReason
from kraken_feed.protocol import refusals
from kraken_feed.protocol.permissions import CREATE_TOKEN, NEEDED, NEEDED_TO_RECOVER, READING
from kraken_feed.protocol.refusals import LOCKOUT_S, SERVICE_S, Refusal
from kraken_feed.service import units
from kraken_feed.service.metrics import FAMILIES, WRITE, WRITE_SAYS
from kraken_feed.service.signals import INTERRUPTED
from kraken_feed.telemetry.causes import LOSS_CAUSES, OUTAGE_CAUSES, STOP_REASONS, Meaning
from kraken_feed.telemetry.events import EVENTS
from kraken_feed.telemetry.stats import CAUSES, RESULTS

from .repository import ROOT

FILLED_IN = "…"
COMMAND = "make docs"
ERRORS = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, FeedError)]
OF_CALL = {CallRefused.exit_code, OutcomeUnknown.exit_code}  # which no service runs
ENDS = {  # without an error: exit code, when
    0: "SIGTERM (`call`, `check` and `history`: 143, if their work is not done); `--once`, `--count` or `--duration` "
    "is met",
    INTERRUPTED: "SIGINT",
    128 + signal.SIGTERM: "SIGTERM, before `call` has sent its request, or before `check` or `history` is done",
}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table in Markdown."""
    columns = tuple(head)
    lines = [_row(columns), "|---" * len(columns) + "|", *map(_row, rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(map(_code, texts))


# ------------------------------------------------------------------------------------------------ errors.md


def exit_codes() -> str:
    """Return the table of errors, and of the ends without one, by exit code."""
    head = ("Exit", "Error class", "What it means", "What to do first", "Tried again", "systemd restarts it")
    rows = [(code, "–", when, "nothing", "–") for code, when in ENDS.items()]
    for cls in ERRORS:
        means = " ".join(inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0].split()).rstrip(".")
        rows.append((cls.exit_code, _code(cls.__name__), means, cls.first_step, "yes" if cls.retry else "no"))
    rows.sort(key=lambda row: row[0])
    escaped = ([cell.replace("|", r"\|") for cell in map(str, row)] for row in rows)
    return table(head, ([*row, _restarted(int(row[0]))] for row in escaped))


def _restarted(code: int) -> str:
    if code in {*ENDS, *OF_CALL}:
        return "–"
    (prevented,) = re.findall(r"^RestartPreventExitStatus=(.*)$", units.text("service", "/kraken-feed"), re.M)
    return "no" if str(code) in prevented.split() else "yes"


def events() -> str:
    """Return the table of the diagnostics."""
    rows = ((_code(name), ", ".join(event.levels), event.means, event.first) for name, event in EVENTS.items())
    return table(("Event", "Level", "What it means", "What to do first"), rows)


def loss_causes() -> str:
    """Return the causes of ``feed.lost``."""
    return _meanings(LOSS_CAUSES)


def outage_causes() -> str:
    """Return the causes of outages without a ``feed.lost``."""
    return _meanings(OUTAGE_CAUSES)


def _meanings(causes: dict[str, Meaning]) -> str:
    rows = ((_code(name), cause.means, cause.first) for name, cause in causes.items())
    return table(("Cause", "What it means", "What to do first"), rows)


def gap_reasons() -> str:
    """Return the reasons of ``feed.gap``."""
    rows = ((_code(reason.text.replace("{}", FILLED_IN)), reason.means, reason.first) for reason in GapReason)
    return table(("Reason", "What it means", "What to do first"), rows)


def stop_reasons() -> str:
    """Return the reasons of ``feed.stopped``."""
    return table(("Reason", "What it means"), ((_code(name), means) for name, means in STOP_REASONS.items()))


def kraken_errors() -> str:
    """Return Kraken's error strings, with what the program makes of them."""
    known = {**refusals._TABLE, f"E{FILLED_IN}:{FILLED_IN}": refusals._UNKNOWN_CODE}
    known[FILLED_IN] = refusals._UNKNOWN_TEXT
    rows = ((_code(text), refusal.meaning, _does(text, refusal)) for text, refusal in known.items())
    return table(("Kraken says", "It means", "What the program does"), rows)


OF_CALLS = ("EOrder:", "EBM:", "EService:Deadline elapsed")  # answers that only `call` can get


def _does(text: str, refusal: Refusal) -> str:
    wait, code = f"{refusal.delay:g} s", refusal.error.exit_code
    if text == "EService:Throttled":
        return f"makes no call until the time that Kraken names ({SERVICE_S:g} s to {LOCKOUT_S:g} s), then tries again"
    if refusal == refusals.NONCE:
        return f"raises its next nonce and tries again, a few times within a minute, then ends ({code})"
    if refusal.kind in ("throttled", "locked_out"):
        return f"makes no call for {wait}, then tries again"
    if refusal.attempts is None:
        return f"tries again after {wait} or more" if refusal.delay else "tries again"
    if text.startswith(OF_CALLS):
        return f"`call` ends ({CallRefused.exit_code})"
    if refusal.attempts == 1:
        return f"ends ({code})"
    assert refusal.attempts == 2
    return f"tries again once, after {wait} or more, then ends ({code})"


# ------------------------------------------------------------------------------------------------ metrics.md


def labels() -> str:
    """Return the labels whose values are a closed list."""
    return table(("Label", "Values"), ((_code("cause"), _codes(CAUSES)), (_code("result"), _codes(RESULTS))))


def metrics() -> str:
    """Return the table of the metrics."""
    rows: list[tuple[str, str, tuple[str, ...], str]]
    rows = [(family.name, family.kind, family.labels, family.says) for family in FAMILIES]
    rows.append((WRITE, "histogram", (), WRITE_SAYS))
    cells = ((_code(f"kraken_feed_{name}"), kind, _codes(of), says) for name, kind, of, says in rows)
    return table(("Metric", "Type", "Labels", "Meaning"), cells)


# ------------------------------------------------------------------------------------------------ channels.md


def permissions() -> str:
    """Return which permission each channel needs."""
    rows = []
    for permission, (name, *older) in READING.items():
        spelling = f'"{name}"' + "".join(f' (older: "{text}")' for text in older)
        rows.append([spelling, _code(permission), *(_needed(permission, channel) for channel in CHANNELS)])
    return table(("Permission in Kraken's settings", "In the API", *map(_code, CHANNELS)), rows)


def _needed(permission: str, channel: str) -> str:
    if permission in (CREATE_TOKEN, *NEEDED[channel]):
        return "needed"
    return "to recover" if permission == NEEDED_TO_RECOVER[channel] else ""


# ------------------------------------------------------------------------------------------------ pages

PARTS: dict[str, tuple[Callable[[], str], ...]] = {
    "channels.md": (permissions,),
    "errors.md": (exit_codes, events, loss_causes, outage_causes, gap_reasons, stop_reasons, kraken_errors),
    "metrics.md": (labels, metrics),
}


def current(page: str) -> str:
    """Return the page as it is."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def fresh(page: str) -> str:
    """Return the page with its generated parts from the code."""
    text = current(page)
    for part in PARTS[page]:
        begin, end = f"<!-- generated: {part.__name__} -->", "<!-- end -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"docs/{page} lacks {begin} or its {end}.")
        text = f"{before}{begin}\n\n{part()}\n\n{end}{after}"
    return text


def main() -> None:
    """Rewrite every page that has generated parts."""
    for page in PARTS:
        (ROOT / "docs" / page).write_text(fresh(page), encoding="utf-8")


if __name__ == "__main__":
    main()
