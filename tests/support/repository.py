"""Where the repository is, for tests of its pages and samples."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FRAMES = ROOT / "tests" / "frames"
