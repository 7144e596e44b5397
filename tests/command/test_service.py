"""The installed command with the test in systemd's place: what it tells, in which order, and when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from kraken_feed.simulator.exchange import Refused
from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import Site, finish, logged, site, start
from ..support.systemd import Systemd, fields
from ..support.timeouts import TIMEOUT_S

WATCHDOG_S = 0.2
DOWN = Refused(503, {}, b"down")


@contextlib.asynccontextmanager
async def supervised(home: Path, watchdog: float | None = None, before: str = "") -> AsyncIterator[Systemd]:
    async with site(home) as place:
        with contextlib.closing(Systemd(place, watchdog)) as systemd:
            if before:
                place.configure(before=before)
            yield systemd


def written(systemd: Systemd) -> list[str]:
    """The names of the records on the output now."""
    return [json.loads(line)["event_name"] for line in systemd.output.read_bytes().splitlines()]


async def test_ready_is_said_after_every_channel_is_live_on_the_output(tmp_path: Path) -> None:
    channels = 'channels = ["openOrders", "ownTrades", "executions", "balances"]'
    async with supervised(tmp_path, before=channels) as systemd:
        process = await systemd.start()
        (first, *_, last) = await systemd.until("READY")
        assert written(systemd).count("feed.live") == 4
        process.terminate()
        await systemd.until("STOPPING")
        done = await finish(process)
    assert "EXTEND_TIMEOUT_USEC" in first
    assert first["STATUS"].startswith("connecting")
    assert last["STATUS"].startswith("live ")
    assert last["STATUS"].endswith("; output ok")
    assert done.code == 0


async def test_not_ready_and_more_time_while_the_exchange_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        up = systemd.place.exchange.connect
        monkeypatch.setattr(systemd.place.exchange, "connect", lambda dialect, now: DOWN)
        process = await systemd.start()
        seen = await systemd.until("STATUS", "after upgrade")
        for _ in range(10):
            seen += await systemd.until("EXTEND_TIMEOUT_USEC")
        assert fields(seen, "READY") == []
        monkeypatch.setattr(systemd.place.exchange, "connect", up)
        after = await systemd.until("READY")
        process.terminate()
        await finish(process)
    assert fields(after, "READY", "EXTEND_TIMEOUT_USEC")[-1] == "READY"


async def test_an_exchange_that_goes_down_does_not_stop_the_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        process = await systemd.start()
        await systemd.until("READY")
        monkeypatch.setattr(systemd.place.exchange, "connect", lambda dialect, now: DOWN)
        systemd.place.inject(Fault("drop", code=1001))
        await systemd.until("STATUS", "after upgrade")
        for _ in range(20):
            await systemd.until("WATCHDOG")
        process.terminate()
        done = await finish(process)
    assert fields(systemd.told, "READY", "STOPPING") in (["READY"], ["READY", "STOPPING"])
    assert done.code == 0


async def test_sighup_is_a_reload_with_a_beginning_and_an_end(tmp_path: Path) -> None:
    async with supervised(tmp_path) as systemd:
        process = await systemd.start()
        await systemd.until("READY")
        old = systemd.output.rename(tmp_path / "old.jsonl")
        process.send_signal(signal.SIGHUP)
        (*_, reloading) = await systemd.until("RELOADING")
        await systemd.until("READY")
        assert systemd.output.exists()
        process.terminate()
        (*_, stopping) = await systemd.until("STOPPING")
        done = await finish(process)
    assert reloading["MONOTONIC_USEC"].isdigit()
    assert stopping["STATUS"] == "stopping: SIGTERM"
    assert done.code == 0
    assert old.read_bytes().endswith(b"\n")
    assert fields(systemd.told, "READY", "RELOADING", "STOPPING") == ["READY", "RELOADING", "READY", "STOPPING"]


async def test_an_output_that_is_not_mounted_yet_is_waited_for_and_systemd_is_told(tmp_path: Path) -> None:
    async with supervised(tmp_path) as systemd:
        home = systemd.output.parent
        away = home.rename(tmp_path / "away")
        process = await systemd.start()
        (message, *_) = await systemd.until("STATUS", "waiting to start")
        assert "EXTEND_TIMEOUT_USEC" in message
        assert "Cannot open the output file" in message["STATUS"]
        away.rename(home)
        seen = await systemd.until("READY")
        assert "feed.live" in written(systemd)
        process.terminate()
        done = await finish(process)
    assert seen[-1]["STATUS"].startswith("live ")
    assert done.code == 0
    events = [entry["event"] for entry in done.log if entry["event"].startswith("start_")]
    assert events == ["start_held", "start_resumed"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, -signal.SIGINT)])
async def test_a_start_that_waits_tells_how_it_is_and_ends_when_it_is_asked_to(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "mount" / "out.jsonl"
    async with site(tmp_path) as place:
        place.configure('[metrics]\nlisten = "127.0.0.1:0"')
        process = await start("openOrders", "--output", str(output), env=place.environment())
        assert (await logged(process, "start_held"))["patience_s"] == 3600.0
        url = (await logged(process, "metrics_listening"))["url"]
        async with httpx.AsyncClient(trust_env=False) as client:
            ready, alive = await client.get(f"{url}/readyz"), await client.get(f"{url}/healthz")
            metrics = await client.get(f"{url}/metrics")
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGUSR1)
        state = await logged(process, "state")
        process.send_signal(number)
        done = await finish(process)
    assert (ready.status_code, alive.status_code, metrics.status_code) == (503, 200, 200)
    (reason,) = ready.json()["reasons"]
    assert reason["reason"].startswith("waiting to start: Cannot open the output file")
    assert "Cannot open the output file" in state["held"]
    assert done.code == code
    assert not output.parent.exists()


async def test_an_error_that_ends_the_service_is_a_stop_with_a_reason(tmp_path: Path) -> None:
    async with supervised(tmp_path) as systemd:
        place = systemd.place
        place.configure("[reconnect]\ninitial_s = 0.02\nmax_s = 0.05\nmax_outage_s = 0.3\n")
        place.inject(Fault("upgrade_refused", duration=1e6))
        process = await systemd.start()
        (*_, stopping) = await systemd.until("STOPPING")
        done = await finish(process)
    assert done.code == 69
    assert "max_outage_s" in stopping["STATUS"]


async def test_no_command_of_the_configuration_hears_of_systemd(tmp_path: Path) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        place, seen = systemd.place, tmp_path / "seen"
        command = ["sh", "-c", f"env > {seen}; echo {place.exchange.key}"]
        accounts = f"[accounts.main]\nkey_command = {json.dumps(command)}\n"
        place.configure(accounts + f'secret_command = ["echo", "{place.exchange.secret}"]\n')
        process = await systemd.start(without=("CREDENTIALS_DIRECTORY",))
        await systemd.until("READY")
        process.terminate()
        await finish(process)
    assert "STATE_DIRECTORY=" in seen.read_text()
    assert "NOTIFY_SOCKET" not in seen.read_text()
    assert "WATCHDOG" not in seen.read_text()


# Drivers: the command's own entry point, with a part of it broken.

FREEZE = """
import signal, socket, os, sys
from kraken_feed.cli.main import main
address = os.environ["NOTIFY_SOCKET"]
def freeze(number, frame):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(address + ".frozen")
        ours.sendto(b"X_FROZEN=1", address)
        ours.recv(1)  # blocks the loop until the test says so
        ours.sendto(b"X_THAWED=1", address)
signal.signal(signal.SIGUSR2, freeze)
main(sys.argv[1:])
"""

ABORT = """
import signal, socket, os, sys, threading
from kraken_feed.cli.main import main
address = os.environ["NOTIFY_SOCKET"]
def stuck_for_ever(number, frame):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.sendto(b"X_FROZEN=1", address)
    threading.Event().wait()
signal.signal(signal.SIGUSR2, stuck_for_ever)
main(sys.argv[1:])
"""

NO_CHECKPOINT = """
import sys, threading
from kraken_feed.feed import checkpointer as checkpointer; from kraken_feed.state import store
from kraken_feed.cli.main import main
checkpointer.SAVE_S = 0.05
write = store.tables.write
store.tables.write = lambda database, changes: threading.Event().wait() if changes.entries else write(database, changes)
main(sys.argv[1:])
"""


async def heartbeats(place: Site, count: int) -> None:
    """Wait until the exchange has sent so many more on the only connection."""
    (peer,) = place.exchange.peers
    sent, say = asyncio.Queue[bytes](), peer.say

    def noted(text: bytes, now: float) -> None:
        say(text, now)
        if text == peer.speak.heartbeat():
            sent.put_nowait(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer, "say", noted)
        async with asyncio.timeout(TIMEOUT_S):
            for _ in range(count):
                await sent.get()


async def test_a_stuck_event_loop_gives_no_sign_of_life(tmp_path: Path) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        process = await systemd.start(driver=FREEZE)
        await systemd.until("READY")
        await systemd.until("WATCHDOG")
        process.send_signal(signal.SIGUSR2)
        await systemd.until("X_FROZEN")
        await heartbeats(systemd.place, 2)  # they come once per second: signs of life are due many times meanwhile
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as thaw:
            thaw.sendto(b"1", str(systemd.place.home / "notify.frozen"))
        frozen = await systemd.until("X_THAWED")
        await systemd.until("WATCHDOG")
        process.terminate()
        done = await finish(process)
    assert frozen == [{"X_THAWED": "1"}]
    assert done.code == 0


async def test_a_part_that_is_overdue_gives_no_sign_of_life_and_is_named(tmp_path: Path) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        process = await systemd.start(driver=NO_CHECKPOINT)
        await systemd.until("STATUS", "stuck: checkpoint; ")
        stuck = [await systemd.message() for _ in range(5)]
        process.terminate()
        done = await finish(process)  # which a save that hangs does not keep from ending
    assert fields(stuck, "WATCHDOG", "READY", "EXTEND_TIMEOUT_USEC") == []
    assert all(message["STATUS"].startswith("stuck: checkpoint; ") for message in stuck)
    assert [entry["part"] for entry in done.log if entry["event"] == "part_overdue"] == ["checkpoint"]


async def test_the_watchdogs_signal_makes_the_service_say_where_it_is_stuck(tmp_path: Path) -> None:
    async with supervised(tmp_path, watchdog=WATCHDOG_S) as systemd:
        process = await systemd.start(driver=ABORT)
        await systemd.until("READY")
        process.send_signal(signal.SIGUSR2)
        await systemd.until("X_FROZEN")
        process.send_signal(signal.SIGABRT)
        done = await finish(process)
    assert done.code == -signal.SIGABRT
    assert "stuck_for_ever" in done.err
    assert systemd.place.exchange.secret not in done.err
