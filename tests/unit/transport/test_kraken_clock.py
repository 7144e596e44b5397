"""Kraken's time is told between two bounds, whatever this machine's clocks do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.transport.kraken_clock import DAY_NS, NS, KrakenClock, Steps, boot_ns

from ...support.cases import each

HOUR = 3600 * NS


class Machine:
    """Clocks that a test moves. Kraken's is ``offset`` ahead of the boot clock."""

    def __init__(self, offset: int = 1_760_000_000 * NS) -> None:
        self.boot = 5 * HOUR
        self.monotonic = 2 * HOUR
        self.wall = 1_760_000_000 * NS
        self.offset = offset
        self.clock = KrakenClock(lambda: self.boot)
        self.steps = Steps(lambda: self.wall, lambda: self.boot, lambda: self.monotonic / NS)

    @property
    def kraken(self) -> int:
        return self.boot + self.offset

    def elapse(self, ns: int) -> None:
        self.boot += ns
        self.monotonic += ns
        self.wall += ns

    def ask(self, there: int, back: int) -> float:
        """Ask for the time as the Date header tells it: cut to seconds."""
        sent = self.boot
        self.elapse(there)
        second = self.kraken // NS * NS
        self.elapse(back)
        return self.clock.sample(sent, self.boot, second, second + NS)


def test_nothing_is_told_before_the_first_answer() -> None:
    machine = Machine()
    assert not machine.clock.known
    assert machine.clock.earliest() is machine.clock.latest() is None
    assert machine.clock.uncertainty_s() == float("inf")


@given(
    st.integers(-DAY_NS, DAY_NS),
    st.lists(st.tuples(st.integers(0, HOUR), st.integers(0, 5 * NS), st.integers(0, 5 * NS)), min_size=1, max_size=20),
)
def test_krakens_time_lies_between_the_bounds(offset: int, asks: list[tuple[int, int, int]]) -> None:
    machine = Machine(1_760_000_000 * NS + offset)
    for pause, there, back in asks:
        machine.elapse(pause)
        if machine.clock.known:
            earliest, latest = machine.clock.earliest(), machine.clock.latest()
            assert earliest is not None
            assert latest is not None
            assert earliest <= machine.kraken <= latest
        assert machine.ask(there, back) == 0.0


@given(st.integers(0, 10**6), st.lists(st.integers(-HOUR, HOUR), max_size=5))
def test_a_wall_clock_that_is_set_changes_nothing(moment: int, steps: list[int]) -> None:
    machine = Machine()
    machine.ask(10, 10)
    for step in steps:
        machine.wall += step
    machine.elapse(moment)
    earliest, latest = machine.clock.earliest(), machine.clock.latest()
    assert earliest is not None
    assert latest is not None
    assert earliest <= machine.kraken <= latest


def test_answers_narrow_the_uncertainty() -> None:
    machine = Machine(1_760_000_000 * NS + 900_000_000)
    machine.ask(1000, 1000)
    first = machine.clock.uncertainty_s()
    machine.elapse(150_000_000)
    machine.ask(1000, 1000)
    assert machine.clock.uncertainty_s() < first <= 1.201


def test_the_uncertainty_grows_while_nobody_answers() -> None:
    machine = Machine()
    machine.ask(1000, 1000)
    before = machine.clock.uncertainty_s()
    machine.elapse(HOUR)
    assert machine.clock.uncertainty_s() > before + 3.0


def test_a_moment_before_a_contradiction_is_told_by_the_earlier_of_both_offsets() -> None:
    """A VM is paused for a minute: no clock of the machine has noticed."""
    machine = Machine()
    machine.ask(0, 0)
    moment, kraken = machine.boot, machine.kraken
    machine.elapse(NS)
    machine.offset += 60 * NS
    assert 58.0 < machine.ask(0, 0) <= 60.2
    earliest = machine.clock.earliest(moment)
    assert earliest is not None
    assert earliest <= kraken
    now = machine.clock.earliest()
    assert now is not None
    assert machine.kraken - 2 * NS <= now <= machine.kraken


@each("offsets", [(0, 1000, 500), (1000, 0, 500), (500, 1000, 0), (1000, 500), (500, 1000)])
def test_a_moment_before_several_contradictions_is_told_by_the_earliest_of_all_offsets(offsets: list[int]) -> None:
    machine = Machine()
    moment = machine.boot
    for offset in offsets:
        machine.offset = offset * NS
        machine.ask(0, 0)
        machine.elapse(NS)
    earliest = machine.clock.earliest(moment)
    assert earliest is not None
    assert min(offsets) - 0.3 <= (earliest - moment) / NS <= min(offsets)


def test_a_moment_before_the_last_answer_is_told_less_exactly_the_longer_ago_it_was() -> None:
    """The clocks may have been slewed since."""
    machine = Machine()
    moment, kraken = machine.boot, machine.kraken
    machine.elapse(HOUR)
    machine.ask(0, 0)
    earliest, latest = machine.clock.earliest(moment), machine.clock.latest(moment)
    assert earliest is not None
    assert latest is not None
    assert earliest <= kraken - NS
    assert kraken + NS <= latest


def test_an_answer_that_is_no_authority_does_not_replace_what_is_known() -> None:
    machine = Machine()
    machine.ask(0, 0)
    before = machine.clock.earliest()
    assert machine.clock.sample(machine.boot, machine.boot, 0, 0, authoritative=False) < -1000
    assert machine.clock.earliest() == before


def test_an_assumed_clock_is_believed_to_a_day_until_kraken_tells_better() -> None:
    machine = Machine()
    machine.clock.assume(machine.wall + HOUR)
    assert machine.clock.uncertainty_s() == 2 * 86400.1
    assert machine.ask(0, 0) == 0.0
    assert machine.clock.uncertainty_s() <= 1.201
    machine.clock.assume(0)
    assert machine.clock.uncertainty_s() <= 1.201


def test_a_step_of_the_wall_clock_and_a_suspend_are_told_apart() -> None:
    machine = Machine()
    machine.elapse(HOUR)
    assert machine.steps.look() == []
    machine.wall -= HOUR
    assert machine.steps.look() == [("wall", -3600.0)]
    machine.boot += 160 * NS
    machine.wall += 160 * NS
    assert machine.steps.look() == [("suspend", 160.0)]
    machine.wall += NS // 10
    assert machine.steps.look() == []


def test_the_boot_clock_runs() -> None:
    first = boot_ns()
    assert boot_ns() >= first > 0
