"""Build a tail from a plan: states, feeds, and what they share. The command and :mod:`kraken_feed.api` use it.

A start waits for a file system that is full, read-only or not mounted yet, as a running tail waits for a full disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec
from msgspec.structs import replace
from structlog.typing import FilteringBoundLogger

from ..config.schema import CHANNELS, Config, is_public, without_backfill
from ..errors import FeedError, OutputUnavailable, StateUnavailable
from ..output import descriptors
from ..output.destination import Destination
from ..output.disk import retry_in
from ..protocol.signing import Credentials
from ..state.place import Place
from ..state.store import Opened, Store, take_over
from ..telemetry.loggers import FeedLogger
from ..text import Secrets
from ..transport.backoff import Budget, limit_if_exceeded
from ..transport.connection import Dial, dial
from .environment import UNLIMITED, Account, Environment, Limits, Quota
from .feed import Feed
from .known_state import Snapshots
from .last_records import LastRecord, last_records
from .supervisor import Supervisor

Fail = Callable[[FeedError], None]
T = TypeVar("T")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to tail, and how.

    ``credentials`` are by account. Every account has the same ``channels``. ``since_ns`` is in unix nanoseconds.
    ``state`` is where the output's checkpoints are; None keeps none.
    """

    config: Config
    channels: tuple[str, ...]
    credentials: Mapping[str, Credentials]
    state: Place | None
    backfill: bool = True
    snapshots: Snapshots = "changes"
    since_ns: int | None = None
    limits: Limits = UNLIMITED


async def assemble(
    plan: Plan,
    open_output: Callable[[Fail], tuple[Destination, FeedLogger]],
    *,
    log: FilteringBoundLogger,
    secrets: Secrets,
    changed: Callable[[], None] = lambda: None,
    dial: Dial = dial,
    make: Callable[[Account, Environment], Feed] = Feed,
    unavailable: Callable[[FeedError | None], None] = lambda error: None,
) -> Supervisor:
    """Return the feeds of ``plan``, ready to run. Their states are open and locked until they have run.

    Args:
        plan: what to tail.
        open_output: opens the output, and returns it with the logger that writes to it. Its argument is the function
            to call if the output fails later. Called with the states locked: the output of another instance is not
            touched.
        log: diagnostics.
        secrets: what is masked; tokens are added.
        changed: called when all channels of an endpoint have gone live.
        dial: opens a WebSocket connection.
        make: makes a feed; for tests.
        unavailable: called at each attempt with the error that is waited for, and with None when it is over.

    Raises:
        FeedError: a state is locked, or a state or the output cannot be opened. No state stays locked then.
    """
    config = plan.config if plan.backfill else without_backfill(plan.config)
    budget = Budget(config.reconnect.budget, config.reconnect.window_s)
    _check_account_count(plan, budget, log)
    # An error closes all states that were opened so far.
    with contextlib.ExitStack() as undo:
        patience = _patience(plan)
        # The states come before the output, since they are the locks. An open state stays open while the next one is
        # not available: damage is reported only at the first opening.
        opened = {}
        for account in plan.credentials:
            attempt = partial(_open_state, plan.state, account, log, undo)
            opened[account] = await _retry_while_unavailable(attempt, patience, log, unavailable)

        # An open output fails only from the event loop, which does not run again before the supervisor exists.
        supervisor: Supervisor
        attempt_output = partial(open_output, lambda error: supervisor.fail(error))
        output, feed_log = await _retry_while_unavailable(attempt_output, patience, log, unavailable)

        environment = Environment(
            config=config,
            sink=output,
            feed_log=feed_log,
            log=log,
            secrets=secrets,
            limits=plan.limits,
            quota=Quota(plan.limits.count),
            budget=budget,
            dial=dial,
        )
        feeds = [
            make(
                _account(plan, name, state, output),
                replace(environment, log=log.bind(account=name)) if len(opened) > 1 else environment,
            )
            for name, state in opened.items()
        ]
        undo.pop_all()
    for feed in feeds:
        feed.changed = changed
    supervisor = Supervisor(feeds, log)
    return supervisor


def _account(plan: Plan, name: str, state: Opened | None, output: Destination) -> Account:
    """Return what is known of an account at the start: from the plan, from its state, and from the output."""
    return Account(
        name=name,
        channels=plan.channels,
        credentials=plan.credentials[name],
        snapshots=plan.snapshots,
        since_ns=plan.since_ns,
        store=state.store if state else None,
        checkpoint=state.checkpoint if state else None,
        found=state.found if state else "new",
        blank=_is_blank(output),
        last=_last_records(output, name, plan.channels) if state else {},
    )


def _check_account_count(plan: Plan, budget: Budget, log: FilteringBoundLogger) -> None:
    """Check the number of accounts. Raise an error if there are too few descriptors, since the tail would fail later.
    Log a warning if there are too many connects, since that only makes the start slow."""
    dialects = {CHANNELS[channel] for channel in plan.channels}
    accounts = len(plan.credentials)
    descriptors.require(accounts, len(dialects), state=plan.state is not None)
    connects = accounts * len(dialects)
    most = limit_if_exceeded(connects, budget, public=is_public(plan.config.endpoints, dialects))
    if most is not None:
        log.warning(
            "too_many_connects",
            accounts=accounts,
            needed=connects,
            allowed=most,
            window_s=budget.window,
            all_begun_s=round(budget.span(connects), 1),
        )


def _patience(plan: Plan) -> float:
    """Return the seconds for which a start may wait for a file system: none with ``--once``."""
    if plan.limits.once:
        return 0.0
    patience = plan.config.output.patience_s
    return patience if plan.limits.duration is None else min(patience, plan.limits.duration)


async def _retry_while_unavailable(
    attempt: Callable[[], T],
    patience: float,
    log: FilteringBoundLogger,
    unavailable: Callable[[FeedError | None], None],
) -> T:
    """Return what ``attempt`` opens. Retry while its file system is not available, for ``patience`` seconds."""
    now, tries, said = asyncio.get_running_loop().time, 0, ""
    began = now()
    while True:
        try:
            found = attempt()
        except (OutputUnavailable, StateUnavailable) as error:
            wait = retry_in(tries, now() - began, patience)
            if wait is None:
                raise
            if str(error) != said:
                log.error("start_held", what=error.what, why=error.why, remedy=error.remedy, patience_s=patience)
            tries, said = tries + 1, str(error)
            unavailable(error)
            await asyncio.sleep(wait)
        else:
            if tries:
                log.warning("start_resumed", held_s=round(now() - began, 1))
                unavailable(None)
            return found


def _last_records(output: Destination, account: str, channels: Sequence[str]) -> dict[str, LastRecord]:
    """Return, by channel, the record up to which the output is complete, if it is a file that we may read."""
    path = output.source
    return {} if path is None else last_records(path, account, channels)


def _is_blank(output: Destination) -> bool:
    """Return whether the output is a file with nothing in it: a new one, or one that was emptied."""
    try:
        return output.source is not None and not os.path.getsize(output.source)
    except OSError:
        return False


def _open_state(
    place: Place | None, account: str, log: FilteringBoundLogger, undo: contextlib.ExitStack
) -> Opened | None:
    """Open the state of the account and the output, if one is kept; close it with ``undo``."""
    if place is None:
        return None
    earlier = take_over(place.directory, account, place, time.time_ns())
    if earlier is not None:
        log.warning(
            "state_of_earlier_version",
            account=account,
            kept_as=earlier,
            what="it does not say which output it belongs to, so this output starts with what its own records show",
        )
    opened = Store.open(place.directory, place.name(account), time.time_ns())
    undo.callback(opened.store.close)
    if opened.set_aside is not None:
        log.error(
            "state_damaged",
            account=account,
            kept_as=opened.set_aside,
            what="what was missed since the last run is not known",
        )
    return opened
