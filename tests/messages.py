"""Every message that a user can meet, read out of the code: the errors that end a command, and the diagnostics."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kraken_feed
from kraken_feed import errors

PACKAGE = Path(kraken_feed.__file__).parent
ERRORS = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, Exception)}
HOLE = "…"  # stands for what is filled in


class Said(NamedTuple):
    """One message: its class or level, its text, and where it is said."""

    kind: str
    text: str
    module: str


def endings() -> Iterator[Said]:
    """What the errors that can end a command say first, placeholders as ``…``."""
    for path, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _name(node.func) in ERRORS and node.args:
                yield Said(_name(node.func), template(node.args[0]), path.stem)


def diagnostics(*levels: str) -> Iterator[Said]:
    """The events that are logged at these levels."""
    for path, tree in _trees():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in levels
                and _name(node.func.value).endswith("log")
                and node.args
            ):
                yield Said(node.func.attr, template(node.args[0]), path.stem)


def template(node: ast.expr) -> str:
    """The text of a literal, with ``…`` for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else HOLE for p in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return HOLE


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.glob("*.py")):
        yield path, ast.parse(path.read_text())


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
