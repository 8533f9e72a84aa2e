"""What must be on, and what may not: said for a machine, a project, or one command.

A machine's policy is `policy.toml` in the system's and in the user's configuration directory, and
what `TRAINBUS_POLICY` names; a project's is `require` and `forbid` in its own file. The machine's
goes before all others. Nothing here imports a plugin, or torch.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainbus.errors import PluginError, nearest
from trainbus.plugins.discovery import Installed, normalized

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from trainbus.events.plugin import Plugin

_KEYS = ("require", "forbid")


@dataclass(frozen=True)
class Rule:
    """A plugin or a distribution that has to be on, or off, and who says so."""

    wanted: Requirement
    why: str

    def means(self, name: str, distribution: str) -> bool:
        """Whether a plugin is meant: by its name, or by that of its distribution."""
        wanted = normalized(self.wanted.name)
        return wanted in (normalized(name), normalized(distribution))

    def holds(self, version: str) -> bool:
        """Whether a version is one of those that are meant; a file has none, and is always."""
        return not version or self.wanted.specifier.contains(version, prereleases=True)


@dataclass(frozen=True)
class Policy:
    """All rules, the machine's first."""

    require: tuple[Rule, ...] = ()
    forbid: tuple[Rule, ...] = ()

    def check(self, loaded: Sequence[Plugin]) -> None:
        """Refuse what is on and may not be, and what is not on and must be.

        Raises:
            PluginError: one sentence for all of it.
        """
        problems = [
            f"{rule.why} forbids {rule.wanted}, and {each.why} switched {each.name} on"
            for rule in self.forbid
            for each in loaded
            if _is(rule, each) and rule.holds(each.version)
        ]
        for rule in self.require:
            those = [each for each in loaded if _is(rule, each)]
            wrong = [each for each in those if not rule.holds(each.version)]
            if not those:
                problems.append(
                    f"{rule.why} requires {rule.wanted}, which is not installed: pip install "
                    f"'{rule.wanted}', or what provides that plugin"
                )
            problems += [
                f"{rule.why} requires {rule.wanted}, but {each.name} {each.version} is installed"
                for each in wrong
            ]
        if problems:
            raise PluginError("; ".join(problems))


def _is(rule: Rule, plugin: Plugin) -> bool:
    names = {plugin.name, plugin.kind or plugin.name}
    return any(rule.means(name, plugin.distribution) for name in names)


def of_machine() -> Policy:
    """The rules of the system, the user, and those that `TRAINBUS_POLICY` names.

    Raises:
        PluginError: a file cannot be read, or says what is not known. A policy that nobody can
            read is no reason to go on without one.
    """
    named = os.environ.get("TRAINBUS_POLICY", "").split(os.pathsep)
    places = [*_directories(), *(Path(each).expanduser() for each in named if each)]
    policies = [_read(path, must_be=path not in _directories()) for path in places]
    return together(policies)


def together(policies: Sequence[Policy]) -> Policy:
    """Rules of several places; the farther one is first."""
    return Policy(
        tuple(rule for each in policies for rule in each.require),
        tuple(rule for each in policies for rule in each.forbid),
    )


def rules(table: dict[str, Any], why: str) -> Policy:
    """The policy of a table with `require` and `forbid`. Raises `PluginError`."""
    return Policy(*(tuple(_rules(table.get(key, []), key, why)) for key in _KEYS))


def names(policy: Policy, installed: Installed) -> Iterator[tuple[str, str]]:
    """The plugins that have to be on, by name, with who says so, as far as they are installed."""
    for rule in policy.require:
        for found in installed.find(rule.wanted.name):
            yield found.name, rule.why


def _rules(texts: Any, key: str, why: str) -> Iterator[Rule]:
    from packaging.requirements import InvalidRequirement, Requirement

    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise PluginError(f"{why}: {key} must be a list of names, ['acme-audit>=1.2']")
    for text in texts:
        try:
            yield Rule(Requirement(text), why)
        except InvalidRequirement as error:
            raise PluginError(
                f"{why}: {key}: {text!r} is no name with a version: {error}"
            ) from None


def _directories() -> list[Path]:
    if sys.platform == "win32":
        system, own = (
            Path(os.environ.get("PROGRAMDATA", "C:/ProgramData")),
            os.environ.get("APPDATA"),
        )
        user = Path(own) if own else None
    elif sys.platform == "darwin":
        system = Path("/Library/Application Support")
        user = Path.home() / "Library" / "Application Support"
    else:
        system = Path("/etc")
        user = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [each / "trainbus" / "policy.toml" for each in (system, user) if each is not None]


def _read(path: Path, must_be: bool) -> Policy:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if must_be:
            raise PluginError(f"TRAINBUS_POLICY names {path}, which is not there") from None
        return Policy()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise PluginError(f"the policy {path} cannot be read: {error}") from None
    for key in table:
        if key not in _KEYS:
            known = ", ".join(_KEYS)
            raise PluginError(f"{path}: unknown key {key!r}{nearest(key, _KEYS)} It knows {known}.")
    return rules(table, str(path))
