"""The installed command: arguments, mistakes, signals, pipes, exit codes."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import COMMAND, bare, finish, lines, logged, named, run, site, start
from ..support.timeouts import TIMEOUT_S

ALL = ("openOrders", "ownTrades", "executions", "balances")


def mode(path: Path, bits: int) -> Path:
    path.chmod(bits)
    return path


def full_pipe() -> tuple[int, int]:
    """A pipe that takes nothing more until somebody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


# -- mistakes: refused before anything is sent


@pytest.mark.parametrize(
    ("case", "code", "says"),
    [
        ("no credentials", 78, ["No API key for the account 'main'", "KRAKEN_API_KEY", "kraken-feed demo"]),
        ("half a pair", 78, ["Incomplete credentials", "KRAKEN_API_SECRET"]),
        ("a secret that is not base64", 78, ["not base64", "private key"]),
        ("an open secret file", 78, ["Other users can access", "(mode 0644)", "chmod 600"]),
        ("a secret in the configuration", 78, ["accounts.main.api_secret", "must not be", "secret_file"]),
        ("an unknown account", 78, ["'mian'", "Did you mean main?"]),
        ("an unknown key", 78, ["reconnect.inital_s", "Did you mean reconnect.initial_s?"]),
        ("a wrong type", 78, ["connection.silence_s", "Expected `float`"]),
        ("a negative time-out", 78, ["connection.ack_timeout_s", "> 0"]),
        ("an unknown channel in the file", 78, ["channels", "Did you mean openOrders?"]),
        ("http to a host", 78, ["endpoints.rest", "https://"]),
        ("ws to a host", 78, ["endpoints.ws_v2", "wss://"]),
        ("no TOML", 78, ["not TOML", "line 1"]),
        ("a missing file", 78, ["Cannot read the configuration", "No such file"]),
    ],
)
async def test_a_mistake_costs_no_call_and_names_the_remedy(
    case: str, code: int, says: list[str], tmp_path: Path
) -> None:
    async with site(tmp_path) as place:
        env, arguments = place.environment(), ["openOrders"]
        match case:
            case "no credentials":
                env = {name: value for name, value in env.items() if not name.startswith("KRAKEN_API")}
            case "half a pair":
                del env["KRAKEN_API_SECRET"]
            case "a secret that is not base64":
                env["KRAKEN_API_SECRET"] = "not*base64"
            case "an open secret file":
                for name in ("key", "secret"):
                    mode((tmp_path / name), 0o644) if (tmp_path / name).write_text("eA==") else None
                env |= {
                    "KRAKEN_API_KEY_FILE": str(tmp_path / "key"),
                    "KRAKEN_API_SECRET_FILE": str(tmp_path / "secret"),
                }
            case "a secret in the configuration":
                place.configure('[accounts.main]\napi_secret = "SENTINEL"\n')
            case "an unknown account":
                place.configure("[accounts.main]\n")
                arguments += ["--account", "mian"]
            case "an unknown key":
                place.configure("[reconnect]\ninital_s = 1.0\n")
            case "a wrong type":
                place.configure('[connection]\nsilence_s = "long"\n')
            case "a negative time-out":
                place.configure("[connection]\nack_timeout_s = -1\n")
            case "an unknown channel in the file":
                place.configure("", 'channels = ["openorders"]')
            case "http to a host":
                (tmp_path / "config.toml").write_text('[endpoints]\nrest = "http://api.example"\n')
            case "ws to a host":
                (tmp_path / "config.toml").write_text('[endpoints]\nws_v2 = "ws://api.example/v2"\n')
            case "no TOML":
                (tmp_path / "config.toml").write_text("{")
            case "a missing file":
                arguments += ["--config", str(tmp_path / "missing.toml")]
        done = await run(*arguments, env=env)
        assert done.code == code
        assert done.out == b""
        assert "Traceback" not in done.err
        assert "SENTINEL" not in done.err
        (entry,) = done.log
        said = " ".join((entry["what"], entry["why"], entry["remedy"]))
        for words in says:
            assert words in said
        assert (place.exchange.connections, place.exchange.world.token_calls) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["openorders"], 'There is no channel "openorders".\n  Did you mean openOrders?'),
        (["openOrders", "balancess"], "Did you mean balances?"),
        (["tokn"], "Did you mean token?"),
        (["openOrders", "--outptu", "x"], "Unknown: --outptu.\n  Did you mean --output?"),
        (["openOrders", "--format", "xml"], "invalid choice: 'xml'"),
        (["openOrders", "--count", "0"], "invalid positive integer value"),
        (["openOrders", "--duration", "-3"], "--duration"),
        (["openOrders", "--duration", "nan"], "is not a time"),
        (["openOrders", "-q", "-v"], "not allowed with"),
        (["openOrders", "--api-secret", "x"], "Unknown: --api-secret."),
    ],
)
async def test_a_usage_error_is_answered_in_plain_words_and_exits_2(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    done = await run(*arguments, env=bare(tmp_path))
    assert done.code == 2
    assert done.out == b""
    assert done.err.startswith("kraken-feed: ")
    assert says in done.err


# -- what Kraken refuses


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("wrong key", ["EAPI:Invalid key", "…", "the environment (KRAKEN_API_*)", "allow-list"]),
        ("wrong secret", ["EAPI:Invalid signature", "the API secret does not belong to the key"]),
        ("no token permission", ["EGeneral:Permission denied", "WebSocket interface", "Access WebSockets API"]),
        ("no channel permission", ["EGeneral:Permission denied", "query-open-trades", "openOrders"]),
        ("2FA without otp", ["2FA", "KRAKEN_API_OTP"]),
    ],
)
async def test_a_refused_key_exits_77_and_says_what_to_do(case: str, says: list[str], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment()
        match case:
            case "wrong key":
                env["KRAKEN_API_KEY"] = "K" * 56
            case "wrong secret":
                env["KRAKEN_API_SECRET"] = base64.b64encode(b"s" * 64).decode()
            case "no token permission":
                limited = place.exchange.add_key(permissions=("query-open-trades",))
                env |= {"KRAKEN_API_KEY": limited.key, "KRAKEN_API_SECRET": limited.secret}
            case "no channel permission":
                limited = place.exchange.add_key(permissions=("create-ws-token", "query-funds"))
                env |= {"KRAKEN_API_KEY": limited.key, "KRAKEN_API_SECRET": limited.secret}
            case "2FA without otp":
                limited = place.exchange.add_key(otp="sesame")
                env |= {"KRAKEN_API_KEY": limited.key, "KRAKEN_API_SECRET": limited.secret}
        done = await run("openOrders", env=env)
        assert done.code == 77
        entry = done.log[-1]
        said = " ".join((entry["what"], entry["why"], entry["remedy"]))
        for words in says:
            assert words in said
        assert env["KRAKEN_API_SECRET"] not in done.err
        assert env["KRAKEN_API_KEY"] not in done.err


async def test_a_key_with_2fa_and_its_password_is_accepted(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        limited = place.exchange.add_key(otp="sesame")
        credentials = {"KRAKEN_API_KEY": limited.key, "KRAKEN_API_SECRET": limited.secret, "KRAKEN_API_OTP": "sesame"}
        done = await run("openOrders", "--once", env=place.environment(**credentials))
        assert done.code == 0


# -- the small commands


async def test_token_prints_the_token_and_nothing_else(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("token", env=place.environment())
        as_json = await run("token", "--json", env=place.environment())
    assert (done.code, done.err) == (0, "")
    assert len(done.out.decode().strip()) >= 40
    assert done.out.count(b"\n") == 1
    assert as_json.lines[0].keys() == {"token", "expires"}
    assert as_json.lines[0]["expires"] == 900


async def test_token_reports_a_failure_that_passes_with_69(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.inject(Fault("http_502"))
        done = await run("token", env=place.environment())
    assert (done.code, done.out) == (69, b"")
    assert "HTTP 502" in done.log[0]["what"]


async def test_version_is_one_line(tmp_path: Path) -> None:
    done = await run("--version", env=bare(tmp_path))
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(b"kraken-feed ")
    assert done.out.count(b"\n") == 1


@pytest.mark.parametrize(
    "command", [[], ["tail"], ["call"], ["history"], ["token"], ["demo"], ["simulate"], ["schema"]]
)
async def test_help_fits_a_terminal(command: list[str], tmp_path: Path) -> None:
    done = await run(*command, "--help", env=bare(tmp_path))
    assert done.code == 0
    assert max(map(len, done.out.decode().splitlines())) <= 110
    if not command:
        assert b"examples:" in done.out


async def test_schema_is_valid_and_describes_what_the_demo_prints(tmp_path: Path) -> None:
    done = await run("schema", env=bare(tmp_path))
    schema = json.loads(done.out)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    demo = await run("demo", *ALL, "--count", "60", env=bare(tmp_path))
    assert demo.code == 0
    assert len(demo.lines) > 60
    for line in demo.lines:
        validator.validate(line)


async def test_simulate_serves_another_process(tmp_path: Path) -> None:
    exchange = await start("simulate", "--seed", "3", "--rate", "50", env=bare(tmp_path))
    assert exchange.stdout is not None
    ready: dict[str, Any] = json.loads(await exchange.stdout.readline())
    (tmp_path / "config.toml").write_text(
        f'[endpoints]\nrest = "{ready["rest"]}"\nws_v1 = "{ready["ws_v1"]}"\nws_v2 = "{ready["ws_v2"]}"\n'
    )
    env = {**bare(tmp_path), "KRAKEN_API_KEY": ready["key"], "KRAKEN_API_SECRET": ready["secret"]}
    done = await run(*ALL, "--count", "50", "--config", str(tmp_path / "config.toml"), env=env)
    assert done.code == 0
    exchange.terminate()
    assert (await finish(exchange)).code == 0


# -- the configuration's sources


async def test_the_channels_of_the_configuration_are_the_default(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.configure(before='channels = ["balances"]\naccount = "spare"\n[accounts.spare]')
        done = await run("--once", env=place.environment())
    assert {line["channel"] for line in done.lines} == {"balances"}
    assert {line["account"] for line in done.lines} == {"spare"}


async def test_credentials_come_from_systemd_before_the_environment(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        directory = tmp_path / "credentials"
        directory.mkdir()
        (directory / "api-key").write_text(place.exchange.key + "\n")
        (directory / "api-secret").write_text(place.exchange.secret + "\n")
        env = place.environment(CREDENTIALS_DIRECTORY=str(directory), KRAKEN_API_KEY="K" * 56)
        done = await run("openOrders", "--once", env=env)
    assert done.code == 0


# -- pipes


async def test_head_ends_the_tail_with_0(tmp_path: Path) -> None:
    async with site(tmp_path, rate=20.0) as place:
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"set -o pipefail; {COMMAND} openOrders | head -n 3", env=place.environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
    assert done.code == 0
    assert len(done.lines) == 3
    assert "Traceback" not in done.err


async def test_head_ends_the_tail_of_a_quiet_account_too(tmp_path: Path) -> None:
    async with site(tmp_path, rate=0.0, open_orders=3) as place:
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"set -o pipefail; {COMMAND} openOrders | head -n 3 >/dev/null", env=place.environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
    assert done.code == 0


async def test_a_closed_stdout_exits_74(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"exec {COMMAND} openOrders >&-", env=place.environment(),
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
        assert place.exchange.connections == 0
    assert done.code == 74
    assert "Stdout is closed" in done.err


@pytest.mark.parametrize("arguments", [["--output", "/dev/full"], []])
async def test_a_full_disk_exits_74(arguments: list[str], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        full = os.open("/dev/full", os.O_WRONLY)
        process = await start("openOrders", *arguments, env=place.environment(), stdout=full)
        os.close(full)
        done = await finish(process)
    assert done.code == 74
    assert "No space left on device" in done.log[-1]["why"]


async def test_a_stalled_reader_neither_stops_the_feed_nor_loses_a_line(tmp_path: Path) -> None:
    async with site(tmp_path, rate=0.0, open_orders=8000) as place:  # one snapshot fills every buffer on the way
        reader, writer = os.pipe()
        process = await start("openOrders", env=place.environment(), stdout=writer)
        os.close(writer)
        entry = await logged(process, "live")  # said while nobody reads stdout
        assert entry["level"] == "info"
        place.exchange.new_order(place.server.now())
        place.server.tick()
        process.send_signal(signal.SIGUSR1)
        state = await logged(process, "state")
        assert state["output"]["blocked"] is True
        assert state["output"]["pending_bytes"] < 16_000_000
        output = bytearray()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: output.extend(os.read(reader, 1 << 16)))
        async with asyncio.timeout(TIMEOUT_S):
            while b'"type":"update"' not in output:  # noqa: ASYNC110  # the bytes have no event
                await asyncio.sleep(0)
        process.terminate()
        assert (await finish(process)).code == 0
        loop.remove_reader(reader)
        while rest := os.read(reader, 1 << 16):
            output += rest
        os.close(reader)
    seen = [json.loads(line) for line in output.splitlines()]
    assert len([record for record in seen if record.get("type") == "snapshot"]) == 8000
    assert not any(record["event_name"] == "feed.lost" for record in seen)


async def test_the_state_is_told_without_waiting_for_a_stderr_that_nobody_reads(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        reader, writer = full_pipe()
        process = await start("openOrders", env=place.environment(), stderr=writer)
        os.close(writer)
        await lines(process, named("feed.live"))
        for _ in range(3):
            process.send_signal(signal.SIGUSR1)
        process.terminate()
        assert (await finish(process)).code == 0
        os.close(reader)


async def test_a_file_that_cannot_be_reopened_is_written_on(tmp_path: Path) -> None:
    async with site(tmp_path, rate=20.0) as place:
        home = tmp_path / "logs"
        home.mkdir()
        process = await start("openOrders", "--output", str(home / "out.jsonl"), env=place.environment())
        await logged(process, "live")
        home.rename(tmp_path / "moved")
        process.send_signal(signal.SIGHUP)
        await logged(process, "output_not_reopened")
        process.terminate()
        assert (await finish(process)).code == 0
    assert (tmp_path / "moved" / "out.jsonl").read_text().splitlines()[-1].count('"event_name":"feed.stopped"') == 1


async def test_a_fifo_without_a_reader_is_an_output_failure(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with site(tmp_path) as place:
        done = await run("openOrders", "--output", str(tmp_path / "fifo"), env=place.environment())
    assert done.code == 74
    assert "Cannot open the output file" in done.log[-1]["what"]


async def test_token_with_a_refused_key_exits_77_after_one_slow_retry(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("token", env=place.environment(KRAKEN_API_KEY="K" * 56))
        assert place.exchange.world.token_calls == 2
    assert done.code == 77
    assert "EAPI:Invalid key" in done.log[-1]["what"]


async def test_flags_may_stand_before_the_command(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await run("-q", "token", env=place.environment())
    assert done.code == 0


async def test_a_stderr_that_nobody_reads_does_not_stop_the_feed(tmp_path: Path) -> None:
    async with site(tmp_path, rate=200.0) as place:
        reader, writer = full_pipe()
        process = await start("openOrders", "-v", "--count", "300", env=place.environment(), stderr=writer)
        os.close(writer)
        done = await finish(process)
        os.close(reader)
    assert done.code == 0
    assert len([line for line in done.lines if "data" in line]) == 300


# -- signals


async def test_sigterm_writes_everything_and_exits_0(tmp_path: Path) -> None:
    async with site(tmp_path, rate=50.0) as place:
        process = await start("openOrders", "executions", env=place.environment())
        seen = await lines(process, named("feed.live"))
        process.send_signal(signal.SIGTERM)
        done = await finish(process)
    assert done.code == 0
    records = [*seen, *done.lines]
    assert [record["event_name"] for record in records[-2:]] == ["feed.stopped", "feed.stopped"]
    assert {record["reason"] for record in records[-2:]} == {"SIGTERM"}


EARLY = """
import os, signal, sys
class Signalled:
    def find_spec(self, name, path=None, target=None):
        if name == "kraken_feed.cli.commands":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, Signalled())
from kraken_feed.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("call", "cancel_all", "--live"), -signal.SIGTERM),
        (("-q", "--verbose", "call", "cancel_all", "--live"), -signal.SIGTERM),
        (("check",), -signal.SIGTERM),
        (("openOrders", "call"), 0),
        (("--account", "call", "openOrders"), 0),
    ],
)
def test_sigterm_while_it_starts_is_no_success_of_what_has_to_be_done_to_succeed(
    words: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, *words], env=bare(tmp_path), capture_output=True, check=False, timeout=TIMEOUT_S
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


async def test_sigint_dies_of_it_after_writing_everything(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        process = await start("openOrders", env=place.environment())
        await lines(process, named("feed.live"))
        process.send_signal(signal.SIGINT)
        done = await finish(process)
    assert done.code == -signal.SIGINT
    assert done.lines[-1]["event_name"] == "feed.stopped"
    assert "Traceback" not in done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(number: signal.Signals, tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=8000) as place:
        process = await start("openOrders", env=place.environment())
        await logged(process, "live")
        process.send_signal(number)  # nobody reads stdout: it waits for the reader
        await logged(process, "stopping")
        process.send_signal(number)
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == -number
        await finish(process)


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--no-state",), 74)])
async def test_sigterm_with_a_reader_that_never_reads_is_no_failure_if_the_next_run_makes_up_for_it(
    options: tuple[str, ...], code: int, tmp_path: Path
) -> None:
    async with site(tmp_path, open_orders=8000) as place:
        reader, writer = os.pipe()
        env = place.environment(STATE_DIRECTORY=str(tmp_path / "state"))
        process = await start("openOrders", *options, env=env, stdout=writer)
        os.close(writer)
        await logged(process, "live")
        process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            assert await process.wait() == code
        held = os.read(reader, 1 << 20)
        os.close(reader)
        assert held.endswith(b"}\n"), "no line is torn"
        assert len(held.splitlines()) < 8000
        if code == 0:
            done = await run("openOrders", "--count", "8000", env=env)
            assert done.code == 0
            assert len(done.named("order")) == 8000


async def test_sigterm_in_a_backoff_exits_0_at_once(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        place.configure("[reconnect]\ninitial_s = 3600.0\nmax_s = 3600.0\n")
        place.inject(Fault("upgrade_refused", duration=1e9))
        process = await start("openOrders", env=place.environment())
        await logged(process, "connection_failed")
        process.terminate()
        done = await finish(process)
    assert done.code == 0
    assert [line["event_name"] for line in done.lines] == ["feed.stopped"]


async def test_sighup_reopens_the_output_file(tmp_path: Path) -> None:
    async with site(tmp_path, rate=100.0) as place:
        path = tmp_path / "out.jsonl"
        process = await start("openOrders", "--output", str(path), "--count", "400", env=place.environment())
        await logged(process, "live")
        path.rename(tmp_path / "out.1")
        process.send_signal(signal.SIGHUP)
        await logged(process, "output_reopened")
        done = await finish(process)
    assert done.code == 0
    parts = (tmp_path / "out.1", path)
    records = [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]
    assert len([record for record in records if "data" in record]) == 400
    assert path.stat().st_mode & 0o777 == 0o640


async def test_sighup_before_the_file_is_open_changes_nothing(tmp_path: Path) -> None:
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    os.mkfifo(asked)
    os.mkfifo(answer)
    async with site(tmp_path) as place:
        command = json.dumps(["sh", "-c", f"echo > {asked}; cat {answer}"])
        secret = json.dumps(["echo", place.exchange.secret])
        place.configure(f"[accounts.main]\nkey_command = {command}\nsecret_command = {secret}\n")
        process = await start("openOrders", "--once", "--output", str(tmp_path / "out"), env=place.environment())
        await asyncio.to_thread(asked.read_text)
        process.send_signal(signal.SIGHUP)
        await asyncio.to_thread(answer.write_text, place.exchange.key)
        assert (await finish(process)).code == 0


async def test_sighup_without_a_file_changes_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        process = await start("openOrders", env=place.environment())
        await logged(process, "live")
        process.send_signal(signal.SIGHUP)
        await logged(process, "nothing_to_reopen")
        process.terminate()
        assert (await finish(process)).code == 0


async def test_sigusr1_tells_the_state_in_one_line_of_json(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        process = await start(*ALL, "--log-format", "json", env=place.environment())
        for _ in ALL:
            await logged(process, "live")
        process.send_signal(signal.SIGUSR1)
        state = await logged(process, "state")
        process.terminate()
        await finish(process)
    assert [connection["live"] for connection in state["connections"]] == [True, True]
    assert state["connections"][0]["sequences"] == {"openOrders": 1, "ownTrades": 1}
    assert state["output"]["pending_bytes"] == 0


# -- bad frames


@pytest.mark.parametrize("variant", ["not_json", "not_utf8", "other_shape", "nested"])
async def test_a_garbage_frame_is_an_unknown_record(variant: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        process = await start("openOrders", env=place.environment())
        await lines(process, named("feed.live"))
        place.inject(Fault("garbage_frame", variant=variant))
        (*_, record) = await lines(process, named("unknown"))
        process.terminate()
        done = await finish(process)
    assert ("data" in record) != ("data_base64" in record)
    assert done.code == 0
    assert "Traceback" not in done.err


async def test_a_frame_of_40_mib_is_a_named_failure_and_a_reconnect(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        process = await start("openOrders", env=place.environment())
        await lines(process, named("feed.live"))
        place.inject(Fault("big_frame", bytes=40 * 1024 * 1024))
        (*_, lost) = await lines(process, named("feed.lost"))
        await lines(process, named("feed.live"))
        process.terminate()
        assert (await finish(process)).code == 0
    assert lost["cause"] == "frame_too_big"


async def test_a_snapshot_of_10_000_orders_is_10_000_lines(tmp_path: Path) -> None:
    async with site(tmp_path, open_orders=10_000) as place:
        done = await run("openOrders", "executions", "--once", env=place.environment())
    assert done.code == 0
    for channel in ("openOrders", "executions"):
        orders = {line["order_id"] for line in done.lines if line["channel"] == channel and "order_id" in line}
        assert len(orders) >= 10_000


# -- looks


async def test_console_rows_are_asked_for_and_plain_on_a_pipe(tmp_path: Path) -> None:
    done = await run("demo", "--format", "console", "--count", "5", env=bare(tmp_path))
    date, heading, row = done.out.decode().splitlines()[:3]
    assert re.fullmatch(r"  \d{4}-\d\d-\d\d", date)
    assert heading.split()[-9:-6] == ["pair", "side", "type"]
    assert "\x1b" not in done.out.decode()
    assert "limit" in row


async def test_the_demo_needs_no_key_no_home_and_no_network(tmp_path: Path) -> None:
    env = {**bare(tmp_path), "https_proxy": "http://192.0.2.1:9", "http_proxy": "http://192.0.2.1:9"}
    done = await run("demo", "--count", "10", env={name: env[name] for name in env if name != "HOME"})
    assert done.code == 0
