"""Watch an outlet with the event loop: when it takes more, and when its reader has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .outlet import Outlet, PipeOutlet


class Readiness:
    """Watches one outlet from its first line to its last; ``end`` it before the descriptor is closed.

    A pipe's reader that closes is noticed at once, also when there is nothing to write: poll reports an error on our
    end then.

    Args:
        outlet: what to watch.
        writable: called when it takes more, while that is waited for.
        gone: called when the reader has closed it.
    """

    def __init__(self, outlet: Outlet, writable: Callable[[], None], gone: Callable[[], None]) -> None:
        self._outlet = outlet
        self._writable = writable
        self._gone = gone
        self._waiting = False
        self._loop = asyncio.get_running_loop()
        if isinstance(outlet, PipeOutlet):
            self._loop.add_reader(outlet.fd, self._reader_closed)

    def wait(self, wanted: bool) -> None:
        """Wait for it to take more, or stop that. What cannot be watched takes everything, or fails."""
        if wanted == self._waiting or not self._outlet.watchable:
            return
        self._waiting = wanted
        if wanted:
            self._loop.add_writer(self._outlet.fd, self._writable)
        else:
            self._loop.remove_writer(self._outlet.fd)

    def end(self) -> None:
        """Stop watching it."""
        self.wait(False)
        if self._outlet.watchable:
            self._loop.remove_reader(self._outlet.fd)

    def _reader_closed(self) -> None:
        self._loop.remove_reader(self._outlet.fd)
        self._gone()
