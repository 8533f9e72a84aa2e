"""The saved states in a directory: their names, and the link to the best."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_NAME = re.compile(r"(?:step|best|exception)-(\d{8,})")


def found(directory: Path | None) -> set[str]:
    """The names of the states in a directory."""
    if directory is None or not directory.is_dir():
        return set()
    return {each.name for each in directory.iterdir() if _NAME.fullmatch(each.name)}


def step_of(name: str) -> int:
    """The step of a state, by its name."""
    match = _NAME.fullmatch(name)
    return -1 if match is None else int(match[1])


def point(link: Path, target: str | None) -> None:
    """Make a link lead to another directory, in one move; or to none."""
    if target is None:
        with contextlib.suppress(FileNotFoundError):
            link.unlink()
        return
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target, target_is_directory=True)
    temporary.replace(link)
