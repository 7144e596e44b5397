"""The command: one line when it is ready, exit codes, the ledger file."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from websockets.sync.client import connect

from kraken_feed.simulator.demo import CUT_S, demo_exchange
from kraken_feed.simulator.main import main
from tests.support.account import T0, Account, Tap, sign
from tests.support.timeouts import TIMEOUT_S

from ...support import installed
from ...support.cases import each

COMMAND = [sys.executable, "-m", "kraken_feed.simulator"]


def start(*options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_one_line_serves_and_ends_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with start("--seed", "5", "--rate", "0", "--open-orders", "2", "--ledger", str(ledger)) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert list(ready) == ["rest", "ws_v1", "ws_v2", "key", "secret", "pid"]
        assert ready["pid"] == process.pid
        with urllib.request.urlopen(f"{ready['rest']}/0/public/Time") as reply:
            assert json.load(reply)["error"] == []
        with connect(ready["ws_v2"]) as socket:
            assert json.loads(socket.recv())["channel"] == "status"
        process.send_signal(number)
        rest, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, rest, errors) == (0, "", "")
    records = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert sum(record["kind"] == "open" for record in records) == 5  # two open orders, three past trades


@each(("options", "text"), [((), "EGeneral:Permission denied"), (("--trading",), None)])
def test_only_keys_that_are_to_trade_may(options: tuple[str, ...], text: str | None) -> None:
    with start("--seed", "5", "--rate", "0", *options) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        body = b"nonce=1"
        path = "/0/private/GetWebSocketsToken"
        headers = {"API-Key": ready["key"], "API-Sign": sign(ready["secret"], path, "1", body)}
        with urllib.request.urlopen(urllib.request.Request(ready["rest"] + path, body, headers)) as reply:
            token = json.load(reply)["result"]["token"]
        with connect(ready["ws_v2"]) as socket:
            socket.recv()
            socket.send(json.dumps({"method": "cancel_all", "params": {"token": token}}))
            assert json.loads(socket.recv()).get("error") == text
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)


def test_a_quirk_moves_the_whole_clock() -> None:
    with start("--quirk", "clock_offset=3600", "--quirk", "short_pages") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['rest']}/0/public/Time") as reply:
            ahead = json.load(reply)["result"]["unixtime"] - time.time()
            date = parsedate_to_datetime(reply.headers["Date"]).timestamp() - time.time()
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    assert 3590 < ahead < 3610
    assert 3590 < date < 3610


def test_the_seed_repeats_the_keys() -> None:
    keys = []
    for _ in range(2):
        with start("--seed", "5") as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            keys.append((ready["key"], ready["secret"]))
            process.terminate()
            process.communicate(timeout=TIMEOUT_S)
    assert keys[0] == keys[1]


def test_several_accounts_are_listed_behind_the_first_ones_key(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    options = ("--seed", "5", "--rate", "0", "--open-orders", "1", "--accounts", "2", "--ledger", str(ledger))
    with start(*options) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
    assert list(ready) == ["rest", "ws_v1", "ws_v2", "key", "secret", "pid", "accounts"]
    first, second = ready["accounts"]
    assert first == {"key": ready["key"], "secret": ready["secret"]}
    assert second["key"] != first["key"]
    opened = [r for r in map(json.loads, ledger.read_text().splitlines()) if r["kind"] == "open"]
    assert [record.get("account") for record in opened] == [None] * 4 + [2] * 4


def test_a_bad_scenario_is_named_and_ends_with_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[[fault]]\nkind = "dorp"\nat = 1\n')
    assert main(["--scenario", str(path)]) == 78
    assert 'fault 1: unknown kind "dorp", did you mean "drop"?' in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    ["--rate=-1", "--rate=nan", "--rate=x", "--port=65536", "--port=x", "--seed=x", "--open-orders=-1", "--accounts=0"],
)
def test_impossible_numbers_are_refused_with_what_would_do(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main([option])
    assert refused.value.code == 2
    name, _, value = option.partition("=")
    assert f"argument {name}: '{value}' is not " in capsys.readouterr().err


def test_files_that_cannot_be_opened_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    for options in (["--tls", missing, missing], ["--tls", empty, empty], ["--ledger", missing / "ledger"]):
        assert main([str(option) for option in options]) == 1
        assert str(options[1]) in capsys.readouterr().err


def test_the_help_says_what_it_is_and_names_the_installed_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: kraken-feed simulate ")
    assert "simulation of Kraken" in text


def test_a_port_that_is_taken_ends_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    async def taken() -> int:
        listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            return await asyncio.to_thread(main_in_thread, port)

    def main_in_thread(port: int) -> int:
        done = subprocess.run([*COMMAND, "--port", str(port)], capture_output=True, text=True, check=False)
        assert "address already in use" in done.stderr.lower()
        return done.returncode

    assert asyncio.run(taken()) == 1


def test_importing_the_package_loads_nothing_else() -> None:
    code = (
        "import sys, kraken_feed.simulator; "
        "print([name for name in sys.modules if name in ('asyncio', 'msgspec', 'websockets')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_demo_is_lively_and_cut_off_once() -> None:
    exchange = demo_exchange(T0)
    token = Account(exchange).token(T0)
    tap = Tap(exchange, "v1", T0)
    tap.subscribe("openOrders", token, T0)
    assert len(exchange.book.open) == 5
    exchange.advance(T0 + CUT_S)
    assert tap.peer.closed
    assert len(tap.bytes()) > 10
    again = Tap(exchange, "v1", T0 + CUT_S + 1)
    exchange.advance(T0 + 15)
    assert not again.peer.closed


async def test_the_printed_configuration_points_the_command_at_the_exchange(tmp_path: Path) -> None:
    process = await installed.start(
        "simulate", "--config", "--permissions", "create-ws-token", env=installed.bare(tmp_path)
    )
    assert process.stdout is not None
    text = b""
    while b"secret_command" not in text:
        text += await process.stdout.readline()
    (tmp_path / "sim.toml").write_bytes(text)
    done = await installed.run(
        "openOrders", "--once", "--config", str(tmp_path / "sim.toml"), env=installed.bare(tmp_path)
    )
    process.terminate()
    await installed.finish(process)
    assert done.code == 77
    assert "permission" in done.err
