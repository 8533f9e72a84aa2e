"""What is drawn of runs: charts with a line for each run, whatever draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainbus.runs.stored_run import StoredRun

#: Colours of lines, to be told apart on white and on black; with more runs they come again.
COLORS = (
    "#3b82d6", "#e8710a", "#2a9d4e", "#d6336c", "#8a63d2", "#0e96a8", "#b58900", "#8c8c8c",
    "#a0603c", "#6a8f00",
)  # fmt: skip


@dataclass
class Line:
    """One run in a chart; values that cannot be drawn are NaN."""

    run: int
    x: list[float]
    y: list[float]


@dataclass
class Chart:
    """One metric."""

    name: str
    lines: list[Line]


@dataclass
class Plot:
    """All that is drawn."""

    runs: Sequence[StoredRun]
    labels: list[str]
    charts: list[Chart]
    x_label: str
    logarithmic: bool

    @property
    def nothing(self) -> str:
        """What to write into a chart that has nothing to draw."""
        return "no value above zero" if self.logarithmic else "no finite value"


def thinned(line: Line, points: int) -> Line:
    """A line of about so many points: of each part of it the lowest and the highest value."""
    count = len(line.x)
    if count <= points:
        return line
    parts = max(points // 2, 1)
    kept = {0, count - 1}
    for part in range(parts):
        inside = range(part * count // parts, (part + 1) * count // parts)
        finite = [i for i in inside if not math.isnan(line.y[i])]
        if finite:
            kept |= {min(finite, key=line.y.__getitem__), max(finite, key=line.y.__getitem__)}
        else:  # a gap
            kept.add(inside[0])
    order = sorted(kept)
    return Line(line.run, [line.x[i] for i in order], [line.y[i] for i in order])
