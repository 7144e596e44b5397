"""The frames of tests/frames, each with its exact bytes and what the file says about it."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec

from kraken_feed.protocol import spot_v1, spot_v2

from .repository import ROOT

DIRECTORY = ROOT / "tests" / "frames"
DIALECTS: dict[str, ModuleType] = {"v1": spot_v1, "v2": spot_v2}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    dialect: Literal["v1", "v2"]
    kind: str
    channel: str | None
    note: str
    items: int
    frame: msgspec.Raw


class FrameFile(msgspec.Struct, frozen=True):
    """One file. ``frame`` is as it stands in the file: blanks, line breaks, digits and escapes included."""

    name: str
    source: str
    dialect: Literal["v1", "v2"]
    kind: str
    channel: str | None
    note: str
    items: int
    frame: bytes

    @property
    def module(self) -> ModuleType:
        """The dialect that reads it."""
        return DIALECTS[self.dialect]


def load(path: Path) -> FrameFile:
    """The frame in one file."""
    file = msgspec.json.decode(path.read_bytes(), type=_File)
    return FrameFile(
        path.stem, file.source, file.dialect, file.kind, file.channel, file.note, file.items, bytes(file.frame)
    )


FRAMES = [load(path) for path in sorted(DIRECTORY.glob("*.json"))]
DATA = [file for file in FRAMES if file.kind in ("snapshot", "update")]


def frame(name: str) -> bytes:
    """The bytes of the frame in the file of that name."""
    return load(DIRECTORY / f"{name}.json").frame


def name_of(file: FrameFile) -> str:
    """What a test of this frame is called."""
    return file.name
