"""What a process loads, and what it does not: starts are fast, and a tail has no way to change an account."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from ..support.cases import each
from ..support.timeouts import TIMEOUT_S

HEAVY = ("httpx", "websockets", "structlog", "msgspec", "kraken_feed.simulator")
METRICS = {"prometheus_client", "http.server", "kraken_feed.service.metrics", "kraken_feed.service.listener"}
WATCH = {f"kraken_feed.watch.{name}" for name in ("model", "table", "screen", "terminal", "app")} | {"rich"}
NOT_FOR_THE_COMMAND = {"kraken_feed.api", "kraken_feed.output.queue", "kraken_feed.records.types"} | WATCH
NOT_FOR_PROGRAMS = ("kraken_feed.cli", "kraken_feed.service", "kraken_feed.check", "kraken_feed.watch")


def _loaded(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after ``code``."""
    script = f"import sys\n{code}\nsys.stdout.write('\\n'.join(name for name, it in sys.modules.items() if it))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    return set(done.stdout.split())


def _run(*arguments: str) -> str:
    """Return code that runs the command to its end."""
    return (
        "import os\nos._exit = sys.exit\nfrom kraken_feed.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit as end:\n    print(end.code)\n"
    )


@each("arguments", [None, ["--version"], ["--help"], ["tail", "--help"], ["token", "--help"], ["call", "--help"]])
def test_nothing_heavy_is_loaded_before_there_is_work(arguments: list[str] | None) -> None:
    loaded = _loaded("from kraken_feed.cli.main import main" if arguments is None else _run(*arguments))
    assert "0" in loaded or arguments is None
    assert "kraken_feed.cli.main" in loaded
    assert not loaded.intersection(HEAVY)


def test_a_tail_loads_nothing_that_only_programs_need() -> None:
    """Not even where rich is installed, which structlog loads if it finds it."""
    assert importlib.util.find_spec("rich") is not None
    loaded = _loaded(_run("demo", "executions", "--count", "3"))
    assert {"kraken_feed.service.run", "kraken_feed.feed.endpoint", "structlog", "0"} <= loaded
    assert not loaded & (NOT_FOR_THE_COMMAND | METRICS)


def test_a_program_loads_nothing_that_only_the_command_needs() -> None:
    loaded = _loaded("import kraken_feed; kraken_feed.tail")
    assert "kraken_feed.api" in loaded
    assert not {name for name in loaded if name.startswith(NOT_FOR_PROGRAMS)}
    assert {name for name in _loaded("import kraken_feed") if name.startswith("kraken_feed.")} == set()


def test_probe_sees_what_is_loaded() -> None:
    assert _loaded("import kraken_feed.watch.app") >= WATCH
    assert set(HEAVY) - {"kraken_feed.simulator"} <= _loaded("import kraken_feed.feed.feed")
    assert _loaded("import kraken_feed.service.metrics, kraken_feed.service.listener") >= METRICS


def test_the_path_of_a_tail_loads_no_order_entry() -> None:
    path = (
        "cli.commands",
        "cli.main",
        "service.run",
        "feed.feed",
        "check.preflight",
        "service.systemd",
        "service.listener",
    )
    loaded = _loaded("import " + ", ".join(f"kraken_feed.{name}" for name in path))
    assert "kraken_feed.feed.endpoint" in loaded
    assert not {name for name in loaded if name.startswith("kraken_feed.order_entry")}
