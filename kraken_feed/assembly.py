"""A whole tail, put together: states, feeds, and what they share. The command and a Python program run the same."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence

import msgspec
from structlog.typing import FilteringBoundLogger

from .absence import Last, last_records
from .auth import Credentials
from .backoff import Budget
from .config import Config, without_backfill
from .destination import Destination
from .errors import FeedError
from .feed import Feed
from .limits import UNLIMITED, Limits, Quota
from .log import FeedLogger
from .orders import Snapshots
from .store import Opened, Store
from .supervisor import Supervisor
from .text import Secrets

Fail = Callable[[FeedError], None]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tailed, and how.

    ``credentials`` are by account, ``channels`` of every account; ``since_ns`` is in unix nanoseconds; ``state`` is
    the directory of the checkpoints, None for none.
    """

    config: Config
    channels: tuple[str, ...]
    credentials: Mapping[str, Credentials]
    state: str | None
    backfill: bool = True
    snapshots: Snapshots = "changes"
    since_ns: int | None = None
    limits: Limits = UNLIMITED


def assemble(
    plan: Plan,
    open_output: Callable[[Fail], tuple[Destination, FeedLogger]],
    *,
    log: FilteringBoundLogger,
    secrets: Secrets,
    changed: Callable[[], None] = lambda: None,
    make: Callable[..., Feed] = Feed,
) -> Supervisor:
    """The feeds of ``plan``, ready to run. Their states are open and held until they have run.

    Args:
        plan: what is wanted.
        open_output: where records go, and the logger that brings them there; is told whom to tell if it fails. Called
            when the states are held: what somebody else has is not touched.
        log: diagnostics.
        secrets: what is masked; tokens are added.
        changed: called when all channels of an endpoint have gone live.
        make: makes a feed; for tests and for those who bring their own network.

    Raises:
        FeedError: a state is held or cannot be opened, or the output cannot; no state is held then.
    """
    limits, several = plan.limits, len(plan.credentials) > 1
    config = plan.config if plan.backfill else without_backfill(plan.config)
    budget, quota = Budget(config.reconnect.budget, config.reconnect.window_s), Quota(limits.count)
    with contextlib.ExitStack() as undo:
        opened = {account: _open_state(plan.state, account, log, undo) for account in plan.credentials}
        output, feed_log = open_output(lambda error: supervisor.fail(error))
        feeds = [
            make(
                config,
                account,
                plan.channels,
                plan.credentials[account],
                sink=output,
                feed_log=feed_log,
                log=log.bind(account=account) if several else log,
                secrets=secrets,
                limits=limits,
                quota=quota,
                budget=budget,
                snapshots=plan.snapshots,
                since_ns=plan.since_ns,
                store=kept.store if kept else None,
                checkpoint=kept.checkpoint if kept else None,
                found=kept.found if kept else "new",
                last=_last_records(output, account, plan.channels) if kept else {},
            )
            for account, kept in opened.items()
        ]
        undo.pop_all()
    for feed in feeds:
        feed.changed = changed
    supervisor = Supervisor(feeds, log)
    return supervisor


def _last_records(output: Destination, account: str, channels: Sequence[str]) -> dict[str, Last]:
    """Return the newest record of each channel that the output holds, if it is a file that we may read."""
    path = output.source
    return {} if path is None else last_records(path, account, channels)


def state_directory(environ: Mapping[str, str]) -> str:
    """Where the state is if nobody says: systemd's directory, or the user's."""
    if environ.get("STATE_DIRECTORY"):
        return environ["STATE_DIRECTORY"].partition(":")[0]
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/var/lib"), ".local", "state")
    return os.path.join(home, "kraken-feed")


def _open_state(
    directory: str | None, account: str, log: FilteringBoundLogger, undo: contextlib.ExitStack
) -> Opened | None:
    """The account's state, if one is wanted."""
    if directory is None:
        return None
    opened = Store.open(os.path.expanduser(directory), account, time.time_ns())
    undo.callback(opened.store.close)
    if opened.set_aside is not None:
        log.error(
            "state_damaged",
            account=account,
            kept_as=opened.set_aside,
            what="what was missed since the last run is not known",
        )
    return opened
