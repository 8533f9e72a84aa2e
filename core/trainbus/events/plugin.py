"""A plugin on the bus: what it is called, where it came from, and who wanted it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Plugin:
    """A plugin: its name, the object that listens, and what is known of it.

    Args:
        name: unique on a bus.
        object: the one whose methods are marked `@hookimpl`.
        origin: what it came from, for messages: a distribution and its version, a file, a class.
        why: who switched it on.
        distribution: the one that it was found in, or nothing.
        version: that of its distribution.
        source: where it was installed or imported from; empty for a package index.
        options: what it was made with, without secrets.
        core: a part of the loop itself, whose errors are those of the code that it calls.
        kind: the plugin that it is one of, where it has a name of its own.
    """

    name: str
    object: object
    origin: str = ""
    why: str = ""
    distribution: str = ""
    version: str = ""
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    core: bool = False
    kind: str = ""

    def __str__(self) -> str:
        return f"plugin {self.name!r}" + (f" ({self.origin})" if self.origin else "")


def marker(owner: object, attribute: str) -> dict[str, Any] | None:
    """pluggy's options on a plugin's attribute, found without running a property."""
    static = inspect.getattr_static(owner, attribute, None)
    function = getattr(static, "__func__", static)
    return getattr(function, "trainbus_impl", None)
