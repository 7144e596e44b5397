"""Report what a preflight has found, one result per item, to a person or a program, and work out the exit code."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from ..errors import FeedError
from ..records.render import encode
from ..text import Secrets, printable

Status = Literal["OK", "WARN", "FAIL", "SKIP"]

# The exit code of several failures: first those that no restart fixes, then those of a disk, last temporary ones.
PRECEDENCE = (78, 77, 75, 74, 1, 69)

ITEM_WIDTH = 13  # of the longest, "configuration"
INDENT = 4 + 2 + ITEM_WIDTH + 2
WIDEST = 110  # longer lines are hard to read, however wide the terminal

_COLORS = {"OK": "32", "WARN": "33", "FAIL": "1;31", "SKIP": "2"}


class CheckResult(msgspec.Struct, frozen=True):
    """One item of the check. ``facts`` is for programs; ``exit_code`` is used if the item failed."""

    status: Status
    item: str
    what: str
    why: str = ""
    remedy: str = ""
    account: str | None = None
    channel: str | None = None
    facts: Mapping[str, object] = {}
    exit_code: int = 0

    def about(self, *, account: str | None = None, channel: str | None = None) -> CheckResult:
        """Return the same result for an account or a channel."""
        return msgspec.structs.replace(self, account=account or self.account, channel=channel or self.channel)


def failed(item: str, error: FeedError, *, remedy: str = "", facts: Mapping[str, object] | None = None) -> CheckResult:
    """Return the result for an item that failed, in the error's words. ``remedy`` is used if the error has none."""
    remedy, code = error.remedy or remedy, error.exit_code or FeedError.exit_code
    return CheckResult("FAIL", item, error.what, error.why, remedy, facts=facts or {}, exit_code=code)


def exit_code(results: Iterable[CheckResult]) -> int:
    """Return 0 if nothing failed, else the code of the most important failure, by :data:`PRECEDENCE`."""
    codes = {result.exit_code for result in results if result.status == "FAIL"}
    return next((code for code in PRECEDENCE if code in codes), min(codes, default=0))


@dataclass(eq=False, repr=False)
class Report:
    """Prints each result as soon as it is known, and a summary at the end."""

    say: Callable[[str], object]  # receives one text of one or more lines, without the last line feed
    secrets: Secrets  # the texts that must not be shown
    as_json: bool = False  # print one JSON object per line, instead of lines for people
    colors: bool = False  # whether ``say`` writes to a terminal with colours
    columns: int = 80  # the width of that terminal
    several: bool = False  # whether there is more than one account to tell apart
    results: list[CheckResult] = field(default_factory=list)
    skipped: list[CheckResult] = field(default_factory=list)  # and not printed yet

    def add(self, result: CheckResult) -> None:
        """Print a result. For people, items that were skipped for the same reason share one line."""
        self.results.append(result)
        if self.as_json:
            self.say(self._json(result))
            return
        if self.skipped and not _alike(result, self.skipped[-1]):
            self._say_skipped()
        if result.status == "SKIP":
            self.skipped.append(result)
        else:
            self.say(self._lines(result))

    def end(self) -> int:
        """Print the summary, and return the exit code."""
        code = exit_code(self.results)
        count: Counter[str] = Counter(result.status for result in self.results)
        if self.as_json:
            numbers = {status.lower(): count[status] for status in ("OK", "WARN", "FAIL", "SKIP")}
            self.say(encode({"verdict": _worst(count), **numbers, "exit_code": code}))
        else:
            self._say_skipped()
            status = _worst(count)
            said = self._wrap(_summary(self.results, code), 6)
            self.say(f"\n{self._paint(f'{status:^4}', status)}  {said}")
        return code

    # -- small parts

    def _say_skipped(self) -> None:
        several, self.skipped = self.skipped, []
        if len(several) > 1:
            what = f"{several[0].what}: {', '.join(result.item for result in several)}"
            several = [msgspec.structs.replace(several[0], item=f"{len(several)} items", what=what)]
        for result in several:
            self.say(self._lines(result))

    def _lines(self, result: CheckResult) -> str:
        who = f"{result.account}: " if self.several and result.account else ""
        texts = [(who + result.what, ""), *((line, "") for line in result.why.splitlines())]
        texts += [(line, "> ") for line in result.remedy.splitlines()]
        head = f"{self._paint(f'{result.status:^4}', result.status)}  {result.item:<{ITEM_WIDTH}}  "
        return head + f"\n{'':{INDENT}}".join(self._wrap(self._safe(text), INDENT, arrow) for text, arrow in texts)

    def _wrap(self, text: str, indent: int, arrow: str = "") -> str:
        """Wrap a text into lines of readable width, all but the first indented."""
        width = max(min(self.columns, WIDEST) - indent - len(arrow), 20)
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        return arrow + f"\n{'':{indent + len(arrow)}}".join(lines)

    def _json(self, result: CheckResult) -> str:
        fields = msgspec.structs.asdict(result)
        code = fields.pop("exit_code")
        if not fields["channel"]:
            del fields["channel"]
        return encode({**{key: self._clean(value) for key, value in fields.items()}, "exit_code": code})

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return "\n".join(map(self._safe, value.split("\n")))
        if isinstance(value, Mapping):
            return {str(self._clean(str(key))): self._clean(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._clean(inner) for inner in value]
        return value

    def _safe(self, text: str) -> str:
        return printable(self.secrets.mask_long(text))

    def _paint(self, text: str, status: str) -> str:
        return f"\x1b[{_COLORS[status]}m{text}\x1b[0m" if self.colors else text


def _alike(one: CheckResult, other: CheckResult) -> bool:
    return (one.status, one.what, one.account) == (other.status, other.what, other.account)


def _worst(count: Mapping[str, int]) -> Status:
    """Return FAIL or WARN if any result has it, else OK. Skipped items do not count: what they need has failed."""
    return "FAIL" if count["FAIL"] else "WARN" if count["WARN"] else "OK"


def _summary(results: Sequence[CheckResult], code: int) -> str:
    """Return the summary in words: ``1 failed (key), 2 warnings (clock, key), 3 not checked, 9 OK; exit code 77``."""
    words = {"FAIL": "failed", "WARN": "warning", "SKIP": "not checked", "OK": "OK"}
    parts: list[str] = []
    for status, word in words.items():
        items = [result.item for result in results if result.status == status]
        named = f" ({', '.join(dict.fromkeys(items))})" if status in ("FAIL", "WARN") else ""
        plural = "s" if status == "WARN" and len(items) > 1 else ""
        parts += [f"{len(items)} {word}{plural}{named}"] if items else []
    return f"{', '.join(parts)}; exit code {code}."
