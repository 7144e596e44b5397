"""Many cases of one claim in one test: what pytest does around a test costs more than a case of microseconds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import pytest

Test = Callable[..., None]


def each(names: str | tuple[str, ...], rows: Iterable[Any], ids: Callable[[Any], str] = repr) -> Callable[[Test], Test]:
    """Call the test for each row, as ``pytest.mark.parametrize`` would, but as one test.

    Every row is tried. What fails says with which row.
    """
    rows = list(rows)
    assert rows, "no cases"
    single = isinstance(names, str)
    own = (names,) if isinstance(names, str) else names

    def around(test: Test) -> Test:
        @functools.wraps(test)
        def tests(*arguments: Any, **given: Any) -> None:
            failed: list[BaseException] = []
            for row in rows:
                try:
                    test(*arguments, **given, **dict(zip(own, [row] if single else row, strict=True)))
                except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  # it is raised below
                    error.add_note(f"case: {names} = {ids(row)}")
                    failed.append(error)
            if len(failed) == 1:
                raise failed[0]
            if failed:
                raise BaseExceptionGroup(f"{len(failed)} of {len(rows)} cases", failed)

        signature = inspect.signature(test)
        assert set(own) <= signature.parameters.keys()
        left = [parameter for name, parameter in signature.parameters.items() if name not in own]
        tests.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]  # pytest reads it
        return tests

    return around
