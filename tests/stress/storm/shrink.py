"""Reduces a plan that breaks a promise to a small one that still breaks the same promise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic

from msgspec.structs import replace

from kraken_feed.simulator.quirks.quirk import Quirks

from .plan import Action, Plan, unusual

Fails = Callable[[Plan], float | None]  # when the promise was broken, in seconds of the plan
BUDGET_S = 120.0


class Exhausted(Exception):
    """There is no time left."""


def shrink(plan: Plan, fails: Fails, *, seconds: float = BUDGET_S) -> Plan:
    """Return the smallest plan that was found within ``seconds`` and that still fails.

    What comes after the failure goes first, then channels, then actions (halves, quarters, …, single ones: delta
    debugging); then everything else becomes as simple as it can be, until nothing more can go.
    """
    deadline, smallest = monotonic() + seconds, plan

    def holds(candidate: Plan) -> bool:
        nonlocal smallest
        if monotonic() > deadline:
            raise Exhausted
        at = fails(candidate)
        if at is None:
            return False
        smallest = _until(candidate, at)
        return True

    try:
        before = None
        while before != smallest:
            before = smallest
            for channel in smallest.channels[:-1]:
                if holds(replace(smallest, channels=(channel,))):
                    break
            _fewer_actions(lambda: smallest, holds)
            for simpler in _simpler(smallest):
                candidate = simpler(smallest)
                if candidate != smallest:
                    holds(candidate)
    except Exhausted:
        pass
    return smallest


def _until(plan: Plan, at: float) -> Plan:
    """Return the plan without what comes after a moment."""
    return replace(plan, actions=tuple(action for action in plan.actions if action.at <= at))


def _fewer_actions(smallest: Callable[[], Plan], holds: Callable[[Plan], bool]) -> None:
    """Remove what can be removed, in ever smaller pieces, the first ones first."""
    if not smallest().actions or holds(replace(smallest(), actions=())):
        return
    pieces = 2
    while len(actions := smallest().actions) >= 2:
        size = -(-len(actions) // pieces)
        for start in range(0, len(actions), size):
            rest = actions[:start] + actions[start + size :]
            if holds(replace(smallest(), actions=rest)):
                pieces = max(pieces - 1, 2)
                break
        else:
            if size == 1:
                return
            pieces = min(2 * pieces, len(actions))


# What becomes as in Plan(), if the promise is broken without it too.
_PLAIN = ("drift", "offset_s", "rest_lag", "quirks", "mixed_frames", "snapshots", "tier", "tick_s")


def _simpler(plan: Plan) -> Iterator[Callable[[Plan], Plan]]:
    """Ways to make a plan simpler, the ones that save most time first."""
    for channel in plan.channels:
        yield partial(_without_channel, channel=channel)
    yield _shorter
    for name in _PLAIN:
        yield partial(replace, **{name: getattr(Plan(), name)})
    for name in unusual(plan.quirks):
        yield partial(_without_quirk, name=name)
    for index in range(len(plan.actions)):
        yield partial(_simpler_action, index=index, seconds=1.0)
        yield partial(_simpler_action, index=index, share=0.0)
    for share in (0.5, 0.9):
        yield partial(_earlier, share=share)


def _without_channel(plan: Plan, channel: str) -> Plan:
    return replace(plan, channels=tuple(other for other in plan.channels if other != channel) or plan.channels)


def _without_quirk(plan: Plan, name: str) -> Plan:
    quirks: Quirks = replace(plan.quirks, **{name: getattr(Quirks(), name)})
    return replace(plan, quirks=quirks)


def _shorter(plan: Plan) -> Plan:
    """Let nothing happen after the last action."""
    return replace(plan, minutes=max((plan.actions[-1].at if plan.actions else 0.0) // 60 + 2, 2))


def _simpler_action(plan: Plan, index: int, **changes: float) -> Plan:
    if index >= len(plan.actions):
        return plan
    action: Action = replace(plan.actions[index], **changes)
    return replace(plan, actions=(*plan.actions[:index], action, *plan.actions[index + 1 :]))


def _earlier(plan: Plan, share: float) -> Plan:
    """Let everything happen earlier."""
    if not plan.actions or plan.actions[0].at < 60:
        return plan
    shift = round((plan.actions[0].at - 30) * share, 3)
    return replace(plan, actions=tuple(replace(action, at=action.at - shift) for action in plan.actions))
