"""Write the same facts in other spellings, which JSON allows, Kraken's documents do not forbid, and clients fail on."""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from .quirk import Quirks, share

JsonObject = dict[str, object]

_SURROGATE = rb"\ud800"  # half of a pair: valid JSON, but not valid Unicode
_NEW_MEMBER = b'"x_new":{"since":[2026,null],"on":true}'


def table(rows: Iterable[tuple[str, JsonObject]], quirks: Quirks) -> Raw:
    """Write rows as an object by id. Ids can be empty or repeated, so the rows are not a dict."""
    members = [member for ident, row in rows for member in _members(ident, row, quirks)]
    if not members and quirks.empty_as_list:
        return Raw(b"[]")
    return Raw(b"{" + b",".join(members) + b"}")


def _members(ident: str, row: JsonObject, quirks: Quirks) -> Iterable[bytes]:
    key = msgspec.json.encode(ident)
    yield key + b":" + dress(msgspec.json.encode(row), ident, quirks)
    if share(quirks.repeated_rows, "repeated row", ident):
        yield key + b":" + dress(msgspec.json.encode({**row, "revision": 2}), ident, quirks)


def dress(data: bytes, ident: str, quirks: Quirks) -> bytes:
    """Add the members and characters to a JSON object that the quirks ask for."""
    if share(quirks.surrogates, "surrogate", ident):
        if b'"misc":"' in data:
            data = data.replace(b'"misc":"', b'"misc":"' + _SURROGATE, 1)
        else:
            data = b'%b,"note":"%b"}' % (data[:-1], _SURROGATE)
    if quirks.unknown_members:
        data = b"%b,%b}" % (data[:-1], _NEW_MEMBER)
    return data


def integer(value: int, quirks: Quirks) -> object:
    """Spell an integer: as it is, with a fraction of zero, or as a string."""
    if quirks.integers == "float":
        return Raw(b"%d.0" % value)
    return str(value) if quirks.integers == "text" else value


def errors(quirks: Quirks) -> object:
    """Return the value of "error" in an answer that has a result."""
    if quirks.errors == "object":
        return {}
    return ["WGeneral:Deprecated parameter"] if quirks.errors == "warning" else []
