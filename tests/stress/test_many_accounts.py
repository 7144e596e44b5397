"""As many accounts as need more descriptors than a machine gives at first."""

from __future__ import annotations

from pathlib import Path

from ..command.test_descriptors import MANY, run_beyond_the_soft_limit


async def test_two_hundred_accounts_run_where_1024_descriptors_are_the_soft_limit(tmp_path: Path) -> None:
    await run_beyond_the_soft_limit(tmp_path, MANY, 1024)
