"""The directories of runs: one for each run, held while it lasts, and the checkpoints in them."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
from datetime import datetime
from pathlib import Path

from trainbus import checkpoint
from trainbus.errors import CheckpointError, UsageError

logger = logging.getLogger("trainbus")

#: Directories that runs of this process hold; the system's locks do not part threads.
_held: set[Path] = set()


class Hold:
    """A directory that one run has for itself, against other processes too, until `release`.

    The lock is one of the process: it goes when the process dies, however that happens, and
    workers that were forked do not have it. Where the system has no such locks, or the file
    system keeps none, only runs of this process are kept apart.
    """

    def __init__(self, directory: Path) -> None:
        """Take the directory. Raises `BlockingIOError` when another run has it."""
        self.directory = directory
        self._place = directory.resolve()
        if self._place in _held:
            raise BlockingIOError
        self._file: int | None = None
        if sys.platform != "win32":
            import fcntl

            self._file = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):  # systems differ
                os.close(self._file)
                raise BlockingIOError from None
            except OSError:  # a file system without locks
                pass
        _held.add(self._place)

    def release(self) -> None:
        """Give the directory free; more than once does no harm."""
        _held.discard(self._place)
        if self._file is not None:
            os.close(self._file)
            self._file = None


def hold(directory: Path) -> Hold | None:
    """Hold a directory that exists, or None while another run has it."""
    with contextlib.suppress(BlockingIOError):
        return Hold(directory)
    return None


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
    if path is not None and checkpoint.about(path)["status"] == "failed":
        logger.warning(
            "%s was written when the run failed: the batch that failed is made again, so that the "
            "end may differ in bits from that of a run that did not fail", path,
        )  # fmt: skip
    return path, held


def _find(parent: Path, resume: str | Path, name: str) -> Path | None:
    if resume not in ("auto", "best"):
        checkpoint.check(resume)
        return Path(resume).resolve()  # `best` is a link to it
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
