"""The soak in small: what ``make soak`` does for half an hour, for a few hundred events."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.diagnostics import Diagnostics
from ..support.process_stats import ENOUGH
from . import soak
from .soak import Plan

SMALL = Plan(seconds=0.0, events=1200, rate=60.0, pause_s=0.25, rotate_every=4, tell_every=3, sample_s=0.2)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")
async def test_two_accounts_lose_nothing_while_faults_rotations_and_questions_come(tmp_path: Path) -> None:
    result = await soak.soak(tmp_path, SMALL, seed=5)
    assert result.wrong() == [], soak.report(result)
    for counts in result.counts:
        assert all(count.output > 50 for count in counts.values())
    assert sum(result.events) >= SMALL.events
    assert result.faults.total() >= 5
    assert min(result.rotations, result.told) >= 1
    assert min(result.lives) > 4, "nobody was ever cut off"
    assert len(result.samples) >= ENOUGH
    assert result.samples[-1].descriptors <= result.samples[0].descriptors + 8  # what a reconnect in between may hold
    assert "LOST" in soak.report(result)


def test_diagnostics_count_events_and_keep_what_tells_of_a_defect(tmp_path: Path) -> None:
    path = tmp_path / "stderr.log"
    path.write_text('{"event":"state"}\n{"event":"lost","level":"warning"}\n{"event":"gap","level":"error"}\n')
    diagnostics = Diagnostics(path)
    assert diagnostics.count("state") == 1
    assert diagnostics.wrong == []
    with path.open("a") as file:
        file.write('{"event":"state"}\n{"event":"broken","level":"error"}\nTraceback (most recent call last):\n{"ev')
    assert diagnostics.count("state") == 2
    assert diagnostics.wrong == ['{"event":"broken","level":"error"}', "Traceback (most recent call last):"]
