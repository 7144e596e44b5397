"""The events of the diagnostics: the level of each, what it means and what to do first.

Every event that is logged is listed here. docs/errors.md is generated from this table.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple


class Event(NamedTuple):
    """One event: the levels at which it is logged, what it means, and what to do first. Both texts are Markdown."""

    levels: tuple[str, ...]
    means: str
    first: str


_error = partial(Event, ("error",))
_warning = partial(Event, ("warning",))
_info = partial(Event, ("info",))
_debug = partial(Event, ("debug",))

# The worst level first; within a level, those that end or stop something come first.
EVENTS = {
    "exit": _error(
        "the error that ends the command: `what`, `why`, `remedy`, `exit_code`",
        "do what `remedy` says; see [exit codes](#exit-codes)",
    ),
    "outcome_unknown": _error(
        "`call`: a bug in kraken-feed ended the command after the `request` was sent. The `exit` follows",
        "do not send the request again; run the command in `look`, as for exit code 76",
    ),
    "start_held": _error(
        "the file system of the state or the output is full, read-only or missing (`what`, `why`, `remedy`). The start "
        "waits for it, up to `patience_s`",
        "mount it, or free space; if the path is wrong, stop and correct it",
    ),
    "account_stopped": _error(
        "Kraken refuses this account permanently (`what`, `why`, `remedy`). The other accounts continue",
        "do what `remedy` says, then restart",
    ),
    "gap": _error(
        "an outage of a `channel` could not be recovered (`reason`). A `feed.gap` is in the output",
        "see [`feed.gap`](#feedgap-its-reasons): most gaps are tried again every hour for three days",
    ),
    "state_damaged": _error(
        "the checkpoint could not be read. It was moved to `kept_as`, and a new one begins",
        "check the disk. If the output is a file, its last records say where the outage begins, and it is recovered; "
        "otherwise a `feed.gap` without a beginning follows",
    ),
    "state_removed": _error(
        "the state files at `path` were removed or replaced while the program ran. Everything is saved again",
        "find out what removes them. If an older file appeared there, as on a file system that is mounted late, the "
        "time since then is an outage (`state_replaced`)",
    ),
    "output_removed": _error(
        "the `output` file was removed while the program wrote to it. A new file is at its path. It begins with the "
        "`written_again_bytes` that were written since the last checkpoint",
        "find out what removes it; to rotate, rename the file and send SIGHUP. Older lines are lost with the removed "
        "file. If `written_again_bytes` is null, they could not be read: an outage (`output_removed`) recovers them",
    ),
    "checkpoint_failed": _error(
        "the checkpoint could not be saved (`reason`). It is logged once per reason. Records are still written",
        "free space: until the checkpoint is saved again, a crash repeats records",
    ),
    "output_not_reopened": _error(
        "SIGHUP: the new file cannot be opened (`reason`). The old file is still written to",
        "correct the path, then send SIGHUP again",
    ),
    "part_overdue": _error(
        "a component (`part`) has made no progress for too long. `output` or `checkpoint` means a disk that hangs, "
        "`endpoint …` a bug in kraken-feed. With a `watchdog`, systemd restarts the program",
        "check the disk; report an `endpoint`",
    ),
    "library": Event(
        ("warning", "error"),
        "a library's own warning (`text`), with its traceback if it has one",
        "nothing, if every channel is live; report it if it repeats",
    ),
    "connection_lost": _warning(
        "a live connection ended: `cause`, `detail`, and `retry_in` seconds until the next attempt. `refused` says "
        "what Kraken refused: the key, the account, the token or the subscription",
        "nothing: what was missed is recovered. If it repeats, see [its causes](#feedlost-its-causes)",
    ),
    "connection_failed": Event(
        ("info", "warning"),
        "an attempt to connect failed: `cause`, `detail`, `attempt`, `retry_in`, and `refused` as above. The first "
        "failure of an outage is a warning, and so is one where Kraken demands a wait",
        "nothing for minutes; then `kraken-feed check`. With `refused`, see [What Kraken says](#what-kraken-says)",
    ),
    "connect_postponed": _warning(
        "the budget of connects is used up, or Kraken demands a wait of `seconds`",
        "nothing; if it repeats, look for the cause of the reconnects, and for other programs on this address",
    ),
    "too_many_connects": _warning(
        "a start of so many `accounts` needs more connects (`needed`) than are `allowed` in `window_s`: by "
        "`[reconnect] budget`, or because Kraken bans an address at about 150 in ten minutes. The last connect begins "
        "after `all_begun_s`",
        "run the accounts on several machines with their own addresses. A larger `budget` helps up to 150, if nothing "
        "else connects from the address",
    ),
    "backfill_postponed": _warning(
        "REST did not answer, or its answer was not understood (`reason`). The outage is tried again in `retry_in` "
        "seconds",
        "nothing: after a quarter of an hour it becomes a `gap`, which is tried again every hour",
    ),
    "key_not_checked": _warning(
        "Kraken did not say which interval the key may query (`reason`)",
        "nothing; but if the key is limited to an interval, outages outside of it look recovered",
    ),
    "history_postponed": _warning(
        "`history`: Kraken did not answer, or its answer was not understood (`reason`). The call is repeated in "
        "`retry_in` seconds",
        "nothing: after five minutes without an answer, `history` ends with 69",
    ),
    "history_refused": _warning(
        "`history`: Kraken refuses the pages of a `source`, or they are not understood (`reason`). The other sources "
        "are read, and the answer is declared as not complete",
        "look for a newer version",
    ),
    "history_doubted": _warning(
        "`history`: rows are missing (`reason`). They are requested again in `retry_in` seconds",
        "nothing: if they stay missing, the message at the end says so",
    ),
    "first_start": _warning(
        "the `channel` has no checkpoint, and the output has no record of it. Nothing before the start is recovered",
        "nothing, if it is the first start on this output; `--since` recovers what was before. Otherwise find out "
        "where the state and the output went",
    ),
    "no_checkpoint": _warning(
        "the `output` is a pipe or a socket, and no directory is named for its checkpoint. What is missed between two "
        "runs is not recovered",
        "nothing, if that is enough; else `--state DIRECTORY`, or a file with `--output`",
    ),
    "state_not_used": _warning(
        "`--state` is given, but a terminal keeps no records, so it has no checkpoint",
        "leave `--state` out, or write to a file with `--output`",
    ),
    "state_of_earlier_version": _warning(
        "an earlier version kept one checkpoint for all outputs of the `account`. Nobody knows which output it belongs "
        "to, so it is set aside (`kept_as`)",
        "nothing: a file's own records show where its outage begins. Remove `kept_as` later",
    ),
    "clock_stepped": _warning(
        "this machine's clock was set (`clock` is `wall`), or the machine slept (`suspend`), by `seconds`. Until "
        "Kraken answers the next ping, the feed counts as late",
        "nothing: outages are kept in Kraken's time",
    ),
    "clock_contradicted": _warning(
        "Kraken's clock differs by `seconds` from what earlier answers said: a virtual machine was paused, or Kraken's "
        "clock was set. The new time is used. For an outage that began before this, the REST query may start earlier",
        "nothing; if it repeats, look for a proxy that caches REST's answers",
    ),
    "kraken_time_unknown": _warning(
        "no answer of Kraken's has a time (`reason`). Until one has, the program assumes that this machine's clock is "
        "wrong by at most one day: it queries REST for a longer interval",
        "check whether a proxy strips the `Date` header",
    ),
    "kraken_warns": Event(
        ("debug", "warning"),
        "Kraken answers with a warning (`text`). REST's warnings are logged at `warning`, with the `method`, each text "
        "once; those of an acknowledgement at `debug`, with the `channel`",
        "nothing; look for a newer version",
    ),
    "checkpoint_saved_again": _warning("after `checkpoint_failed`: the checkpoint is saved again", "nothing"),
    "output_held": _warning(
        "the output's disk is full (`reason`). `pending_bytes` wait in memory, up to `patience_s`",
        "free space, before the program ends with 74",
    ),
    "start_resumed": _warning("after `start_held`: the file system is usable again, after `held_s` seconds", "nothing"),
    "output_resumed": _warning("after `output_held`: everything that waited is written", "nothing"),
    "output_repaired": _warning(
        "the file ended in a torn line of `bytes`, from a kill or a crash. The torn line was moved to `kept_as`",
        "nothing: its record is written again",
    ),
    "output_moved": _warning(
        "for five seconds another file has been at the path of the `output`. Records go to that file from now on",
        "nothing; to rotate, send SIGHUP right after the rename",
    ),
    "output_not_drained": _warning(
        "at the stop, the output did not take `bytes` in time (`why`)",
        "check the reader or the disk; the next run recovers the records",
    ),
    "part_recovered": _warning("after `part_overdue`: the component makes progress again", "nothing"),
    "frame_unknown": _warning(
        "this version cannot read a frame (`why`). It is in the output as `unknown`, and counted in the metric "
        "`records_total`. The first, tenth, hundredth … such frame is logged, with the count (`times`), as for "
        "every warning about a frame",
        "look for a newer version. If `why` is about JSON, everything since the last answered ping is checked over "
        "REST",
    ),
    "frame_repeated": _warning("the same frame came twice (`sequence`). It is written once", "nothing"),
    "channel_not_subscribed": _warning(
        "a frame came for a `channel` that was not subscribed. It is in the output as `unknown`",
        "nothing; report it if it repeats",
    ),
    "command_said": _warning(
        "a `command` that the configuration names for credentials wrote to stderr (`text`, masked)", "read it"
    ),
    "answer_unexpected": _warning("an answer belongs to no request (`error`)", "nothing; report it if it repeats"),
    "answer_repeated": _warning(
        "`call`: an answer came again (`times`). It is printed and counted once", "nothing; report it if it repeats"
    ),
    "kraken_error": _warning(
        "Kraken reports an `error` that belongs to no request",
        "nothing, if every channel is live; see [What Kraken says](#what-kraken-says)",
    ),
    "live": _info("the `channel` is complete from here on", "nothing"),
    "backfilled": _info("the outage that began at `since` is recovered. Its records are in the output", "nothing"),
    "history_begun": _info(
        "`history` reads the period from `since` to `until`. Without `--until` the end is the present time", "nothing"
    ),
    "history_continued": _info("`history` continues an interrupted query, of which it has `rows` already", "nothing"),
    "history_interrupted": _info(
        "a signal ended `history` after it had read `rows`", "run the same command: with `--output`, it continues"
    ),
    "history_complete": _info(
        "everything from `since` to `complete_until` is written: so many rows per kind (`order`, `trade`, `ledger`)",
        "nothing; for what came later, run it again with `--since` at that time",
    ),
    "stopping": _info("a `signal` asked the program to stop", "nothing"),
    "output_reopened": _info("SIGHUP: records go to a new file at `path`", "nothing"),
    "nothing_to_reopen": _info(
        "SIGHUP, but the `output` is not a file of `--output`", "nothing; to rotate, use `--output`"
    ),
    "records_left": _info(
        "a program left the context of its tail before it took `bytes` of records",
        "nothing: with a state, the next run recovers them",
    ),
    "metrics_listening": _info("metrics and health are served at `url`", "nothing"),
    "state": _info(
        "the answer to SIGUSR1: connections, the number of `outages` that are not recovered yet, checkpoint, output. "
        "`blocked` of the output means that the backlog is full, like the metric `output_full`. For `call`: whether "
        "the request was sent, and how many answers came",
        "read it",
    ),
    "connecting": _debug("an attempt to connect begins (`url`, `attempt`)", "nothing"),
    "greeted": _debug(
        "Kraken's greeting: the state of its `engine`, and its name for the connection",
        "nothing; the name helps Kraken's support",
    ),
    "call_sent": _debug("`call`: the request is sent now (`method`, `names`)", "nothing"),
}
