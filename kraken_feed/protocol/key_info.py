"""Read what Kraken says about an API key: the answer of GetApiKeyInfo.

Source: https://docs.kraken.com/api/docs/rest-api/get-api-key-info ; its documentation spells the fields in camel case,
recordings have them with underscores.
"""

from __future__ import annotations

import re

import msgspec

from ..json_members import NotJson, members, scalar
from ..text import encodable

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


class KeyInfo(msgspec.Struct, frozen=True):
    """A key's settings. Times are unix seconds, 0 for no limit; None if Kraken did not say.

    ``nonce`` is the highest that the key has used, ``last_used`` the time of that; 0: Kraken did not say.

    ``unreadable`` names the fields that should be numbers and are not.
    """

    name: str = ""
    permissions: tuple[str, ...] | None = None
    valid_until: int = 0
    query_from: int = 0
    query_to: int = 0
    nonce_window: int = 0
    allow_list: tuple[str, ...] | None = None
    nonce: int = 0
    last_used: int = 0
    unreadable: frozenset[str] = frozenset()


_NUMBERS = ("valid_until", "query_from", "query_to", "nonce_window", "nonce", "last_used")


def read(result: bytes | msgspec.Raw) -> KeyInfo:
    """Read the result of GetApiKeyInfo, in either spelling. Values of an unexpected type count as unknown.

    Raises:
        msgspec.DecodeError: it is not a JSON object.
    """
    try:
        fields = {_HUMP.sub("_", key).lower(): scalar(raw) for key, raw in members(bytes(result))}
    except NotJson as error:
        raise msgspec.DecodeError(str(error)) from error
    name = fields.get("api_key_name")
    numbers = {field: _number(fields.get(field, 0)) for field in _NUMBERS}
    return KeyInfo(
        name=encodable(name) if isinstance(name, str) else "",
        permissions=_texts(fields.get("permissions")),
        allow_list=_texts(fields.get("ip_allowlist")),
        unreadable=frozenset(field for field, number in numbers.items() if number is None),
        **{field: number or 0 for field, number in numbers.items()},
    )


def _texts(value: object) -> tuple[str, ...] | None:
    """Return the strings of a list, without blank ones: one empty string was seen in place of an empty list."""
    if not isinstance(value, list):
        return None
    return tuple(encodable(str(text)) for text in value if text is not None and str(text).strip())


def _number(value: object) -> int | None:
    """Return an integer that is given as a number, as text, or not at all (null, ""); None for anything else."""
    if value is None or value == "":
        return 0
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    digits = str(value) if isinstance(value, int | str) else ""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else None
