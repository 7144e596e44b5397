"""Read the configuration: frozen structs from TOML, with every key optional and unknown keys refused.

``config.example.toml`` shows every key with its default. An error names the wrong key's path and, if
possible, the name that was probably meant.
"""

from __future__ import annotations

import ipaddress
import math
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigError, UsageError
from ..protocol import spot_v1, spot_v2
from ..protocol.wire import Dialect
from ..text import near_miss


def load(explicit: str | None, environ: Mapping[str, str]) -> tuple[Config, str | None]:
    """Return the configuration of the first file that exists, and its path; the defaults and None if there is none.

    Raises:
        ConfigError: the file that ``explicit`` or the environment names is missing; a file cannot be read; or as
            :func:`kraken_feed.config.schema.parse`.
    """
    for path, required in candidates(environ, explicit):
        try:
            with open(path, "rb") as file:
                return parse(file.read(), path), path
        except OSError as error:
            if required or not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise ConfigError(
                    f"Cannot read the configuration {path}.",
                    why=f"{error.strerror}.",
                    remedy="Check the path and its permissions, or name another file with --config.",
                ) from error
    return Config(), None


DIALECTS: Mapping[str, Dialect] = {"v1": spot_v1, "v2": spot_v2}
CHANNELS: Mapping[str, str] = {channel: name for name, d in DIALECTS.items() for channel in d.EVENT_NAMES}

ALL = "all"  # every account that the configuration has
DEFAULT_CHANNELS = ("openOrders",)

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
Words = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]

# Names of keys under which people put a secret by mistake.
_SECRET_KEYS = re.compile(
    r"^(api|kraken|private|public)?_?-?(api)?_?-?(key|secret|otp|password|passphrase|token)$", re.I
)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Account(_Table, frozen=True, kw_only=True):
    """The sources of an account's credentials: files, or commands that print them."""

    key_file: str | None = None
    secret_file: str | None = None
    otp_file: str | None = None
    key_command: Words | None = None
    secret_command: Words | None = None
    otp_command: Words | None = None


class Endpoints(_Table, frozen=True, kw_only=True):
    """The URLs of Kraken. A URL without TLS must be on loopback."""

    rest: str = "https://api.kraken.com"
    ws_v1: str = "wss://ws-auth.kraken.com"
    ws_v2: str = "wss://ws-auth.kraken.com/v2"


class ConnectionConfig(_Table, frozen=True, kw_only=True):
    """Deadlines in seconds, and the largest frame in bytes."""

    open_timeout_s: Positive = 10.0
    ack_timeout_s: Positive = 5.0
    silence_s: Positive = 10.0
    max_frame_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 33554432


class ReconnectConfig(_Table, frozen=True, kw_only=True):
    """Waits between connects, in seconds; connects in a window; how long a key that has worked may be refused."""

    initial_s: Positive = 1.0
    max_s: Positive = 60.0
    stable_s: Positive = 30.0
    budget: Annotated[int, msgspec.Meta(ge=1)] = 100
    window_s: Positive = 600.0
    max_outage_s: NotNegative = 0.0
    refused_s: NotNegative = 21600.0


class BackfillConfig(_Table, frozen=True, kw_only=True):
    """Recovery over REST: how far before an outage to ask, when REST has usually caught up (seconds), and the key's
    call counter (its size, and its decay per second)."""

    enabled: bool = True
    overlap_s: NotNegative = 120.0
    second_pass_s: NotNegative = 90.0
    rest_counter: Annotated[int, msgspec.Meta(ge=6)] = 15  # below that, no history call fits beside a token
    rest_decay: Positive = 0.33


class OutputConfig(_Table, frozen=True, kw_only=True):
    """How long to wait for a full disk, or at the start for a file system, in seconds; 0: do not wait."""

    patience_s: NotNegative = 3600.0


class StateConfig(_Table, frozen=True, kw_only=True):
    """The directory of the checkpoint; empty: systemd's state directory, else the user's."""

    directory: str = ""


class MetricsConfig(_Table, frozen=True, kw_only=True):
    """The loopback address and port that serve metrics and health; empty: none."""

    listen: str = ""


class Config(_Table, frozen=True, kw_only=True):
    """The complete configuration, one struct per table of the file."""

    channels: tuple[str, ...] = DEFAULT_CHANNELS
    account: Name = "main"
    accounts: dict[Name, Account] = {}
    endpoints: Endpoints = Endpoints()
    connection: ConnectionConfig = ConnectionConfig()
    reconnect: ReconnectConfig = ReconnectConfig()
    backfill: BackfillConfig = BackfillConfig()
    output: OutputConfig = OutputConfig()
    state: StateConfig = StateConfig()
    metrics: MetricsConfig = MetricsConfig()

    @property
    def names_channels(self) -> bool:
        """Whether the file names its channels, even if they are the default ones."""
        return self.channels is not DEFAULT_CHANNELS


def candidates(environ: Mapping[str, str], explicit: str | None) -> list[tuple[str, bool]]:
    """Return the paths where the configuration may be, in order, each with whether it must exist."""
    if explicit is not None:
        return [(explicit, True)]
    if environ.get("KRAKEN_FEED_CONFIG"):
        return [(environ["KRAKEN_FEED_CONFIG"], True)]
    home = environ.get("XDG_CONFIG_HOME") or (f"{environ['HOME']}/.config" if environ.get("HOME") else None)
    paths = [f"{home}/kraken-feed/config.toml"] if home else []
    return [(path, False) for path in (*paths, "/etc/kraken-feed/config.toml")]


def parse(content: bytes, origin: str) -> Config:
    """Parse the configuration in the TOML text ``content``; ``origin`` names it in messages.

    Raises:
        ConfigError: it is not TOML, a key is unknown or of the wrong type, a value makes no sense, or it contains a
            secret.
    """
    try:
        tree = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{origin} is not TOML.",
            why=_sentence(str(error)),
            remedy="Correct that line; config.example.toml shows every key.",
        ) from error
    return from_tree(tree, origin)


def from_tree(tree: Mapping[str, Any], origin: str) -> Config:
    """Return the configuration from parsed TOML. Raises as :func:`parse`."""
    _refuse_unknown(tree, Config, "", origin)
    try:
        config = msgspec.convert(tree, Config)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        key = place.strip("`").removeprefix("$.") or "the top level"
        key = key.replace("[...]", ".…").replace("`key` in ", "a name in ")
        remedy = "config.example.toml shows every key with its default."
        if key.startswith("channels"):
            remedy = f"Write it as a list: {_channel_list(tree['channels'])}."
        elif "Expected `array" in what:
            remedy = 'Write it as a list: ["pass", "show", "kraken/key"].'
        raise ConfigError(f"{origin}: {key} has a wrong value.", why=_sentence(what), remedy=remedy) from error
    _check_values(config, origin)
    return config


def _channel_list(channels: object) -> str:
    """Return the configuration line for the channels that ``channels`` seems to mean."""
    spelled = {name.casefold(): name for name in CHANNELS}
    words = channels.replace(",", " ").split() if isinstance(channels, str) else []
    meant = list(dict.fromkeys(spelled[word.casefold()] for word in words if word.casefold() in spelled))
    names = ", ".join(f'"{name}"' for name in meant or ("openOrders",))
    return f"channels = [{names}]"


def _refuse_unknown(tree: Mapping[str, Any], struct: type[msgspec.Struct], path: str, origin: str) -> None:
    """Raise ConfigError for the first key, also in tables, that the struct does not have, with the nearest name."""
    fields = {field.name: field for field in msgspec.structs.fields(struct)}
    for key, value in tree.items():
        if key not in fields:
            raise _unknown_key(key, path, list(fields), origin)
        inner = fields[key].type
        if key == "accounts" and isinstance(value, dict):
            for name, account in value.items():
                if isinstance(account, dict):
                    _refuse_unknown(account, Account, f"accounts.{name}.", origin)
        elif isinstance(value, dict) and isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            _refuse_unknown(value, inner, f"{path}{key}.", origin)


def _unknown_key(key: str, path: str, known: list[str], origin: str) -> ConfigError:
    if _SECRET_KEYS.match(key):
        return ConfigError(
            f"{origin}: {path}{key}: credentials must not be in the configuration file.",
            why="People and programs that must not have them read, copy and back up that file.",
            remedy="Remove the line, and make a new API key if others could read it. Use a private file instead "
            '(key_file = "…", secret_file = "…"), a command that prints it (secret_command = ["…"]), or '
            "KRAKEN_API_KEY and KRAKEN_API_SECRET.",
        )
    return ConfigError(f"{origin}: unknown key {path}{key}.", remedy=near_miss(key, known, path))


def _check_values(config: Config, origin: str) -> None:
    try:
        check_channels(config.channels)
    except UsageError as error:
        raise ConfigError(f"{origin}: channels: {error.what}", remedy=error.remedy) from None
    for key, schemes in (("rest", ("https", "http")), ("ws_v1", ("wss", "ws")), ("ws_v2", ("wss", "ws"))):
        check_url(f"{origin}: endpoints.{key}", getattr(config.endpoints, key), schemes)
    for name in ("connection", "reconnect", "backfill", "output"):
        for key, value in msgspec.structs.asdict(getattr(config, name)).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(
                    f"{origin}: {name}.{key}: {value} is not a number of seconds.", remedy="Write a finite number."
                )
    if config.reconnect.initial_s > config.reconnect.max_s:
        raise ConfigError(
            f"{origin}: reconnect.initial_s is larger than reconnect.max_s.",
            remedy="The first wait cannot be longer than the longest: lower initial_s, or raise max_s.",
        )
    if ALL in config.accounts:
        raise ConfigError(
            f'{origin}: accounts.{ALL}: "{ALL}" means every account, and cannot name one.',
            remedy="Give the account another name.",
        )
    if config.accounts and config.account not in config.accounts:
        raise ConfigError(
            f'{origin}: account = "{config.account}" has no table [accounts.{config.account}].',
            remedy=near_miss(config.account, config.accounts),
        )
    if config.metrics.listen:
        try:
            listen_address(config.metrics.listen)
        except ConfigError as error:
            raise ConfigError(f"{origin}: {error.what}", why=error.why, remedy=error.remedy) from None


def check_channels(channels: Iterable[str], meant: Iterable[str] = CHANNELS) -> tuple[str, ...]:
    """Return ``channels`` without repeats. All must be channels, and there must be at least one.

    Raises:
        UsageError: one is not a channel; the message suggests the nearest of ``meant``.
    """
    chosen = tuple(dict.fromkeys(channels))
    if not chosen:
        raise UsageError("No channel is named.", remedy=f"Known: {', '.join(CHANNELS)}.")
    for channel in chosen:
        if channel not in CHANNELS:
            raise UsageError(f'There is no channel "{channel}".', remedy=near_miss(channel, meant))
    return chosen


def for_demo(config: Config, endpoints: Endpoints) -> Config:
    """Return the configuration for the embedded exchange. Its REST does not lag and its call counter is fast, so an
    outage is recovered during the demo."""
    backfill = msgspec.structs.replace(config.backfill, overlap_s=5.0, second_pass_s=0.4, rest_decay=50.0)
    return msgspec.structs.replace(config, endpoints=endpoints, backfill=backfill)


def without_backfill(config: Config) -> Config:
    return msgspec.structs.replace(config, backfill=msgspec.structs.replace(config.backfill, enabled=False))


def check_account(name: str, what: str = "an account") -> None:
    """Raise UsageError unless ``name`` can name an account: it appears in every record and in a file's name."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        raise UsageError(
            f'"{name}" cannot name {what}.', remedy="Letters, digits, dots, dashes and underscores; 64 at most."
        ) from None


def choose_accounts(config: Config, named: Sequence[str]) -> tuple[str, ...]:
    """Return the accounts that a command line names: several, ``all``, or by default the configuration's.

    Raises:
        UsageError: a name is not valid, or ``all`` was given and the configuration has no accounts.
    """
    if ALL in named:
        others = [name for name in named if name != ALL]
        if others:
            raise UsageError(
                f"--account {ALL} and --account {others[0]} exclude each other.",
                remedy=f"Leave out one of them: {ALL} means every account of the configuration.",
            )
        if not config.accounts:
            raise UsageError(
                "--account all: the configuration has no [accounts.NAME] tables.",
                remedy="Add a table per account, or name the configuration that has them with --config.",
            )
        return tuple(config.accounts)
    chosen = tuple(dict.fromkeys(named)) or (config.account,)
    for name in chosen:
        check_account(name)
    return chosen


def check_url(key: str, url: str, schemes: tuple[str, str]) -> None:
    """Raise ConfigError unless ``url`` has the first of ``schemes``, or the second with a loopback host."""
    remedy = f"Write it as {schemes[0]}://HOST/PATH, or remove the line to use Kraken's own."
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:  # UnicodeError is one
        raise ConfigError(f"{key} is not a URL.", remedy=remedy) from None  # the reason may quote a password
    if "@" in url or parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"{key}: the URL has more than a scheme, a host, a port and a path.", remedy=remedy)
    if parts.scheme not in schemes or not host:
        raise ConfigError(f"{key}: {url!r} is not a URL that starts with {schemes[0]}://.", remedy=remedy)
    if parts.scheme == schemes[1] and not is_loopback(url):
        raise ConfigError(
            f"{key}: {schemes[1]}:// would send the key and the feed to {host} without encryption.",
            remedy=f"Use {schemes[0]}://. Only loopback addresses are allowed without TLS.",
        )


def listen_address(listen: str) -> tuple[str, int]:
    """Return the loopback address and the port of ``metrics.listen``. The address is a number: no name is looked up.

    Raises:
        ConfigError: it is not an address with a port, or other machines could reach it.
    """
    url = f"//{listen}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != listen or "@" in listen:
        raise ConfigError(
            f"metrics.listen: {listen!r} is not an address with a port.",
            remedy='Write "127.0.0.1:9464", "[::1]:9464" or "localhost:9464"; port 0 takes a free one.',
        )
    if not is_loopback(url):
        raise ConfigError(
            f"metrics.listen: other machines could reach {host}.",
            why="The metrics are neither encrypted nor protected by a password.",
            remedy=f"Listen on 127.0.0.1:{port}, and put a reverse proxy with TLS and a login in front of it.",
        )
    return "127.0.0.1" if host == "localhost" else host, port


def is_loopback(url: str) -> bool:
    """Return whether the URL's host is this machine, by name or by number; nothing is looked up."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_public(endpoints: Endpoints, dialects: Iterable[str]) -> bool:
    """Return whether a WebSocket of one of ``dialects`` connects to another machine."""
    return not all(is_loopback(getattr(endpoints, f"ws_{dialect}")) for dialect in dialects)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
