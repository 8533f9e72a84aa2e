"""`trainbus runs`: one line for each run, as text or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainbus import terminal
from trainbus.errors import JournalError
from trainbus.runs.stored_run import (
    Damaged,
    Numbers,
    Order,
    better,
    chosen,
    each_of,
    explained,
)

#: Metrics that a listing shows, when it is not told which.
_COLUMNS = 4


@dataclass
class _Row:
    """A run in a listing, read while its journal was open."""

    told: dict[str, Any]
    names: list[str]
    key: float | None = None


def show_list(
    parents: Sequence[Path],
    metrics: Sequence[str],
    order: Order | None,
    by: str | None,
    as_json: bool,
) -> None:
    """The runs in some directories, one in a line.

    Args:
        parents: the directories.
        metrics: names or patterns of metrics to show.
        order: whether the runs of the lowest or of the highest values come first.
        by: the metric of that order; without one, the newest run is first.
        as_json: for programs.
    """
    rows: list[_Row] = []
    damaged: list[Damaged] = []
    for run in each_of(parents):
        if isinstance(run, Damaged):
            damaged.append(run)
            continue
        try:
            with explained(run.dir):
                row = _Row(run.described(), run.names)
                if by is not None and order is not None:
                    numbers = Numbers.of(run.journal.series(by))
                    row.key = None if numbers is None else getattr(numbers, order)
        except JournalError as error:
            damaged.append(Damaged(run.dir, str(error)))
        else:
            rows.append(row)
    rows.sort(key=lambda row: row.told["started"], reverse=True)
    logged = [name for row in rows for name in row.names]
    shown = chosen(metrics, logged) if metrics else _common(rows)
    if by is not None:
        chosen([by], logged)  # or it is an error
        sign = 1 if order == "lowest" else -1
        rows.sort(key=lambda row: (row.key is None, sign * (row.key or 0.0)))
    if as_json:
        best = [{str(order): {by: row.key}} if by else {} for row in rows]
        told = [row.told | more for row, more in zip(rows, best, strict=True)]
        told += [{"dir": str(each.dir), "status": "damaged", "why": each.why} for each in damaged]
        terminal.say(terminal.as_json(told))
        return
    if rows:
        terminal.say(_listing(rows, shown, f"{order} {by}" if by else None))
    elif not damaged:
        terminal.say(f"no run with a journal in {', '.join(map(str, parents))}")
    for each in damaged:
        terminal.say(f"damaged: {each.why}", err=True)


def _common(rows: Sequence[_Row]) -> list[str]:
    """The metrics that most runs have; those of validation and test, and means, before others."""
    counts: dict[str, int] = {}
    for row in rows:
        for name in row.names:
            counts[name] = counts.get(name, 0) + 1

    def rank(name: str) -> tuple[Any, ...]:
        stages = ("valid/", "test/")
        stage = next((i for i, each in enumerate(stages) if name.startswith(each)), len(stages))
        return stage, not name.endswith("_epoch"), better(name) is None, -counts[name], name

    return sorted(counts, key=rank)[:_COLUMNS]


def _listing(rows: Sequence[_Row], shown: Sequence[str], best: str | None) -> str:
    """The table; on a terminal, as many metrics as there is room for."""
    head = ["run", "status", "started", "time", "steps", *([best] if best else [])]
    while True:
        cells = [[*head, *shown]]
        for row in rows:
            told = row.told
            cells.append(
                [
                    told["run"],
                    told["status"],
                    terminal.moment(told["started"])[:16],
                    terminal.duration(told["seconds"]),
                    f"{told['steps']:,}",
                    *([terminal.number(row.key)] if best else []),
                    *(terminal.number(told["metrics"].get(name)) for name in shown),
                ]
            )
        written = terminal.table(cells, right=3)
        columns = terminal.width()
        if not shown or columns is None or max(map(len, written.splitlines())) <= columns:
            return written
        shown = shown[:-1]
