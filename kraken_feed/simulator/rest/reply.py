"""Make HTTP replies of the REST side: results, errors, and what faults send instead."""

import msgspec
from msgspec import Struct

from ..faults.fault import Fault

_CHALLENGE = b"<!DOCTYPE html><html><head><title>Just a moment...</title></head><body>Cloudflare</body></html>"
_BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>cloudflare</body></html>"


class Reply(Struct, frozen=True):
    """An HTTP reply; it comes `delay` seconds late, or never (`hang`)."""

    status: int
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
    hang: bool = False


def success(result: object, errors: object, delay: float) -> Reply:
    """Return a reply with a result, and the value of "error" beside it."""
    body = msgspec.json.encode({"error": errors, "result": result})
    return Reply(200, {"Content-Type": "application/json"}, body, delay)


def failure(text: str, delay: float) -> Reply:
    """Return a reply with an error text of Kraken's."""
    return Reply(200, {"Content-Type": "application/json"}, msgspec.json.encode({"error": [text]}), delay)


def faulty(fault: Fault) -> Reply:
    """Return the reply that a fault asks for."""
    html = {"Content-Type": "text/html; charset=UTF-8"}
    if fault.kind == "http_502":
        return Reply(502, html, _BAD_GATEWAY)
    if fault.kind == "http_403":
        return Reply(403, html, _CHALLENGE)
    if fault.kind == "http_429":
        seconds = 5 if fault.retry_after is None else fault.retry_after
        return Reply(429, {**html, "Retry-After": str(seconds)}, b"<html><body>Too Many Requests</body></html>")
    if fault.kind == "rest_timeout":
        return Reply(200, {}, b"", delay=fault.seconds or 0.0, hang=fault.seconds is None)
    return failure(fault.text or "EService:Unavailable", 0.0)
