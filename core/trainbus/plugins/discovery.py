"""What is installed: the plugins of this environment, from metadata alone."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, resources
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trainbus.errors import PluginError

GROUP = "trainbus.plugins"
AUTOLOAD_GROUP = "trainbus.autoload"


@dataclass(frozen=True)
class Found:
    """An installed plugin, as its metadata tells."""

    name: str
    target: str
    group: str
    distribution: metadata.Distribution
    #: Other distributions that claim the same name.
    rivals: tuple[str, ...] = ()

    @cached_property
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
        return import_target(self.name, self.target, self.origin)

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


@contextmanager
def one_scan() -> Iterator[None]:
    """Look at the environment's metadata at most once for each group while this lasts."""
    if _scanned.get() is not None:
        yield
        return
    token = _scanned.set({})
    try:
        yield
    finally:
        _scanned.reset(token)


_scanned: ContextVar[dict[str, dict[str, Found]] | None] = ContextVar("_scanned", default=None)


def discover(group: str = GROUP) -> dict[str, Found]:
    """The installed plugins of an entry-point group, by name, sorted, without importing any."""
    scanned = _scanned.get()
    if scanned is None:
        return _scan(group)
    if group not in scanned:
        scanned[group] = _scan(group)
    return scanned[group]


def _scan(group: str) -> dict[str, Found]:
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


def import_target(name: str, target: str, origin: str) -> Any:
    """Import `module:attribute`, an entry point's value. Raises `PluginError`."""
    module, _, attribute = target.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split(".") if attribute else ():
            value = getattr(value, part)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"plugin {name!r} ({origin}) cannot be imported from {target}: "
            f"{type(error).__name__}: {error}"
        ) from error
    return value
