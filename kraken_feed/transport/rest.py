"""Call Kraken's REST API: the private methods that a feed needs, and Kraken's clock.

There is one :class:`Rest` per API key. It sends one call after the other, so that nonces arrive in order. A throttle, a
lockout or a refusal of the key applies to all its calls.

Source: https://docs.kraken.com/api/docs/guides/spot-rest-intro and …/spot-rest-auth
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import httpx
import msgspec

from .. import __version__
from ..errors import ConfigError, CredentialsRefused, FeedError, RequestRefused, Transient
from ..protocol.permissions import needed_for
from ..protocol.refusals import (
    AUTH_THROTTLE_S,
    EDGE_S,
    LOCKOUT_S,
    NONCE,
    OF_ACCOUNT,
    PERMISSION,
    UNKNOWN,
    Refusal,
    classify,
    counter_full,
)
from ..protocol.signing import Credentials, Nonce, sign
from ..text import Mask
from . import envelope
from .backoff import CALL_COST, KEY, CallCounter, Patience
from .envelope import Envelope, NotAnEnvelope
from .kraken_clock import NS, KrakenClock
from .proxy import bad_proxy, no_socks, proxy_for

try:  # SOCKS proxies report some failures in a class of their own, installed with kraken-feed[socks]
    _SOCKS: tuple[type[Exception], ...] = (importlib.import_module("socksio.exceptions").SOCKSError,)
except ImportError:
    _SOCKS = ()

# OSError: httpx does not wrap a TLS error after the handshake.
_UNREACHABLE: tuple[type[Exception], ...] = (httpx.HTTPError, httpx.InvalidURL, OSError, *_SOCKS)

NEWER = "If the [endpoints] in use are right, look for a newer version of kraken-feed; if there is none, report this."
TOKEN = "GetWebSocketsToken"  # noqa: S105  # the method's name
MAX_ANSWER_BYTES = 8 * 1024 * 1024  # a page is fifty rows, far below this
CALL_S = 10.0  # Kraken answers in well under a second; a call that takes longer gets no answer
SHORT_S = 1.0  # if a pause ends within this time, a call waits for its end instead of failing
CONTRADICTION_S = 0.1  # the clocks of several servers behind one name differ by milliseconds
WARNINGS_KEPT = 100  # different warnings that are remembered, to log each once


class Token(msgspec.Struct, frozen=True):
    """A WebSocket token and the seconds within which it must be used. Its repr does not show it."""

    value: str
    expires: int

    def __repr__(self) -> str:
        return f"<Token, expires in {self.expires} s>"


class _TokenResult(msgspec.Struct):
    token: str
    expires: Any = 900


class _TimeResult(msgspec.Struct):
    unixtime: int


class _Answer(NamedTuple):
    """An HTTP response with its body, and our clock before the request was sent and when the headers arrived."""

    response: httpx.Response
    body: bytes
    sent: int
    received: int


@dataclass(eq=False, repr=False)
class Rest:
    """Makes signed calls for one API key."""

    url: str  # Kraken's address, without a path: ``https://api.kraken.com``
    credentials: Credentials
    nonce: Nonce  # shared by all calls with the key
    counter: CallCounter = field(default_factory=lambda: CallCounter(14, 0.33))  # the model of the key's call counter
    transport: httpx.AsyncBaseTransport | None = None  # carries the requests instead of the network
    unix_ns: Callable[[], int] = time.time_ns  # the wall clock, for nonces; tests pass their own
    clock: KrakenClock | None = None  # learns Kraken's time from the answers
    # Takes diagnostics as a structlog method does: the event, and its fields.
    warn: Callable[..., object] = lambda event, **fields: None
    patience: Patience = field(default_factory=Patience)  # decides how often a refused call is repeated
    before_call: Callable[[], None] = lambda: None  # called right before a private call is sent, after it was counted
    mask: Mask = str  # removes secrets from texts of Kraken and of libraries that are quoted

    def __post_init__(self) -> None:
        self._turn = asyncio.Lock()
        self.calls: Counter[tuple[str, str]] = Counter()  # calls made, by method and result
        self._quiet_until = 0.0  # no private call before this time of the event loop's clock
        self._refused = ""  # what Kraken refuses since the last successful call, in one word
        self._warned: set[str] = set()  # texts that were logged
        self._client = _open(self.url, self.transport)

    async def close(self) -> None:
        await self._client.aclose()

    def quiet_for(self) -> float:
        """Return the seconds for which Kraken wants no private call of this key."""
        return max(0.0, self._quiet_until - asyncio.get_running_loop().time())

    async def token(self) -> Token:
        """Fetch a new WebSocket token (GetWebSocketsToken).

        Raises:
            Transient: it may work later; ``delay`` says when at the earliest.
            CredentialsRefused: it will never work.
        """
        result = await self.call(TOKEN)
        try:
            answer = msgspec.json.decode(result, type=_TokenResult)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = self.mask(str(error))
            raise Transient("Kraken's answer contains no token.", cause="token", delay=1.0, why=why) from error
        if not answer.token:
            raise Transient("Kraken's answer contains an empty token.", cause="token", delay=1.0)
        return Token(answer.token, answer.expires if isinstance(answer.expires, int) else 900)

    async def call(
        self, method: str, /, *, cost: float = CALL_COST, reserve: float = 0.0, **parameters: str
    ) -> msgspec.Raw:
        """Call a private method, and return the unchanged bytes of its ``result``. Parameters are sent as given.

        The call waits until the key's counter has room for its ``cost`` and still ``reserve`` points for others.

        Raises:
            Transient: the network, the edge or the service failed, or Kraken wants us to wait.
            CredentialsRefused, RequestRefused: Kraken refused the call for good.
        """
        now = asyncio.get_running_loop().time
        while True:
            while (wait := self.counter.wait(cost, reserve, now())) > 0:  # noqa: ASYNC110  # time alone lowers it
                await asyncio.sleep(wait)
            async with self._turn:
                if self.counter.wait(cost, reserve, now()) > 0:
                    continue  # the call before this one has used the points
                wait = self.quiet_for()
                if wait <= SHORT_S:
                    # Clocks differ a little. A caller that waited for as long as it was told must not be refused.
                    await asyncio.sleep(wait)
                else:
                    what = f"After an earlier refusal, no call is allowed for {wait:.0f} s."
                    raise Transient(what, cause="throttled", delay=wait, refused=self._refused)
                try:
                    result = self._result(method, await self._send(method, cost, parameters))
                except FeedError as error:
                    self.calls[method, _outcome(error)] += 1
                    raise
                self.patience.succeed(KEY, *((TOKEN,) if method == TOKEN else ()))
                self.nonce.accepted()
                self._refused = ""
                self.calls[method, "ok"] += 1
                return result

    async def time(self) -> int:
        """Fetch Kraken's time in whole unix seconds, and give it to the clock (GET /0/public/Time).

        It costs no points of the counter. Use it when answers have no Date, or the last one is long ago.

        Raises:
            Transient: the network, the edge or the service failed.
        """
        method = "Time"
        answer = await _ask(method, self._client.stream("GET", "/0/public/Time"), self.mask, self._moment)
        if answer.response.status_code != 200:
            raise self._by_status(method, answer.response)
        found = _envelope(method, answer, self.mask)
        self._log_warnings(method, found)
        unix = _unixtime(found, self.mask)
        self._learn(answer, _date(answer.response))
        self._learn(answer, None if _is_old(answer.response) else unix)
        return unix

    async def _send(self, method: str, cost: float, parameters: dict[str, str]) -> _Answer:
        """Sign and send a call. Every attempt is signed again: a nonce can be used only once."""
        path = f"/0/private/{method}"
        nonce = self.nonce.next(self.unix_ns())
        otp = {"otp": self.credentials.otp} if self.credentials.otp else {}
        body = urlencode({"nonce": str(nonce), **parameters, **otp}).encode()
        headers = {
            "API-Key": self.credentials.key,
            "API-Sign": sign(path, nonce, body, self.credentials.secret),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        now = asyncio.get_running_loop().time
        self.counter.send(cost, now())
        try:
            self.before_call()
            opening = self._client.stream("POST", path, content=body, headers=headers)
            return await _ask(method, opening, self.mask, self._moment)
        finally:
            self.counter.end(cost, now())  # also of a call that failed: Kraken may have counted it

    def _result(self, method: str, answer: _Answer) -> msgspec.Raw:
        """Return the result in the envelope, or raise the error in it."""
        if answer.response.status_code != 200:
            raise self._by_status(method, answer.response)
        found = _envelope(method, answer, self.mask)
        self._learn(answer, _date(answer.response))
        self._log_warnings(method, found)
        if found.errors:
            raise self._by_text(method, found.errors[0])
        self.counter.succeed()
        if found.result is None:
            raise Transient(f"{method}: the answer has neither an error nor a result.", cause="token", delay=1.0)
        return found.result

    def _by_status(self, method: str, answer: httpx.Response) -> Transient:
        error = _by_status(method, answer)
        if answer.status_code in (429, 403):
            self.keep_quiet(error.delay)
        return error

    def _by_text(self, method: str, text: str) -> FeedError:
        """Return the error for an error text of Kraken, and note what the text says about the key."""
        refusal = classify(text, self.unix_now())
        if counter_full(text):
            self.counter.note_refusal(asyncio.get_running_loop().time())
        if refusal == NONCE:
            self.nonce.refused()
        wait = self._wait_after(method, refusal)
        # A refused history method does not stop the other methods.
        if refusal.error is not RequestRefused or method == TOKEN:
            self.keep_quiet(refusal.delay if wait is None else wait)
        text = self.mask(text)
        why = f"{text}: {refusal.meaning}." if refusal.meaning else text
        if wait is not None:
            cause = {"transient": "token", "permanent": "refused"}.get(refusal.kind, refusal.kind)
            refused = refusal.refuses("token")
            self._refused = refused or self._refused
            return Transient(f"{method} was refused.", cause=cause, delay=wait, why=why, refused=refused)
        if refusal.error is CredentialsRefused:
            return refused_credentials(method, text, refusal, self.credentials)
        return refusal.error(f"Kraken refused {method}, and would refuse it again.", why=why, remedy=NEWER)

    def _wait_after(self, method: str, refusal: Refusal) -> float | None:
        """Return the seconds to wait before the call is repeated; None: it is refused for good.

        The recovery of outages has its own patience. It declares a gap if the key may not read the data, or if Kraken
        calls the request malformed.
        """
        about_key = refusal.error is CredentialsRefused and refusal != PERMISSION
        if about_key or method == TOKEN or refusal in UNKNOWN or refusal.kind != "permanent":
            now = asyncio.get_running_loop().time()
            return self.patience.refused(KEY if about_key else method, refusal, now)
        return None

    def _log_warnings(self, method: str, found: Envelope) -> None:
        """Log each warning once per run. Start again after ``WARNINGS_KEPT`` different ones."""
        for text in found.warnings:
            if text not in self._warned:
                if len(self._warned) >= WARNINGS_KEPT:
                    self._warned.clear()
                self._warned.add(text)
                self.warn("kraken_warns", method=method, text=self.mask(text))

    def unix_now(self) -> float:
        """Return the earliest possible Kraken time in unix seconds; this machine's time if Kraken's is not known."""
        known = self.clock.earliest() if self.clock is not None else None
        return (self.unix_ns() if known is None else known) / NS

    def _moment(self) -> int:
        return self.clock.boot() if self.clock is not None else 0

    def _learn(self, answer: _Answer, unix: int | None) -> None:
        """Tell the clock that Kraken made an answer in the second ``unix``."""
        if self.clock is None or unix is None:
            return
        off = self.clock.sample(answer.sent, answer.received, unix * NS, (unix + 1) * NS)
        if abs(off) >= CONTRADICTION_S:
            self.warn("clock_contradicted", seconds=round(off, 3))

    def keep_quiet(self, seconds: float) -> None:
        """Make no private call for ``seconds``, because Kraken said so."""
        self._quiet_until = max(self._quiet_until, asyncio.get_running_loop().time() + seconds)


async def server_time(
    url: str, *, mask: Mask = str, clock: KrakenClock | None = None, transport: httpx.AsyncBaseTransport | None = None
) -> Any:
    """Fetch Kraken's time (GET /0/public/Time) for ``clock``. Needs no key. ``mask`` and ``clock`` are as for
    :class:`Rest`. Return the ssl object of the TLS connection that it came over; None without TLS.

    Source: https://docs.kraken.com/api/docs/rest-api/get-server-time

    Raises:
        Transient: the network, the edge or the service failed.
        ConfigError: the proxy or TLS settings of the environment cannot be used.
    """
    client = _open(url, transport)
    try:
        answer = await _ask(
            "Time", client.stream("GET", "/0/public/Time"), mask, clock.boot if clock is not None else lambda: 0
        )
    finally:
        await client.aclose()
    if answer.response.status_code != 200:
        raise _by_status("Time", answer.response)
    unix = _unixtime(_envelope("Time", answer, mask), mask)
    times = () if clock is None or _is_old(answer.response) else (_date(answer.response), unix)
    for second in times:
        if clock is not None and second is not None:
            clock.sample(answer.sent, answer.received, second * NS, (second + 1) * NS)
    stream = answer.response.extensions.get("network_stream")
    return stream.get_extra_info("ssl_object") if stream is not None else None


def _unixtime(found: Envelope, mask: Mask) -> int:
    try:
        if found.errors:
            raise msgspec.DecodeError("; ".join(found.errors))
        return msgspec.json.decode(found.result or b"", type=_TimeResult, strict=False).unixtime
    except (msgspec.DecodeError, RecursionError) as error:
        why = mask(str(error))
        raise Transient("Kraken's answer holds no time.", cause="token", delay=1.0, why=why) from error


def _date(response: httpx.Response) -> int | None:
    """Return the Date header in unix seconds; None if there is none, or if a cache kept the answer."""
    if _is_old(response):
        return None
    try:
        date = parsedate_to_datetime(response.headers.get("date", ""))
        return int(date.timestamp()) if date.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _is_old(response: httpx.Response) -> bool:
    """Return whether the answer comes from a cache: then its times are those of an earlier answer."""
    return bool(response.headers.get("age", "0").strip() != "0")


def _open(url: str, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    proxy = proxy_for(url) if transport is None else None
    try:
        return httpx.AsyncClient(
            base_url=url,
            transport=transport,
            timeout=CALL_S,
            limits=httpx.Limits(max_keepalive_connections=1),  # calls are made one after the other
            trust_env=False,  # it would read NO_PROXY, and raise for entries that it does not understand
            proxy=proxy.url if proxy is not None else None,
            verify=_trust(url),
            headers={"User-Agent": f"kraken-feed/{__version__}", "Accept-Encoding": "identity"},
        )
    except ImportError:
        raise no_socks() from None
    except (ValueError, httpx.InvalidURL) as error:
        raise bad_proxy(proxy, f"{type(error).__name__} while reading it.") from None  # its text may quote a password
    except OSError as error:
        raise ConfigError(
            "The TLS settings of the environment cannot be used.",
            why=f"{error.strerror}." if error.strerror else f"{type(error).__name__} while reading them.",
            remedy="Correct SSL_CERT_FILE, SSL_CERT_DIR or SSLKEYLOGFILE, or leave them out.",
        ) from error


async def _ask(
    method: str, opening: AbstractAsyncContextManager[httpx.Response], mask: Mask, moment: Callable[[], int] = lambda: 0
) -> _Answer:
    """Send a request, and return the answer with its body, not decompressed."""
    try:
        sent = moment()
        async with asyncio.timeout(CALL_S), opening as response:
            received = moment()
            body = b""
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    what = f"{method}: the answer is larger than {MAX_ANSWER_BYTES // 2**20} MiB."
                    raise Transient(what, cause="token", delay=1.0)
            return _Answer(response, body, sent, received)
    except (httpx.TimeoutException, TimeoutError) as error:
        why = mask(_reason(error))
        raise Transient(f"{method}: no answer within {CALL_S:g} s.", cause="token", why=why) from error
    except _UNREACHABLE as error:
        why = mask(_reason(error))
        raise Transient(f"{method}: Kraken cannot be reached.", cause="token", why=why) from error


def _envelope(method: str, answer: _Answer, mask: Mask) -> Envelope:
    """Read an answer's envelope; raise Transient if it is not Kraken's JSON."""
    try:
        return envelope.read(answer.body)
    except NotAnEnvelope as error:
        kind = mask(answer.response.headers.get("content-type", "no content type"))
        raise Transient(
            f"{method}: the answer is not Kraken's JSON ({kind}).", cause="token", delay=1.0, why=mask(str(error))
        ) from error


def _by_status(method: str, answer: httpx.Response) -> Transient:
    """Return the error for an HTTP status other than 200: Cloudflare or the network's edge stopped the request."""
    delay = {429: EDGE_S, 403: AUTH_THROTTLE_S}.get(answer.status_code, 1.0)
    retry_after = answer.headers.get("retry-after", "")
    if retry_after.isascii() and retry_after.isdigit():
        delay = max(delay, min(float(retry_after), LOCKOUT_S))
    cause = "throttled" if answer.status_code == 429 else "token"
    return Transient(f"{method}: HTTP {answer.status_code} instead of an answer.", cause=cause, delay=delay)


def refused_credentials(what: str, text: str, refusal: Refusal, credentials: Credentials) -> CredentialsRefused:
    """Return the error for a key that Kraken refuses. It names the key and the settings to check.

    ``what`` is the method or the channel that was refused, ``text`` is Kraken's error string, masked.
    """
    subject, why = "API key", f"That means: {refusal.meaning}."
    if refusal == NONCE:
        remedy = (
            "Give each program a key of its own, and look at this machine's clock (`date -u`). If neither helps, make "
            "a new key: this one has used a nonce that is too high to reach."
        )
    elif refusal in OF_ACCOUNT:
        subject = "account of the API key"
        remedy = "Log in at Kraken, and look for a notice about the account. If there is none, ask Kraken's support."
    else:
        permissions = needed_for(what)
        why += f" {what} needs the permission {permissions}." if permissions else ""
        remedy = (
            "Look at the key in Kraken's settings (Security > API): is it there, not expired, with the permissions it "
            "needs, and is this machine's address in its allow-list?"
        )
        if not credentials.otp:
            remedy += " If the key was made with 2FA, its password is missing here (KRAKEN_API_OTP)."
    said = f"Kraken refused the {subject} …{credentials.tail} (from {credentials.source}): {text}"
    return CredentialsRefused(said, why=why, remedy=remedy)


def _outcome(error: FeedError) -> str:
    """Return the result of a failed call in one word, for metrics."""
    if not isinstance(error, Transient):
        return "refused"
    return error.cause if error.cause in ("throttled", "locked_out", "refused") else "failed"


def _trust(url: str) -> ssl.SSLContext:
    """Return the TLS context, the same as the WebSocket's: the system's, or SSL_CERT_FILE. For plain HTTP return an
    empty one, which loads at once."""
    return ssl.create_default_context() if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _reason(error: BaseException) -> str:
    """Return the text of a library's error. If it has none, use the first error among its causes that has one."""
    name, told = type(error).__name__, error
    while not str(told) and told.__cause__ is not None:
        told = told.__cause__
    return f"{name}: {told}" if str(told) else name
