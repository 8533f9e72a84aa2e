"""The directories of runs: one for each run, and the checkpoint in them that `resume` means."""

from __future__ import annotations

import logging
import re
from datetime import datetime
from pathlib import Path

from trainbus.checkpoints import archive
from trainbus.errors import CheckpointError, UsageError
from trainbus.storage.lock import Hold, hold

logger = logging.getLogger("trainbus")


def make(parent: Path, name: str) -> Hold:
    """Make and hold a directory in `parent` that no other run has, named by time and run."""
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
        return Hold(path)
    raise UsageError(f"run_dir={str(parent)!r}: no free name for {stem}")


def resume_from(parent: Path, resume: str | Path, name: str) -> tuple[Path | None, Hold | None]:
    """The checkpoint that `fit(resume=...)` means, and its run's directory to go on in.

    No checkpoint is a run that starts anew. No directory is a run that goes on in one of its own:
    the checkpoint lies elsewhere, or another process is at work where it lies.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    path = _find(parent, resume, name)
    if path is None or path.parent.name != "checkpoints":
        return path, None
    held = hold(path.parent.parent)
    if held is None:
        logger.warning(
            "another process is at work in %s: this run %s in a directory of its own",
            path.parent.parent, "begins anew" if resume == "auto" else "goes on",
        )  # fmt: skip
        if resume == "auto":
            path = None
    if path is not None and archive.about(path)["status"] == "failed":
        logger.warning(
            "%s was written when the run failed: the batch that failed is made again, so that the "
            "end may differ in bits from that of a run that did not fail", path,
        )  # fmt: skip
    return path, held


def _find(parent: Path, resume: str | Path, name: str) -> Path | None:
    if resume not in ("auto", "best"):
        archive.check(resume)
        return Path(resume).resolve()  # `best` is a link to it
    of_this_name = re.compile(rf".*_{re.escape(_file_name(name))}(_\d+)?")
    for directory in sorted(parent.glob("*/checkpoints"), reverse=True):
        if not of_this_name.fullmatch(directory.parent.name):
            continue
        path = directory / "best" if resume == "best" else archive.newest_valid(directory)
        if path is not None and path.exists():
            return path
    if resume == "best":
        raise CheckpointError(f"resume='best': no run in {parent} kept a best checkpoint")
    return None


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "_", text)[:80]
