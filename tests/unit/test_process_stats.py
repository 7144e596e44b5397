"""Whether a process grows: samples of this very process, and verdicts over made-up ones."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ..support import process_stats
from ..support.cases import each
from ..support.process_stats import ENOUGH, MEMORY_SLACK_MIB, Sample

LEVEL = Sample(at=0.0, rss=40.0, pss=30.0, anonymous=28.0, descriptors=20, threads=3)
linux = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's /proc")


def over_time(count: int, **hourly: float) -> list[Sample]:
    """Samples of half an hour in which these grow by so much an hour."""
    times = [index * 1800.0 / count for index in range(count)]
    return [
        replace(LEVEL, at=at, **{name: getattr(LEVEL, name) + more * at / 3600.0 for name, more in hourly.items()})
        for at in times
    ]


@linux
def test_a_sample_sees_descriptors_threads_and_memory_come() -> None:
    before = process_stats.sample(os.getpid(), 0.0)
    release = threading.Event()
    waiting = threading.Thread(target=release.wait)
    waiting.start()
    with (
        mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held,  # the heap may have room of its own
        open(os.devnull),
    ):
        held.write(b"x" * len(held))
        after = process_stats.sample(os.getpid(), 1.0)
    release.set()
    waiting.join()
    assert after.descriptors == before.descriptors + 1
    assert after.threads == before.threads + 1
    assert after.rss > before.rss + 12
    assert after.anonymous > before.anonymous + 12
    assert after.pss > before.pss + 12


@linux
def test_a_process_that_is_gone_has_no_sample() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    with pytest.raises(OSError, match="No such"):
        process_stats.sample(pid, 0.0)


def test_what_stays_as_it_is_does_not_grow() -> None:
    assert process_stats.growth(over_time(ENOUGH)) == []


@each(
    ("name", "hourly"),
    [("rss", 40.0), ("anonymous", 40.0), ("descriptors", 12.0), ("threads", 12.0)],
)
def test_each_measure_that_grows_is_named(name: str, hourly: float) -> None:
    (complaint,) = process_stats.growth(over_time(180, **{name: hourly}))
    measure = next(one for one in process_stats.MEASURES if one.value(replace(LEVEL, **{name: -1.0})) == -1.0)
    assert complaint.startswith(measure.name)


def test_a_larger_share_of_the_same_memory_is_no_growth() -> None:
    assert process_stats.growth(over_time(180, pss=40.0)) == []


def test_growth_that_ends_before_the_middle_is_none() -> None:
    samples = over_time(180)
    early = [replace(one, rss=one.rss - 10.0, threads=1, descriptors=9) for one in samples[:60]]
    assert process_stats.growth([*early, *samples[60:]]) == []


def test_a_reconnect_at_the_moment_of_a_sample_is_no_growth() -> None:
    samples = over_time(180)
    samples[70:75] = [replace(one, descriptors=17, threads=2) for one in samples[70:75]]
    samples[-5:] = [replace(one, descriptors=40, threads=5) for one in samples[-5:]]
    assert process_stats.growth(samples) == []


def test_memory_that_is_given_back_again_is_no_growth() -> None:
    samples = over_time(180)
    assert process_stats.growth([*samples[:125], *(replace(one, rss=one.rss + 9.0) for one in samples[125:])]) == []


def test_memory_may_come_and_go_by_its_slack() -> None:
    samples = over_time(180)
    late = [replace(one, rss=one.rss + MEMORY_SLACK_MIB) for one in samples[120:]]
    assert process_stats.growth([*samples[:120], *late]) == []
    more = [replace(one, rss=one.rss + 0.1) for one in late]
    assert len(process_stats.growth([*samples[:120], *more])) == 1


def test_too_few_samples_are_no_verdict() -> None:
    with pytest.raises(ValueError, match="too few"):
        process_stats.growth(over_time(ENOUGH - 1))


@given(st.floats(-50.0, 50.0), st.integers(ENOUGH, 400))
def test_the_slope_is_what_comes_in_an_hour(hourly: float, count: int) -> None:
    found = process_stats.slope(over_time(count, rss=hourly), lambda sample: sample.rss)
    assert found == pytest.approx(hourly, abs=1e-6)


def test_the_table_has_a_row_a_measure() -> None:
    head, *rows = process_stats.table(over_time(30, rss=6.0)).splitlines()
    assert head.split() == ["start", "middle", "end", "an", "hour"]
    assert len(rows) == len(process_stats.MEASURES)
    assert rows[0].split()[-1] == "+6.00"
