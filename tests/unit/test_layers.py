"""The packages: who imports whom, which library has which home, and what is loaded before the arguments are parsed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import kraken_feed

from ..support.cases import each

ROOT = Path(kraken_feed.__file__).parent
# From top to bottom: a package imports only from those below it. `__init__` names what a program may use.
PACKAGES = (
    "__main__", "cli", "watch", "check", "service", "early", "api", "query", "order_entry", "feed", "state",
    "transport", "output", "config", "telemetry", "protocol", "records", "json_members", "errors", "text", "__init__",
)  # fmt: skip
FLOOR = {package: -number for number, package in enumerate(PACKAGES)}
PURE = ("protocol", "records", "json_members", "errors", "text")
PURE_MODULES = {
    "feed.order_states", "feed.volumes", "state.checkpoint", "transport.backoff", "transport.envelope",
    "telemetry.causes", "telemetry.events", "telemetry.stats", "telemetry.status", "telemetry.repeats",
    "service.health", "watch.model", "check.report", "check.key_settings",
    "order_entry.methods", "order_entry.request", "order_entry.responses", "output.console",
    "query.evidence", "query.progress", "query.records",
}  # fmt: skip
IMPURE = {
    "asyncio", "fcntl", "io", "multiprocessing", "os", "pathlib", "random", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip


class Import(NamedTuple):
    """One import of a module: which, whether only for the type checker, whether when the module is loaded."""

    module: str
    typing_only: bool
    at_load: bool


def _name(path: Path) -> str:
    """Return a module's name within the package: ``feed.endpoint``, ``api``; a package's own is ``feed.__init__``."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def _imports(path: Path) -> list[Import]:
    package = ["kraken_feed", *path.relative_to(ROOT).parts[:-1]]
    return list(_walk(ast.parse(path.read_text()), package, typing_only=False, at_load=True))


def _walk(node: ast.AST, package: list[str], *, typing_only: bool, at_load: bool) -> Iterator[Import]:
    """Yield the imports among the statements below. An expression has none."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for name in child.names:
                yield Import(name.name, typing_only, at_load)
        elif isinstance(child, ast.ImportFrom):
            for module in _from(child, package):
                yield Import(module, typing_only, at_load)
        elif isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for inner in child.body:
                yield from _walk(ast.Module([inner], []), package, typing_only=True, at_load=at_load)
            for inner in child.orelse:
                yield from _walk(ast.Module([inner], []), package, typing_only=typing_only, at_load=at_load)
        elif not isinstance(child, ast.expr):
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from _walk(child, package, typing_only=typing_only, at_load=at_load and not inside)


def _from(node: ast.ImportFrom, package: list[str]) -> list[str]:
    """Return the modules of ``from x import y``, in full."""
    above = package[: len(package) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    if not base.startswith("kraken_feed"):
        return [base]
    folder = ROOT.joinpath(*base.split(".")[1:])
    return [f"{base}.{name.name}" if (folder / f"{name.name}.py").exists() else base for name in node.names]


class Modules(Mapping[str, list[Import]]):
    """The imports of modules by name. A file is parsed when a test asks for it, not when the tests are collected."""

    def __init__(self, *, simulator: bool) -> None:
        files = {_name(path): path for path in sorted(ROOT.rglob("*.py"))}
        self._files = {name: path for name, path in files.items() if name.startswith("simulator.") is simulator}
        self._parsed: dict[str, list[Import]] = {}

    def __getitem__(self, name: str) -> list[Import]:
        if name not in self._parsed:
            self._parsed[name] = _imports(self._files[name])
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


MODULES = Modules(simulator=False)
SIMULATOR = Modules(simulator=True)


def _ours(module: str) -> str | None:
    """Return the name within the package, or None for a module from elsewhere."""
    if module == "kraken_feed":
        return "__init__"
    return module.removeprefix("kraken_feed.") if module.startswith("kraken_feed.") else None


def _package(name: str) -> str:
    return name.partition(".")[0]


def _importers(library: str, *, typing: bool = False) -> set[str]:
    """Return the modules that import a library, really or only for the type checker."""
    return {
        name
        for name, imports in MODULES.items()
        for found in imports
        if found.module.partition(".")[0] == library and found.typing_only is typing
    }


def _homes(library: str) -> set[str]:
    return {_package(name) for name in _importers(library)}


# ------------------------------------------------------------------------------------------------ packages


def test_every_package_has_its_place_and_tells_its_purpose_and_what_to_read_first() -> None:
    assert {_package(name) for name in MODULES} == set(PACKAGES)
    for package in PACKAGES:
        if (ROOT / package).is_dir():
            (doc,) = ast.parse((ROOT / package / "__init__.py").read_text()).body
            assert isinstance(doc, ast.Expr), "a package's own file has nothing but a docstring: it re-exports nothing"
            assert " first" in ast.unparse(doc)


def test_the_package_itself_loads_nothing_of_it() -> None:
    """Its public names are loaded when they are asked for; type checkers see them from the start."""
    ours = {found for found in MODULES["__init__"] if _ours(found.module) is not None}
    assert ours
    assert all(found.typing_only for found in ours)


@each("name", sorted(MODULES.keys() - {"__init__"}))
def test_a_package_imports_only_from_those_below_it(name: str) -> None:
    for found in MODULES[name]:
        ours = _ours(found.module)
        if ours is not None and _package(ours) not in ("simulator", _package(name)):
            assert FLOOR[_package(ours)] < FLOOR[_package(name)], f"{name} imports {ours}"


def test_no_module_imports_itself_through_others() -> None:
    graph = {
        name: {ours for found in imports if (ours := _ours(found.module)) is not None and ours in MODULES}
        for name, imports in MODULES.items()
        if name != "__init__"
    }
    TopologicalSorter(graph).prepare()


@each("name", sorted({n for n in MODULES if _package(n) in PURE} | PURE_MODULES))
def test_pure_modules_have_no_sockets_disks_clocks_or_dice(name: str) -> None:
    assert not {found.module for found in MODULES[name]} & IMPURE


# ------------------------------------------------------------------------------------------------ libraries


def test_websockets_and_httpx_are_at_home_in_transport() -> None:
    assert _importers("websockets") == {"transport.connection", "transport.stream"}
    assert _importers("websockets", typing=True) == set()
    assert _importers("httpx") == {"transport.rest"}
    assert {_package(name) for name in _importers("httpx", typing=True)} <= {"feed", "check", "query"}


def test_structlog_is_at_home_in_the_loggers_and_its_types_in_a_few() -> None:
    direct = {name for name, found in MODULES.items() for one in found if one.module == "structlog"}
    assert direct == {"telemetry.loggers"}
    deep = {
        name
        for name, imports in MODULES.items()
        for found in imports
        if found.module.startswith("structlog.") and found.module != "structlog.typing"
    }
    assert deep <= {"telemetry.loggers"}


def test_prometheus_client_is_at_home_in_the_metrics() -> None:
    assert _importers("prometheus_client") == {"service.metrics"}
    assert _importers("prometheus_client", typing=True) == set()


def test_rich_is_at_home_where_the_screen_is_made() -> None:
    assert _importers("rich") == {"watch.table", "watch.screen"}
    assert _importers("rich", typing=True) == set()


def test_msgspec_stays_out_of_what_people_read_and_write() -> None:
    assert _homes("msgspec") <= {
        "check", "config", "feed", "order_entry", "protocol", "query", "records", "state", "telemetry", "transport",
        "watch",
    }  # fmt: skip


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
        if found.module.startswith("kraken_feed.simulator") and not found.typing_only
    }
    assert importers <= {("cli.arguments", False), ("cli.commands", False)}


@each("name", sorted(SIMULATOR))
def test_simulator_knows_nothing_of_the_client(name: str) -> None:
    """Else both could share a mistake, and agree on it."""
    ours = {found.module for found in SIMULATOR[name] if _ours(found.module) is not None}
    assert {module for module in ours if not module.startswith("kraken_feed.simulator")} <= {"kraken_feed"}


# From bottom to top, those of one line beside each other: each imports only from lines above it.
SIMULATOR_ORDER = (
    ("quirks",), ("market",), ("access",), ("faults",), ("world",), ("wire", "rest"), ("strike",), ("exchange",),
    ("net", "demo"), ("main",), ("__main__",),
)  # fmt: skip
SIMULATOR_FLOOR = {name: floor for floor, names in enumerate(SIMULATOR_ORDER) for name in names}
SIMULATOR_ROOT = ROOT / "simulator"


def _simulator_imports(name: str) -> set[str]:
    """Return the simulator's modules that one of them imports, type-only imports included, without the prefix."""
    return {
        found.module.removeprefix("kraken_feed.simulator.")
        for found in SIMULATOR[name]
        if found.module.startswith("kraken_feed.simulator.")
    }


def test_every_package_of_the_simulator_has_its_place_and_tells_what_to_read_first() -> None:
    modules = {name.removeprefix("simulator.") for name in SIMULATOR}
    assert {_package(name) for name in modules} - {"__init__"} == SIMULATOR_FLOOR.keys()
    packages = [path.parent for path in SIMULATOR_ROOT.rglob("__init__.py")]
    assert {path.name for path in packages if path != SIMULATOR_ROOT} == {
        _package(name) for name in modules if "." in name
    }
    for package in packages:
        (doc,) = ast.parse((package / "__init__.py").read_text()).body
        assert isinstance(doc, ast.Expr), "a package's own file has nothing but a docstring: it re-exports nothing"
        assert " first" in ast.unparse(doc)


@each("name", sorted(SIMULATOR.keys() - {"simulator.__init__"}))
def test_a_package_of_the_simulator_imports_only_from_those_below_it(name: str) -> None:
    own = _package(name.removeprefix("simulator."))
    for module in _simulator_imports(name):
        if _package(module) != own:
            assert SIMULATOR_FLOOR[_package(module)] < SIMULATOR_FLOOR[own], f"{name} imports {module}"


def test_no_module_of_the_simulator_imports_itself_through_others() -> None:
    graph = {name.removeprefix("simulator."): _simulator_imports(name) for name in SIMULATOR}
    assert graph["wire.peer"] > {"world", "wire.dialect"}
    TopologicalSorter(graph).prepare()


def test_only_net_and_main_of_the_simulator_touch_sockets_and_the_clock() -> None:
    """Everything else takes the time as an argument and draws from generators that the seed makes."""
    outside = IMPURE | {"asyncio", "websockets"}
    touching = {
        _package(name.removeprefix("simulator."))
        for name, imports in SIMULATOR.items()
        for found in imports
        if found.module in outside - {"pathlib", "random"} or _package(found.module) == "websockets"
    }
    assert touching == {"net", "main", "__main__"}


# ------------------------------------------------------------------------------------------------ order entry

ORDER_ENTRY = {name for name in MODULES if _package(name) == "order_entry"}


def test_only_the_word_call_imports_order_entry_and_not_before_it_is_said() -> None:
    importers = {
        (name, found.at_load)
        for name, imports in MODULES.items()
        for found in imports
        if _ours(found.module) in ORDER_ENTRY and name not in ORDER_ENTRY
    }
    assert importers == {("cli.commands", False)}


def test_only_call_can_send_what_order_entry_makes() -> None:
    """The others of it are pure: they have nothing to send with."""
    assert ORDER_ENTRY - {"order_entry.call", "order_entry.__init__"} < PURE_MODULES
