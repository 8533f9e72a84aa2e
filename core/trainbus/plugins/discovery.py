"""What is installed: the plugins of this environment, from metadata alone."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata, resources
from typing import Any

from trainbus.errors import PluginError

GROUP = "trainbus.plugins"
AUTOLOAD_GROUP = "trainbus.autoload"


class Distribution:
    """A distribution that offers something; its metadata are read and parsed once."""

    def __init__(self, files: metadata.Distribution, installed: Installed) -> None:
        self.files = files
        self._installed = installed

    @cached_property
    def about(self) -> Any:
        """The fields of its `METADATA`."""
        return self.files.metadata

    @cached_property
    def source(self) -> str:
        """Where it was installed from, by PEP 610; empty for a package index."""
        text = self.files.read_text("direct_url.json")
        if not text:
            return ""
        origin = json.loads(text)
        url = str(origin.get("url", ""))
        if revision := origin.get("vcs_info", {}).get("commit_id"):
            return f"{url}@{revision}"
        return f"{url} (editable)" if origin.get("dir_info", {}).get("editable") else url

    @cached_property
    def unmet(self) -> list[str]:
        """Its requirements that this environment does not meet."""
        from packaging.requirements import Requirement

        problems = []
        for text in self.about.get_all("Requires-Dist") or ():
            requirement = Requirement(text)
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            present = self._installed.version(requirement.name)
            if present is not None and requirement.specifier.contains(present, prereleases=True):
                continue
            wanted = f"{requirement.name}{requirement.specifier}"
            has = "is not installed" if present is None else f"{present} is installed"
            core = normalized(requirement.name) == "trainbus"
            mend = f"pip install -U {self.about['Name']}" if core else f"pip install -U '{wanted}'"
            problems.append(f"needs {wanted}, but {requirement.name} {has}: {mend}")
        return problems


@dataclass(frozen=True)
class Found:
    """An installed plugin, as its metadata describe it."""

    name: str
    target: str
    group: str
    distribution: Distribution
    #: Other distributions that claim the same name.
    rivals: tuple[str, ...] = ()

    @property
    def dist_name(self) -> str:
        """The distribution's name, as `pip` knows it."""
        return str(self.distribution.about["Name"])

    @property
    def version(self) -> str:
        """The distribution's version."""
        return str(self.distribution.about["Version"])

    @property
    def origin(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.dist_name} {self.version}"

    @property
    def source(self) -> str:
        """Where it was installed from; empty for a package index."""
        return self.distribution.source

    def load(self) -> Any:
        """Import what the entry point names. Raises `PluginError`."""
        return import_target(self.name, self.target, self.origin)


class Installed:
    """What this environment has, at one moment: each file of metadata is read once.

    It is made by whoever begins to look (a trainer, a command), and passed along.
    """

    def __init__(self) -> None:
        self._versions: dict[str, str | None] = {}

    @cached_property
    def plugins(self) -> dict[str, Found]:
        """The plugins to be named, sorted by name; none is imported."""
        return self.group(GROUP)

    @cached_property
    def autoload(self) -> dict[str, Found]:
        """The plugins that are active when they are installed."""
        return self.group(AUTOLOAD_GROUP)

    @cached_property
    def every(self) -> dict[str, Found]:
        """Both, by name."""
        return {**self.autoload, **self.plugins}

    def group(self, group: str) -> dict[str, Found]:
        """What distributions offer in a group of entry points, sorted by name."""
        by_name: dict[str, list[Found]] = {}
        for distribution, entries in self._offers:
            for entry in entries:
                if entry.group == group:
                    found = Found(entry.name, entry.value, group, distribution)
                    by_name.setdefault(entry.name, []).append(found)
        return {name: _first(claims) for name, claims in sorted(by_name.items())}

    def version(self, distribution: str) -> str | None:
        """The version of a distribution, or None where it is not installed."""
        if distribution not in self._versions:
            try:
                self._versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                self._versions[distribution] = None
        return self._versions[distribution]

    @cached_property
    def _offers(self) -> list[tuple[Distribution, list[metadata.EntryPoint]]]:
        """Distributions with entry points of trainbus; of the others only the text is read."""
        found = []
        for files in metadata.distributions():
            text = files.read_text("entry_points.txt")
            if text and "trainbus." in text:
                found.append((Distribution(files, self), list(files.entry_points)))
        return found


def _first(claims: list[Found]) -> Found:
    """The one that an import finds, with the names of other distributions that claim its name."""
    if len(claims) == 1:
        return claims[0]
    by_distribution: dict[str, Found] = {}
    for each in claims:  # of one distribution the first on the path counts
        by_distribution.setdefault(normalized(each.dist_name), each)
    first, *others = (by_distribution[name] for name in sorted(by_distribution))
    return replace(first, rivals=tuple(other.dist_name for other in others))


def normalized(name: str) -> str:
    """The name of a distribution as all spellings of it are compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
