"""Render a record as a line of output: the key order of docs/records.md, the item's bytes unchanged, ids and times."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

SCHEMA_VERSION = 1

# The order of the keys on a line. Further keys of a marker follow. `data` comes last.
KEYS = ("id", "ts", "event_name", "v", "account", "channel", "type", "connection", "sequence", "order_id", "exec_id")

# The fields of a line that differ per item: `id`, `sequence`, `order_id`, `exec_id`, `data`.
Line = tuple[str, int | None, str | None, str | None, bytes]

_encode = msgspec.json.Encoder().encode
_second: int | None = None
_second_text = ""


def timestamp(unix_ns: int) -> str:
    """Return a time in nanoseconds since 1970 as ``2026-11-20T22:41:05.123456Z``: UTC, RFC 3339, truncated."""
    global _second, _second_text
    second, rest = divmod(unix_ns, 1_000_000_000)
    if second != _second:  # a burst lies within one second: format that once
        _second, _second_text = second, datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{_second_text}.{rest // 1000:06d}Z"


def item_id(account: str, channel: str, identity: str | None, connection: str, frame: int | str, index: int) -> str:
    """Return the record's ``id``: the item's own identity if it has one, else the place of the frame and of the item in
    it.

    So a fill, a ledger entry and an order end have the same id from every source. Changes of an order are
    distinguished by their frame (its sequence, or another name where it has none), since the same bytes may
    legitimately come twice.
    """
    return f"{account}:{channel}:{identity}" if identity else f"{account}:{channel}:{connection}:{frame}:{index}"


def text(value: str) -> bytes:
    """Return ``value`` as a JSON string in UTF-8. A lone surrogate, which UTF-8 cannot carry, becomes an escape."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(value.encode("utf-8", "backslashreplace").decode())


def opaque(frame: bytes, is_json: bool) -> dict[str, object]:
    """Return the fields for a frame that this version does not know: ``data`` if it is JSON, else ``data_base64``."""
    if is_json:
        return {"data": frame.replace(b"\n", b" ").replace(b"\r", b" ").strip()}
    return {"data_base64": base64.b64encode(frame).decode()}


def render(fields: Mapping[str, Any]) -> bytes:
    """Return the line for a record, with its line feed.

    ``data`` is Kraken's bytes, written unchanged; every other value is a string, a number or None.
    """
    parts = [b'"%b":%b' % (key.encode(), _value(fields[key])) for key in KEYS if key in fields]
    parts += [
        b"%b:%b" % (text(key), _value(value)) for key, value in fields.items() if key not in KEYS and key != "data"
    ]
    if "data" in fields:
        parts.append(b'"data":%b' % fields["data"])
    return b"{%b}\n" % b",".join(parts)


def render_items(fields: Mapping[str, Any], ts: str, items: Sequence[Line]) -> bytes:
    """Return the lines for several items whose other fields are the same, as :func:`render` would for each."""
    head = b'{"id":%b,"ts":' + text(ts).replace(b"%", b"%%")
    order, fill = [head + rest for rest in _templates(tuple(fields), *fields.values())]
    string = _encode
    lines: list[bytes] = []
    try:
        for name, sequence, order_id, exec_id, data in items:
            if sequence is None or order_id is None:
                lines.append(_render_item(fields, ts, (name, sequence, order_id, exec_id, data)))
            elif exec_id is None:
                lines.append(order % (string(name), sequence, string(order_id), data))
            else:
                lines.append(fill % (string(name), sequence, string(order_id), string(exec_id), data))
    except UnicodeEncodeError:
        lines = [_render_item(fields, ts, item) for item in items]
    return b"".join(lines)


@lru_cache(maxsize=1024, typed=True)  # some hundred accounts use a few each
def _templates(keys: tuple[str, ...], *values: object) -> tuple[bytes, bytes]:
    """Return the lines of an item of an order and of a fill, from behind the time, with places for what differs per
    item. The same few are needed all the time: they depend on the channel, the event's name and the frame's type."""
    fields = dict(zip(keys, values, strict=True))
    common = b"".join([b',"%b":%b' % (key.encode(), _value(fields[key])) for key in KEYS if key in fields])
    head = common.replace(b"%", b"%%") + b',"sequence":%d,"order_id":%b,'
    return head + b'"data":%b}\n', head + b'"exec_id":%b,"data":%b}\n'


def _render_item(fields: Mapping[str, Any], ts: str, item: Line) -> bytes:
    name, sequence, order_id, exec_id, data = item
    ids = {"sequence": sequence, "order_id": order_id, "exec_id": exec_id}
    given = {key: value for key, value in ids.items() if value is not None}
    return render({**fields, "id": name, "ts": ts, **given, "data": data})


def encode(fields: object) -> str:
    """Return any value as JSON text, for lines that are not records."""
    try:
        return _encode(fields).decode()
    except UnicodeEncodeError:  # a lone surrogate: a path that is not UTF-8
        return json.dumps(fields, separators=(",", ":"))


def _value(value: object) -> bytes:
    return text(value) if isinstance(value, str) else _encode(value)
