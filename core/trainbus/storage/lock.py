"""A lock for each run's directory: one run at a time writes there."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from time import sleep

from trainbus.errors import UsageError
from trainbus.storage.files import make_directory, same_file

FILE_NAME = ".lock"
#: Locks that this process holds, by place; the system's locks do not part threads.
_held: dict[Path, DirectoryLock] = {}
#: Who only looks whether a directory is held has it for a moment: so often is tried again.
_TRIES = 5


class DirectoryLock:
    """A directory that one run has for itself, against other processes too, until `release`.

    The lock is one of the open file, and not of the process: it stays when anything in the process
    reads the file (a backup, a checksum). It goes when the process dies, however that happens, and
    workers that were forked do not have it. Where the system has no such locks, or the file
    system keeps none, only runs of this process are kept apart.
    """

    def __init__(self, directory: Path) -> None:
        """Take the directory. Raises `BlockingIOError` when another run has it."""
        self.directory = directory
        self._place = directory.resolve()
        self._renewing = threading.Lock()
        if self._place in _held:
            raise BlockingIOError
        self._file = _take(directory / FILE_NAME)
        _held[self._place] = self

    def renew(self) -> bool:
        """Take the directory again, where it was removed or moved away meanwhile.

        Returns:
            Whether that was so; it is made anew, then.

        Raises:
            OSError: it cannot be made; a `BlockingIOError` when another run has it now.
        """
        path = self.directory / FILE_NAME
        with self._renewing:
            if self._file is None or same_file(path, os.fstat(self._file)):
                return False
            make_directory(self.directory)
            before, self._file = self._file, _take(path)
            os.close(before)
            return True

    def release(self) -> None:
        """Release the directory. Calling it again does nothing."""
        if _held.get(self._place) is self:
            del _held[self._place]
        self.forget()

    def forget(self) -> None:
        """Close the file, as a forked process does: who has it open as well keeps the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _take(path: Path) -> int | None:
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if path.is_symlink() or path.is_dir():  # what somebody else put there
            raise UsageError(f"{path} is no lock of trainbus's: {error.strerror}") from error
        raise
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                os.close(file)
                raise
            sleep(0.02)
        except OSError:  # a file system without locks
            break
        else:
            break
    return file


def lock(directory: Path) -> DirectoryLock | None:
    """Lock a directory that exists; None while another run has it."""
    with contextlib.suppress(BlockingIOError):
        return DirectoryLock(directory)
    return None


@contextlib.contextmanager
def borrowed(directory: Path) -> Iterator[None]:
    """Have a directory for a moment: as who holds it in this process, or locked.

    Raises:
        BlockingIOError: another process has it.
    """
    if directory.resolve() in _held:
        yield
        return
    held = DirectoryLock(directory)
    try:
        yield
    finally:
        held.release()


def at_work(directory: Path) -> bool | None:
    """Whether a run holds the directory; None where the system or the file system cannot tell."""
    if directory.resolve() in _held:
        return True
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        file = os.open(directory / FILE_NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(file)
    return False


def _forget_all() -> None:
    for each in _held.values():
        each.forget()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
