"""Files and directories that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a directory to, which takes its place at the end.

    It is flushed to the disk and renamed, so that at any time either all of it is at `path`, or
    what was there before. Where writing fails nothing is left of it.

    Raises:
        OSError: it cannot be written, or renamed.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    remove(beside)
    try:
        yield beside
        sync(beside)
        if beside.is_dir() and path.exists():  # no system renames over a directory
            old = path.with_name(f".{path.name}.old")
            remove(old)
            path.rename(old)
            beside.rename(path)
            sync(path.parent)
            remove(old)
        else:
            beside.replace(path)
            sync(path.parent)
    finally:
        remove(beside)


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


def sync(path: Path) -> None:
    """Flush a file to the disk, or the renames in a directory, where the system knows how."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
