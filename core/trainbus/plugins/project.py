"""The project's file: `trainbus.toml`, or `[tool.trainbus]` in `pyproject.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainbus.errors import PluginError, nearest

_KEYS = ("plugins", "options")


@dataclass(frozen=True)
class Project:
    """What a project's file says: which plugins, with which options."""

    path: Path | None = None
    plugins: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = field(default_factory=dict)

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

    Raises `PluginError` for a file that cannot be read or says what is not known.
    """
    start = (start or Path.cwd()).resolve()
    for directory in (start, *start.parents):
        for name in ("trainbus.toml", "pyproject.toml"):
            path = directory / name
            if not path.is_file():
                continue
            table = _read(path)
            if name == "pyproject.toml":
                tools = table.get("tool")
                table = tools.get("trainbus") if isinstance(tools, dict) else None
            if table is not None:
                return from_table(path, table)
    return Project()


def _read(path: Path) -> Any:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        if path.name == "pyproject.toml":  # another tool's concern
            return {}
        raise PluginError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error}") from None


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
    return Project(path, tuple(plugins), options)
