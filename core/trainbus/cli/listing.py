"""`trainbus plugins`: what is installed and active, from metadata alone."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence

from trainbus import terminal
from trainbus.errors import PluginError
from trainbus.events.plugin import Plugin
from trainbus.plugins import loading
from trainbus.plugins.discovery import Installed
from trainbus.plugins.options import schema
from trainbus.plugins.selection import select
from trainbus.secrets import hide_secrets


def show_plugins(as_json: bool) -> None:
    """Every plugin that is installed or switched on, and in what state it is."""
    installed = Installed()
    selection = select(installed=installed)
    rows = []
    for name, found in sorted(installed.every.items()):
        note = found.source
        status = "active" if name in selection.active else "available"
        if name in selection.blocked:
            status, note = "off", f"by {selection.blocked[name]}"
        if found.rivals:
            status, note = "broken", f"also provided by {found.others}"
        elif problems := found.distribution.unmet:
            status, note = "broken", "; ".join(problems)
        rows.append([name, status, found.version, found.dist_name, note])
    for name, request in selection.active.items():
        if name in installed.every:
            continue
        note = f"{request.item!s:.80}"
        missing = isinstance(request.item, str) and note == name
        note = loading.unknown(name, installed) if missing else note
        rows.append([name, "missing" if missing else "active", "", "", note])
    for found in installed.usurping:
        note = "the name is trainbus's own"
        rows.append([found.name, "broken", found.version, found.dist_name, note])
    _table(("name", "status", "version", "distribution", "note"), rows, as_json)


def show_why(as_json: bool) -> None:
    """Who switched each plugin on or off: the last word on its name."""
    selection = select()
    rows = [[name, "on", request.reason] for name, request in selection.active.items()]
    rows += [[name, "off", why] for name, why in selection.blocked.items()]
    _table(("name", "is", "because of"), sorted(rows), as_json)


def show_one(name: str, as_json: bool) -> None:
    """The options of an active plugin, with where each value is from, and what it listens to.

    Raises:
        PluginError: it is not active, or cannot be loaded.
    """
    loaded = loading.load()
    each = next((one for one in loaded if one.name == name), None)
    if each is None:
        active = [one.name for one in loaded]
        installed = Installed()
        if name not in installed.every:
            raise PluginError(loading.unknown(name, installed))
        raise PluginError(
            f"the plugin {name!r} is not active (active are {', '.join(active)}); -p {name} "
            "switches it on"
        )
    terminal.say(f"{each.name}: {each.origin}, switched on by {each.why}")
    where = loading.where_set(each)
    rows = [
        [key, shown_type(parameter), *_value(each, key, parameter, where)]
        for key, parameter in schema(type(each.object)).items()
    ]
    if rows:
        _table(("option", "type", "value", "from"), rows, as_json)
    bus = loading.bus_of(loaded)
    heard = [[hook, " -> ".join(names)] for hook, names in bus.order().items() if name in names]
    _table(("hook", "called in this order"), heard, as_json)


def shown_type(parameter: inspect.Parameter) -> str:
    """The annotation of an option, as it is written."""
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    if isinstance(annotation, str):
        return annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def _value(
    plugin: Plugin, key: str, parameter: inspect.Parameter, where: dict[str, str]
) -> list[str]:
    value = plugin.options.get(key, parameter.default)
    shown = "" if value is parameter.empty else f"{hide_secrets({key: value})[key]!r:.60}"
    same = key not in where and value is parameter.default
    return [shown, where.get(key, "default" if same or key not in plugin.options else plugin.why)]


def show_hooks(as_json: bool) -> None:
    """For each hook that is listened to, the plugins in the order in which they are called."""
    bus = loading.bus_of(loading.load())
    rows = [[hook, " -> ".join(names)] for hook, names in bus.order().items()]
    if not rows and not as_json:
        raise PluginError("no plugin is active")
    _table(("hook", "called in this order"), rows, as_json)


def _table(header: Sequence[str], rows: list[list[str]], as_json: bool) -> None:
    if as_json:
        terminal.say(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2))
        return
    terminal.say(terminal.table([list(header), *rows]))
