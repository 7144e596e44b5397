"""The README and docs/commands.md are true: their commands run, the records shown are real, their options exist."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest

from kraken_feed.records.render import KEYS

from ..support.examples import some
from ..support.installed import COMMAND, QUICK, Site, bare, finish, run, site
from ..support.repository import ROOT
from ..support.tools import tool

README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs" / "commands.md").read_text()


def blocks(page: str) -> list[tuple[str, str]]:
    """Return the language and the text of every code block of a page."""
    return re.findall(r"```(\w+)\n(.*?)```", page, re.S)


def shell_lines(page: str) -> list[str]:
    """Return every command of a page."""
    return [
        line for kind, text in blocks(page) if kind == "sh" for line in text.splitlines() if line and line[0] != "#"
    ]


BLOCKS = blocks(README)
SHELL = list(dict.fromkeys(shell_lines(README) + shell_lines(COMMANDS)))

# Not run as they stand: they set up what these tests run in, or start what does not end by itself.
SET_UP = (
    "pip install",
    "python3 -m venv",
    "export KRAKEN_API",
    "sudo ",  # what these put in place is held against systemd by test_unit.py
)

RUN = [line for line in SHELL if not line.startswith(SET_UP)]


def two_accounts(place: Site) -> None:
    """Write the tables of two accounts, with their keys at the simulated exchange."""
    tables = ""
    for name, account in zip(("main", "treasury"), place.exchange.accounts, strict=True):
        for part in ("key", "secret"):
            (place.home / f"{name}-{part}").write_text(getattr(place.exchange.world.first_key(account), part))
            (place.home / f"{name}-{part}").chmod(0o600)
        tables += f'[accounts.{name}]\nkey_file = "{place.home}/{name}-key"\n'
        tables += f'secret_file = "{place.home}/{name}-secret"\n'
    place.configure(QUICK + tables)


def test_the_readme_installs_the_service_as_the_document_does() -> None:
    (block,) = [text for kind, text in BLOCKS if kind == "sh" and "systemctl enable" in text]
    assert block in (ROOT / "docs" / "systemd.md").read_text()


def test_the_readme_shows_commands() -> None:
    assert len(shell_lines(README)) >= 10
    assert len(shell_lines(COMMANDS)) >= 10


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len(README.splitlines()) <= 140


def test_every_link_of_these_pages_leads_to_a_file() -> None:
    for page, folder in ((README, ROOT), (COMMANDS, ROOT / "docs")):
        for link in re.findall(r"\]\(([^)#]+)", page):
            assert (folder / link).exists(), link


@pytest.mark.seeds
@pytest.mark.parametrize("line", some(RUN, first=sum(line in README for line in RUN)))
async def test_a_command_runs(line: str, tmp_path: Path) -> None:
    """Use the simulated exchange in Kraken's place, and add an end where the page leaves it open."""
    command = line.partition("  #")[0].strip()
    if re.match(r"kraken-feed (openOrders|executions|demo)", command) and "--once" not in command:
        command = re.sub(r"(kraken-feed [^|>&]*[^|>& ])", r"\1 --count 8", command, count=1)
    if "kraken-feed watch" in command:
        command = f"TERM=xterm {tool('script')} -qec '{command} --duration 1' /dev/null"
    if "simulate" in command and "--quirk list" not in command:
        command = f"exec 3< <({command}); read -r line <&3 && [[ $line == *127.0.0.1* ]] && kill $!"
    command = re.sub(r"^/opt/kraken-feed/bin/(.*) \| sudo tee .*", r"\1", command)
    async with site(tmp_path, rate=20.0, accounts=2) as place:
        two_accounts(place)
        env = place.environment(PATH=f"{Path(COMMAND).parent}:{bare(tmp_path)['PATH']}")
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f"cd {tmp_path}; set -o pipefail; {command}", env=env,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
    assert done.code == 0, done.err


def test_the_records_shown_have_the_keys_of_records_in_their_order() -> None:
    records = [line for kind, text in BLOCKS if kind == "json" for line in text.splitlines()]
    assert records
    for record in records:
        fields: dict[str, msgspec.Raw] = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        known = [key for key in fields if key in KEYS]
        assert known == [key for key in KEYS if key in fields]
        assert known[0] == "id"


async def test_the_demo_prints_the_rows_shown(tmp_path: Path) -> None:
    (block,) = [text for kind, text in BLOCKS if kind == "text"]
    heading, *rows = block.splitlines()
    # Not sentences, and not what an outage decides: which rows are recovered, and the last line.
    items = [row[12:] for row in rows if row[0] in " =" and "|" not in row and not row.startswith(" " * 12)]
    assert len(items) >= 3
    env = bare(tmp_path) | {"COLUMNS": "80"}
    done = await run("demo", "--format", "console", "--utc", "--count", "40", env=env)
    printed = done.out.decode().splitlines()
    assert printed[1] == heading  # behind the date
    assert set(items) <= {line[12:] for line in printed}


def test_every_option_and_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", README):
        assert re.search(rf"^{target}:", makefile, re.M), target
    source = (ROOT / "kraken_feed" / "cli" / "arguments.py").read_text()
    simulator = (ROOT / "kraken_feed" / "simulator" / "main.py").read_text()
    ours = README.replace("systemctl enable --now", "") + COMMANDS
    for option in re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", ours):
        assert f'"{option}"' in source + simulator, option
