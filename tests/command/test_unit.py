"""The shipped unit: systemd's own programs judge it, and the command runs as it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kraken_feed
from kraken_feed import errors
from kraken_feed.errors import FeedError, UsageError
from kraken_feed.feed.feed import STOP_S
from kraken_feed.service.systemd import BEAT_S, EXTEND_S
from kraken_feed.service.units import FILES, PLACE, exec_word, hidden, installed_command, text

from ..support.cases import each
from ..support.installed import COMMAND, bare, finish, run, site
from ..support.repository import ROOT
from ..support.systemd import Systemd, Unit, fields, printed
from ..support.timeouts import TIMEOUT_S
from ..support.tools import tool

DOCUMENT = (ROOT / "docs" / "systemd.md").read_text()
PLACE_IN_DOCUMENT = "/opt/kraken-feed/bin/kraken-feed"
TRUE = "/bin/true"
UNIT = Unit(text("service", TRUE))


def seconds(span: str) -> float:
    return float(re.sub("(s|min)$", "", span)) * (60 if span.endswith("min") else 1)


def analyze(verb: str, *options: str) -> tuple[int, str]:
    """What ``systemd-analyze`` says, errors and all."""
    done = subprocess.run(
        [tool("systemd-analyze"), verb, *options],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, env={"LANG": "C.UTF-8"},
    )  # fmt: skip
    return done.returncode, done.stdout


def install(directory: Path, content: str) -> str:
    path = directory / "kraken-feed@.service"
    path.write_text(content)
    return str(path)


def systemd_version() -> int:
    found = re.match(r"systemd (\d+)", analyze("--version")[1])
    assert found
    return int(found[1])


# ------------------------------------------------------------------------------------------------ systemd's judgement


def test_systemd_finds_nothing_to_say_about_the_unit(tmp_path: Path) -> None:
    path = install(tmp_path, printed("--exec", TRUE))
    assert analyze("verify", "--man=no", path) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("RestartSec=", "RestartSecs="), (TRUE, "/nowhere/kraken-feed"), ("UMask=0027", "UMask=0999")],
)
def test_systemd_would_say_what_is_wrong(right: str, wrong: str, tmp_path: Path) -> None:
    path = install(tmp_path, printed("--exec", TRUE).replace(right, wrong))
    assert analyze("verify", "--man=no", path)[1] != ""


def exposure(tmp_path: Path, content: str) -> tuple[int, float]:
    path = install(tmp_path, content)
    code, said = analyze("security", "--no-pager", "--offline=true", "--threshold=15", path)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return code, float(found[1])


def test_the_exposure_is_small_and_as_documented(tmp_path: Path) -> None:
    code, level = exposure(tmp_path, printed("--exec", TRUE))
    assert code == 0
    assert level <= 1.5
    if systemd_version() == 252:
        assert f"exposure level of {level}" in DOCUMENT


def test_the_exposure_would_be_too_large_without_the_filter_of_system_calls(tmp_path: Path) -> None:
    code, level = exposure(tmp_path, re.sub(r"^SystemCallFilter=.*\n", "", printed("--exec", TRUE), flags=re.M))
    assert code != 0
    assert level > 1.5


def test_systemd_understands_the_drop_in_or_is_too_old_for_it(tmp_path: Path) -> None:
    path = install(tmp_path, printed("--exec", TRUE))
    (tmp_path / "kraken-feed@.service.d").mkdir()
    (tmp_path / "kraken-feed@.service.d" / "restart.conf").write_text(printed("drop-in"))
    code, said = analyze("verify", "--man=no", path)
    assert code == 0
    unknown = [line for line in said.splitlines() if not re.search("Unknown key.*Restart(Steps|MaxDelaySec)", line)]
    assert unknown == []
    assert (said == "") == (systemd_version() >= 254)


def test_sysusers_makes_the_user_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "kraken-feed.conf").write_text(printed("sysusers"))
    done = subprocess.run(
        [tool("systemd-sysusers"), f"--root={tmp_path}", "--dry-run", str(tmp_path / "kraken-feed.conf")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S, env={"LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0
    assert f"Creating user '{UNIT.one('User')}'" in done.stdout
    assert f"Creating group '{UNIT.one('Group')}'" in done.stdout


@pytest.mark.parametrize("name", ["with blank", "100%u %i", "$HOME", "é", "semi;colon", "#"])
def test_a_command_at_an_odd_path_is_named_so_that_systemd_finds_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    command = tmp_path / name / "kraken-feed"
    command.symlink_to(TRUE)
    assert analyze("verify", "--man=no", install(tmp_path, printed("--exec", str(command)))) == (0, "")


# ------------------------------------------------------------------------------------------------ what is documented


@pytest.mark.parametrize("settings", re.findall(r"```ini\n(.*?)```", DOCUMENT, re.S))
def test_systemd_understands_the_drop_ins_of_the_document(settings: str, tmp_path: Path) -> None:
    path = install(tmp_path, printed("--exec", TRUE))
    (tmp_path / "kraken-feed@.service.d").mkdir()
    (tmp_path / "kraken-feed@.service.d" / "override.conf").write_text(settings.replace(PLACE_IN_DOCUMENT, TRUE))
    assert analyze("verify", "--man=no", path) == (0, "")


def test_the_document_makes_the_files_that_the_unit_loads() -> None:
    for entry in UNIT.all("LoadCredential"):
        path = entry.partition(":")[2].replace("%i", "main")
        assert f"install -m 600 /dev/stdin {path} " in DOCUMENT


def test_the_document_prints_files_that_there_are() -> None:
    named = re.findall(rf"{PLACE_IN_DOCUMENT} unit ?([a-z-]*) \| sudo tee (\S+)", DOCUMENT)
    assert {file or "service" for file, _ in named} == set(FILES)
    for file, place in named:
        assert file == "" or place in text(file, TRUE).partition("\n")[0]


# ------------------------------------------------------------------------------------------------ what the unit says


def test_a_restart_is_tried_for_the_exit_codes_that_it_may_mend_and_no_other() -> None:
    final = (errors.UsageError, errors.ConfigError, errors.CredentialsRefused, errors.StateHeld)
    mendable = (FeedError, errors.OutputFailed, errors.StateFailed, errors.OutageTooLong, errors.RequestRefused)
    prevented = {int(code) for code in UNIT.one("RestartPreventExitStatus").split()}
    assert prevented == {error.exit_code for error in final}
    assert not prevented & {error.exit_code for error in mendable}


def test_no_core_is_left_behind_in_which_the_credentials_would_be() -> None:
    assert UNIT.one("LimitCORE") == "0"


def test_the_spans_of_the_unit_leave_room_for_those_of_the_program() -> None:
    assert seconds(UNIT.one("TimeoutStartSec")) > 2 * EXTEND_S
    assert seconds(UNIT.one("TimeoutStopSec")) > 2 * STOP_S
    assert seconds(UNIT.one("WatchdogSec")) > 2 * BEAT_S


def test_restarts_alone_stay_below_the_number_of_connects_that_kraken_bans() -> None:
    """Two endpoints, and each start has a fresh budget."""
    assert 2 * 600 / seconds(UNIT.one("RestartSec")) < 150


# ------------------------------------------------------------------------------------------------ the command


async def test_the_unit_runs_the_command_that_printed_it(tmp_path: Path) -> None:
    done = await run("unit", env=bare(tmp_path))
    assert done.code == 0
    assert Unit(done.out.decode()).one("ExecStart").split()[0] == COMMAND
    assert PLACE not in done.out.decode()


@pytest.mark.parametrize("file", FILES)
async def test_every_shipped_file_is_printed_as_it_is(file: str, tmp_path: Path) -> None:
    done = await run("unit", file, "--exec", PLACE.replace("@", "/"), env=bare(tmp_path))
    shipped = (Path(kraken_feed.__file__).parent / "service" / "unit" / FILES[file]).read_text()
    assert done.code == 0
    assert done.err == ""
    assert done.out.decode() == shipped.replace(PLACE, PLACE.replace("@", "/"))


def test_nothing_is_shipped_that_is_not_printed() -> None:
    folder = Path(kraken_feed.__file__).parent / "service" / "unit"
    assert {path.name for path in folder.iterdir()} == set(FILES.values())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["servise"], "invalid choice"),
        (["--exec", "kraken-feed"], "systemd would not run"),
        (["--exec", "/a\nb"], "systemd would not run"),
    ],
)
async def test_a_mistake_prints_nothing_and_exits_2(arguments: list[str], says: str, tmp_path: Path) -> None:
    done = await run("unit", *arguments, env=bare(tmp_path))
    assert done.code == 2
    assert done.out == b""
    assert says in done.err


async def test_a_command_that_the_service_would_not_see_is_warned_of(tmp_path: Path) -> None:
    done = await run("unit", "--exec", "/home/somebody/bin/kraken-feed", env=bare(tmp_path))
    assert done.code == 0
    assert "cannot run /home/somebody/bin/kraken-feed" in done.err
    assert Unit(done.out.decode()).one("ProtectHome") == "yes"


def test_a_link_into_a_home_directory_is_seen_through(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/home/somebody/python")
    assert hidden("/opt/kraken-feed/bin/kraken-feed") is None
    assert hidden("/opt/kraken-feed/bin/kraken-feed", str(link)) in ("/home/somebody/python", str(link))


@each("path", ["", "relative", "./x", "/a\0b", "/a\nb", "/a\tb", "/\udcff", '/q"', "/it's", "/back\\slash"])
def test_a_path_that_systemd_would_not_take_is_a_usage_error(path: str) -> None:
    with pytest.raises(UsageError):
        exec_word(path)


def test_the_installed_command_is_found_however_it_was_started() -> None:
    assert installed_command() == COMMAND


# ------------------------------------------------------------------------------------------------ as the unit says


@pytest.mark.parametrize("without", [(), ("USER", "LOGNAME", "LANG", "INVOCATION_ID")])
async def test_the_service_runs_with_what_systemd_gives_it(without: tuple[str, ...], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        with contextlib.closing(Systemd(place)) as systemd:
            process = await systemd.start(without=without)
            await systemd.until("READY")
            process.terminate()
            done = await finish(process)
    assert done.code == 0
    assert done.out == b""
    assert [json.loads(line)["account"] for line in systemd.output.read_bytes().splitlines()] != []
    assert systemd.output.stat().st_mode & 0o777 == 0o640
    kept = list((tmp_path / "state").iterdir())
    assert kept != []
    assert all(path.stat().st_mode & 0o007 == 0 for path in kept)
    assert set(os.listdir(tmp_path)) == {"config.toml", "credentials", "logs", "notify", "state"}


MDWE = """
import ctypes, mmap, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, PR_SET_NO_NEW_PRIVS = 65, 1, 38
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
if libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
    sys.exit(99)
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    os.execv(sys.argv[1], sys.argv[1:])
"""


async def test_the_service_needs_no_memory_that_is_writable_and_executable(tmp_path: Path) -> None:
    """What MemoryDenyWriteExecute= demands; the kernel's own switch stands in for systemd's filter."""
    async with site(tmp_path) as place:
        with contextlib.closing(Systemd(place)) as systemd:
            process = await systemd.start(sys.executable, "-c", MDWE)
            ready, ended = asyncio.create_task(systemd.until("READY")), asyncio.create_task(process.wait())
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
            if process.returncode == 99:
                ready.cancel()
                pytest.skip("the kernel has no PR_SET_MDWE (Linux 6.3)")
            await ready
            process.terminate()
            await systemd.until("STOPPING")
            done = await finish(process)
    assert done.code == 0
    assert fields(systemd.told, "READY", "STOPPING") == ["READY", "STOPPING"]
