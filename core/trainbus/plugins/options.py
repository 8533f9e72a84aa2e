"""Options of plugins: the typed fields of a class, validated by pydantic."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from trainbus.errors import PluginError, TrainbusError, nearest
from trainbus.secrets import HIDDEN, hide_if_secret, hide_secrets, without_secrets


class Given(NamedTuple):
    """An option's value and where it was set; `text` when it comes from a shell."""

    value: Any
    where: str
    text: bool = False
    #: From where a path is meant; the working directory, where it is None.
    folder: Path | None = None


class NeedsOptions(PluginError):
    """A plugin refuses the options that it was given, or needs others."""


def schema(target: Any) -> dict[str, inspect.Parameter]:
    """The options of a plugin's class or factory: its parameters by name."""
    if inspect.ismodule(target) or not callable(target):
        return {}
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {
        name: parameter
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in variable
    }


def field_names(kind: type) -> list[str]:
    """The names of a plugin class's options."""
    try:
        return list(schema(kind))
    except ValueError:  # a class without a signature
        return []


def build(who: str, target: Any, given: Mapping[str, Given]) -> tuple[Any, dict[str, Any]]:
    """Make a plugin of its class and options; a module or a ready-made object is taken as it is.

    Returns the plugin and all its options without secrets. Raises `PluginError` that names the
    option, where it was set, and what would be right.
    """
    parameters = schema(target)
    if not callable(target):
        for key, option in given.items():
            raise PluginError(f"{option.where}: plugin {who} has no option {key!r}, nor any other")
        return target, {}
    types = types_of(target)
    values = {}
    for key, option in given.items():
        if key not in parameters:
            raise unknown_option(who, key, option, list(parameters))
        subject = f"option {key!r} of plugin {who}"
        kind = types.get(key, Any)
        is_hidden = any(hasattr(each, "get_secret_value") for each in _members(kind))
        shown = HIDDEN if is_hidden else hide_if_secret(key)
        value = validated(subject, option, kind, shown=shown)
        values[key] = value if option.folder is None else placed(value, kind, option.folder)
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in values
    ]
    if missing:
        raise NeedsOptions(
            f"plugin {who} needs the option {missing[0]!r}: give it as "
            f"-o {who.split()[0]}.{missing[0]}=VALUE, in the project's file, or make the plugin "
            "yourself in Trainer(plugins=[...])"
        )
    try:
        plugin = target(**values)
    except PluginError as error:
        places = ", ".join(dict.fromkeys(option.where for option in given.values()))
        raise NeedsOptions(f"plugin {who}: {error}" + (f" ({places})" if places else "")) from error
    except Exception as error:
        text = without_secrets(f"{type(error).__name__}: {error}", values)
        raise PluginError(
            f"plugin {who} cannot be made with {hide_secrets(values)}: {text}"
        ) from error
    # A default may be made again for each object: then the object knows it.
    all_options = {
        name: values.get(name, getattr(plugin, name, parameter.default))
        for name, parameter in parameters.items()
    }
    return plugin, hide_secrets(all_options)


def unknown_option(who: str, key: str, option: Given, names: Sequence[str]) -> PluginError:
    """The error for an option that a plugin does not have."""
    known = f"It has {', '.join(names)}." if names else "It has none."
    return PluginError(
        f"{option.where}: plugin {who} has no option {key!r}{nearest(key, names)} {known}"
    )


def types_of(target: Any) -> dict[str, Any]:
    """The annotations of a class's or a function's parameters; unreadable ones are `Any`."""
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # a type that is imported for type checkers only, or is none
        names = getattr(function, "__globals__", {})
        annotations = getattr(function, "__annotations__", None) or {}
        return {name: _evaluated(annotation, names) for name, annotation in annotations.items()}


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    try:
        return eval(annotation, names) if isinstance(annotation, str) else annotation
    except Exception:
        return Any


def validated(
    subject: str,
    given: Given,
    annotation: Any,
    error: type[TrainbusError] = PluginError,
    shown: str | None = None,
) -> Any:
    """The value as its type wants it.

    Args:
        subject: what is set, for the message.
        given: the value. A text from a shell becomes the TOML value that it reads as, where the
            type takes that as it is.
        annotation: its type; what pydantic has no word for is not checked.
        error: what to raise for a value that does not fit.
        shown: what stands for the value in the message, if not the value.
    """
    from pydantic import ValidationError

    adapter = _adapter(annotation)
    if adapter is None:
        return given.value
    attempts = [(given.value, False)]
    if given.text:
        read = _as_toml(given.value)
        attempts = [*((value, True) for value in read), *attempts, *((v, False) for v in read)]
        # What looks like a list or a table is one, where the option takes one.
        if given.value.lstrip().startswith(("[", "{")):
            attempts = [*((value, False) for value in read), *attempts]
    problem: ValidationError | None = None
    for value, strict in attempts:
        try:
            return adapter.validate_python(value, strict=strict or None)
        except ValidationError as failure:
            problem = problem if strict else problem or failure
    assert problem is not None
    shown = shown or f"{given.value!r:.200}"
    reason = problem.errors(include_url=False)[0]["msg"]
    raise error(f"{given.where}: {subject} is {shown}: {reason}")


def placed(value: Any, annotation: Any, folder: Path) -> Any:
    """A value with the paths in it from a folder: those that are one, and texts that may be one."""
    return _placed(value, _members(annotation), folder)


def _placed(value: Any, members: Sequence[Any], folder: Path) -> Any:
    may_be_path = isinstance(value, str) and any(_is_path(each) for each in members)
    if may_be_path or _is_path(type(value)):
        far = str(value).startswith("~") or "://" in str(value)
        return value if far else type(value)(folder / value)
    inner = [each for member in members for part in get_args(member) for each in _members(part)]
    if isinstance(value, dict):
        return {key: _placed(each, inner, folder) for key, each in value.items()}
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(_placed(each, inner, folder) for each in value)
    return value


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, one by one."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [each for part in get_args(annotation) for each in _members(part)]
    return [annotation]


def _is_path(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, PurePath)


def _adapter(annotation: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter

    # A type with a configuration of its own takes none.
    for config in (ConfigDict(arbitrary_types_allowed=True), None):
        try:
            return TypeAdapter(annotation, config=config)
        except PydanticUserError:
            continue
    return None


def as_toml(text: str) -> Any:
    """What a shell's text reads as in TOML (`[1, 2]`, `{a = 1}`, `0.5`), or the text itself."""
    return next(iter(_as_toml(text)), text)


def _as_toml(text: str) -> list[Any]:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return []
    return [value]
