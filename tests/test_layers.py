"""The floors of the package: who may import whom, and what is loaded before the arguments are parsed."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import kraken_feed

PACKAGE = Path(kraken_feed.__file__).parent
FLOORS = [
    {"__init__"},
    {"errors", "text"},
    {
        "wire", "refusals", "spot_v1", "spot_v2", "auth", "backoff", "record", "schema", "orders", "view", "console",
        "checkpoint", "config", "figures", "findings", "clock", "key_info", "verdicts", "status", "families", "health",
        "http11", "latency", "splitter", "limits", "records", "destination", "literal", "methods", "request",
        "answers", "board", "columns", "screen", "envelope", "json_members", "order_states", "remembered", "volumes",
        "patience", "repeats",
    },
    {"session"},
    {
        "rest", "stream", "connection", "outlet", "output_file", "sync", "hold", "readiness", "sink", "stderr",
        "stdout", "log", "credentials", "store", "tables", "kraken_time", "absence", "config_file", "inbox", "terminal",
        "signals", "early", "descriptors", "proxy", "reach", "places", "systemd", "units", "metrics", "listener",
    },
    {
        "history", "recovery", "recorder", "shared", "tails", "keeper", "feed", "supervisor", "rehearsal",
        "trial", "capacity", "check", "assembly", "call",
    },
    {"handle", "watch", "service", "arguments", "commands", "cli", "__main__"},
]  # fmt: skip
FLOOR = {module: number for number, modules in enumerate(FLOORS) for module in modules}
PURE = sorted(set().union(*FLOORS[:4]))
IMPURE = {
    "asyncio", "fcntl", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip


class Import(NamedTuple):
    """One import of a module: which, whether only for the type checker, whether when the module is loaded."""

    module: str
    typing_only: bool
    at_load: bool


def _imports(path: Path) -> list[Import]:
    return list(_walk(ast.parse(path.read_text()), typing_only=False, at_load=True))


def _walk(node: ast.AST, *, typing_only: bool, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(name.name, typing_only, at_load)
        elif isinstance(child, ast.ImportFrom):
            for module in _from(child):
                yield Import(module, typing_only, at_load)
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for inner in child.body:
                yield from _walk(ast.Module([inner], []), typing_only=True, at_load=at_load)
            for inner in child.orelse:
                yield from _walk(ast.Module([inner], []), typing_only=typing_only, at_load=at_load)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _walk(child, typing_only=typing_only, at_load=at_load and not inside)


def _from(node: ast.ImportFrom) -> list[str]:
    """The modules of ``from x import y``, in full."""
    assert node.level <= 1
    base = ".".join(filter(None, ("kraken_feed" if node.level else "", node.module)))
    if base != "kraken_feed":
        return [base]
    return [f"{base}.{name.name}" if (PACKAGE / f"{name.name}.py").exists() else base for name in node.names]


MODULES = {path.stem: _imports(path) for path in sorted(PACKAGE.glob("*.py"))}
SIMULATOR = {path.stem: _imports(path) for path in sorted((PACKAGE / "simulator").glob("*.py"))}


def _ours(module: str) -> str | None:
    """The name in the package, ``simulator`` for all of it, or None for a module from elsewhere."""
    if module == "kraken_feed":
        return "__init__"
    return module.split(".")[1] if module.startswith("kraken_feed.") else None


def _importers(library: str, *, typing: bool = False) -> set[str]:
    """The modules that import a library, really or only for the type checker."""
    return {
        name
        for name, imports in MODULES.items()
        for found in imports
        if found.module.partition(".")[0] == library and found.typing_only is typing
    }


# ------------------------------------------------------------------------------------------------ floors


def test_every_module_has_its_floor() -> None:
    assert set(MODULES) == set(FLOOR)


def test_the_package_itself_loads_nothing_of_it() -> None:
    """Its public names are loaded when they are asked for; type checkers see them from the start."""
    ours = {found for found in MODULES["__init__"] if _ours(found.module) is not None}
    assert ours
    assert all(found.typing_only for found in ours)


@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"__init__"}))
def test_imports_point_down(name: str) -> None:
    for found in MODULES[name]:
        ours = _ours(found.module)
        if ours is not None and ours != "simulator":
            assert FLOOR[ours] <= FLOOR[name], f"{name} imports {ours}"
            assert not found.typing_only or FLOOR[ours] < FLOOR[name], f"{name} names types of {ours}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {ours for found in imports if (ours := _ours(found.module)) is not None and ours in MODULES}
        for name, imports in MODULES.items()
        if name != "__init__"
    }
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_have_no_sockets_disks_clocks_or_dice(name: str) -> None:
    assert not {found.module for found in MODULES[name]} & IMPURE


# ------------------------------------------------------------------------------------------------ libraries


def test_websockets_has_one_place() -> None:
    assert _importers("websockets") == {"connection", "stream"}
    assert _importers("websockets", typing=True) == set()


def test_httpx_has_one_place() -> None:
    assert _importers("httpx") == {"rest"}
    assert _importers("httpx", typing=True) <= {"feed", "check"}


def test_structlog_has_one_place_and_its_types_a_few() -> None:
    assert {name for name, imports in MODULES.items() for found in imports if found.module == "structlog"} == {"log"}
    assert {
        name
        for name, imports in MODULES.items()
        for found in imports
        if found.module.startswith("structlog.") and found.module != "structlog.typing"
    } <= {"log"}
    assert _importers("structlog") <= {
        "log", "console", "feed", "tails", "shared", "recovery", "keeper", "supervisor", "service", "assembly", "call",
    }  # fmt: skip
    assert _importers("structlog", typing=True) <= {"console", "feed", "rest", "systemd"}


def test_msgspec_stays_where_json_and_structs_are() -> None:
    assert _importers("msgspec") == {
        "wire", "spot_v1", "spot_v2", "backoff", "record", "order_states", "view", "checkpoint", "config", "figures",
        "session", "rest", "store", "tables", "absence", "history", "recovery", "shared", "tails", "keeper", "limits",
        "findings", "key_info", "verdicts", "rehearsal", "trial", "records", "assembly", "answers", "board", "envelope",
    }  # fmt: skip
    assert _importers("msgspec", typing=True) == set()


def test_prometheus_client_has_one_place() -> None:
    assert _importers("prometheus_client") == {"metrics"}
    assert _importers("prometheus_client", typing=True) == set()


def test_rich_is_where_the_screen_is_made() -> None:
    assert _importers("rich") == {"columns", "screen"}
    assert _importers("rich", typing=True) == set()


def test_nothing_loads_the_screen_with_itself() -> None:
    """It is an extra, too; and nothing on the way of a record knows of it."""
    importers = {
        (name, _ours(found.module))
        for name, imports in MODULES.items()
        for found in imports
        if f"kraken_feed.{_ours(found.module)}" in WATCH and (found.at_load or name != "commands")
    }
    assert {name for name, _ in importers} <= {"columns", "screen", "watch"}


def test_nothing_else_from_outside_the_standard_library_is_imported() -> None:
    outside = {
        found.module.partition(".")[0]
        for imports in (*MODULES.values(), *SIMULATOR.values())
        for found in imports
        if found.module.partition(".")[0] not in sys.stdlib_module_names
    }
    assert outside == {"kraken_feed", "websockets", "httpx", "structlog", "msgspec", "prometheus_client", "rich"}


# ------------------------------------------------------------------------------------------------ the simulator


def test_nothing_loads_the_simulator_with_itself() -> None:
    importers = {
        (name, found.at_load)
        for name, imports in MODULES.items()
        for found in imports
        if _ours(found.module) == "simulator" and not found.typing_only
    }
    assert importers <= {("arguments", False), ("commands", False)}


def test_nothing_loads_the_metrics_with_itself() -> None:
    """They are an extra: who does not ask for them need not have it."""
    importers = {
        (name, _ours(found.module))
        for name, imports in MODULES.items()
        for found in imports
        if _ours(found.module) in ("metrics", "listener") and not found.typing_only and found.at_load
    }
    assert importers == set()


@pytest.mark.parametrize("name", sorted(SIMULATOR))
def test_simulator_knows_nothing_of_the_client(name: str) -> None:
    """Else both could share a mistake, and agree on it."""
    ours = {found.module for found in SIMULATOR[name] if _ours(found.module) is not None}
    assert {module for module in ours if not module.startswith("kraken_feed.simulator")} <= {"kraken_feed"}


# ------------------------------------------------------------------------------------------------ order entry

ORDER_ENTRY = {"literal", "methods", "request", "answers", "call"}
TAIL = ("commands", "cli", "service", "supervisor", "feed", "tails", "check", "systemd", "listener")


def test_only_the_word_call_imports_order_entry_and_not_before_it_is_said() -> None:
    importers = {
        (name, found.at_load)
        for name, imports in MODULES.items()
        for found in imports
        if _ours(found.module) in ORDER_ENTRY and name not in ORDER_ENTRY
    }
    assert importers == {("commands", False)}


def test_only_call_can_send_what_order_entry_makes() -> None:
    """The others of it are pure: they have nothing to send with."""
    assert FLOOR["call"] > max(FLOOR[name] for name in ORDER_ENTRY - {"call"})
    assert ORDER_ENTRY - {"call"} < set(PURE)


def test_the_path_of_a_tail_loads_no_order_entry() -> None:
    loaded = _loaded("import " + ", ".join(f"kraken_feed.{name}" for name in TAIL))
    assert "kraken_feed.feed.endpoint" in loaded
    assert not loaded.intersection(f"kraken_feed.{name}" for name in ORDER_ENTRY)


# ------------------------------------------------------------------------------------------------ what is loaded when

HEAVY = ("httpx", "websockets", "structlog", "msgspec", "kraken_feed.simulator")
METRICS_ONLY = ("metrics", "families", "listener")
METRICS = {"prometheus_client", "http.server", *(f"kraken_feed.{name}" for name in METRICS_ONLY)}


def _loaded(code: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after ``code``."""
    script = f"import sys\n{code}\nsys.stdout.write('\\n'.join(name for name, it in sys.modules.items() if it))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def _run(*arguments: str) -> str:
    """Code that runs the command to its end."""
    return (
        "import os\nos._exit = sys.exit\nfrom kraken_feed.cli.main import main\n"
        f"try:\n    main({list(arguments)!r})\nexcept SystemExit as end:\n    print(end.code)\n"
    )


@pytest.mark.parametrize(
    "arguments", [None, ["--version"], ["--help"], ["tail", "--help"], ["token", "--help"], ["call", "--help"]]
)
def test_nothing_heavy_is_loaded_before_there_is_work(arguments: list[str] | None) -> None:
    loaded = _loaded("from kraken_feed.cli.main import main" if arguments is None else _run(*arguments))
    assert "0" in loaded or arguments is None
    assert "kraken_feed.cli.main" in loaded
    assert not loaded.intersection(HEAVY)


WATCH = {f"kraken_feed.{name}" for name in ("board", "columns", "screen", "terminal", "watch")} | {"rich"}
NOT_FOR_THE_COMMAND = {f"kraken_feed.{name}" for name in ("handle", "inbox", "records")} | WATCH


def test_a_tail_loads_nothing_that_only_programs_need() -> None:
    """Not even where rich is installed, which structlog loads if it finds it."""
    assert importlib.util.find_spec("rich") is not None
    loaded = _loaded(_run("demo", "executions", "--count", "3"))
    assert {"kraken_feed.service.run", "kraken_feed.feed.endpoint", "structlog", "0"} <= loaded
    assert not loaded & NOT_FOR_THE_COMMAND


def test_a_program_loads_nothing_that_only_the_command_needs() -> None:
    loaded = _loaded("import kraken_feed; kraken_feed.tail")
    only = {"cli", "arguments", "commands", "service", "sink", "systemd", "signals", "check", "console"}
    assert "kraken_feed.api" in loaded
    assert not loaded & {*(WATCH - {"rich"}), *(f"kraken_feed.{name}" for name in only)}
    assert _loaded("import kraken_feed") & {f"kraken_feed.{name}" for name in MODULES} == set()


def test_probe_sees_what_is_loaded() -> None:
    assert _loaded("import kraken_feed.watch.app") >= WATCH
    assert set(HEAVY) - {"kraken_feed.simulator"} <= _loaded("import kraken_feed.feed.feed")
    assert _loaded("import kraken_feed.service.metrics, kraken_feed.service.listener") >= METRICS


def test_a_feed_does_without_what_metrics_need() -> None:
    modules = ", ".join(f"kraken_feed.{name}" for name in sorted(MODULES) if name not in ("__main__", *METRICS_ONLY))
    assert not _loaded(f"import {modules}").intersection(METRICS)
