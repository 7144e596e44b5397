"""What the premises of a tail mean for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kraken_feed.check import machine
from kraken_feed.check.machine import (
    FULL_BYTES,
    GIB,
    OUTPUT_BYTES,
    STATE_BYTES,
    Kind,
    Output,
    Room,
    State,
    configuration,
)
from kraken_feed.check.report import CheckResult
from kraken_feed.config.schema import Config, parse
from kraken_feed.state.checkpoint import ChannelState, Checkpoint, Outage

from ...support.cases import each

NOW = 1_760_000_000_000_000_000
SECRET = "c2VjcmV0"


# ------------------------------------------------------------------------------------------------ configuration


def test_without_a_file_there_is_nothing_to_say() -> None:
    result = configuration(Config(), None, {})
    assert (result.status, result.what, result.why) == ("OK", "no file: the defaults", "")


def test_every_value_that_is_not_the_default_is_said_with_its_origin() -> None:
    toml = (
        b'channels = ["balances"]\n[connection]\nsilence_s = 20\nopen_timeout_s = 10.0\n[backfill]\nenabled = false\n'
    )
    given: dict[str, tuple[object, str]] = {"channels": (["ownTrades", "executions"], "the command line")}
    result = configuration(parse(toml, "/etc/x.toml"), "/etc/x.toml", given)
    assert result.why.splitlines() == [
        "channels = ownTrades, executions  (the command line)",
        "connection.silence_s = 20  (the file)",
        "backfill.enabled = false  (the file)",
    ]
    assert result.facts["values"] == [
        {"key": "channels", "value": ["ownTrades", "executions"], "from": "the command line"},
        {"key": "connection.silence_s", "value": 20.0, "from": "/etc/x.toml"},
        {"key": "backfill.enabled", "value": False, "from": "/etc/x.toml"},
    ]


def test_a_command_that_holds_a_secret_is_not_shown() -> None:
    toml = f'[accounts.main]\nkey_command = ["echo", "key"]\nsecret_command = ["echo", "{SECRET}"]\n'
    result = configuration(parse(toml.encode(), "x.toml"), "x.toml", {})
    assert "accounts.main = key_command, secret_command" in result.why
    assert SECRET not in result.why + str(result.facts)


# ------------------------------------------------------------------------------------------------ the network


@each(
    ("phase", "why", "says"),
    [
        ("DNS", "Name or service not known", "/etc/resolv.conf"),
        ("TCP", "Connection refused", "firewall"),
        ("TLS", "unable to get local issuer certificate", "SSL_CERT_FILE"),
        ("TLS", "certificate has expired", "date"),
        ("TLS", "certificate is not yet valid", "date"),
        ("TLS", "Hostname mismatch, certificate is not valid for 'x'", "captive portal"),
        ("TLS", "the connection was closed, or nothing was received", "closes TLS"),
        ("HTTP", "HTTP 502", "status.kraken.com"),
    ],
)
def test_each_way_to_fail_has_its_remedy(phase: str, why: str, says: str) -> None:
    result = machine.unreachable("rest", "api.kraken.com", phase, why)
    assert (result.status, result.exit_code, result.facts["phase"]) == ("FAIL", 69, phase)
    assert says in result.remedy
    assert why in result.why


def test_a_proxy_that_fails_is_named_by_its_variable() -> None:
    result = machine.unreachable("rest", "proxy:3128", "TCP", "Connection refused", proxy="HTTPS_PROXY")
    assert "HTTPS_PROXY" in result.why
    assert "HTTPS_PROXY" in result.remedy


# ------------------------------------------------------------------------------------------------ the places


def output(problem: str = "", *, made: bool = False, size: int = 10, torn: int = 0, **room: Any) -> CheckResult:
    kind: Kind = "missing" if made else "file"
    return machine.output(Output("out.jsonl", kind, problem, size, torn, Room(**{"free": 100 * GIB} | room)))


def state(*, saved_ns: int = NOW, outages: Sequence[str] = (), **facts: Any) -> CheckResult:
    room = Room(**{"free": 100 * GIB} | {key: facts.pop(key) for key in ("free", "more_files") if key in facts})
    channels = {str(n): ChannelState(outages=[Outage(name, NOW, "closed")]) for n, name in enumerate(outages)}
    checkpoint = Checkpoint(saved_ns=saved_ns, channels=channels)
    known: dict[str, Any] = {"exists": True, "checkpoint": checkpoint, "room": room} | facts
    return machine.state(State("state", "main.sqlite3", **known), NOW)


@each(
    ("result", "status"),
    [
        (output(), "OK"),
        (output(made=True, size=0), "OK"),
        (output(free=None), "OK"),
        (output(torn=3), "WARN"),
        (output(free=OUTPUT_BYTES - 1), "WARN"),
        (output(free=FULL_BYTES - 1), "FAIL"),
        (output(more_files=False), "OK"),
        (output(made=True, more_files=False), "FAIL"),
        (output("Permission denied"), "FAIL"),
    ],
)
def test_an_output_that_cannot_be_written_fails_and_one_that_soon_cannot_warns(
    result: CheckResult, status: str
) -> None:
    assert (result.status, result.exit_code) == (status, 74 if status == "FAIL" else 0)


@each(
    ("result", "status", "says"),
    [
        (state(), "OK", "last saved 0 s ago"),
        (state(saved_ns=NOW - 7200 * 10**9), "OK", "2 hours ago"),
        (state(saved_ns=NOW + 10**9), "OK", "0 s ago"),
        (state(outages=["openOrders"]), "OK", "1 outage to recover (openOrders)"),
        (state(outages=["openOrders", "balances", "openOrders"]), "OK", "3 outages to recover (openOrders, balances)"),
        (state(exists=False, saved_ns=0), "OK", "will be created"),
        (state(saved_ns=0), "OK", "empty"),
        (state(damaged=True, saved_ns=0), "WARN", "damaged"),
        (state(unread="No space", saved_ns=0), "WARN", "could not be read"),
        (state(free=STATE_BYTES - 1), "WARN", "are free"),
        (state(free=0), "FAIL", "full"),
        (state(exists=False, more_files=False), "FAIL", "full"),
    ],
)
def test_a_state_is_said_to_be_what_a_start_makes_of_it(result: CheckResult, status: str, says: str) -> None:
    assert (result.status, result.exit_code) == (status, 74 if status == "FAIL" else 0)
    assert says in result.what


def test_a_running_tail_is_a_warning_that_names_it() -> None:
    result = state(locked=True, pid="77")
    assert result.status == "WARN"
    assert "77" in result.what
    assert "exit code 75" in result.why
    assert state(locked=True).facts["pid"] is None
