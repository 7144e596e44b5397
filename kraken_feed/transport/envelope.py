"""Read the envelope of every REST answer: ``{"error": […], "result": …}``.

Entries of ``error`` begin with E, warnings with W. Some endpoints send a bare string. An error of any other shape
counts as an error too. Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro
"""

from __future__ import annotations

import json
import re

import msgspec

from ..json_members import NotJson, members, scalar
from ..protocol.wire import is_text
from ..text import encodable

_WARNING = re.compile(r"W[A-Za-z]+:")  # a code like an error's, not just a sentence that begins with W
_ABSENT = msgspec.Raw()


class NotAnEnvelope(ValueError):
    """The body is not an answer in Kraken's format."""


class Envelope(msgspec.Struct, frozen=True):
    """The content of an answer. ``result`` has the bytes that were sent; None if the answer has no result."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    result: msgspec.Raw | None


class _Members(msgspec.Struct):
    error: msgspec.Raw = _ABSENT
    result: msgspec.Raw = _ABSENT


_decode = msgspec.json.Decoder(_Members).decode


def read(body: bytes) -> Envelope:
    """Read the body of a REST answer.

    Raises:
        NotAnEnvelope: it is not JSON, or not an object with ``error``.
    """
    if not is_text(body):
        raise NotAnEnvelope("not UTF-8")
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        found = _leniently(body, str(error))
    if found.error is _ABSENT:
        raise NotAnEnvelope("no error list")
    texts = _texts(bytes(found.error))
    return Envelope(
        errors=tuple(text for text in texts if not _WARNING.match(text)),
        warnings=tuple(text for text in texts if _WARNING.match(text)),
        result=None if found.result is _ABSENT else found.result,
    )


def _leniently(body: bytes, why: str) -> _Members:
    """Read JSON that msgspec refuses because of lone surrogates. ``why`` is the error of msgspec."""
    try:
        found = {name: msgspec.Raw(value) for name, value in members(body)}
    except NotJson as error:
        raise NotAnEnvelope(why) from error
    return _Members(found.get("error", _ABSENT), found.get("result", _ABSENT))


def _texts(error: bytes) -> list[str]:
    """Return the entries of ``error`` as texts: those of an array, or any other value that is not empty."""
    try:
        value = scalar(error)
        entries = value if isinstance(value, list) else [value] if value else []
        return [_text(entry) for entry in entries]
    except (NotJson, RecursionError):  # nested too deeply to be read
        return [error.decode()]


def _text(entry: object) -> str:
    """Return a string unchanged, and any other value as compact JSON."""
    return encodable(entry if isinstance(entry, str) else json.dumps(entry, separators=(",", ":"), ensure_ascii=False))
