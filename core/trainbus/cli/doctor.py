"""`trainbus doctor`: is everything here in order, and if not, what mends it."""

from __future__ import annotations

import platform
from importlib import metadata

import click

from trainbus.errors import PluginError, TrainbusError
from trainbus.plugins import loading
from trainbus.plugins.discovery import Found, Installed
from trainbus.plugins.project import find_project


def report() -> int:
    """Print what was found; returns 0 when all is well, else 1."""
    problems = 0
    click.echo(
        f"python      {platform.python_version()} ({platform.system()} {platform.machine()})"
    )
    for name in (
        "trainbus", "torch", "pluggy", "click", "packaging", "pydantic", "safetensors", "tomli-w",
    ):  # fmt: skip
        click.echo(f"{name:11} {metadata.version(name)}")
    problems += _device()
    problems += _project()
    click.echo("\nplugins")
    installed = Installed()
    for name, found in sorted(installed.every.items()):
        problem = _broken(found)
        problems += problem is not None
        click.echo(f"  {'broken' if problem else 'ok':8} {name:14} {problem or found.origin}")
    try:
        loading.bus_of(loading.load(installed=installed))
    except PluginError as error:
        problems += 1
        click.echo(f"\nwhat is switched on cannot be loaded:\n{error}")
    click.echo(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    return 1 if problems else 0


def _device() -> int:
    try:
        from trainbus.engine.choice import choose

        chosen, why = choose("auto", ())
        click.echo(f"device      {chosen.device} ({why})")
    except Exception as error:  # a driver may fail in any way
        click.echo(f"device      broken: {type(error).__name__}: {error}")
        return 1
    return 0


def _project() -> int:
    try:
        click.echo(f"project     {find_project().label}")
    except TrainbusError as error:
        click.echo(f"project     broken: {error}")
        return 1
    return 0


def _broken(found: Found) -> str | None:
    if found.rivals:
        return f"also provided by {', '.join(found.rivals)}; uninstall one"
    if problems := found.distribution.unmet:
        return "; ".join(problems)
    try:
        found.load()
    except PluginError as error:
        return str(error)
    return None
