"""The plugin manager: what is switched on and by whom, and how it is loaded.

A module is imported when its plugin is named. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.utils import canonicalize_name

from trainbus.bus import Bus
from trainbus.discovery import (
    AUTOLOAD_GROUP,
    discover,
    import_target,
    known_distributions,
    one_scan,
)
from trainbus.errors import PluginError, nearest, together
from trainbus.options import Given, build, field_names, hide_secrets, schema
from trainbus.project import Project, find_project
from trainbus.registration import Member, marker

logger = logging.getLogger("trainbus")

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
        if earlier is None or _is_name(earlier.item):
            earlier = wish
        elif not _is_name(wish.item) and earlier.item != wish.item:
            raise PluginError(
                f"two plugins are named {name!r}: {earlier.item!r:.80} and {wish.item!r:.80}; "
                "rename a file, or set the attribute plugin_name of an object"
            )
        # What is on as an object or a file stays so when it is only named once more.
        self.active[name] = earlier


def _is_name(item: str | object) -> bool:
    """Whether a wish is the name of an installed plugin, and no file, import path or object."""
    if not isinstance(item, str) or item.endswith(".py"):
        return False
    return ":" not in item or item.startswith(f"{AUTOLOAD_GROUP}:")


@dataclass
class Loaded:
    """A plugin that was loaded: what, from where, with which options, and because of whom."""

    name: str
    plugin: object
    why: str
    version: str = ""
    distribution: str = ""
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def member(self) -> Member:
        """As the bus registers it."""
        return Member(self.name, self.plugin, f"{self.distribution} {self.version}".strip())


# --- what is switched on -------------------------------------------------------------------------


def select(argument: Sequence[str | object] = (), project: Project | None = None) -> Selection:
    """Put together who wants what, from the farthest to the nearest.

    Installed for autoload, built in, the project's file, that of `trainbus fit`,
    `Trainer(plugins=...)`, the environment (`TRAINBUS_PLUGINS`, by commas), the command line.
    """
    told = command_line.get()
    if told.disabled:  # what the program itself made is part of the program
        objects = [item for item in argument if not isinstance(item, str)]
        return Selection({name_of(item): Request(item, "Trainer") for item in objects})
    if isinstance(argument, str):
        raise PluginError(f"plugins={argument!r}: give a list, [{argument!r}]")
    project = project if project is not None else find_project()
    wishes = [
        *(Request(f"{AUTOLOAD_GROUP}:{name}", "installed") for name in discover(AUTOLOAD_GROUP)),
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
        for name in _names(off[1] if off else wish.item):
            selection.switch(name, wish, on=off is None)
    return selection


def _names(item: str | object) -> list[str]:
    """The plugins that a wish means: one, or all those of a distribution."""
    if isinstance(item, str) and item not in discover():
        wanted = canonicalize_name(item)
        found = {**discover(AUTOLOAD_GROUP), **discover()}
        names = [name for name in found if canonicalize_name(found[name].dist_name) == wanted]
        if names and wanted != "trainbus":
            return names
    return [name_of(item)]


def name_of(item: str | object) -> str:
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
    for found in discover().values():
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


# --- loading -------------------------------------------------------------------------------------


def load(argument: Sequence[str | object] = ()) -> list[Loaded]:
    """Load what is switched on, in the order of the wishes; one `PluginError` for all failures.

    A plugin that is active only because it is installed (`trainbus.autoload`) and cannot be loaded
    is left out with a warning.
    """
    with one_scan():
        project = project_in_use()
        selection = select(argument, project)
        given = given_options(project, selection)
        loaded: list[Loaded] = []
        failures: list[PluginError] = []
        for name, request in selection.active.items():
            try:
                loaded.append(load_one(name, request, given.get(name, {})))
            except PluginError as error:
                if request.why == "installed":
                    logger.warning("left out: %s", error)
                else:
                    failures.append(error)
    if failures:
        raise together(failures) from failures[0].__cause__
    return loaded


def project_in_use() -> Project:
    """The project's file, or an empty one under `--no-plugins`. Raises `PluginError`."""
    return Project() if command_line.get().disabled else find_project()


def register(bus: Bus, loaded: Sequence[Loaded]) -> list[Loaded]:
    """Register what was loaded; returns what is on the bus. Raises `PluginError`.

    A plugin that is active only because it is installed is left out if it cannot be registered.
    """
    kept = []
    for each in loaded:
        if each.why == "installed":
            try:
                bus.register_all([each.member])
            except PluginError as error:
                logger.warning("left out: %s", error)
                continue
        kept.append(each)
    bus.register_all([each.member for each in kept if each.why != "installed"])
    return kept


def load_one(name: str, request: Request, given: Mapping[str, Given] | None = None) -> Loaded:
    """Find, check, import, configure and make one plugin. Raises `PluginError`."""
    loaded = _load(name, request, given or {})
    if any(marker(loaded.plugin, attribute) for attribute in dir(loaded.plugin)):
        return loaded
    if isinstance(loaded.plugin, type):
        kind = loaded.plugin.__name__
        raise PluginError(f"plugin {name!r} is the class {kind}; did you forget `()`?")
    raise PluginError(
        f"plugin {name!r} ({loaded.plugin!r:.80}) listens to no hook; mark its methods @hookimpl"
    )


def _load(name: str, request: Request, given: Mapping[str, Given]) -> Loaded:
    item = request.item
    if not isinstance(item, str):
        for key, option in given.items():
            if option.text:  # said nearer to the run than the program is
                raise PluginError(
                    f"{option.where}: plugin {name!r} was made by the program with its options; "
                    f"{key!r} cannot be set from outside"
                )
        return _describe(name, item, request)
    if item.endswith(".py"):
        module, _ = build(name, _import_file(Path(item)), given)
        return Loaded(name, module, request.why, source=str(Path(item).resolve()))
    if not _is_name(item):
        target = import_target(name, item, item)
        made, options = build(name, target, _with_environment(name, target, given))
        return Loaded(name, made, request.why, source=item, options=options)
    found = discover(AUTOLOAD_GROUP).get(name)
    if not item.startswith(AUTOLOAD_GROUP):
        found = discover().get(name, found)
    if found is None:
        raise PluginError(unknown(name))
    who = f"plugin {name!r} ({found.origin})"
    if found.rivals:
        raise PluginError(
            f"two distributions provide a plugin {name!r}: {found.dist_name} and "
            f"{', '.join(found.rivals)}; uninstall one"
        )
    if problems := found.unmet():
        raise PluginError(f"{who} " + "; ".join(problems))
    target = found.load()
    made, options = build(
        f"{name} ({found.origin})", target, _with_environment(name, target, given)
    )
    return Loaded(
        name, made, request.why, found.version, found.dist_name, found.source, options
    )  # fmt: skip


def bus_of(loaded: Sequence[Loaded]) -> Bus:
    """A bus with these plugins."""
    bus = Bus()
    register(bus, loaded)
    return bus


def unknown(name: str) -> str:
    """The message for a plugin that is not installed."""
    installed = discover()
    if name in (known := known_distributions()):
        return f"plugin {name!r} is not installed: pip install {known[name]}"
    return (
        f"no plugin {name!r} is installed{nearest(name, {**known, **installed})} "
        f"Installed: {', '.join(installed)}"
    )


def _describe(name: str, plugin: object, request: Request) -> Loaded:
    found = discover().get(name)
    if found is None or isinstance(plugin, ModuleType):
        return Loaded(name, plugin, request.why)
    options = {
        key: getattr(plugin, key) for key in field_names(type(plugin)) if hasattr(plugin, key)
    }
    return Loaded(
        name, plugin, request.why, found.version, found.dist_name, found.source,
        hide_secrets(options),
    )  # fmt: skip


def check_file(path: Path) -> None:
    """Raise `PluginError` if there is no such file."""
    if not path.is_file():
        raise PluginError(f"plugin file {str(path)!r} does not exist (looked in {Path.cwd()})")


def _import_file(path: Path) -> ModuleType:
    check_file(path)
    name = f"trainbus_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise PluginError(
            f"plugin file {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not any(hasattr(value, "trainbus_impl") for value in vars(module).values()):
        raise PluginError(f"plugin file {path} has no function marked @hookimpl")
    return module


# --- options -------------------------------------------------------------------------------------


def given_options(project: Project, selection: Selection) -> dict[str, dict[str, Given]]:
    """What was set for each plugin by name: in the files and on the command line."""
    told = command_line.get()
    given: dict[str, dict[str, Given]] = {}
    names = {*discover(), *discover(AUTOLOAD_GROUP), *known_distributions(), *selection.active}
    for file in (project,) if told.disabled else (project, told.config):
        for name, table in file.options.items():
            if name not in names:
                raise PluginError(
                    f"{file.label}: [options.{name}] is for no plugin{nearest(name, names)}"
                )
            for key, value in table.items():
                option = value if isinstance(value, Given) else Given(value, file.label)
                given.setdefault(name, {})[key] = option
    for text in told.options:
        match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text, re.DOTALL)
        if match is None:
            raise PluginError(f"-o {text.partition('=')[0]}: write -o PLUGIN.OPTION=VALUE")
        name, key, value = match.groups()
        if name not in selection.active:
            raise PluginError(
                f"-o {name}.{key}: plugin {name!r} is not active"
                f"{nearest(name, selection.active)} "
                f"Switch it on with -p {name}"
            )
        given.setdefault(name, {})[key] = Given(value, f"-o {name}.{key}", text=True)
    return given


def _with_environment(name: str, target: Any, given: Mapping[str, Given]) -> dict[str, Given]:
    """Add what `TRAINBUS_NAME_OPTION` says: nearer than the project's file, not than a shell."""
    merged = dict(given)
    for key in schema(target):
        variable = f"TRAINBUS_{name}_{key}".upper().replace("-", "_")
        if variable in os.environ and not (key in given and given[key].text):
            merged[key] = Given(os.environ[variable], variable, text=True)
    return merged
