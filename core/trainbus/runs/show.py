"""`trainbus runs show`: what one run logged, as text or JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainbus import terminal
from trainbus.records.journal import Record
from trainbus.runs.stored_run import (
    Numbers,
    StoredRun,
    chosen,
    explained,
    flat,
)

#: Events and artifacts that are printed, of each.
_NEWEST = 12


def show_run(run: StoredRun, patterns: Sequence[str], as_json: bool) -> None:
    """All that is known of one run."""
    with explained(run.dir):
        metrics = chosen(patterns, run.names) if patterns else run.names
        if as_json:
            terminal.say(terminal.as_json(_as_data(run, metrics)))
            return
        columns = terminal.width()
        terminal.say(_head(run, columns))
        for title, lines in (
            ("parameters", _pairs(flat(run.journal.params()))),
            ("tags", _pairs(flat(run.journal.tags()))),
            ("metrics", _metrics(run, metrics, columns or 100)),
            ("artifacts", _artifacts(run)),
            ("events", _events(run)),
            ("loggers", _loggers(run)),
        ):
            if lines:
                terminal.say(f"\n{title}")
                terminal.say("\n".join(f"  {line}" for line in lines))


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
        "started": f"{terminal.moment(run.started)} on {about.get('host')}, "
        f"{terminal.duration(run.seconds)} at work",
        "steps": f"{run.steps:,}",
        "directory": str(run.dir),
        "command": shlex.join(command) if isinstance(command, list) else "",
        **{str(key): str(value) for key, value in dict(about.get("header") or {}).items()},
    }
    width = max(map(len, facts))
    room = columns and columns - width - 2
    return "\n".join(
        f"{key.ljust(width)}  {terminal.shortened(value, room)}"
        for key, value in facts.items()
        if value
    )


def _pairs(values: Mapping[str, Any]) -> list[str]:
    rows = [[name, terminal.shortened(terminal.plain(value), 80)] for name, value in values.items()]
    return terminal.table(rows).splitlines()


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
                *map(terminal.number, (numbers.last, numbers.lowest, numbers.highest)),
                f"{numbers.count:,}{odd}",
            ]
        )
        curves.append(series.values)
    if not curves:
        return []
    head, *lines = terminal.table(rows, right=1).splitlines()
    longest = max(map(len, [head, *lines]))
    room = min(max(columns - longest - 4, 8), 60)
    return [
        head,
        *(
            f"{line.ljust(longest)}  {terminal.sparkline(curve, room)}".rstrip()
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
                terminal.size(body["bytes"]),
                f"{body['path']}{gone}",
            ]
        )
    return _with_more(terminal.table(rows).splitlines(), len(records))


def _events(run: StoredRun) -> list[str]:
    rows = []
    for event in run.events[-_NEWEST:]:
        body = event.body
        said = [str(value) for key, value in body.items() if key != "event" and value]
        rows.append(
            [
                terminal.moment(event.time),
                f"step {event.step:,}",
                body["event"],
                terminal.shortened(": ".join(said), 120),
            ]
        )
    return _with_more(terminal.table(rows).splitlines(), len(run.events))


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
    return terminal.table(rows).splitlines()


def replay_command(directory: Path, logger: str) -> str:
    """What sends a logger the records that it lacks."""
    return shlex.join(["trainbus", "replay", str(directory), "--to", logger])
