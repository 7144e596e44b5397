"""Split a JSON object or array into its parts, each still the bytes that were sent.

msgspec is faster, but it refuses lone surrogates and keeps only the last of several members with one name. Use this
where such input must be accepted and speed does not matter; not for every frame.
"""

from __future__ import annotations

import json

_SPACE = " \t\n\r"


class NotJson(ValueError):
    """The text is not JSON, or not of the requested type."""


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts; the bytes are returned anyway
        return float(digits)


def _constant(word: str) -> object:
    raise NotJson(f"{word} is not JSON")


_decoder = json.JSONDecoder(parse_int=_integer, parse_constant=_constant)
_scan = _decoder.raw_decode


def members(data: bytes) -> list[tuple[str, bytes]]:
    """Return the name and value of every member of an object, in order, repeated names included.

    Raises:
        NotJson: ``data`` is not an object, not UTF-8, or nests too deeply to be read.
    """
    return _parts(data, "{", "}")


def elements(data: bytes) -> list[bytes]:
    """Return every element of an array.

    Raises:
        NotJson: ``data`` is not an array, not UTF-8, or nests too deeply to be read.
    """
    return [raw for _, raw in _parts(data, "[", "]")]


def scalar(data: bytes) -> object:
    """Decode one JSON value.

    Raises:
        NotJson: ``data`` is not JSON, not UTF-8, or nests too deeply to be read.
    """
    try:
        return _decoder.decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error


def _parts(data: bytes, opening: str, closing: str) -> list[tuple[str, bytes]]:
    """Return the members of an object, or the elements of an array with empty names."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NotJson(str(error)) from error
    place = _skip(text, 0)
    if text[place : place + 1] != opening:
        raise NotJson(f"expected {opening}")
    place = _skip(text, place + 1)
    found: list[tuple[str, bytes]] = []
    while text[place : place + 1] != closing:
        name = '""'
        if closing == "}":
            name, place = _value(text, place)
            if not name.startswith('"') or text[place : place + 1] != ":":
                raise NotJson("expected a member's name and a colon")
            place = _skip(text, place + 1)
        raw, place = _value(text, place)
        found.append((json.loads(name), raw.encode()))
        place = _next(text, place, closing)
    if _skip(text, place + 1) != len(text):
        raise NotJson("more than one value")
    return found


def _value(text: str, place: int) -> tuple[str, int]:
    """Return the text of the value at ``place``, and the place after it."""
    try:
        _, end = _scan(text, place)
    except (ValueError, RecursionError) as error:
        raise NotJson(str(error)) from error
    return text[place:end], _skip(text, end)


def _next(text: str, place: int, closing: str) -> int:
    """Return the place of the next member or element, or of the closing bracket."""
    if text[place : place + 1] == ",":
        place = _skip(text, place + 1)
        if text[place : place + 1] != closing:
            return place
    elif text[place : place + 1] == closing:
        return place
    raise NotJson(f"expected a comma or {closing}")


def _skip(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place
