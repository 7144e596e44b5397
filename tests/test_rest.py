"""REST under attack: whatever comes back is a named failure, and never too much."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from kraken_feed.auth import Credentials, Nonce
from kraken_feed.errors import Transient
from kraken_feed.rest import MAX_ANSWER_BYTES, Rest

CREDENTIALS = Credentials("K" * 56, "c2VjcmV0", source="the test")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@contextlib.asynccontextmanager
async def answering(answer: bytes, *, endless: bytes = b"") -> AsyncIterator[Rest]:
    """A client whose server sends these bytes to whatever it is asked, and then ``endless`` for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    rest = Rest(f"http://127.0.0.1:{port}", CREDENTIALS, Nonce())
    try:
        yield rest
    finally:
        await rest.close()
        server.close()


def body(text: bytes, head: bytes = HEAD) -> bytes:
    return head + b"content-length: %d\r\n\r\n%b" % (len(text), text)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
        body(b""),
        body(b"<html>Attention required</html>"),
        body(b"null"),
        body(b"[]"),
        body(b'{"error":null,"result":null}'),
        body(b'{"error":[]}'),
        body(b'{"error":[],"result":{"token":""}}'),
        body(b'{"error":[],"result":{"token":12}}'),
        body(b'{"error":[],"result":{"token":"\xff"}}'),
        body(b'{"error":["\xff"],"result":{}}'),
        body(b'{"error":[],"result":' + b"[" * 100_000 + b"}"),
        body(b'{"error":"EService:Unavailable"}'),
        body(b'{"error":["EService: Unavailable"]}'),
        body(b"\x1f\x8b\x08\x00garbage", HEAD + b"content-encoding: gzip\r\n"),
    ],
)
async def test_an_answer_that_is_none_is_waited_out(answer: bytes) -> None:
    async with answering(answer) as rest:
        with pytest.raises(Transient):
            await rest.token()


async def test_an_answer_that_does_not_end_is_cut_off() -> None:
    async with answering(HEAD + b"\r\n", endless=b"x" * 65536) as rest:
        with pytest.raises(Transient, match="does not end"):
            await rest.token()
    assert MAX_ANSWER_BYTES < 64 * 1024 * 1024


@pytest.mark.parametrize("expires", [b'"900"', b"900.5", b"null", b"900"])
async def test_a_token_is_a_token_whatever_is_said_of_its_life(expires: bytes) -> None:
    async with answering(body(b'{"error":[],"result":{"token":"T","expires":%b}}' % expires)) as rest:
        token = await rest.token()
    assert (token.value, token.expires) == ("T", 900)
    assert "T," not in repr(token)


async def test_warnings_are_not_errors() -> None:
    async with answering(body(b'{"error":["WGeneral:Deprecated"],"result":{"token":"T"}}')) as rest:
        assert (await rest.token()).value == "T"
