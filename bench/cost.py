"""CPU a frame: of whole processes, as the kernel counts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from bench.contender import OURS, Contender, ccxt, floor, kraken_feed, python_kraken_sdk, rust_programs
from bench.frames import DIALECTS, WARM_UP, Dialect, Script
from bench.process import Server, blast, serving
from bench.result import Bound, Report, Row
from bench.size import Size

Figures = dict[str, list[float]]
Entries = dict[str, tuple[Contender, str]]  # by the name in the tables: who runs, on which script


def _blasts(size: Size, report: Report, server: Server, entries: Entries, label: str, **how: bool) -> Figures:
    """CPU microseconds a frame of each entry, round by round; every round begins with another one."""
    names = list(entries)
    figures: Figures = {name: [] for name in names}
    for round_ in range(size.rounds):
        for turn in range(len(names)):
            name = names[(turn + round_) % len(names)]
            contender, script = entries[name]
            size.say(f"{label}, round {round_ + 1}: {name}")
            done = blast(contender, server, script, **how)
            figures[name].append(done.cpu_us)
            report.runs.setdefault(f"{name} ({label})", []).append(asdict(done))
    return figures


def _scripts(size: Size, dialect: Dialect, contenders: Sequence[Contender]) -> tuple[Entries, dict[str, Script]]:
    """Each contender with a script that is not longer than it needs."""
    entries: Entries = {}
    scripts = {}
    for contender in contenders:
        frames = max(1000, int(size.frames * contender.share))
        entries[contender.name] = contender, str(frames)
        scripts[str(frames)] = Script(dialect, 100, (WARM_UP, frames))
    return entries, scripts


def _pair(figures: Figures, top: str, bottom: str) -> tuple[tuple[str, list[float]], tuple[str, list[float]]]:
    return (top, figures[top]), (bottom, figures[bottom])


def cpu(size: Size, report: Report) -> None:
    """CPU a frame against the floor, and of others against ours."""
    buffered = floor("buffered", name="buffered floor")
    for dialect in DIALECTS:
        others = [python_kraken_sdk(), ccxt()] if dialect == "v2" else []
        entries, scripts = _scripts(size, dialect, [OURS, floor(), buffered, *others])
        with serving(scripts) as server:
            figures = _blasts(size, report, server, entries, dialect)
        name = f"CPU a frame, {dialect}"
        report.rows.append(Row(name, "µs", *_pair(figures, OURS.name, "floor"), Bound(1.5, 1.0)))
        report.rows.append(Row(name, "µs", *_pair(figures, OURS.name, buffered.name)))
        for contender in others:
            bound = Bound(4, 6, "at least") if contender.name == "python-kraken-sdk" else None
            report.rows.append(Row(name, "µs", *_pair(figures, contender.name, OURS.name), bound))
    report.skipped.append("python-kraken-sdk and ccxt.pro in v1: they speak v2 only")


def tls(size: Size, report: Report) -> None:
    """The Rust programs, which speak TLS; so everybody does."""
    rust, missing = rust_programs()
    report.skipped += missing
    if not rust:
        return
    entries, scripts = _scripts(size, "v2", [OURS, floor(), *rust])
    with serving(scripts) as server:
        figures = _blasts(size, report, server, entries, "v2 over TLS", secure=True)
    for name in list(entries)[1:]:
        bound = Bound(None, 1.0, "at least") if name == "kraken-cli" else None
        report.rows.append(Row("CPU a frame, v2 over TLS", "µs", *_pair(figures, name, OURS.name), bound))


def sqlite(size: Size, report: Report) -> None:
    """What the checkpoint costs."""
    scripts = {"it": Script("v1", 100, (WARM_UP, size.frames))}
    entries = {"with state": (OURS, "it"), "--no-state": (kraken_feed("--no-state"), "it")}
    with serving(scripts) as server:
        figures = _blasts(size, report, server, entries, "v1")
    report.rows.append(Row("CPU a frame, checkpoint", "µs", *_pair(figures, "with state", "--no-state")))


def many_orders(size: Size, report: Report) -> None:
    """Whether a frame costs more when many orders are open: with events for a hundred of them, and for all."""
    frames, few, count = (WARM_UP, min(size.frames, 100_000)), "100 open", f"{size.many:,} open"
    scripts = {
        "some": Script("v1", size.many, frames, active=100),
        "all": Script("v1", size.many, frames),
        "few": Script("v1", 100, frames),
    }
    names = {f"{count}, 100 active": "some", f"{count}, all active": "all", few: "few"}
    with serving(scripts) as server:
        entries: Entries = {name: (OURS, script) for name, script in names.items()}
        figures = _blasts(size, report, server, entries, "v1", settle=True)
    for name in list(names)[:2]:
        report.rows.append(Row("CPU a frame, open orders", "µs", *_pair(figures, name, few), Bound(1.2, 1.0)))
