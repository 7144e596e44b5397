"""REST: whatever comes back is understood or a named failure; the clock and the counter learn from every answer."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from kraken_feed.errors import CredentialsRefused, RequestRefused, Transient
from kraken_feed.protocol.signing import Credentials, Nonce
from kraken_feed.transport.backoff import CallCounter
from kraken_feed.transport.kraken_clock import NS, SLACK_NS, KrakenClock
from kraken_feed.transport.rest import MAX_ANSWER_BYTES, WARNINGS_KEPT, Rest

from ...support import virtual_time
from ...support.cases import each

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


@each(
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
        with pytest.raises(Transient, match="larger than 8 MiB"):
            await rest.token()
    assert MAX_ANSWER_BYTES < 64 * 1024 * 1024


@each("expires", [b'"900"', b"900.5", b"null", b"900"])
async def test_a_token_is_a_token_whatever_is_said_of_its_life(expires: bytes) -> None:
    async with answering(body(b'{"error":[],"result":{"token":"T","expires":%b}}' % expires)) as rest:
        token = await rest.token()
    assert (token.value, token.expires) == ("T", 900)
    assert "T," not in repr(token)


# ------------------------------------------------------------------------------------------------ in memory

OK = b'{"error":[],"result":{"token":"T"}}'
DATE = "Thu, 09 Oct 2025 08:53:20 GMT"
UNIX = 1_760_000_000  # the same
Reply = bytes | tuple[bytes, dict[str, str]]


class Kraken:
    """A REST API in memory on the loop's virtual clock. Each reply takes ``latency`` seconds; the last one repeats."""

    def __init__(self, *replies: Reply, latency: float = 0.0, before_call: Callable[[], None] = lambda: None) -> None:
        self.warnings: list[tuple[str, dict[str, object]]] = []
        self.asked: list[tuple[float, str]] = []
        self.counter = CallCounter(14, 0.33)
        self.clock = KrakenClock(lambda: round(asyncio.get_running_loop().time() * NS))
        self._replies, self._latency = list(replies), latency
        self.rest = Rest(
            "http://127.0.0.1",
            CREDENTIALS,
            Nonce(),
            self.counter,
            transport=httpx.MockTransport(self._handle),
            unix_ns=lambda: 5 * NS,
            clock=self.clock,
            warn=self._warn,
            before_call=before_call,
        )

    def _warn(self, event: str, **fields: object) -> None:
        self.warnings.append((event, fields))

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append((asyncio.get_running_loop().time(), request.url.path))
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        text, headers = reply if isinstance(reply, tuple) else (reply, {})
        await asyncio.sleep(self._latency)
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(text))


def virtually(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Run a test on the virtual clock."""

    @functools.wraps(test)
    def run() -> None:
        virtual_time.run(test())

    del run.__wrapped__  # pytest would take it for a coroutine
    return run


# ------------------------------------------------------------------------------------------------ the envelope


@virtually
async def test_an_error_beside_a_result_is_an_error() -> None:
    for error in (b'{"code":1,"msg":"nope"}', b'["EService:Busy"]', b'"EService:Busy"', b"[{}]", b"true"):
        with pytest.raises(Transient):
            await Kraken(b'{"error":%b,"result":{"token":"T"}}' % error).rest.token()


@virtually
async def test_an_error_that_is_an_object_is_quoted() -> None:
    with pytest.raises(Transient) as refused:
        await Kraken(b'{"error":{"code": 1, "msg": "nope"},"result":{"token":"T"}}').rest.token()
    assert refused.value.why.startswith('{"code":1,"msg":"nope"}')


@virtually
async def test_a_warning_before_an_error_is_no_success() -> None:
    kraken = Kraken(b'{"error":["WGeneral:Deprecated","EAPI:Invalid signature"],"result":{"token":"T"}}')
    with pytest.raises(CredentialsRefused, match="EAPI:Invalid signature"):
        await kraken.rest.token()
    assert kraken.warnings == [("kraken_warns", {"method": "GetWebSocketsToken", "text": "WGeneral:Deprecated"})]


@virtually
async def test_a_warning_beside_a_result_is_logged_once() -> None:
    kraken = Kraken(
        b'{"error":["WTrade:Something partial"],"result":{"trades":{}}}',
        b'{"error":["WTrade:Something partial","WTrade:Else"],"result":{"trades":{}}}',
    )
    for _ in range(3):
        assert bytes(await kraken.rest.call("TradesHistory")) == b'{"trades":{}}'
    assert kraken.warnings == [
        ("kraken_warns", {"method": "TradesHistory", "text": text})
        for text in ("WTrade:Something partial", "WTrade:Else")
    ]


@virtually
async def test_no_number_of_different_warnings_fills_the_memory() -> None:
    texts = [f"WGeneral:{number}" for number in range(3 * WARNINGS_KEPT)]
    kraken = Kraken(b'{"error":%b,"result":{}}' % json.dumps(texts).encode())
    await kraken.rest.call("Balance")
    assert [fields["text"] for _, fields in kraken.warnings] == texts
    assert len(kraken.rest._warned) <= WARNINGS_KEPT


@virtually
async def test_a_result_with_a_lone_surrogate_is_passed_on_as_it_was_sent() -> None:
    result = rb'{"trades":{"T1":{"misc":"\ud800", "vol":"1e-8"}}}'
    assert bytes(await Kraken(b'{"error":[],"result":%b}' % result).rest.call("TradesHistory")) == result


@virtually
async def test_an_answer_that_is_not_json_names_the_method() -> None:
    for text in (b"<html>", b'{"error":[],"result":{"x":NaN}}', b'{"result":{}}', b'{"error":[],"result":"\xff"}'):
        with pytest.raises(Transient, match="ClosedOrders: the answer is not Kraken's JSON"):
            await Kraken(text).rest.call("ClosedOrders")


@virtually
async def test_no_result_is_no_success() -> None:
    with pytest.raises(Transient, match="Ledgers: the answer has neither an error nor a result"):
        await Kraken(b'{"error":["WGeneral:Deprecated"]}').rest.call("Ledgers")


# ------------------------------------------------------------------------------------------------ the clock


@virtually
async def test_the_date_of_an_answer_tells_kraken_s_time() -> None:
    kraken = Kraken((OK, {"date": DATE}), latency=0.5)
    await virtual_time.elapse(10.0)
    await kraken.rest.token()
    assert kraken.clock.earliest() == UNIX * NS - SLACK_NS
    assert kraken.clock.latest() == round((UNIX + 1.5) * NS) + SLACK_NS


@virtually
async def test_an_error_tells_kraken_s_time_too() -> None:
    kraken = Kraken((b'{"error":["EService:Busy"]}', {"date": DATE}))
    with pytest.raises(Transient):
        await kraken.rest.token()
    assert kraken.clock.known


@virtually
async def test_an_answer_that_is_not_kraken_s_or_is_old_tells_no_time() -> None:
    for reply in (
        (OK, {}),
        (OK, {"date": "yesterday"}),
        (OK, {"date": "Thu, 99 Oct 2025 08:53:20 GMT"}),
        (OK, {"date": "Thu, 09 Oct 2025 08:53:20 -0000"}),
        (OK, {"date": DATE, "age": "7"}),
        (b"<html>", {"date": DATE}),
    ):
        kraken = Kraken(reply)
        with contextlib.suppress(Transient):
            await kraken.rest.token()
        assert not kraken.clock.known


@virtually
async def test_a_clock_that_is_contradicted_is_logged() -> None:
    later = "Thu, 09 Oct 2025 08:54:20 GMT"
    kraken = Kraken((OK, {"date": DATE}), (OK, {"date": DATE}), (OK, {"date": later}))
    await kraken.rest.token()
    await kraken.rest.token()
    assert kraken.warnings == []
    await kraken.rest.token()
    assert kraken.warnings == [("clock_contradicted", {"seconds": 58.8})]


@virtually
async def test_kraken_s_time_can_be_asked_for_without_a_point_or_a_key() -> None:
    kraken = Kraken(
        b'{"error":[],"result":{"unixtime":%d,"rfc1123":""}}' % UNIX, before_call=lambda: pytest.fail("a call")
    )
    assert await kraken.rest.time() == UNIX
    assert kraken.clock.earliest() == UNIX * NS - SLACK_NS
    assert kraken.clock.latest() == (UNIX + 1) * NS + SLACK_NS
    assert kraken.counter.level(0.0) == 0.0
    assert [path for _, path in kraken.asked] == ["/0/public/Time"]
    assert not kraken.rest.calls


@virtually
async def test_the_time_of_an_answer_that_a_cache_kept_is_not_learned() -> None:
    kraken = Kraken((b'{"error":[],"result":{"unixtime":%d}}' % UNIX, {"age": "1", "date": DATE}))
    assert await kraken.rest.time() == UNIX
    assert not kraken.clock.known


@virtually
async def test_an_answer_without_a_time_is_waited_out() -> None:
    for text in (b'{"error":["EService:Unavailable"]}', b'{"error":[],"result":{}}', b'{"error":[]}', b"<html>"):
        with pytest.raises(Transient, match=r"holds no time|Time: the answer is not"):
            await Kraken(text).rest.time()


@virtually
async def test_a_throttle_until_a_time_counts_from_kraken_s() -> None:
    """This machine's clock stands in the year 1970."""
    text = b'{"error":["EService:Throttled:%d"]}' % (UNIX + 120)
    with pytest.raises(Transient) as throttled:
        await Kraken((text, {"date": DATE})).rest.token()
    assert throttled.value.delay == pytest.approx(120.1)
    with pytest.raises(Transient) as throttled:
        await Kraken(text).rest.token()
    assert throttled.value.delay == 900.0


# ------------------------------------------------------------------------------------------------ the counter


@virtually
async def test_the_owner_hears_of_each_private_call_when_it_is_counted_and_not_yet_sent() -> None:
    heard: list[tuple[float, int]] = []

    def hear() -> None:
        heard.append((kraken.counter.level(0.0), len(kraken.asked)))

    kraken = Kraken(OK, before_call=hear)
    await kraken.rest.token()
    await kraken.rest.call("Ledgers", cost=4.0)
    assert heard == [(1.0, 0), (5.0, 1)]


@virtually
async def test_calls_at_the_same_time_do_not_share_the_same_points() -> None:
    kraken = Kraken(OK, latency=0.1)
    await asyncio.gather(*(kraken.rest.call("Balance", cost=4.0) for _ in range(6)))
    assert [round(moment, 1) for moment, _ in kraken.asked[:3]] == [0.0, 0.1, 0.2]
    level = 0.0
    for (before, _), (now, _) in itertools.pairwise([(0.0, ""), *kraken.asked]):
        level = max(0.0, level - 0.33 * (now - before)) + 4.0
        assert level <= 15.0


@virtually
async def test_a_token_does_not_wait_for_history_that_waits_for_points() -> None:
    kraken = Kraken(OK)
    history = [asyncio.create_task(kraken.rest.call("Ledgers", cost=4.0, reserve=6.0)) for _ in range(5)]
    await virtual_time.elapse(1.0)
    for _ in range(6):
        await kraken.rest.token()
    assert asyncio.get_running_loop().time() == 1.0
    await asyncio.gather(*history)


@virtually
async def test_a_call_that_is_cancelled_counts_all_the_same() -> None:
    kraken = Kraken(OK, latency=5.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await kraken.rest.call("Ledgers", cost=4.0)
    assert kraken.counter.level(1.0) == 4.0
    assert kraken.counter.level(2.0) == pytest.approx(3.67)


@virtually
async def test_a_call_that_fails_counts_all_the_same() -> None:
    kraken = Kraken(b"<html>")
    with pytest.raises(Transient):
        await kraken.rest.call("Ledgers", cost=4.0)
    assert kraken.counter.level(0.0) == 4.0


@virtually
async def test_refusals_of_a_full_counter_make_the_waits_grow_until_one_is_answered() -> None:
    full = b'{"error":["EAPI:Rate limit exceeded"]}'
    kraken = Kraken(full, full, full, OK)
    for _ in range(3):
        with pytest.raises(Transient):
            await kraken.rest.call("Ledgers", cost=4.0, reserve=6.0)
        await virtual_time.elapse(kraken.rest.quiet_for())
    moments = [moment for moment, _ in kraken.asked]
    assert moments[2] - moments[1] > moments[1] - moments[0] + 10.0
    assert kraken.counter.refusals_in_a_row == 3
    await kraken.rest.call("Ledgers", cost=4.0, reserve=6.0)
    assert kraken.counter.refusals_in_a_row == 0


@virtually
async def test_other_throttles_do_not_fill_the_counter() -> None:
    for text in (b"EGeneral:Too many requests", b"EService:Throttled", b"EAuth:Too many requests"):
        kraken = Kraken(b'{"error":["%b"]}' % text)
        with pytest.raises(Transient):
            await kraken.rest.token()
        assert kraken.counter.level(0.0) == 1.0
        assert kraken.rest.quiet_for() > 0.0


@virtually
async def test_a_call_that_is_wrong_does_not_hold_up_the_others() -> None:
    kraken = Kraken(b'{"error":["EOrder:Invalid order"]}', OK)
    with pytest.raises(RequestRefused):
        await kraken.rest.call("QueryOrders", txid="nonsense")
    await kraken.rest.token()
    assert asyncio.get_running_loop().time() == 0.0
