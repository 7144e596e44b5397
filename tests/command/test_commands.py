"""How a command is run."""

from __future__ import annotations

import subprocess
import sys

from ..support.timeouts import TIMEOUT_S

COLLECTS = """
import asyncio, gc
from kraken_feed.cli import commands

async def main() -> str:
    while not gc.isenabled():
        await asyncio.sleep(0)
    return ""

gc.disable()
commands.START_S = 0.0
assert commands._run(main()) == 0
assert gc.get_freeze_count() > 0
"""


def test_garbage_is_collected_once_everything_is_imported() -> None:
    """And what was imported is not looked through again: that would be a pause of ten milliseconds."""
    subprocess.run([sys.executable, "-c", COLLECTS], check=True, timeout=TIMEOUT_S)
