"""The checkpoint that `fit(resume=...)` means, and the directory that the run goes on in."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from trainbus.checkpoints import archive
from trainbus.errors import CheckpointError
from trainbus.storage.files import shown
from trainbus.storage.lock import DirectoryLock, lock
from trainbus.storage.run_dir import file_name

logger = logging.getLogger("trainbus")

#: How the name of a run's directory begins.
_TIME = r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\dZ?"


def resume_from(
    parent: Path, resume: str | Path, name: str
) -> tuple[Path | None, DirectoryLock | None]:
    """The checkpoint that `fit(resume=...)` means, and its run's directory to go on in.

    No checkpoint is a run that starts again. No directory is a run that goes on in one of its own:
    the checkpoint lies elsewhere, or another process is at work where it lies.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged.
    """
    path = _find(parent, resume, name)
    directory = None if path is None else _run_directory(path)
    if path is None or directory is None:
        return path, None
    held = lock(directory)
    if held is None:
        logger.warning(
            "another process is at work in %s: this run %s in a directory of its own",
            directory, "begins again" if resume == "auto" else "goes on",
        )  # fmt: skip
        if resume == "auto":
            path = None
    if path is not None and archive.about(path).get("status") in archive.BROKEN:
        logger.warning(
            "%s was written when an exception ended the run: its batch is made again, so that the "
            "end may differ in bits from that of a run that was left alone", path,
        )  # fmt: skip
    return path, held


def _run_directory(path: Path) -> Path | None:
    """The directory of the run that keeps a checkpoint, or None: it lies elsewhere."""
    for kept in (path.parent, path.parent.parent):
        if kept.name == "checkpoints":
            return kept.parent
    return None


def _find(parent: Path, resume: str | Path, name: str) -> Path | None:
    if resume not in ("auto", "best"):
        archive.check_state(resume)
        return archive.place(resume).resolve()  # `best` leads to it
    of_this_name = states_of(parent, name)
    for directory in sorted(of_this_name, key=_newest_last, reverse=True):
        path = _best(directory) if resume == "best" else archive.newest_valid(directory)
        if path is not None and archive.about(path).get("run") == name:
            return path
    if resume == "best":
        raise CheckpointError(f"resume='best': no run in {shown(parent)} kept a best checkpoint")
    return None


def states_of(parent: Path, name: str) -> list[Path]:
    """The directories of states of all runs of a name."""
    of_this_name = re.compile(rf"{_TIME}_{re.escape(file_name(name))}(_\d+)?")
    return [
        directory
        for directory in parent.glob("*/checkpoints")
        if of_this_name.fullmatch(directory.parent.name)
    ]


def _newest_last(directory: Path) -> tuple[int, str]:
    """By the count of states; those that were written before there was one by their names."""
    return archive.last_order(directory), directory.parent.name


def newest(parent: Path, which: str, name: str) -> Path:
    """The best or the last checkpoint of the newest run of a name.

    Raises:
        CheckpointError: there is none.
    """
    path = _find(parent, "best" if which == "best" else "auto", name)
    if path is None:
        raise CheckpointError(f"no run of {name} in {shown(parent)} kept a checkpoint")
    return path


def best(directory: Path) -> Path:
    """The best of the checkpoints of a run. Raises `CheckpointError`."""
    if (path := _best(directory)) is None:
        raise CheckpointError(f"{shown(directory)} has no best checkpoint")
    return path


def _best(directory: Path) -> Path | None:
    """The best checkpoint; of several plugins that keep one, the user says which."""
    found = [each for each in (directory / "best", *directory.glob("*/best")) if each.exists()]
    if len(found) > 1:
        raise CheckpointError(
            f"resume='best': there are several, {', '.join(map(str, found))}; give the path of one"
        )
    return archive.place(found[0]).resolve() if found else None
