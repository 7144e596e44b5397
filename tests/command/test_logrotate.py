"""The snippet for logrotate, with the real logrotate and the installed command."""

from __future__ import annotations

import asyncio
import grp
import gzip
import os
import pwd
import re
import subprocess
from pathlib import Path

from ..support.load import load
from ..support.repository import ROOT
from ..support.tools import tool

SNIPPET = (ROOT / "contrib" / "logrotate" / "kraken-feed").read_text()
SCRIPT = re.compile(r"(?<=postrotate\n).*?(?=\n *endscript)", re.S)


def adjusted(home: Path, script: str) -> Path:
    """The snippet for a directory and a user that exist here, and with a script that needs no systemd."""
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    text = SNIPPET.replace("/var/log/kraken-feed/", f"{home}/")
    text = text.replace("create 0640 kraken-feed kraken-feed", f"create 0640 {user} {group}")
    text = SCRIPT.sub(script, text)
    assert "kraken-feed kraken-feed" not in text
    path = home / "logrotate.conf"
    path.write_text(text)
    path.chmod(0o644)
    return path


def test_logrotate_has_nothing_to_say_against_the_snippet(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("{}\n")
    (tmp_path / "out.jsonl.torn").write_text("{\n")
    script = SCRIPT.search(SNIPPET)
    assert script is not None
    conf = adjusted(tmp_path, script[0])
    state = tmp_path / "logrotate.state"
    done = subprocess.run(
        [tool("logrotate"), "-d", "-f", "-s", state, conf], capture_output=True, text=True, check=True
    )
    said = done.stdout + done.stderr
    assert f"rotating log {tmp_path}/out.jsonl, log->rotateCount is 30" in said
    assert "systemctl kill --signal=HUP 'kraken-feed*.service'" in said
    assert ".torn" not in said
    assert not re.search(r"^(error|warning): (?!logrotate in debug mode)", said, re.M), said


async def test_logrotate_loses_no_line_of_a_running_command(tmp_path: Path) -> None:
    logrotate, path, rotations = tool("logrotate"), tmp_path / "out.jsonl", 4
    state = tmp_path / "logrotate.state"
    async with load(tmp_path, path, rate=100.0) as run:
        conf = adjusted(tmp_path, f"kill -HUP {run.process.pid}")
        for number in range(rotations):
            await run.until_published(200)
            process = await asyncio.create_subprocess_exec(logrotate, "-f", "-s", str(state), str(conf))
            assert await process.wait() == 0
            await run.until_said("output_reopened", number + 1)
        await run.until_published(200)
        # What logrotate renames next is compressed a rotation later: the command has left it by then.
        compressed = [tmp_path / f"out.jsonl.{number}.gz" for number in range(rotations, 1, -1)]
        plain = [tmp_path / "out.jsonl.1", path]
        before = [gzip.decompress(file.read_bytes()) for file in compressed]
        await run.calm(lambda: plain, sum(content.count(b"\n") for content in before))
        assert path.stat().st_mode & 0o777 == 0o640
        assert await run.end() == 0
        found = run.compare([*before, *(file.read_bytes() for file in plain)])
    assert all(before)
    assert found.published >= (rotations + 1) * 200
    assert found.good, found
