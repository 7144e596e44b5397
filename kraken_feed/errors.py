"""Define the errors that end a command, an account or an attempt: what happened, why, what to do; whether to try again;
the exit code.

``retry`` and ``exit_code`` are decided in these classes and nowhere else. docs/errors.md is generated from the first
paragraph of each docstring, ``retry``, ``exit_code`` and ``first_step``.
"""

from __future__ import annotations

from typing import ClassVar


class FeedError(Exception):
    """A bug in kraken-feed. It is also the base of every other error that a user can meet.

    ``first_step`` is what to do first about any error of the class, in Markdown; ``remedy`` is about this one.

    Args:
        what: what happened, for the person who runs the command.
        why: the reason if it is known. Kraken's own text is quoted here.
        remedy: what to do about it.
    """

    retry: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1
    first_step: ClassVar[str] = "report it with the traceback and `--version`; a restart may help"

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.remedy) if line)


class UsageError(FeedError):
    """The command line names something that does not exist, or has options that exclude each other."""

    exit_code = 2
    first_step = "correct the option or the word that the message names; `--help` lists them"


class ConfigError(FeedError):
    """The configuration, the environment or a source of credentials is wrong. Nothing was sent to Kraken."""

    exit_code = 78
    first_step = (
        "correct what the message names; `config.example.toml` has every setting with its default. For credentials, "
        "see [where they come from](configuration.md)"
    )


class CredentialsRefused(FeedError):
    """Kraken refuses the key, its signature, its one-time password or the account, or a permission is missing. If
    the key has worked before, a tail tries again for six hours (`reconnect.refused_s`) before it ends."""

    exit_code = 77
    first_step = (
        "run `kraken-feed check`: it checks the key, its permissions, its expiry and its addresses. See [What Kraken "
        "says](#what-kraken-says)"
    )


class RequestRefused(FeedError):
    """Kraken calls a request malformed: a bug in kraken-feed, or Kraken's protocol has changed."""

    first_step = "look at `[endpoints]`, then for a newer version. See [What Kraken says](#what-kraken-says)"


class CallRefused(FeedError):
    """`call`: Kraken refused the request, or a part of it."""

    exit_code = 65
    first_step = (
        "read Kraken's reason and its meaning in the message. The request is not tried again. See [What Kraken "
        "says](#what-kraken-says)"
    )


class OutcomeUnknown(FeedError):
    """`call`: the request was sent, but its outcome is unknown."""

    exit_code = 76
    first_step = "run the command that the message shows before you send anything again"


class OutputFailed(FeedError):
    """Records cannot be written: a full disk, an I/O error, a removed file, a stalled reader, or a FIFO or socket whose
    reader has gone."""

    exit_code = 74
    first_step = (
        "free space, repair the disk or start the reader, then start again: what is missing is recovered from the "
        "last checkpoint. After `call`: do not send the request again, unless the message says that nothing was sent"
    )


class OutputUnavailable(OutputFailed):
    """The output cannot be opened now: its disk is full, or its file system is read-only or missing. A start waits for
    it, for `[output] patience_s`."""

    retry = True
    first_step = "mount the file system or free space, or give another `--output`"


class ReaderGone(FeedError):
    """The reader of an unnamed pipe has closed it (`| head`). It needs no more records, so the command ends."""

    exit_code = 0
    first_step = "nothing, unless the reader should still be running"


class OutputHeld(FeedError):
    """`history`: another process is writing the same file of `--output`."""

    exit_code = 75
    first_step = "wait until it has ended, or give another `--output`"


class StateHeld(FeedError):
    """Another process holds the state: a tail of this account already writes to this output. The message names its
    pid."""

    exit_code = 75
    first_step = "stop one of the two, or give this one another `--output`"


class StateFailed(FeedError):
    """The checkpoint cannot be written or read: a full disk, an I/O error. What was saved before is intact."""

    exit_code = 74
    first_step = "free space or repair the disk, then start again; or use `--state` elsewhere, or `--no-state`"


class StateUnavailable(StateFailed):
    """The checkpoint cannot be opened now, and may be later. A start waits for it, for `[output] patience_s`."""

    retry = True
    first_step = "mount the file system or free space"


class OutageTooLong(FeedError):
    """Not live for longer than `reconnect.max_outage_s`."""

    exit_code = 69
    first_step = "`kraken-feed check`; the message says what failed last. If Kraken is down, a restart waits again"


class NotInTime(FeedError):
    """`--once` could not show the snapshot within `--timeout`, or `--count` was not reached within `--duration`."""

    exit_code = 69
    first_step = "the message says what was missing. Try again, with more time; `kraken-feed check` tests each step"


class HistoryIncomplete(FeedError):
    """`history`: the answer is not complete, or not proven to be. What was found is written."""

    exit_code = 69
    first_step = "do what the message says; usually to run it again in a quarter of an hour"


class Transient(FeedError):
    """The network, Kraken's service or a throttle prevents an answer now. A tail logs it (`connection_failed`,
    `backfill_postponed`) and tries again; `token`, `check` and `call` end with it, `history` after five minutes.

    Args:
        cause: one of a fixed list of words, for logs, records and metrics.
        delay: seconds to wait before the next attempt, which would be useless or harmful earlier.
        refused: what Kraken refuses, in one word, if anything: the key, the account, the token.
    """

    retry = True
    exit_code = 69
    first_step = (
        "try again; `kraken-feed check` names the step that fails. With HTTP 429 or 403, wait ten minutes, and find "
        "out what else uses the key or the address. With `call`, nothing was sent, or only a check"
    )

    def __init__(
        self, what: str, *, cause: str, delay: float = 0.0, why: str = "", remedy: str = "", refused: str = ""
    ) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.cause = cause
        self.delay = delay
        self.refused = refused


class NotUnderstood(Transient):
    """A REST answer about the history is malformed, or has a form that this version does not know."""

    first_step = "nothing for a quarter of an hour: the tail tries again. Then look for a newer version"

    def __init__(self, what: str) -> None:
        super().__init__(what, cause="history")
