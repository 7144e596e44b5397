"""What ends the process, whether to try again, and the exit code that a supervisor sees."""

from __future__ import annotations

from kraken_feed.errors import (
    CallRefused,
    ConfigError,
    CredentialsRefused,
    FeedError,
    HistoryIncomplete,
    NotInTime,
    NotUnderstood,
    OutageTooLong,
    OutcomeUnknown,
    OutputFailed,
    OutputHeld,
    OutputUnavailable,
    ReaderGone,
    RequestRefused,
    StateFailed,
    StateHeld,
    StateUnavailable,
    Transient,
    UsageError,
)

from ..support.cases import each

# Class, whether to try again, exit code.
POLICY: list[tuple[type[FeedError], bool, int]] = [
    (FeedError, False, 1),
    (UsageError, False, 2),
    (ConfigError, False, 78),
    (CredentialsRefused, False, 77),
    (RequestRefused, False, 1),
    (CallRefused, False, 65),
    (OutcomeUnknown, False, 76),
    (OutputFailed, False, 74),
    (OutputUnavailable, True, 74),
    (OutputHeld, False, 75),
    (ReaderGone, False, 0),
    (OutageTooLong, False, 69),
    (StateFailed, False, 74),
    (StateUnavailable, True, 74),
    (StateHeld, False, 75),
    (NotInTime, False, 69),
    (HistoryIncomplete, False, 69),
    (Transient, True, 69),
    (NotUnderstood, True, 69),
]


def _kinds(base: type[FeedError]) -> set[type[FeedError]]:
    return {base}.union(*(_kinds(kind) for kind in base.__subclasses__()))


@each(("kind", "retry", "code"), POLICY)
def test_class_decides_retry_and_exit_code(kind: type[FeedError], retry: bool, code: int) -> None:
    assert (kind.retry, kind.exit_code) == (retry, code)


def test_every_error_of_the_package_is_in_the_table() -> None:
    ours = {kind for kind in _kinds(FeedError) if kind.__module__.startswith("kraken_feed.")}
    assert ours == {kind for kind, _, _ in POLICY}


def test_only_the_transient_and_what_a_start_waits_for_are_tried_again() -> None:
    assert {kind for kind, retry, _ in POLICY if retry} == _kinds(Transient) | {OutputUnavailable, StateUnavailable}


def test_message_says_what_why_and_remedy_a_line_each() -> None:
    assert str(ConfigError("What.", why="Why.", remedy="Remedy.")) == "What.\nWhy.\nRemedy."


def test_message_leaves_out_what_is_not_known() -> None:
    assert str(FeedError("What.", remedy="Remedy.")) == "What.\nRemedy."
    assert str(FeedError("What.")) == "What."


def test_transient_carries_its_cause_and_the_least_wait() -> None:
    error = Transient("What.", cause="throttled", delay=5.0, why="Why.")
    assert (error.cause, error.delay, error.what, error.why, error.remedy) == ("throttled", 5.0, "What.", "Why.", "")
    assert Transient("What.", cause="network").delay == 0.0
