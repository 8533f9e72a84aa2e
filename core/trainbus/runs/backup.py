"""`trainbus runs backup`: copies of runs, whole, also of one that is at work."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from trainbus import terminal
from trainbus.errors import JournalError, UsageError
from trainbus.records.artifacts import LIVE
from trainbus.records.journal import FILE_NAME, JournalFile
from trainbus.runs.stored_run import find
from trainbus.storage.files import make_directory, remove, replacing, shown
from trainbus.storage.lock import FILE_NAME as LOCK

_STATES = "checkpoints"
_MANIFEST = "manifest.json"


def backup_all(names: Sequence[str], parent: Path, output: Path) -> None:
    """Copy runs into a directory, each under its own name.

    Args:
        names: the runs (see `stored_run.find`).
        parent: the directory of runs.
        output: where the copies go.

    Raises:
        UsageError: there is no such run, or the copy cannot be written.
        JournalError: its journal cannot be read.
    """
    for path in dict.fromkeys(find(name, parent).resolve() for name in names):
        target = output / path.name
        backup(path, target)
        terminal.say(f"{shown(path)}: copied to {target}")


def backup(directory: Path, target: Path) -> None:
    """Copy the directory of a run so that a run can go on from the copy.

    The states are copied first and the journal after them, so that it holds all that was logged
    before each of them; its lock and its log, which belong to the process at work, are left out.
    A copy of before gives way when the new one is whole.

    Raises:
        UsageError: something else is at the target, or it cannot be written.
        JournalError: the journal cannot be read.
    """
    if not (directory / FILE_NAME).is_file():
        raise JournalError(f"{directory} has no {FILE_NAME}: no run logged there")
    if target.resolve().is_relative_to(directory.resolve()):
        raise UsageError(f"{target} is in the run's own directory; give another one")
    if target.exists() and not (target / FILE_NAME).is_file():
        raise UsageError(f"{target} exists and is no run; give another directory")
    try:
        make_directory(target.parent)
        with replacing(target) as beside:
            make_directory(beside)
            if (directory / _STATES).is_dir():
                _copy_states(directory / _STATES, beside / _STATES)
            for path in directory.glob("journal*.db"):
                if LIVE.fullmatch(path.name):
                    with JournalFile.open(path) as journal:
                        journal.backup(beside / path.name)
            _copy_rest(directory, beside)
            (beside / LOCK).touch()  # which nobody holds: the copy is of a run that is not at work
    except OSError as error:
        raise UsageError(f"{directory} cannot be copied to {target}: {error}") from error


def _copy_states(source: Path, target: Path) -> None:
    """Copy states, of which some go and others come meanwhile: each is whole, or left out."""
    done: set[Path] = set()
    while fresh := {path.parent for path in source.rglob(_MANIFEST)} - done:
        done |= fresh
        for state in sorted(fresh):
            copy = target / state.relative_to(source)
            if any(part.startswith(".") for part in state.relative_to(source).parts):
                continue  # half-written, or on its way out
            with suppress(FileNotFoundError, shutil.Error):
                shutil.copytree(state, copy)
            if not _is_whole(copy):
                remove(copy)
    for link in source.rglob("best"):
        if link.is_symlink() or link.is_file():
            _copy(link, target / link.relative_to(source))


def _is_whole(state: Path) -> bool:
    try:
        parts = json.loads((state / _MANIFEST).read_text("utf-8"))["parts"]
        return all(
            (state / f"{name}.pt").stat().st_size == part["bytes"] for name, part in parts.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _copy_rest(source: Path, target: Path) -> None:
    """Copy what else lies there: regular files, directories and links."""
    for path in sorted(source.iterdir()):
        if LIVE.fullmatch(path.name) or path.name == _STATES or path.suffix in (".part", ".old"):
            continue
        if path.is_dir() and not path.is_symlink():
            (target / path.name).mkdir()
            _copy_rest(path, target / path.name)
        else:
            _copy(path, target / path.name)


def _copy(path: Path, target: Path) -> None:
    """Copy a regular file or a link, if it is still there."""
    with suppress(FileNotFoundError):
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(path.readlink())
        elif stat.S_ISREG(path.stat().st_mode):
            shutil.copy2(path, target)
