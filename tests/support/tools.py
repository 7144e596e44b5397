"""Programs of the system that tests compare with."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The path of a program. Where it is missing the test is skipped, but fails if the environment says CI."""
    path = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if path is None and "CI" in os.environ:
        pytest.fail(f"{name} is missing")
    if path is None:
        pytest.skip(f"{name} is missing")
    return path
