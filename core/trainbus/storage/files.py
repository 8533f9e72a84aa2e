"""The one way to write: files and directories that are whole on the disk, or not there.

A writer gets a path beside the place. What it wrote is flushed to the disk, takes the place in one
move, and the move is flushed in its directory: a full or failing disk, a kill or a loss of power
leave what was there before, or what is new.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

#: What a file system answers that cannot flush a directory; anything else is a fault of the disk.
_CANNOT = (
    errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM,
    errno.EISDIR,
)  # fmt: skip
#: The longest name that file systems take, in bytes.
_LONGEST = 255


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory to, which takes its place at the end.

    All of it is flushed to the disk and renamed, so that at any time either all of it is at
    `path`, or what was there before. Where anything fails, that is there still, or again, and
    nothing is left of the new one. For a directory that replaces another one, two renames are
    needed: what a process leaves that is killed between them is found by `present`.

    Raises:
        OSError: it cannot be written, flushed or renamed.
    """
    beside = _beside(path, f"{os.getpid()}.part")
    remove(beside)
    try:
        yield beside
        _sync_all(beside)
        _exchange(beside, path)
    finally:
        remove(beside)


def _exchange(new: Path, path: Path) -> None:
    """Put `new` at `path`; where that fails, what was there is there again."""
    if not (new.is_dir() and path.exists()):
        new.replace(path)
        sync_directory(path.parent)
        return
    old = _old(path)  # no system renames over a directory
    remove(old)
    path.rename(old)
    try:
        new.rename(path)
        sync_directory(path.parent)
    except BaseException as error:
        try:
            if path.exists():
                path.rename(new)
            old.rename(path)
        except OSError as another:
            raise OSError(f"{error}; what was there before is {old} now ({another})") from error
        raise
    remove(old)


def present(path: Path) -> Path:
    """Where a directory lies: at its path, or where a process left it that was killed meanwhile."""
    return _old(path) if not path.exists() and _old(path).is_dir() else path


def make_directory(path: Path) -> None:
    """Make a directory, and those above it; each is flushed in the one that holds it.

    Raises:
        OSError: one cannot be made, or something else is there.
    """
    missing = [path]
    while not (above := missing[-1].parent).is_dir() and above != missing[-1]:
        missing.append(above)
    for each in reversed(missing):
        if not each.is_dir():
            with contextlib.suppress(FileExistsError):  # by another process, or no directory
                each.mkdir()
            if not each.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each))
            sync_directory(each.parent)


def same_file(path: Path, known: os.stat_result) -> bool:
    """Whether what lies at a path now is what was looked at before."""
    try:
        return os.path.samestat(path.stat(), known)
    except OSError:
        return False


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def remove_leftovers(directory: Path) -> None:
    """Remove what killed processes left half-written in a directory."""
    for pattern in (".*.part", ".*.old"):
        for path in directory.glob(pattern):
            remove(path)


def shown(path: Path) -> Path:
    """A path as one would write it from here."""
    try:
        here = Path.cwd()
    except OSError:  # it was removed
        return path
    return path.relative_to(here) if path.is_relative_to(here) else path


def cut(name: str, size: int) -> str:
    """The beginning of a name, of at most so many bytes: file systems count these."""
    return name.encode(errors="replace")[:size].decode(errors="ignore")


def _beside(path: Path, suffix: str) -> Path:
    """The path of a hidden file in the same directory."""
    return path.with_name(f".{cut(path.name, _LONGEST - len(suffix) - 2)}.{suffix}")


def _old(path: Path) -> Path:
    return _beside(path, "old")


def _sync_all(path: Path) -> None:
    """Flush a file, or a directory with all that is in it. Raises `OSError`."""
    if path.is_symlink():
        return
    if not path.is_dir():
        _sync(path)
        return
    for each in sorted(path.iterdir()):
        _sync_all(each)
    sync_directory(path)


def sync_directory(path: Path) -> None:
    """Flush what was made, renamed or removed in a directory, where its file system can.

    Raises:
        OSError: the disk fails, or is full.
    """
    try:
        _sync(path)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise


def _sync(path: Path) -> None:
    # Windows flushes what was opened to write, and no directories.
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
