"""The installed command in environments that are odd, but legitimate: closed descriptors, locales, readers that go."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kraken_feed.text import PLAIN

from ..support.examples import some
from ..support.installed import COMMAND, Done, bare, finish, logged, run, site, start
from ..support.tools import tool

# ------------------------------------------------------------------------------------------------ descriptors


async def closed(descriptors: str, *arguments: str, env: dict[str, str]) -> Done:
    """Run the command with some of its standard descriptors closed."""
    closing = " ".join(f"{descriptor}>&-" for descriptor in descriptors.split())
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", f'exec "$@" {closing}', "bash", COMMAND, *arguments,
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    return await finish(process)


@pytest.mark.parametrize("descriptors", ["0", "1", "0 1", "1 2", "0 1 2"])
async def test_descriptors_that_are_not_used_may_be_closed(descriptors: str, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    async with site(tmp_path) as place:
        done = await closed(descriptors, "openOrders", "--output", str(path), "--once", env=place.environment())
    assert done.code == 0, done.err
    assert done.out == b""
    written = [json.loads(line)["event_name"] for line in path.read_text().splitlines()]
    assert written[-1] == "feed.stopped"
    assert "feed.live" in written


@pytest.mark.parametrize(
    "arguments",
    [
        ["openOrders"],
        ["openOrders", "--output", "-"],
        ["openOrders", "--output", "/dev/stdout"],
        ["openOrders", "--output", "/dev/fd/1"],
        ["check", "--output", "out.jsonl"],
        ["token"],
        ["schema"],
    ],
)
async def test_a_closed_stdout_that_is_needed_is_told(arguments: list[str], tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        done = await closed("1", *arguments, env=place.environment())
        assert place.exchange.connections == 0
    assert done.code == 74
    assert "Stdout is closed." in done.err


# ------------------------------------------------------------------------------------------------ readers that go


@pytest.fixture(params=["fifo as stdout", "fifo as output", "socket"])
def reader_and_writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[int, int, str]]:
    """A reader with a name or at a socket, the descriptor of stdout, and the output."""
    if request.param == "socket":
        left, right = socket.socketpair()
        ends = left.detach(), right.detach(), "-"
    else:
        os.mkfifo(tmp_path / "fifo")
        reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        as_stdout = request.param == "fifo as stdout"
        writer = os.open(tmp_path / "fifo" if as_stdout else os.devnull, os.O_WRONLY)
        ends = reader, writer, "-" if as_stdout else str(tmp_path / "fifo")
    yield ends
    os.close(ends[1])


async def test_a_reader_with_a_name_or_at_a_socket_that_goes_is_74(
    reader_and_writer: tuple[int, int, str], tmp_path: Path
) -> None:
    reader, writer, output = reader_and_writer
    async with site(tmp_path, rate=50.0) as place:
        process = await start("openOrders", "--output", output, env=place.environment(), stdout=writer)
        await logged(process, "live")
        os.close(reader)
        done = await finish(process)
    assert done.code == 74
    (said,) = [line for line in done.log if line["event"] == "exit"]
    assert said["what"] == f"The reader of {'stdout' if output == '-' else output} has closed it."


async def test_a_reader_of_a_pipe_without_a_name_that_goes_is_0(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    async with site(tmp_path, rate=50.0) as place:
        process = await start("openOrders", env=place.environment(), stdout=writer)
        os.close(writer)
        await logged(process, "live")
        os.close(reader)
        assert (await finish(process)).code == 0


@pytest.mark.parametrize(("kind", "code"), [("pipe", 0), ("fifo", 74), ("socket", 74)])
def test_commands_that_print_tell_the_same_readers_apart(kind: str, code: int, tmp_path: Path) -> None:
    match kind:
        case "pipe":
            reader, writer = os.pipe()
        case "fifo":
            os.mkfifo(tmp_path / "fifo")
            reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
            writer = os.open(tmp_path / "fifo", os.O_WRONLY)
        case _:
            left, right = socket.socketpair()
            reader, writer = left.detach(), right.detach()
    os.close(reader)
    done = subprocess.run([COMMAND, "schema"], stdout=writer, stderr=subprocess.PIPE, env=bare(tmp_path), check=False)
    os.close(writer)
    assert done.returncode == code, done.stderr


# ------------------------------------------------------------------------------------------------ mounted secrets

MOUNT = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'


@pytest.mark.seeds
@pytest.mark.parametrize("mode", some([0o444, 0o440, 0o644]))
async def test_secrets_on_a_read_only_mount_are_accepted_and_check_warns(mode: int, tmp_path: Path) -> None:
    """Laid out as Kubernetes does it: links to links to the files."""
    data = tmp_path / "secrets" / "..2026_11_20"
    data.mkdir(parents=True)
    (tmp_path / "secrets" / "..data").symlink_to(data.name)
    private = ["--mount"] if os.geteuid() == 0 else ["--mount", "--user", "--map-root-user"]
    async with site(tmp_path) as place:
        env = place.environment()
        for name in ("KRAKEN_API_KEY", "KRAKEN_API_SECRET"):
            (data / name).write_text(env.pop(name))
            (data / name).chmod(mode)
            (tmp_path / "secrets" / name).symlink_to(f"..data/{name}")
            env[f"{name}_FILE"] = str(tmp_path / "secrets" / name)

        async def mounted(*arguments: str) -> Done:
            return await finish(
                await asyncio.create_subprocess_exec(
                    tool("unshare"), *private, "sh", "-c", MOUNT, "sh", str(tmp_path / "secrets"), COMMAND, *arguments,
                    env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                )
            )  # fmt: skip

        refused = await run("openOrders", "--once", env=env)
        tailed = await mounted("openOrders", "--once")
        checked = await mounted("check", "openOrders", "--json")
    assert refused.code == 78, "it is the mount that makes the difference"
    assert tailed.code == 0, tailed.err
    (found,) = [finding for finding in checked.lines if finding.get("item") == "credentials"]
    assert found["status"] == "WARN"
    assert "0400" in found["remedy"]


# ------------------------------------------------------------------------------------------------ locales

ASCII = {"PYTHONIOENCODING": "ascii"}
LOCALES = [
    ASCII,
    {"PYTHONIOENCODING": "latin-1"},
    {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"LC_ALL": "POSIX"},
]
SAYING = [
    (["--help"], 0),
    *(([command, "--help"], 0) for command in ("tail", "call", "check", "watch", "simulate", "unit")),
    (["--version"], 0),
    (["openÖrders"], 2),
    (["openOrders", "--configuration\u202e=…"], 2),
    (["openOrders", "--config", "/nowhere/…"], 78),
    (["check", "--config", "/nowhere/…"], 78),
    (["schema"], 0),
]


# In each locale one text of each kind (a help, a mistake, an error), and every text in the narrowest encoding.
EVERYWHERE = [
    (words, code)
    for words, code in SAYING
    if words in (["--help"], ["openÖrders"], ["check", "--config", "/nowhere/…"])
]
SAID = [
    *((locale, words, code) for words, code in EVERYWHERE for locale in LOCALES),
    *((ASCII, words, code) for words, code in SAYING if (words, code) not in EVERYWHERE),
]


@pytest.mark.seeds
@pytest.mark.parametrize(("locale", "arguments", "code"), some(SAID, first=2 * len(LOCALES)))
def test_help_and_messages_print_in_any_locale(
    locale: dict[str, str], arguments: list[str], code: int, tmp_path: Path
) -> None:
    done = subprocess.run([COMMAND, *arguments], env=bare(tmp_path) | locale, capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_a_terminal_gets_help_and_messages_in_its_own_encoding(encoding: str, tmp_path: Path) -> None:
    for arguments in (["--help"], ["openOrders", "--config", "/nowhere/…ö"]):
        master, slave = pty.openpty()
        env = bare(tmp_path) | {"PYTHONIOENCODING": encoding}
        subprocess.run([COMMAND, *arguments], env=env, stdin=slave, stdout=slave, stderr=slave, check=False)
        os.close(slave)
        shown = b""
        try:
            while block := os.read(master, 65536):
                shown += block
        except OSError:  # how a terminal ends
            pass
        os.close(master)
        text = shown.decode(encoding)
        assert "Traceback" not in text
        assert ("…" if encoding == "utf-8" else "...") in text


def test_what_cannot_be_encoded_is_spelled_or_escaped() -> None:
    assert "a…–é\u202e\udc80€".encode("latin-1", PLAIN) == b"a...-\xe9\\u202e\\udc80\\u20ac"
    assert "…".encode("utf-8", PLAIN).decode() == "…"


async def test_diagnostics_on_a_pipe_are_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    done = await run("openOrders", "--config", "/nowhere/ö", env=bare(tmp_path) | {"PYTHONIOENCODING": "latin-1"})
    assert "/nowhere/ö" in done.err
