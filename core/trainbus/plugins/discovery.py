"""What is installed: the plugins of this environment, from metadata alone."""

from __future__ import annotations

import importlib
import json
import logging
import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib import metadata, resources
from typing import Any

from trainbus.errors import PluginError

GROUP = "trainbus.plugins"
AUTOLOAD_GROUP = "trainbus.autoload"
#: Names that the loop itself has on the bus.
OF_THE_LOOP = ("core", "task", "accelerator")

logger = logging.getLogger("trainbus")


class Distribution:
    """A distribution that offers something; its metadata are read and parsed once."""

    def __init__(self, files: metadata.Distribution, installed: Installed) -> None:
        self.files = files
        self._installed = installed

    @cached_property
    def about(self) -> Any:
        """The fields of its `METADATA`."""
        return self.files.metadata

    @property
    def is_core(self) -> bool:
        """Whether it is trainbus itself."""
        return normalized(self.about["Name"] or "") == "trainbus"

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
    #: What other distributions offer under the same name.
    rivals: tuple[Found, ...] = ()

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

    @property
    def others(self) -> str:
        """The other distributions that claim its name, and what to do about it."""
        names = ", ".join(rival.dist_name for rival in self.rivals)
        return f"{names}; uninstall one, or name the distribution"

    def load(self) -> Any:
        """Import what the entry point names. Raises `PluginError`."""
        return import_target(self.name, self.target, self.origin)


class Installed:
    """What this environment has, at one moment: each file of metadata is read once.

    It is made by whoever begins to look (a trainer, a command), and passed along.
    """

    def __init__(self) -> None:
        #: What other distributions offer under a name that is trainbus's own.
        self.usurping: list[Found] = []
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
        own = self._own if group in (GROUP, AUTOLOAD_GROUP) else ()
        for distribution, entries in self._offers:
            for entry in entries:
                if entry.group != group:
                    continue
                found = Found(entry.name, entry.value, group, distribution)
                if entry.name in own and not distribution.is_core:
                    self.usurping.append(found)
                    _warn_of_usurper(found.name, found.origin)
                else:
                    by_name.setdefault(entry.name, []).append(found)
        return {name: _first(claims) for name, claims in sorted(by_name.items())}

    def find(self, item: str) -> list[Found]:
        """The plugins that a text means: one by its name, or all of a distribution by its."""
        if item in self.every:
            return [self.every[item]]
        wanted = normalized(item)
        if wanted == "trainbus":
            return []
        claims = [each for found in self.every.values() for each in (found, *found.rivals)]
        # Named by its distribution it has no rival.
        return [replace(each, rivals=()) for each in claims if normalized(each.dist_name) == wanted]

    def version(self, distribution: str) -> str | None:
        """The version of a distribution, or None where it is not installed."""
        if distribution not in self._versions:
            try:
                self._versions[distribution] = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                self._versions[distribution] = None
        return self._versions[distribution]

    @cached_property
    def _own(self) -> set[str]:
        """The names that no other distribution may give to a plugin."""
        offered = (each for distribution, each in self._offers if distribution.is_core)
        names = {entry.name for entries in offered for entry in entries if entry.group == GROUP}
        return {*names, *OF_THE_LOOP}

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
    return replace(first, rivals=tuple(others))


@cache  # said once in a process, however often it is looked at
def _warn_of_usurper(name: str, origin: str) -> None:
    logger.warning("%s", usurper(name, origin))


def usurper(name: str, origin: str) -> str:
    """What is said of a distribution that claims a name of trainbus."""
    return f"{origin} offers a plugin {name!r}, a name that is trainbus's own: it is left out"


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
