"""Where the API key comes from: in which order, how private its files must be, and that no message shows it."""

from __future__ import annotations

import base64
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kraken_feed.config import credentials
from kraken_feed.config.credentials import find, readable_by_others
from kraken_feed.config.schema import Account, Config
from kraken_feed.errors import ConfigError
from kraken_feed.protocol.signing import Credentials

from ...support.cases import each

PARTS = ("key", "secret", "otp")


def _pair(name: str) -> dict[str, str]:
    """A key, a secret and a password that tell which source they came from."""
    return {
        "key": f"KEY-OF-{name.upper()}-0123456789",
        "secret": base64.b64encode(f"the secret of {name}, which is long".encode()).decode(),
        "otp": f"otp-of-{name}-0123456789",
    }


def _file(path: Path, content: str | bytes, mode: int = 0o600) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return str(path)


def _say(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", f"print({text!r})")


class Sources:
    """A configuration and an environment with chosen sources of credentials in them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environ: dict[str, str] = {}
        self.account: dict[str, Any] = {}

    def add(self, source: str, parts: tuple[str, ...] = PARTS) -> None:
        """Give ``parts`` in one way."""
        for part, value in _pair(source).items():
            if part in parts:
                self._put(source, part, value)

    def _put(self, source: str, part: str, value: str) -> None:
        match source:
            case "systemd":
                self.environ["CREDENTIALS_DIRECTORY"] = str(self.directory / "systemd")
                _file(self.directory / "systemd" / f"api-{part}", value + "\n", 0o440)
            case "files":
                self.account[f"{part}_file"] = _file(self.directory / "files" / part, value + "\n")
            case "commands":
                self.account[f"{part}_command"] = _say(value)
            case "named":
                path = _file(self.directory / "named" / part, value + "\n")
                self.environ[f"KRAKEN_API_{part.upper()}_FILE"] = path
            case "environment":
                self.environ[f"KRAKEN_API_{part.upper()}"] = value

    def find(self) -> Credentials:
        """What is found."""
        return find(Config(accounts={"main": Account(**self.account)}), "main", self.environ)

    def refused(self) -> ConfigError:
        """The error, which shows none of the secrets."""
        with pytest.raises(ConfigError) as caught:
            self.find()
        said = "".join(traceback.format_exception(caught.value))
        for source in ORDER:
            for value in _pair(source).values():
                assert value not in said
        return caught.value


ORDER = ("systemd", "files", "commands", "named", "environment")
CHEAP = ("systemd", "files", "named", "environment")


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def _assert_from(found: Credentials, source: str, *, otp: bool = True) -> None:
    expected = _pair(source)
    assert found.key == expected["key"]
    assert found.secret == base64.b64decode(expected["secret"])
    assert found.otp == (expected["otp"] if otp else None)


# ------------------------------------------------------------------------------------------------ order


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_first_complete_pair_wins(sources: Sources, first: int) -> None:
    for source in ORDER[first:]:
        sources.add(source)
    _assert_from(sources.find(), ORDER[first])


@pytest.mark.parametrize("source", ORDER)
def test_password_is_optional(sources: Sources, source: str) -> None:
    sources.add(source, ("key", "secret"))
    _assert_from(sources.find(), source, otp=False)


@pytest.mark.parametrize("source", CHEAP)
@pytest.mark.parametrize("parts", [("key",), ("secret",), ("otp",), ("key", "otp"), ("secret", "otp")], ids="+".join)
def test_half_a_pair_is_an_error_also_when_another_source_is_complete(
    sources: Sources, source: str, parts: tuple[str, ...]
) -> None:
    sources.add(source, parts)
    if source != "environment":
        sources.add("environment")
    error = sources.refused()
    assert "Incomplete credentials" in error.what
    assert error.remedy


def test_pair_split_over_two_sources_is_half_a_pair(sources: Sources) -> None:
    sources.add("named", ("key",))
    sources.add("environment", ("secret",))
    error = sources.refused()
    assert "KRAKEN_API_SECRET_FILE" in error.what


def test_half_a_pair_after_a_complete_one_is_not_looked_at(sources: Sources) -> None:
    sources.add("named")
    sources.add("environment", ("key",))
    _assert_from(sources.find(), "named")


def test_command_of_a_later_source_is_not_run(sources: Sources, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    sources.add("systemd")
    sources.account["key_command"] = (sys.executable, "-c", f"open({str(ran)!r}, 'w')")
    _assert_from(sources.find(), "systemd")
    assert not ran.exists()


def test_source_is_named_for_messages(sources: Sources) -> None:
    named = []
    for source in reversed(ORDER):
        sources.add(source)
        named.append(sources.find().source)
    assert len(set(named)) == len(ORDER)
    assert "KRAKEN_API_" in named[0]
    assert "[accounts.main]" in named[2]
    assert "CREDENTIALS_DIRECTORY" in named[4]


@each("environ", [{}, {"KRAKEN_API_KEY": "", "KRAKEN_API_SECRET": "", "CREDENTIALS_DIRECTORY": ""}])
def test_none_at_all_names_every_way_to_give_them(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        find(Config(), "main", environ)
    for way in ("KRAKEN_API_KEY", "KRAKEN_API_SECRET_FILE", "secret_file", "secret_command", "[accounts.main]", "demo"):
        assert way in caught.value.remedy


def test_empty_credentials_directory_leaves_the_search_going(sources: Sources, tmp_path: Path) -> None:
    sources.environ["CREDENTIALS_DIRECTORY"] = str(tmp_path / "nothing")
    sources.add("environment")
    _assert_from(sources.find(), "environment")


@each("account", ["a{b", "a}b", "a{0}", "{}", "%s"])
def test_any_account_name_is_searched_for_in_the_credentials_directory(account: str, tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    for part, text in _pair("systemd").items():
        (tmp_path / f"{account}.api-{part}").write_text(text)
    _assert_from(find(Config(), account, environ), "systemd")
    with pytest.raises(ConfigError, match="No API key"):
        find(Config(), account + "x", environ)


def test_unknown_account_gets_the_near_miss() -> None:
    with pytest.raises(ConfigError) as caught:
        find(Config(accounts={"main": Account(), "other": Account()}), "mian", {})
    assert caught.value.remedy == "Did you mean main?"


def test_account_has_its_own_sources(tmp_path: Path) -> None:
    accounts = {}
    for name in ("main", "other"):
        paths: dict[str, Any] = {f"{part}_file": _file(tmp_path / name / part, _pair(name)[part]) for part in PARTS}
        accounts[name] = Account(**paths)
    config = Config(accounts=accounts)
    _assert_from(find(config, "main", {}), "main")
    _assert_from(find(config, "other", {}), "other")


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
@pytest.mark.parametrize("source", ["files", "named"])
def test_file_that_only_we_can_read_is_taken(sources: Sources, tmp_path: Path, source: str, mode: int) -> None:
    sources.add(source)
    (tmp_path / source / "secret").chmod(mode)
    _assert_from(sources.find(), source)


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o604, 0o660, 0o620, 0o602, 0o601, 0o777])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("source", ["files", "named"])
def test_file_open_to_others_is_refused_with_the_remedy(
    sources: Sources, tmp_path: Path, source: str, part: str, mode: int
) -> None:
    sources.add(source)
    path = tmp_path / source / part
    path.chmod(mode)
    error = sources.refused()
    assert str(path) in error.what
    assert f"{mode:04o}" in error.what
    assert error.remedy.endswith(f"chmod 600 {path}")


def test_modes_in_the_credentials_directory_are_systemds(sources: Sources, tmp_path: Path) -> None:
    sources.add("systemd")
    for part in PARTS:
        (tmp_path / "systemd" / f"api-{part}").chmod(0o644)
    _assert_from(sources.find(), "systemd")


def _owned_by(monkeypatch: pytest.MonkeyPatch, owner: int, us: int) -> None:
    """Every opened file belongs to ``owner``, and we are ``us``."""
    fstat: Callable[[int], os.stat_result] = os.fstat

    def foreign(fd: int) -> os.stat_result:
        status = list(fstat(fd))
        status[4] = owner
        return os.stat_result(status)

    monkeypatch.setattr(os, "fstat", foreign)
    monkeypatch.setattr(os, "geteuid", lambda: us)


@pytest.mark.parametrize("source", ["files", "named"])
def test_file_of_somebody_else_is_refused(sources: Sources, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    sources.add(source)
    _owned_by(monkeypatch, 12345, 54321)
    error = sources.refused()
    assert "12345" in error.what
    assert "chown 54321" in error.remedy


def test_root_too_takes_no_file_of_somebody_else(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.add("files")
    _owned_by(monkeypatch, 12345, 0)
    assert "12345" in sources.refused().what


@pytest.mark.parametrize(("owner", "us"), [(54321, 54321), (0, 54321), (0, 0)])
def test_file_of_ours_or_of_root_is_taken(
    sources: Sources, monkeypatch: pytest.MonkeyPatch, owner: int, us: int
) -> None:
    sources.add("files")
    _owned_by(monkeypatch, owner, us)
    _assert_from(sources.find(), "files")


def _mounted_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file lies on a file system that is mounted read-only."""
    real = os.fstatvfs
    monkeypatch.setattr(os, "fstatvfs", lambda fd: SimpleNamespace(f_flag=real(fd).f_flag | os.ST_RDONLY))


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o444, 0o640, 0o644, 0o755])
@pytest.mark.parametrize("owner", [54321, 0])
@pytest.mark.parametrize("source", ["files", "named"])
def test_file_that_is_mounted_read_only_may_be_readable(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, owner: int, mode: int
) -> None:
    sources.add(source)
    for part in PARTS:
        (tmp_path / source / part).chmod(mode)
    _owned_by(monkeypatch, owner, 54321)
    _mounted_read_only(monkeypatch)
    _assert_from(sources.find(), source)


def test_file_that_is_mounted_below_run_secrets_may_be_readable(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by way of Kubernetes' links, and also where root, who we are, could change its mode for a while."""
    sources.add("files")
    directory = tmp_path / "files"
    (directory / "..2026").mkdir()
    (directory / "..data").symlink_to("..2026")
    for part in PARTS:
        (directory / part).rename(directory / "..2026" / part)
        (directory / "..2026" / part).chmod(0o444)
        (directory / part).symlink_to(f"..data/{part}")
    assert "chmod 600" in sources.refused().remedy
    monkeypatch.setattr(credentials, "SECRETS", f"{tmp_path.resolve()}/")
    _assert_from(sources.find(), "files")


@pytest.mark.parametrize("mode", [0o444, 0o440])
def test_file_of_root_may_be_readable_to_us(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    """We cannot close it, and if root did, we could not read it."""
    sources.add("files")
    (tmp_path / "files" / "secret").chmod(mode)
    _owned_by(monkeypatch, 0, 54321)
    _assert_from(sources.find(), "files")


@pytest.mark.parametrize("mode", [0o666, 0o464, 0o446, 0o622])
@pytest.mark.parametrize(("mounted", "remedy"), [(True, "0400"), (False, "chmod go-w")])
def test_file_to_which_others_may_write_is_refused_wherever_it_is(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool, remedy: str, mode: int
) -> None:
    sources.add("files")
    (tmp_path / "files" / "secret").chmod(mode)
    _owned_by(monkeypatch, 0, 54321)
    if mounted:
        _mounted_read_only(monkeypatch)
    error = sources.refused()
    assert f"{mode:04o}" in error.what
    assert remedy in error.remedy


def test_mounted_file_of_somebody_else_is_refused_with_a_remedy_for_mounts(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources.add("files")
    _owned_by(monkeypatch, 12345, 54321)
    _mounted_read_only(monkeypatch)
    assert "uid: 54321" in sources.refused().remedy


@pytest.mark.parametrize(
    ("source", "mode", "open_"),
    [("files", 0o440, True), ("files", 0o400, False), ("systemd", 0o440, False), ("systemd", 0o444, True)],
)
def test_files_that_others_may_read_are_known(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, mode: int, open_: bool
) -> None:
    sources.add(source)
    _mounted_read_only(monkeypatch)
    paths = sorted(str(path) for path in (tmp_path / source).iterdir())
    for path in paths:
        os.chmod(path, mode)
    assert readable_by_others(sources.find(), paths) == (paths if open_ else [])


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b" \t\r\n", b"A" * 4097, b"A" * 10_000_000, b"\xff\xfe\x00\x01", b"\x80" * 64],
    ids=["empty", "line feed", "blanks", "too long", "huge", "binary", "not UTF-8"],
)
@pytest.mark.parametrize("source", ["systemd", "files", "named"])
def test_file_that_holds_no_secret_is_refused_by_its_name(
    sources: Sources, tmp_path: Path, source: str, content: bytes
) -> None:
    sources.add(source)
    path = tmp_path / source / ("api-secret" if source == "systemd" else "secret")
    path.chmod(0o600)
    path.write_bytes(content)
    assert str(path) in sources.refused().what


@pytest.mark.parametrize("source", ["files", "named"])
def test_missing_file_is_an_error(sources: Sources, tmp_path: Path, source: str) -> None:
    sources.add(source)
    (tmp_path / source / "secret").unlink()
    error = sources.refused()
    assert str(tmp_path / source / "secret") in error.what
    assert "No such file" in error.why


@pytest.mark.parametrize("source", ["systemd", "files", "named"])
def test_directory_in_place_of_a_file_is_an_error(sources: Sources, tmp_path: Path, source: str) -> None:
    sources.add(source)
    path = tmp_path / source / ("api-key" if source == "systemd" else "key")
    path.unlink()
    path.mkdir()
    assert str(path) in sources.refused().what


def test_home_is_understood_in_paths(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources.add("files")
    monkeypatch.setenv("HOME", str(tmp_path))
    for part in PARTS:
        sources.account[f"{part}_file"] = f"~/files/{part}"
    _assert_from(sources.find(), "files")


def test_secret_that_is_no_base64_names_its_source_only(sources: Sources, tmp_path: Path) -> None:
    sources.add("files")
    (tmp_path / "files" / "secret").write_text("hunter2-hunter2")
    error = sources.refused()
    assert "[accounts.main]" in error.what
    assert "hunter2" not in "".join(traceback.format_exception(error))


# ------------------------------------------------------------------------------------------------ commands


def _commands(sources: Sources, secret_command: tuple[str, ...]) -> None:
    sources.account["key_command"] = _say(_pair("commands")["key"])
    sources.account["secret_command"] = secret_command


def test_command_is_an_argument_list_without_a_shell(sources: Sources) -> None:
    script = "import sys, base64; print(base64.b64encode(sys.argv[1].encode()).decode())"
    _commands(sources, (sys.executable, "-c", script, "$HOME; `id` | cat && *"))
    assert sources.find().secret == b"$HOME; `id` | cat && *"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (f"print({_pair('commands')['secret']!r}); raise SystemExit(3)", "exit status 3"),
        ("", "empty"),
        ("print()", "empty"),
        ("print('A' * 5000)", "too long"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "not text"),
    ],
    ids=["failing", "silent", "blank", "too long", "binary"],
)
def test_command_that_gives_no_secret_is_an_error(sources: Sources, script: str, said: str) -> None:
    _commands(sources, (sys.executable, "-c", script))
    error = sources.refused()
    assert error.what.startswith("secret_command")
    assert said in str(error)


@pytest.mark.parametrize("name", ["/nonexistent/program", "no-such-program-anywhere", "", "nul\0"])
def test_command_that_cannot_be_run_is_an_error(sources: Sources, name: str) -> None:
    _commands(sources, (name, "argument-that-may-be-secret"))
    error = sources.refused()
    assert error.what.startswith("secret_command")
    assert "argument-that-may-be-secret" not in str(error)


def test_command_that_does_not_answer_in_time_is_an_error(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "COMMAND_S", 0.25)
    sources.add("commands")
    sources.account["key_command"] = (sys.executable, "-c", "import signal; signal.pause()")  # asked first
    error = sources.refused()
    assert error.what.startswith("key_command")
    assert "0.25 s" in error.what


def test_commands_have_ten_seconds() -> None:
    assert credentials.COMMAND_S == 10.0


def test_command_reads_nothing_of_our_input(sources: Sources) -> None:
    script = "import sys, base64; print(base64.b64encode(b'<' + sys.stdin.buffer.read() + b'>').decode())"
    _commands(sources, (sys.executable, "-c", script))
    assert sources.find().secret == b"<>"


# ------------------------------------------------------------------------------------------------ mistakes

KRAKENS = base64.b64encode(bytes(range(64))).decode()  # of the length and form that Kraken's secrets have


@each(
    ("account", "environ"),
    [
        ({"secret_file": KRAKENS}, {}),
        ({"secret_command": (KRAKENS,)}, {}),
        ({}, {"KRAKEN_API_SECRET_FILE": KRAKENS}),
    ],
)
def test_secret_given_where_its_place_belongs_is_not_echoed(account: dict[str, Any], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        find(Config(accounts={"main": Account(**account)}), "main", environ)
    assert KRAKENS not in str(caught.value)
