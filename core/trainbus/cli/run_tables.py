"""`trainbus runs`, `runs show` and `runs compare`: what runs logged, as text or JSON."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import click

from trainbus.cli import text
from trainbus.cli.stored import (
    Damaged,
    Numbers,
    StoredRun,
    all_names,
    chosen,
    each_of,
    explained,
    flat,
    labels,
)
from trainbus.errors import JournalError, UsageError
from trainbus.journal import Record

Order = Literal["lowest", "highest"]

#: Metrics that a listing shows, when it is not told which.
_COLUMNS = 4
#: Events and artifacts that `show` prints, of each.
_NEWEST = 12
_BETTER_LOW = {"error", "loss", "mae", "mse", "nll", "perplexity", "ppl", "rmse", "wer"}
_BETTER_HIGH = {
    "acc", "accuracy", "auc", "auroc", "bleu", "dice", "f1", "iou", "map", "precision", "psnr",
    "r2", "recall", "reward", "score", "ssim", "top1", "top5",
}  # fmt: skip


def better(name: str) -> Order | None:
    """Whether lower or higher values of a metric are better, as far as its name tells."""
    words = {*re.split(r"[^a-z0-9]+", name.lower())}
    low, high = words & _BETTER_LOW, words & _BETTER_HIGH
    if bool(low) == bool(high):
        return None
    return "lowest" if low else "highest"


# --- trainbus runs -------------------------------------------------------------------------------


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
        click.echo(text.as_json(told))
        return
    if rows:
        click.echo(_listing(rows, shown, f"{order} {by}" if by else None))
    elif not damaged:
        click.echo(f"no run with a journal in {', '.join(map(str, parents))}")
    for each in damaged:
        click.echo(f"damaged: {each.why}", err=True)


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
                    text.moment(told["started"])[:-3],
                    text.duration(told["seconds"]),
                    f"{told['steps']:,}",
                    *([text.number(row.key)] if best else []),
                    *(text.number(told["metrics"].get(name)) for name in shown),
                ]
            )
        written = text.table(cells, right=3)
        columns = text.width()
        if not shown or columns is None or max(map(len, written.splitlines())) <= columns:
            return written
        shown = shown[:-1]


# --- trainbus runs show --------------------------------------------------------------------------


def show_run(run: StoredRun, patterns: Sequence[str], as_json: bool) -> None:
    """All that is known of one run."""
    with explained(run.dir):
        metrics = chosen(patterns, run.names) if patterns else run.names
        if as_json:
            click.echo(text.as_json(_as_data(run, metrics)))
            return
        columns = text.width()
        click.echo(_head(run, columns))
        for title, lines in (
            ("parameters", _pairs(flat(run.journal.params()))),
            ("tags", _pairs(flat(run.journal.tags()))),
            ("metrics", _metrics(run, metrics, columns or 100)),
            ("artifacts", _artifacts(run)),
            ("events", _events(run)),
            ("loggers", _loggers(run)),
        ):
            if lines:
                click.echo(f"\n{title}")
                click.echo("\n".join(f"  {line}" for line in lines))


def _as_data(run: StoredRun, metrics: Sequence[str]) -> dict[str, Any]:
    numbers = {name: Numbers.of(run.journal.series(name)) for name in metrics}
    keep = ("host", "pid", "command", "version", "header")
    return {
        **run.described(),
        **{key: run.about.get(key) for key in keep},
        "params": run.journal.params(),
        "tags": run.journal.tags(),
        "metrics": {name: asdict(each) for name, each in numbers.items() if each is not None},
        "artifacts": [_of_record(each) for each in run.journal.records("artifact")],
        "events": [_of_record(each) for each in run.events],
        "loggers": {
            name: {
                "has": state.position,
                "lacks": run.lacks(state.position),
                "ended": state.ended,
                "state": state.state,
            }
            for name, state in run.journal.loggers().items()
        },
    }


def _of_record(record: Record) -> dict[str, Any]:
    return {"record": record.number, "step": record.step, "time": record.time, **record.body}


def _head(run: StoredRun, columns: int | None) -> str:
    about, end = run.about, run.end
    reason = end.body.get("reason") if end is not None else None
    command = about.get("command")
    facts = {
        "run": run.id,
        "status": run.status + (f" ({reason})" if reason else ""),
        "started": f"{text.moment(run.started)} on {about.get('host')}, "
        f"{text.duration(run.seconds)} at work",
        "steps": f"{run.steps:,}",
        "directory": str(run.dir),
        "command": shlex.join(command) if isinstance(command, list) else "",
        **{str(key): str(value) for key, value in dict(about.get("header") or {}).items()},
    }
    width = max(map(len, facts))
    room = columns and columns - width - 2
    return "\n".join(
        f"{key.ljust(width)}  {text.shortened(value, room)}"
        for key, value in facts.items()
        if value
    )


def _pairs(values: Mapping[str, Any]) -> list[str]:
    rows = [[name, text.shortened(text.plain(value), 80)] for name, value in values.items()]
    return text.table(rows).splitlines()


def _metrics(run: StoredRun, names: Sequence[str], columns: int) -> list[str]:
    rows: list[list[str]] = [["", "last", "lowest", "highest", "values"]]
    curves: list[Sequence[float]] = []
    for name in names:
        series = run.journal.series(name)
        if (numbers := Numbers.of(series)) is None:
            continue
        odd = f" ({numbers.not_finite} not finite)" if numbers.not_finite else ""
        rows.append(
            [
                name,
                *map(text.number, (numbers.last, numbers.lowest, numbers.highest)),
                f"{numbers.count:,}{odd}",
            ]
        )
        curves.append(series.values)
    if not curves:
        return []
    head, *lines = text.table(rows, right=1).splitlines()
    longest = max(map(len, [head, *lines]))
    room = min(max(columns - longest - 4, 8), 60)
    return [
        head,
        *(
            f"{line.ljust(longest)}  {text.sparkline(curve, room)}".rstrip()
            for line, curve in zip(lines, curves, strict=True)
        ),
    ]


def _artifacts(run: StoredRun) -> list[str]:
    records = run.journal.records("artifact")
    rows = []
    for record in records[-_NEWEST:]:
        body = record.body
        gone = "" if (run.dir / body["path"]).exists() else " (not there any more)"
        rows.append(
            [
                body["name"],
                body["kind"],
                f"step {record.step:,}",
                text.size(body["bytes"]),
                f"{body['path']}{gone}",
            ]
        )
    return _with_more(text.table(rows).splitlines(), len(records))


def _events(run: StoredRun) -> list[str]:
    rows = []
    for event in run.events[-_NEWEST:]:
        body = event.body
        said = [str(value) for key, value in body.items() if key != "event" and value]
        rows.append(
            [
                text.moment(event.time),
                f"step {event.step:,}",
                body["event"],
                text.shortened(": ".join(said), 120),
            ]
        )
    return _with_more(text.table(rows).splitlines(), len(run.events))


def _with_more(lines: list[str], count: int) -> list[str]:
    return [f"... {count - len(lines)} earlier", *lines] if count > len(lines) else lines


def _loggers(run: StoredRun) -> list[str]:
    rows = []
    last = run.journal.last
    for name, state in run.journal.loggers().items():
        lacks = run.lacks(state.position)
        if run.status == "running":
            said = f"has {state.position:,} of {last:,} records so far"
        elif not lacks and state.ended:
            said = f"has all {last:,} records"
        else:
            missing = f"lacks {lacks:,} of {last:,} records" if lacks else "was not told of the end"
            said = f"{missing}: {replay_command(run.dir, name)}"
        rows.append([name, said])
    return text.table(rows).splitlines()


def replay_command(directory: Path, logger: str) -> str:
    """What sends a logger the records that it lacks."""
    return shlex.join(["trainbus", "replay", str(directory), "--to", logger])


# --- trainbus runs compare -----------------------------------------------------------------------


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
        click.echo(
            text.as_json(
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
        ["time", "", *(text.duration(run.seconds) for run in runs)],
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
    click.echo(text.table(rows, right=2))


def _cell(value: Any) -> str:
    return "-" if value is None else text.shortened(text.plain(value), 40)


def _section(title: str, count: int) -> list[list[str]]:
    return [[""] * (count + 2), [title, *[""] * (count + 1)]]


def _numbers(run: StoredRun, name: str) -> Numbers | None:
    with explained(run.dir):
        return Numbers.of(run.journal.series(name))


def _of_metric(name: str, each: Sequence[Numbers | None]) -> list[list[str]]:
    """A metric's rows: the last values, and the best where the name tells which those are."""
    rows = [[f"  {name}", "last", *(text.number(one.last if one else None) for one in each)]]
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
                    text.number(value) + (mark or ("  " if spaced else ""))
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
