"""`trainbus doctor`: is everything here in order, and if not, what mends it."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib import metadata

from trainbus import terminal
from trainbus.bus import Bus
from trainbus.errors import PluginError, TrainbusError
from trainbus.events.checks import namespace_of
from trainbus.events.plugin import Plugin, marker
from trainbus.plugins import loading
from trainbus.plugins.discovery import Installed, usurper
from trainbus.plugins.options import NeedsOptions
from trainbus.plugins.project import find_project
from trainbus.plugins.selection import Request


def report() -> int:
    """Print what was found; returns 0 when all is well, else 1."""
    problems = 0
    terminal.say(
        f"python      {platform.python_version()} ({platform.system()} {platform.machine()})"
    )
    for name in (
        "trainbus", "torch", "pluggy", "click", "packaging", "pydantic", "safetensors", "tomli-w",
    ):  # fmt: skip
        terminal.say(f"{name:11} {metadata.version(name)}")
    problems += _device()
    problems += _project()
    terminal.say("\nplugins")
    installed = Installed()
    for name, status, said in _plugins(installed):
        problems += status == "broken"
        terminal.say(f"  {status:8} {name:14} {said}")
    try:
        loading.bus_of(loading.load(installed=installed))
    except PluginError as error:
        problems += 1
        terminal.say(f"\nwhat is switched on cannot be loaded:\n{error}")
    terminal.say(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    return 1 if problems else 0


def _device() -> int:
    try:
        from trainbus.engine.choice import choose

        chosen, why = choose("auto", ())
        terminal.say(f"device      {chosen.device} ({why})")
    except Exception as error:  # a driver may fail in any way
        terminal.say(f"device      broken: {type(error).__name__}: {error}")
        return 1
    return 0


def _project() -> int:
    try:
        terminal.say(f"project     {find_project().label}")
    except TrainbusError as error:
        terminal.say(f"project     broken: {error}")
        return 1
    return 0


def _plugins(installed: Installed) -> Iterator[tuple[str, str, str]]:
    """Each installed plugin, how it is, and what a trainer would say of it."""
    loaded: dict[str, Plugin | PluginError] = {}
    for name in sorted(installed.every):
        loaded[name] = _loaded(name, installed)
    made = [each for each in loaded.values() if isinstance(each, Plugin)]
    for name, each in loaded.items():
        problem = _refused(each, made) if isinstance(each, Plugin) else each
        # Made without options here: what it has to be told is no fault of its own.
        status = "options" if isinstance(problem, NeedsOptions) else "broken"
        yield name, status if problem else "ok", str(problem or installed.every[name].origin)
    for found in installed.usurping:
        yield found.name, "broken", usurper(found.name, found.origin)


def _loaded(name: str, installed: Installed) -> Plugin | PluginError:
    found = installed.every[name]
    if found.rivals:
        return PluginError(f"also provided by {found.others}")
    if problems := found.distribution.unmet:
        return PluginError("; ".join(problems))
    try:
        return loading.load_one(name, Request(name, "doctor"), installed=installed)
    except PluginError as error:
        return error


def _refused(plugin: Plugin, others: Sequence[Plugin]) -> PluginError | None:
    """Why a bus does not take it, on which the hooks of all plugins are declared."""
    bus = Bus()
    try:
        for each in others:
            if marker(each.object, "register_hookspecs") and each is not plugin:
                bus.declare(namespace_of(each), str(each))
        bus.register_all([plugin])
    except PluginError as error:
        return error
    return None
