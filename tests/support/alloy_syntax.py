"""A reader of the part of Grafana Alloy's syntax that a configuration here uses; it refuses everything else.

Alloy's language: blocks (``name "label" { … }``) and attributes (``name = value``), values being strings, booleans,
references, lists and maps, comments ``//``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Value: TypeAlias = "str | bool | Reference | list[Value] | dict[str, Value]"

TOKEN = re.compile(r'\s+|//[^\n]*|(?P<string>"(?:[^"\\\n]|\\.)*")|(?P<name>[A-Za-z_][\w.]*)|(?P<mark>[{}\[\]=,])')


class Reference(NamedTuple):
    """What another component exports, such as ``loki.write.out.receiver``."""

    path: str


class Block(NamedTuple):
    """One block: its name, its label ("" if it has none), its attributes and the blocks in it."""

    name: str
    label: str
    attributes: dict[str, Value]
    blocks: list[Block]

    def all(self, name: str) -> list[Block]:
        return [block for block in self.blocks if block.name == name]


def parse(text: str) -> Block:
    """The whole file as a block without a name. Raises ValueError."""
    return _Reader(text).body("", "", end=None)


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"line {text.count(chr(10), 0, place) + 1}: cannot read {text[place : place + 20]!r}")
        if found.lastgroup is not None:
            yield found.group()
        place = found.end()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))

    def _peek(self) -> str | None:
        return self._tokens[0] if self._tokens else None

    def _take(self, wanted: str | None = None) -> str:
        if not self._tokens or wanted not in (None, self._tokens[0]):
            raise ValueError(f"{wanted or 'more'} expected, not {self._peek()}")
        return self._tokens.pop(0)

    def body(self, name: str, label: str, end: str | None) -> Block:
        block = Block(name, label, {}, [])
        while self._peek() != end:
            word = self._take()
            if self._peek() == "=":
                self._take("=")
                if word in block.attributes:
                    raise ValueError(f"{word} stands twice in {name}")
                block.attributes[word] = self.value()
            else:
                inner = json.loads(self._take()) if self._peek() != "{" else ""
                self._take("{")
                block.blocks.append(self.body(word, inner, end="}"))
                self._take("}")
        return block

    def value(self) -> Value:
        word = self._take()
        if word == "[":
            return self._list()
        if word == "{":
            return self._map()
        if word.startswith('"'):
            return str(json.loads(word))
        if word in ("true", "false"):
            return word == "true"
        if word in "]},=":
            raise ValueError(f"a value expected, not {word}")
        return Reference(word)

    def _list(self) -> list[Value]:
        values: list[Value] = []
        while self._peek() != "]":
            values.append(self.value())
            if self._peek() != "]":
                self._take(",")
        self._take("]")
        return values

    def _map(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while self._peek() != "}":
            key = self._take()
            self._take("=")
            values[key] = self.value()
            if self._peek() != "}":
                self._take(",")
        self._take("}")
        return values
