"""Lines for a sink, what it reports, and disks that are full."""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kraken_feed.errors import FeedError

from .timeouts import TIMEOUT_S


class Failures(list[FeedError]):
    """The errors that have ended an output."""

    def __call__(self, error: FeedError) -> None:
        self.append(error)


class Said(list[tuple[str, dict[str, object]]]):
    """The diagnostics of a sink."""

    def __call__(self, event: str, **fields: object) -> None:
        self.append((event, fields))


def record(number: int, size: int = 300) -> bytes:
    return b'{"n":%d,"pad":"%b"}\n' % (number, b"x" * size)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so; a thread or the kernel decides when."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110  # the kernel has no event to wait for
            await asyncio.sleep(0)


def open_files(directory: Path) -> list[str]:
    """The files there that this process has open."""
    found = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that lists
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
    return [name for name in found if name.startswith(f"{directory}/")]


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """A full disk without one: no file of this process may grow beyond ``size`` bytes (EFBIG)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
