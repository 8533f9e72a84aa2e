"""Tables that are called: `{class = "module:Class", ...}` and `{partial = "module:function", ...}`.

The other keys of such a table are the arguments; tables and lists among them are made first.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.machinery import PathFinder
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import Any

from trainbus.errors import PluginError, UsageError, nearest
from trainbus.fit.signatures import Signature, inspected
from trainbus.fit.static import Sources
from trainbus.plugins.options import Given, as_toml, validated
from trainbus.secrets import HIDDEN, hide_if_secret, is_secret, without_secrets

TRAINER = "trainbus.engine.trainer:Trainer"

#: What tells the signature of a target, for a key of the file.
Reader = Callable[[str, str], Signature | None]


class Factory:
    """Checks the tables of one file, and makes what they say.

    Args:
        path: the file; modules that are given as `./file.py` are beside it.
        search: the directories of the user's own modules.
    """

    def __init__(self, path: Path, search: list[str]) -> None:
        self.label = str(path)
        self._base = path.parent
        self._search = search
        self._sources = Sources(search)
        self._objects: dict[str, Any] = {}
        self._signatures: dict[str, Signature | None] = {}

    # --- where signatures come from ------------------------------------------------------------

    def read(self, key: str, target: str) -> Signature | None:
        """The signature as the source tells it; None where it does not. Raises `UsageError`."""
        module, colon, name = target.rpartition(":")
        if not colon:
            raise UsageError(_colon_missing(target))
        place = str(self._base / module) if module.endswith(".py") else module
        return _for(target, self._sources.read(f"{place}:{name}"))

    def imported(self, key: str, target: str) -> Signature | None:
        """The signature of the object itself, which is imported. Raises `UsageError`."""
        self._objects[key] = self._import(target)
        self._signatures[key] = _for(target, inspected(self._objects[key]))
        return self._signatures[key]

    # --- checking ------------------------------------------------------------------------------

    def check(self, key: str, value: Any, read: Reader, settle: bool = False) -> list[UsageError]:
        """What is wrong with the calls in a value: names, types, what is missing.

        Args:
            key: where in the file the value is.
            value: a table, a list or anything else.
            read: tells signatures, `self.read` or `self.imported`.
            settle: replace what came as a shell's text by what it means.
        """
        problems: list[UsageError] = []
        if isinstance(value, dict) and ("class" in value or "partial" in value):
            problems += self._check_call(key, value, read, settle)
        for name, item in _items(value):
            problems += self.check(f"{key}.{name}", item, read, settle)
        return problems

    def _check_call(
        self, key: str, table: dict[str, Any], read: Reader, settle: bool
    ) -> list[UsageError]:
        kind = "class" if "class" in table else "partial"
        target = target_of(table)
        where = self.where(table[kind])
        if target is None or ("class" in table and "partial" in table):
            example = f'{kind} = "package.module:name"'
            return [UsageError(f"{where}: {key}: write one target, {example}")]
        try:
            signature = read(key, target)
        except UsageError as error:
            problem = UsageError(f"{self._at(f'{key}.{kind}', table[kind])}: {error}")
            problem.__cause__ = error.__cause__
            return [problem]
        if signature is None:
            return []
        problems = []
        who = name_of(target)
        arguments = [name for name in table if name != kind]
        for name in arguments:
            if signature.parameter(name) is None:
                names = signature.named
                has = f"It has {', '.join(names)}." if names else "It has none."
                problems.append(
                    UsageError(
                        f"{self._at(f'{key}.{name}', table[name])}: {who} has no argument "
                        f"{name!r}{nearest(name, names)} {has}"
                    )
                )
                continue
            try:
                value = self._argument(f"{key}.{name}", name, table[name], signature)
            except UsageError as error:
                problems.append(error)
                continue
            if settle and not _has_calls(table[name]):
                table[name] = value if isinstance(table[name], Given) else _read(table[name])
        missing = [name for name in signature.required if name not in arguments]
        if missing and kind == "class":
            listed = " and ".join(f"{key}.{name}" for name in missing)
            problems.append(UsageError(f"{self.label}: {key}: {who} needs {listed}"))
        return problems

    def _argument(self, key: str, name: str, value: Any, signature: Signature) -> Any:
        """A plain argument as its type wants it; one with calls in it is checked when made."""
        if _has_calls(value):
            return value
        given = value if isinstance(value, Given) else Given(_read(value), self.label)
        if given.value == HIDDEN and is_secret(name):
            raise UsageError(
                f"{given.where}: {key} was hidden when this file was written; give it with "
                f"--set {key}=VALUE"
            )
        return validated(key, given, signature.type_of(name), UsageError, hide_if_secret(name))

    def where(self, value: Any) -> str:
        """Where a value was set, for messages."""
        return value.where if isinstance(value, Given) else self.label

    def _at(self, key: str, value: Any) -> str:
        where = self.where(value)
        return where if where.endswith(f" {key}") else f"{where}: {key}"

    # --- making --------------------------------------------------------------------------------

    def make(self, key: str, value: Any) -> Any:
        """A value with its tables called, from the inside to the outside.

        `check` comes first, with `imported`. Raises `UsageError` for what cannot be made.
        """
        if isinstance(value, list):
            return [self.make(f"{key}.{index}", item) for index, item in enumerate(value)]
        if not isinstance(value, dict):
            return _read(value)
        if target_of(value) is None:
            return {name: self.make(f"{key}.{name}", item) for name, item in value.items()}
        arguments = {
            name: self._made(key, name, item)
            for name, item in value.items()
            if name not in ("class", "partial")
        }
        who = name_of(str(target_of(value)))
        target = self._objects[key]
        if "partial" in value and not arguments:
            return target
        positional = _positional(self._signatures[key], arguments)
        if "partial" in value:
            return partial(target, *positional, **arguments)
        try:
            return target(*positional, **arguments)
        except PluginError:
            raise
        except UsageError as error:
            raise UsageError(f"{self.label}: {key}: {error}") from error
        except (Exception, SystemExit) as error:
            text = without_secrets(f"{type(error).__name__}: {error}", arguments)
            module = sys.modules.get(getattr(target, "__module__", ""))
            place = _line_in(getattr(module, "__file__", None), error)
            raise UsageError(f"{self.label}: {key}: {who} cannot be made: {text}{place}") from error

    def _made(self, key: str, name: str, value: Any) -> Any:
        """An argument; one that was made of a table is checked, and taken as it is."""
        signature = self._signatures[key]
        key = f"{key}.{name}"
        made = self.make(key, value)
        if signature is None:
            return made
        given, annotation = Given(made, self.label), signature.type_of(name)
        if not _has_calls(value):
            return validated(key, given, annotation, UsageError, hide_if_secret(name))
        validated(key, given, annotation, UsageError, f"made as {type(made).__name__}")
        return made

    def _import(self, target: str) -> Any:
        name, colon, attribute = target.rpartition(":")
        if not colon:
            raise UsageError(_colon_missing(target))
        try:
            value: Any = self._module(name)
        except UsageError:
            raise
        except (Exception, SystemExit) as error:
            spec = None if name.endswith(".py") else _spec(name)
            file = str(self._base / name) if name.endswith(".py") else spec and spec.origin
            text = f"{type(error).__name__}: {error}{_line_in(file, error)}"
            raise UsageError(f"{name} cannot be imported: {text}") from error
        for part in attribute.split("."):
            try:
                value = getattr(value, part)
            except AttributeError as error:
                owner = getattr(value, "__name__", repr(value))
                raise UsageError(f"{owner} has no {part!r}{nearest(part, dir(value))}") from error
        if not callable(value):
            raise UsageError(f"{target} is {value!r:.80}, no class and no function")
        return value

    def _module(self, name: str) -> ModuleType:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        path = (self._base / name).resolve()
        if not path.is_file():
            raise UsageError(f"there is no file {str(path)!r}")
        spec = PathFinder.find_spec(path.stem, self._search)
        if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path:
            return importlib.import_module(path.stem)
        name = f"trainbus_file_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        known = sys.modules.get(name)
        if known is not None and known.__file__ == str(path):
            return known
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        return module


def target_of(table: Any) -> str | None:
    """What a table calls, or None if it is a plain one."""
    if not isinstance(table, dict):
        return None
    target = table.get("class", table.get("partial"))
    target = target.value if isinstance(target, Given) else target
    return target if isinstance(target, str) else None


def targets(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """The key and the target of each call in a value, the outer before the inner."""
    if (target := target_of(value)) is not None:
        yield key, target
    for name, item in _items(value):
        yield from targets(f"{key}.{name}", item)


def _items(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def name_of(target: str) -> str:
    """A target as messages call it."""
    return "Trainer" if target == TRAINER else target


def _for(target: str, signature: Signature | None) -> Signature | None:
    """The signature without what a file says elsewhere: the trainer's plugins."""
    if signature is None or target != TRAINER:
        return signature
    named = {name: p for name, p in signature.parameters.items() if name != "plugins"}
    return replace(signature, parameters=named)


def _colon_missing(target: str) -> str:
    module, dot, name = target.rpartition(".")
    if dot:
        return f"{target!r}: write module and name with a colon, {f'{module}:{name}'!r}"
    return f"{target!r}: write module and name with a colon, 'module:{target}'"


def _has_calls(value: Any) -> bool:
    return next(targets("", value), None) is not None


def _read(value: Any) -> Any:
    """A plain value with what came as a shell's text read as TOML."""
    if isinstance(value, dict):
        return {name: _read(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_read(item) for item in value]
    return as_toml(value.value) if isinstance(value, Given) else value


def _positional(signature: Signature | None, arguments: dict[str, Any]) -> list[Any]:
    """Take those arguments out that cannot be given by name."""
    if signature is None:
        return []
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    spread = any(kinds.get(name) is Parameter.VAR_POSITIONAL for name in arguments)
    taken: list[Any] = []
    for name, kind in kinds.items():
        if name not in arguments:
            continue
        if kind is Parameter.VAR_POSITIONAL:
            taken += arguments.pop(name)
        elif kind is Parameter.POSITIONAL_ONLY or (
            spread and kind is Parameter.POSITIONAL_OR_KEYWORD
        ):
            taken.append(arguments.pop(name))
    return taken


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _line_in(file: Any, error: BaseException) -> str:
    """The innermost line of a file that an error passed."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if file and frame.filename == str(file)]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""
