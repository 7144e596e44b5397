"""A process as /proc shows it over time, and whether it grows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

import msgspec

# From the middle to the end of half an hour come 1 MiB of ids to be remembered, 1 of SQLite's page cache, which ends at
# 2 an account, and the outages that large frames leave in the heap.
MEMORY_SLACK_MIB = 5.0
DESCRIPTOR_SLACK = 1.0  # a reconnect closes one connection and opens the next
ENOUGH = 9  # samples: three for each third


class Sample(msgspec.Struct, frozen=True):
    """What one process held at one moment. Memory in MiB; ``at`` in seconds."""

    at: float
    rss: float
    pss: float
    anonymous: float
    descriptors: float
    threads: float


class Measure(NamedTuple):
    """What is looked at in samples: how a span of them counts, and how much growth from one to the next is none.

    Of memory the least counts: a large frame leaves outages in the heap that are filled again later. Of the others the
    median, since a reconnect has fewer of them for a moment.
    """

    name: str
    value: Callable[[Sample], float]
    typical: Callable[[Iterable[float]], float]
    slack: float

    def of(self, samples: Iterable[Sample]) -> float:
        """What stands for this span."""
        return self.typical(map(self.value, samples))


MEASURES = (
    Measure("memory, resident, MiB", lambda sample: sample.rss, min, MEMORY_SLACK_MIB),
    Measure("memory, its share, MiB", lambda sample: sample.pss, min, math.inf),  # grows when a neighbour ends
    Measure("memory, anonymous, MiB", lambda sample: sample.anonymous, min, MEMORY_SLACK_MIB),
    Measure("file descriptors", lambda sample: sample.descriptors, median, DESCRIPTOR_SLACK),
    Measure("threads", lambda sample: sample.threads, median, 0.0),
)


def sample(pid: int, at: float) -> Sample:
    """Look at the process.

    Raises:
        OSError: it is gone.
    """
    place = Path(f"/proc/{pid}")
    status = _fields((place / "status").read_text(encoding="utf-8"))
    rollup = _fields((place / "smaps_rollup").read_text(encoding="utf-8"))
    return Sample(
        at=at,
        rss=_mib(status["VmRSS"]),
        pss=_mib(rollup["Pss"]),
        anonymous=_mib(rollup["Anonymous"]),
        descriptors=len(os.listdir(place / "fd")),
        threads=int(status["Threads"]),
    )


def thirds(samples: Sequence[Sample], measure: Measure) -> tuple[float, float, float]:
    """The first, the middle and the last third."""
    size = len(samples) // 3
    middle = samples[size : len(samples) - size]
    return measure.of(samples[:size]), measure.of(middle), measure.of(samples[len(samples) - size :])


def slope(samples: Sequence[Sample], value: Callable[[Sample], float]) -> float:
    """How much more an hour, by least squares."""
    return linear_regression([one.at for one in samples], [value(one) for one in samples]).slope * 3600.0


def growth(samples: Sequence[Sample]) -> list[str]:
    """What was more in the last third than in the middle one: in words, nothing if all of it is flat.

    Raises:
        ValueError: there are too few samples to tell.
    """
    if len(samples) < ENOUGH:
        raise ValueError(f"{len(samples)} samples are too few to tell, {ENOUGH} are needed")
    found = []
    for measure in MEASURES:
        _, middle, last = thirds(samples, measure)
        if last > middle + measure.slack:
            found.append(f"{measure.name}: {middle:.1f} in the middle, {last:.1f} at the end")
    return found


def table(samples: Sequence[Sample]) -> str:
    """A row for each measure: what it was at the start, in the middle and at the end, and its slope."""
    rows = [f"{'':<26}{'start':>10}{'middle':>10}{'end':>10}{'an hour':>10}"]
    for measure in MEASURES:
        numbers = "".join(f"{number:>10.1f}" for number in thirds(samples, measure))
        rows.append(f"{measure.name:<26}{numbers}{slope(samples, measure.value):>+10.2f}")
    return "\n".join(rows)


def _fields(text: str) -> dict[str, str]:
    return {name: rest.strip() for name, _, rest in (line.partition(":") for line in text.splitlines())}


def _mib(text: str) -> float:
    return int(text.split()[0]) / 1024.0
