"""Options of plugins: the typed fields of a class, validated by pydantic."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from trainbus.errors import PluginError, nearest

_SECRET = re.compile(
    r"(?:^|[\W_])(?:(?:api|access|auth|private|secret)?[-_]?key|token|pass(?:word|wd)|secret|"
    r"credentials?)(?:$|[\W_])",
    re.IGNORECASE,
)


class Given(NamedTuple):
    """An option's value and where it was set; `text` when it comes from a shell."""

    value: Any
    where: str
    text: bool = False


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
    types = _types(target)
    values = {}
    for key, option in given.items():
        if key not in parameters:
            known = f"It has {', '.join(parameters)}." if parameters else "It has none."
            raise PluginError(
                f"{option.where}: plugin {who} has no option {key!r}"
                f"{nearest(key, parameters)} {known}"
            )
        values[key] = _validated(who, key, option, types.get(key, Any))
    missing = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty and name not in values
    ]
    if missing:
        raise PluginError(
            f"plugin {who} needs the option {missing[0]!r}: give it as "
            f"-o {who.split()[0]}.{missing[0]}=VALUE, in the project's file, or make the plugin "
            "yourself in Trainer(plugins=[...])"
        )
    try:
        plugin = target(**values)
    except PluginError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        for name, value in values.items():
            if _SECRET.search(name) and value:
                text = text.replace(str(value), "***")
        raise PluginError(
            f"plugin {who} cannot be made with {hide_secrets(values)}: {text}"
        ) from error
    # A default may be made anew for each object: then the object knows it.
    all_options = {
        name: values.get(name, getattr(plugin, name, parameter.default))
        for name, parameter in parameters.items()
    }
    return plugin, hide_secrets(all_options)


def hide_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the values of keys, tokens and passwords replaced."""
    return {
        name: "***" if _SECRET.search(name) and value is not None else value
        for name, value in options.items()
    }


def hide_secrets_of(arguments: Sequence[str]) -> list[str]:
    """A command line with the values of keys, tokens and passwords replaced."""
    hidden: list[str] = []
    before = ""
    for argument in arguments:
        name, is_set, _ = argument.partition("=")
        if is_set and _SECRET.search(name):
            argument = f"{name}=***"
        elif before.startswith("-") and "=" not in before and _SECRET.search(before):
            argument = "***"
        hidden.append(argument)
        before = argument
    return hidden


def _types(target: Any) -> dict[str, Any]:
    function = inspect.getattr_static(target, "__init__") if isinstance(target, type) else target
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # a type that is imported for type checkers only
        return {
            name: _evaluated(annotation, function.__globals__)
            for name, annotation in inspect.get_annotations(function).items()
        }


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    try:
        return eval(annotation, names) if isinstance(annotation, str) else annotation
    except NameError:
        return Any


def _validated(who: str, key: str, option: Given, annotation: Any) -> Any:
    from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a type with a configuration of its own
        adapter = TypeAdapter(annotation)
    attempts = [option.value]
    if option.text:
        # What looks like a list or a table is one, where the option takes one.
        looks = option.value.lstrip().startswith(("[", "{"))
        attempts = _as_toml(option.value) + attempts if looks else attempts + _as_toml(option.value)
    problem: ValidationError | None = None
    for value in attempts:
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            problem = problem or error
    assert problem is not None
    first = problem.errors(include_url=False)[0]
    shown = "***" if _SECRET.search(key) else repr(option.value)
    raise PluginError(f"{option.where}: option {key!r} of plugin {who} is {shown}: {first['msg']}")


def _as_toml(text: str) -> list[Any]:
    """What a shell's text means as a TOML value (`[1, 2]`, `{a = 1}`), if anything."""
    try:
        return [tomllib.loads(f"value = {text}")["value"]]
    except (tomllib.TOMLDecodeError, KeyError):
        return []
