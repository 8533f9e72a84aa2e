"""The plugin manager: how what is switched on is loaded.

A module is imported when its plugin is named. Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError, nearest, together
from trainbus.events.plugin import Plugin, marker
from trainbus.plugins.discovery import (
    AUTOLOAD_GROUP,
    Found,
    Installed,
    import_target,
    known_distributions,
)
from trainbus.plugins.names import found_of, is_name, kind_of, name_of
from trainbus.plugins.options import Given, build, field_names, schema
from trainbus.plugins.project import Project, find_project
from trainbus.plugins.selection import Request, Selection, command_line, policy_of, select
from trainbus.secrets import hide_secrets

if TYPE_CHECKING:
    from trainbus.bus import Bus

logger = logging.getLogger("trainbus")


# --- loading -------------------------------------------------------------------------------------


def load(
    argument: Sequence[str | object] = (),
    installed: Installed | None = None,
    but: Collection[str] = (),
) -> list[Plugin]:
    """Load what is switched on, in the order of the wishes; one `PluginError` for all failures.

    A plugin that is active only because it is installed (`trainbus.autoload`) and cannot be loaded
    is left out with a warning.

    Args:
        argument: what the trainer was given.
        installed: what was looked at already.
        but: names to leave out.
    """
    installed = installed or Installed()
    project = project_in_use()
    selection = select(argument, project, installed)
    given = given_options(project, selection, installed)
    loaded: list[Plugin] = []
    failures: list[PluginError] = []
    for name, request in selection.active.items():
        if name in but:
            continue
        try:
            loaded.append(load_one(name, request, given.get(name, {}), installed))
        except PluginError as error:
            if request.why == "installed":
                logger.warning("left out: %s", error)
            else:
                failures.append(error)
    if failures:
        raise together(failures) from failures[0].__cause__
    policy_of(project).check(loaded)
    return loaded


def project_in_use() -> Project:
    """The project's file, or an empty one under `--no-plugins`. Raises `PluginError`."""
    return Project() if command_line.get().disabled else find_project()


def register(bus: Bus, loaded: Sequence[Plugin]) -> list[Plugin]:
    """Register what was loaded; returns what is on the bus. Raises `PluginError`.

    A plugin that is active only because it is installed is left out if it cannot be registered.
    """
    kept = []
    for each in loaded:
        if each.why == "installed":
            try:
                bus.register_all([each])
            except PluginError as error:
                logger.warning("left out: %s", error)
                continue
        kept.append(each)
    bus.register_all([each for each in kept if each.why != "installed"])
    return kept


def load_one(
    name: str,
    request: Request,
    given: Mapping[str, Given] | None = None,
    installed: Installed | None = None,
) -> Plugin:
    """Find, check, import, configure and make one plugin. Raises `PluginError`."""
    loaded = _load(name, request, given or {}, installed or Installed())
    if any(marker(loaded.object, attribute) for attribute in dir(loaded.object)):
        return loaded
    if isinstance(loaded.object, type):
        kind = loaded.object.__name__
        raise PluginError(f"plugin {name!r} is the class {kind}; did you forget `()`?")
    raise PluginError(
        f"plugin {name!r} ({loaded.object!r:.80}) listens to no hook; mark its methods @hookimpl"
    )


def _load(name: str, request: Request, given: Mapping[str, Given], installed: Installed) -> Plugin:
    item = request.item
    if not isinstance(item, str):
        return _made_by_the_program(name, request, given, installed)
    # Whose own name says nothing of what it is: messages say both.
    origin = f"{item}, " if request.alias else ""
    kind = name_of(item, installed) if request.alias else ""
    if item.endswith(".py"):
        module, _ = build(name, _import_file(Path(item), name), given)
        source = str(Path(item).resolve())
        return Plugin(name, module, item, request.reason, source=source, kind=kind)
    file, _, inside = item.partition(".py:")
    if inside:
        raise PluginError(
            f"plugin {item!r}: a file is named alone ({file}.py), and its functions with @hookimpl "
            f"are the plugin; a class of a module that is on the path is {Path(file).name}:{inside}"
        )
    if not is_name(item):
        target = import_target(name, item, item)
        given = _with_environment(name, schema(target), given)
        made, options = build(f"{name} ({item})", target, given)
        own = getattr(made, "plugin_name", None)  # inherited, perhaps, which no source told
        name = name if request.alias or not isinstance(own, str) else own
        return Plugin(name, made, item, request.reason, source=item, options=options, kind=kind)
    found = request.found or _installed(item, installed)
    origin += found.origin
    who = f"plugin {name!r} ({origin})"
    if found.rivals:
        raise PluginError(
            f"two distributions provide a plugin {found.name!r}: {found.dist_name} and "
            f"{found.others}"
        )
    if problems := found.distribution.unmet:
        raise PluginError(f"{who} " + "; ".join(problems))
    target = found.load()
    given = _with_environment(name, schema(target), given)
    made, options = build(f"{name} ({origin})", target, given)
    plugin = _found(name, made, request.reason, found, options)
    return replace(plugin, origin=origin, kind=found.name if name != found.name else "")


def _installed(item: str, installed: Installed) -> Found:
    """The installed plugin of that name. Raises `PluginError` where there is none."""
    name = item.removeprefix(f"{AUTOLOAD_GROUP}:")
    found = installed.autoload.get(name)
    if item == name:
        found = installed.plugins.get(name, found)
    if found is None:
        raise PluginError(unknown(name, installed))
    return found


def _made_by_the_program(
    name: str, request: Request, given: Mapping[str, Given], installed: Installed
) -> Plugin:
    item = request.item
    for key, option in _with_environment(name, field_names(type(item)), given).items():
        raise PluginError(
            f"{option.where}: plugin {name!r} was made by the program with its options; "
            f"{key!r} cannot be set from outside. Set it where the program makes the plugin"
        )
    plugin = _describe(name, item, request, installed)
    kind = kind_of(item, installed)
    return replace(plugin, kind=kind if kind != name else "")


def built_in(
    name: str,
    why: str,
    options: Mapping[str, Any] | None = None,
    installed: Installed | None = None,
) -> Plugin:
    """A plugin of the core, with options that the program gives."""
    given = {key: Given(value, why) for key, value in (options or {}).items()}
    return replace(load_one(name, Request(name, why), given, installed), origin=why)


def listed(loaded: Sequence[Plugin]) -> str:
    """`journal, manifest (built in); progress 0.1.0 (Trainer)`: the core's own have its version.

    A plugin that belongs to what makes the trainer says so by `unlisted = True`, and is left out.
    """
    names: dict[str, list[str]] = {}
    for each in (each for each in loaded if not getattr(each.object, "unlisted", False)):
        version = "" if each.distribution == "trainbus" else each.version
        names.setdefault(each.why, []).append(f"{each.name} {version}".strip())
    return "; ".join(f"{', '.join(those)} ({why})" for why, those in names.items())


def _found(name: str, plugin: object, why: str, found: Found, options: Mapping[str, Any]) -> Plugin:
    return Plugin(
        name, plugin, found.origin, why, found.dist_name, found.version, found.source, options
    )


def bus_of(loaded: Sequence[Plugin]) -> Bus:
    """A bus with these plugins."""
    from trainbus.bus import Bus  # not needed to list what is installed

    bus = Bus()
    register(bus, loaded)
    return bus


def unknown(name: str, installed: Installed) -> str:
    """The message for a plugin that is not installed."""
    if name in (known := known_distributions()):
        return f"plugin {name!r} is not installed: pip install {known[name]}"
    return (
        f"no plugin {name!r} is installed{nearest(name, {**known, **installed.plugins})} "
        f"Installed: {', '.join(installed.plugins)}"
    )


def _describe(name: str, plugin: object, request: Request, installed: Installed) -> Plugin:
    found = found_of(type(plugin), installed)
    if found is None or isinstance(plugin, ModuleType):
        return Plugin(name, plugin, why=request.reason)
    options = {
        key: getattr(plugin, key) for key in field_names(type(plugin)) if hasattr(plugin, key)
    }
    return _found(name, plugin, request.reason, found, hide_secrets(options))


def check_file(path: Path) -> None:
    """Raise `PluginError` if there is no such file."""
    if not path.is_file():
        raise PluginError(f"plugin file {str(path)!r} does not exist (looked in {Path.cwd()})")


def _import_file(path: Path, plugin: str) -> ModuleType:
    check_file(path)
    name = f"trainbus_file_{plugin}"
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


def given_options(
    project: Project, selection: Selection, installed: Installed
) -> dict[str, dict[str, Given]]:
    """What was set for each plugin by name: in the files and on the command line."""
    told = command_line.get()
    given: dict[str, dict[str, Given]] = {}
    names = {
        *installed.every, *known_distributions(), *selection.active, *selection.blocked
    }  # fmt: skip
    for file in (project,) if told.disabled else (project, told.config):
        for name, table in file.options.items():
            if name not in names:
                raise PluginError(
                    f"{file.label}: [options.{name}] is for no plugin{nearest(name, names)}"
                )
            for key, value in table.items():
                option = value
                if not isinstance(value, Given):
                    option = Given(value, file.label, folder=file.folder)
                given.setdefault(name, {})[key] = option
    for text in told.options:
        match = re.fullmatch(r"([\w-]+)\.(\w+)=(.*)", text, re.DOTALL)
        if match is None:
            raise PluginError(f"-o {text.partition('=')[0]}: write -o PLUGIN.OPTION=VALUE")
        name, key, value = match.groups()
        if name not in selection.active:
            mend = f". Switch it on with -p {name}" if name in names else nearest(name, names)
            raise PluginError(f"-o {name}.{key}: plugin {name!r} is not active{mend}")
        given.setdefault(name, {})[key] = Given(value, f"-o {name}.{key}", text=True)
    return given


def where_set(plugin: Plugin) -> dict[str, str]:
    """Where each option of a plugin was set, by name; those that were not are left out."""
    project, installed = project_in_use(), Installed()
    given = given_options(project, select((), project, installed), installed)
    known = field_names(type(plugin.object))
    merged = _with_environment(plugin.name, known, given.get(plugin.name, {}))
    return {key: option.where for key, option in merged.items()}


def _with_environment(
    name: str, keys: Iterable[str], given: Mapping[str, Given]
) -> dict[str, Given]:
    """Add what `TRAINBUS_NAME_OPTION` says: nearer than the project's file, not than a shell."""
    merged = dict(given)
    for key in keys:
        variable = f"TRAINBUS_{name}_{key}".upper().replace("-", "_")
        if variable in os.environ and not (key in given and given[key].text):
            merged[key] = Given(os.environ[variable], variable, text=True)
    return merged
