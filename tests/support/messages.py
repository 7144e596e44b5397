"""Every message that a user can meet, read out of the code: errors, diagnostics, and the reasons on records.

What cannot be read is an error here, so that nothing is passed over.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kraken_feed
from kraken_feed import errors
from kraken_feed.config.schema import DIALECTS

PACKAGE = Path(kraken_feed.__file__).parent
ERRORS = {
    name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, errors.FeedError)
}
LEVELS = ("debug", "info", "warning", "error")
HOLE = "…"  # stands for what is filled in


class Said(NamedTuple):
    """One message: its class or level, its text, and where it is said."""

    kind: str
    text: str
    module: str


# ------------------------------------------------------------------------------------------------ errors


def endings() -> Iterator[Said]:
    """What the errors that can end a command say first, placeholders as ``…``. What only passes on another error's
    words is none of its own."""
    for path, function, call in _calls():
        kind = _error_class(call)
        if kind is None:
            continue
        text = template(call.args[0], function)
        if _worded(text):
            yield Said(kind, text, path.stem)
        elif path.stem == "arguments":
            yield Said(kind, text, path.stem)  # argparse's words
        else:
            assert ".what" in ast.unparse(function), f"{path.stem}:{call.lineno}: an error without words of its own"


def _error_class(call: ast.Call) -> str | None:
    """The class of the error that the call makes, if it makes one: by its name, or by a verdict on Kraken's words,
    which is RequestRefused where CredentialsRefused was dealt with before."""
    name = _name(call.func)
    if name in ERRORS:
        return name
    return "RequestRefused" if ast.unparse(call.func) == "verdict.error" else None


# ------------------------------------------------------------------------------------------------ diagnostics


def diagnostics() -> dict[str, set[str]]:
    """The levels at which each event is logged, by the event's name."""
    found: dict[str, set[str]] = {}
    for path, function, call in _calls():
        for level in _levels(call, function):
            name = ast.unparse(call.args[0])
            if isinstance(call.args[0], ast.Constant):
                found.setdefault(str(call.args[0].value), set()).add(level)
            else:  # a notice has its name from where it was made
                assert name == "event.event", f"{path.stem}:{call.lineno}: the event {name} cannot be read"
    for name, level in _written_out():
        found.setdefault(name, set()).add(level)
    return found


def _levels(call: ast.Call, function: ast.AST) -> set[str]:
    """The levels at which the call logs; none if it does not."""
    match call.func:
        case ast.Name("Notice"):
            quiet = any(word.arg == "warning" and ast.unparse(word.value) == "False" for word in call.keywords)
            return {"debug" if quiet else "warning"}
        case ast.Attribute(value, level) if level in LEVELS and _name(value).endswith("log"):
            return {level}
        case ast.Attribute(_, "_warn"):  # what takes a logger's ``warning`` calls it so
            return {"warning"}
        case ast.Call(ast.Name("getattr"), [logger, ast.Name(level)]) if "diagnostics" in ast.unparse(logger):
            return {str(said) for said in _constants(_assigned(function, level)) if said in LEVELS}
        case ast.Name(name) if (chosen := _assigned(function, name)) is not None:
            logged = [node for node in ast.walk(chosen) if isinstance(node, ast.Attribute) and node.attr in LEVELS]
            return {node.attr for node in logged if _name(node.value).endswith("log")}
    return set()


def _written_out() -> Iterator[tuple[str, str]]:
    """Events that are written without a logger: dictionaries with an ``event``. Dialects, and requests,
    speak to Kraken."""
    for path, _, node in _inside(ast.Dict):
        if isinstance(node, ast.Dict) and path.stem not in {"request", *(f"spot_{dialect}" for dialect in DIALECTS)}:
            named = {template(key): value for key, value in zip(node.keys, node.values, strict=True) if key is not None}
            if "event" in named:
                yield template(named["event"]), template(named["level"]) if "level" in named else "info"


def plain() -> set[str]:
    """What is said on stderr in plain words, without being an error."""
    found = set()
    for _, function, call in _calls():
        match call.func:
            case ast.Attribute(ast.Call(ast.Name("Stderr")), level) if level in LEVELS:
                found.add(template(call.args[0], function).partition("\n")[0])
            case ast.Attribute(_, "_marked") if isinstance(call.args[0], ast.JoinedStr):
                found.add(template(call.args[0], function))
    return {text for text in found if _worded(text)}


# ------------------------------------------------------------------------------------------------ reasons


def reasons() -> set[str]:
    """Why an outage is declared as a gap. Several reasons can be joined; each is here by itself."""
    found = set()
    for path, function, node in _inside(ast.Call, ast.Return, ast.Assign):
        for said in _reasons(path, function, node):
            found.add(template(said, function))
    return {text for text in found if _worded(text)}


def _reasons(path: Path, function: ast.AST, node: ast.AST) -> list[ast.expr]:
    """What the node gives as reasons of a gap."""
    match node:
        case ast.Call(ast.Attribute(_, "give_up"), [reason]):
            return [reason]
        case _ if path.stem != "recovery":
            return []
        case ast.Call(ast.Attribute(ast.Name("doubts"), "add"), [_, doubt]):
            assert _worded(template(doubt, function)), f"{path.stem}:{node.lineno}: a doubt that cannot be read"
            return [doubt]
        case ast.Call(ast.Attribute(_, "_declare" | "_postpone_declared"), [_, reason]):
            return [reason]
        case ast.Call(ast.Attribute(ast.Constant("; "), "join"), [ast.Call(ast.Name("filter"), [_, ast.Tuple(parts)])]):
            return parts
        case ast.Assign([ast.Subscript(ast.Attribute(ast.Name("doubts")))], value):
            return [value]
        case ast.Return(ast.expr() as value) if getattr(function, "name", "") == "_limits":
            return [value]
    return []


def stops() -> set[str]:
    """What ends a feed beside signals and errors, as ``feed.stopped`` says it."""
    found = set()
    for _, _, call in _calls():
        match call:
            case ast.Call(ast.Name("stop") | ast.Attribute(_, "stop"), [ast.Constant(str(reason))]):
                found.add(reason)
            case ast.Call(_, [_, ast.Attribute(_, "stop"), ast.Constant(str(reason))]):
                found.add(reason)
    return found


def outage_causes() -> set[str]:
    """What begins an outage beside the loss of a connection."""
    found = set()
    for _, _, call in _calls():
        match call.func, call.args:
            case ast.Attribute(_, "open" | "_missing"), [_, _, ast.Constant(str(cause))]:
                found.add(cause)
    return found


# ------------------------------------------------------------------------------------------------ reading


def template(node: ast.expr, function: ast.AST | None = None) -> str:
    """The text of an expression, with ``…`` for what is filled in. Of a local name, what the function assigns to it."""
    return re.sub(f"{HOLE}+", HOLE, _template(node, function))


def _template(node: ast.expr, function: ast.AST | None) -> str:
    match node:
        case ast.Constant(str(text)):
            return text
        case ast.JoinedStr(parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else HOLE for part in parts)
        case ast.BinOp(left, ast.Add(), right):
            return _template(left, function) + _template(right, function)
        case ast.Name(name) if function is not None and (value := _assigned(function, name)) is not None:
            return _template(value, None)
    return HOLE


def _assigned(function: ast.AST, name: str) -> ast.expr | None:
    """What the function assigns to a name, alone or with others."""
    for node in ast.walk(function):
        match node:
            case ast.Assign([ast.Name(target)], value) if target == name:
                return value
            case ast.Assign([ast.Tuple(targets)], ast.Tuple(values)):
                for one, value in zip(targets, values, strict=True):
                    if _name(one) == name:
                        return value
    return None


def _worded(text: str) -> bool:
    return re.search(r"[a-z]{2}", text) is not None


def _constants(node: ast.AST | None) -> Iterator[object]:
    for inner in ast.walk(node) if node is not None else ():
        if isinstance(inner, ast.Constant):
            yield inner.value


def _returns(function: ast.AST) -> str:
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.returns is not None:
        return ast.unparse(function.returns)
    return ""


def _calls() -> Iterator[tuple[Path, ast.AST, ast.Call]]:
    """Every call that has arguments, and the innermost function around it."""
    for path, function, node in _inside(ast.Call):
        if isinstance(node, ast.Call) and node.args:
            yield path, function, node


def _inside(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST, ast.AST]]:
    for path, tree in _trees():
        yield from ((path, function, node) for function, node in _walk(tree, tree) if isinstance(node, kinds))


def _walk(node: ast.AST, function: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield inner, child
        yield from _walk(child, inner)


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(path for path in PACKAGE.rglob("*.py") if "simulator" not in path.parts):
        yield path, ast.parse(path.read_text())


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
