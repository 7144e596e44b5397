"""How long an outage takes to be recovered on a Starter key: ``python -m tests.virtual.recovery_time``.

Time is virtual. Kraken demands that calls are spaced by the key's counter; everything else is ours.
"""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from kraken_feed.config.schema import Config
from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import Scenario

from ..support import virtual_time
from ..support.exchange_driver import T0
from .feed.test_recovery import ALL, Log


def log(rate: float, *faults: Fault, channels: tuple[str, ...] = ("executions",)) -> Log:
    """A log of a Starter key with the default configuration."""
    exchange = Exchange(now=T0, seed=3, rate=rate, scenario=Scenario(faults=faults))
    return Log(Path(tempfile.mkdtemp()), exchange, *channels, config=Config())


def outage(seconds: float) -> tuple[Fault, Fault]:
    """The connection is lost after a minute, and nobody gets in for so long."""
    return Fault("drop", at=60.0), Fault("upgrade_refused", at=60.0, duration=seconds)


def unix(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["ts"]).timestamp()


def report(name: str, found: Log, since: float) -> None:
    """Print, from the last ``feed.live`` after ``since`` on, when the first and last record and marker were written."""
    live = max(unix(line) for line in found.named("feed.live"))
    rows = [unix(line) for line in found.lines() if line.get("type") == "backfill"]
    ends = [unix(line) for line in found.named("feed.backfilled")]
    gaps = len(found.named("feed.gap"))
    pages = sum(
        path.endswith(("TradesHistory", "ClosedOrders", "Ledgers")) for _, path, _ in found.runs[-1].world.calls
    )
    last_row = f"{max(rows) - live:6.0f}" if rows else "     -"
    last_end = f"{max(ends) - live:6.0f}" if ends else "     -"
    times = f"last row {last_row} s  recovered {last_end} s"
    print(f"{name:34} rows {len(rows):5}  {times}  gaps {gaps}  history calls {pages}")


def main() -> None:
    """Print the table."""
    for name, rate, seconds in (
        ("one page", 1.0, 30.0),
        ("ten pages", 2.5, 600.0),
        ("quiet account", 0.01, 30.0),
    ):
        found = log(rate, *outage(seconds))
        virtual_time.run(found.run(60.0 + seconds + 2400.0))
        report(name, found, T0 + 60.0)

    found = log(1.0)

    async def over_a_restart() -> None:
        await found.run(60.0)
        await found.away(30.0)
        await found.run(2400.0)

    virtual_time.run(over_a_restart())
    report("one page, over a restart", found, T0 + 90.0)

    faults = tuple(Fault("drop", at=60.0 + 4.0 * number) for number in range(8))
    found = log(1.0, *faults, channels=ALL)
    virtual_time.run(found.run(2400.0))
    report("eight faults in 30 s, 4 channels", found, T0 + 60.0)
    dials = [now for now, _, _ in found.runs[-1].world.dials]
    lives = sorted(unix(line) - T0 for line in found.named("feed.live"))
    lost = sorted(unix(line) - T0 for line in found.named("feed.lost"))
    down = max((min((live for live in lives if live > at), default=at) - at for at in lost), default=0.0)
    print(f"{'':34} connects {len(dials)}, longest from a loss to live {down:.0f} s")


if __name__ == "__main__":
    main()
