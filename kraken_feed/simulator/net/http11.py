"""Parse and write as much of HTTP/1.1 as REST clients and WebSocket upgrades need."""

from http import HTTPStatus

from msgspec import Struct

from ..rest.reply import Reply

MAX_HEAD = 64 * 1024
MAX_BODY = 1024 * 1024


class BadRequest(Exception):
    """The bytes are not a request that this server understands."""


class Head(Struct, frozen=True):
    """A request line and its headers, names in lower case; `size` counts the bytes with the empty line."""

    method: str
    target: str
    headers: dict[str, str]
    size: int

    @property
    def length(self) -> int:
        """The length of the body. Raises BadRequest."""
        text = self.headers.get("content-length", "0")
        if not (text.isascii() and text.isdigit()) or "transfer-encoding" in self.headers:
            raise BadRequest("a body needs a Content-Length")
        if int(text) > MAX_BODY:
            raise BadRequest("the body is too big")
        return int(text)

    @property
    def upgrade(self) -> bool:
        return self.headers.get("upgrade", "").lower() == "websocket"

    @property
    def keep_alive(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"


def head(data: bytes | bytearray) -> Head | None:
    """Parse the head of the request at the beginning of the data; return None while it is incomplete.

    Raises BadRequest.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_HEAD:
            raise BadRequest("the head is too long")
        return None
    first, *lines = bytes(data[:end]).decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest("no request line")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("no header line")
        headers[name.strip().lower()] = value.strip()
    return Head(parts[0], parts[1], headers, end + 4)


def response(reply: Reply, *, keep_alive: bool, date: str) -> bytes:
    """Return a reply as the bytes of an HTTP/1.1 response."""
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:
        phrase = "Unknown"  # Cloudflare's own codes, 520 and the like
    headers = {
        "Date": date,
        **reply.headers,
        "Content-Length": str(len(reply.body)),
        "Connection": "keep-alive" if keep_alive else "close",
    }
    lines = [f"HTTP/1.1 {reply.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + reply.body
