"""The saved states in a directory: their names, and the link to the best."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from trainbus.storage.untrusted import Unfit, inside

#: What the directory of a state is called.
FORM = r"(?:step|best|exception)-(\d{8,20})"
_NAME = re.compile(FORM)


def found(directory: Path | None) -> set[str]:
    """The names of the states in a directory."""
    if directory is None or not directory.is_dir():
        return set()
    return {
        each.name
        for each in directory.iterdir()
        if _NAME.fullmatch(each.name) and not each.is_symlink()
    }


def remove(directory: Path, name: str) -> None:
    """Remove a state, if it is one of this directory; a link to another place is let be."""
    with contextlib.suppress(Unfit):
        shutil.rmtree(inside(directory, name, form=FORM), ignore_errors=True)


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
