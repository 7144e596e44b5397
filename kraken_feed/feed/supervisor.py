"""Run the feeds of one process. They stop together; a feed whose key is refused stops alone, unless it is the last."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from ..errors import CredentialsRefused, FeedError, RequestRefused
from ..telemetry.stats import Figures
from .feed import Feed


@dataclass(eq=False, repr=False)
class Supervisor:
    """Runs a feed for each account."""

    feeds: Sequence[Feed]  # not yet run
    log: FilteringBoundLogger

    def __post_init__(self) -> None:
        self.reason = ""
        self._running = list(self.feeds)
        self._error: FeedError | None = None
        self._refused: FeedError | None = None

    async def run(self) -> str:
        """Run until :meth:`stop`, or until every feed has ended; return the reason.

        Raises:
            FeedError: what ended the process. A signal has priority over an account that had stopped before it.
        """
        async with asyncio.TaskGroup() as tasks:
            for feed in self.feeds:
                tasks.create_task(self._run(feed))
        error = self._error or (None if self.reason else self._refused)
        if error is not None:
            raise error
        return self.reason or self.feeds[-1].reason

    def stop(self, reason: str) -> None:
        """Stop all feeds. Only the first reason counts."""
        self.reason = self.reason or reason
        for feed in self._running:
            feed.stop(reason)

    def fail(self, error: FeedError) -> None:
        """Stop all feeds because of ``error``, which :meth:`run` then raises. Only the first error counts."""
        self._error = self._error or error
        for feed in self._running:
            feed.fail(error)

    @property
    def live(self) -> bool:
        """Whether every channel is live, of every account that has not stopped."""
        return bool(self._running) and all(feed.live for feed in self._running)

    def figures(self) -> list[Figures]:
        """Return the figures of every account, in the order of the feeds."""
        return [feed.figures() for feed in self.feeds]

    def orders(self, account: str, channel: str) -> Mapping[str, Sequence[bytes]]:
        """Return the open orders of an account's channel that the output holds; see :meth:`Feed.orders`."""
        return next(feed.orders(channel) for feed in self.feeds if feed.account == account)

    async def _run(self, feed: Feed) -> None:
        """Run one feed. An account that Kraken refuses ends alone. Any other error ends the process, and the service
        manager restarts it."""
        try:
            await feed.run()
        except (CredentialsRefused, RequestRefused) as error:
            self._running.remove(feed)
            if self._running and self._error is None:
                self._refused = error
                self.log.error(
                    "account_stopped", account=feed.account, what=error.what, why=error.why, remedy=error.remedy
                )
            else:
                self.fail(error)
        except FeedError as error:
            self._running.remove(feed)
            self.fail(error)
        else:
            self._running.remove(feed)
