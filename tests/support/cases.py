"""Many cases of one claim in one test: what pytest does around a test costs more than a case of microseconds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import pytest

Test = Callable[..., Any]


class Catch:
    """Keeps what fails in its block, with a note."""

    def __init__(self, failed: list[BaseException], note: str) -> None:
        self._failed, self._note = failed, note

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> bool:
        if not isinstance(error, (Exception, pytest.fail.Exception)):
            return False
        error.add_note(self._note)
        self._failed.append(error)
        return True


def each(names: str | tuple[str, ...], rows: Iterable[Any], ids: Callable[[Any], str] = repr) -> Callable[[Test], Test]:
    """Call the test for each row, as ``pytest.mark.parametrize`` would, but as one test.

    The test may be a coroutine. Every row is tried. What fails says with which row.
    """
    rows = list(rows)
    assert rows, "no cases"
    single = isinstance(names, str)
    own = (names,) if isinstance(names, str) else names

    def decorate(test: Test) -> Test:
        def failures() -> Iterator[tuple[dict[str, Any], Catch]]:
            failed: list[BaseException] = []
            for row in rows:
                yield (
                    dict(zip(own, [row] if single else row, strict=True)),
                    Catch(failed, f"case: {names} = {ids(row)}"),
                )
            if len(failed) == 1:
                raise failed[0]
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(rows)} cases", failed)

        @functools.wraps(test)
        def tests(*arguments: Any, **given: Any) -> None:
            for case, caught in failures():
                with caught:
                    test(*arguments, **given, **case)

        @functools.wraps(test)
        async def async_tests(*arguments: Any, **given: Any) -> None:
            for case, caught in failures():
                with caught:
                    await test(*arguments, **given, **case)

        around: Any = async_tests if inspect.iscoroutinefunction(test) else tests
        signature = inspect.signature(test)
        assert set(own) <= signature.parameters.keys()
        left = [parameter for name, parameter in signature.parameters.items() if name not in own]
        around.__signature__ = signature.replace(parameters=left)  # pytest reads it
        return cast("Test", around)

    return decorate
