"""Check one account's key: its settings at Kraken, a token, and every channel live once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from ..config.schema import CHANNELS, DIALECTS, Config
from ..errors import CredentialsRefused, FeedError, RequestRefused, Transient
from ..protocol import key_info, permissions
from ..protocol.refusals import classify
from ..protocol.session import Event, Failure, Live, Session, Timing
from ..protocol.signing import Credentials
from ..protocol.wire import Data
from ..text import Secrets, counted
from ..transport.connection import Connection, Dial
from ..transport.rest import Rest, refused_credentials
from . import key_settings
from .report import CheckResult, failed


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


NONCE_TEXT = "EAPI:Invalid nonce"
PATIENCE_S = 5.0  # the longest wait before a refusal that may be temporary is tried again
SWITCH_ON = f"Switch it on for this key in {key_settings.SETTINGS}."
REMEDIES = {  # for texts of Kraken that name a more specific problem of the key
    "EAPI:Invalid signature": "Copy the whole private key again. Kraken shows it only when a key is made.",
    NONCE_TEXT: "Another program uses this key with higher nonces: stop it, or make a key for each program.",
}
AGAIN = "Check again in a minute: the problem may be temporary, and a tail would retry."

T = TypeVar("T")


@dataclass(eq=False, repr=False)
class KeyCheck:
    config: Config  # endpoints, deadlines, whether the backfill is enabled
    channels: Sequence[str]  # that the key is for
    credentials: Credentials  # for messages; ``rest`` makes the calls
    rest: Rest
    say: Callable[[CheckResult], None]  # receives the results
    secrets: Secrets  # every token is added to it
    dial: Dial
    unix_ns: Callable[[], int]  # Kraken's clock
    nonces: Callable[[], key_settings.Nonces | None] = lambda: None  # the key's nonces that are known here
    tokens: list[str] = field(default_factory=list)  # fetched and not used yet

    async def run(self, lost: Mapping[str, str]) -> None:
        """Run all checks of the key. ``lost`` has the dialects whose endpoints cannot be reached, with their names."""
        if not await self._key():
            skip(self.say, ("token", *self.channels), "the key")
        elif not await self._token():
            skip(self.say, self.channels, "the token")
        else:
            for dialect in dict.fromkeys(CHANNELS[channel] for channel in self.channels):
                channels = [channel for channel in self.channels if CHANNELS[channel] == dialect]
                if dialect in lost:
                    skip(self.say, channels, lost[dialect])
                else:
                    await self._subscribe(dialect, channels)

    async def _key(self) -> bool:
        """Check the key; return whether Kraken accepts it. If its settings are unknown, later steps show its rights."""
        try:
            info = key_info.read(await self._retry_refused(lambda: self.rest.call("GetApiKeyInfo")))
        except (RequestRefused, msgspec.DecodeError) as error:
            why = (error.why or error.what) if isinstance(error, FeedError) else self.secrets.mask(str(error))
            self.say(CheckResult("WARN", "key", "Kraken does not tell the key's settings.", why))
            skip(self.say, key_settings.ITEMS, "the key's settings")
            return True
        except FeedError as error:
            self.say(_refused("key", error))
            used = error.why.startswith(NONCE_TEXT) or error.what.endswith(NONCE_TEXT)
            skip(self.say, [item for item in key_settings.ITEMS if not (used and item == "other use")], "the key")
            if used:
                self.say(key_settings.NONCE_REFUSED)
            return False
        info = self._masked(info)
        name = f' "{info.name}"' if info.name else ""
        self.say(CheckResult("OK", "key", f"…{self.credentials.tail}{name} is accepted", facts={"name": info.name}))
        now, backfill = self.unix_ns() / 1e9, self.config.backfill.enabled
        for result in key_settings.judge(info, self.channels, now, backfill=backfill, nonces=self.nonces()):
            self.say(result)
        return True

    def _masked(self, info: key_info.KeyInfo) -> key_info.KeyInfo:
        """Mask Kraken's own texts: the key's name, and rights that this version does not know."""
        mask, known = self.secrets.mask, {*permissions.READING, *permissions.OTHERS}
        rights = info.permissions and tuple(right if right in known else mask(right) for right in info.permissions)
        return msgspec.structs.replace(info, name=mask(info.name), permissions=rights)

    async def _token(self) -> bool:
        try:
            token = await self._retry_refused(self.rest.token)
        except FeedError as error:
            self.say(_refused("token", error))
            return False
        self._keep(token.value)
        what = f"received, valid for {token.expires} s if it is not used"
        self.say(CheckResult("OK", "token", what, facts={"expires": token.expires}))
        return True

    async def _retry_refused(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make a call, and retry as often as a refusal allows. Kraken sometimes refuses valid keys, and a nonce has to
        exceed another program's. Wait before if the last call demands a short wait."""
        quiet = self.rest.quiet_for()
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
        self.secrets.add(token)
        self.tokens.append(token)

    async def _next_token(self) -> str:
        """Return a token: first the one that was fetched by the check of the token, then new ones."""
        if not self.tokens:
            self._keep((await self.rest.token()).value)
        return self.tokens.pop()

    async def _subscribe(self, dialect: str, channels: Sequence[str]) -> None:
        """Subscribe to the channels of an endpoint on one connection, like a tail. A refusal ends the session: then the
        other channels use a new one. A refusal that may be temporary is tried once more."""
        pending, again = list(channels), set[str]()
        while pending:
            try:
                result = await self._go_live(dialect, pending)
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

    async def _go_live(self, dialect: str, channels: Sequence[str]) -> LiveResult:
        """Bring the channels live on one connection, as a tail does, and close it. The session's deadlines apply.

        Raises:
            Transient, ConfigError: the socket cannot be opened.
            FeedError: no token can be fetched.
        """
        config, url = self.config.connection, getattr(self.config.endpoints, f"ws_{dialect}")
        mask, result, stop, now = self.secrets.mask, LiveResult(), asyncio.Event(), asyncio.get_running_loop().time
        session = Session(DIALECTS[dialect], channels, Timing(config.ack_timeout_s, config.silence_s), mask)
        connection = Connection(url, session, config, dial=self.dial, mask=mask)
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
            await connection.run(self._next_token, deliver, _NullOutput(), stop)
        finally:
            await connection.close()
        result.engine = session.engine
        if len(result.live) < len(set(channels)):
            result.failure = session.failure
        return result

    def _conclude(self, pending: list[str], found: Mapping[str, CheckResult]) -> None:
        for channel, result in found.items():
            pending.remove(channel)
            self.say(result.about(channel=channel))

    def _wait(self, failure: Failure) -> float | None:
        """Return the seconds to wait before a refusal is tried again; None if that is useless."""
        if failure.refusal is None:
            return None
        refusal = classify(failure.refusal, self.unix_ns() / 1e9)
        return None if refusal.final(1) or refusal.delay > PATIENCE_S else refusal.delay

    def _error(self, channel: str, failure: Failure) -> FeedError:
        """Return an error with the reason why a channel is not live, and the meaning of Kraken's text."""
        if failure.refusal is None:
            return Transient("Not live.", cause=failure.cause, why=f"{failure.detail}.")
        refusal, said = classify(failure.refusal, self.unix_ns() / 1e9), self.secrets.mask(failure.refusal)
        if refusal.error is CredentialsRefused:
            return refused_credentials(channel, said, refusal, self.credentials)
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
        result = CheckResult("SKIP", item, f"not checked: needs {needs}", facts={"needs": needs})
        say(result.about(channel=item if item in CHANNELS else None))


def _culprits(failure: Failure, waiting: Sequence[str]) -> list[str]:
    """Return the channels that a session's failure is about: the one that it names, or all that are not live."""
    named = [channel for channel in waiting if failure.detail.startswith(f"{channel}:")]
    return named or list(waiting)


def _live(channel: str, result: LiveResult) -> CheckResult:
    seconds, items = result.live[channel], result.items.get(channel, 0)
    facts = {"live_s": seconds, "snapshot": items, "engine": result.engine}
    engine = f", engine {result.engine}" if result.engine else ""
    what = f"live after {seconds:.2f} s: {counted(items, 'item')} in the snapshot{engine}"
    if result.engine in (None, "online"):
        return CheckResult("OK", channel, what, facts=facts)
    why = "Little or nothing happens on the account until the engine is online. A tail waits for that."
    return CheckResult("WARN", channel, what, why, facts=facts)
