"""An outage counts as recovered only with evidence; what stays doubtful is declared as a gap, and tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import structlog
from structlog.testing import LogCapture

from kraken_feed.config.schema import BackfillConfig
from kraken_feed.errors import CredentialsRefused, RequestRefused, Transient
from kraken_feed.feed.known_state import Knowledge
from kraken_feed.feed.recovery import Recovery
from kraken_feed.feed.volumes import Volumes
from kraken_feed.protocol.wire import Item
from kraken_feed.state.checkpoint import Outage, Scan
from kraken_feed.transport.kraken_clock import KrakenClock

from ...support import virtual_time
from ...support.cases import each
from ...support.history_answers import NS, T0, Answers, order, trade

O1, O2, O3 = "OAAAAA-BBBBB-CCCCC1", "OAAAAA-BBBBB-CCCCC2", "OAAAAA-BBBBB-CCCCC3"
T1, T2 = "TAAAAA-BBBBB-CCCCC1", "TAAAAA-BBBBB-CCCCC2"
EXACT = BackfillConfig(overlap_s=0.0)


class Scene:
    """A recovery alone, in virtual time. Seconds count from T0."""

    def __init__(self, answers: Answers, *channels: str, config: BackfillConfig = EXACT) -> None:
        loop = asyncio.get_running_loop()
        self.answers = answers
        self.log = LogCapture()
        self.written: list[tuple[str, Item]] = []
        self.marks: list[tuple[str, str, int | None, int, dict[str, object]]] = []
        self.clock = KrakenClock(lambda: round(loop.time() * NS))
        self.clock.sample(0, 0, T0 * NS, T0 * NS)
        of_v1 = Volumes() if {"openOrders", "ownTrades"} <= set(channels) else None
        self.known = {
            channel: Knowledge(
                channel, before_first_snapshot=False, volumes=Volumes() if channel == "executions" else of_v1
            )
            for channel in channels
        }
        self.recovery = self.restarted(config)

    def restarted(self, config: BackfillConfig = EXACT, **options: Any) -> Recovery:
        log = structlog.wrap_logger(None, processors=[self.log])
        return Recovery(config, self.answers, self.known, self, log, self.clock, **options)

    def write_backfill(self, channel: str, item: Item) -> None:
        self.written.append((channel, item))

    def write_outage(self, channel: str, event_name: str, start: int | None, end: int, **fields: object) -> None:
        self.marks.append((channel, event_name, start, end, fields))

    def open_order(self, channel: str, order_id: str, data: bytes = b'{"status":"open"}') -> None:
        self.known[channel].update(Item(data, order_id))

    def outage(self, channel: str, start: float, end: float, *still_open: str) -> None:
        """Let the channel be lost and live again; the snapshot shows these orders."""
        self.recovery.open(channel, at(start), "closed")
        list(self.known[channel].snapshot([Item(b'{"status":"open"}', name) for name in still_open], "changes"))
        self.recovery.end(channel, at(end))

    @property
    def ids(self) -> list[str]:
        return [item.identity or "" for _, item in self.written]

    def named(self, event_name: str) -> list[dict[str, object]]:
        return [fields for _, name, _, _, fields in self.marks if name == event_name]


def at(seconds: float) -> int:
    return T0 * NS + round(seconds * NS)


def play(script: Callable[[Scene], Any], answers: Answers, *channels: str, config: BackfillConfig = EXACT) -> Scene:
    """Run a recovery beside a script; what there is to look at afterwards."""

    async def main() -> Scene:
        scene = Scene(answers, *channels, config=config)
        running = asyncio.create_task(scene.recovery.run())
        await script(scene)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return scene

    return virtual_time.run(main())


def later(answers: Answers) -> None:
    """Let every source show something that is later than the outages of the tests."""
    answers.rows["ClosedOrders"]["OZZZZZ-ZZZZZ-ZZZZZ1"] = order(at=115.0)
    answers.rows["TradesHistory"]["TZZZZZ-ZZZZZ-ZZZZZ1"] = trade("OZZZZZ-ZZZZZ-ZZZZZ1", 115.0)
    answers.rows["Ledgers"]["LZZZZZ-ZZZZZ-ZZZZZ1"] = {"refid": "x", "time": T0 + 115.0}


async def one_outage(scene: Scene, *channels: str, wait: float = 2000.0, still_open: tuple[str, ...] = ()) -> None:
    await virtual_time.elapse(100.0)
    for channel in channels or scene.known:
        scene.outage(channel, 50.0, 100.0, *still_open)
    await virtual_time.elapse(wait)


# -- where an outage begins and ends


def test_exactly_what_lies_in_the_outage_is_asked_for_and_written() -> None:
    """Rows after it are the live feed's, but for a margin for the engine's clock."""
    answers = Answers()
    answers.rows["TradesHistory"] = {
        "before": trade(O1, 50.0),  # `start` is exclusive, and the feed had it
        "first": trade(O1, 50.001),
        "last": trade(O1, 100.0),
        "margin": trade(O1, 109.9),
        "after": trade(O1, 110.1),
    }
    scene = play(lambda scene: one_outage(scene, wait=150.0), answers, "ownTrades")
    first = answers.asked("TradesHistory")[0]
    assert first["start"] == str(T0 + 50)
    assert first["end"] == str(T0 + 101)  # now, with what the clock may be wrong by
    assert sorted(scene.ids) == ["first", "last", "margin"]
    ((_, name, start, end, _),) = scene.marks
    assert (name, start, end) == ("feed.backfilled", at(50.0), at(100.0))


def test_fills_are_asked_for_after_the_order_ends_that_claim_them() -> None:
    """An order that ends between the two requests would otherwise claim fills that nobody has read."""
    answers = Answers()
    answers.rows["ClosedOrders"][O1] = order(at=60.0)
    scene = play(lambda scene: one_outage(scene, wait=15.0), answers, "executions")
    methods = dict.fromkeys(method for _, method, _ in answers.calls if method in ("ClosedOrders", "TradesHistory"))
    assert list(methods) == ["ClosedOrders", "TradesHistory"]
    assert scene.written


def test_the_overlap_is_put_before_the_outage() -> None:
    answers = Answers()
    play(one_outage, answers, "ownTrades", config=BackfillConfig(overlap_s=30.0))
    assert answers.asked("TradesHistory")[0]["start"] == str(T0 + 20)


def test_an_outage_that_ends_before_it_began_has_no_known_beginning_and_is_a_gap() -> None:
    async def script(scene: Scene) -> None:
        await virtual_time.elapse(100.0)
        scene.outage("ownTrades", 200.0, 100.0)
        await virtual_time.elapse(2000.0)

    scene = play(script, Answers(), "ownTrades")
    ((_, name, start, _, fields),) = scene.marks
    assert (name, start) == ("feed.gap", None)
    assert "beginning" in str(fields["reason"])


def test_an_open_outage_goes_on_from_the_earlier_start() -> None:
    async def script(scene: Scene) -> None:
        scene.recovery.open("ownTrades", at(50.0), "closed")
        scene.recovery.open("ownTrades", at(20.0), "restart")
        scene.recovery.open("ownTrades", at(70.0), "unreadable")
        (outage,) = scene.recovery.outages
        assert (outage.start_ns, outage.end_ns) == (at(20.0), None)

    play(script, Answers(), "ownTrades")


def test_a_query_starts_in_the_second_in_which_the_outage_began() -> None:
    async def script(scene: Scene) -> None:
        await virtual_time.elapse(100.0)
        scene.outage("ownTrades", 50.9, 100.0)
        await virtual_time.elapse(1.0)

    answers = Answers()
    play(script, answers, "ownTrades")
    assert {parameters["start"] for parameters in answers.asked("TradesHistory")} == {str(T0 + 50)}


def test_a_second_pass_starts_a_margin_before_what_the_first_has_read() -> None:
    """Where it has read nothing, all of the overlap is read again."""
    answers = Answers(lag=30.0)
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0), T2: trade(O1, 80.0)}
    scene = play(lambda scene: one_outage(scene, wait=400.0), answers, "ownTrades", config=BackfillConfig(overlap_s=30))
    starts = [
        int(parameters["start"]) - T0 for parameters in answers.asked("TradesHistory") if parameters["ofs"] == "0"
    ]
    assert starts == [20, 50, 70]
    assert sorted(scene.ids) == [T1, T2]
    answers = Answers()
    play(lambda scene: one_outage(scene, wait=200.0), answers, "ownTrades", config=BackfillConfig(overlap_s=30))
    assert {parameters["start"] for parameters in answers.asked("TradesHistory")} == {str(T0 + 20)}


def test_a_row_without_a_time_is_written() -> None:
    """Nobody knows that it is later than the outage."""
    answers = Answers()
    untimed = {"ordertxid": O1, "vol": "1.0"}
    answers.changes = lambda method, result: (
        {"trades": {T1: untimed}} if method == "TradesHistory" and answers.asked(method)[-1]["ofs"] == "0" else result
    )
    scene = play(lambda scene: one_outage(scene, wait=10.0), answers, "ownTrades")
    assert scene.ids == [T1]


def test_volumes_are_compared_from_the_earliest_beginning_to_the_latest_end_once_both_channels_have_an_outage() -> None:
    """v1 tells of executed volumes on one channel, and of fills on the other."""

    async def script(scene: Scene) -> None:
        volumes = Volumes()
        for channel in ("openOrders", "ownTrades"):
            scene.known[channel] = Knowledge(channel, before_first_snapshot=False, volumes=volumes)
        recovery = scene.restarted()

        def bounds() -> tuple[int | None, int | None]:
            return volumes.since, volumes.until

        recovery.open("openOrders", at(50.0), "closed")
        assert bounds() == (None, None)
        recovery.open("ownTrades", at(60.0), "closed")
        recovery.end("openOrders", at(100.0))
        assert bounds() == (at(50.0), None)
        recovery.end("ownTrades", at(90.0))
        assert bounds() == (at(50.0), at(100.0))

    play(script, Answers())


def test_an_open_outage_whose_beginning_was_lost_stays_without_one() -> None:
    async def script(scene: Scene) -> None:
        for starts in ((None, at(50.0)), (at(50.0), None)):
            recovery = scene.restarted()
            for start in starts:
                recovery.open("ownTrades", start, "closed")
            assert [outage.start_ns for outage in recovery.outages] == [None]

    play(script, Answers(), "ownTrades")


# -- has history caught up


def test_history_that_shows_something_later_than_the_outage_has_caught_up() -> None:
    """No second pass is needed then."""
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0), T2: trade(O1, 100.5)}

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(101.0)
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(1.0)

    scene = play(script, answers, "ownTrades")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]
    assert scene.marks[0][4]["trades"] == 2


@each("lag", [30.0, 200.0, 800.0])
def test_what_history_shows_late_is_written_before_the_outage_counts_as_recovered(lag: float) -> None:
    answers = Answers(lag=lag)
    answers.rows["ClosedOrders"] = {O1: order("canceled", 70.0)}  # opened and ended in the outage: nothing tells of it
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0)}
    scene = play(one_outage, answers, "openOrders", "ownTrades")
    assert sorted(scene.ids) == [f"{O1}:end", T1]
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"] * 2


def test_a_busy_account_is_recovered_as_soon_as_history_shows_it() -> None:
    answers = Answers(lag=40.0)
    answers.rows["TradesHistory"] = {f"T{n}": trade(O1, float(n)) for n in range(1, 1000)}

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(100.0)
        for n in (*range(1, 51), *range(101, 1000)):
            scene.known["ownTrades"].update(Item(b"{}", O1, f"T{n}", f"T{n}"))
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(95.0)

    scene = play(script, answers, "ownTrades")
    assert sorted(scene.ids) == sorted(f"T{n}" for n in range(51, 101))
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_rows_that_become_visible_while_pages_are_read_do_not_shift_them() -> None:
    """Otherwise each page of a busy account would show the last one's rows once more, until history has caught up."""
    answers = Answers(lag=30.0, page=10, pace=4.0)
    answers.rows["TradesHistory"] = {f"T{n}": trade(O1, n / 2) for n in range(1, 2000)}

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(100.0)
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(300.0)

    scene = play(script, answers, "ownTrades")
    offsets = [int(parameters["ofs"]) for parameters in answers.asked("TradesHistory")]
    first = offsets[: offsets.index(0, 1)]
    assert first == [0, 10, 20, 30, 40, 48], "the rest of the first answer's 48 rows, and then the empty page"
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_a_quiet_account_is_recovered_by_the_first_row_after_the_outage_however_late_it_is() -> None:
    """Each pass looks further beyond the outage than the one before."""
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 350.0)}
    scene = play(lambda scene: one_outage(scene, wait=310.0), answers, "ownTrades")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]
    assert scene.ids == []  # that row is the live feed's


def test_a_row_at_the_very_end_of_the_outage_does_not_prove_that_history_has_caught_up() -> None:
    """Another one of the same moment may come behind it."""
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 100.0)}
    scene = play(lambda scene: one_outage(scene, wait=850.0), answers, "ownTrades")
    assert (scene.ids, scene.marks) == ([T1], [])


def test_without_a_later_row_an_outage_is_recovered_after_a_quarter_of_an_hour_and_not_before() -> None:
    scene = play(lambda scene: one_outage(scene, wait=899.0), Answers(), "ownTrades")
    assert scene.marks == []
    scene = play(lambda scene: one_outage(scene, wait=902.0), Answers(), "ownTrades")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_a_row_from_the_future_does_not_prove_that_history_has_caught_up() -> None:
    answers = Answers(lag=120.0)
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0)}
    answers.changes = lambda method, result: (
        {"trades": {**result["trades"], "TZ": trade(O2, 1e6)}}
        if method == "TradesHistory" and answers.asked(method)[-1]["ofs"] == "0"
        else result
    )
    scene = play(lambda scene: one_outage(scene, wait=95.0), answers, "ownTrades")
    assert scene.marks == []


# -- pages


@each("page", [1, 7, 49, 50])
def test_pages_are_asked_for_up_to_the_empty_one_however_short_they_are(page: int) -> None:
    answers = Answers(page=page)
    answers.rows["TradesHistory"] = {f"T{n:02}": trade(O1, 51.0 + n / 10) for n in range(59)}
    scene = play(one_outage, answers, "ownTrades")
    assert len(set(scene.ids)) == len(scene.ids) == 59
    assert scene.named("feed.backfilled")[0]["trades"] == 59
    offsets = [int(parameters["ofs"]) for parameters in answers.asked("TradesHistory")]
    assert offsets[-(-59 // page)] == 59


def test_a_count_that_disagrees_with_the_rows_is_a_gap_that_names_it() -> None:
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order("canceled", 60.0)}
    answers.changes = lambda method, result: {**result, "count": 12} if method == "ClosedOrders" else result
    scene = play(one_outage, answers, "openOrders")
    (gap,) = scene.named("feed.gap")
    assert "ClosedOrders counts 11 rows more than it returns" in str(gap["reason"])
    assert scene.ids == [f"{O1}:end"]


def test_rows_withheld_for_a_while_are_written_when_they_come() -> None:
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order("canceled", 60.0)}
    answers.changes = lambda method, result: (
        {**result, "closed": {}} if method == "ClosedOrders" and answers.calls[-1][0] < 250 else result
    )
    scene = play(one_outage, answers, "openOrders")
    assert scene.ids == [f"{O1}:end"]
    assert len(scene.named("feed.backfilled")) == 1


def test_an_interrupted_query_goes_on_at_the_page_that_it_reached() -> None:
    answers = Answers(page=10)
    answers.rows["TradesHistory"] = {f"T{n:02}": trade(O1, 51.0 + n / 10) for n in range(95)}
    refused = iter([None, None, None, Transient("Not now.", cause="throttled"), *[None] * 1000])
    answers.fails = lambda method, parameters: next(refused) if method == "TradesHistory" else None
    scene = play(lambda scene: one_outage(scene, wait=80.0), answers, "ownTrades")
    offsets = [int(parameters["ofs"]) for parameters in answers.asked("TradesHistory")]
    assert offsets == [0, 10, 20, 30, 30, 40, 50, 60, 70, 80, 90, 95]
    assert len({parameters["end"] for parameters in answers.asked("TradesHistory")[1:]}) == 1
    assert len(scene.ids) == 95


def test_a_restart_goes_on_with_the_query_of_the_run_before() -> None:
    answers = Answers(page=10)
    answers.rows["TradesHistory"] = {f"T{n:02}": trade(O1, 51.0 + n / 10) for n in range(45)}
    stop = Transient("Not now.", cause="token", delay=1e6)
    answers.fails = lambda method, parameters: stop if parameters.get("ofs") == "30" and not restarted else None
    restarted: list[bool] = []

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=10.0)
        (outage,), scans = scene.recovery.outages, list(scene.recovery.scanner.scans.values())
        restarted.append(True)
        scene.recovery = scene.restarted(scans=scans)
        outage.due_ns = 0
        scene.recovery.resume(outage)
        task = asyncio.create_task(scene.recovery.run())
        await virtual_time.elapse(2000.0)
        task.cancel()

    scene = play(script, answers, "ownTrades")
    offsets = [int(parameters["ofs"]) for parameters in answers.asked("TradesHistory")]
    assert offsets[:7] == [0, 10, 20, 30, 30, 40, 45]
    assert len(scene.ids) == 45
    assert len(scene.named("feed.backfilled")) == 1


@each("counted", [45, 46])
def test_the_count_is_compared_with_the_rows_of_an_interrupted_query_too(counted: int) -> None:
    answers = Answers(page=10)
    answers.rows["ClosedOrders"] = {f"O{n:02}": order("canceled", 51.0 + n / 10) for n in range(45)}
    answers.changes = lambda method, result: {**result, "count": counted} if method == "ClosedOrders" else result
    refused = iter([None, None, None, Transient("Not now.", cause="throttled"), *[None] * 1000])
    answers.fails = lambda method, parameters: next(refused) if method == "ClosedOrders" else None
    scene = play(one_outage, answers, "openOrders")
    assert len(scene.ids) == 45
    assert len(scene.named("feed.gap")) == counted - 45


@each(
    ("age", "channels", "start", "offset"),
    [
        (800.0, {"ownTrades": 100.0}, 50, "10"),
        (901.0, {"ownTrades": 100.0}, 50, "0"),  # what it has seen proves little by now
        (800.0, {"ownTrades": 99.0}, 50, "0"),  # it left out what came later
        (800.0, {"executions": 100.0}, 50, "0"),
        (800.0, {"ownTrades": 100.0}, 51, "0"),  # it began later than the outage
    ],
)
def test_an_interrupted_query_is_gone_on_with_if_it_is_fresh_and_brings_all_that_the_outage_needs(
    age: float, channels: dict[str, float], start: int, offset: str
) -> None:
    answers = Answers()

    async def script(scene: Scene) -> None:
        ends = {channel: at(end) for channel, end in channels.items()}
        scan = Scan("TradesHistory", T0 + start, T0 + 200, at(100.0), ends, offset=10)
        await virtual_time.elapse(100.0 + age)
        scene.recovery.scanner.scans[scan.source] = scan
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(1.0)

    play(script, answers, "ownTrades", "executions")
    assert answers.asked("TradesHistory")[0]["ofs"] == offset


def test_a_row_that_the_count_missed_is_found_though_it_is_older_than_the_newest() -> None:
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order("canceled", 60.0), O2: order("canceled", 90.0)}

    def without_the_older(method: str, result: dict[str, Any]) -> Any:
        if method != "ClosedOrders" or answers.calls[-1][0] > 150.0:
            return result
        return {**result, "closed": {name: row for name, row in result["closed"].items() if name != O1}}

    answers.changes = without_the_older
    scene = play(one_outage, answers, "openOrders")
    assert sorted(scene.ids) == [f"{O1}:end", f"{O2}:end"]
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_rows_that_came_before_an_interruption_are_not_called_missing() -> None:
    answers = Answers(page=10)
    answers.rows["ClosedOrders"] = {f"O{n:02}": order("canceled", 51.0 + n / 10) for n in range(25)}
    later(answers)
    refused = iter([None, Transient("Not now.", cause="token"), *[None] * 1000])
    answers.fails = lambda method, parameters: next(refused) if method == "ClosedOrders" else None

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(120.0)
        scene.outage("openOrders", 50.0, 100.0)
        await virtual_time.elapse(10.0)

    scene = play(script, answers, "openOrders")
    assert [parameters["ofs"] for parameters in answers.asked("ClosedOrders")] == ["0", "10", "10", "20", "26"]
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_rows_that_become_visible_between_two_pages_are_not_called_missing() -> None:
    answers = Answers()
    later(answers)
    answers.changes = lambda method, result: (
        {**result, "count": len(answers.asked(method))} if method == "ClosedOrders" else result
    )

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(120.0)
        scene.outage("openOrders", 50.0, 100.0)
        await virtual_time.elapse(1.0)

    assert [name for _, name, *_ in play(script, answers, "openOrders").marks] == ["feed.backfilled"]


def test_a_row_that_reads_differently_in_the_next_pass_is_written_once() -> None:
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0)}
    answers.changes = lambda method, result: (
        {"trades": {name: {**row, "fee": len(answers.calls)} for name, row in result["trades"].items()}}
        if method == "TradesHistory"
        else result
    )
    scene = play(one_outage, answers, "ownTrades", config=BackfillConfig(overlap_s=30.0))
    assert len([row for row in answers.asked("TradesHistory") if row["ofs"] == "1"]) > 1
    assert scene.ids == [T1]


def test_an_interrupted_query_does_not_serve_a_channel_that_it_was_not_begun_for() -> None:
    answers = Answers(page=10)
    answers.rows["TradesHistory"] = {f"T{n:02}": trade(O1, 51.0 + n / 10) for n in range(25)}
    refused = iter([None, Transient("Not now.", cause="token"), *[None] * 1000])
    answers.fails = lambda method, parameters: next(refused) if method == "TradesHistory" else None

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(100.0)
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(1.0)
        scene.outage("executions", 50.0, 100.0)
        await virtual_time.elapse(2000.0)

    scene = play(script, answers, "ownTrades", "executions")
    for channel in ("ownTrades", "executions"):
        assert len([item for name, item in scene.written if name == channel]) == 25, channel


# -- orders that vanished


def test_an_order_that_vanished_is_recovered_from_its_state() -> None:
    answers = Answers()
    answers.orders[O1] = order("closed", 60.0)

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        scene.open_order("openOrders", O2)
        await one_outage(scene, still_open=(O2,))

    scene = play(script, answers, "openOrders")
    assert scene.ids == [f"{O1}:end"]
    assert answers.asked("QueryOrders")[0]["txid"] == O1
    assert scene.named("feed.backfilled")[0]["orders"] == 1


def test_an_order_that_history_calls_open_and_the_snapshot_lacks_is_asked_for_again() -> None:
    answers = Answers()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=150.0)
        assert scene.marks == []
        answers.orders[O1] = order("canceled", 60.0)
        await virtual_time.elapse(2000.0)

    scene = play(script, answers, "openOrders")
    assert scene.ids == [f"{O1}:end"]
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_a_contradiction_is_asked_again_after_2_5_and_15_minutes_then_a_gap_then_every_hour_for_three_days() -> None:
    answers = Answers()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=4 * 86400.0)

    scene = play(script, answers, "openOrders")
    times = [round(now) for now, method, _ in answers.calls if method == "QueryOrders"]
    assert all(abs(a - b) <= 2 for a, b in zip(times, [100, 220, 400, 1000, 4600], strict=False))
    assert all(abs(b - a - 3600) <= 2 for a, b in pairwise(times[3:]))
    assert 70 <= len(times) - 4 <= 73
    (gap,) = scene.named("feed.gap")
    assert O1 in str(gap["reason"])
    assert scene.recovery.outages == []
    assert O1 not in scene.known["openOrders"].orders


def test_a_gap_that_history_can_fill_later_is_recovered_for_the_same_interval() -> None:
    answers = Answers()

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene)
        assert [name for _, name, *_ in scene.marks] == ["feed.gap"]
        answers.orders[O1] = order("canceled", 60.0)
        await virtual_time.elapse(3700.0)

    scene = play(script, answers, "openOrders")
    gap, closed = scene.marks
    assert gap[:2] == ("openOrders", "feed.gap")
    assert closed[:2] == ("openOrders", "feed.backfilled")
    assert gap[2:4] == closed[2:4]
    assert scene.ids == [f"{O1}:end"]
    assert "does not say" in str(gap[4]["reason"])


def test_what_a_pass_said_of_an_order_does_not_outlive_it() -> None:
    answers = Answers()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=60.0)
        answers.orders.clear()
        await virtual_time.elapse(2000.0)

    (gap,) = play(script, answers, "openOrders").named("feed.gap")
    assert "does not say how these orders ended" in str(gap["reason"])
    assert "open" not in str(gap["reason"])


def test_a_doubt_is_declared_only_by_a_pass_that_began_a_quarter_of_an_hour_after_the_outage() -> None:
    """A pass can take minutes, and what it asked first is old news at its end."""

    class Slow(Answers):
        async def call(self, method: str, /, *, cost: float, reserve: float, **parameters: str) -> msgspec.Raw:
            result = await super().call(method, cost=cost, reserve=reserve, **parameters)
            if method == "ClosedOrders" and 390.0 < asyncio.get_running_loop().time() < 410.0:
                await virtual_time.elapse(700.0)
                self.orders[O1] = order("canceled", 60.0)
            return result

    answers = Slow()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene)

    scene = play(script, answers, "openOrders")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]
    assert scene.ids == [f"{O1}:end"]


def test_after_three_days_only_the_orders_that_vanished_in_that_outage_are_forgotten() -> None:
    answers = Answers()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        scene.open_order("openOrders", O2)
        await one_outage(scene, wait=3 * 86400.0 - 3000.0, still_open=(O2,))
        scene.outage("openOrders", 3 * 86400.0 - 3200.0, 3 * 86400.0 - 3100.0)  # O2 vanishes too
        await virtual_time.elapse(9000.0)

    scene = play(script, answers, "openOrders")
    assert scene.known["openOrders"].orders.keys() == {O2}
    assert len(scene.recovery.outages) == 1


@each("word", ["rejected", "", "settled"])
def test_an_order_in_an_unknown_state_is_written_and_declared(word: str) -> None:
    answers = Answers()
    answers.orders[O1] = order(word, 60.0)

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene)

    scene = play(script, answers, "openOrders")
    assert [item.order_id for _, item in scene.written] == [O1]
    (gap,) = scene.named("feed.gap")
    assert word in str(gap["reason"])
    assert O1 in str(gap["reason"])


@each("word", ["Canceled", "CLOSED", "Expired"])
def test_a_final_state_is_known_in_any_case(word: str) -> None:
    answers = Answers()
    answers.orders[O1] = order(word, 60.0)

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene)

    scene = play(script, answers, "openOrders")
    assert scene.ids == [f"{O1}:end"]
    assert len(scene.named("feed.backfilled")) == 1


def test_an_order_that_comes_back_on_the_feed_is_not_missing() -> None:
    answers = Answers()
    answers.orders[O1] = order("open")

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=60.0)
        scene.open_order("openOrders", O1, b'{"vol_exec":"0.5"}')
        await virtual_time.elapse(2000.0)

    scene = play(script, answers, "openOrders")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_fills_that_do_not_add_up_to_an_orders_volume_are_waited_for() -> None:
    """The order's end is there, one of its two fills is not yet."""
    answers = Answers()
    answers.lag["TradesHistory"] = 0.0
    answers.orders[O1] = order("closed", 60.0, vol_exec="1.0")
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0, "0.4")}
    later(answers)

    async def script(scene: Scene) -> None:
        scene.open_order("executions", O1, b'{"order_id":"x","cum_qty":0}')
        await virtual_time.elapse(100.0)
        scene.outage("executions", 50.0, 100.0)
        await virtual_time.elapse(450.0)
        assert scene.marks == []
        answers.rows["TradesHistory"][T2] = trade(O1, 60.0, "0.6")
        await virtual_time.elapse(1000.0)

    scene = play(script, answers, "executions")
    assert {T1, T2, f"{O1}:end"} <= set(scene.ids)
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]


def test_fills_that_never_add_up_are_a_gap_that_names_the_order() -> None:
    answers = Answers()
    answers.orders[O1] = order("closed", 60.0, vol_exec="1.0")
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0, "0.4")}

    async def script(scene: Scene) -> None:
        scene.open_order("executions", O1, b'{"order_id":"x","cum_qty":0}')
        await one_outage(scene)

    scene = play(script, answers, "executions")
    (gap,) = scene.named("feed.gap")
    assert "do not add up" in str(gap["reason"])
    assert O1 in str(gap["reason"])


def test_a_later_outage_that_is_recovered_does_not_settle_what_an_earlier_one_lacks() -> None:
    answers = Answers()
    answers.orders[O1] = order("closed", 60.0, vol_exec="1.0")
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0, "0.4"), T2: trade(O2, 312.0)}
    answers.rows["ClosedOrders"] = {O3: order("canceled", 312.0)}

    async def script(scene: Scene) -> None:
        scene.open_order("executions", O1, b'{"order_id":"x","cum_qty":0}')
        await one_outage(scene, wait=220.0)
        scene.outage("executions", 300.0, 310.0)
        await virtual_time.elapse(2000.0)

    scene = play(script, answers, "executions")
    assert [(name, start) for _, name, start, *_ in scene.marks] == [
        ("feed.backfilled", at(300.0)),
        ("feed.gap", at(50.0)),
    ]


def test_a_declared_outage_whose_fills_fell_short_is_not_recovered_because_a_restart_has_forgotten_the_volumes() -> (
    None
):
    answers = Answers()
    later(answers)

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(120.0)
        known = Outage("executions", at(50.0), "closed", at(100.0), short={O1}, declared_ns=at(110.0))
        scene.recovery.resume(known)
        scene.recovery.end("executions", at(100.0))  # wakes it
        await virtual_time.elapse(4000.0)

    assert play(script, answers, "executions").marks == []


def test_fills_that_an_earlier_run_has_read_are_read_again_before_anything_is_called_short() -> None:
    """This run has not added them up."""
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order("closed", 62.0, vol_exec="1.0", opentm=T0 + 52)}
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0, "0.4"), T2: trade(O1, 62.0, "0.6")}

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(1100.0)
        scene.recovery.resume(Outage("executions", at(50.0), "closed", at(100.0), complete={"TradesHistory": at(60.0)}))
        scene.recovery.end("executions", at(100.0))  # wakes it
        await virtual_time.elapse(300.0)

    scene = play(script, answers, "executions")
    assert [name for _, name, *_ in scene.marks] == ["feed.backfilled"]
    assert {T1, T2, f"{O1}:end"} <= set(scene.ids)


# -- what REST refuses


@each("wrong_s", [-10 * 365 * 86400.0, -3600.0, 0.0, 3600.0, 10 * 365 * 86400.0])
def test_a_time_that_is_only_assumed_declares_nothing_and_delays_nothing(wrong_s: float) -> None:
    """Kraken's time is not known at the start, and the wall clock is wrong. Nothing answers for five minutes."""
    answers = Answers()
    answers.rows["TradesHistory"][T1] = trade(O1, 60.0)
    answers.fails = lambda method, parameters: Transient(f"{method}: HTTP 403.", cause="token", delay=300.0)

    async def script(scene: Scene) -> None:
        now = asyncio.get_running_loop().time
        await virtual_time.elapse(100.0)
        scene.clock.__post_init__()  # forgets what it knows
        scene.clock.assume(at(now() + wrong_s))
        scene.recovery.resume(Outage("ownTrades", at(50.0), "closed", at(90.0)))
        scene.recovery.end("ownTrades", 0)  # nothing is open: it only wakes the recovery
        await virtual_time.elapse(300.0)
        assert scene.marks == []
        answers.fails = lambda method, parameters: None
        sent = round(now() * NS)
        scene.clock.sample(sent, sent, at(now()), at(now()))
        await virtual_time.elapse(900.0)

    scene = play(script, answers, "ownTrades")
    assert scene.ids == [T1]
    ((_, name, start, end, _),) = scene.marks
    assert (name, start, end) == ("feed.backfilled", at(50.0), at(90.0))


def test_an_outage_of_rest_is_waited_out_and_after_a_quarter_of_an_hour_declared() -> None:
    answers = Answers()
    answers.fails = lambda method, parameters: (
        Transient("ClosedOrders: no answer.", cause="token") if method == "ClosedOrders" else None
    )

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=890.0)
        assert scene.marks == []
        await virtual_time.elapse(100.0)

    scene = play(script, answers, "openOrders")
    (gap,) = scene.named("feed.gap")
    assert "ClosedOrders" in str(gap["reason"])
    times = [now for now, method, _ in answers.calls if method == "ClosedOrders" and now < 1000]
    assert max(b - a for a, b in pairwise(times)) <= 61.0


@each("error", [RequestRefused, CredentialsRefused])
def test_a_refusal_is_a_gap_at_once_and_tried_again_in_an_hour(
    error: type[RequestRefused | CredentialsRefused],
) -> None:
    answers = Answers()
    refused: list[bool] = [True]
    answers.fails = lambda method, parameters: (
        error("Refused.", why="EGeneral:Permission denied") if method == "Ledgers" and refused else None
    )

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=5.0)
        assert [name for _, name, *_ in scene.marks] == ["feed.gap"]
        refused.clear()
        await virtual_time.elapse(3700.0)

    scene = play(script, answers, "balances")
    assert [name for _, name, *_ in scene.marks] == ["feed.gap", "feed.backfilled"]
    assert "EGeneral:Permission denied" in str(scene.marks[0][4]["reason"])


@each("result", [{}, {"open": {}}, [], "x", None, 7])
def test_an_answer_of_another_shape_is_asked_again_and_then_declared(result: Any) -> None:
    answers = Answers()
    answers.changes = lambda method, found: result if method == "ClosedOrders" else found
    scene = play(one_outage, answers, "openOrders")
    (gap,) = scene.named("feed.gap")
    assert "ClosedOrders" in str(gap["reason"])
    assert len(answers.asked("ClosedOrders")) > 3


def test_a_key_that_is_limited_in_time_recovers_what_it_may_see_and_declares_the_rest() -> None:
    answers = Answers()
    answers.span = {"query_from": str(T0 + 80), "query_to": "0"}
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0), T2: trade(O1, 90.0)}
    scene = play(one_outage, answers, "ownTrades")
    assert scene.ids == [T2]
    (_, gap, *gap_span, fields), (_, closed, *closed_span, _) = scene.marks
    assert (gap, gap_span) == ("feed.gap", [at(50.0), at(80.0)])
    assert (closed, closed_span) == ("feed.backfilled", [at(80.0), at(100.0)])
    assert f"from unix time {T0 + 80} on" in str(fields["reason"])
    assert all(int(parameters["start"]) >= T0 + 80 for parameters in answers.asked("TradesHistory"))


def test_fills_that_do_not_add_up_are_no_doubt_about_an_outage_before_the_order_was_opened() -> None:
    """An earlier run has read the second outage's fills, and the volumes were forgotten with it."""
    answers = Answers()
    answers.lag["ClosedOrders"] = 850.0
    answers.rows["TradesHistory"] = {T1: trade(O1, 250.0)}
    answers.rows["ClosedOrders"] = {O1: order(at=260.0, opentm=T0 + 240.0, vol_exec="1.0")}

    async def script(scene: Scene) -> None:
        scene.known["executions"].backfilled(Item(b"{}", O1, T1, T1), "TradesHistory")
        await virtual_time.elapse(100.0)
        scene.outage("executions", 50.0, 100.0)
        await virtual_time.elapse(200.0)
        scene.outage("executions", 200.0, 300.0)
        scene.recovery.outages[-1].complete["TradesHistory"] = at(301.0)
        await virtual_time.elapse(3000.0)

    scene = play(script, answers, "executions")
    assert scene.named("feed.gap") == []
    assert len(scene.named("feed.backfilled")) == 2


def test_what_is_short_on_one_api_is_a_doubt_about_the_outages_of_the_other_too() -> None:
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order(at=90.0, opentm=T0 + 80.0, vol_exec="1.0")}
    scene = play(one_outage, answers, "executions", "openOrders", "ownTrades")
    assert {channel for channel, name, *_ in scene.marks if name == "feed.gap"} == {"executions", "ownTrades"}


def test_an_end_that_only_one_source_tells_settles_the_doubts_of_the_other_in_the_same_pass() -> None:
    """Also in the last pass, after which a doubt is declared."""
    answers = Answers(lag=930.0)
    answers.orders[O1] = order("rejected", at=60.0)
    answers.rows["ClosedOrders"] = {O1: order("closed", at=60.0)}

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=3000.0)

    scene = play(script, answers, "openOrders")
    assert scene.named("feed.gap") == []
    assert f"{O1}:end" in scene.ids


def test_what_a_declared_outage_is_short_of_is_no_doubt_about_a_later_one() -> None:
    answers = Answers()
    answers.rows["ClosedOrders"] = {O1: order(at=90.0, opentm=T0 + 80.0, vol_exec="1.0")}
    refused = CredentialsRefused("TradesHistory was refused for good.", why="EGeneral:Permission denied")
    answers.fails = lambda method, parameters: refused if method == "TradesHistory" else None

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=200.0)
        answers.fails = lambda method, parameters: None
        scene.outage("executions", 250.0, 300.0)
        await virtual_time.elapse(3000.0)

    scene = play(script, answers, "executions")
    assert [start for _, name, start, *_ in scene.marks if name == "feed.gap"] == [at(50.0)]
    assert [start for _, name, start, *_ in scene.marks if name == "feed.backfilled"] == [at(250.0)]


def test_a_key_that_is_limited_while_it_is_asked_recovers_what_it_may_still_see_and_declares_the_rest() -> None:
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0), T2: trade(O1, 90.0)}

    def limited(method: str, result: dict[str, Any]) -> dict[str, Any]:
        if method == "TradesHistory":  # the key was looked at before
            answers.span = {"query_from": str(T0 + 80), "query_to": "0"}
            result["trades"].pop(T1, None)
            result["count"] = len(result["trades"])
        return result

    answers.changes = limited
    scene = play(one_outage, answers, "ownTrades")
    assert scene.ids == [T2]
    (_, gap, *gap_span, _), (_, closed, *closed_span, _) = scene.marks
    assert (gap, gap_span) == ("feed.gap", [at(50.0), at(80.0)])
    assert (closed, closed_span) == ("feed.backfilled", [at(80.0), at(100.0)])


def test_a_key_that_may_see_the_middle_of_an_outage_has_a_gap_at_either_end() -> None:
    answers = Answers()
    answers.span = {"query_from": str(T0 + 60), "query_to": str(T0 + 80)}
    answers.rows["TradesHistory"] = {T1: trade(O1, 70.0)}
    scene = play(one_outage, answers, "ownTrades")
    assert scene.ids == [T1]
    marks = sorted((start, end, name) for _, name, start, end, _ in scene.marks if start is not None)
    assert marks == [
        (at(50.0), at(60.0), "feed.gap"),
        (at(60.0), at(80.0), "feed.backfilled"),
        (at(80.0), at(100.0), "feed.gap"),
    ]
    assert max(int(parameters["end"]) for parameters in answers.asked("TradesHistory")) == T0 + 80


def test_a_query_goes_no_further_than_the_key_may_see() -> None:
    answers = Answers()
    answers.span = {"query_from": "0", "query_to": str(T0 + 105)}
    play(lambda scene: one_outage(scene, wait=300.0), answers, "ownTrades")
    assert {parameters["end"] for parameters in answers.asked("TradesHistory")} == {str(T0 + 101), str(T0 + 105)}


def test_nothing_is_recovered_until_it_is_known_what_the_key_may_see() -> None:
    answers = Answers()
    answers.span = {"query_from": str(T0 + 80), "query_to": "0"}
    later(answers)
    answers.fails = lambda method, parameters: (
        Transient("No answer.", cause="token") if method == "GetApiKeyInfo" and len(answers.calls) < 3 else None
    )

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(120.0)
        scene.outage("ownTrades", 50.0, 100.0)
        await virtual_time.elapse(100.0)

    scene = play(script, answers, "ownTrades")
    assert [(name, start) for _, name, start, *_ in scene.marks] == [
        ("feed.gap", at(50.0)),
        ("feed.backfilled", at(80.0)),
    ]


def test_a_key_that_was_given_more_recovers_what_was_declared() -> None:
    answers = Answers()
    answers.span = {"query_from": str(T0 + 200), "query_to": "0"}
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0)}

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=10.0)
        assert [(name, start, end) for _, name, start, end, _ in scene.marks] == [("feed.gap", at(50.0), at(100.0))]
        assert answers.asked("TradesHistory") == []
        answers.span = {"query_from": "0", "query_to": "0"}
        await virtual_time.elapse(3600.0)

    scene = play(script, answers, "ownTrades")
    assert scene.ids == [T1]
    assert [name for _, name, *_ in scene.marks] == ["feed.gap", "feed.backfilled"]


def test_every_retry_of_a_gap_asks_what_the_key_may_see_by_now() -> None:
    """Also where another outage has asked that within the hour."""
    answers = Answers()
    answers.span = {"query_from": str(T0 + 50_000), "query_to": "0"}

    async def script(scene: Scene) -> None:
        await one_outage(scene, wait=3000.0)
        scene.outage("ownTrades", 3000.0, 3100.0)
        await virtual_time.elapse(100.0)
        answers.span = {"query_from": "0", "query_to": "0"}
        await virtual_time.elapse(510.0)

    scene = play(script, answers, "ownTrades")
    assert [(name, start) for _, name, start, *_ in scene.marks] == [
        ("feed.gap", at(50.0)),
        ("feed.gap", at(3000.0)),
        ("feed.backfilled", at(50.0)),
    ]


def test_a_key_whose_span_has_ended_recovers_nothing_and_says_so() -> None:
    answers = Answers()
    answers.span = {"query_from": "0", "query_to": str(T0 + 20)}
    scene = play(one_outage, answers, "ownTrades")
    (gap,) = scene.named("feed.gap")
    assert f"up to unix time {T0 + 20}" in str(gap["reason"])
    assert answers.asked("TradesHistory") == []


def test_what_came_between_two_outages_was_written_by_the_feed() -> None:
    """Hours can lie between them: by then the feed's ids are forgotten."""
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0), T2: trade(O1, 80.0), "T3": trade(O1, 95.0)}
    later(answers)

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(160.0)
        scene.outage("ownTrades", 50.0, 60.0)
        scene.outage("ownTrades", 90.0, 100.0)
        await virtual_time.elapse(1.0)

    scene = play(script, answers, "ownTrades")
    assert scene.ids == [T1, "T3"]
    assert len(scene.named("feed.backfilled")) == 2


@each("told", [True, False])
def test_live_fills_add_up_to_an_end_of_which_nothing_else_is_known(told: bool) -> None:
    """The order's objects were forgotten, its fill was not; only the fill can show that nothing is missing. It has one
    chance: the quarter of an hour in which doubts are asked again is over."""
    answers = Answers()
    times = {"opentm": T0 + 91, "vol_exec": "1.0"}
    answers.rows["ClosedOrders"] = {O1: order("closed", 95.0, **times)}
    answers.rows["TradesHistory"] = {T1: trade(O1, 92.0)} if told else {}
    later(answers)

    async def script(scene: Scene) -> None:
        known = scene.known["executions"]
        known.seen.add(T1, 1)
        await virtual_time.elapse(1200.0)
        for channel in scene.known:
            scene.outage(channel, 90.0, 100.0)
        await virtual_time.elapse(2000.0)

    scene = play(script, answers, "ownTrades", "executions", config=msgspec.structs.replace(EXACT, overlap_s=30.0))
    about_volumes = [gap for gap in scene.named("feed.gap") if "do not add up" in str(gap["reason"])]
    assert len(about_volumes) == (0 if told else 1)
    assert f"{O1}:end" in scene.ids


def test_fills_that_a_gap_stands_for_do_not_make_a_gap_of_the_next_outage() -> None:
    """Nobody knows when the first outage began, so it is a gap at once. What its snapshot claims is its own."""
    answers = Answers()
    later(answers)
    known, executed = b'{"order_qty":5,"cum_qty":0}', b'{"order_qty":5,"cum_qty":1}'

    async def script(scene: Scene) -> None:
        scene.open_order("executions", O1, known)
        scene.recovery.open("executions", None, "state_lost")
        list(scene.known["executions"].snapshot([Item(executed, O1)], "changes"))
        scene.recovery.end("executions", at(60.0))
        scene.outage("executions", 90.0, 100.0, O1)
        await virtual_time.elapse(4000.0)

    scene = play(script, answers, "executions")
    assert len(scene.named("feed.backfilled")) == 1
    assert [gap["reason"] for gap in scene.named("feed.gap")] == ["its beginning is not known (state_lost)"]


def test_a_gap_of_the_orders_leaves_it_to_the_fills_to_add_up() -> None:
    """v1: openOrders claims, ownTrades answers for it. That the one is given up says nothing of the other."""
    answers = Answers()
    later(answers)
    known, executed = b'{"vol":"5","vol_exec":"0"}', b'{"vol":"5","vol_exec":"1"}'

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1, known)
        scene.recovery.open("openOrders", None, "state_lost")
        scene.recovery.open("ownTrades", at(50.0), "closed")
        list(scene.known["openOrders"].snapshot([Item(executed, O1)], "changes"))
        scene.recovery.end("openOrders", at(60.0))
        scene.recovery.end("ownTrades", at(60.0))
        await virtual_time.elapse(4000.0)

    scene = play(script, answers, "openOrders", "ownTrades")
    assert any("do not add up" in str(gap["reason"]) for gap in scene.named("feed.gap"))


def test_two_outages_are_recovered_with_one_query_of_each_source() -> None:
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0), T2: trade(O1, 95.0)}
    later(answers)

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(160.0)
        scene.outage("ownTrades", 50.0, 60.0)
        scene.outage("ownTrades", 90.0, 100.0)
        scene.outage("executions", 50.0, 60.0)
        await virtual_time.elapse(1.0)

    scene = play(script, answers, "ownTrades", "executions")
    assert len(answers.asked("TradesHistory")) == 2  # a page, and the empty one
    assert len(scene.named("feed.backfilled")) == 3
    assert [name for name, item in scene.written if item.identity == T1] == ["ownTrades", "executions"]


def test_one_query_serves_the_earliest_and_the_latest_of_several_outages_in_any_order() -> None:
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 55.0), T2: trade(O1, 305.0), "TZ": trade(O1, 312.0)}

    async def script(scene: Scene) -> None:
        await virtual_time.elapse(510.0)
        scene.outage("ownTrades", 300.0, 310.0)
        scene.outage("ownTrades", 50.0, 60.0)
        await virtual_time.elapse(1.0)

    scene = play(script, answers, "ownTrades")
    assert [parameters["ofs"] for parameters in answers.asked("TradesHistory")] == ["0", "3"]
    assert {T1, T2} <= set(scene.ids)
    assert len(scene.named("feed.backfilled")) == 2


def test_a_second_class_of_assets_is_asked_for_where_the_snapshot_showed_one() -> None:
    answers = Answers()
    later(answers)

    async def script(scene: Scene) -> None:
        snapshot = [Item(b'{"asset":"SPY","asset_class":"tokenized_asset","balance":1}')]
        list(scene.known["balances"].snapshot(snapshot, "changes"))
        await virtual_time.elapse(160.0)
        scene.recovery.open("balances", at(50.0), "closed")
        scene.recovery.end("balances", at(100.0))
        await virtual_time.elapse(10.0)

    play(script, answers, "balances")
    assert {parameters.get("aclass") for parameters in answers.asked("Ledgers")} == {None, "tokenized_asset"}


def test_backfill_that_is_switched_off_is_a_gap_at_once() -> None:
    scene = play(one_outage, Answers(), "ownTrades", config=BackfillConfig(enabled=False))
    assert scene.named("feed.gap") == [{"reason": "backfill is switched off", "cause": "closed"}]


def test_giving_up_declares_what_is_not_recovered_once() -> None:
    async def script(scene: Scene) -> None:
        scene.recovery.open("ownTrades", at(10.0), "closed")
        scene.recovery.resume(Outage("ownTrades", at(1.0), "closed", at(2.0), declared_ns=at(3.0)))
        scene.recovery.give_up("stopped")

    scene = play(script, Answers(), "ownTrades")
    assert len(scene.named("feed.gap")) == 1
    assert scene.recovery.outages == []


def test_an_order_that_nobody_can_tell_about_is_the_gap_of_its_own_outage_only() -> None:
    answers = Answers()
    later(answers)

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene)
        scene.outage("openOrders", 2100.0, 2101.0)
        answers.rows["ClosedOrders"]["OZZZZZ-ZZZZZ-ZZZZZ2"] = order(at=2102.0)
        await virtual_time.elapse(300.0)

    scene = play(script, answers, "openOrders")
    assert [(name, start) for _, name, start, _, _ in scene.marks] == [
        ("feed.gap", at(50.0)),
        ("feed.backfilled", at(2100.0)),
    ]


def test_an_order_that_came_back_and_vanished_again_belongs_to_the_later_outage() -> None:
    answers = Answers()
    later(answers)

    async def script(scene: Scene) -> None:
        scene.open_order("openOrders", O1)
        await one_outage(scene, wait=10.0)
        scene.open_order("openOrders", O1, b'{"vol_exec":"0.1"}')
        scene.outage("openOrders", 105.0, 111.0)
        await virtual_time.elapse(3000.0)

    scene = play(script, answers, "openOrders")
    assert [(name, start) for _, name, start, _, _ in scene.marks] == [
        ("feed.backfilled", at(50.0)),
        ("feed.gap", at(105.0)),
    ]


def test_gaps_are_tried_again_together() -> None:
    answers = Answers()

    async def script(scene: Scene) -> None:
        for number, name in enumerate((O1, O2, O3)):
            scene.open_order("openOrders", name)
            await virtual_time.elapse(200.0)
            scene.outage("openOrders", 100.0 + 200.0 * number, 200.0 + 200.0 * number)
        await virtual_time.elapse(3 * 3600.0)

    play(script, answers, "openOrders")
    hours = [round(now) // 600 for now, method, _ in answers.calls if method == "QueryOrders" and now > 2000]
    assert len(set(hours)) <= 4, "three gaps, and one time for all of them per hour"


def test_pages_that_repeat_themselves_for_ever_are_not_understood() -> None:
    answers = Answers()
    answers.rows["TradesHistory"] = {T1: trade(O1, 60.0)}
    page = {"trades": answers.rows["TradesHistory"]}
    answers.changes = lambda method, result: page if method == "TradesHistory" else result
    scene = play(one_outage, answers, "ownTrades")
    assert scene.ids == [T1]
    (gap,) = scene.named("feed.gap")
    assert "repeat themselves" in str(gap["reason"])
