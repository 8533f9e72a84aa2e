"""`trainbus runs compare`: what differs between runs, as text or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from trainbus import terminal
from trainbus.errors import UsageError
from trainbus.runs.stored_run import (
    Numbers,
    StoredRun,
    all_names,
    better,
    chosen,
    explained,
    flat,
    labels,
)


def show_comparison(runs: Sequence[StoredRun], patterns: Sequence[str], as_json: bool) -> None:
    """Parameters and tags that differ, and metrics side by side."""
    if len(runs) < 2:
        raise UsageError("a comparison needs two runs or more")
    names = chosen(patterns, all_names(runs))
    heads = labels(runs)
    params = differing([flat(run.journal.params()) for run in runs])
    tags = differing([flat(run.journal.tags()) for run in runs])
    numbers = {name: [_numbers(run, name) for run in runs] for name in names}
    if as_json:
        terminal.say(
            terminal.as_json(
                {
                    "runs": [run.described() for run in runs],
                    "params": {key: dict(zip(heads, row, strict=True)) for key, row in params},
                    "tags": {key: dict(zip(heads, row, strict=True)) for key, row in tags},
                    "metrics": {
                        name: {
                            head: each and asdict(each)
                            for head, each in zip(heads, row, strict=True)
                        }
                        for name, row in numbers.items()
                    },
                }
            )
        )
        return
    rows = [
        ["", "", *heads],
        ["status", "", *(run.status for run in runs)],
        ["time", "", *(terminal.duration(run.seconds) for run in runs)],
        ["steps", "", *(f"{run.steps:,}" for run in runs)],
    ]
    for title, found in (("parameters", params), ("tags", tags)):
        if found or title == "parameters":
            rows += _section(title if found else "no parameter differs", len(heads))
            for key, values in found:
                rows.append([f"  {key}", "", *(_cell(value) for value in values)])
    if numbers:
        rows += _section("metrics", len(heads))
        for name, each in numbers.items():
            rows += _of_metric(name, each)
    terminal.say(terminal.table(rows, right=2))


def _cell(value: Any) -> str:
    return "-" if value is None else terminal.shortened(terminal.plain(value), 40)


def _section(title: str, count: int) -> list[list[str]]:
    return [[""] * (count + 2), [title, *[""] * (count + 1)]]


def _numbers(run: StoredRun, name: str) -> Numbers | None:
    with explained(run.dir):
        return Numbers.of(run.journal.series(name))


def _of_metric(name: str, each: Sequence[Numbers | None]) -> list[list[str]]:
    """A metric's rows: the last values, and the best where the name tells which those are."""
    rows = [[f"  {name}", "last", *(terminal.number(one.last if one else None) for one in each)]]
    best = better(name)
    if not best and all(one is None or one.lowest == one.highest for one in each):
        return rows  # it never changed
    for order in (best,) if best else ("lowest", "highest"):
        values = [getattr(one, order) if one else None for one in each]
        known = [value for value in values if value is not None]
        winner = None
        with suppress(ValueError):
            winner = min(known) if order == "lowest" else max(known)
        marks = [" *" if best and value == winner is not None else "" for value in values]
        spaced = any(marks)
        rows.append(
            [
                "",
                order,
                *(
                    terminal.number(value) + (mark or ("  " if spaced else ""))
                    for value, mark in zip(values, marks, strict=True)
                ),
            ]
        )
    return rows


def differing(each: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """What several mappings do not have in common: the key, and its values (None: not there)."""
    keys = dict.fromkeys(key for one in each for key in one)
    rows = [(key, [one.get(key) for one in each]) for key in keys]
    return [(key, row) for key, row in rows if any(value != row[0] for value in row[1:])]
