"""Read scenarios: the script of faults for a run, from Python or from a TOML file.

rest_lag = 30.0               # REST shows fills and ends half a minute late
tier = "pro"                  # or starter (the default), intermediate: the limits of the counters
mixed_frames = false          # one event per frame, for clients that fail on several

[[fault]]
kind = "drop"                 # the kinds and their parameters: faults.fault.PARAMETERS
at = 6.0                      # or every = 10.0, on_connect = 2, on_token = 1
code = 1001

[[fault]]
kind = "half_open"
on_connect = 2
after = 3.0
for = 20.0

[random]
every = 3.0
kinds = { drop = 3, duplicate_frame = 1 }

[quirks]                      # standing behaviours: quirks.quirk.QUIRKS
short_pages = true
history_cost = 2.0
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import Struct

from ..market.counter import TIERS
from ..quirks import quirk
from ..quirks.quirk import Quirks, nearest
from .fault import PARAMETERS, Fault, fault

# The default kinds of random mode: everything from which a client can recover within a minute.
LIKELY: dict[str, float] = {
    "drop": 6, "half_open": 1, "silent": 1, "unsubscribe": 2, "sequence_skip": 2, "duplicate_frame": 3,
    "garbage_frame": 2, "unknown_frame": 3, "multi": 4, "split": 2, "no_greeting": 1, "no_ack": 1, "no_snapshot": 1,
    "refuse_token": 1, "delay_ack": 2, "early_data": 2, "msg_rate": 1, "upgrade_refused": 2, "http_502": 2,
    "rest_error": 1,
}  # fmt: skip


class ScenarioError(ValueError):
    """A scenario file that cannot be used; the message names the place."""


class RandomFaults(Struct, frozen=True, forbid_unknown_fields=True):
    """Faults that are picked by weight every so many seconds, by the exchange's seed."""

    every: float
    first: float | None = None
    kinds: Mapping[str, float] = msgspec.field(default_factory=lambda: dict(LIKELY))

    def __post_init__(self) -> None:
        if self.every <= 0:
            raise ValueError("every must be above 0")
        for kind in self.kinds:
            if kind not in PARAMETERS:
                raise ValueError(f'unknown kind "{kind}"{nearest(kind, PARAMETERS)}')


class Scenario(Struct, frozen=True):
    """Faults by script and at random, and how the exchange behaves besides."""

    faults: tuple[Fault, ...] = ()
    random: RandomFaults | None = None
    rest_lag: float = 0.0  # seconds by which REST's fills and terminal states are late
    tier: str = "starter"
    mixed_frames: bool = True  # False: events of one moment are sent in one frame per event
    quirks: Quirks = Quirks()


def load(path: Path) -> Scenario:
    """Read a TOML file. Raises ScenarioError."""
    try:
        text = path.read_text(encoding="utf-8")
        return parse(tomllib.loads(text))
    except OSError as exc:
        raise ScenarioError(f"{path}: {exc.strerror}") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, ScenarioError) as exc:
        raise ScenarioError(f"{path}: {exc}") from exc


def parse(table: Mapping[str, object]) -> Scenario:
    """Read a scenario from the file's top table. Raises ScenarioError."""
    names = ("fault", "random", "quirks", "rest_lag", "tier", "mixed_frames")
    for name in table:
        if name not in names:
            raise ScenarioError(f'unknown key "{name}"{nearest(name, names)}')
    tier = table.get("tier", "starter")
    if tier not in TIERS:
        raise ScenarioError(f'unknown tier "{tier}"{nearest(str(tier), TIERS)}')
    return Scenario(
        faults=_faults(table.get("fault", [])),
        random=None if "random" not in table else _random(table["random"]),
        rest_lag=_seconds("rest_lag", table.get("rest_lag", 0.0)),
        tier=str(tier),
        mixed_frames=_flag("mixed_frames", table.get("mixed_frames", True)),
        quirks=_quirks(table.get("quirks", {})),
    )


def _quirks(table: object) -> Quirks:
    try:
        return quirk.convert(table)
    except ValueError as exc:
        raise ScenarioError(f"quirks: {exc}") from exc


def _faults(tables: object) -> tuple[Fault, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ScenarioError("fault: write [[fault]], one table a fault")
    faults: list[Fault] = []
    for number, table in enumerate(tables, 1):
        try:
            faults.append(fault(table))
        except ValueError as exc:  # msgspec's ValidationError is one
            raise ScenarioError(f"fault {number}: {exc}") from exc
    return tuple(faults)


def _random(table: object) -> RandomFaults:
    names = ("every", "first", "kinds")
    for name in table if isinstance(table, dict) else ():
        if name not in names:
            raise ScenarioError(f'random: unknown key "{name}"{nearest(name, names)}')
    try:
        return msgspec.convert(table, RandomFaults)
    except ValueError as exc:
        raise ScenarioError(f"random: {exc}") from exc


def _seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ScenarioError(f"{name}: expected a number of seconds, got {value!r}")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ScenarioError(f"{name}: expected true or false, got {value!r}")
    return value
