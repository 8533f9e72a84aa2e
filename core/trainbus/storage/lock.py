"""A lock for each run's directory: one run at a time writes there."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

#: Directories that runs of this process hold; the system's locks do not part threads.
_held: set[Path] = set()


class DirectoryLock:
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
        """Release the directory. Calling it again does nothing."""
        _held.discard(self._place)
        if self._file is not None:
            os.close(self._file)
            self._file = None


def lock(directory: Path) -> DirectoryLock | None:
    """Lock a directory that exists; None while another run has it."""
    with contextlib.suppress(BlockingIOError):
        return DirectoryLock(directory)
    return None


def at_work(directory: Path) -> bool | None:
    """Whether a run holds the directory; None where the system or the file system cannot tell."""
    if directory.resolve() in _held:
        return True
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        file = os.open(directory / ".lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None
    finally:
        os.close(file)
    return False
