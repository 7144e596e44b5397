"""The installed command under every fault, killed and restarted: a small run of what ``make chaos`` does at length."""

from __future__ import annotations

from pathlib import Path

from .chaos import chaos, complaints, table


async def test_nothing_is_lost_torn_or_left_open_under_faults_kills_and_restarts(tmp_path: Path) -> None:
    result = await chaos(7, 3000, 40, tmp_path, kills=2, cut_every=2)
    assert result.faults.total() >= 40
    assert result.runs["SIGKILL"] >= 2
    assert result.good, "\n".join([table([result]), *complaints(result)])
