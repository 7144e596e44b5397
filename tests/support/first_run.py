"""What every process of a first run would work out for itself, once: what hypothesis keeps of Unicode and of the code,
and the test modules with their assertions rewritten."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .repository import ROOT


def needed() -> bool:
    """Return whether hypothesis has kept nothing yet."""
    return not (ROOT / ".hypothesis" / "unicode_data").exists()


def begin() -> Callable[[], None]:
    """Let another process do it, while the tests are collected. Return what waits for it."""
    process = subprocess.Popen([sys.executable, "-m", __name__], cwd=ROOT)

    def wait() -> None:
        process.wait()

    return wait


def import_share(directories: Iterable[str], number: int, count: int) -> None:
    """Import every ``count``th test module: what Python keeps of it is there when the other processes come to it.

    A module that cannot be imported is left to pytest, which says why.
    """
    paths = sorted(path.resolve() for directory in directories for path in Path(directory).rglob("test_*.py"))
    for path in paths[number::count]:
        with contextlib.suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


@settings(max_examples=1, database=None)
@given(st.text())
def _draw(text: str) -> None:
    pass


if __name__ == "__main__":
    package = importlib.import_module("kraken_feed")
    for module in pkgutil.walk_packages(package.__path__, "kraken_feed."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _draw()
