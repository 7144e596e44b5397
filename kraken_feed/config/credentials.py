"""Find the API key: the first complete pair wins, half a pair is an error, files must be private."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from ..errors import ConfigError
from ..protocol.signing import KEY_SHAPE, SECRET_SHAPE, Credentials
from ..text import MASK, Secrets, near_miss
from .schema import Account, Config

COMMAND_S = 10.0  # a password manager may ask its agent; none that works unattended needs longer
MAX_BYTES = 4096  # a key, a secret or a password is one line

OTHERS, OTHERS_WRITE = 0o077, 0o022  # the permissions of all but the owner
SECRETS = "/run/secrets/"  # where Docker, Podman and others mount secrets
SYSTEMD = "$CREDENTIALS_DIRECTORY"

_LIKE_SECRET = re.compile(
    rf"(?<![A-Za-z0-9+/])(?:{SECRET_SHAPE.pattern}|{KEY_SHAPE.pattern})(?![A-Za-z0-9+/=])"
)  # in the stderr of a command that has not printed its secret yet
_PRIVATE = ("KRAKEN_API_", "CREDENTIALS_DIRECTORY")  # prefixes of the variables that lead to a key
MAX_SAID = 1000  # characters of a command's stderr: its end has the reason

_REMEDY = """Give the API key in one of these ways:
- KRAKEN_API_KEY and KRAKEN_API_SECRET
- KRAKEN_API_KEY_FILE and KRAKEN_API_SECRET_FILE
- key_file and secret_file, or key_command and secret_command, under [accounts.{account}] in the configuration
- systemd credentials named api-key and api-secret
To try it without a key: kraken-feed demo"""

_REMEDY_OF_SEVERAL = """With several accounts, give each its own API key in one of these ways:
- key_file and secret_file, or key_command and secret_command, under [accounts.{account}] in the configuration
- systemd credentials named {account}.api-key and {account}.api-secret"""

_BY_HAND = "Run it by hand as the same user: it has to print one line and exit, without a prompt."


class _Source(NamedTuple):
    """One source of credentials: the name of each part in it, and how to read it."""

    name: str
    parts: tuple[str, str, str]
    read: Callable[[str], str | None]
    path: Callable[[str], str | None] = lambda part: None


OnStderr = Callable[..., object]  # receives a command's stderr: ``command``, its key, and ``text``, which is masked


def _ignore(**said: str) -> None:
    """Do nothing."""


def find_all(
    config: Config, accounts: Sequence[str], environ: Mapping[str, str], on_stderr: OnStderr = _ignore
) -> dict[str, Credentials]:
    """Return the credentials of each account. Several accounts must have different keys.

    Raises:
        ConfigError: as :func:`find`, or two accounts have the same key.
    """
    found = {account: find(config, account, environ, on_stderr, alone=len(accounts) == 1) for account in accounts}
    refuse_shared(found)
    return found


def refuse_shared(found: Mapping[str, Credentials]) -> None:
    """Raise ConfigError if two accounts have the same key."""
    owners: dict[str, str] = {}
    for account, credentials in found.items():
        other = owners.setdefault(credentials.key, account)
        if other != account:
            raise shared_key(other, account, credentials)


def shared_key(one: str, other: str, credentials: Credentials) -> ConfigError:
    """Return the error for two accounts that have the same key."""
    return ConfigError(
        f"The accounts {one!r} and {other!r} have the same API key, …{credentials.tail}.",
        why="Each would refuse the other's nonces, and every record would be written twice.",
        remedy="Give each account a key of its own.",
    )


def find(
    config: Config, account: str, environ: Mapping[str, str], on_stderr: OnStderr = _ignore, *, alone: bool = True
) -> Credentials:
    """Return the credentials of ``account``.

    Searched in ``$CREDENTIALS_DIRECTORY`` (``NAME.api-key`` before ``api-key``), the account's table in the
    configuration, the files that ``KRAKEN_API_*_FILE`` name, and ``KRAKEN_API_*``. An account that is not ``alone``
    in its process is searched only in sources that name it. ``on_stderr`` receives what commands write to stderr.

    Raises:
        ConfigError: no source has any, one has half a pair, or one cannot be used.
    """
    if config.accounts and account not in config.accounts:
        raise ConfigError(f"The configuration has no account {account!r}.", remedy=near_miss(account, config.accounts))
    commands = _Commands()
    for source in _sources(config.accounts.get(account, Account()), account, environ, alone, commands):
        key, secret, otp = (source.read(part) for part in source.parts)
        for command, text in commands.said():
            on_stderr(command=command, text=text)
        if key is not None and secret is not None:
            return Credentials(key, secret, otp, source=source.name)
        if key is not None or secret is not None or otp is not None:
            missing = source.parts[0] if key is None else source.parts[1]
            raise ConfigError(
                f"Incomplete credentials: {source.name} has no {missing}.",
                remedy="Give both the key and the secret there, or neither.",
            )
    remedy = _REMEDY if alone else _REMEDY_OF_SEVERAL
    raise ConfigError(f"No API key for the account {account!r}.", remedy=remedy.format(account=account))


def files(
    found: Credentials, config: Config, account: str, environ: Mapping[str, str], *, alone: bool = True
) -> list[str]:
    """Return the files from which :func:`find` has read ``found``; none if they came from another source."""
    for source in _sources(config.accounts.get(account, Account()), account, environ, alone, _Commands()):
        paths = [os.path.expanduser(path) for path in map(source.path, source.parts) if path]
        there = [path for path in paths if os.path.exists(path)]
        if source.name == found.source and there:
            return there
    return []


def _sources(account: Account, name: str, environ: Mapping[str, str], alone: bool, run: _Commands) -> list[_Source]:
    table, given, directory = (
        f"[accounts.{name}]",
        msgspec.structs.asdict(account),
        environ.get("CREDENTIALS_DIRECTORY"),
    )
    by_systemd = [
        _Source(
            f"{SYSTEMD} ({directory})",
            _parts("api-{}", before=prefix),
            lambda part: _credential(os.path.join(directory, part)),
            lambda part: os.path.join(directory, part),
        )
        for prefix in ((f"{name}.", "") if alone else (f"{name}.",))
        if directory
    ]
    named = [
        _Source(f"{table} (files)", _parts("{}_file"), lambda part: _file(given[part]), given.get),
        _Source(f"{table} (commands)", _parts("{}_command"), lambda part: run.command(part, given[part])),
    ]
    nameless = [
        _Source(
            "the files named by KRAKEN_API_*_FILE",
            _parts("KRAKEN_API_{}_FILE", str.upper),
            lambda part: _file(environ.get(part) or None),
            environ.get,
        ),
        _Source(
            "the environment (KRAKEN_API_*)", _parts("KRAKEN_API_{}", str.upper), lambda part: environ.get(part) or None
        ),
    ]
    # Sources that do not name the account are only for one that is alone in its process.
    return [*by_systemd, *named, *(nameless if alone else [])]


def _parts(pattern: str, spell: Callable[[str], str] = str, *, before: str = "") -> tuple[str, str, str]:
    """Return the names of the key, the secret and the one-time password in a source."""
    key, secret, otp = (before + pattern.format(spell(part)) for part in ("key", "secret", "otp"))
    return key, secret, otp


def _credential(path: str) -> str | None:
    """Read a file of systemd's credentials directory, or return None. Its mode is not checked: systemd sets it."""
    try:
        with open(path, "rb") as file:
            return _text(file.read(MAX_BYTES + 1), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"Cannot read the credential {path}.",
            why=f"{error.strerror}.",
            remedy="systemd creates it: check LoadCredential= in the unit, and the file that it names.",
        ) from error


def _file(path: str | None) -> str | None:
    """Return the text in a file, if the file is private enough."""
    if path is None:
        return None
    path = os.path.expanduser(path)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            mounted = _is_mounted(file.fileno(), path)
            _check_owner(path, status, mounted)
            if stat.S_ISREG(status.st_mode):
                _check_mode(path, status, mounted)
            return _text(file.read(MAX_BYTES + 1), path)
    except OSError as error:
        raise ConfigError(
            f"Cannot read the credentials file {_shown(path)}.",
            why=f"{error.strerror}.",
            remedy="Check that the file exists, and that this user can read it.",
        ) from error


def _is_mounted(fd: int, path: str) -> bool:
    """Return whether the file seems to be mounted by an orchestrator. Then a chmod here fails or does not last: the
    mode has to be set in the container's description."""
    read_only = os.fstatvfs(fd).f_flag & os.ST_RDONLY
    return bool(read_only) or os.path.realpath(path).startswith(SECRETS)


def _check_owner(path: str, status: os.stat_result, mounted: bool) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        raise ConfigError(
            f"The credentials file {path} belongs to another user (uid {status.st_uid}).",
            remedy=f"Mount it for this user (uid: {os.geteuid()}) or for root."
            if mounted
            else f"Change the owner: chown {os.geteuid()} {path}",
        )


def _check_mode(path: str, status: os.stat_result, mounted: bool) -> None:
    """Raise ConfigError if others may write to the file, or may read it although chmod could prevent that.

    chmod cannot prevent it on a read-only mount. Nor can it if root owns the file and we are another user: we need the
    permission for others to read it.
    """
    mode = stat.S_IMODE(status.st_mode)
    fixed = mounted or (status.st_uid == 0 and os.geteuid() != 0)
    if not mode & (OTHERS_WRITE if fixed else OTHERS):
        return
    if not fixed:
        remedy = f"Make it private: chmod 600 {path}"
    elif mounted:
        remedy = "Mount it with mode 0400: defaultMode: 0400 in Kubernetes, mode: 0400 in Docker's services."
    else:
        remedy = f"Allow only root to write to it: chmod go-w {path}"
    raise ConfigError(f"Other users can access the credentials file {path} (mode {mode:04o}).", remedy=remedy)


def readable_by_others(found: Credentials, paths: Sequence[str]) -> list[str]:
    """Return the files that others may read. The group's permission on systemd's files does not count: it belongs to an
    access list, and their directory is private."""
    others = 0o007 if found.source.startswith(SYSTEMD) else OTHERS
    return [path for path in paths if os.stat(path).st_mode & others]


class _Commands:
    """Runs the commands of one account. It keeps what they write to stderr until it is known what to mask there."""

    def __init__(self) -> None:
        self._secrets = Secrets()
        self._said: list[tuple[str, str]] = []

    def command(self, key: str, argv: Sequence[str] | None) -> str | None:
        """Run a command without a shell; return the line that it prints. Variables that lead to a key are removed.

        Raises:
            ConfigError: the command cannot be run, fails, or prints nothing that could be a secret.
        """
        if argv is None:
            return None
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=COMMAND_S, check=False, env=environ
            )
        except subprocess.TimeoutExpired as error:
            why = self._masked(error.output, error.stderr)
            what = f"{key}: {argv[0]} did not answer within {COMMAND_S:g} s."
            raise ConfigError(what, why=why[-MAX_SAID:], remedy=_BY_HAND) from None  # its cause has the printed text
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or "The name has a NUL character."
            raise ConfigError(f"{key}: cannot run {_shown(argv[0])}.", why=f"{why}.", remedy=_BY_HAND) from error
        why = self._masked(done.stdout, done.stderr)
        if done.returncode != 0:
            raise ConfigError(
                f"{key}: {argv[0]} failed (exit status {done.returncode}).", why=why[-MAX_SAID:], remedy=_BY_HAND
            )
        if why:
            self._said.append((key, why))
        return _text(done.stdout[: MAX_BYTES + 1], key)

    def said(self) -> list[tuple[str, str]]:
        """Return and forget what the commands wrote to stderr: the key of each, and the masked text. Call it after all
        have run: the first may write the secret that the second prints."""
        said, self._said = self._said, []
        return [(key, self._secrets.mask(text)[-MAX_SAID:]) for key, text in said]

    def _masked(self, stdout: bytes | None, stderr: bytes | None) -> str:
        """Return a command's stderr, without the secrets that it printed, or anything that looks like a secret."""
        self._secrets.add(*map(str.strip, (stdout or b"")[:MAX_BYTES].decode(errors="replace").splitlines()))
        text = (stderr or b"").decode(errors="replace").strip()
        return _LIKE_SECRET.sub(MASK, self._secrets.mask(text))


def _shown(place: str) -> str:
    """Return a path or a command's name for a message, unless it is a secret that was put there by mistake."""
    return "(apparently the secret itself)" if SECRET_SHAPE.fullmatch(place) else place


def _text(content: bytes, place: str) -> str:
    """Return one line of text. Raise ConfigError if it is empty: an empty file cannot be intended."""
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > MAX_BYTES:
        raise ConfigError(
            f"{place} does not contain a key, a secret or a password.",
            why="It is empty, too long or not text.",
            remedy="It must have one line: what Kraken showed when the key was made.",
        )
    return text
