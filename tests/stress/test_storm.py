"""The storm: the client keeps its promises under a few plans, and the checker, the plans and the reduction work."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kraken_feed.records.render import timestamp
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.market.book import Book
from kraken_feed.simulator.market.counter import PRO
from kraken_feed.simulator.market.engine import Engine
from kraken_feed.simulator.market.ledger import Frame, Item
from kraken_feed.simulator.market.order import Change

from ..support.exchange_driver import T0
from .storm import plan as plans
from .storm.checker import PATIENCE_S, SETTLED_S, Checker, Interval
from .storm.disk import Disk, File, Mark, MemoryStore
from .storm.plan import Action, Plan
from .storm.reasons import REASONS, Excuses, legal
from .storm.shrink import shrink
from .storm.simulation import run, silent

SEEDS = range(1, 9)
SECRET = b"a-very-secret-token"


@pytest.mark.parametrize("seed", SEEDS)
def test_no_promise_is_broken(seed: int) -> None:
    plan = plans.draw(seed, events=1_000)
    result = run(replace(plan, rate=min(plan.rate, 2.0)), silent)
    assert result.violations == ()
    assert result.lines > 0


def test_a_seed_repeats_what_happens() -> None:
    plan = Plan(seed=7, minutes=3, actions=(Action(60, "kill", seconds=20),))
    first, second = run(plan, silent), run(plan, silent)
    assert (first.events, first.lines, first.recovered) == (second.events, second.lines, second.recovered)


# ------------------------------------------------------------------------------------------------ the checker


class Case:
    """A little truth of one channel, and an output that a test spoils."""

    def __init__(self, channel: str = "openOrders", **options: bool) -> None:
        self.channel = channel
        self.excuses = Excuses()
        self.checker = Checker("main", (channel,), [SECRET], self.excuses, **options)
        book = Book(Random(1), PRO)
        engine = Engine(book, Random(1), 1.0, T0)
        self.changes: list[Change] = engine.populate(2, T0 + 10)
        order = self.changes[-1].order
        self.changes += book.fill(order.id, order.volume, T0 + 20)
        self.order_id = order.id
        self.trade_id = next(change.trade.id for change in self.changes if change.trade is not None)
        live = self.record("feed.live", name="feed.live", at=T0 + 1)
        self.noted = {live: T0 + 1}
        self.lines = [live]

    def record(self, event: str, *, name: str, at: float, **fields: object) -> bytes:
        """Return a record of the channel."""
        raw = {"id": f"main:{self.channel}:{name}", "ts": timestamp(int(at * 1e9)), "event_name": event, "v": 1}
        return msgspec.json.encode({**raw, "account": "main", "channel": self.channel, **fields}) + b"\n"

    def gap(self, reason: str, since: float, to: float) -> bytes:
        """Return a `feed.gap`."""
        ends = {"from": timestamp(int(since * 1e9)), "to": timestamp(int(to * 1e9))}
        return self.record("feed.gap", name="gap", at=to, reason=reason, **ends)

    def recovered(self, since: float, to: float) -> bytes:
        """Return a `feed.backfilled`."""
        ends = {"from": timestamp(int(since * 1e9)), "to": timestamp(int(to * 1e9))}
        return self.record("feed.backfilled", name="backfilled", at=to, **ends)

    def end(self, data: bytes = b'{"status":"closed"}', kind: str = "backfill") -> bytes:
        """Return the record of the order's end."""
        fields = {"type": kind, "order_id": self.order_id, "data": msgspec.Raw(data)}
        return self.record("order", name=f"{self.order_id}:end", at=T0 + 20, **fields)

    def update(self, data: bytes = b'{"status":"open"}') -> bytes:
        """Return the record of a mere change of the order."""
        fields = {"type": "update", "order_id": self.order_id, "data": msgspec.Raw(data)}
        return self.record("order", name="c-1:u1:0", at=T0 + 11, **fields)

    def read(self, data: bytes = b'{"status":"open"}') -> None:
        """Let the client read that change."""
        item = Item((self.order_id,), b'{"%b":%b}' % (self.order_id.encode(), data))
        self.checker.read(Frame(1, "v1", self.channel, 1, "update", (item,), b"", T0 + 11))

    def found(self, *, clean: bool = False, marks: tuple[Mark, ...] = (Mark(0, 1),), after: float = 1e5) -> set[str]:
        """Return which invariants are broken."""
        now = T0 + after
        if clean:
            self.checker.clean.add(1)
        self.checker.happened(self.changes)
        self.checker.output(b"".join(self.lines), 0, marks, self.noted, T0 + 30)
        self.checker.check(now, up_since=T0)
        return {violation.invariant for violation in self.checker.violations}


def test_the_checker_is_content_with_a_complete_output() -> None:
    case = Case()
    case.read()
    case.lines += [case.update(), case.end()]
    assert case.found() == set()


def test_the_checker_finds_a_lost_order_end() -> None:
    assert Case().found() == {"something is lost silently"}


@pytest.mark.parametrize("channel", ["ownTrades", "executions"])
def test_the_checker_finds_a_lost_fill(channel: str) -> None:
    case = Case(channel)
    assert "something is lost silently" in case.found()
    assert any(case.trade_id in violation.item for violation in case.checker.violations)


def test_the_checker_finds_a_lost_ledger_entry() -> None:
    assert Case("balances").found() == {"something is lost silently"}


def test_the_checker_waits_as_long_as_an_outage_may_last() -> None:
    assert Case().found(after=20 + PATIENCE_S - 1) == set()
    assert Case().found(after=20 + PATIENCE_S + 1) == {"something is lost silently"}


def test_the_checker_finds_an_interval_that_counts_as_recovered_and_is_not() -> None:
    case = Case()
    case.lines.append(case.recovered(T0 + 15, T0 + 25))
    assert case.found(after=31 + SETTLED_S) == {"an interval counts as recovered and is not"}


def test_the_checker_accepts_what_a_gap_declares() -> None:
    case = Case()
    case.excuses.add("key_span", T0, T0 + 30)
    case.lines.append(case.gap(REASONS[1].begins, T0 + 15, T0 + 25))
    assert case.found() == set()


def test_the_checker_finds_what_lies_beside_a_gap() -> None:
    case = Case()
    case.excuses.add("key_span", T0, T0 + 30)
    case.lines.append(case.gap(REASONS[1].begins, T0 + 21, T0 + 25))
    assert case.found() == {"something is lost silently"}


def test_the_checker_finds_a_declared_interval_that_was_not_recovered_later() -> None:
    case = Case()
    case.excuses.add("key_span", T0, T0 + 30)
    case.lines.append(case.gap(REASONS[1].begins, T0 + 15, T0 + 25))
    assert case.found() == set()
    later = case.recovered(T0 + 15, T0 + 25)
    case.checker.output(later, 10_000, (Mark(0, 1),), {}, T0 + 2e5)
    case.checker.check(T0 + 3e5, up_since=T0)
    assert case.checker.violations[0].invariant == "an interval counts as recovered and is not"


@pytest.mark.parametrize("reason", [REASONS[1].begins, "no reason that anybody knows"])
def test_the_checker_finds_an_unwarranted_gap(reason: str) -> None:
    case = Case()
    case.lines += [case.end(), case.gap(reason, T0 + 15, T0 + 25)]
    assert case.found() == {"a gap without a reason"}


def test_the_checker_finds_an_update_that_was_read_and_not_written() -> None:
    case = Case()
    case.read()
    case.lines.append(case.end())
    assert case.found() == {"an update was read and is not on the output"}


def test_the_checker_finds_an_update_whose_bytes_were_changed() -> None:
    case = Case()
    case.read()
    case.lines += [case.update(b'{"status": "open"}'), case.end()]
    assert case.found() == {"an update was read and is not on the output", "an update on the output was not read"}


def test_the_checker_finds_an_update_under_another_order() -> None:
    case = Case()
    case.read()
    case.lines += [case.update().replace(case.order_id.encode(), b"OAAAAA-AAAAA-AAAAAA"), case.end()]
    assert "an update was read and is not on the output" in case.found()


def test_the_checker_finds_an_update_that_was_written_twice() -> None:
    case = Case()
    case.read()
    case.lines += [case.update(), case.update().replace(b":u1:0", b":u1:1"), case.end()]
    assert case.found() == {"an update on the output was not read"}


def test_the_checker_finds_an_id_that_one_run_wrote_twice() -> None:
    case = Case()
    case.lines += [case.end(), case.end()]
    assert case.found() == {"an id is written twice by one run"}


def test_the_checker_finds_an_id_that_is_repeated_after_a_clean_stop() -> None:
    case = Case()
    case.lines += [case.end(), case.end()]
    marks = (Mark(0, 1), Mark(sum(map(len, case.lines[:2])), 2))
    assert case.found(clean=True, marks=marks) == {"an id is repeated after a clean stop"}


def test_the_checker_accepts_a_repetition_after_a_crash_and_finds_another_item_under_its_id() -> None:
    for data, expected in ((b'{"status":"closed"}', set()), (b'{"status":"expired"}', {"an id stands for two items"})):
        case = Case()
        case.lines += [case.end(), case.end(data)]
        marks = (Mark(0, 1), Mark(sum(map(len, case.lines[:2])), 2))
        assert case.found(marks=marks) == expected


def test_the_checker_finds_a_secret() -> None:
    case = Case()
    case.read(b'{"token":"%b"}' % SECRET)
    case.lines += [case.update(b'{"token":"%b"}' % SECRET), case.end()]
    assert case.found() == {"a secret is on the output"}
    case.checker.secret_in(f"connecting {SECRET.decode()}")
    assert case.checker.violations[-1].invariant == "a secret is in the diagnostics"


def test_the_checker_finds_a_line_that_is_no_record() -> None:
    case = Case()
    case.lines += [case.end(), b'{"id":"main\n']
    assert case.found() == {"a line is no record"}


def test_the_checker_takes_an_item_of_v1_s_second_snapshot_for_an_update() -> None:
    """Its frames do not say what they are."""
    for kind, expected in (("snapshot", set()), ("none", {"an update on the output was not read"})):
        case = Case()
        if kind == "snapshot":
            item = Item((case.order_id,), b'{"%b":{"status":"open"}}' % case.order_id.encode())
            case.checker.read(Frame(1, "v1", case.channel, 1, "snapshot", (item,), b"", T0 + 11))
        case.lines += [case.update(), case.end()]
        assert case.found() == expected


def test_the_checker_accepts_that_a_removed_output_is_written_again() -> None:
    for rescued, expected in ((True, set()), (False, {"an id is written twice by one run"})):
        case = Case()
        if rescued:
            case.checker.rescued.add(1)
        case.lines += [case.end(), case.end()]
        assert case.found() == expected


def test_the_checker_accepts_an_end_by_a_name_that_nobody_knows_only_where_the_plan_has_such_names() -> None:
    for odd, expected in ((True, set()), (False, {"something is lost silently"})):
        case = Case(odd=odd)
        case.lines.append(case.end(b'{"status":"rejected"}').replace(b':end"', b':rejected"'))
        assert case.found() == expected


def test_the_checker_finds_entries_under_any_id_by_what_they_say() -> None:
    case = Case("balances", facts=True)
    first, second = (entry for change in case.changes for entry in change.entries)
    for number, entry in enumerate((first, second)):
        ref, asset, asset_class, amount, balance = entry.fact
        data = {"ledger_id": "", "ref_id": ref, "asset": asset, "asset_class": asset_class, "amount": msgspec.Raw(
            amount.encode()), "balance": msgspec.Raw(balance.encode())}  # fmt: skip
        case.lines.append(case.record("balance", name=f"row-{number}", at=T0 + 20, type="backfill", data=data))
    assert case.found() == set()
    case = Case("balances", facts=True)
    assert case.found() == {"something is lost silently"}
    assert len(case.checker.violations) == 2


def test_the_checker_waits_longer_for_what_lies_in_a_pending_outage() -> None:
    for pending, expected in ((Interval(T0 + 15, T0 + 25), []), (Interval(T0 + 25, T0 + 35), [1])):
        case = Case()
        case.checker.happened(case.changes)
        case.checker.output(b"".join(case.lines), 0, (Mark(0, 1),), case.noted, T0 + 30)
        now = T0 + PATIENCE_S + 100
        case.checker.check(now, up_since=T0, pending={case.channel: [pending]}, patience_s=2 * PATIENCE_S)
        assert [1 for _ in case.checker.violations] == expected


def test_a_client_without_state_and_output_may_begin_anew() -> None:
    case = Case()
    case.checker.happened(case.changes)
    case.checker.output(b"".join(case.lines), 0, (Mark(0, 1),), case.noted, T0 + 30)
    case.checker.forget([case.channel])
    case.checker.check(T0 + 1e5, up_since=T0)
    assert case.checker.violations == []


def test_nothing_is_due_that_happened_before_the_channel_was_live() -> None:
    case = Case()
    case.noted = {case.lines[0]: T0 + 25}
    assert case.found() == set()


# ------------------------------------------------------------------------------------------------ plans and files


@given(st.integers(0, 2**32))
def test_a_plan_survives_being_written_down(seed: int) -> None:
    plan = plans.draw(seed, events=500)
    assert plans.read(plans.write(plan)) == plan


def test_a_power_cut_takes_what_was_not_synced_and_a_torn_line() -> None:
    file = File()
    file.data += b"one\ntwo\nthree\n"
    file.synced = 4
    file.cut(6)
    assert file.take(file.size) == (b"one\n", 0)
    assert bytes(file.data[file.taken :]) == b"tw"


# ------------------------------------------------------------------------------------------------ the reduction


def _fails_with(*kinds: str) -> Callable[[Plan], float | None]:
    """A client that cannot bear these kinds of actions together."""

    def fails(plan: Plan) -> float | None:
        at = [next((action.at for action in plan.actions if action.kind == kind), math.inf) for kind in kinds]
        return max(at) if max(at) < math.inf else None

    return fails


def test_a_plan_is_reduced_to_what_breaks_the_promise() -> None:
    noise = tuple(Action(float(at), "fault", fault=Fault("drop")) for at in range(40))
    actions = sorted((*noise, Action(11.5, "kill", seconds=30), Action(25.5, "suspend", seconds=9)), key=lambda a: a.at)
    plan = Plan(channels=plans.CHANNELS, tier="starter", rest_lag=12.0, minutes=30, actions=tuple(actions))
    smallest = shrink(plan, _fails_with("kill", "suspend"), seconds=30)
    assert [action.kind for action in smallest.actions] == ["kill", "suspend"]
    assert len(smallest.channels) == 1
    assert (smallest.tier, smallest.rest_lag, smallest.minutes) == (Plan().tier, 0.0, 2)


def test_a_plan_that_fails_without_any_action_is_reduced_to_none() -> None:
    plan = Plan(actions=(Action(1.0, "kill"), Action(2.0, "stop")))
    assert shrink(plan, lambda plan: 0.0, seconds=30).actions == ()


def test_a_gap_is_legal_only_while_its_cause_is_at_work() -> None:
    excuses = Excuses()
    excuses.add("rest", T0, T0 + 100)
    reason = "Ledgers: no answer within 10 s."
    assert legal(reason, T0 - 50, T0 + 50, T0 + 1000, excuses).legal
    assert not legal(reason, T0 + 5000, T0 + 5050, T0 + 6000, excuses).legal
    assert not legal("something else", T0 - 50, T0 + 50, T0 + 1000, excuses).legal


def test_a_gap_for_want_of_answers_is_not_legal_within_a_quarter_of_an_hour() -> None:
    excuses = Excuses()
    excuses.add("rest", T0, T0 + 100)
    reason = "After an earlier refusal, no call is allowed for 295 s."
    assert not legal(reason, T0 - 50, T0 + 50, T0 + 200, excuses).legal
    assert legal(reason, T0 - 50, T0 + 50, T0 + 960, excuses).legal


def test_the_volume_of_a_case_is_filled_at_once() -> None:
    assert Case().changes[-1].order.remaining == Decimal(0)


def test_a_store_in_memory_holds_what_was_saved_and_loses_the_last_saves_with_the_power() -> None:
    from kraken_feed.state.checkpoint import Changes, Entry

    disk = Disk()
    store = MemoryStore(disk)
    for number in range(1, 4):
        store.save(Changes(nonce=number, entries={"openOrders": Entry(ended=[f"O{number}:end", "O0:end"])}))
    disk.state.undo(1)
    loaded = disk.state.load()
    assert loaded is not None
    assert loaded.nonce == 2
    assert loaded.channels["openOrders"].ended == ["O1:end", "O2:end", "O0:end"]


def test_a_state_is_older_or_empty_at_the_next_start_only() -> None:
    from kraken_feed.state.checkpoint import Changes

    disk = Disk()
    store = MemoryStore(disk)
    for number in range(1, 5):
        store.save(Changes(nonce=number))
    disk.state.replace_with_copy(2)
    store.save(Changes(nonce=5))
    checkpoint, found = disk.state.open()
    assert (checkpoint is not None and checkpoint.nonce, found) == (3, "saved")
    disk.state.empty()
    assert disk.state.lost
    assert disk.state.open() == (None, "lost")
    assert disk.state.open() == (None, "new")
