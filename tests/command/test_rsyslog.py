"""The sample for rsyslog does what docs/pipelines.md says: it reads files that the installed command wrote."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

from kraken_feed.simulator.faults.fault import Fault

from ..support.installed import Site, finish, logged, run, site, start
from ..support.rsyslog import Receiver, configure, rsyslogd, says
from ..support.tools import tool


def written(*files: Path) -> list[bytes]:
    """The lines of the files, sorted: rsyslog does not promise the order over a rotation."""
    return sorted(line for file in files for line in file.read_bytes().splitlines())


async def append(place: Site, path: Path) -> None:
    """Fifty records more at the end of the file, and the markers around them."""
    done = await run("executions", "--no-state", "--count", "50", "--output", str(path), env=place.environment())
    assert done.code == 0, done.err


def test_rsyslogd_finds_nothing_wrong_with_the_sample(tmp_path: Path) -> None:
    for catch_up in (False, True):
        main = configure(tmp_path, 6514, catch_up=catch_up)
        done = subprocess.run([tool("rsyslogd"), "-N1", "-f", str(main)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stderr.splitlines() if "config validation run" not in line]
        assert said == []


async def test_every_line_arrives_once_and_byte_for_byte_over_a_rotation(tmp_path: Path) -> None:
    path, renamed = tmp_path / "log" / "main.jsonl", tmp_path / "log" / "main.jsonl.1"
    async with Receiver() as receiver, site(tmp_path, rate=200.0) as place:
        await receiver.listen()
        main = configure(tmp_path, receiver.port)
        path.with_name("main.jsonl.torn").write_text('{"id":"cut o\n')
        async with rsyslogd(main):
            feed = await start("openOrders", "executions", "--no-state", "--output", str(path), env=place.environment())
            await receiver.has(100)
            place.inject(Fault("big_frame", bytes=40_000, dialect="v2"))  # a frame nobody knows: one line of 40 kB
            await receiver.has_one(lambda message: len(message.line) > 40_000)
            path.rename(renamed)
            await receiver.has_more(10)  # what is written under the new name, until the signal
            feed.send_signal(signal.SIGHUP)
            await logged(feed, "output_reopened")
            place.inject(Fault("drop", dialect="v2"))
            await receiver.has_one(lambda message: message.name == "feed.lost")
            await receiver.has_more(100)
            feed.terminate()
            assert (await finish(feed)).code == 0
            await receiver.has(len(written(renamed, path)))
    assert written(path)
    assert sorted(receiver.lines) == written(renamed, path)
    for message in receiver.messages:
        record = json.loads(message.line)
        assert (message.time, message.name) == (record["ts"], record["event_name"])
        assert message.priority == (132 if record["event_name"] in ("feed.gap", "feed.lost") else 134)


async def test_what_cannot_be_sent_is_not_lost_when_rsyslogd_is_killed(tmp_path: Path) -> None:
    """The file is not new: of one that is, imfile notes its position once before it has sent the line."""
    path = tmp_path / "log" / "main.jsonl"
    async with Receiver() as before, Receiver() as after, site(tmp_path, rate=200.0) as place:
        await before.listen()
        main = configure(tmp_path, before.port)
        await append(place, path)
        async with rsyslogd(main):
            await before.has(len(written(path)))
        await append(place, path)
        configure(tmp_path, after.port)
        async with rsyslogd(main) as daemon:
            await says(daemon, "cannot connect")
            daemon.kill()
        await after.listen()
        async with rsyslogd(main):
            await after.has(len(written(path)) - len(before.lines))
    assert sorted(before.lines + after.lines) == written(path)


async def test_a_rotation_while_rsyslogd_was_down_is_caught_up_with(tmp_path: Path) -> None:
    path, renamed = tmp_path / "log" / "main.jsonl", tmp_path / "log" / "main.jsonl.1"
    async with Receiver() as receiver, site(tmp_path, rate=200.0) as place:
        await receiver.listen()
        main = configure(tmp_path, receiver.port)
        await append(place, path)
        async with rsyslogd(main):
            await receiver.has(len(written(path)))
        await append(place, path)
        path.rename(renamed)
        await append(place, path)
        configure(tmp_path, receiver.port, catch_up=True)
        async with rsyslogd(main):
            await receiver.has(len(written(renamed, path)))
    assert sorted(receiver.lines) == written(renamed, path)
