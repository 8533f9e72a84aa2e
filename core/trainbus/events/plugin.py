"""A plugin on the bus: what it is called, where it came from, and who wanted it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Distribution(Protocol):
    """What was installed, as far as a plugin's record needs to know."""

    @property
    def dist_name(self) -> str:
        """The distribution's name, as `pip` knows it."""

    @property
    def version(self) -> str:
        """Its version."""

    @property
    def source(self) -> str:
        """Where it was installed from; empty for a package index."""


@dataclass(frozen=True)
class Plugin:
    """A plugin: its name, the object that listens, and what is known of it.

    Args:
        name: unique on a bus.
        object: the one whose methods are marked `@hookimpl`.
        origin: what it came from, for messages: a distribution and its version, a file, a class.
        why: who switched it on.
        found: its distribution, where it has one.
        options: what it was made with, without secrets.
        core: a part of the loop itself, whose errors are those of the code that it calls.
    """

    name: str
    object: object
    origin: str = ""
    why: str = ""
    found: Distribution | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    core: bool = False

    @property
    def distribution(self) -> str:
        """The distribution that it was found in, or nothing."""
        return self.found.dist_name if self.found is not None else ""

    @property
    def version(self) -> str:
        """The version of its distribution, or nothing."""
        return self.found.version if self.found is not None else ""

    @property
    def source(self) -> str:
        """Where it was installed or imported from; empty for a package index."""
        return self.found.source if self.found is not None else self.origin

    def __str__(self) -> str:
        return f"plugin {self.name!r}" + (f" ({self.origin})" if self.origin else "")
