"""Runs on the disk, as their journals tell of them."""

from __future__ import annotations

import math
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any, Literal

from trainbus.errors import JournalError, TrainbusError, UsageError, nearest
from trainbus.records.journal import FILE_NAME, JournalFile, Record
from trainbus.records.series import Series
from trainbus.storage.files import shown
from trainbus.storage.lock import at_work

Order = Literal["lowest", "highest"]

_BETTER_LOW = {"error", "loss", "mae", "mse", "nll", "perplexity", "ppl", "rmse", "wer"}
_BETTER_HIGH = {
    "acc", "accuracy", "auc", "auroc", "bleu", "dice", "f1", "iou", "map", "precision", "psnr",
    "r2", "recall", "reward", "score", "ssim", "top1", "top5",
}  # fmt: skip


class StoredRun:
    """A run that a directory holds, to be read.

    Raises:
        JournalError: the directory has no journal, or it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.dir = directory
        self.journal = JournalFile.open(directory / FILE_NAME)
        try:
            with explained(directory):
                self.about = self.journal.about()
                self.events: list[Record] = self.journal.records("event")
        except BaseException:
            self.journal.close()
            raise

    @property
    def id(self) -> str:
        """The name of its directory."""
        return self.dir.resolve().name

    @property
    def started(self) -> float:
        """When it started, in seconds since the epoch."""
        return float(self.about.get("started", 0.0))

    @cached_property
    def status(self) -> str:
        """How it ended; else `running`, `killed`, or `unfinished`: the host that knows is another.

        A process of the number that is known may be another's, so the lock has the last word.
        """
        end = self.end
        if end is not None:
            return str(end.body["status"])
        if self.about.get("host") != platform.node() or sys.platform == "win32":
            return "running" if at_work(self.dir) else "unfinished"
        alive = _is_alive(self.about.get("pid"))
        return "running" if alive and at_work(self.dir) is not False else "killed"

    @property
    def end(self) -> Record | None:
        """The event that tells how the run ended, if it did since it was started last."""
        ends = [event for event in self.events if event.body["event"] in ("start", "end")][-1:]
        return ends[0] if ends and ends[0].body["event"] == "end" else None

    @cached_property
    def steps(self) -> int:
        """Optimizer steps that it is known to have made."""
        newest = self.journal.newest()
        return 0 if newest is None else newest[1]

    @cached_property
    def seconds(self) -> float:
        """How long it was at work, without the time between an end and a resumption."""
        starts = [event for event in self.events if event.body["event"] == "start"]
        if not starts:
            return 0.0
        last = [*(self.journal.newest(start.number) for start in starts[1:]), self.journal.newest()]
        ends = [record[2] for record in last if record is not None]
        if self.status == "running":
            ends[-1] = time()
        return max(0.0, sum(ends) - sum(start.time for start in starts))

    def lacks(self, position: int) -> int:
        """Records that a logger at this position does not have."""
        return self.journal.last - position if self.journal.after(position, 1) else 0

    @cached_property
    def latest(self) -> dict[str, float]:
        """The newest value of each metric."""
        return self.journal.latest()

    @cached_property
    def names(self) -> list[str]:
        """Its metrics."""
        return self.journal.names()

    def described(self) -> dict[str, Any]:
        """What a listing tells of it."""
        return {
            "run": self.id,
            "dir": str(self.dir),
            "name": self.about.get("name"),
            "stage": self.about.get("stage"),
            "status": self.status,
            "started": self.started,
            "seconds": round(self.seconds, 3),
            "steps": self.steps,
            "metrics": self.latest,
        }

    def close(self) -> None:
        """Close its journal."""
        self.journal.close()


@contextmanager
def explained(directory: Path) -> Iterator[None]:
    """What goes wrong in here is the fault of what the journal holds."""
    try:
        yield
    except (TrainbusError, OSError):  # the latter of what is written meanwhile
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise JournalError(f"cannot read {directory / FILE_NAME}: {reason}") from error


def _is_alive(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # another user's
        return True
    except (OSError, TypeError, ValueError, OverflowError):
        return False
    return True


# --- which runs are meant ------------------------------------------------------------------------


@contextmanager
def opened(names: Sequence[str], parent: Path) -> Iterator[list[StoredRun]]:
    """The runs that these names mean (see `find`), each once."""
    runs: list[StoredRun] = []
    try:
        for path in dict.fromkeys(find(name, parent).resolve() for name in names):
            runs.append(StoredRun(shown(path)))
        yield runs
    finally:
        for run in runs:
            run.close()


def find(name: str, parent: Path) -> Path:
    """The directory of a run.

    Args:
        name: the name of a directory in `parent`, or a part of it that no other has; `latest`; or
            the path of a directory.
        parent: the directory of runs.

    Raises:
        UsageError: no run is meant, or several are.
    """
    path = Path(name).expanduser()
    if path.name == FILE_NAME and path.is_file():
        path = path.parent
    there = {each.name: each for each in directories(parent)} if parent.is_dir() else {}
    if name in there:
        return there[name]
    if path.is_dir():
        return path
    if len(path.parts) > 1:
        raise UsageError(f"there is no run {name!r}: no such directory")
    if not parent.is_dir():
        raise UsageError(
            f"there is no run {name!r}: no such directory, and no directory of runs "
            f"{str(parent)!r} to look in: give --dir DIRECTORY"
        )
    if name == "latest" and there:
        return max(there.values(), key=_started)
    meant = [each for each in there if each.startswith(name)] or [e for e in there if name in e]
    if len(meant) > 1:
        more = f" and {len(meant) - 5} more" if len(meant) > 5 else ""
        raise UsageError(
            f"{name!r} may be any of {len(meant)} runs in {parent}: "
            f"{', '.join(sorted(meant)[:5])}{more}"
        )
    if not meant:
        near = nearest(name, there, 0.3) if there else ": it holds no run."
        raise UsageError(f"there is no run {name!r} in {parent}{near}")
    return there[meant[0]]


def directories(parent: Path) -> list[Path]:
    """The directories of runs in a directory, sorted by name."""
    return sorted(path.parent for path in parent.glob(f"*/{FILE_NAME}"))


def _started(directory: Path) -> float:
    try:
        run = StoredRun(directory)
    except JournalError:
        return 0.0
    with explained(directory):
        run.close()
        return run.started


@dataclass
class Damaged:
    """A directory whose journal cannot be read."""

    dir: Path
    why: str


def each_of(parents: Sequence[Path]) -> Iterator[StoredRun | Damaged]:
    """The runs in some directories, which may be those of runs themselves; one is open at a time.

    Raises:
        UsageError: there is no such directory.
    """
    for parent in parents:
        if not parent.is_dir():
            raise UsageError(f"there is no directory {str(parent)!r}")
        alone = (parent / FILE_NAME).is_file()
        for path in [parent] if alone else directories(parent):
            try:
                run = StoredRun(path)
            except JournalError as error:
                yield Damaged(path, str(error))
                continue
            try:
                yield run
            finally:
                run.close()


# --- what they logged ----------------------------------------------------------------------------


def chosen(patterns: Sequence[str], logged: Iterable[str]) -> list[str]:
    """The metrics among those logged that names or patterns (`valid/*`) mean; all without any.

    Raises:
        UsageError: there is no such metric.
    """
    names = sorted({*logged})
    if not patterns:
        return names
    found: list[str] = []
    for pattern in patterns:
        meant = [pattern] if pattern in names else [n for n in names if fnmatchcase(n, pattern)]
        if not meant:
            has = f" There are {', '.join(names[:12])}" if names else " None was logged"
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            raise UsageError(
                f"no metric {pattern!r} was logged{nearest(pattern, names, 0.4)}{has}{more}"
            )
        found += meant
    return list(dict.fromkeys(found))


@dataclass
class Numbers:
    """One metric in numbers; without a finite value, the lowest and the highest are None."""

    last: float
    lowest: float | None
    highest: float | None
    count: int
    #: Values that are NaN or infinite.
    not_finite: int

    @classmethod
    def of(cls, series: Series) -> Numbers | None:
        """Those of a series, if it has values."""
        values = series.values
        if not values:
            return None
        finite = [value for value in values if math.isfinite(value)]
        return cls(
            values[-1],
            min(finite, default=None),
            max(finite, default=None),
            len(values),
            len(values) - len(finite),
        )


def flat(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Parameters with those in tables named `table.key`."""
    found: dict[str, Any] = {}
    for key, value in params.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found


def all_names(runs: Iterable[StoredRun]) -> list[str]:
    """The metrics of several runs."""
    return [name for run in runs for name in run.names]


def labels(runs: Sequence[StoredRun]) -> list[str]:
    """What to call runs beside each other: their ids, or their paths where ids are the same."""
    ids = [run.id for run in runs]
    return ids if len(set(ids)) == len(ids) else [str(run.dir) for run in runs]


def better(name: str) -> Order | None:
    """Whether lower or higher values of a metric are better, as far as its name tells."""
    words = {*re.split(r"[^a-z0-9]+", name.lower())}
    low, high = words & _BETTER_LOW, words & _BETTER_HIGH
    if bool(low) == bool(high):
        return None
    return "lowest" if low else "highest"
