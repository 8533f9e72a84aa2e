"""The saved states in a directory: their names, and `best`, which leads to one of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from trainbus.errors import UsageError
from trainbus.storage.files import remove, replacing, sync_directory
from trainbus.storage.run_dir import file_name
from trainbus.storage.untrusted import Unfit, inside

#: What the directory of a state is called.
FORM = r"(?:step|best|exception)-(\d{8,20})"
_NAME = re.compile(FORM, re.ASCII)


def folder(plugin: str) -> str:
    """Where in `checkpoints` a plugin of this name keeps its states: in no place of a state's."""
    if plugin == "checkpoint":
        return ""
    name = file_name(plugin)
    is_taken = name.lower() in ("best", ".", "..") or step_of(name.lower()) >= 0
    return f"{name}_" if is_taken else name


def check_folder(plugin: str, others: Iterable[str]) -> None:
    """Refuse a name whose folder would be that of another plugin.

    Args:
        plugin: the name of a plugin that keeps states.
        others: the names of the others that do.

    Raises:
        UsageError: it has to have another name.
    """
    own = folder(plugin).lower()  # for disks that know no case
    for other in others:
        if folder(other).lower() == own:
            raise UsageError(
                f"{plugin!r} and {other!r} would both keep their states in checkpoints/{own}; "
                "give one of them another name"
            )


def found(directory: Path | None) -> set[str]:
    """The names of the states in a directory."""
    if directory is None or not directory.is_dir():
        return set()
    return {
        each.name
        for each in directory.iterdir()
        if _NAME.fullmatch(each.name) and not each.is_symlink()
    }


def discard(directory: Path, name: str) -> None:
    """Remove a state, if it is one of this directory; a link to another place is let be."""
    with suppress(Unfit):
        shutil.rmtree(inside(directory, name, form=FORM), ignore_errors=True)


def step_of(name: str) -> int:
    """The step of a state, by its name."""
    match = _NAME.fullmatch(name)
    return -1 if match is None else int(match[1])


def point(link: Path, target: str | None) -> None:
    """Make a link lead to another directory, in one move; or to none.

    Where the file system keeps no links it is a small file that holds the name. A copy of a state
    that is there in its place (the run was copied with its links followed) gives way.

    Raises:
        OSError: it can be neither.
    """
    if target is None or (link.is_dir() and not link.is_symlink()):
        remove(link)
    if target is None:
        return
    try:
        temporary = link.with_name(f".{link.name}.{os.getpid()}.part")
        remove(temporary)
        temporary.symlink_to(target, target_is_directory=True)
        temporary.replace(link)
        sync_directory(link.parent)
    except (OSError, NotImplementedError):
        with replacing(link) as beside:
            beside.write_text(target, "utf-8")


def leading_to(link: Path) -> Path:
    """The directory that a link of `point` leads to; any other path is returned as it is."""
    if link.is_symlink() or not link.is_file() or link.stat().st_size > 100:
        return link
    name = link.read_text("utf-8", errors="replace").strip()
    return link.with_name(name) if _NAME.fullmatch(name) else link
