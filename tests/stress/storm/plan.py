"""A plan: everything that one simulation does, as plain data that can be written down, reduced and replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import msgspec
from msgspec.structs import replace

from kraken_feed.simulator.faults.fault import ORDER_KINDS, PARAMETERS, VARIANTS, Fault
from kraken_feed.simulator.quirks.quirk import Quirks

Channel = Literal["openOrders", "ownTrades", "executions", "balances"]
CHANNELS: tuple[Channel, ...] = ("openOrders", "ownTrades", "executions", "balances")
Snapshots = Literal["changes", "all", "none"]
Kind = Literal[
    "fault",  # inject `fault` into the exchange
    "kill",  # end the process in the middle of everything; start it again after `seconds`
    "stop",  # end it in good order; start it again after `seconds`
    "power_cut",  # kill, and lose what was not on the disk: keep `share` of it; the state goes back by `number` saves
    "suspend",  # the machine sleeps for `seconds`
    "step",  # the wall clock is set by `seconds`
    "stall",  # the reader of the output takes nothing for `seconds`
    "slow_reader",  # it takes `number` bytes per second, for `seconds`
    "slow_line",  # the network delivers `number` bytes per second, for `seconds`
    "no_network",  # for `seconds`
    "state_removed",  # with everything that belongs to it
    "state_emptied",  # found empty at the next start
    "state_old",  # at the next start, it is as it was `number` saves before
    "state_fails",  # no save succeeds for `seconds`
    "output_removed",
    "output_truncated",
    "slow_disk",  # bringing the output to the disk takes `seconds`, once
    "key_span",  # the key may only query from now on
    "other_program",  # uses the key `number` times
]


class Action(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happens, ``at`` seconds after the start."""

    at: float
    kind: Kind
    seconds: float = 0.0
    number: int = 0
    share: float = 0.0
    fault: Fault | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One simulation.

    ``minutes`` is how long things happen; a calm time follows, in which the client has to settle everything.
    ``offset_s`` and ``drift`` are this machine's wall clock against the exchange's, ``tick_s`` is how often the network
    delivers.
    """

    seed: int = 0
    channels: tuple[Channel, ...] = ("openOrders",)
    rate: float = 1.0
    minutes: float = 10.0
    tier: str = "pro"
    snapshots: Snapshots = "changes"
    rest_lag: float = 0.0
    offset_s: float = 0.0
    drift: float = 0.0
    tick_s: float = 0.05
    mixed_frames: bool = True
    quirks: Quirks = Quirks()
    actions: tuple[Action, ...] = ()


def write(plan: Plan) -> bytes:
    """Return the plan as JSON, one line per action."""
    tree = msgspec.to_builtins(replace(plan, actions=()))
    tree.pop("quirks", None)
    if given := unusual(plan.quirks):
        tree["quirks"] = given
    head = msgspec.json.encode(tree)[:-1]
    actions = b",\n  ".join(map(_compact, plan.actions))
    return b'%b%b"actions": [\n  %b\n]}' % (head, b"," if len(head) > 1 else b"", actions)


def unusual(quirks: Quirks) -> dict[str, object]:
    """Return the quirks that are not as usual."""
    usual = Quirks()
    return {name: value for name, value in msgspec.structs.asdict(quirks).items() if value != getattr(usual, name)}


def _compact(action: Action) -> bytes:
    """Return an action as JSON, without what is as usual."""
    tree = msgspec.json.decode(msgspec.json.encode(action))
    if action.fault is not None:
        usual = msgspec.to_builtins(Fault(action.fault.kind))
        given = tree["fault"].items()
        tree["fault"] = {name: value for name, value in given if name == "kind" or value != usual[name]}
    return msgspec.json.encode(tree)


def read(text: bytes) -> Plan:
    """Return the plan that :func:`write` wrote."""
    return msgspec.json.decode(text, type=Plan)


# ------------------------------------------------------------------------------------------------ drawing

EVENTS_PER_PLAN = 5_000  # what a plan aims at; long enough for several outages, short enough to be reduced
DISTURBANCES: tuple[Kind, ...] = (
    "kill",
    "stop",
    "power_cut",
    "suspend",
    "step",
    "stall",
    "slow_reader",
    "slow_line",
    "no_network",
    "state_removed",
    "state_emptied",
    "state_old",
    "state_fails",
    "output_removed",
    "output_truncated",
    "slow_disk",
    "key_span",
    "other_program",
)
RARE: frozenset[Kind] = frozenset({"key_span", "state_removed", "state_emptied"})
FAULTS = tuple(kind for kind in PARAMETERS if kind not in ORDER_KINDS)
BIG = 4_000_000  # bytes of a frame
KINDS = frozenset((*DISTURBANCES, *FAULTS, *msgspec.structs.asdict(Quirks()), "offset"))


def draw(seed: int, without: frozenset[str] = frozenset(), events: int = EVENTS_PER_PLAN) -> Plan:
    """Return the plan of a seed, without some kinds of trouble. Each seed uses a few kinds only, so that rare
    combinations are met. It is about as long as the exchange needs for so many ``events``."""
    allowed = KINDS - without
    chance = Random(f"storm:{seed}")
    channels = tuple(chance.sample(CHANNELS, chance.choice((*[1] * 12, 2, 2, 2, 3, 4))))
    # Faster, and the client would forget ends within the hour that a recovery can take on a small call counter.
    rate = round(4 * 2.5 ** chance.random() if chance.random() < 0.85 else 0.02 * 200 ** chance.random(), 2)
    longest = 90.0 if chance.random() < 0.2 else max(20.0, events / 500)  # a quiet account brings few events
    minutes = round(min(max(events / (2.3 * rate * 60), 4.0), longest), 1)
    disturbances = [
        kind for kind in DISTURBANCES if kind in allowed and chance.random() < (0.1 if kind in RARE else 0.3)
    ]
    faults = [kind for kind in FAULTS if kind in allowed and chance.random() < 0.25]
    every = chance.uniform(20, 240)  # seconds between two actions, on average
    actions, at = [], 0.0
    while (at := at + chance.expovariate(1 / every)) < minutes * 60:
        kinds: list[Kind] = disturbances + ["fault"] * min(len(faults), 4)
        if kinds:
            actions.append(_action(chance, round(at, 3), chance.choice(kinds), faults))
    steady = chance.random() < 0.4
    plan = Plan(
        seed=seed,
        channels=channels,
        rate=rate,
        minutes=minutes,
        tier=chance.choice(("starter", "intermediate", "pro", "pro")),
        snapshots=chance.choice(("changes", "changes", "all", "none")),
        rest_lag=0.0 if steady else _lag(chance),
        offset_s=round(chance.choice((0.0, chance.uniform(-3600, 3600), -chance.uniform(1, 20) * 31_536_000)), 1)
        if "offset" in allowed
        else 0.0,
        drift=round(chance.uniform(-100e-6, 100e-6), 8) if "offset" in allowed else 0.0,
        tick_s=chance.choice((0.01, 0.05, 0.2, 0.2)),
        mixed_frames=chance.random() < 0.8,
        quirks=_quirks(chance, allowed, channels, disturbances, rate),
        actions=tuple(actions),
    )
    return replace(plan, actions=tuple(action for action in actions if not _is_assumed_away(action, plan)))


def _is_assumed_away(action: Action, plan: Plan) -> bool:
    """Return whether an action breaks, with the plan's quirks, what the client assumes by its own documents."""
    if action.kind in ("state_old", "power_cut") and plan.quirks.shared_ledger_ids:
        return True  # which of two entries has the plain id is remembered in the state
    silent = action.fault is not None and action.fault.kind == "silent"
    return silent and plan.quirks.no_v1_heartbeats and bool({"openOrders", "ownTrades"} & set(plan.channels))


def _lag(chance: Random) -> float:
    """Return how late REST may be: a minute was observed, and the client's promise holds to a quarter of an hour."""
    return round(chance.choice((0.0, chance.uniform(0, 5), chance.uniform(5, 75), chance.uniform(75, 500))), 1)


def _quirks(
    chance: Random, allowed: frozenset[str], channels: Sequence[str], disturbances: Sequence[Kind], rate: float
) -> Quirks:
    """Return a few quirks, if any. Those that break what the client assumes by its own documents are left out."""
    few = chance.choice((0.0, 0.06, 0.15))
    drawn: dict[str, object] = {}
    for name, choose in _QUIRKS.items():
        if name in allowed and chance.random() < few:
            drawn[name] = choose(chance)
    if drawn.keys() & {"withheld_rows"}:
        # Rows become visible in the order of their times, or Kraken's count tells of those that do not.
        # A query that goes on after a restart cannot compare the count.
        restarts = {"kill", "stop", "power_cut"} & set(disturbances)
        if {"ownTrades", "executions"} & set(channels) or "repeated_rows" in drawn or restarts:
            del drawn["withheld_rows"]
        else:
            drawn["withheld_s"] = round(chance.choice((0.0, chance.uniform(10, 600))), 1)
            drawn.pop("count", None)
    if "no_v1_heartbeats" in drawn:  # then pongs are the only sign of life
        for name in ("pongs", "lost_pongs", "pong_delay"):
            drawn.pop(name, None)
    if "line_rate" in drawn:  # it is faster than the feed, and brings snapshots in time, or nothing would ever be live
        drawn["line_rate"] = round(max(30_000.0, 2_500 * rate * len(channels) * chance.uniform(1, 4)))
    return Quirks(**drawn)  # type: ignore[arg-type]  # the values fit the names


def _some(chance: Random) -> float:
    return round(chance.choice((0.02, 0.2, 1.0)) * chance.random(), 3)


def _always(chance: Random) -> bool:
    return True


_QUIRKS: dict[str, Callable[[Random], object]] = {
    "short_pages": _always,
    "merged_pages": _always,
    "repeated_rows": _some,
    "withheld_rows": lambda chance: round(0.1 * chance.random(), 3),
    "count": lambda chance: chance.choice(("always", "null")),
    "history_cost": lambda chance: chance.choice((1.0, 2.0)),
    "closed_orders_cost": lambda chance: chance.choice((1.0, 2.0)),
    "orders_lag": _lag,
    "query_lag": _lag,
    "trades_lag": _lag,
    "ledger_lag": _lag,
    "late_orders": _always,
    "odd_states": _some,
    "odd_query_states": _some,
    "refuse_unknown": _always,
    "refused_ids": _some,
    "key_span": lambda chance: chance.choice(("outside", "overlap")),
    "empty_as_list": _always,
    "errors": lambda chance: chance.choice(("object", "warning")),
    "integers": lambda chance: chance.choice(("float", "text")),
    "unknown_members": _always,
    "surrogates": _some,
    "double_ends": lambda chance: chance.choice(("richer", "identical", "both")),
    "null_snapshots": _always,
    "null_items": _always,
    "strange_frames": _some,
    "no_v1_heartbeats": _always,
    "pongs": lambda chance: chance.choice(("bare", "text", "never")),
    "pong_delay": lambda chance: round(chance.uniform(0.1, 9), 2),
    "lost_pongs": _some,
    "line_rate": lambda chance: 0.0,
    "empty_ledger_ids": _some,
    "shared_ledger_ids": _some,
    "asset_classes": _always,
}  # Kraken's clock is not among them: the machine's has an offset of its own


def _action(chance: Random, at: float, kind: Kind, faults: list[str]) -> Action:
    short, long = round(chance.uniform(0.1, 20), 3), round(chance.uniform(20, 400), 1)
    seconds = short if chance.random() < 0.6 else long
    if kind == "fault":
        return Action(at, kind, fault=_fault(chance, chance.choice(faults)))
    if kind == "step":
        size = chance.choice((chance.uniform(0.5, 5), chance.uniform(5, 3600), chance.uniform(3600, 10 * 31_536_000)))
        return Action(at, kind, seconds=round(size * chance.choice((-1, 1)), 3))
    number = {
        "power_cut": chance.randrange(1, 60),
        "state_old": chance.randrange(1, 600),
        "slow_reader": chance.choice((500, 2_000, 20_000)),
        "slow_line": chance.choice((200, 1_000, 10_000)),
        "other_program": chance.randrange(1, 30),
    }.get(kind, 0)
    return Action(at, kind, seconds=seconds, number=number, share=round(chance.random(), 3))


def _fault(chance: Random, kind: str) -> Fault:
    options: dict[str, object] = {}
    for name in PARAMETERS[kind]:
        # A connection that brings nothing for ever, not even heartbeats, but answers pings, looks like a quiet one.
        if name == "for" and (kind == "silent" or chance.random() < 0.5):
            options["duration"] = round(chance.choice((chance.uniform(0.5, 15), chance.uniform(15, 200))), 2)
        elif name == "variant" and chance.random() < 0.7:
            options["variant"] = chance.choice(VARIANTS[kind])
        elif name == "code" and chance.random() < 0.7:
            options["code"] = chance.choice((1000, 1001, 1006, 1011, 1012, 4000))
        elif name == "seconds":
            options["seconds"] = round(chance.uniform(0.1, 8), 2)
        elif name == "bytes":
            options["bytes"] = (
                chance.choice((1_000, 100_000, BIG)) if kind == "big_frame" else chance.choice((1, 7, 40))
            )
        elif name == "count":
            options["count"] = chance.randrange(1, 60)
        elif name == "text":
            options["text"] = _TEXTS.get(kind, {}).get(chance.randrange(4))
        elif name == "method" and chance.random() < 0.7:
            options["method"] = chance.choice(_METHODS)
        elif name in ("maintenance", "cancel_only", "post_only"):
            options[name] = round(chance.choice((0.0, chance.uniform(0, 10), chance.uniform(10, 120))), 1)
        elif name == "retry_after" and chance.random() < 0.5:
            options["retry_after"] = chance.randrange(1, 60)
    if kind == "resnapshot":
        # A feed that pauses while heartbeats go on is believed to go on with a snapshot, and nothing may prevent that.
        options.pop("duration", None)
        if options.get("variant") == "continue":
            options["dialect"] = "v2"  # in v1 it looks like more updates, and nobody can tell it from those
    return Fault(kind, **options)  # type: ignore[arg-type]  # the values fit the names


_METHODS = (
    "GetWebSocketsToken",
    "ClosedOrders",
    "QueryOrders",
    "TradesHistory",
    "Ledgers",
    "GetApiKeyInfo",
)
_TEXTS: dict[str, dict[int, str]] = {
    "rest_error": {
        0: "EGeneral:Internal error",
        1: "EService:Unavailable",
        2: "EService:Busy",
    },
    "refuse_token": {0: "ESession:Invalid session"},
}
