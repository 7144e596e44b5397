"""Descriptors for many accounts: counted before anything is opened, raised to what the machine allows."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kraken_feed.errors import ConfigError
from kraken_feed.output import descriptors

from ..support.installed import COMMAND, QUICK, Done, finish, run, site
from ..support.timeouts import scaled

MANY = 200
PATIENT = QUICK.replace("ack_timeout_s = 1.0", "ack_timeout_s = 30.0").replace("silence_s = 2.5", "silence_s = 60.0")
LIMITED = (
    "import os, resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[2])))\n"
    "os.execv(sys.argv[3], sys.argv[3:])"
)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """The limits of this process, as the module sees and sets them."""
    now = {"soft": 1024, "hard": 4096}

    def setrlimit(_: int, limits: tuple[int, int]) -> None:
        if limits[0] == resource.RLIM_INFINITY or limits[0] > now.get("most", 1 << 30):
            raise ValueError
        now["soft"] = limits[0]

    monkeypatch.setattr(resource, "getrlimit", lambda _: (now["soft"], now["hard"]))
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    return now


@pytest.mark.parametrize(
    ("hard", "most", "raised"),
    [(4096, 1 << 30, 4096), (1024, 1 << 30, 1024), (resource.RLIM_INFINITY, 1 << 30, 1 << 20),
     (resource.RLIM_INFINITY, 20_000, 10240), (resource.RLIM_INFINITY, 512, 1024)],
)  # fmt: skip
def test_the_soft_limit_becomes_the_hard_one_or_as_much_as_the_system_takes(
    limit: dict[str, int], hard: int, most: int, raised: int
) -> None:
    limit |= {"hard": hard, "most": most}
    assert descriptors.raise_limit() == limit["soft"] == raised


@given(st.integers(2, 5000), st.integers(1, 2), st.booleans(), st.integers(64, 40_000))
def test_accounts_start_exactly_if_their_descriptors_suffice(
    accounts: int, endpoints: int, state: bool, allowed: int
) -> None:
    wanted = descriptors.needed(accounts, endpoints, state=state)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(descriptors, "limit_now", lambda: allowed)
        if wanted <= allowed:
            descriptors.require(accounts, endpoints, state=state)
        else:
            with pytest.raises(ConfigError, match=f"{accounts} accounts need {wanted} open files.* {allowed}"):
                descriptors.require(accounts, endpoints, state=state)


def test_a_single_account_is_never_counted(limit: dict[str, int]) -> None:
    limit["soft"] = 16
    descriptors.require(1, 2, state=True)


async def limited(soft: int, hard: int, *arguments: str, env: dict[str, str]) -> asyncio.subprocess.Process:
    """Start the command under limits of descriptors."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", LIMITED, str(soft), str(hard), COMMAND, *arguments,
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip


async def run_beyond_the_soft_limit(tmp_path: Path, accounts: int, soft: int) -> None:
    """All accounts go live at the first try, within the descriptors that were counted for them."""
    names = [f"a{number}" for number in range(accounts)]
    async with site(tmp_path, accounts=accounts) as place:
        place.configure(PATIENT + place.accounts(*names), 'account = "a0"')
        out, state = str(tmp_path / "out"), str(tmp_path / "state")
        command = ["openOrders", "--account", "all", "--output", out, "--state", state]
        process = await limited(soft, 4096, *command, env=place.environment())
        assert process.stderr is not None
        live, events, used = set[str](), set[str](), 0
        try:
            async with asyncio.timeout(scaled(300.0)):
                while len(live) < accounts and (line := await process.stderr.readline()):
                    if not line.startswith(b"{"):  # stacks of threads: on a slow machine a part may be overdue
                        continue
                    said = json.loads(line)
                    events.add(said["event"])
                    if said["event"] == "live":
                        live.add(said["account"])
            used = len(os.listdir(f"/proc/{process.pid}/fd"))
        finally:
            process.terminate()
        assert (await finish(process)).code == 0
        assert place.exchange.connections == accounts
    assert live == set(names)
    assert events - {"part_overdue", "part_recovered"} == {"first_start", "live"}
    assert soft < used <= descriptors.needed(accounts, 1, state=True)


async def test_forty_accounts_run_where_128_descriptors_are_the_soft_limit(tmp_path: Path) -> None:
    await run_beyond_the_soft_limit(tmp_path, 40, 128)


async def test_too_many_accounts_for_the_hard_limit_are_told_before_anything_is_opened(tmp_path: Path) -> None:
    names = [f"a{number}" for number in range(MANY)]
    async with site(tmp_path, accounts=MANY) as place:
        place.configure(PATIENT + place.accounts(*names), 'account = "a0"')
        state = ["--state", str(tmp_path / "state")]
        process = await limited(512, 1024, "openOrders", "--account", "all", *state, env=place.environment())
        done: Done = await finish(process)
        assert (place.exchange.connections, place.exchange.world.token_calls) == (0, 0)
    assert done.code == 78
    (said,) = done.log
    wanted = descriptors.needed(MANY, 1, state=True)
    assert said["what"] == f"200 accounts need {wanted} open files, but this process may have only 1024."
    assert str(wanted) in said["remedy"]
    assert not (tmp_path / "state").exists()


def test_two_hundred_accounts_without_a_state_fit_into_1024() -> None:
    assert descriptors.needed(MANY, 2, state=False) <= 1024


async def test_a_start_with_more_connects_than_the_budget_says_how_many_it_needs(tmp_path: Path) -> None:
    async with site(tmp_path, accounts=3) as place:
        budget = QUICK.replace("budget = 100000", "budget = 2\nwindow_s = 1.0")
        place.configure(budget + place.accounts("a", "b", "c"), 'account = "a"')
        done = await run("openOrders", "--account", "all", "--once", env=place.environment())
    assert done.code == 0, done.err
    (said,) = [entry for entry in done.log if entry["event"] == "too_many_connects"]
    assert (said["accounts"], said["needed"], said["allowed"], said["window_s"]) == (3, 3, 2, 1.0)
    assert said["all_begun_s"] == 1.0
