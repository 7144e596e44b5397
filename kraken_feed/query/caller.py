"""Make REST calls for a command that runs once: wait for the call counter, and repeat a call that was not answered."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from ..errors import Transient
from ..transport.rest import Rest
from .progress import Progress

RETRY_S = 5.0  # the first wait after a call was not answered; it doubles
RETRY_MAX_S = 60.0
PATIENCE_S = 300.0  # a person waits; what Kraken does not answer within minutes is a maintenance of unknown length

T = TypeVar("T")


@dataclass(eq=False, repr=False)
class PatientCaller:
    """Makes calls as :class:`rest.Rest` does, and says in ``progress`` what they wait for."""

    rest: Rest
    progress: Progress
    log: FilteringBoundLogger

    async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
        """Return the result of a private method.

        Raises:
            Transient: Kraken did not answer for :data:`PATIENCE_S`, or wants a longer wait.
            CredentialsRefused, RequestRefused: as of :meth:`rest.Rest.call`.
        """

        async def attempt() -> msgspec.Raw:
            now = asyncio.get_running_loop().time()
            wait = self.rest.counter.wait(cost, reserve, now)
            if wait > 0:
                self.progress.wait(now + wait, "call counter")
            else:
                self.progress.go_on()
            return await self.rest.call(method, cost=cost, reserve=reserve, **parameters)

        return await self.answered(attempt)

    async def answered(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what ``attempt`` returns. Repeat it while Kraken does not answer, for :data:`PATIENCE_S`."""
        now, tries = asyncio.get_running_loop().time, 0
        began: float | None = None
        while True:
            try:
                found = await attempt()
            except Transient as error:
                began = now() if began is None else began
                wait = max(error.delay, min(RETRY_MAX_S, RETRY_S * 2.0**tries))
                reason = " ".join(filter(None, (error.what, error.why)))
                if now() + wait - began > PATIENCE_S:
                    raise _given_up(error, reason) from error
                self.log.warning("history_postponed", reason=reason, retry_in=round(wait, 1))
                self.progress.wait(now() + wait, error.what)
                await asyncio.sleep(wait)
                tries += 1
            else:
                self.progress.go_on()
                return found


def _given_up(error: Transient, reason: str) -> Transient:
    when = f"in {math.ceil(error.delay / 60)} minutes" if error.delay > RETRY_MAX_S else "later"
    remedy = f"Try again {when}. `kraken-feed check` tests each step to Kraken."
    return Transient("Kraken did not answer in time.", cause=error.cause, delay=error.delay, why=reason, remedy=remedy)
