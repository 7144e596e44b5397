"""The installed command writes to a file under load while the file is rotated: renamed, and SIGHUP.

    python -m tests.stress.rotate [--records N] [--rotations N] [--rate N]

Exit code 1 unless the lines that the command has written are the lines in all files, and these are the exchange's
ledger: nothing lost, torn or twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from ..support.load import ALL, Comparison, load

RATE = 2000.0  # things that happen a second; each makes several records


class Result(msgspec.Struct):
    """The numbers of one run."""

    rotations: int
    files: int
    written: int  # lines, as the command counts them
    torn_on_opening: int
    code: int
    seconds: float
    found: Comparison

    @property
    def good(self) -> bool:
        """Whether every line is in one of the files, once."""
        stopped = len(ALL)  # the markers that follow the command's count
        return (
            self.found.good
            and self.files == self.rotations + 1
            and self.found.lines == self.written + stopped
            and not self.torn_on_opening
            and self.code == 0
        )


async def rotate(home: Path, *, records: int, rotations: int, rate: float = RATE) -> Result:
    """Rotate so often while so many records are written."""
    path, began = home / "out.jsonl", time.monotonic()

    def files() -> list[Path]:
        """The oldest first."""
        return [*(home / f"out.jsonl.{number}" for number in range(rotations) if number < done), path]

    done = 0
    async with load(home, path, rate=rate) as run:
        for number in range(rotations):
            await run.until_published(records // (rotations + 1))
            path.rename(home / f"out.jsonl.{number}")
            run.reopen()
            await run.until_said("output_reopened", number + 1)
            done += 1
        await run.until_published(records // (rotations + 1))
        state = await run.calm(files)
        code = await run.end()
        return Result(
            rotations=rotations,
            files=sum(file.stat().st_size > 0 for file in files()),
            written=state["output"]["lines"],
            torn_on_opening=len(run.said("output_repaired")),
            code=code,
            seconds=time.monotonic() - began,
            found=run.compare(file.read_bytes() for file in files()),
        )


def table(result: Result) -> str:
    """A row a number."""
    found = result.found
    rows = {
        "rotations": result.rotations,
        "files with lines": result.files,
        "items in the ledger": found.published,
        "items in all files": found.items,
        "lines written, as the command counts": result.written,
        f"lines in all files, without {len(ALL)} feed.stopped": found.lines - len(ALL),
        "LOST": found.lost,
        "FOREIGN": found.foreign,
        "TORN": found.torn,
        "TWICE, by id": found.twice,
    }
    body = [f"{name:<46}{number:>9}" for name, number in rows.items()]
    return "\n".join([*body, f"seconds: {result.seconds:.0f}; {'good' if result.good else 'BAD'}"])


def main() -> int:
    """0 if nothing was lost, torn or written twice, else 1."""
    parser = argparse.ArgumentParser(description="The output is rotated under load.")
    parser.add_argument("--records", type=int, default=50_000, help="at least so many")
    parser.add_argument("--rotations", type=int, default=10)
    parser.add_argument("--rate", type=float, default=RATE, help="things that happen a second")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        result = asyncio.run(
            rotate(Path(home), records=arguments.records, rotations=arguments.rotations, rate=arguments.rate)
        )
    print(table(result))
    return 0 if result.good else 1


if __name__ == "__main__":
    sys.exit(main())
