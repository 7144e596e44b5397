"""``python -m tests.stress.storm``: run plans from seeds, compare, and reduce what fails."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from time import monotonic

from . import plan as plans
from .plan import Plan
from .shrink import BUDGET_S, shrink
from .simulation import Result, run, silent

GC_THRESHOLD = 100_000  # allocations; nearly everything here lives until its plan is over


def main(arguments: list[str] | None = None) -> int:
    """Run it; 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress.storm", description=__doc__)
    parser.add_argument("--seeds", type=int, help="run so many plans")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--events", type=int, help="run plans until the exchange has made so many changes")
    parser.add_argument("--length", type=int, default=plans.EVENTS_PER_PLAN, metavar="EVENTS", help="of a plan, about")
    parser.add_argument("--minutes", type=float, help="run plans for so long")
    parser.add_argument("--seed", type=int, help="run the plan of this seed only")
    parser.add_argument("--plan", type=Path, help="run the plan in this file only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--shrink", type=float, default=BUDGET_S, metavar="SECONDS", help="0: do not")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first broken promise")
    parser.add_argument("--without", default="", metavar="KIND,…", help="kinds of trouble that are left out")
    parser.add_argument("--verbose", action="store_true", help="with --seed or --plan: tell what happens")
    options = parser.parse_args(arguments)
    options.without = frozenset(filter(None, options.without.split(",")))
    if unknown := options.without - plans.KINDS:
        parser.error(f"--without: {', '.join(sorted(unknown))}: none of {', '.join(sorted(plans.KINDS))}")
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of what a seed repeats
        again = [sys.executable, "-m", "tests.stress.storm", *sys.argv[1:]]
        os.execve(sys.executable, again, {**os.environ, "PYTHONHASHSEED": "0"})  # the same program
    say = print if options.verbose else silent
    started, failed = monotonic(), False
    results = list[Result]()
    try:
        for result in _results(options, say):
            results.append(result)
            if result.violations:
                failed = True
                _report(result, options)
                if not options.keep_going:
                    break
    except KeyboardInterrupt:
        failed = True
    _summary(results, monotonic() - started)
    return 1 if failed else 0


def _results(options: argparse.Namespace, say: Callable[[str], None]) -> Iterator[Result]:
    if options.plan is not None:
        yield _run(plans.read(options.plan.read_bytes()), say)
    elif options.seed is not None:
        yield _run(plans.draw(options.seed, options.without, options.length), say)
    else:
        yield from _many(options)


def _many(options: argparse.Namespace) -> Iterator[Result]:
    """Run plans in processes of their own until the limit is met."""
    ends = monotonic() + options.minutes * 60 if options.minutes else None
    seeds = range(options.first, options.first + options.seeds) if options.seeds else _endless(options.first)
    waiting, events, begun = iter(seeds), 0, False
    with ProcessPoolExecutor(options.jobs) as pool:
        pending: set[Future[Result]] = set()
        try:
            while not begun or pending:
                begun = True
                while len(pending) < options.jobs + 1 and _wanted(options, events, ends):
                    seed = next(waiting, None)
                    if seed is None:
                        break
                    pending.add(pool.submit(_run_seed, seed, options.without, options.length))
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=lambda future: future.result().plan.seed):
                    events += future.result().events
                    yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _wanted(options: argparse.Namespace, events: int, ends: float | None) -> bool:
    if options.events is not None and events >= options.events:
        return False
    return ends is None or monotonic() < ends


def _endless(first: int) -> Iterator[int]:
    while True:
        yield first
        first += 1


def _run_seed(seed: int, without: frozenset[str], length: int) -> Result:
    return _run(plans.draw(seed, without, length))


def _run(plan: Plan, say: Callable[[str], None] = silent) -> Result:
    gc.set_threshold(GC_THRESHOLD)
    return run(plan, say)


def _report(result: Result, options: argparse.Namespace) -> None:
    """Say which promise was broken, how to repeat it, and the smallest plan that breaks it too."""
    first = result.violations[0]
    print(f"seed {result.plan.seed}: {first.invariant}")
    for violation in result.violations[:5]:
        print(f"  {violation.invariant}: {violation.item}")
    again = f"--seed {result.plan.seed}"
    if options.without:
        again += f" --without {','.join(sorted(options.without))}"
    if options.length != plans.EVENTS_PER_PLAN:
        again += f" --length {options.length}"
    print(f"  repeat it: python -m tests.stress.storm {again}", flush=True)
    if not options.shrink:
        return

    def fails(plan: Plan) -> float | None:
        found = _run(plan)
        return found.ended_at if any(v.invariant == first.invariant for v in found.violations) else None

    print("the smallest plan that was found (python -m tests.stress.storm --plan FILE):")
    print(plans.write(shrink(result.plan, fails, seconds=options.shrink)).decode(), flush=True)


def _summary(results: Iterable[Result], seconds: float) -> None:
    done = list(results)
    gaps = Counter[str]()
    for result in done:
        gaps.update(result.gaps)
    events, own = sum(result.events for result in done), sum(result.seconds for result in done)
    rows: list[tuple[str, object]] = [
        ("seeds", len(done)),
        ("events", events),
        ("records", sum(result.lines for result in done)),
        ("runs of the client", sum(result.runs for result in done)),
        ("outages recovered", sum(result.recovered for result in done)),
        ("gaps", gaps.total()),
        *((f"  {reason}", count) for reason, count in gaps.most_common()),
        ("seeds that broke a promise", sum(bool(result.violations) for result in done)),
        ("events per minute", round(events / max(seconds, 0.001) * 60)),
        ("events per minute and process", round(events / max(own, 0.001) * 60)),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value:>12}")


if __name__ == "__main__":
    sys.exit(main())
