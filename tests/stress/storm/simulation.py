"""Runs a plan: the exchange, the client and what happens to both, and a check per virtual minute."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from random import Random
from time import process_time

import msgspec

from kraken_feed.config.schema import BackfillConfig
from kraken_feed.simulator.access.key import Limits
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import REST_KINDS
from kraken_feed.simulator.faults.scenario import Scenario
from kraken_feed.simulator.market.order import Change
from kraken_feed.simulator.quirks.quirk import Quirks

from ...support import virtual_time
from ...support.exchange_driver import T0
from .checker import PATIENCE_S, Checker, Interval, Violation
from .client import ACCOUNT, Client
from .disk import Disk, State
from .plan import Action, Plan
from .reasons import Excuses
from .world import Clocks, Truth, World

NS = 1_000_000_000
CHECK_S = 60.0
PAGE = 50  # rows of history
HISTORY_COST = 4.0  # points of the call counter that a client reckons with
PASSES = 4  # of an outage
CALM_S = 60.0  # after the last trouble
CALM_RATE = 1.0  # events per second then: it is the plan's trouble that is worth the time
LIVE_S = 900.0  # until every channel is live: a ban of the edge's lasts ten minutes
FLIGHT_S = 5.0  # what is younger at the end may not have been read
BUDGET = 100  # connects within ten minutes
WINDOW_S = 600.0
OVERLAP_S = BackfillConfig().overlap_s
PAUSE_S = 300.0  # for which a client may call nothing after a refusal of the edge's


class Result(msgspec.Struct, frozen=True):
    """What came of a plan."""

    plan: Plan
    events: int
    lines: int
    recovered: int
    gaps: dict[str, int]
    runs: int
    ended_at: float  # the loop's time
    seconds: float  # of the processor
    violations: tuple[Violation, ...]


def run(plan: Plan, say: Callable[[str], None]) -> Result:
    """Run the plan on a loop of its own. ``say`` is told what happens."""

    async def main() -> Result:
        return await Simulation(plan, say).run()

    return virtual_time.run(main())


def silent(text: str) -> None:
    """Tell nobody."""


class Simulation:
    """One run of a plan."""

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self.plan = plan
        self._listener = say
        self._chance = Random(f"simulation:{plan.seed}")
        self._loop = asyncio.get_running_loop()
        self._began = process_time()
        self._truth = Truth()
        scenario = Scenario(rest_lag=plan.rest_lag, tier=plan.tier, mixed_frames=plan.mixed_frames, quirks=plan.quirks)
        exchange = Exchange(now=T0, seed=plan.seed, rate=plan.rate, scenario=scenario, ledger=self._truth)
        self._clocks = Clocks(plan.offset_s, plan.drift)
        self._excuses = Excuses()
        secrets = [exchange.key.encode(), exchange.secret.encode()]
        self._checker = Checker(
            ACCOUNT,
            plan.channels,
            secrets,
            self._excuses,
            every_snapshot=plan.snapshots == "all",
            odd=plan.quirks.odd_states > 0 or plan.quirks.odd_query_states > 0,
            facts=plan.quirks.empty_ledger_ids > 0 or plan.quirks.shared_ledger_ids > 0,
        )
        self.world = World(exchange, self._clocks, self._checker, plan.tick_s, self._chance)
        self.disk = Disk()
        self._client: Client | None = None
        self._runs = 0
        self._spoiled: set[int] = set()  # runs whose state did not survive: what they wrote may be repeated
        self._start_at = math.inf  # the loop's time at which the client is started again
        self._before: dict[str, list[Interval]] = {}  # what was pending at the last check
        self._up_since = math.inf  # Kraken's time since when nothing keeps the client from recovering
        self._excuse_quirks(plan.quirks)
        self._do: dict[str, Callable[[Action], None]] = {
            "fault": self._fault,
            "suspend": self._suspend,
            "step": self._step,
            "stall": self._stall,
            "slow_reader": self._slow_reader,
            "slow_line": self._slow_line,
            "no_network": self._no_network,
            "state_removed": self._remove_state,
            "state_emptied": self._empty_state,
            "state_old": self._old_state,
            "state_fails": self._fail_state,
            "output_removed": self._remove_output,
            "output_truncated": self._truncate_output,
            "slow_disk": self._slow_disk,
            "key_span": self._key_span,
            "other_program": self._other_program,
        }

    def _excuse_quirks(self, quirks: Quirks) -> None:
        """What stays unknown for good may be declared."""
        if quirks.odd_states and (quirks.odd_query_states or quirks.refused_ids):  # nothing else tells of the end
            self._excuses.add("odd", 0.0, math.inf)
        if quirks.withheld_rows:  # at any time some of the newest are
            self._excuses.add("withheld", 0.0, math.inf)
        if quirks.repeated_rows:
            self._excuses.add("repeated", 0.0, math.inf)

    async def run(self) -> Result:
        """Run the plan to its end, or to the first violation."""
        self._start()
        for action in self.plan.actions:
            if not await self._until(action.at):
                break
            self._say(f"=> {msgspec.json.encode(action).decode()}")
            if action.kind in ("kill", "stop", "power_cut"):
                await self._restart(action)
            else:
                self._do[action.kind](action)
        else:
            await self._calm_down()
        self.world.end()
        if self._client is not None:
            await self._client.kill()
        checker = self._checker
        return Result(
            plan=self.plan,
            events=self._truth.events,
            lines=checker.lines,
            recovered=checker.recovered,
            gaps=dict(checker.gaps),
            runs=self._runs,
            ended_at=self._loop.time(),
            seconds=process_time() - self._began,
            violations=tuple(checker.violations),
        )

    def _say(self, text: str) -> None:
        self._listener(f"{self._loop.time():9.2f} {self._clocks.kraken():.6f} {text}")

    async def _calm_down(self) -> None:
        """Let everything be settled, and look at the whole once more."""
        end = max(self.plan.minutes * 60, self._loop.time())
        if not await self._until(end):
            return
        for account in self.world.exchange.accounts:
            account.engine.rate = min(self.plan.rate, CALM_RATE)
        if self._client is None:
            self._start_at = min(self._start_at, end)
        if not await self._until(max(end, *map(_end, self.plan.actions), 0.0) + CALM_S):
            return
        if not await self._settled(LIVE_S, lambda client: client.feed.live) and not self._checker.violations:
            self._checker.violated("not every channel is live though nothing is wrong", "")
        patience_s = self._patience_s()
        if not await self._settled(patience_s, lambda client: not client.pending) and not self._checker.violations:
            self._checker.violated("an outage is neither recovered nor declared", "")
        if self._client is None or self._checker.violations:
            return
        client, self._client = self._client, None
        if not await client.stop():
            self._checker.violated("the process does not stop", "")
        self._read_output(self.disk.output.size)
        self._checker.happened(self._taken_changes())
        now = self._clocks.kraken()
        self._checker.check(now - FLIGHT_S, up_since=self._up_since, at_the_end=True)

    async def _settled(self, seconds: float, done: Callable[[Client], bool]) -> bool:
        """Wait until something is done; False if it is not within so many seconds."""
        last = self._loop.time() + seconds
        while self._client is None or not done(self._client):
            if self._loop.time() >= last or not await self._until(self._loop.time() + CHECK_S):
                return False
        return True

    async def _until(self, moment: float) -> bool:
        """Let time pass until a moment of the loop's clock, with a check per minute; False after a violation."""
        while self._loop.time() < moment:
            next_check = (self._loop.time() // CHECK_S + 1) * CHECK_S
            await virtual_time.elapse(min(moment, next_check, self._start_at) - self._loop.time())
            if self._loop.time() >= self._start_at:
                self._start()
            if self._loop.time() >= next_check and not self._check():
                return False
        return not self._checker.violations

    # -- the checks

    def _check(self) -> bool:
        client, checker, now = self._client, self._checker, self._clocks.kraken()
        checker.happened(self._taken_changes())
        checker.secrets[2:] = self.world.tokens[-20:]
        if client is not None:
            self._read_output()
            if client.over:
                checker.violated("the process has ended", client.outcome())
            for text in client.diagnostics.entries:
                checker.secret_in(text)
            client.diagnostics.entries.clear()
            dials = self.world.dials
            while dials and dials[0] <= self._loop.time() - WINDOW_S:
                dials.pop(0)
            if len(dials) > BUDGET:
                checker.violated("too many connects", f"{len(dials)} in {WINDOW_S:g} s")
        if self.world.limited and not self._excuses.hold(("busy",), now - 3600, now):
            checker.violated("the call counter was exceeded", f"{self.world.limited} times")
        self.world.limited = 0
        pending = self._pending()
        # What was declared since the last check may not be on the disk yet, and so was not read.
        both = {name: [*pending.get(name, ()), *self._before.get(name, ())] for name in {*pending, *self._before}}
        checker.check(now, up_since=self._up_since, pending=both, patience_s=self._patience_s())
        self._before = pending
        return not checker.violations

    def _pending(self) -> dict[str, list[Interval]]:
        """Return the intervals that the client still asks for, by channel: its outages, and the overlap before them."""
        found: dict[str, list[Interval]] = {}
        for outage in self._client.pending if self._client is not None else ():
            since = -math.inf if outage.start_ns is None else outage.start_ns / NS - OVERLAP_S
            to = math.inf if outage.end_ns is None else outage.end_ns / NS
            found.setdefault(outage.channel, []).append(Interval(since, to))
        return found

    def _patience_s(self) -> float:
        """Return within which time a pending outage is recovered or declared: on a small call counter each page of a
        long history takes seconds, and four passes may read all of it."""
        tier = self.world.exchange.world.tier
        rows = PAGE / 2 if self.plan.quirks.short_pages else PAGE  # on an average page
        pages = 0.5 * self._truth.events / rows + 3
        return PATIENCE_S + PASSES * len(self.plan.channels) * pages * HISTORY_COST / tier.rest_decay

    def _taken_changes(self) -> list[Change]:
        taken = self._truth.changes.copy()
        self._truth.changes.clear()
        return taken

    def _read_output(self, end: int | None = None) -> None:
        """Check what cannot get lost any more, or what lies before an offset."""
        for kind, at in self._truth.strikes:
            if kind in REST_KINDS:
                self._excuses.add("rest", at, at + PAUSE_S)
        self._truth.strikes.clear()
        file = self.disk.output
        lines, begin = file.take(file.synced if end is None else end)
        for line in lines.splitlines() if self._listener is not silent else ():
            if b'"event_name":"feed.' in line:
                self._say(line.decode())
        self._checker.output(lines, begin, file.marks, self.disk.noted, self._clocks.kraken())

    # -- the client's life

    def _start(self) -> None:
        self._runs += 1
        self._start_at = math.inf
        self._up_since = self._clocks.kraken()
        if self.disk.state.lost or self.disk.state.older:  # then only the clock tells which nonces were used
            self._clocks.never_back()
        self._client = client = Client(
            self._runs, self.world, self.disk, self.plan.channels, self.plan.snapshots, self._chance, self._say
        )
        if client.blank and client.lost:
            self._excuses.add("state_lost", self._up_since, self._up_since + 600)
        elif client.blank:
            self._checker.forget(client.blank)

    async def _restart(self, action: Action) -> None:
        client = self._client
        if client is None:
            return
        self._client, self._up_since = None, math.inf
        if action.kind == "stop":
            held_back = client.output.stalled or client.output.rate is not None
            if await client.stop():
                spoiled = self._spoiled | self._checker.rescued
                if not held_back and client.number not in spoiled:
                    self._checker.clean.add(client.number)
            else:
                self._checker.violated("the process does not stop", "")
        else:
            await client.kill(action.share if action.share < 0.5 else None)
        if action.kind == "power_cut":
            file = self.disk.output
            file.cut(max(file.taken, file.synced + int((file.size - file.synced) * action.share)))
            self.disk.state.undo(action.number)
            self._clocks.boot()
            self._forget_calls()
        self._read_output()
        if client.over and action.kind == "stop" and client.outcome() != "SIGTERM":
            self._checker.violated("the process has ended", client.outcome())
        self._start_at = self._loop.time() + max(action.seconds, 0.001)

    # -- what happens to it

    def _fault(self, action: Action) -> None:
        assert action.fault is not None
        fault, now = action.fault, self._clocks.kraken()
        self.world.exchange.inject(fault, now)
        self.world.turn()
        if fault.kind in REST_KINDS and fault.duration is not None:
            self._trouble(fault.duration)
        elif fault.kind == "maintenance":
            self._trouble(fault.maintenance + fault.cancel_only + fault.post_only)

    def _trouble(self, seconds: float) -> None:
        """REST does not answer for so long."""
        now = self._clocks.kraken()
        self._excuses.add("rest", now, now + seconds)

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.call_later(seconds, then)

    def _suspend(self, action: Action) -> None:
        self._clocks.sleep(action.seconds)
        if self._up_since < math.inf:
            self._up_since = self._clocks.kraken()
        self.world.turn()

    def _step(self, action: Action) -> None:
        self._clocks.step(action.seconds)

    def _stall(self, action: Action) -> None:
        if self._client is not None:
            output = self._client.output
            output.stalled = True

            def resume() -> None:
                output.stalled = False
                output.flush()

            self._later(action.seconds, resume)

    def _slow_reader(self, action: Action) -> None:
        if self._client is not None:
            output = self._client.output
            output.rate = action.number

            def resume() -> None:
                output.rate = None

            self._later(action.seconds, resume)

    def _slow_line(self, action: Action) -> None:
        self.world.line_rate = action.number

        def resume() -> None:
            self.world.line_rate = None
            for socket in list(self.world.sockets):
                socket.catch_up()

        self._later(action.seconds, resume)

    def _no_network(self, action: Action) -> None:
        self.world.network = False
        self._trouble(action.seconds)
        self._up_since = math.inf

        def resume() -> None:
            self.world.network = True
            if self._client is not None:
                self._up_since = self._clocks.kraken()
            self.world.turn()

        self._later(action.seconds, resume)

    def _spoil(self) -> None:
        self._spoiled.add(self._runs)
        self._checker.clean.discard(self._runs)
        self._forget_calls()

    def _forget_calls(self) -> None:
        """Nobody can know how far the key's call counter was when the state with its level is gone."""
        now = self._clocks.kraken()
        self._excuses.add("busy", now, now + 600)

    def _remove_state(self, action: Action) -> None:
        self._spoil()
        self.disk.state = State()

    def _empty_state(self, action: Action) -> None:
        self._spoil()
        self.disk.state.empty()

    def _old_state(self, action: Action) -> None:
        self._spoil()
        self.disk.state.replace_with_copy(action.number)

    def _fail_state(self, action: Action) -> None:
        self._spoil()
        if self._client is not None:
            store = self._client.store
            store.failing = True

            def resume() -> None:
                store.failing = False

            self._later(action.seconds, resume)

    def _remove_output(self, action: Action) -> None:
        """What the checkpoint does not cover has to be written again."""
        self._read_output(self.disk.output.needed)
        self._checker.rescued.update(range(self._runs + 1))
        self.disk.remove_output()

    def _truncate_output(self, action: Action) -> None:
        self._read_output(self.disk.output.size)
        self.disk.output.truncate()

    def _slow_disk(self, action: Action) -> None:
        self._spoil()
        if self._client is not None:
            self._client.output.slow_sync_s = action.seconds

    def _key_span(self, action: Action) -> None:
        now = self._clocks.kraken()
        for key in self.world.exchange.keys.values():
            key.limits = Limits(query_from=int(now))
        self._excuses.add("key_span", now, math.inf)

    def _other_program(self, action: Action) -> None:
        now = self._clocks.kraken()
        exchange = self.world.exchange
        for key in exchange.keys.values():
            for _ in range(action.number):
                key.counter.call(1.0, exchange.world.tier.rest_limit, now)
        self._excuses.add("busy", now, now + 600)


def _end(action: Action) -> float:
    """Return when an action's trouble is over, in the loop's time."""
    seconds = 0.0 if action.kind == "step" else action.seconds
    if action.fault is not None:
        fault = action.fault
        seconds = (fault.duration or 0.0) + fault.maintenance + fault.cancel_only + fault.post_only
    return action.at + seconds
