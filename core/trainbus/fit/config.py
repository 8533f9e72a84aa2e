"""The file that `trainbus fit` runs: read, checked before anything heavy is imported, and made."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from trainbus.errors import PluginError, TrainbusError, UsageError, nearest
from trainbus.events.plugin import Plugin
from trainbus.fit.instantiate import TRAINER, Factory, target_of, targets
from trainbus.fit.static import Sources
from trainbus.plugins import loading
from trainbus.plugins.discovery import AUTOLOAD_GROUP, Installed
from trainbus.plugins.names import is_name
from trainbus.plugins.options import (
    Given,
    as_toml,
    placed,
    types_of,
    unknown_option,
    validated,
)
from trainbus.plugins.project import from_table
from trainbus.plugins.selection import DEFAULTS, Request, command_line, select
from trainbus.secrets import HIDDEN, hide_if_secret, hide_secrets

KEYS = ("task", "data", "trainer", "plugins", "options", "pythonpath")
_TABLES = ("task", "data", "trainer", "options")


class Made(NamedTuple):
    """What a file is made into: the arguments of a fit."""

    trainer: Any
    task: Any
    train: Any
    valid: Any


class Config:
    """A training as a file says it, with what the command line sets on top.

    Args:
        path: the file.
        settings: `KEY=VALUE`, the key as a path with dots through the tables of the file.

    Raises:
        UsageError, PluginError: the file cannot be read, or says what is not known.
    """

    def __init__(self, path: Path, settings: Sequence[str] = ()) -> None:
        self.path = path
        self.label = str(path)
        self.tables = _read(path)
        for key, value in self.tables.items():
            _check_key(key, value, self.label)
        for setting in settings:
            self._set(setting)
        chosen = {key: self.tables[key] for key in ("plugins", "options") if key in self.tables}
        #: Which plugins, with which options.
        self.project = from_table(path, chosen)
        self.tables.setdefault("trainer", {}).setdefault("class", TRAINER)
        self._pythonpath = self._directories()
        #: The directories of the user's own modules.
        self.search = list(dict.fromkeys([*self._pythonpath, str(Path.cwd())]))
        self._calls = Factory(path, self.search)

    def _set(self, setting: str) -> None:
        """Put `key=value` in its place, and make the tables that lead to it."""
        key, equals, text = setting.partition("=")
        where = f"--set {key}"
        parts = key.split(".")
        if not equals or not all(parts):
            raise UsageError(f"--set {setting}: write --set KEY=VALUE, --set trainer.epochs=5")
        value: Any = as_toml(text)
        # A plain value is read when its type is known.
        if len(parts) > 1 and next(targets("", value), None) is None:
            value = Given(text, where, text=True)
        _check_key(parts[0], value if len(parts) == 1 else {}, where)
        place: Any = self.tables
        for number, part in enumerate(parts):
            index: Any = part
            if isinstance(place, list) and part.isdigit() and int(part) < len(place):
                index = int(part)
            elif not isinstance(place, dict):
                here = place.value if isinstance(place, Given) else place
                raise UsageError(f"{where}: {'.'.join(parts[:number])} is {here!r:.80}, no table")
            if number == len(parts) - 1:
                place[index] = value
            elif isinstance(place, dict):
                place = place.setdefault(index, {})
            else:
                place = place[index]

    def _directories(self) -> list[str]:
        given = self.tables.get("pythonpath", ["."])
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise UsageError(f"{self.label}: pythonpath must be a list of directories")
        return [str((self.path.parent / item).resolve()) for item in given]

    @property
    def called(self) -> dict[str, Any]:
        """The tables that are called: trainer, task and data."""
        return {key: self.tables[key] for key in ("trainer", "task", "data") if key in self.tables}

    # --- checking ------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what is wrong as far as sources and metadata tell it; nothing is imported.

        Raises:
            UsageError: what is wrong, all together.
        """
        problems: list[TrainbusError] = [*self._misplaced()]
        for key, table in self.called.items():
            problems += self._calls.check(key, table, self._calls.read)
        with self.importable():  # to find sources, which are read
            problems += self._wrong_plugins()
        _raise(problems)

    def _misplaced(self) -> Iterator[UsageError]:
        trainer, task, data = (self.tables.get(key) for key in ("trainer", "task", "data"))
        if trainer and "plugins" in trainer:
            text = "trainer.plugins: write plugins = [...] at the top of the file"
            yield UsageError(f"{self._calls.where(trainer.pop('plugins'))}: {text}")
        if task is None or target_of(task) is None:
            missing = "there is no [task]" if task is None else "task has no class"
            yield UsageError(f'{self.label}: {missing}; write [task] and class = "module:Class"')
        if data is None or not (target_of(data) or "train" in data):
            missing = "there is no [data]" if data is None else "data has no train"
            example = 'train = {class = "module:function"}'
            yield UsageError(f"{self.label}: {missing}; write [data] and {example}")
        if data and target_of(data) is None:
            for name, value in data.items():
                if name not in ("train", "valid"):
                    text = f"data.{name}: unknown key{nearest(name, ('train', 'valid', 'class'))}"
                    yield UsageError(f"{self._calls.where(value)}: {text} It knows train, valid.")
                elif target_of(value) is None:
                    text = f'data.{name}: write a table, {name} = {{class = "module:function"}}'
                    yield UsageError(f"{self._calls.where(value)}: {text}")

    @cached_property
    def _installed(self) -> Installed:
        return Installed()

    def _wrong_plugins(self) -> list[PluginError]:
        """Plugins that are not there, and options that they do not have, as sources tell it."""
        installed = self._installed
        try:
            project = loading.project_in_use()
            selection = select((), project, installed)
            given = loading.given_options(project, selection, installed)
        except PluginError as error:
            return [error]
        sources = Sources(self.search)
        problems = []
        for name, request in selection.active.items():
            try:
                self._check_plugin(name, request, given.get(name, {}), sources)
            except PluginError as error:
                problems.append(error)
        return problems

    def _check_plugin(
        self, name: str, request: Request, given: Mapping[str, Given], sources: Sources
    ) -> None:
        item = str(request.item)
        who = name
        if item.endswith(".py"):
            loading.check_file(Path(item))
            return
        if is_name(item):
            item = item.removeprefix(f"{AUTOLOAD_GROUP}:")
            found = request.found or self._installed.every.get(item)
            if found is None:
                raise PluginError(f"{request.why}: {loading.unknown(item, self._installed)}")
            own = f"{item}, " if request.alias else ""
            item, who = found.target, f"{name} ({own}{found.origin})"
        try:
            signature = sources.read(item) if ":" in item else None
        except UsageError:  # told when it is imported
            return
        for key, option in given.items() if signature is not None else ():
            assert signature is not None
            if key in signature.named:
                subject = f"option {key!r} of plugin {who}"
                if option.value == HIDDEN and hide_if_secret(key):
                    text = f"was hidden when this file was written; give it with -o {name}.{key}="
                    raise PluginError(f"{option.where}: {subject} {text}")
                validated(subject, option, signature.type_of(key), shown=hide_if_secret(key))
            elif not signature.takes_any:
                raise unknown_option(who, key, option, signature.named)

    # --- making --------------------------------------------------------------------------------

    @contextmanager
    def importable(self) -> Iterator[None]:
        """The user's own modules can be imported while this lasts."""
        before = list(sys.path)
        sys.path[:0] = self.search
        try:
            yield
        finally:
            sys.path[:] = before

    def make(self) -> Made:
        """Import what the file names, check it once more, and make trainer, task and data.

        The seed of the trainer, if there is one, is set before the task and before the data.

        Raises:
            UsageError, PluginError: what is wrong, or cannot be made.
        """
        problems: list[TrainbusError] = []
        for key, table in self.called.items():
            problems += self._calls.check(key, table, self._calls.imported, settle=True)
        _raise(problems)
        trainer = self._calls.make("trainer", self.tables["trainer"])
        made = []
        for key in ("task", "data"):
            if trainer.seed is not None:
                from trainbus.devices.random_state import seed_everything

                seed_everything(trainer.seed)
            made.append(self._calls.make(key, self.tables[key]))
        return Made(trainer, made[0], *self._loaders(made[1]))

    def _loaders(self, data: Any) -> tuple[Any, Any]:
        if isinstance(data, Mapping) and "train" in data:
            return data["train"], data.get("valid")
        if isinstance(data, (tuple, list)) and len(data) == 2:
            return data[0], data[1]
        if hasattr(data, "train") and not isinstance(data, Mapping):
            return data.train, getattr(data, "valid", None)
        target = target_of(self.tables["data"])
        raise UsageError(
            f"{self.label}: data: {target} gave a {type(data).__name__}; it must give (train, "
            "valid), or a mapping or an object with train and, if you like, valid. For a loader: "
            f'train = {{class = "{target}"}}'
        )

    # --- writing -------------------------------------------------------------------------------

    def composed(self, directory: Path, loaded: Sequence[Plugin] = ()) -> dict[str, Any]:
        """All that was set, by whomever, as a file in `directory` says it; without secrets.

        Args:
            directory: where the file will be: what is named by its place is named from there.
            loaded: the plugins of the trainer, with their options.
        """
        directory = directory.resolve()

        def from_there(path: Path) -> str:
            path = path.resolve()
            beside = path if path.is_dir() else path.parent
            inside = directory.is_relative_to(beside)
            return os.path.relpath(path, directory) if inside else str(path)

        def plain(value: Any, key: str = "") -> Any:
            value = as_toml(value.value) if isinstance(value, Given) and value.text else value
            value = value.value if isinstance(value, Given) else value
            if isinstance(value, Mapping):
                return {str(n): plain(v, str(n)) for n, v in value.items() if v is not None}
            if isinstance(value, (list, tuple, set, frozenset)):
                return [plain(item) for item in value]
            if key in ("class", "partial") and ".py:" in str(value):
                file, _, name = str(value).rpartition(":")
                return f"{from_there(self.path.parent / file)}:{name}"
            if hasattr(value, "total_seconds"):
                return value.total_seconds()
            is_toml = isinstance(value, (bool, int, float, str)) or hasattr(value, "isoformat")
            return value if is_toml else str(value)

        called = plain(self.called)
        if called["trainer"].get("class") == TRAINER:
            del called["trainer"]["class"]
        names, options = self._plugins(from_there, loaded)
        # The working directory is added once: what a run wrote says it itself.
        search = self._pythonpath if "pythonpath" in self.tables else self.search
        found = [from_there(Path(item)) for item in search]
        composed = {"plugins": names, "pythonpath": found, **called, "options": plain(options)}
        return hide_secrets(composed)

    def _plugins(
        self, from_there: Any, loaded: Sequence[Plugin]
    ) -> tuple[list[str], dict[str, Any]]:
        """The wishes that are left of all that were said, and the options with their values."""
        installed = self._installed
        if command_line.get().disabled:
            return [f"-{name}" for name in (*installed.autoload, *DEFAULTS)], {}
        project = loading.project_in_use()
        selection = select((), project, installed)
        names = []
        for request in selection.active.values():
            item = str(request.item)
            if request.why not in ("built in", "installed"):
                item = from_there(Path(item)) if item.endswith(".py") else item
                names.append(f"{request.alias}={item}" if request.alias else item)
        values = {each.name: _from_here(each) for each in loaded}
        given = loading.given_options(project, selection, installed)
        options = {
            name: {key: values.get(name, {}).get(key, g.value) for key, g in table.items()}
            for name, table in given.items()
        }
        return names + [f"-{name}" for name in selection.blocked], options


def _from_here(plugin: Plugin) -> dict[str, Any]:
    """The options of a plugin, with paths that mean the same from any directory."""
    types, here = types_of(type(plugin.object)), Path.cwd()
    return {key: placed(each, types.get(key, Any), here) for key, each in plugin.options.items()}


def _check_key(key: str, value: Any, where: str) -> None:
    if key not in KEYS:
        known = ", ".join(KEYS)
        raise UsageError(f"{where}: unknown key {key!r}{nearest(key, KEYS)} It knows {known}.")
    if key in _TABLES and not isinstance(value, dict):
        raise UsageError(f"{where}: {key} must be a table, [{key}], not {value!r:.80}")


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        near = path / "config.toml"
        there = f"; did you mean {str(near)!r}?" if near.is_file() else ""
        raise UsageError(f"{path} is a directory{there}")
    if not path.is_file():
        near_names = [file.name for file in path.parent.glob("*.toml")]
        raise UsageError(f"there is no file {str(path)!r}{nearest(path.name, near_names)}")
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error}") from None


def _raise(problems: Sequence[TrainbusError]) -> None:
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listing = "\n".join(f"- {problem}" for problem in problems)
        raise UsageError(f"{len(problems)} mistakes:\n{listing}") from problems[0].__cause__
