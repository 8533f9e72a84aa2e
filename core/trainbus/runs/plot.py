"""`trainbus runs plot`: one chart for each metric, a line for each run, as HTML or PNG."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainbus import terminal
from trainbus.errors import UsageError
from trainbus.runs.chart import COLORS, Chart, Line, Plot, thinned
from trainbus.runs.stored_run import StoredRun, all_names, chosen, explained, labels
from trainbus.storage.files import replacing

#: Charts that a PNG can hold.
_MAX_IN_PNG = 100


def write(
    runs: Sequence[StoredRun],
    output: Path,
    patterns: Sequence[str],
    by_time: bool,
    logarithmic: bool,
) -> None:
    """Draw the metrics of runs into a file.

    Args:
        runs: whose.
        output: a `.html` or `.png` file.
        patterns: names or patterns of metrics; all without any.
        by_time: over the time since a run's start, and not over optimizer steps.
        logarithmic: the scale of values.

    Raises:
        UsageError: there is no such metric, or nothing can draw such a file.
    """
    kind = output.suffix.lower()
    if kind not in (".html", ".png"):
        raise UsageError(f"-o {output}: give a file that ends in .html or .png")
    plot = _plot(runs, chosen(patterns, all_names(runs)), by_time, logarithmic)
    if not plot.charts:
        raise UsageError("there is nothing to draw: no metric was logged")
    try:
        with replacing(output) as beside:
            if kind == ".html":
                from trainbus.runs import plot_page

                beside.write_text(plot_page.page(plot), "utf-8")
            else:
                _write_png(plot, beside)
    except OSError as error:
        raise UsageError(f"-o {output}: cannot be written: {error}") from error
    charts = f"{len(plot.charts)} chart{'' if len(plot.charts) == 1 else 's'}"
    terminal.say(f"{charts} of {len(runs)} run{'' if len(runs) == 1 else 's'}: {output}")


def _plot(
    runs: Sequence[StoredRun], names: Sequence[str], by_time: bool, logarithmic: bool
) -> Plot:
    charts = [Chart(name, []) for name in names]
    for number, run in enumerate(runs):
        with explained(run.dir):
            for chart in charts:
                if chart.name not in run.names:
                    continue
                series = run.journal.series(chart.name)
                x = [time - run.started for time in series.times] if by_time else series.steps
                drawn = (lambda y: math.isfinite(y) and y > 0) if logarithmic else math.isfinite
                y = [value if drawn(value) else math.nan for value in series.values]
                chart.lines.append(Line(number, [float(each) for each in x], y))
    label = "optimizer steps"
    if by_time:
        longest = max((max(li.x, default=0.0) for c in charts for li in c.lines), default=0.0)
        unit, seconds = next(
            ((unit, size) for unit, size in (("hours", 3600), ("minutes", 60)) if longest > size),
            ("seconds", 1),
        )
        label = f"{unit} since the start"
        for chart in charts:
            for line in chart.lines:
                line.x = [each / seconds for each in line.x]
    return Plot(runs, labels(runs), charts, label, logarithmic)


def _write_png(plot: Plot, path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError(
            f"a PNG needs matplotlib: pip install matplotlib ({error}); a .html file needs nothing"
        ) from None
    count = len(plot.charts)
    if count > _MAX_IN_PNG:
        raise UsageError(
            f"{count} metrics are too many for one PNG: choose some with --metric, or write .html"
        )
    columns = min(count, 2 if count < 5 else 3)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.1 * rows + 0.5), dpi=130, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    handles: dict[int, Any] = {}
    for axes, chart in zip(grid, plot.charts, strict=False):
        for line in chart.lines:
            line = thinned(line, 4000)
            (handle,) = axes.plot(
                line.x, line.y,
                color=COLORS[line.run % len(COLORS)],
                linestyle="-" if line.run < len(COLORS) else "--",
                linewidth=1.4,
                marker="o" if len(line.x) <= 30 else None,
                markersize=3.5,
            )  # fmt: skip
            handles.setdefault(line.run, handle)
        axes.set_title(chart.name, fontsize=10, loc="left", parse_math=False)
        axes.set_xlabel(plot.x_label, fontsize=8, color="#666")
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if plot.logarithmic:
            axes.set_yscale("log")
        if all(math.isnan(y) for line in chart.lines for y in line.y):
            axes.text(0.5, 0.5, plot.nothing, transform=axes.transAxes, ha="center", fontsize=8)
    for axes in grid[count:]:
        axes.set_visible(False)
    shown = sorted(handles)
    longest = max(len(plot.labels[run]) for run in shown)
    beside = int(figure.get_figwidth() * 14 / (longest + 8))  # 14 characters to the inch
    legend = figure.legend(
        handles=[handles[run] for run in shown], labels=[plot.labels[run] for run in shown],
        loc="outside lower left", ncols=max(1, beside), fontsize=8, frameon=False,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)
    with warnings.catch_warnings():  # of what a font lacks; they hold the names as they are
        warnings.simplefilter("ignore")
        figure.savefig(path, format="png")
