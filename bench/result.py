"""What was measured, against what was promised."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Bound:
    """What a figure has to keep, and what it should reach: at most (or at least) so much."""

    bar: float | None
    aim: float | None = None
    side: Literal["at most", "at least"] = "at most"

    def keeps(self, figure: float, limit: float) -> bool:
        return figure <= limit if self.side == "at most" else figure >= limit

    def verdict(self, figure: float) -> str:
        """``met``, ``aim met``, ``MISSED``; or ``below aim`` where there is only an aim."""
        if self.aim is not None and self.keeps(figure, self.aim):
            return "aim met"
        if self.bar is None:
            return "below aim"
        return "met" if self.keeps(figure, self.bar) else "MISSED"

    def sign(self) -> str:
        return "≤" if self.side == "at most" else "≥"


@dataclass(frozen=True)
class Row:
    """One comparison: ``top`` over ``bottom``, figure by figure of the same round. Without ``bottom`` the figure
    itself is judged."""

    name: str
    unit: str
    top: tuple[str, Sequence[float]]
    bottom: tuple[str, Sequence[float]] | None = None
    bound: Bound | None = None

    @property
    def ratios(self) -> list[float]:
        """One for each round: the machine is another one the minute after."""
        if self.bottom is None:
            return []
        return [above / below for above, below in zip(self.top[1], self.bottom[1], strict=True)]

    @property
    def figure(self) -> float:
        """What the bound is about: the median of the ratios, or of the figures."""
        return statistics.median(self.ratios or self.top[1])

    def as_json(self) -> dict[str, object]:
        sides = [self.top] if self.bottom is None else [self.top, self.bottom]
        fields: dict[str, object] = {
            "name": self.name,
            "unit": self.unit,
            "rounds": {name: list(figures) for name, figures in sides},
            "medians": {name: statistics.median(figures) for name, figures in sides},
            "ratios": self.ratios,
            "figure": self.figure,
        }
        if self.bound is not None:
            bound = {"side": self.bound.side, "bar": self.bound.bar, "aim": self.bound.aim}
            fields |= {"bound": bound, "verdict": self.bound.verdict(self.figure)}
        return fields


@dataclass
class Report:
    """All that one call of the benchmark found out."""

    rows: list[Row] = field(default_factory=list)
    runs: dict[str, list[dict[str, float]]] = field(default_factory=dict)  # by contender: its blasts
    skipped: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        return {"rows": [row.as_json() for row in self.rows], "runs": self.runs, "skipped": self.skipped}


def quantile(figures: Sequence[float], share: float) -> float:
    """The figure that ``share`` of them do not exceed (nearest rank)."""
    ordered = sorted(figures)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    cells = [["", "", "", "", "ratio", "bar", "aim", ""], *map(_cells, rows)]
    return _aligned(cells)


def _cells(row: Row) -> list[str]:
    top = f"{row.top[0]} {_number(statistics.median(row.top[1]))} {row.unit}"
    against, ratio, spread = "", "", ""
    if row.bottom is None:
        figures = row.top[1]
        spread = f"({_number(min(figures))}–{_number(max(figures))})" if len(figures) > 1 else ""
    else:
        against = f"{row.bottom[0]} {_number(statistics.median(row.bottom[1]))} {row.unit}"
        ratio, spread = f"{row.figure:.2f}", f"({min(row.ratios):.2f}–{max(row.ratios):.2f})"
    bound = row.bound
    if bound is None:
        return [row.name, top, against, spread, ratio, "", "", ""]
    limits = ["" if limit is None else f"{bound.sign()} {limit:g}" for limit in (bound.bar, bound.aim)]
    return [row.name, top, against, spread, ratio, *limits, bound.verdict(row.figure)]


def runs_table(runs: dict[str, list[dict[str, float]]]) -> str:
    """What whole processes took, medians over the rounds."""
    cells = [["", "frames", "CPU µs/frame", "CPU s", "of it start", "frames/s", "peak MiB"]]
    for name, blasts in runs.items():
        middle = {key: statistics.median(blast[key] for blast in blasts) for key in blasts[0]}
        cells.append(
            [
                name,
                f"{middle['frames']:.0f}",
                f"{middle['cpu_us']:.2f}",
                f"{middle['cpu_s']:.2f}",
                f"{middle['start_cpu_s']:.2f}",
                f"{middle['frames'] / middle['wall_s']:,.0f}",
                f"{middle['peak_kib'] / 1024:.1f}",
            ]
        )
    return _aligned(cells)


def _aligned(cells: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
