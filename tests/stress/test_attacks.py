"""The attacks of ``make attacks``, short and several at a time: none of them loses a record without a gap that says so.

They wait far more than they work, so they share the machine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from ..support.completeness import CHANNELS
from . import attacks
from .attacks import ATTACKS, Attack, Figures, Stage, attacked

SECONDS = 3.0
RATE = 30.0
AT_A_TIME = 5

EVENTS = 20  # there are that many of each kind, or nothing was tested


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Figures | BaseException]:
    """What became of everything, by attack; an attack that could not be carried out is its error."""

    async def main() -> dict[str, Figures | BaseException]:
        turn = asyncio.Semaphore(AT_A_TIME)

        async def one(attack: Attack) -> Figures:
            async with turn:
                rate = RATE * attack.rate / attacks.RATE
                return await attacked(msgspec.structs.replace(attack, rate=rate), home(attack), SECONDS)

        results = await asyncio.gather(*map(one, ATTACKS), return_exceptions=True)
        return {attack.row: result for attack, result in zip(ATTACKS, results, strict=True)}

    def home(attack: Attack) -> Path:
        return tmp_path_factory.mktemp(f"attack-{attack.row}")

    return asyncio.run(main())


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.row for attack in ATTACKS])
def test_nothing_is_lost_silently(attack: Attack, found: dict[str, Figures | BaseException]) -> None:
    figures = found[attack.row]
    if isinstance(figures, BaseException):
        raise figures
    told = f"{attacks.HEAD}\n{attacks.line(attack, figures)}"
    assert not figures.silent, told
    kinds = [kind for kind, channels in CHANNELS.items() if set(channels) & set(attack.channels)]
    assert all(figures.ledger[kind] > EVENTS for kind in kinds), told


@pytest.mark.parametrize("row", ["1a", "1b", "1c", "2", "3a", "3b", "4a", "4c", "4g", "5", "7", "10a", "10b", "11"])
def test_what_rest_still_knows_is_recovered_and_not_declared(
    row: str, found: dict[str, Figures | BaseException]
) -> None:
    """A client that declares everything loses nothing silently, and is of no use."""
    figures = found[row]
    assert isinstance(figures, Figures)
    assert figures.recovered.total() > 0
    assert figures.declared.total() == 0


def test_a_record_that_is_missing_is_found(tmp_path: Path) -> None:
    """The comparison can fail: an output without some of its lines is an output that has lost them."""

    async def main() -> tuple[Figures, Figures]:
        attack = Attack("", "nothing", Stage.start, rate=RATE)
        async with attacks.stage(attack, tmp_path, 1.0) as scene:
            await scene.start()
            await scene.happen(2.0)
            complete = await scene.calm()
            lines = scene.output.read_bytes().splitlines(keepends=True)
            scene.output.write_bytes(b"".join(line for line in lines if b'"event_name":"trade"' not in line))
            return complete, scene.figures()

    complete, cut = asyncio.run(main())
    assert complete.lost == Counter()
    assert cut.lost == {"fill": complete.ledger["fill"] // 2}
