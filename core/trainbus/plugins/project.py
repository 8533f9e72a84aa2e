"""The project's file: `trainbus.toml`, or `[tool.trainbus]` in `pyproject.toml`."""

from __future__ import annotations

import logging
import os
import stat
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from trainbus.errors import PluginError, nearest
from trainbus.plugins.policy import Policy, rules

logger = logging.getLogger("trainbus")

_KEYS = ("plugins", "options", "require", "forbid")


@dataclass(frozen=True)
class Project:
    """What a project's file says: which plugins, with which options."""

    path: Path | None = None
    plugins: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)

    @property
    def label(self) -> str:
        """The file's name, for messages."""
        return "no project file" if self.path is None else str(self.path)

    @property
    def folder(self) -> Path | None:
        """Where the file is: paths in it are meant from there."""
        return None if self.path is None else self.path.resolve().parent


def find_project(start: Path | None = None) -> Project:
    """The nearest project file at or above `start` (the working directory); empty if there is none.

    A file that somebody else may have written is left out, and that is told, since what it names is
    executed. `TRAINBUS_TRUST` names files to use all the same.

    Raises `PluginError` for a file that cannot be read or says what is not known.
    """
    start = (start or Path.cwd()).resolve()
    for directory in (start, *start.parents):
        for name in ("trainbus.toml", "pyproject.toml"):
            path = directory / name
            if not path.is_file():
                continue
            why = _foreign(path)
            table = {} if why and name == "trainbus.toml" else _read(path)
            if name == "pyproject.toml":
                tools = table.get("tool")
                table = tools.get("trainbus") if isinstance(tools, dict) else None
            if table is None:
                continue
            if why:
                _tell_foreign(path, why)
                continue
            return from_table(path, table)
    return Project()


def _foreign(path: Path) -> str:
    """Why a file may be somebody else's, or an empty text."""
    if not hasattr(os, "geteuid") or _is_trusted(path):
        return ""
    mine = {os.geteuid(), 0}
    if os.geteuid() == 0 and os.environ.get("SUDO_UID", "").isdigit():
        mine.add(int(os.environ["SUDO_UID"]))
    # Who may change the link, or the directory, has another file read.
    for what, found in (("it", path.stat()), ("the link", path.lstat())):
        if found.st_uid not in mine:
            return f"{what} belongs to another user ({found.st_uid})"
        if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode):
            return f"everybody may write to {what}"
    folder = path.resolve().parent.stat().st_mode
    if folder & stat.S_IWOTH and not folder & stat.S_ISVTX:
        return "everybody may write to its directory"
    return ""


def _is_trusted(path: Path) -> bool:
    """Whether `TRAINBUS_TRUST` names a file, in any way that a path can be written."""
    named = [each for each in os.environ.get("TRAINBUS_TRUST", "").split(os.pathsep) if each]
    return "*" in named or any(
        Path(each).expanduser().resolve() == path.resolve() for each in named
    )


@cache
def _tell_foreign(path: Path, why: str) -> None:
    logger.warning(
        "%s is not used: %s, and what it names is executed. To use it, take it over (chown, "
        "chmod o-w), or set TRAINBUS_TRUST=%s", path, why, path,
    )  # fmt: skip


def _read(path: Path) -> Any:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        if path.name == "pyproject.toml":  # another tool's concern
            return {}
        what = "cannot be read" if isinstance(error, OSError) else "not valid TOML"
        raise PluginError(f"{path}: {what}: {error}") from None


def from_table(path: Path, table: Any) -> Project:
    """What a table says that was read from `path`. Raises `PluginError`."""
    if not isinstance(table, dict):
        raise PluginError(f"{path}: tool.trainbus must be a table")
    for key in table:
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise PluginError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)} It knows {known}.")
    plugins = table.get("plugins", [])
    if not isinstance(plugins, list) or not all(isinstance(item, str) for item in plugins):
        raise PluginError(f"{path}: plugins must be a list of names, not {plugins!r}")
    options = table.get("options", {})
    if not isinstance(options, dict) or not all(isinstance(t, dict) for t in options.values()):
        raise PluginError(f"{path}: options must be tables, [options.NAME]")
    return Project(path, tuple(plugins), options, rules(table, str(path)))
