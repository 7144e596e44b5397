"""JSON whose numbers stay as they were written: ``0.10`` is not ``0.1`` to whoever compares frames."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_DEPTH = 64  # Kraken's requests need five; it is far from what Python can follow


class Number(str):
    """A JSON number as it was written. It is no string, though Python takes it for one."""

    __slots__ = ()


def decode(text: str) -> Any:
    """What ``text`` says, with a :class:`Number` for every number. Raises ValueError, also for a key that stands twice
    in an object: which of the two counts is not to be guessed."""
    try:
        read = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_constant, object_pairs_hook=_once)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_depth(read, MAX_DEPTH)
    return read


def encode(value: Any) -> str:
    """Compact JSON."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{encode(key)}:{encode(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


_TOO_DEEP = "it is nested too deeply"


def _check_depth(value: Any, left: int) -> None:
    if not isinstance(value, dict | list):
        return
    if not left:
        raise ValueError(_TOO_DEEP)
    for each in value.values() if isinstance(value, dict) else value:
        _check_depth(each, left - 1)


def _constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return read
