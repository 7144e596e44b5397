"""The configuration: the example is the defaults, what is unknown or wrong is refused by its path, secrets unechoed."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import tomllib
import traceback

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kraken_feed.config import schema
from kraken_feed.config.schema import (
    Account,
    Config,
    candidates,
    check_channels,
    check_url,
    is_loopback,
    listen_address,
    parse,
)
from kraken_feed.errors import ConfigError, UsageError
from kraken_feed.feed.backfill import RESERVE
from kraken_feed.transport.backoff import CallCounter

from ...support.cases import each
from ...support.examples import examples
from ...support.repository import ROOT

EXAMPLE = (ROOT / "config.example.toml").read_text()
TABLES = {field.name: field.type for field in msgspec.structs.fields(Config) if isinstance(field.type, type)}
STRUCTS = {name: kind for name, kind in TABLES.items() if issubclass(kind, msgspec.Struct)}
SECRET_KEYS = """key secret otp password passphrase token api_key api-key apiKey api_secret API_SECRET private_key
kraken_api_key KRAKEN_API_SECRET kraken_api_otp"""
SENTINEL = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="


def _parse(text: str) -> Config:
    return parse(text.encode(), "the file")


def _refused(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        _parse(text)
    assert "the file" in caught.value.what
    return caught.value


def _uncommented(text: str) -> str:
    """The example with the keys that it only mentions."""
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


# ------------------------------------------------------------------------------------------------ the example


def test_example_is_the_defaults() -> None:
    assert _parse(EXAMPLE) == msgspec.structs.replace(Config(), accounts={"main": Account()})


def test_example_without_its_comments_says_the_same() -> None:
    bare = "\n".join(re.sub(r"\s*#.*", "", line) for line in EXAMPLE.splitlines())
    assert _parse(bare) == _parse(EXAMPLE)


def test_example_names_every_key_of_every_table() -> None:
    tree = tomllib.loads(_uncommented(EXAMPLE))
    assert set(tree) == {field.name for field in msgspec.structs.fields(Config)}
    for name, struct in STRUCTS.items():
        assert list(tree[name]) == [field.name for field in msgspec.structs.fields(struct)]
    assert set(tree["accounts"]["main"]) == {field.name for field in msgspec.structs.fields(Account)}


def test_example_with_every_key_set_is_valid() -> None:
    account = _parse(_uncommented(EXAMPLE)).accounts["main"]
    assert all(getattr(account, field.name) for field in msgspec.structs.fields(Account))


def test_nothing_is_required() -> None:
    assert _parse("") == Config()
    assert _parse("# only a comment\n[connection]\n[reconnect]\n") == Config()


def test_channels_are_named_only_if_the_file_has_them() -> None:
    assert not Config().names_channels
    assert not parse(b"", "x").names_channels
    assert parse(b'channels = ["openOrders"]', "x").names_channels


def test_defaults_are_the_contracts() -> None:
    defaults = Config()
    assert defaults.channels == ("openOrders",)
    assert defaults.account == "main"
    assert defaults.endpoints.rest == "https://api.kraken.com"
    assert defaults.endpoints.ws_v1 == "wss://ws-auth.kraken.com"
    assert defaults.endpoints.ws_v2 == "wss://ws-auth.kraken.com/v2"
    assert msgspec.structs.astuple(defaults.connection) == (10.0, 5.0, 10.0, 33554432)
    assert msgspec.structs.astuple(defaults.reconnect) == (1.0, 60.0, 30.0, 100, 600.0, 0.0, 21600.0)
    assert msgspec.structs.astuple(defaults.backfill) == (True, 120.0, 90.0, 15, 0.33)
    assert (defaults.state.directory, defaults.metrics.listen) == ("", "")


# ------------------------------------------------------------------------------------------------ unknown keys


@each(
    ("text", "path", "meant"),
    [
        ('chanels = ["openOrders"]', "chanels", "channels"),
        ('Account = "main"', "Account", "account"),
        ("[conection]\nsilence_s = 1.0", "conection", "connection"),
        ("[connection]\nsilense_s = 1.0", "connection.silense_s", "connection.silence_s"),
        ("[reconnect]\nmax = 1.0", "reconnect.max", "reconnect.max_s"),
        ("reconnect.budgt = 1", "reconnect.budgt", "reconnect.budget"),
        ("[backfill]\nenable = true", "backfill.enable", "backfill.enabled"),
        ('[state]\ndirectry = "x"', "state.directry", "state.directory"),
        ('[metrics]\nlisten_ = ""', "metrics.listen_", "metrics.listen"),
        ('[endpoints]\nws_v3 = "wss://x"', "endpoints.ws_v3", "endpoints.ws_v"),
        ('[accounts.main]\nkeyfile = "x"', "accounts.main.keyfile", "accounts.main.key_file"),
        ('[accounts.other]\nsecret_cmd = ["x"]', "accounts.other.secret_cmd", "accounts.other.secret_command"),
    ],
)
def test_unknown_key_is_refused_by_its_path_with_the_near_miss(text: str, path: str, meant: str) -> None:
    error = _refused(text)
    assert re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.]*\w)", error.what)
    assert error.remedy.startswith(f"Did you mean {meant}")


def test_unknown_key_near_nothing_lists_what_is_known() -> None:
    error = _refused("[metrics]\nqqqqqq = 1")
    assert "metrics.qqqqqq" in error.what
    assert "listen" in error.remedy


@each("table", ["", "[accounts.main]\n", "[endpoints]\n", "[connection]\n"])
@each("key", SECRET_KEYS.split())
def test_secret_in_the_file_is_refused_without_echo(table: str, key: str) -> None:
    error = _refused(f'{table}{key} = "{SENTINEL}"')
    assert key in error.what
    assert "credentials must not be" in error.what
    assert "secret_file" in error.remedy
    assert "secret_command" in error.remedy
    _assert_silent(error, SENTINEL)


@each(
    "text",
    [
        f'[accounts.main]\nkey_filee = "{SENTINEL}"',
        f'[accounts]\nmain = "{SENTINEL}"',
        f'[accounts]\nsecret = "{SENTINEL}"',
        f'[accounts.main]\nsecret_command = "{SENTINEL}"',
        f'[accounts.main]\nsecret_file = ["{SENTINEL}"]',
        f'[accounts.main]\nsecret_file = {{ inline = "{SENTINEL}" }}',
        f'[connection]\nsilence_s = "{SENTINEL}"',
        f'accounts = "{SENTINEL}"',
        f'[accounts.main]\nsecret_file = "{SENTINEL}',
        f"[accounts.main]\nsecret_file = {SENTINEL}",
        f'api.secret = "{SENTINEL}"',
    ],
)
def test_value_of_what_is_wrong_is_never_echoed(text: str) -> None:
    _assert_silent(_refused(text), SENTINEL)


# ------------------------------------------------------------------------------------------------ wrong values


@each(
    ("text", "path"),
    [
        ('channels = "openOrders"', "channels"),
        ("channels = [1]", "channels"),
        ("account = 1", "account"),
        ('account = ""', "account"),
        ('account = "two words"', "account"),
        ('account = "main\\n"', "account"),
        ("account = '" + "a" * 65 + "'", "account"),
        ('accounts = "main"', "accounts"),
        ("[accounts.main]\nkey_file = 1", "key_file"),
        ('[accounts.main]\nkey_command = "op read"', "key_command"),
        ("[accounts.main]\nkey_command = []", "key_command"),
        ('connection = "x"', "connection"),
        ('[connection]\nsilence_s = "10"', "connection.silence_s"),
        ("[connection]\nsilence_s = true", "connection.silence_s"),
        ("[connection]\nsilence_s = 2026-11-20", "connection.silence_s"),
        ("[connection]\nmax_frame_bytes = 1.5", "connection.max_frame_bytes"),
        ("[connection]\nmax_frame_bytes = 0", "connection.max_frame_bytes"),
        ("[reconnect]\nbudget = 0", "reconnect.budget"),
        ("[reconnect]\nbudget = 2.5", "reconnect.budget"),
        ("[backfill]\nenabled = 1", "backfill.enabled"),
        ("[endpoints]\nrest = []", "endpoints.rest"),
    ],
)
def test_wrong_type_is_refused_by_its_path(text: str, path: str) -> None:
    assert path in _refused(text).what


def _numbers() -> list[tuple[str, str, bool]]:
    """Table, key of every number of seconds, and whether zero is one."""
    zero = {"max_outage_s", "refused_s", "overlap_s", "second_pass_s"}
    return [
        (table, field.name, field.name in zero)
        for table in ("connection", "reconnect", "backfill")
        for field in msgspec.structs.fields(STRUCTS[table])
        if isinstance(field.default, float)
    ]


@each(("table", "key", "zero"), _numbers())
def test_seconds_are_finite_and_not_negative(table: str, key: str, zero: bool) -> None:
    for wrong in ("-1.0", "-0.001", "-1", "inf", "-inf", "nan", "-nan", *(() if zero else ("0.0", "0", "-0.0"))):
        assert key in _refused(f"[{table}]\n{key} = {wrong}").what
    if zero:
        assert getattr(getattr(_parse(f"[{table}]\n{key} = 0"), table), key) == 0.0


@each(("table", "key", "zero"), _numbers())
def test_whole_seconds_are_seconds(table: str, key: str, zero: bool) -> None:
    value = getattr(getattr(_parse(f"[{table}]\n{key} = 30"), table), key)
    assert (value, type(value)) == (30.0, float)


def test_the_call_counter_has_room_for_the_dearest_call() -> None:
    least = parse(b"[backfill]\nrest_counter = 6", "here").backfill.rest_counter
    counter = CallCounter(least - 1, 0.33)
    assert counter.wait(2.0, RESERVE, 0.0) == 0.0
    with pytest.raises(ConfigError, match=r"backfill\.rest_counter"):
        parse(b"[backfill]\nrest_counter = 5", "here")


def test_first_span_is_no_longer_than_the_longest() -> None:
    assert "initial_s" in _refused("[reconnect]\ninitial_s = 61.0").what
    assert _parse("[reconnect]\ninitial_s = 60.0").reconnect.initial_s == 60.0


@each("content", [b"\xff", b"a =", b"a = 1\na = 2", b"= 1", b"[a", b"\x00", b"a = " + b"[" * 5000])
def test_what_is_no_toml_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError, match="the file is not TOML"):
        parse(content, "the file")


@settings(max_examples=examples(200))
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace")))
def test_any_file_is_a_configuration_or_refused(content: bytes) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(content, "the file"), Config)


@each(
    ("written", "line"),
    [
        ('"openOrders"', 'channels = ["openOrders"]'),
        ('"executions"', 'channels = ["executions"]'),
        ('"openorders, ownTrades"', 'channels = ["openOrders", "ownTrades"]'),
        ('"orders"', 'channels = ["openOrders"]'),
        ("5", 'channels = ["openOrders"]'),
        ("[1]", 'channels = ["openOrders"]'),
        ("{ openOrders = true }", 'channels = ["openOrders"]'),
    ],
)
def test_channels_that_are_no_list_get_the_line_to_write(written: str, line: str) -> None:
    remedy = _refused(f"channels = {written}").remedy
    assert remedy == f"Write it as a list: {line}."
    assert parse(line.encode(), "x").channels


def test_a_command_that_is_no_list_gets_a_command_as_the_remedy() -> None:
    error = _refused('[accounts.main]\nsecret_command = "pass show kraken"')
    assert error.remedy == 'Write it as a list: ["pass", "show", "kraken/key"].'


# ------------------------------------------------------------------------------------------------ channels, accounts


@each(
    ("given_", "meant"),
    [
        ("openorders", "openOrders"),
        ("OPENORDERS", "openOrders"),
        ("open_orders", "openOrders"),
        ("owntrades", "ownTrades"),
        ("execution", "executions"),
        ("balance", "balances"),
    ],
)
def test_channel_nearly_right_gets_the_suggestion(given_: str, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_channels([given_])
    assert given_ in caught.value.what
    assert caught.value.remedy == f"Did you mean {meant}?"
    error = _refused(f'channels = ["{given_}"]')
    assert (error.exit_code, error.remedy) == (78, f"Did you mean {meant}?")


def test_channels_are_kept_in_order_without_repeats() -> None:
    assert check_channels(["ownTrades", "openOrders", "ownTrades"]) == ("ownTrades", "openOrders")


def test_one_channel_at_least_is_needed() -> None:
    with pytest.raises(UsageError):
        check_channels([])
    assert "channels" in _refused("channels = []").what


def test_channels_are_the_four_of_the_contract() -> None:
    assert schema.CHANNELS == {"openOrders": "v1", "ownTrades": "v1", "executions": "v2", "balances": "v2"}


def test_account_needs_its_table_if_there_are_any() -> None:
    error = _refused('account = "mian"\n[accounts.main]')
    assert error.remedy == "Did you mean main?"
    assert _parse('account = "other"').account == "other"


# ------------------------------------------------------------------------------------------------ URLs

LOOPBACK = ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "127.255.255.254", "[::1]", "[0:0:0:0:0:0:0:1]"]
ELSEWHERE = [
    "api.kraken.com",
    "localhost.example.com",
    "127.0.0.1.example.com",
    "0.0.0.0",
    "128.0.0.1",
    "10.0.0.1",
    "[::]",
    "[::2]",
    "[fe80::1]",
    "localhost.",
    "2130706433",
    "0x7f.1",
]


@each("host", LOOPBACK)
def test_loopback_needs_no_tls(host: str) -> None:
    for url in (f"http://{host}", f"http://{host}:8080", f"http://{host}:8080/path"):
        check_url("rest", url, ("https", "http"))
        assert is_loopback(url)
    assert _parse(f'[endpoints]\nws_v1 = "ws://{host}:1/"').endpoints.ws_v1 == f"ws://{host}:1/"


@each("host", ELSEWHERE)
def test_elsewhere_tls_is_needed(host: str) -> None:
    assert not is_loopback(f"http://{host}")
    for key, scheme, secure in (("rest", "http", "https"), ("ws_v1", "ws", "wss"), ("ws_v2", "ws", "wss")):
        error = _refused(f'[endpoints]\n{key} = "{scheme}://{host}/"')
        assert f"endpoints.{key}" in error.what
        assert f"{secure}://" in error.remedy
        _parse(f'[endpoints]\n{key} = "{secure}://{host}/"')


@each(
    "url",
    [
        "",
        "api.kraken.com",
        "//api.kraken.com",
        "https:",
        "https://",
        "https:///path",
        "https://:443",
        "ftp://api.kraken.com",
        "file:///etc/passwd",
        "wss://api.kraken.com",
        "https://api.kraken.com:port",
        "https://api.kraken.com:99999",
        "https://[::1",
        "https://api.kraken.com/?a=b",
        "https://api.kraken.com/#a",
    ],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    assert "endpoints.rest" in _refused(f'[endpoints]\nrest = "{url}"').what


@each(
    "url",
    [
        "https://bob:hunter2@api.kraken.com",
        "https://hunter2@api.kraken.com",
        "https://:hunter2@api.kraken.com",
        "http://127.0.0.1:hunter2@evil.example",
        "https://bob:hunter2/x@api.kraken.com",
        "https://bob:hunter2@api.kraken.com:port",
        "https://bob:hunter2@ex\u2100mple.com",
        "https://bob:hunter2@[::1",
        "https:///bob:hunter2@api.kraken.com",
        "bob:hunter2@api.kraken.com",
        "http://bob:hunter2@api.kraken.com",
        "https://api.kraken.com/?password=hunter2",
        "https://api.kraken.com/#hunter2",
    ],
)
def test_user_and_password_in_a_url_are_refused_without_echo(url: str) -> None:
    error = _refused(f'[endpoints]\nrest = "{url}"')
    assert "endpoints.rest" in error.what
    assert "hunter2" not in str(error)


# ------------------------------------------------------------------------------------------------ where it is


@each(
    ("environ", "explicit", "paths"),
    [
        ({"KRAKEN_FEED_CONFIG": "/e", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, "/o", [("/o", True)]),
        ({"KRAKEN_FEED_CONFIG": "/e", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}, None, [("/e", True)]),
        (
            {"XDG_CONFIG_HOME": "/x", "HOME": "/h"},
            None,
            [("/x/kraken-feed/config.toml", False), ("/etc/kraken-feed/config.toml", False)],
        ),
        (
            {"KRAKEN_FEED_CONFIG": "", "XDG_CONFIG_HOME": "", "HOME": "/h"},
            None,
            [("/h/.config/kraken-feed/config.toml", False), ("/etc/kraken-feed/config.toml", False)],
        ),
        ({}, None, [("/etc/kraken-feed/config.toml", False)]),
    ],
)
def test_file_is_looked_for_in_the_contracts_order(
    environ: dict[str, str], explicit: str | None, paths: list[tuple[str, bool]]
) -> None:
    assert candidates(environ, explicit) == paths


def _assert_silent(error: ConfigError, secret: str) -> None:
    assert secret not in "".join(traceback.format_exception(error))


# ------------------------------------------------------------------------------------------------ metrics.listen


@each(
    ("listen", "address"),
    [
        ("127.0.0.1:9464", ("127.0.0.1", 9464)),
        ("127.1.2.3:0", ("127.1.2.3", 0)),
        ("localhost:9464", ("127.0.0.1", 9464)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_metrics_may_be_served_on_loopback(listen: str, address: tuple[str, int]) -> None:
    assert _parse(f'[metrics]\nlisten = "{listen}"').metrics.listen == listen
    assert listen_address(listen) == address


@each(
    "listen", ["0.0.0.0:9464", "[::]:9464", "10.0.0.1:9464", "example.org:9464", "127.0.0.1.example.org:1", "[::2]:1"]
)
def test_metrics_are_not_served_to_other_machines(listen: str) -> None:
    error = _refused(f'[metrics]\nlisten = "{listen}"')
    assert "metrics.listen" in error.what
    assert "reverse proxy" in error.remedy


@each(
    "listen",
    [
        "9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1", "::1:9464",
        "[::1]", "[::1:9464", "http://127.0.0.1:9464", "127.0.0.1:9464/metrics", "a@127.0.0.1:9464", "127.0.0.1:1?x",
        " ", "127.0.0.1: 9464",
    ],
)  # fmt: skip
def test_what_is_no_address_with_a_port_is_told_how_one_is_written(listen: str) -> None:
    error = _refused(f'[metrics]\nlisten = "{listen}"')
    assert "metrics.listen" in error.what
    assert "127.0.0.1:9464" in error.remedy


@given(st.text() | st.from_regex(r"[0-9:.\[\]a-z@%]{1,20}", fullmatch=True))
def test_whatever_is_accepted_to_listen_on_is_loopback(listen: str) -> None:
    with contextlib.suppress(ConfigError):
        host, port = listen_address(listen)
        assert ipaddress.ip_address(host).is_loopback
        assert 0 <= port <= 65535
