"""The plugin manager: what is installed, what is switched on and by whom, and how it is loaded.

Discovery reads metadata only; a module is imported when its plugin is named. Nothing here imports
torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainbus.bus import Bus
from trainbus.errors import PluginError, nearest
from trainbus.options import Given, build, field_names, hide_secrets, schema
from trainbus.project import Project, find_project
from trainbus.registration import Member, marker

logger = logging.getLogger("trainbus")

GROUP = "trainbus.plugins"
AUTOLOAD_GROUP = "trainbus.autoload"
#: Built-in plugins that are active unless switched off.
DEFAULTS = ("manifest", "nonfinite")


@dataclass(frozen=True)
class CommandLine:
    """What the `trainbus` command was told, for every trainer that it runs."""

    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    disabled: bool = False


_NOTHING_TOLD = CommandLine()
#: Set by the command; part of every selection made under it.
command_line: ContextVar[CommandLine] = ContextVar("command_line", default=_NOTHING_TOLD)


@dataclass(frozen=True)
class Found:
    """An installed plugin, as its metadata tells."""

    name: str
    target: str
    group: str
    distribution: metadata.Distribution
    #: Other distributions that claim the same name.
    rivals: tuple[str, ...] = ()

    @property
    def dist_name(self) -> str:
        """The distribution's name, as `pip` knows it."""
        return str(self.distribution.metadata["Name"])

    @property
    def version(self) -> str:
        """The distribution's version."""
        return self.distribution.version

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.dist_name} {self.version}"

    @cached_property
    def source(self) -> str:
        """Where it was installed from, by PEP 610; empty for a package index."""
        text = self.distribution.read_text("direct_url.json")
        if not text:
            return ""
        origin = json.loads(text)
        url = str(origin.get("url", ""))
        if revision := origin.get("vcs_info", {}).get("commit_id"):
            return f"{url}@{revision}"
        return f"{url} (editable)" if origin.get("dir_info", {}).get("editable") else url

    def load(self) -> Any:
        """Import what the entry point names. Raises `PluginError`."""
        return _import_target(self.name, self.target, self.origin)

    def unmet(self) -> list[str]:
        """Requirements of the distribution that this environment does not meet."""
        problems = []
        for text in self.distribution.requires or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                present = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                present = None
            if present is not None and requirement.specifier.contains(present, prereleases=True):
                continue
            wanted = f"{requirement.name}{requirement.specifier}"
            has = "is not installed" if present is None else f"{present} is installed"
            mend = (
                f"pip install -U {self.dist_name}"
                if canonicalize_name(requirement.name) == "trainbus"
                else f"pip install -U '{wanted}'"
            )
            problems.append(f"needs {wanted}, but {requirement.name} {has}: {mend}")
        return problems


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


# --- what is installed ---------------------------------------------------------------------------


def discover(group: str = GROUP) -> dict[str, Found]:
    """The installed plugins of an entry-point group, by name, sorted, without importing any."""
    by_name: dict[str, dict[str, Found]] = {}
    for entry in metadata.entry_points(group=group):
        if entry.dist is None:
            continue
        found = Found(entry.name, entry.value, group, entry.dist)
        # The first on the path is the one that an import finds.
        by_name.setdefault(entry.name, {}).setdefault(canonicalize_name(found.dist_name), found)
    result = {}
    for name, claims in sorted(by_name.items()):
        first, *others = (claims[dist] for dist in sorted(claims))
        rivals = tuple(other.dist_name for other in others)
        result[name] = Found(first.name, first.target, group, first.distribution, rivals)
    return result


def known_distributions() -> dict[str, str]:
    """The project's own plugins and their distributions, installed or not."""
    text = resources.files("trainbus").joinpath("known_plugins.txt").read_text("utf-8")
    return dict(line.split() for line in text.splitlines() if line and not line.startswith("#"))


# --- what is switched on -------------------------------------------------------------------------


def select(argument: Sequence[str | object] = (), project: Project | None = None) -> Selection:
    """Put together who wants what, from the farthest to the nearest.

    Installed for autoload, built in, the project's file, `Trainer(plugins=...)`, the environment
    (`TRAINBUS_PLUGINS`, by commas), the command line.
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
        *(Request(_beside(item, project), project.label) for item in project.plugins),
        *(Request(item, "Trainer") for item in argument),
        *(
            Request(item.strip(), "TRAINBUS_PLUGINS")
            for item in os.environ.get("TRAINBUS_PLUGINS", "").split(",")
            if item.strip()
        ),
        *(Request(item, "command line") for item in told.plugins),
    ]
    selection = Selection()
    by_distribution = {
        canonicalize_name(found.dist_name): name
        for name, found in {**discover(AUTOLOAD_GROUP), **discover()}.items()
        if canonicalize_name(found.dist_name) != "trainbus"
    }
    for wish in wishes:
        off = re.match(r"(?:-|no:)(.+)", wish.item) if isinstance(wish.item, str) else None
        name = off[1] if off else name_of(wish.item)
        name = by_distribution.get(canonicalize_name(name), name)
        if off:
            selection.active.pop(name, None)
            selection.blocked[name] = wish.why
        else:
            selection.blocked.pop(name, None)
            earlier = selection.active.pop(name, None)
            if (
                earlier is not None
                and not isinstance(earlier.item, str)
                and earlier.item != wish.item
            ):
                raise PluginError(
                    f"two plugins are named {name!r}: {earlier.item!r:.80} and {wish.item!r:.80}; "
                    "give one another name by setting its attribute plugin_name"
                )
            selection.active[name] = wish
    return selection


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
    project = find_project() if not command_line.get().disabled else Project()
    selection = select(argument, project)
    given = _given_options(project, selection)
    loaded, failures = [], []
    for name, request in selection.active.items():
        try:
            loaded.append(load_one(name, request, given.get(name, {})))
            _check_listens(loaded[-1])
        except PluginError as error:
            if request.why == "installed":
                logger.warning("left out: %s", error)
            else:
                failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    if failures:
        listing = "\n".join(f"- {error}" for error in failures)
        raise PluginError(f"{len(failures)} plugins cannot be loaded:\n{listing}") from failures[0]
    return loaded


def _check_listens(loaded: Loaded) -> None:
    if any(marker(loaded.plugin, name) for name in dir(loaded.plugin)):
        return
    kind = loaded.plugin if isinstance(loaded.plugin, type) else type(loaded.plugin)
    if isinstance(loaded.plugin, type):
        raise PluginError(
            f"plugin {loaded.name!r} is the class {kind.__name__}; did you forget `()`?"
        )
    raise PluginError(
        f"plugin {loaded.name!r} ({kind.__name__}) listens to no hook; mark its methods @hookimpl"
    )


def load_one(name: str, request: Request, given: Mapping[str, Given] | None = None) -> Loaded:
    """Find, check, import, configure and make one plugin. Raises `PluginError`."""
    item, given = request.item, given or {}
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
    if ":" in item and not item.startswith(AUTOLOAD_GROUP):
        made, options = build(name, _import_target(name, item, item), given)
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
    made, options = build(f"{name} ({found.origin})", found.load(), given)
    return Loaded(
        name, made, request.why, found.version, found.dist_name, found.source, options
    )  # fmt: skip


def bus_of(loaded: Sequence[Loaded]) -> Bus:
    """A bus with these plugins."""
    bus = Bus()
    bus.register_all([each.member for each in loaded])
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


def _import_target(name: str, target: str, origin: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
    except Exception as error:
        raise PluginError(
            f"plugin {name!r} ({origin}) cannot be imported from {target}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return value


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"plugin file {str(path)!r} does not exist (looked in {Path.cwd()})")
    name = f"trainbus_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise PluginError(
            f"plugin file {path} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not any(hasattr(value, "trainbus_impl") for value in vars(module).values()):
        raise PluginError(f"plugin file {path} has no function marked @hookimpl")
    return module


# --- options -------------------------------------------------------------------------------------


def _given_options(project: Project, selection: Selection) -> dict[str, dict[str, Given]]:
    """What was set for each plugin, the nearest last: project file, environment, command line."""
    given: dict[str, dict[str, Given]] = {}
    names = {*discover(), *discover(AUTOLOAD_GROUP), *known_distributions(), *selection.active}
    for name, table in project.options.items():
        if name not in names:
            raise PluginError(
                f"{project.label}: [options.{name}] is for no plugin{nearest(name, names)}"
            )
        for key, value in table.items():
            given.setdefault(name, {})[key] = Given(value, project.label)
    for name, request in selection.active.items():
        for key in _option_names(name, request):
            variable = f"TRAINBUS_{name}_{key}".upper().replace("-", "_")
            if variable in os.environ:
                given.setdefault(name, {})[key] = Given(os.environ[variable], variable, text=True)
    for text in command_line.get().options:
        match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text, re.DOTALL)
        if match is None:
            raise PluginError(f"-o {text}: write -o PLUGIN.OPTION=VALUE")
        name, key, value = match.groups()
        if name not in selection.active:
            raise PluginError(
                f"-o {text}: plugin {name!r} is not active{nearest(name, selection.active)} "
                f"Switch it on with -p {name}"
            )
        given.setdefault(name, {})[key] = Given(value, f"-o {name}.{key}", text=True)
    return given


def _option_names(name: str, request: Request) -> Iterable[str]:
    """The options of a plugin whose module is imported in any case, as it is active."""
    found = discover().get(name)
    if not isinstance(request.item, str) or found is None or found.rivals or found.unmet():
        return ()
    return schema(found.load())
