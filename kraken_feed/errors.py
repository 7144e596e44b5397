"""Define the errors that end something: what happened, why, what to do; whether to try again; the exit code.

``retry`` and ``exit_code`` are decided here, at each class, and nowhere else.
"""

from __future__ import annotations

from typing import ClassVar


class FeedError(Exception):
    """Base of every error that a user can meet.

    Args:
        what: what happened, in words for the person who runs the command.
        why: the reason if it is known; text from the exchange stands here verbatim.
        remedy: what to do about it.
    """

    retry: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.remedy) if line)


class UsageError(FeedError):
    """The command line asks for something that does not exist."""

    exit_code = 2


class ConfigError(FeedError):
    """The configuration, or a source of credentials, is invalid; nothing was sent."""

    exit_code = 78


class CredentialsRefused(FeedError):
    """Kraken does not accept the key, the signature or the one-time password, or a permission is missing."""

    exit_code = 77


class RequestRefused(FeedError):
    """Kraken rejects a request of ours as wrong: a defect of this program, or a change of the protocol."""

    exit_code = 1


class CallRefused(FeedError):
    """Kraken answered a request of order entry with an error; the request, or a part of it, was not carried out."""

    exit_code = 65


class OutcomeUnknown(FeedError):
    """A request that may have changed the account was sent, and it is unknown whether it did."""

    exit_code = 76


class OutputFailed(FeedError):
    """Records cannot be written: a full disk, an I/O error, a reader that does not read."""

    exit_code = 74


class OutputAway(OutputFailed):
    """The output cannot be opened now, but perhaps later: its disk is full, or its file system is read-only or
    missing."""

    retry = True


class ReaderGone(FeedError):
    """The reader of the output has closed it, because it has enough: so the program ends."""

    exit_code = 0


class StateHeld(FeedError):
    """Another process has the account's state."""

    exit_code = 75


class StateFailed(FeedError):
    """The checkpoint cannot be written or read now: a full disk, an I/O error. What was saved before is intact."""

    exit_code = 74


class StateAway(StateFailed):
    """The checkpoint cannot be opened now, but perhaps later."""

    retry = True


class OutageTooLong(FeedError):
    """The feed was not live for longer than ``reconnect.max_outage_s``."""

    exit_code = 69


class Transient(FeedError):
    """A failure that passes by itself: the network, the service's state, a throttle. It ends only a command that runs
    once.

    Args:
        cause: one word of a closed vocabulary, for logs, records and metrics.
        delay: seconds for which trying again is useless or harmful.
        refused: what Kraken refuses, in one word, if it refuses anything: the key, the account, the token.
    """

    retry = True
    exit_code = 69

    def __init__(
        self, what: str, *, cause: str, delay: float = 0.0, why: str = "", remedy: str = "", refused: str = ""
    ) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.cause = cause
        self.delay = delay
        self.refused = refused


class NotUnderstood(Transient):
    """A history answer of REST that this version does not understand. It proves nothing; a later answer may be
    different."""

    def __init__(self, what: str) -> None:
        super().__init__(what, cause="history")
