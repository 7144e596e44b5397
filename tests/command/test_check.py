"""The installed `kraken-feed check`: every way to fail is produced by the exchange or the file system."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from kraken_feed.check.key_settings import ITEMS
from kraken_feed.simulator.access.key import READ_PERMISSIONS, ApiKey, Limits
from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import Done, Site, bare, finish, logged, run, site, start
from ..support.timeouts import TIMEOUT_S
from ..unit.check.test_machine_output_and_state import everything
from .test_proxy import HOST, proxied
from .test_secrets import Watched

ALL = ("openOrders", "ownTrades", "executions", "balances")
KEY_ITEMS = ("key", *ITEMS, "token")


class Checked:
    """What one check said."""

    def __init__(self, done: Done) -> None:
        assert done.err == "", done.err
        *self.results, self.verdict = done.lines
        self.code = done.code
        assert self.verdict["exit_code"] == done.code

    def __getitem__(self, item: str) -> dict[str, Any]:
        (result,) = [result for result in self.results if result["item"] == item]
        return result

    def statuses(self, *items: str) -> list[str]:
        return [self[item]["status"] for item in items]

    def failed(self) -> list[str]:
        return [result["item"] for result in self.results if result["status"] == "FAIL"]

    def warned(self) -> list[str]:
        return [result["item"] for result in self.results if result["status"] == "WARN"]


async def check(*arguments: str, env: Mapping[str, str]) -> Checked:
    return Checked(await run("check", *arguments, "--json", env=env))


def of(place: Site, key: ApiKey, **further: str) -> dict[str, str]:
    return place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret, **further)


# ------------------------------------------------------------------------------------------------ all well


async def test_a_right_key_for_every_channel_is_found_well_in_the_order_in_which_a_tail_needs_it(
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as place:
        key = place.exchange.add_key(limits=Limits(ip_allowlist=("127.0.0.0/8",)))
        found = await check(*ALL, "--output", str(tmp_path / "out.jsonl"), env=of(place, key))
    assert (found.failed(), found.warned(), found.code) == ([], [], 0)
    assert [result["item"] for result in found.results] == [
        "configuration", "output", "disk sync", "credentials", "state", "descriptors", "connects", "rest", "clock",
        "ws_v1", "ws_v2", *KEY_ITEMS, *ALL,
    ]  # fmt: skip
    assert found.verdict == {"verdict": "OK", "ok": 24, "warn": 0, "fail": 0, "skip": 0, "exit_code": 0}
    assert [found[channel]["channel"] for channel in ALL] == list(ALL)


async def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        before = everything(tmp_path)
        output = str(tmp_path / "out.jsonl")
        await check("openOrders", "--output", output, "--state", str(tmp_path / "state"), env=place.environment())
        assert everything(tmp_path) == before
        assert not place.exchange.peers


async def test_for_people_each_item_is_a_line_and_the_verdict_the_last(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("check", "openOrders", env=place.environment())
    lines = done.out.decode().splitlines()
    assert done.code == 0
    assert any(line.startswith(" OK   openOrders     live after") for line in lines)
    assert "WARN  addresses      The key works from every address." in lines
    assert lines[-1].startswith("WARN  1 warning (addresses), ")
    assert b"\x1b" not in done.out


@pytest.mark.parametrize("fmt", [(), ("--json",)])
async def test_no_secret_is_in_what_a_check_says(fmt: tuple[str, ...], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        key = place.exchange.add_key(otp="SENTINELotp")
        watched = Watched(place.exchange)
        echo = f"EGeneral:Permission denied {key.key} {key.secret}"
        place.inject(Fault("refuse_token", channel="ownTrades", text=echo, duration=1e9))
        done = await run("check", *ALL, "-v", *fmt, env=of(place, key, KRAKEN_API_OTP="SENTINELotp"))
    assert done.code == 77
    watched.assert_kept(done, key.secret, "SENTINELotp")
    assert f"…{key.key[-4:]}" in done.out.decode()


# ------------------------------------------------------------------------------------------------ configuration


async def test_a_configuration_that_is_wrong_is_said_and_everything_else_skipped(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.configure("[reconnect]\ninital_s = 1\n")
        found = await check("openOrders", env=place.environment())
    assert found["configuration"]["what"].endswith("unknown key reconnect.inital_s.")
    assert "Did you mean reconnect.initial_s?" in found["configuration"]["remedy"]
    assert found.statuses("credentials", "state", "descriptors", "connects", "rest", "clock") == ["SKIP"] * 6
    assert found.statuses(*KEY_ITEMS, "openOrders") == ["SKIP"] * 10
    assert found.code == 78


async def test_where_values_come_from_is_said(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        path = place.configure("[connection]\nsilence_s = 3.5\n", before='channels = ["balances"]')
        output = tmp_path / "x.jsonl"
        found = await check("--output", str(output), env=place.environment(XDG_STATE_HOME=str(tmp_path / "states")))
    origins = {value["key"]: value["from"] for value in found["configuration"]["facts"]["values"]}
    assert origins["connection.silence_s"] == origins["channels"] == str(path)
    assert origins["state.directory"] == "$XDG_STATE_HOME"
    name = f"main@{str(output).replace('/', '%')}.sqlite3"
    assert found["state"]["facts"]["path"] == str(tmp_path / "states" / "kraken-feed" / name)
    assert found["balances"]["status"] == "OK"


async def test_a_word_that_is_no_channel_is_a_mistake_in_the_command_line(tmp_path: Path) -> None:
    done = await run("check", "openorders", env=bare(tmp_path))
    assert (done.code, done.out) == (2, b"")
    assert "Did you mean openOrders?" in done.err


# ------------------------------------------------------------------------------------------------ credentials


async def test_without_a_key_the_network_is_looked_at_all_the_same(tmp_path: Path) -> None:
    async with site(tmp_path):
        env = bare(tmp_path) | {"KRAKEN_FEED_CONFIG": str(tmp_path / "config.toml")}
        found = await check("openOrders", env=env)
    assert (found.failed(), found.code) == (["credentials"], 78)
    assert found.statuses("rest", "clock", "ws_v1") == ["OK"] * 3
    assert found.statuses(*KEY_ITEMS, "openOrders") == ["SKIP"] * 10


async def test_the_files_of_a_key_are_named_with_their_modes(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        for name, text in (("key", place.exchange.key), ("secret", place.exchange.secret)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o600)
        env = bare(tmp_path) | {
            "KRAKEN_FEED_CONFIG": str(tmp_path / "config.toml"),
            "KRAKEN_API_KEY_FILE": str(tmp_path / "key"),
            "KRAKEN_API_SECRET_FILE": str(tmp_path / "secret"),
        }
        found = await check("openOrders", env=env)
        assert found["credentials"]["facts"]["files"] == {
            str(tmp_path / "key"): "0600",
            str(tmp_path / "secret"): "0600",
        }
        (tmp_path / "secret").chmod(0o640)
        found = await check("openOrders", env=env)
    assert found["credentials"]["status"] == "FAIL"
    assert "chmod 600" in found["credentials"]["remedy"]


@pytest.mark.parametrize(
    ("further", "says"),
    [({"KRAKEN_API_OTP": "123456"}, "authenticator"), ({"KRAKEN_API_SECRET": "c2VjcmV0"}, "The secret has 6 bytes")],
)
async def test_credentials_that_look_wrong_are_a_warning(further: dict[str, str], says: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        found = await check("openOrders", env=place.environment(**further))
    assert found["credentials"]["status"] == "WARN"
    assert says in found["credentials"]["why"]


async def test_a_wrong_secret_fails_the_key_with_77(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        other = place.exchange.add_key()
        found = await check("openOrders", env=place.environment(KRAKEN_API_SECRET=other.secret))
    assert (found.failed(), found.code) == (["key"], 77)
    assert "EAPI:Invalid signature" in found["key"]["what"]
    assert found.statuses(*ITEMS, "token", "openOrders") == ["SKIP"] * 9


# ------------------------------------------------------------------------------------------------ the key


@pytest.mark.parametrize("style", ["snake", "camel"])
async def test_whatever_is_odd_about_a_key_is_said_in_either_spelling(
    style: Literal["snake", "camel"], tmp_path: Path
) -> None:
    async with site(tmp_path) as place:
        place.exchange.world.key_info_style = style
        soon = int(place.server.now()) + 86400
        limits = Limits(valid_until=soon, query_from=soon - 999, nonce_window=5000)
        key = place.exchange.add_key(permissions=(*READ_PERMISSIONS, "withdraw-funds"), limits=limits)
        found = await check("openOrders", env=of(place, key))
    assert found.warned() == ["backfill", "rights", "expiry", "addresses", "nonce window"]
    assert "withdraw-funds" in found["rights"]["what"]
    assert found.code == 0


@pytest.mark.parametrize(
    ("missing", "channel", "failed", "warned"),
    [
        ("create-ws-token", "openOrders", ["permissions", "token"], []),
        ("query-open-trades", "openOrders", ["permissions", "openOrders"], []),
        ("query-closed-trades", "openOrders", [], ["backfill"]),
        ("query-closed-trades", "ownTrades", ["permissions", "ownTrades"], ["backfill"]),
        ("query-open-trades", "executions", ["permissions", "executions"], []),
        ("query-closed-trades", "executions", ["permissions", "executions"], ["backfill"]),
        ("query-funds", "balances", ["permissions", "balances"], []),
        ("query-ledger", "balances", [], ["backfill"]),
        ("query-funds", "openOrders", [], []),
    ],
)
async def test_a_missing_right_is_foretold_by_the_list_and_met_by_the_channel(
    missing: str, channel: str, failed: list[str], warned: list[str], tmp_path: Path
) -> None:
    async with site(tmp_path) as place:
        key = place.exchange.add_key(permissions=[right for right in READ_PERMISSIONS if right != missing])
        found = await check(channel, env=of(place, key))
    assert found.failed() == failed
    assert found.warned() == [*warned, "addresses"]
    assert found.code == (77 if failed else 0)


async def test_an_engine_in_maintenance_is_69(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.inject(Fault("maintenance", maintenance=600.0))
        found = await check("openOrders", env=place.environment())
    assert (found.failed(), found.code) == (["key"], 69)
    assert "EService:Unavailable" in found["key"]["why"]


# ------------------------------------------------------------------------------------------------ the clock


@pytest.mark.parametrize("ahead", [5, -60, 60, -600, 10_000_000])
async def test_a_wrong_clock_is_a_warning_and_the_key_is_tried(ahead: int, tmp_path: Path) -> None:
    """``ahead`` is Kraken's. A clock of ours that is ahead leaves no nonce of its own behind."""
    async with site(tmp_path) as place:
        place.exchange.world.clock_offset_s = ahead
        found = await check("openOrders", env=place.environment())
        nonce = place.exchange.keys[place.exchange.key].nonce
        kraken_ns = int((place.server.now() + ahead) * 1e9)
    assert (found["clock"]["status"], found["key"]["status"], found.code) == ("WARN", "OK", 0)
    assert ("behind" if ahead > 0 else "ahead of") in found["clock"]["what"]
    low, high = found["clock"]["facts"]["offset_s"]
    assert low <= -ahead <= high
    assert nonce <= kraken_ns + 2 * 10**9


# ------------------------------------------------------------------------------------------------ other programs


async def test_a_key_that_counts_higher_elsewhere_is_reported(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.exchange.keys[place.exchange.key].nonce = 2**62
        found = await check("openOrders", env=place.environment())
    assert found["key"]["status"] == "FAIL"
    assert found["other use"]["status"] == "WARN"
    assert found.statuses(*[item for item in ITEMS if item != "other use"]) == ["SKIP"] * (len(ITEMS) - 1)


async def test_what_is_too_many_accounts_for_the_budget_of_connects_is_a_warning(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.configure("[reconnect]\nbudget = 1\n")
        found = await check("openOrders", "balances", env=place.environment())
    assert found["connects"]["status"] == "WARN"
    assert "2 connects" in found["connects"]["what"]
    assert (found["descriptors"]["status"], found["disk sync"]["facts"]) == ("OK", {"method": "fdatasync"})


# ------------------------------------------------------------------------------------------------ the network


async def test_a_closed_port_fails_at_tcp_and_skips_what_needs_it(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment()
    found = await check("openOrders", env=env)
    assert (found.failed(), found.code) == (["rest", "ws_v1"], 69)
    assert [found[item]["facts"]["phase"] for item in ("rest", "ws_v1")] == ["TCP", "TCP"]
    assert found.statuses("clock", *KEY_ITEMS, "openOrders") == ["SKIP"] * 11


async def test_a_name_that_does_not_resolve_fails_at_dns(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        endpoints = f'[endpoints]\nrest = "{place.server.rest_url}"\nws_v1 = "wss://{HOST}"\n'
        (tmp_path / "config.toml").write_text(endpoints)
        found = await check("openOrders", "balances", env=place.environment())
    assert found["ws_v1"]["facts"]["phase"] == "DNS"
    assert found.statuses("rest", "key", "token") == ["OK"] * 3
    assert found["openOrders"]["what"] == "not checked: needs ws_v1"


async def test_an_upgrade_that_is_refused_fails_at_http(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.inject(Fault("upgrade_refused", status=403, duration=1e9))
        found = await check("openOrders", env=place.environment())
    assert (found.failed(), found["ws_v1"]["facts"]["phase"]) == (["ws_v1"], "HTTP")
    assert "HTTP 403" in found["ws_v1"]["why"]


async def test_tls_and_the_proxy_are_told_and_its_password_is_not(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (_, proxy, env):
        env |= {"HTTPS_PROXY": f"http://user:SENTINELpw@127.0.0.1:{proxy.port}"}
        done = await run("check", "openOrders", "--json", env=env)
    found = Checked(done)
    assert found.failed() == []
    for item in ("rest", "ws_v1"):
        assert found[item]["facts"]["tls"]["version"] == "TLSv1.3"
        assert found[item]["facts"]["tls"]["issuer"].startswith("trustme")
        assert f"through the proxy 127.0.0.1:{proxy.port} (HTTPS_PROXY)" in found[item]["what"]
    assert b"SENTINELpw" not in done.out
    assert set(proxy.asked) == {f"CONNECT {HOST}:443 HTTP/1.1"}


async def test_a_certificate_that_nobody_vouches_for_fails_at_tls(tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, proxy, env):
        del env["SSL_CERT_FILE"]
        found = await check("openOrders", env=env | {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"})
        assert server.exchange.connections == 0
    assert (found.failed(), found.code) == (["rest", "ws_v1"], 69)
    assert [found[item]["facts"]["phase"] for item in ("rest", "ws_v1")] == ["TLS", "TLS"]
    assert "SSL_CERT_FILE" in found["rest"]["remedy"]


async def test_a_proxy_that_is_not_there_is_named_by_its_variable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    async with proxied(tmp_path) as (_, _, env):
        found = await check("openOrders", env=env | {"ALL_PROXY": f"http://127.0.0.1:{port}"})
    assert found["rest"]["facts"]["phase"] == "TCP"
    assert "ALL_PROXY" in found["rest"]["remedy"]


@pytest.mark.parametrize("proxy", ["socks9://127.0.0.1:1", "http://127.0.0.1:port"])
async def test_a_proxy_that_cannot_be_used_is_78(proxy: str, tmp_path: Path) -> None:
    async with proxied(tmp_path) as (server, _, env):
        listener = f"socks9://127.0.0.1:{server.port}" if proxy.startswith("socks9") else proxy
        found = await check("openOrders", env=env | {"ALL_PROXY": listener})
    assert found.code == 78
    assert "ALL_PROXY" in found["rest"]["what"]


# ------------------------------------------------------------------------------------------------ output and state


async def test_an_output_that_cannot_be_written_is_74(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        found = await check("openOrders", "--output", str(tmp_path / "no" / "out.jsonl"), env=place.environment())
    assert (found.failed(), found.code) == (["output"], 74)
    assert "No such file" in found["output"]["why"]


async def test_a_torn_output_is_a_warning_and_stays_torn(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_bytes(b'{"a":1}\n{"b"')
    async with site(tmp_path) as place:
        found = await check("openOrders", "--output", str(tmp_path / "out.jsonl"), env=place.environment())
    assert found["output"]["status"] == "WARN"
    assert found["output"]["facts"]["torn"] == 4
    assert (tmp_path / "out.jsonl").read_bytes() == b'{"a":1}\n{"b"'


async def test_a_running_tail_is_told_and_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        state = str(tmp_path / "state")
        tail = await start("openOrders", "--state", state, env=place.environment())
        await logged(tail, "live")
        found = await check("openOrders", "--state", state, env=place.environment())
        assert found["state"]["status"] == "WARN"
        assert found["state"]["facts"]["pid"] == tail.pid
        assert found.code == 0
        place.inject(Fault("drop"))
        await logged(tail, "connection_lost")
        await logged(tail, "live")  # with the same key, whose last nonce was the check's
        tail.terminate()
        assert (await finish(tail)).code == 0
        found = await check("openOrders", "--state", state, env=place.environment())
    assert found["state"]["status"] == "OK"
    assert found["state"]["facts"]["saved"].endswith("Z")


async def test_the_nonces_go_on_where_the_state_ends(tmp_path: Path) -> None:
    """A clock that was ahead once must not refuse the key to the check when it does not to the tail."""
    from kraken_feed.state.checkpoint import Changes
    from kraken_feed.state.store import Store

    async with site(tmp_path) as place:
        ahead = int(place.server.now() * 1e9) + 365 * 86_400 * 10**9  # beyond what a check's few tries reach
        place.exchange.keys[place.exchange.key].nonce = ahead
        found = await check("openOrders", "--no-state", env=place.environment())
        assert "EAPI:Invalid nonce" in found["key"]["what"]
        assert "other program" in found["key"]["remedy"]
        store = Store.open(str(tmp_path / "state"), "main@stdout", 0).store
        store.save(Changes(nonce=ahead, saved_ns=ahead))
        store.close()
        found = await check("openOrders", "--state", str(tmp_path / "state"), env=place.environment())
    assert found.failed() == []


async def test_a_nonce_that_is_hours_behind_is_got_ahead_of_by_a_check(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.exchange.keys[place.exchange.key].nonce = int(place.server.now() * 1e9) + 2 * 3600 * 10**9
        found = await check("openOrders", "--no-state", env=place.environment())
    assert found.failed() == []


async def test_a_damaged_state_is_a_warning_and_one_that_cannot_be_made_is_78(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "main@stdout.sqlite3").write_bytes(b"no database" * 100)
    (tmp_path / "file").touch()
    async with site(tmp_path) as place:
        found = await check("openOrders", "--state", str(tmp_path / "state"), env=place.environment())
        assert found["state"]["status"] == "WARN"
        assert "damaged" in found["state"]["what"]
        found = await check("openOrders", "--state", str(tmp_path / "file" / "x"), env=place.environment())
    assert (found.failed(), found.code) == (["state"], 78)


# ------------------------------------------------------------------------------------------------ several accounts


async def test_each_account_is_checked_by_itself_and_one_that_fails_hides_no_other(tmp_path: Path) -> None:
    async with site(tmp_path, accounts=2) as place:
        tables = ""
        for name, account in zip(("desk", "fund"), place.exchange.accounts, strict=True):
            key = place.exchange.world.first_key(account)
            for part, text in (("key", key.key), ("secret", key.secret)):
                path = tmp_path / f"{name}-{part}"
                path.write_text(text if (name, part) != ("desk", "secret") else place.exchange.add_key().secret)
                path.chmod(0o600)
            tables += (
                f'[accounts.{name}]\nkey_file = "{tmp_path}/{name}-key"\nsecret_file = "{tmp_path}/{name}-secret"\n'
            )
        place.configure(tables, before='account = "desk"')
        found = await check("openOrders", "--account", "all", env=place.environment())
        people = await run("check", "openOrders", "--account", "all", env=place.environment())
        alone = await check("openOrders", "--account", "fund", env=place.environment())
    by_account = {(f["account"], f["item"]): f["status"] for f in found.results}
    assert by_account[None, "rest"] == "OK"
    assert [by_account[name, "key"] for name in ("desk", "fund")] == ["FAIL", "OK"]
    assert [by_account[name, "openOrders"] for name in ("desk", "fund")] == ["SKIP", "OK"]
    assert found.code == 77
    assert b"  key            desk: " in people.out
    assert alone.failed() == []
    assert {result["account"] for result in alone.results} == {None, "fund"}


# ------------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_a_check_at_once_and_not_with_0(number: signal.Signals, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.inject(Fault("rest_timeout", method="GetApiKeyInfo", duration=1e9))
        process = await start("check", "openOrders", env=place.environment(PYTHONUNBUFFERED="1"))
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            while b"ws_v1  " not in await process.stdout.readline():
                pass
            process.send_signal(number)
            await process.wait()
    assert process.returncode == -number


async def test_the_reader_of_a_check_may_have_enough(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    async with site(tmp_path) as place:
        process = await start("check", "openOrders", env=place.environment(), stdout=writer)
        os.close(writer)
        done = await finish(process)
    assert (done.code, done.err) == (0, "")
