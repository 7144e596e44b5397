"""Signals while the command is starting, at the import of one module or another: nothing waits, nothing is timed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.examples import some
from ..support.installed import COMMAND, bare, finish, logged, run, site, start
from ..support.on_terminal import on_terminal

# From the first import behind the handlers to those right before the event loop has its own.
MOMENTS = (
    "kraken_feed.cli.main",
    "argparse",
    "kraken_feed.cli.commands",
    "kraken_feed.config.schema",
    "httpx",
    "kraken_feed.service.run",
)

HOOK = """\
import os, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
        return None

sys.meta_path.insert(0, Hook())
"""


def signalled(home: Path, module: str, number: int) -> dict[str, str]:
    """The variables with which a process sends itself a signal when it begins to import ``module``."""
    (home / "hook").mkdir()
    (home / "hook" / "sitecustomize.py").write_text(HOOK.format(module=module, number=int(number)))
    return {"PYTHONPATH": str(home / "hook")}


@pytest.mark.seeds
@pytest.mark.parametrize("module", some([MOMENTS[0], *MOMENTS[:0:-1]], first=2))
async def test_a_rotation_during_the_start_ends_nothing(module: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment(**signalled(tmp_path, module, signal.SIGHUP))
        process = await start("openOrders", "--output", str(tmp_path / "out"), env=env)
        await logged(process, "nothing_to_reopen")
        await logged(process, "live")
        process.terminate()
        assert (await finish(process)).code == 0


async def test_a_rotation_during_the_start_counts_after_nohup_too(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment(**signalled(tmp_path, "kraken_feed.service.run", signal.SIGHUP))
        nohup = "import signal as s, os, sys; s.signal(s.SIGHUP, s.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", nohup, COMMAND, "openOrders", "--output", str(tmp_path / "out"),
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        await logged(process, "nothing_to_reopen")
        process.terminate()
        assert (await finish(process)).code == 0


async def test_a_hangup_during_the_start_ends_no_tail_that_writes_into_a_pipe(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment(**signalled(tmp_path, "kraken_feed.cli.main", signal.SIGHUP))
        process = await start("openOrders", env=env)
        await logged(process, "nothing_to_reopen")
        process.terminate()
        assert (await finish(process)).code == 0


@pytest.mark.parametrize("arguments", [["openOrders"], ["check"]])
async def test_a_terminal_that_closes_during_the_start_ends_the_command(arguments: list[str], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = place.environment(**signalled(tmp_path, "argparse", signal.SIGHUP), TERM="xterm")
        async with on_terminal(*arguments, env=env) as terminal:
            assert await terminal.process.wait() == -signal.SIGHUP
        assert place.exchange.connections == 0


@pytest.mark.parametrize("module", MOMENTS)
@pytest.mark.parametrize(
    ("number", "arguments", "code"),
    [
        (signal.SIGTERM, ["openOrders"], 0),
        (signal.SIGTERM, ["check"], -signal.SIGTERM),
        (signal.SIGINT, ["openOrders"], -signal.SIGINT),
    ],
)
async def test_a_stop_during_the_start_has_the_right_code_and_no_traceback(
    number: int, arguments: list[str], code: int, module: str, tmp_path: Path
) -> None:
    async with site(tmp_path) as place:
        done = await run(*arguments, env=place.environment(**signalled(tmp_path, module, number)))
        assert place.exchange.connections == 0
    assert (done.code, done.err, done.out) == (code, "", b"")


@pytest.mark.parametrize("module", ["kraken_feed.cli.main", "argparse"])
def test_a_question_for_the_state_during_the_start_kills_nothing(module: str, tmp_path: Path) -> None:
    env = bare(tmp_path) | signalled(tmp_path, module, signal.SIGUSR1)
    assert subprocess.run([COMMAND, "--help"], env=env, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("way", [[COMMAND], [sys.executable, "-m", "kraken_feed"]], ids=["script", "module"])
def test_nothing_is_loaded_before_the_signals_are_seen_to(way: list[str], tmp_path: Path) -> None:
    """But for the module that does it, and the standard library's ``signal``."""
    (tmp_path / "sitecustomize.py").write_text(
        "import signal, sys\nset_handler = signal.signal\n"
        "def first(number, handler):\n"
        "    sys.stderr.write(' '.join(sorted(name for name in sys.modules if name.startswith('kraken_feed'))))\n"
        "    signal.signal = set_handler\n    return set_handler(number, handler)\n"
        "signal.signal = first\n"
    )
    env = bare(tmp_path) | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*way, "--version"], env=env, capture_output=True, text=True, check=True)
    assert set(done.stderr.split()) - {"kraken_feed.__main__"} == {"kraken_feed", "kraken_feed.early"}


def test_what_the_parent_ignores_stays_ignored(tmp_path: Path) -> None:
    script = (
        "import signal, os, sys\nfor number in (signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)\n"
        "import kraken_feed.__main__\nos.kill(os.getpid(), signal.SIGHUP); os.kill(os.getpid(), signal.SIGINT)\n"
        "from kraken_feed import early\nprint(early.hung_up())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "False\n"
