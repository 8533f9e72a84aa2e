"""A page of charts that needs nothing but a browser: SVG, and a few lines of script for values."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from typing import Any

from trainbus import terminal
from trainbus.runs.chart import COLORS, Chart, Line, Plot, thinned
from trainbus.runs.compare import differing
from trainbus.runs.stored_run import flat

#: Points of a line that are drawn.
_POINTS = 1000
#: The chart in units of its own: as wide and high as this, with margins for what is written.
_WIDTH, _HEIGHT = 480, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 20, 10, 30


def page(plot: Plot) -> str:
    """The page as HTML."""
    template = resources.files("trainbus.runs").joinpath("plot_page.html").read_text("utf-8")
    charts = [_chart(chart, plot) for chart in plot.charts]
    parts = {
        "COLORS": "\n".join(f".run{i} {{ --color: {COLORS[i % len(COLORS)]} }}"
                            for i in range(len(plot.runs))),
        "TITLE": escape(plot.labels[0] if len(plot.runs) == 1 else f"{len(plot.runs)} runs"),
        "RUNS": _table(plot),
        "CHARTS": "\n".join(svg for svg, _ in charts),
        # `<` may not be in a script: `</script>` in a name would end it.
        "DATA": json.dumps(
            {"runs": plot.labels, "x": plot.x_label, "charts": [data for _, data in charts]},
            separators=(",", ":"),
        ).replace("<", "\\u003c"),
    }  # fmt: skip
    for name, part in parts.items():
        template = template.replace(f"<!--{name}-->", part, 1)
    return template


def _table(plot: Plot) -> str:
    """The runs, and the parameters that differ."""
    params = differing([flat(run.journal.params()) for run in plot.runs])
    head = ["run", "status", "steps", "time", *(name for name, _ in params)]
    rows = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    for i, run in enumerate(plot.runs):
        values = [
            run.status, f"{run.steps:,}", terminal.duration(run.seconds),
            *("-" if row[i] is None else terminal.shortened(terminal.plain(row[i]), 60)
              for _, row in params),
        ]  # fmt: skip
        rows.append(
            f'<tr class="run{i}"><td><label><input type="checkbox" checked data-run="{i}">'
            f"<i></i>{escape(plot.labels[i])}</label></td>"
            + "".join(f"<td>{escape(value)}</td>" for value in values)
            + "</tr>"
        )
    return "\n".join(rows)


def _chart(chart: Chart, plot: Plot) -> tuple[str, dict[str, Any]]:
    """The SVG of a chart, and what the script needs to know to tell values."""
    lines = [thinned(line, _POINTS) for line in chart.lines]
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y if not math.isnan(y)]
    x_range = _span([*xs, 0.0] if xs and 0 < min(xs) < 0.05 * max(xs) else xs, pad=False)
    y_range = _span([math.log10(y) for y in ys] if plot.logarithmic else ys, pad=True)
    to_x = _scale(x_range, _LEFT, _WIDTH - _RIGHT)
    to_line = _scale(y_range, _HEIGHT - _BOTTOM, _TOP)

    def to_y(value: float) -> float:
        return to_line(math.log10(value) if plot.logarithmic else value)

    parts = [
        f'<figure class="chart"><figcaption>{escape(chart.name)}</figcaption>',
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(chart.name)}">',
    ]
    y_ticks = log_ticks(*y_range) if plot.logarithmic else ticks(*y_range, 5)
    for value in y_ticks:
        at = to_y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {_f(at)}H{_WIDTH - _RIGHT}"/>')
        parts.append(_text(_LEFT - 6, at + 4, tick_text(value, y_ticks), "end"))
    x_ticks = ticks(*x_range, 6)
    for value in x_ticks:
        parts.append(_text(to_x(value), _HEIGHT - _BOTTOM + 14, tick_text(value, x_ticks)))
    parts.append(_text(_WIDTH - _RIGHT, _HEIGHT - 3, plot.x_label, "end"))
    if not ys:
        parts.append(_text(_WIDTH / 2, _HEIGHT / 2, plot.nothing))
    for line in lines:
        parts.append(f'<g class="run{line.run} line">{_drawn(line, to_x, to_y)}</g>')
    parts.append('<g class="hover"></g></svg></figure>')
    data = {
        "box": [_LEFT, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, _TOP],
        "span": [*x_range, *y_range],
        "log": plot.logarithmic,
        "lines": [
            {"run": line.run, "x": [_short(x) for x in line.x], "y": [_short(y) for y in line.y]}
            for line in lines
        ],
    }
    return "\n".join(parts), data


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{_f(x)}" y="{_f(y)}" text-anchor="{anchor}">{escape(words)}</text>'


def _drawn(line: Line, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    """A polyline for each part without a gap, and dots where points are few or alone."""
    pieces: list[list[tuple[str, str]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isnan(y):
            pieces.append([])
        else:
            pieces[-1].append((_f(to_x(x)), _f(to_y(y))))
    dotted = len(line.x) <= 30
    dashed = ' stroke-dasharray="5 3"' if line.run >= len(COLORS) else ""
    parts = []
    for piece in pieces:
        if len(piece) > 1:
            points = " ".join(f"{x},{y}" for x, y in piece)
            parts.append(f'<polyline points="{points}"{dashed}/>')
        if dotted or len(piece) == 1:
            parts += [f'<circle cx="{x}" cy="{y}" r="2.4"/>' for x, y in piece]
    return "".join(parts)


# --- scales --------------------------------------------------------------------------------------


def _span(values: Sequence[float], pad: bool) -> tuple[float, float]:
    """The range of an axis: that of the values, and a little more."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low == high:
        beside = abs(low) * 0.1 or 0.5
        return low - beside, high + beside
    # In parts, since the difference of large numbers may be infinite.
    beside = (high * 0.04 - low * 0.04) if pad else 0.0
    limit = sys.float_info.max
    return max(low - beside, -limit), min(high + beside, limit)


def _scale(span: tuple[float, float], start: float, end: float) -> Callable[[float], float]:
    low, high = span
    half = high / 2 - low / 2
    return lambda value: start + (value / 2 - low / 2) / half * (end - start)


def ticks(low: float, high: float, count: int) -> list[float]:
    """About so many round numbers between two."""
    rough = high / count - low / count
    power = 10.0 ** math.floor(math.log10(rough)) if rough > 1e-300 else rough
    step = next((m * power for m in (1, 2, 5, 10) if m * power >= 0.8 * rough), rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [i * step for i in range(first, last + 1)][:50]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis, between two powers of ten that are given as such."""
    if high - low < 1:
        return ticks(10**low, 10 ** min(high, 308.0), 4)
    first, last = math.floor(low), math.ceil(high)
    apart = max(1, (last - first) // 6)
    many = (1.0,) if high - low > 2 else (1.0, 2.0, 5.0)
    return [
        m * 10.0**power
        for power in range(max(first, -307), min(last, 307) + 1, apart)
        for m in many
        if low <= power + math.log10(m) <= high
    ]


def tick_text(value: float, among: Sequence[float]) -> str:
    """A tick as short as its neighbours allow."""
    if value == 0:
        return "0"
    size = max(abs(each) for each in among)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    return f"{value:.6g}" if abs(value) > size * 1e-9 else "0"


def _f(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")


def _short(number: float) -> float | None:
    return None if math.isnan(number) else float(f"{number:.6g}")
