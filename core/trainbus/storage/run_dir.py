"""The directory of a run: a new one for each, made when something is to be written."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from trainbus.errors import UsageError
from trainbus.storage.files import cut, make_directory, shown, sync_directory
from trainbus.storage.lock import DirectoryLock

logger = logging.getLogger("trainbus")


class RunDirectory:
    """The directory of one run: made, and locked, when its path is first asked for.

    Args:
        parent: where it is made; an absolute path, since a process may change its directory.
        name: the run's name, a part of the directory's.
        temporary: it lies elsewhere, and is removed with its release.
        lock: the directory of an earlier run to go on in, locked.
    """

    def __init__(
        self, parent: Path, name: str, temporary: bool = False, lock: DirectoryLock | None = None
    ) -> None:
        self._parent = parent
        self._name = name
        self._temporary = temporary
        self._lock = lock

    @property
    def is_made(self) -> bool:
        """Whether it is there."""
        return self._lock is not None

    @property
    def path(self) -> Path:
        """The directory; one that was removed or moved away while the run lasts is made anew.

        Raises:
            UsageError: it cannot be made, or another run has it now.
        """
        if self._lock is None:
            if self._temporary:
                path = Path(tempfile.mkdtemp(prefix="trainbus-dry-run-"))
            else:
                path = _make(self._parent, self._name)
            self._lock = DirectoryLock(path)
        self._stay(self._lock)
        return self._lock.directory

    def _stay(self, lock: DirectoryLock) -> None:
        place = lock.directory
        try:
            renewed = lock.renew()
        except BlockingIOError:
            raise UsageError(
                f"{place} was removed or moved away while the run was at work, and another run "
                "has it now"
            ) from None
        except OSError as error:
            raise UsageError(f"{place} was removed or moved away: {error}") from None
        if renewed:
            logger.warning("%s was removed or moved away: it is made anew, and locked", place)

    def release(self) -> None:
        """Let other runs have it."""
        if self._lock is not None:
            self._lock.release()
            if self._temporary:
                shutil.rmtree(self._lock.directory, ignore_errors=True)


class BorrowedDirectory(RunDirectory):
    """The directory that another process of the same run made, and holds.

    Args:
        path: it; None where that process made none.
    """

    def __init__(self, path: Path | None) -> None:
        super().__init__(Path(), "")
        self._borrowed = path

    @property
    def is_made(self) -> bool:
        """See `RunDirectory`."""
        return self._borrowed is not None

    @property
    def path(self) -> Path:
        """See `RunDirectory`."""
        if self._borrowed is None:
            raise UsageError(
                "run.dir: of several processes the first makes the directory, before a fit or "
                "where a logger is active; this run has none"
            )
        return self._borrowed


def _make(parent: Path, name: str) -> Path:
    """A directory in `parent` that no other run has, named by time and run."""
    stem = f"{datetime.now(UTC):%Y-%m-%d_%H-%M-%SZ}_{file_name(name)}"
    for number in range(1, 10_000):
        path = parent / (stem if number == 1 else f"{stem}_{number}")
        try:
            make_directory(parent)
            path.mkdir()
            sync_directory(parent)
        except FileExistsError:
            continue
        except OSError as error:
            where = f"run_dir={str(shown(parent))!r}"
            raise UsageError(f"{where}: cannot make {shown(path)}: {error}") from None
        return path
    raise UsageError(f"run_dir={str(shown(parent))!r}: no free name for {stem}")


def file_name(text: str) -> str:
    """A text as a part of a directory's name, of at most 80 bytes."""
    return cut(re.sub(r"[^\w.-]+", "_", text), 80)
