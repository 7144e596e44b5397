"""Libraries of C that stand between a process and the kernel, compiled when a test needs them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from .timeouts import TIMEOUT_S
from .tools import tool


def compiled(source: Path, directory: Path) -> Path:
    """Return the library made of that file, in that directory."""
    library = directory / f"{source.stem}.so"
    command = [tool("cc"), "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=TIMEOUT_S)
    return library


def together(*environments: Mapping[str, str]) -> dict[str, str]:
    """Return one environment with the libraries of all."""
    libraries = ":".join(environment["LD_PRELOAD"] for environment in environments)
    return {name: text for each in environments for name, text in each.items()} | {"LD_PRELOAD": libraries}
