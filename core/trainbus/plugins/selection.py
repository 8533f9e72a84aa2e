"""What is switched on, and by whom.

Nothing here imports a plugin, or torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from trainbus.errors import PluginError, nearest
from trainbus.plugins.discovery import (
    AUTOLOAD_GROUP,
    OF_THE_LOOP,
    Found,
    Installed,
    known_distributions,
)
from trainbus.plugins.names import is_name, kind_of, name_of
from trainbus.plugins.policy import Policy, names, of_machine, rules, together
from trainbus.plugins.project import Project, find_project

#: Built-in plugins that are active unless switched off.
DEFAULTS = ("journal", "manifest", "nonfinite")


@dataclass(frozen=True)
class CommandLine:
    """What the `trainbus` command was told, for every trainer that it runs."""

    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    disabled: bool = False
    require: tuple[str, ...] = ()
    forbid: tuple[str, ...] = ()
    #: The file that `trainbus fit` runs: nearer than the project's.
    config: Project = field(default_factory=Project)


class _Told:
    """What the command line said, for all threads of the process."""

    def __init__(self) -> None:
        self._line = CommandLine()

    def get(self) -> CommandLine:
        return self._line

    def set(self, line: CommandLine) -> None:
        self._line = line


#: Set by the command; part of every selection made under it.
command_line = _Told()


@dataclass(frozen=True)
class Request:
    """A wish for a plugin: what, and who wants it.

    Args:
        item: a name, a file, an import path or an object.
        why: who wants it.
        alias: a name of its own, for a plugin that is used several times.
        found: the installed plugin, where `item` is the name of a distribution.
        instead: what it took the place of.
    """

    item: str | object
    why: str
    alias: str = ""
    found: Found | None = None
    instead: str = ""

    @property
    def reason(self) -> str:
        """Who wants it, and what it took the place of."""
        return f"{self.why}, in place of {self.instead}" if self.instead else self.why

    def means(self, other: Request) -> bool:
        """Whether both mean the same plugin under the same name."""
        if (self.alias, self.found) != (other.alias, other.found):
            return False
        if isinstance(self.item, str) and isinstance(other.item, str):
            return _plain(self.item) == _plain(other.item)
        return self.item is other.item


@dataclass
class Selection:
    """Who switched what on and off; the last word on each name is the nearest."""

    active: dict[str, Request] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    installed: Installed = field(default_factory=Installed)

    def switch(self, name: str, wish: Request, on: bool) -> None:
        """Take a wish that is as near as those before, or nearer.

        Raises:
            PluginError: one list has two plugins of that name.
        """
        earlier = self.active.pop(name, None)
        if not on:
            self.blocked[name] = wish.why
            return
        self.blocked.pop(name, None)
        if earlier is not None and not wish.means(earlier):
            # What is on as something else stays so when its name alone is said once more.
            named = is_name(wish.item) and not wish.alias and wish.found is None
            installed = name in self.installed.every
            if named and not installed:
                wish = earlier
            elif earlier.why == wish.why:
                raise PluginError(
                    f"{wish.why}: two plugins are named {name!r}: {_shown(earlier)} and "
                    f"{_shown(wish)}; give one a name of its own: 'other=...' in a list, the "
                    "attribute plugin_name of an object"
                )
            elif named and (earlier.found or not isinstance(earlier.item, str)):
                wish = earlier  # the one of several, or the program's own with its options
            elif earlier.why != "built in" or kind_of(wish.item, self.installed) != name:
                wish = replace(wish, instead=f"{_shown(earlier)} of {earlier.why}")
        self.active[name] = wish


def _plain(item: str) -> str:
    """A wish as it is compared with others: a file by its path."""
    if item.endswith(".py") and not is_name(item):
        return str(Path(item).resolve())
    return item.removeprefix(f"{AUTOLOAD_GROUP}:")


def _shown(wish: Request) -> str:
    if not isinstance(wish.item, str):
        return f"{wish.item!r:.80}"
    return _plain(wish.item) if is_name(wish.item) else wish.item


def select(
    argument: Sequence[str | object] = (),
    project: Project | None = None,
    installed: Installed | None = None,
) -> Selection:
    """Put together who wants what, from the farthest to the nearest.

    Installed for autoload, built in, the project's file, that of `trainbus fit`,
    `Trainer(plugins=...)`, the environment (`TRAINBUS_PLUGINS`, by commas), the command line.
    """
    told, installed = command_line.get(), installed or Installed()
    if project is None:
        project = Project() if told.disabled else find_project()
    policy = policy_of(project)
    if told.disabled or _is_on("TRAINBUS_NO_PLUGINS"):
        # What the program itself made is part of the program.
        made = Selection(installed=installed)
        for item in argument:
            if not isinstance(item, str):
                made.switch(name_of(item, installed), Request(item, "Trainer"), on=True)
        _require(made, policy)
        return made
    if isinstance(argument, str):
        raise PluginError(f"plugins={argument!r}: give a list, [{argument!r}]")
    autoload = () if _is_on("TRAINBUS_DISABLE_AUTOLOAD") else installed.autoload
    wishes = [
        *(Request(f"{AUTOLOAD_GROUP}:{name}", "installed") for name in autoload),
        *(Request(name, "built in") for name in DEFAULTS),
        *(
            Request(_beside(item, file), file.label)
            for file in (project, told.config)
            for item in file.plugins
        ),
        *(Request(item, "Trainer") for item in argument),
        *(
            Request(item.strip(), "TRAINBUS_PLUGINS")
            for item in os.environ.get("TRAINBUS_PLUGINS", "").split(",")
            if item.strip()
        ),
        *(Request(item, "command line") for item in told.plugins),
    ]
    selection, ever = Selection(installed=installed), set()
    for wish in wishes:
        off = re.match(r"(?:-|no:)(.+)", wish.item) if isinstance(wish.item, str) else None
        for name, meant in _meant(replace(wish, item=off[1] if off else wish.item), installed):
            selection.switch(name, meant, on=off is None)
            if off is None:
                ever.add(name)
    _check_switched_off(selection, ever)
    _leave_out_forbidden(selection, policy)
    _require(selection, policy)
    return selection


def policy_of(project: Project) -> Policy:
    """The rules of the machine, the project and the command line, in this order."""
    told = command_line.get()
    own = {"require": list(told.require), "forbid": list(told.forbid)}
    return together([of_machine(), project.policy, rules(own, "command line")])


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "").lower() not in ("", "0", "false", "no")


def _leave_out_forbidden(selection: Selection, policy: Policy) -> None:
    """Switch off what is on by itself and may not be; what somebody asked for is refused later."""
    for name, wish in list(selection.active.items()):
        found = selection.installed.every.get(name)
        if found is None or wish.why not in ("installed", "built in"):
            continue
        for rule in policy.forbid:
            if rule.means(name, found.dist_name) and rule.holds(found.version):
                selection.switch(name, replace(wish, why=rule.why), on=False)


def _require(selection: Selection, policy: Policy) -> None:
    """Switch on what has to be on. Raises `PluginError` where somebody switched it off."""
    for name, why in names(policy, selection.installed):
        if (by := selection.blocked.get(name)) is not None:
            raise PluginError(f"{why} requires {name!r}, and {by} switches it off")
        if name not in selection.active:
            selection.switch(name, Request(name, why), on=True)


def _meant(wish: Request, installed: Installed) -> Iterator[tuple[str, Request]]:
    """The plugins that a wish means, by name: one, or all those of a distribution."""
    item, alias = wish.item, ""
    if isinstance(item, str) and (match := re.fullmatch(r"([\w-]+)=(.+)", item)):
        alias, item = match.groups()
    found = installed.find(item) if isinstance(item, str) and is_name(item) else []
    if alias and len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise PluginError(f"{wish.why}: {wish.item}: {item} has several plugins: {names}")
    if alias and alias in {*installed.every, *known_distributions(), *OF_THE_LOOP} - {item}:
        raise PluginError(
            f"{wish.why}: {wish.item}: {alias!r} is the name of another plugin; choose one that "
            "no plugin has"
        )
    if not found:
        name = name_of(item, installed)
        yield alias or name, replace(wish, item=item, alias=alias if alias != name else "")
    for each in found:
        own = alias if alias != each.name else ""
        exact = each if item != each.name and installed.every[each.name].rivals else None
        meant = replace(wish, item=item if exact else each.name, alias=own, found=exact)
        yield own or each.name, meant


def _check_switched_off(selection: Selection, ever: Collection[str]) -> None:
    """Refuse a name that switches off nothing, where it is like that of a plugin."""
    known = known_distributions()
    names = {*selection.installed.every, *known, *known.values(), *ever}
    for name, why in selection.blocked.items():
        if name in names:
            continue
        if (mend := nearest(name, names, 0.8)) != ".":
            raise PluginError(f"{why}: -{name} switches off nothing: no plugin {name!r}{mend}")


def _beside(item: str, project: Project) -> str:
    """A file named in the project's file is meant relative to that file."""
    sign, item = re.fullmatch(r"((?:-|no:)?(?:[\w-]+=)?)(.*)", item, re.DOTALL).groups()  # type: ignore[union-attr]
    if item.endswith(".py") and project.path is not None:
        item = str(project.path.parent / item)
    return sign + item
