"""The directories of runs: one for each run, and the checkpoints in them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from trainbus import checkpoint
from trainbus.errors import CheckpointError, UsageError


def make(parent: Path, name: str) -> Path:
    """Make a directory in `parent` that no other run has, named by time and run."""
    stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{_file_name(name)}"
    for number in range(1, 10_000):
        path = parent / (stem if number == 1 else f"{stem}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            where = f"run_dir={str(parent)!r}"
            raise UsageError(f"{where}: cannot make {path}: {error}") from None
        return path
    raise UsageError(f"run_dir={str(parent)!r}: no free name for {stem}")


def find_checkpoint(parent: Path, resume: str | Path, name: str) -> Path | None:
    """The checkpoint that `fit(resume=...)` means: see there. Raises `CheckpointError`."""
    if resume not in ("auto", "best"):
        checkpoint.check(resume)
        return Path(resume)
    of_this_name = re.compile(rf".*_{re.escape(_file_name(name))}(_\d+)?")
    for directory in sorted(parent.glob("*/checkpoints"), reverse=True):
        if not of_this_name.fullmatch(directory.parent.name):
            continue
        path = directory / "best" if resume == "best" else checkpoint.newest_valid(directory)
        if path is not None and path.exists():
            return path
    if resume == "best":
        raise CheckpointError(f"resume='best': no run in {parent} kept a best checkpoint")
    return None


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:80]
