"""What is switched on, and by whom.

Nothing here imports a plugin, or torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from trainbus.errors import PluginError
from trainbus.plugins.discovery import AUTOLOAD_GROUP, Installed, normalized
from trainbus.plugins.project import Project, find_project

#: Built-in plugins that are active unless switched off.
DEFAULTS = ("journal", "manifest", "nonfinite")


@dataclass(frozen=True)
class CommandLine:
    """What the `trainbus` command was told, for every trainer that it runs."""

    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    disabled: bool = False
    #: The file that `trainbus fit` runs: nearer than the project's.
    config: Project = field(default_factory=Project)


class _Told:
    """What the command line said, for all threads of the process."""

    def __init__(self) -> None:
        self._line = CommandLine()

    def get(self) -> CommandLine:
        return self._line

    def set(self, line: CommandLine) -> None:
        self._line = line


#: Set by the command; part of every selection made under it.
command_line = _Told()


@dataclass(frozen=True)
class Request:
    """A wish for a plugin: what, and who wants it."""

    item: str | object
    why: str


@dataclass
class Selection:
    """Who switched what on and off; the last word on each name is the nearest."""

    active: dict[str, Request] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)

    def switch(self, name: str, wish: Request, on: bool) -> None:
        """Take a nearer wish. Raises `PluginError` when it means another plugin of that name."""
        earlier = self.active.pop(name, None)
        if not on:
            self.blocked[name] = wish.why
            return
        self.blocked.pop(name, None)
        if earlier is None or is_name(earlier.item):
            earlier = wish
        elif not is_name(wish.item) and earlier.item != wish.item:
            raise PluginError(
                f"two plugins are named {name!r}: {earlier.item!r:.80} and {wish.item!r:.80}; "
                "rename a file, or set the attribute plugin_name of an object"
            )
        # What is on as an object or a file stays so when it is only named once more.
        self.active[name] = earlier


def is_name(item: str | object) -> bool:
    """Whether a wish is the name of an installed plugin, and no file, import path or object."""
    if not isinstance(item, str) or item.endswith(".py"):
        return False
    return ":" not in item or item.startswith(f"{AUTOLOAD_GROUP}:")


def select(
    argument: Sequence[str | object] = (),
    project: Project | None = None,
    installed: Installed | None = None,
) -> Selection:
    """Put together who wants what, from the farthest to the nearest.

    Installed for autoload, built in, the project's file, that of `trainbus fit`,
    `Trainer(plugins=...)`, the environment (`TRAINBUS_PLUGINS`, by commas), the command line.
    """
    told, installed = command_line.get(), installed or Installed()
    if told.disabled:  # what the program itself made is part of the program
        objects = [item for item in argument if not isinstance(item, str)]
        return Selection({name_of(item, installed): Request(item, "Trainer") for item in objects})
    if isinstance(argument, str):
        raise PluginError(f"plugins={argument!r}: give a list, [{argument!r}]")
    project = project if project is not None else find_project()
    wishes = [
        *(Request(f"{AUTOLOAD_GROUP}:{name}", "installed") for name in installed.autoload),
        *(Request(name, "built in") for name in DEFAULTS),
        *(
            Request(_beside(item, file), file.label)
            for file in (project, told.config)
            for item in file.plugins
        ),
        *(Request(item, "Trainer") for item in argument),
        *(
            Request(item.strip(), "TRAINBUS_PLUGINS")
            for item in os.environ.get("TRAINBUS_PLUGINS", "").split(",")
            if item.strip()
        ),
        *(Request(item, "command line") for item in told.plugins),
    ]
    selection = Selection()
    for wish in wishes:
        off = re.match(r"(?:-|no:)(.+)", wish.item) if isinstance(wish.item, str) else None
        for name in _names(off[1] if off else wish.item, installed):
            selection.switch(name, wish, on=off is None)
    return selection


def _names(item: str | object, installed: Installed) -> list[str]:
    """The plugins that a wish means: one, or all those of a distribution."""
    if isinstance(item, str) and item not in installed.plugins:
        wanted, found = normalized(item), installed.every
        names = [name for name in found if normalized(found[name].dist_name) == wanted]
        if names and wanted != "trainbus":
            return names
    return [name_of(item, installed)]


def name_of(item: str | object, installed: Installed | None = None) -> str:
    """The name of a plugin, given as a name, a file, an import path or an object."""
    if isinstance(item, str):
        if item.startswith(f"{AUTOLOAD_GROUP}:"):
            return item.removeprefix(f"{AUTOLOAD_GROUP}:")
        if item.endswith(".py"):
            return Path(item).stem
        if ":" in item:
            return _snake_case(item.rpartition(":")[2])
        return item
    if isinstance(item, ModuleType):
        return item.__name__.rpartition(".")[2]
    kind = item if isinstance(item, type) else type(item)
    if isinstance(name := getattr(item, "plugin_name", None), str):
        return name
    package = kind.__module__.partition(".")[0]
    for found in (installed or Installed()).plugins.values():
        module, _, attribute = found.target.partition(":")
        if attribute == kind.__qualname__ and module.partition(".")[0] == package:
            return found.name
    return _snake_case(kind.__name__)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _beside(item: str, project: Project) -> str:
    """A file named in the project's file is meant relative to that file."""
    if item.endswith(".py") and project.path is not None:
        return str(project.path.parent / item)
    return item
