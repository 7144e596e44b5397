"""Run the preflight: check everything that a tail needs, in the order in which it needs it, and change nothing.

Items that depend on a failed one are reported as skipped.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from ..config.credentials import files, find, readable_by_others, shared_key
from ..config.schema import CHANNELS, Config, choose_accounts, is_loopback, is_public
from ..errors import ConfigError, FeedError, Transient
from ..output.disk import sync_method
from ..protocol.signing import Credentials, Nonce
from ..state.place import STDOUT, default_directory, names_in, place_for
from ..text import Secrets
from ..transport.backoff import Budget
from ..transport.connection import Dial, dial, open_socket
from ..transport.kraken_clock import KrakenClock, boot_ns
from ..transport.rest import Rest, server_time
from . import key_settings, machine
from .key import KeyCheck, skip
from .machine import connects, look_at_output, look_at_state, open_files
from .network import Hop, TcpResult, Tls, Unreachable, first_hop, open_tcp, phase_of, tls_of
from .report import CheckResult, Report, failed

if TYPE_CHECKING:
    import httpx

SECRET_BYTES = 64  # the length of every secret of Kraken
CODE_DIGITS = 6  # of an authenticator's code, which is valid for half a minute


class Options(NamedTuple):
    """The options of the command line. Empty ``channels`` and ``accounts`` mean the configuration's, ``all`` every
    account in it. An ``output`` of None is not checked."""

    channels: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    output: str | None = None
    state: str | None = None
    no_state: bool = False


class Surroundings(NamedTuple):
    """The surroundings of the check: the environment; network and clocks, for tests. ``max_files`` is the limit of
    descriptors per process; None: no limit."""

    environ: Mapping[str, str]
    dial: Dial = dial
    transport: httpx.AsyncBaseTransport | None = None
    unix_ns: Callable[[], int] = time.time_ns
    boot_ns: Callable[[], int] = boot_ns
    max_files: int | None = None


async def run(
    load: Callable[[], tuple[Config, str | None]],
    asked: Options,
    report: Report,
    secrets: Secrets,
    surroundings: Surroundings,
) -> int:
    """Check everything, and return the exit code.

    ``load`` returns the configuration and the path of its file. Texts that ``report`` must not show are added to
    ``secrets``.

    Raises:
        UsageError: an account's name is not valid.
    """
    try:
        config, path = load()
    except ConfigError as error:
        report.add(failed("configuration", error))
        report.add(machine.sync(sync_method()))
        limits, network = ("descriptors", "connects"), ("rest", "clock")
        items = ("credentials", "state", *limits, *network, "key", *key_settings.ITEMS, "token", *asked.channels)
        skip(report.add, items, "the configuration")
        return report.end()
    check = Check(config, asked, report, secrets, surroundings)
    report.several = len(check.accounts) > 1
    report.add(machine.configuration(config, path, check.overrides()))
    await check.run()
    return report.end()


class Account(NamedTuple):
    """An account: its credentials, if they were found, and the highest nonce in its state."""

    name: str
    credentials: Credentials | None
    nonce: int


@dataclass(eq=False, repr=False)
class Check:
    """One run of the preflight."""

    config: Config
    asked: Options
    report: Report
    secrets: Secrets
    surroundings: Surroundings

    def __post_init__(self) -> None:
        self.channels = self.asked.channels or self.config.channels
        self.accounts = choose_accounts(self.config, self.asked.accounts)
        self._owners: dict[str, str] = {}  # by key, the account that has it
        self._kraken = KrakenClock(self.surroundings.boot_ns)
        named = self.asked.state or self.config.state.directory
        self._directory = os.path.expanduser(named or default_directory(self.surroundings.environ))

    def overrides(self) -> dict[str, tuple[object, str]]:
        """Return the values that override the configuration's file, and the source of each."""
        asked, environ = self.asked, self.surroundings.environ
        found: dict[str, tuple[object, str]] = {}
        if asked.channels:
            found["channels"] = list(asked.channels), "the command line"
        if asked.accounts:
            found["account"] = list(asked.accounts), "--account"
        if asked.state:
            found["state.directory"] = asked.state, "--state"
        elif not self.config.state.directory and not asked.no_state:
            variable = next((name for name in ("STATE_DIRECTORY", "XDG_STATE_HOME") if environ.get(name)), None)
            if variable:
                found["state.directory"] = self._directory, f"${variable}"
        return found

    async def run(self) -> None:
        """Run the checks: first of this machine, then of the network, then of what needs both."""
        if self.asked.output not in (None, "-"):
            self.report.add(machine.output(look_at_output(str(self.asked.output))))
        self.report.add(machine.sync(sync_method()))
        accounts = [self._account(name) for name in self.accounts]
        self._check_account_count(len(accounts))
        needs = await self._rest_and_clock()
        dialects = dict.fromkeys(CHANNELS[channel] for channel in self.channels)
        lost = {dialect: f"ws_{dialect}" for dialect in dialects if not await self._websocket(f"ws_{dialect}")}
        for account in accounts:
            await self._key(account, needs, lost)

    # -- this machine

    def _account(self, name: str) -> Account:
        """Check where the credentials come from, and what the state holds."""
        credentials, environ = None, self.surroundings.environ
        try:
            credentials = self._find(name)
        except ConfigError as error:
            result = failed("credentials", error)
        else:
            paths = files(credentials, self.config, name, environ, alone=len(self.accounts) == 1)
            result = _credentials(credentials, paths)
        self.report.add(result.about(account=name))
        nonce = 0
        for result, saved in [(machine.NO_STATE, 0)] if self.asked.no_state else self._states(name):
            self.report.add(result.about(account=name))
            nonce = max(nonce, saved)
        return Account(name, credentials, nonce)

    def _find(self, account: str) -> Credentials:
        """Return the account's credentials. Raises ConfigError, also if another account has the same."""
        found = find(self.config, account, self.surroundings.environ, alone=len(self.accounts) == 1)
        self.secrets.add(*found.secrets())
        other = self._owners.setdefault(found.key, account)
        if other != account:
            raise shared_key(other, account, found)
        return found

    def _states(self, account: str) -> list[tuple[CheckResult, int]]:
        """Check the checkpoint of ``--output``, or all that the account has; return their nonces, too."""
        asked, names = self.asked, list[str]()
        if asked.output is not None and asked.output != "-":
            place = place_for(
                asked.output, asked=asked.state, configured=self.config.state.directory,
                environ=self.surroundings.environ,
            )  # fmt: skip
            names = [] if place is None else [place.name(account)]
        elif names_in(self._directory, account):
            names = names_in(self._directory, account)
        elif asked.state or self.config.state.directory or self.surroundings.environ.get("STATE_DIRECTORY"):
            names = [f"{account}@{STDOUT}"]
        now_ns = self.surroundings.unix_ns()
        found = [look_at_state(self._directory, name, now_ns) for name in names]
        states = [(machine.state(state, now_ns), state.checkpoint.nonce if state.checkpoint else 0) for state in found]
        return states or [(machine.NO_PLACE, 0)]

    def _check_account_count(self, accounts: int) -> None:
        """Check whether there are too many accounts."""
        config, dialects = self.config, {CHANNELS[channel] for channel in self.channels}
        budget = Budget(config.reconnect.budget, config.reconnect.window_s)
        state = not self.asked.no_state
        self.report.add(open_files(accounts, len(dialects), state=state, allowed=self.surroundings.max_files))
        self.report.add(connects(accounts, len(dialects), budget, public=is_public(config.endpoints, dialects)))

    # -- the network

    async def _rest_and_clock(self) -> str:
        """Check REST and the clock; return the item that private calls lack, or an empty string."""
        url, kraken = self.config.endpoints.rest, self._kraken

        async def ask() -> Tls | None:
            mask, transport = self.secrets.mask, self.surroundings.transport
            return tls_of(await server_time(url, mask=mask, clock=kraken, transport=transport))

        if not await self._check_host("rest", url, ask):
            skip(self.report.add, ["clock"], "rest")
            return "rest"
        earliest, latest = kraken.earliest(), kraken.latest()
        if earliest is None or latest is None:
            self.report.add(machine.NO_TIME)
        else:
            self.report.add(machine.judge(machine.offset(self.surroundings.unix_ns(), earliest, latest)))
        return ""

    def _kraken_ns(self) -> int:
        """Return Kraken's time; this machine's, if Kraken's is not known."""
        latest = self._kraken.latest()
        return self.surroundings.unix_ns() if latest is None else latest

    def _nonce_ns(self) -> int:
        """Return the time for nonces, the lower of both clocks: Kraken would remember nonces that are ahead."""
        return min(self.surroundings.unix_ns(), self._kraken_ns())

    async def _websocket(self, endpoint: str) -> bool:
        url = getattr(self.config.endpoints, endpoint)

        async def ask() -> Tls | None:
            socket = await open_socket(self.surroundings.dial, url, self.config.connection, self.secrets.mask)
            tls = tls_of(socket.transport.get_extra_info("ssl_object"))
            await socket.close()
            return tls

        return await self._check_host(endpoint, url, ask)

    async def _check_host(self, endpoint: str, url: str, ask: Callable[[], Awaitable[Tls | None]]) -> bool:
        """Connect to a host step by step; ``ask`` makes the last steps, TLS and HTTP."""
        result = await self._connect(endpoint, url, ask)
        self.report.add(result)
        return result.status != "FAIL"

    async def _connect(self, endpoint: str, url: str, ask: Callable[[], Awaitable[Tls | None]]) -> CheckResult:
        where = urlsplit(url).netloc
        try:
            hop = first_hop(url, self.surroundings.environ)
            tcp = await open_tcp(hop, self.config.connection.open_timeout_s)
        except ConfigError as error:
            return failed(endpoint, error)
        except Unreachable as end:
            first = f"{hop.host}:{hop.port}" if hop.variable else where
            return machine.unreachable(endpoint, first, end.phase, end.why, proxy=hop.variable)
        try:
            return _reached(endpoint, url, hop, tcp, await ask())
        except Transient as error:
            failure = phase_of(error, tls=url.startswith(("https:", "wss:")))
            why = failure.why or (error.why or error.what).rstrip(".")
            return machine.unreachable(endpoint, where, failure.phase, why)
        except FeedError as error:
            return failed(endpoint, error)

    # -- the key

    async def _key(self, account: Account, needs: str, lost: Mapping[str, str]) -> None:
        """Run the checks that need calls with the account's key."""

        def say(result: CheckResult) -> None:
            self.report.add(result.about(account=account.name))

        if account.credentials is None or needs:
            needs = "the credentials" if account.credentials is None else needs
            skip(say, ("key", *key_settings.ITEMS, "token", *self.channels), needs)
            return
        config, surroundings, nonce = self.config, self.surroundings, Nonce(account.nonce)
        first = max(account.nonce + 1, self._nonce_ns())
        rest = Rest(
            config.endpoints.rest, account.credentials, nonce, transport=surroundings.transport, unix_ns=self._nonce_ns,
            mask=self.secrets.mask,
        )  # fmt: skip
        key_check = KeyCheck(
            config, self.channels, account.credentials, rest, say=say, secrets=self.secrets, dial=surroundings.dial,
            unix_ns=self._kraken_ns, nonces=lambda: key_settings.Nonces(account.nonce, first, nonce.last),
        )  # fmt: skip
        try:
            await key_check.run(lost)
        finally:
            await rest.close()


# ------------------------------------------------------------------------------------------------ results


def _credentials(found: Credentials, paths: list[str]) -> CheckResult:
    modes = {path: f"{stat.S_IMODE(os.stat(path).st_mode):04o}" for path in paths}
    facts = {"source": found.source, "key": found.tail, "otp": found.otp is not None, "files": modes}
    what = f"key …{found.tail} from {found.source}{', with a one-time password' if found.otp else ''}"
    if len(found.secret) != SECRET_BYTES:
        return CheckResult(
            "WARN", "credentials", what, f"The secret has {len(found.secret)} bytes instead of {SECRET_BYTES}.",
            "Copy the private key again: a part of it may be missing.", facts=facts,
        )  # fmt: skip
    if found.otp and found.otp.isdigit() and len(found.otp) == CODE_DIGITS:
        return CheckResult(
            "WARN", "credentials", what, "The password looks like an authenticator's code, valid for one call.",
            "Make a key without 2FA, or with a password that does not change.", facts=facts,
        )  # fmt: skip
    listed = "\n".join(f"{path} ({mode})" for path, mode in modes.items())
    if readable_by_others(found, paths):
        return CheckResult(
            "WARN", "credentials", what, f"Others on this machine, or in this container, may read the files.\n{listed}",
            "Mount them with mode 0400 for this user: defaultMode: 0400 in Kubernetes, mode: 0400 and uid in Docker's "
            "services. If there are no other users, nothing has to be done.", facts=facts,
        )  # fmt: skip
    return CheckResult("OK", "credentials", what, listed, facts=facts)


def _reached(endpoint: str, url: str, hop: Hop, tcp: TcpResult, tls: Tls | None) -> CheckResult:
    parts = [f"{urlsplit(url).netloc} in {max(tcp.ms, 1):.0f} ms"]
    if hop.variable:
        parts.append(f"through the proxy {hop.host}:{hop.port} ({hop.variable})")
    if tls is not None:
        version = tls.version.replace("TLSv", "TLS ")
        parts.append(f"{version}, certificate by {tls.issuer} until {tls.until}")
    elif is_loopback(url):
        parts.append("this machine, without TLS")
    facts = {
        "url": url, "addresses": list(tcp.addresses), "ms": tcp.ms, "proxy": hop.variable or None,
        "tls": tls._asdict() if tls is not None else None,
    }  # fmt: skip
    return CheckResult("OK", endpoint, "; ".join(parts), facts=facts)
