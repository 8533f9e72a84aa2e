"""`trainbus fit`: a training as a file says it."""

from __future__ import annotations

import shutil
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from trainbus import terminal
from trainbus.errors import TrainbusError, UsageError
from trainbus.events.plugin import Plugin
from trainbus.fit.config import Config
from trainbus.plugins.discovery import Installed
from trainbus.plugins.selection import command_line
from trainbus.storage.files import replacing

if TYPE_CHECKING:
    from trainbus.engine.run import Run


def fit(path: Path, settings: Sequence[str], resume: str | None) -> None:
    """Check the file, make what it says, and train; ends with the run's status and directory.

    Args:
        path: the file.
        settings: what `--set` says.
        resume: as in `Trainer.fit`.
    """
    config = Config(path, settings)
    command_line.set(replace(command_line.get(), config=config.project))
    config.check()
    runs: list[Run] = []
    with config.importable():
        trainer, task, train, valid = config.make()

        def note(run: Run) -> None:
            runs.append(run)

        def begin(run: Run) -> None:
            if not run.dry_run and not (run.dir / "config.toml").exists():
                write_config(run)

        def write_config(run: Run) -> None:
            write(run.dir / "config.toml", config, trainer.loaded)

        trainer.on("run_start", tryfirst=True)(note)
        trainer.on("fit_start", rank_zero=True)(begin)
        # That of the run that is continued is replaced when its checkpoint fits.
        trainer.on("checkpoint_loaded", rank_zero=True)(write_config)

        try:
            trainer.fit(task, train, valid, resume=resume)
        except TrainbusError:
            if any(run.peers.failure_is_told for run in runs):
                sys.exit(1)
            raise
        except (
            Exception
        ):  # from the task, the data or a plugin: hours may be needed to see it again
            if not any(run.peers.failure_is_told for run in runs):
                traceback.print_exc()
            sys.exit(1)
        finally:
            for run in runs[:1]:
                if run.rank:  # the first process says it for all
                    continue
                terminal.say(f"{run.status}: {_place(run)}")


def fit_with(path: Path, settings: Sequence[str], processes: int, restarts: int) -> None:
    """Train in several processes of this machine, each with this command line.

    Args:
        path: the file.
        settings: what `--set` says.
        processes: how many.
        restarts: how often all are started again after a failure.
    """
    launchers = Installed().group("trainbus.launchers")
    if not launchers:
        raise UsageError("--nproc: nothing here starts processes; pip install trainbus-distributed")
    Config(path, settings).check()
    launch = next(iter(launchers.values())).load()
    sys.exit(launch(_without(sys.argv[1:], ("--nproc", "--restarts")), processes, restarts))


def _without(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without options that take a value."""
    kept, skip = [], False
    for each in arguments:
        if not (skip or each.partition("=")[0] in options):
            kept.append(each)
        skip = each in options
    return kept


def _place(run: Run) -> str:
    if run.dry_run:
        return "nothing is kept of a dry run"
    path = run.dir.resolve()
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def write(path: Path, config: Config, loaded: Sequence[Plugin]) -> None:
    """Write the composed configuration; another one of before is kept as `config-1.toml`, ..."""
    import tomli_w

    text = tomli_w.dumps(config.composed(path.parent, loaded))
    if path.exists():
        if path.read_text("utf-8") == text:
            return
        number = 1
        while (kept := path.with_stem(f"{path.stem}-{number}")).exists():
            number += 1
        with replacing(kept) as beside:
            shutil.copyfile(path, beside)
    with replacing(path) as beside:
        beside.write_text(text, "utf-8")
