"""The output is rotated under load: a small run of what ``make rotate`` does at length."""

from __future__ import annotations

from pathlib import Path

from .rotate import rotate, table


async def test_every_line_is_in_one_of_the_files_once_however_often_they_are_rotated(tmp_path: Path) -> None:
    result = await rotate(tmp_path, records=6000, rotations=5, rate=1000.0)
    assert result.found.published >= 6000
    assert result.files == 6
    assert result.good, table(result)
