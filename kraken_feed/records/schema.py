"""Make the JSON Schema (2020-12) of a record: what a consumer may rely on."""

from __future__ import annotations

from .render import SCHEMA_VERSION

_TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}
_COMMON = ["id", "ts", "event_name", "v", "account", "channel"]
_ITEMS = {"order": "openOrders", "trade": "ownTrades", "execution": "executions", "balance": "balances"}


def _marker(name: str, **further: object) -> dict[str, object]:
    """Return the rule for a marker: it has its own keys besides the common ones, and never ``data``."""
    return {
        "if": {"properties": {"event_name": {"const": name}}},
        "then": {"properties": further, "required": list(further)},
    }


def _item(event_name: str, channel: str) -> dict[str, object]:
    return {
        "if": {"properties": {"event_name": {"const": event_name}}},
        "then": {
            "properties": {"channel": {"const": channel}, "data": {"type": "object"}},
            "required": ["type", "data"],
        },
    }


def record_schema() -> dict[str, object]:
    """Return the schema, as a JSON-able dictionary. Fields may be added within version 1; names and meanings stay."""
    text: dict[str, object] = {"type": "string"}
    text_or_null = {"type": ["string", "null"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kraken-feed record",
        "description": "One line of output: an order, trade, execution or balance entry, or a marker (feed.*).",
        "type": "object",
        "required": _COMMON,
        "properties": {
            "id": {
                **text,
                "description": "Stable and unique over accounts and channels of an output; a fill, a ledger entry and "
                "an order's end have the same id whichever way they came.",
            },
            "ts": {
                **_TIME,
                "description": "When the frame was received; of a backfill and a marker, when it was written.",
            },
            "event_name": {
                **text,
                "examples": [
                    *_ITEMS,
                    "unknown",
                    "feed.live",
                    "feed.lost",
                    "feed.status",
                    "feed.backfilled",
                    "feed.gap",
                    "feed.stopped",
                ],
            },
            "v": {"type": "integer", "const": SCHEMA_VERSION},
            "account": {**text, "description": "The account's name in the configuration."},
            "channel": {**text, "description": "The channel's name at Kraken."},
            "type": {"enum": ["snapshot", "update", "backfill"]},
            "connection": {**text_or_null, "description": "Names one connection of one run."},
            "sequence": {"type": "integer", "description": "Kraken's counter of the frame."},
            "order_id": text,
            "exec_id": {**text, "description": "The trade id, on fills."},
            "data": {"description": "Kraken's object, its bytes unchanged; of an unknown frame, the whole frame."},
            "data_base64": {**text, "contentEncoding": "base64"},
        },
        "allOf": [
            *(_item(event_name, channel) for event_name, channel in _ITEMS.items()),
            {
                "if": {"properties": {"event_name": {"const": "unknown"}}},
                "then": {"oneOf": [{"required": ["data"]}, {"required": ["data_base64"]}]},
            },
            _marker(
                "feed.live",
                connection=text,
                attempt={"type": "integer", "minimum": 0},
                engine={**text_or_null, "description": "Kraken's system state; null if it did not greet."},
            ),
            _marker(
                "feed.lost",
                connection=text,
                cause=text,
                detail=text,
                last_sequence={"type": ["integer", "null"]},
                last_ts=_TIME,
            ),
            _marker("feed.status", engine=text),
            _marker(
                "feed.backfilled",
                **{"from": _TIME, "to": _TIME},
                orders={"type": "integer", "minimum": 0},
                trades={"type": "integer", "minimum": 0},
            ),
            _marker("feed.gap", **{"from": {**_TIME, "type": ["string", "null"]}, "to": _TIME}, reason=text),
            _marker("feed.stopped", connection=text_or_null, reason=text),
        ],
    }
