"""`trainbus runs`: list, show, compare, plot, export and back up runs; none imports torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trainbus.errors import UsageError, nearest

F = TypeVar("F", bound=Callable[..., Any])
_DIRECTORY = "runs"


class Runs(click.Group):
    """A group that lists runs when no verb is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` in front of what begins with no verb."""
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def in_directory(command: F) -> F:
    """Give a verb `--dir DIRECTORY`."""
    return click.option(
        "--dir",
        "parent",
        type=click.Path(path_type=Path),
        default=_DIRECTORY,
        show_default=True,
        metavar="DIRECTORY",
        help="Where runs are looked for by name.",
    )(command)


def _output(default: str, metavar: str, text: str) -> Callable[[F], F]:
    """Where a command writes."""
    return click.option(
        "-o", "--output", type=click.Path(path_type=Path), default=default, show_default=True,
        metavar=metavar, help=text,
    )  # fmt: skip


def _metrics(text: str) -> Callable[[F], F]:
    return click.option("--metric", "metrics", multiple=True, metavar="NAME", help=text)


def _json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")(command)


_run = click.argument("name", metavar="RUN")
_runs = click.argument("names", metavar="RUN...", nargs=-1, required=True)


@click.group(cls=Runs)
def runs() -> None:
    """List, show, compare, plot, export and back up runs.

    Without a verb it lists those in ./runs, or in the directories that are given: trainbus runs
    [DIRECTORY...]. A RUN is the path of a run's directory; or, of a directory in ./runs (--dir),
    the name or a part of it that no other has; or `latest`.
    """


@runs.command("list")
@click.argument("parents", metavar="[DIRECTORY]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--dir", "parent", type=click.Path(path_type=Path), metavar="DIRECTORY", hidden=True
)  # as the other verbs have it
@_metrics("Show this one, or all that a pattern (valid/*) means; may be given again.")
@click.option("--lowest", metavar="NAME", help="Those with the lowest value of a metric first.")
@click.option("--highest", metavar="NAME", help="Those with the highest value of a metric first.")
@_json
def list_(
    parents: tuple[Path, ...],
    parent: Path | None,
    metrics: tuple[str, ...],
    lowest: str | None,
    highest: str | None,
    as_json: bool,
) -> None:
    """List runs, the newest first, and their metrics."""
    from trainbus.runs.list import show_list

    if lowest and highest:
        raise UsageError("give --lowest or --highest, not both")
    for each in parents:
        if not each.is_dir() and len(each.parts) == 1:
            near = nearest(str(each), runs.commands)
            raise UsageError(f"{str(each)!r} is neither a directory nor a verb of runs{near}")
    show_list(
        [*parents, *([parent] if parent else [])] or [Path(_DIRECTORY)],
        metrics,
        "lowest" if lowest else "highest" if highest else None,
        lowest or highest,
        as_json,
    )


@runs.command()
@_run
@in_directory
@_metrics("Show this one, or all that a pattern (valid/*) means; may be given again.")
@_json
def show(name: str, parent: Path, metrics: tuple[str, ...], as_json: bool) -> None:
    """Show a run.

    Its parameters, tags, metrics, artifacts and events, and what its loggers lack.
    """
    from trainbus.runs.show import show_run
    from trainbus.runs.stored_run import opened

    with opened([name], parent) as (run,):
        show_run(run, metrics, as_json)


@runs.command()
@_runs
@in_directory
@_metrics("Compare this one, or all that a pattern (valid/*) means; may be given again.")
@_json
def compare(names: tuple[str, ...], parent: Path, metrics: tuple[str, ...], as_json: bool) -> None:
    """Compare runs.

    Shows parameters that differ, and the last and the best values of metrics.
    """
    from trainbus.runs.compare import show_comparison
    from trainbus.runs.stored_run import opened

    with opened(names, parent) as stored:
        show_comparison(stored, metrics, as_json)


@runs.command()
@_runs
@_output("runs.html", "FILE", "A .html file, which needs nothing else, or a .png.")
@in_directory
@_metrics("Draw this one, or all that a pattern (valid/*) means; may be given again.")
@click.option("--x", "axis", type=click.Choice(["step", "time"]), default="step", show_default=True)
@click.option("--log", "logarithmic", is_flag=True, help="A logarithmic scale of values.")
def plot(
    names: tuple[str, ...],
    output: Path,
    parent: Path,
    metrics: tuple[str, ...],
    axis: str,
    logarithmic: bool,
) -> None:
    """Draw metrics as a page of charts or a PNG."""
    from trainbus.runs.plot import write
    from trainbus.runs.stored_run import opened

    with opened(names, parent) as stored:
        write(stored, output, metrics, by_time=axis == "time", logarithmic=logarithmic)


@runs.command()
@_runs
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, allow_dash=True),
    default="-",
    show_default="CSV to the terminal",
    metavar="FILE",
    help="A .csv or a .parquet file.",
)
@in_directory
@_metrics("Export this one, or all that a pattern (valid/*) means; may be given again.")
def export(names: tuple[str, ...], output: Path, parent: Path, metrics: tuple[str, ...]) -> None:
    """Write metrics as CSV or Parquet.

    A table with the columns run, name, step, time (seconds since the epoch) and value.
    """
    from trainbus.runs.export import write
    from trainbus.runs.stored_run import opened

    with opened(names, parent) as stored:
        write(stored, output, metrics)


@runs.command()
@_runs
@_output("backups", "DIRECTORY", "Where the copies go, each under its run's name.")
@in_directory
def backup(names: tuple[str, ...], output: Path, parent: Path) -> None:
    """Copy runs, also those at work.

    A copy is whole: states, journal, artifacts. A training goes on from it with
    run_dir=DIRECTORY and resume="auto". A copy of before is replaced.
    """
    from trainbus.runs.backup import backup_all

    backup_all(names, parent, output)
