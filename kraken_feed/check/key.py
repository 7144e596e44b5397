"""Check one account's key: its settings at Kraken, a token, and every channel live once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from ..config.schema import CHANNELS, DIALECTS, Config, ConnectionConfig
from ..errors import CredentialsRefused, FeedError, RequestRefused, Transient
from ..protocol import key_info, permissions
from ..protocol.refusals import classify
from ..protocol.session import Event, Failure, Live, Session, Timing
from ..protocol.signing import Credentials
from ..protocol.wire import Data
from ..text import Secrets
from ..transport.connection import Connection, Dial, Mask
from ..transport.rest import Rest, refused_credentials
from . import key_settings
from .report import CheckResult, failed, skipped

# -- the start of a tail: connect, subscribe, live, close. Nothing is written


class LiveResult(msgspec.Struct):
    """The result of one connection: by channel, the seconds until it was live and the number of items in its snapshot.

    ``failure`` is None if all channels became live.
    """

    live: dict[str, float] = msgspec.field(default_factory=dict)
    items: dict[str, int] = msgspec.field(default_factory=dict)
    engine: str | None = None
    failure: Failure | None = None


class _NullOutput:
    """An output that discards everything."""

    full = False

    async def room(self) -> None:
        return


async def go_live_once(
    url: str,
    dialect: str,
    channels: Sequence[str],
    token: Callable[[], Awaitable[str]],
    config: ConnectionConfig,
    dial: Dial,
    mask: Mask,
) -> LiveResult:
    """Bring the channels live on one connection, as a tail does, and close it.

    Every step has the session's deadlines. ``mask`` removes secrets from texts of other parties.

    Raises:
        Transient, ConfigError: the socket cannot be opened.
        FeedError: as ``token`` raises it.
    """
    result, stop, now = LiveResult(), asyncio.Event(), asyncio.get_running_loop().time
    session = Session(DIALECTS[dialect], channels, Timing(config.ack_timeout_s, config.silence_s), mask)
    connection = Connection(url, session, config, dial=dial, mask=mask)
    begun = now()

    def deliver(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Data) and event.type == "snapshot":
                result.items[event.channel] = len(event.items)
            elif isinstance(event, Live):
                result.live.setdefault(event.channel, round(now() - begun, 3))
        if session.live:
            stop.set()

    try:
        await connection.run(token, deliver, _NullOutput(), stop)
    finally:
        await connection.close()
    result.engine = session.engine
    if len(result.live) < len(set(channels)):
        result.failure = session.failure
    return result


NONCE_TEXT = "EAPI:Invalid nonce"
PATIENCE_S = 5.0  # the longest wait before a refusal that may be temporary is tried again
SWITCH_ON = f"Switch it on for this key in {key_settings.SETTINGS}."
REMEDIES = {  # for texts of Kraken that name a more specific problem of the key
    "EAPI:Invalid signature": "Copy the whole private key again. Kraken shows it only when a key is made.",
    NONCE_TEXT: "Another program uses this key with higher nonces: stop it, or make a key for each program.",
}
AGAIN = "Check again in a minute: the problem may be temporary, and a tail would retry."

T = TypeVar("T")


class KeyCheck:
    """The check of one account's key.

    Args:
        config: endpoints, deadlines, whether the backfill is enabled.
        channels: the channels that the key is for.
        credentials: the key, for messages; ``rest`` makes its calls.
        say: receives the results.
        secrets: every token is added to it.
        dial: opens sockets.
        unix_ns: Kraken's clock.
        nonces: returns the key's nonces that are known here.
    """

    def __init__(
        self,
        config: Config,
        channels: Sequence[str],
        credentials: Credentials,
        rest: Rest,
        *,
        say: Callable[[CheckResult], None],
        secrets: Secrets,
        dial: Dial,
        unix_ns: Callable[[], int],
        nonces: Callable[[], key_settings.Nonces | None] = lambda: None,
    ) -> None:
        self._config = config
        self._channels = channels
        self._credentials = credentials
        self._rest = rest
        self._say = say
        self._secrets = secrets
        self._dial = dial
        self._unix_ns = unix_ns
        self._nonces = nonces
        self._tokens: list[str] = []  # fetched and not used yet

    async def run(self, lost: Mapping[str, str]) -> None:
        """Run all checks of the key. ``lost`` are the dialects whose endpoints cannot be reached, with the endpoints'
        names."""
        if not await self._key():
            skip(self._say, ("token", *self._channels), "the key")
        elif not await self._token():
            skip(self._say, self._channels, "the token")
        else:
            for dialect in dict.fromkeys(CHANNELS[channel] for channel in self._channels):
                channels = [channel for channel in self._channels if CHANNELS[channel] == dialect]
                if dialect in lost:
                    skip(self._say, channels, lost[dialect])
                else:
                    await self._subscribe(dialect, channels)

    async def _key(self) -> bool:
        """Check the key; return whether Kraken accepts it. If Kraken does not tell its settings, later steps show what
        it may do."""
        try:
            info = key_info.read(await self._retry_refused(lambda: self._rest.call("GetApiKeyInfo")))
        except (RequestRefused, msgspec.DecodeError) as error:
            why = (error.why or error.what) if isinstance(error, FeedError) else self._secrets.mask(str(error))
            self._say(CheckResult("WARN", "key", "Kraken does not tell the key's settings.", why))
            skip(self._say, key_settings.ITEMS, "the key's settings")
            return True
        except FeedError as error:
            self._say(_refused("key", error))
            used = error.why.startswith(NONCE_TEXT) or error.what.endswith(NONCE_TEXT)
            skip(self._say, [item for item in key_settings.ITEMS if not (used and item == "other use")], "the key")
            if used:
                self._say(key_settings.nonce_refused())
            return False
        info = self._masked(info)
        name = f' "{info.name}"' if info.name else ""
        self._say(CheckResult("OK", "key", f"…{self._credentials.tail}{name} is accepted", facts={"name": info.name}))
        now, backfill = self._unix_ns() / 1e9, self._config.backfill.enabled
        for result in key_settings.judge(info, self._channels, now, backfill=backfill, nonces=self._nonces()):
            self._say(result)
        return True

    def _masked(self, info: key_info.KeyInfo) -> key_info.KeyInfo:
        """Mask Kraken's own texts: the key's name, and rights that this version does not know."""
        mask, known = self._secrets.mask, {*permissions.READING, *permissions.OTHERS}
        rights = info.permissions and tuple(right if right in known else mask(right) for right in info.permissions)
        return msgspec.structs.replace(info, name=mask(info.name), permissions=rights)

    async def _token(self) -> bool:
        try:
            token = await self._retry_refused(self._rest.token)
        except FeedError as error:
            self._say(_refused("token", error))
            return False
        self._keep(token.value)
        what = f"received, valid for {token.expires} s if it is not used"
        self._say(CheckResult("OK", "token", what, facts={"expires": token.expires}))
        return True

    async def _retry_refused(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, and retry as often as a refusal allows. Kraken sometimes refuses valid keys, and a nonce has to
        exceed another program's. Wait before if the last call demands a short wait."""
        quiet = self._rest.quiet_for()
        if quiet <= PATIENCE_S:
            await asyncio.sleep(quiet)
        while True:
            try:
                return await call()
            except Transient as error:
                if error.cause != "refused":
                    raise
                await asyncio.sleep(error.delay)

    def _keep(self, token: str) -> None:
        self._secrets.add(token)
        self._tokens.append(token)

    async def _next_token(self) -> str:
        """Return a token: first the one that was fetched by the check of the token, then new ones."""
        if not self._tokens:
            self._keep((await self._rest.token()).value)
        return self._tokens.pop()

    async def _subscribe(self, dialect: str, channels: Sequence[str]) -> None:
        """Subscribe to the channels of an endpoint on one connection, like a tail. A refusal ends the session: then the
        other channels use a new one. A refusal that may be temporary is tried once more."""
        url = getattr(self._config.endpoints, f"ws_{dialect}")
        pending, again = list(channels), set[str]()
        while pending:
            try:
                result = await go_live_once(
                    url, dialect, pending, self._next_token, self._config.connection, self._dial, self._secrets.mask
                )
            except FeedError as error:
                self._conclude(pending, {channel: _refused(channel, error) for channel in pending})
                return
            found = {channel: _live(channel, result) for channel in result.live}
            if result.failure is not None:
                culprits = _culprits(result.failure, [channel for channel in pending if channel not in found])
                wait = self._wait(result.failure)
                if wait is None or again.intersection(culprits):
                    found |= {channel: _refused(channel, self._error(channel, result.failure)) for channel in culprits}
                else:
                    again.update(culprits)
                    await asyncio.sleep(wait)
            self._conclude(pending, found)

    def _conclude(self, pending: list[str], found: Mapping[str, CheckResult]) -> None:
        for channel, result in found.items():
            pending.remove(channel)
            self._say(result.about(channel=channel))

    def _wait(self, failure: Failure) -> float | None:
        """Return the seconds to wait before a refusal is tried again; None if that is useless."""
        if failure.refusal is None:
            return None
        refusal = classify(failure.refusal, self._unix_ns() / 1e9)
        return None if refusal.final(1) or refusal.delay > PATIENCE_S else refusal.delay

    def _error(self, channel: str, failure: Failure) -> FeedError:
        """Return an error with the reason why a channel is not live, and the meaning of Kraken's text."""
        if failure.refusal is None:
            return Transient("Not live.", cause=failure.cause, why=f"{failure.detail}.")
        refusal, said = classify(failure.refusal, self._unix_ns() / 1e9), self._secrets.mask(failure.refusal)
        if refusal.error is CredentialsRefused:
            return refused_credentials(channel, said, refusal, self._credentials)
        what, why = f"Kraken refused the subscription: {said}", f"That means: {refusal.meaning}."
        return refusal.error(what, why=why) if refusal.final(2) else Transient(what, cause=failure.cause, why=why)


def _refused(item: str, error: FeedError) -> CheckResult:
    """Return the result for a refusal, with the most specific remedy."""
    remedy = next((text for known, text in REMEDIES.items() if error.what.endswith(known)), error.remedy)
    if item != "key" and error.what.endswith("Permission denied"):
        remedy = SWITCH_ON
    result = failed(item, error, remedy=AGAIN if error.retry else "")
    return msgspec.structs.replace(result, remedy=remedy or result.remedy)


def skip(say: Callable[[CheckResult], None], items: Sequence[str], needs: str) -> None:
    """Report each of these items as not checked."""
    for item in items:
        say(skipped(item, needs).about(channel=item if item in CHANNELS else None))


def _culprits(failure: Failure, waiting: Sequence[str]) -> list[str]:
    """Return the channels that a session's failure is about: the one that it names, or all that are not live."""
    named = [channel for channel in waiting if failure.detail.startswith(f"{channel}:")]
    return named or list(waiting)


def _live(channel: str, result: LiveResult) -> CheckResult:
    seconds, items = result.live[channel], result.items.get(channel, 0)
    facts = {"live_s": seconds, "snapshot": items, "engine": result.engine}
    engine = f", engine {result.engine}" if result.engine else ""
    what = f"live after {seconds:.2f} s: {items} item{'s' * (items != 1)} in the snapshot{engine}"
    if result.engine in (None, "online"):
        return CheckResult("OK", channel, what, facts=facts)
    why = "Little or nothing happens on the account until the engine is online. A tail waits for that."
    return CheckResult("WARN", channel, what, why, facts=facts)
