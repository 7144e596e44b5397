"""An event loop whose clock jumps: when nothing is ready, it is at once the time of the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Waits for nothing: instead of sleeping, it moves the loop's clock."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:  # callbacks are ready; files have their turn when there are none
            return []
        if timeout is not None and len(self.get_map()) == 1:  # the loop's own pipe: no file is waited for
            self.loop.elapsed += timeout
            return []
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("everybody waits for something that nobody will do")
            self.loop.elapsed += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` starts at 0 and moves only when there is nothing else to do."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed

    def run_in_executor(  # type: ignore[override]  # simpler than the loop's own, and as much as is used here
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Threads take no time here, and no thread."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # the caller's, as with a thread
            future.set_exception(error)
        return future


async def elapse(seconds: float) -> None:
    """Let so much of the loop's time go by. A clock that is on the wall does not move for a test: that is an error."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop), "this loop's time goes by whether the test likes it or not"
    await asyncio.sleep(seconds)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
