"""What the constructor of a task was given, as far as it is plain values."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from trainbus.secrets import hide_secrets

#: Longest text, most entries and greatest depth of a value that is kept.
_TEXT, _ENTRIES, _DEPTH = 10_000, 1_000, 5
_KEY = "_given_arguments"


def noting(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that notes what it was given, where no subclass did so before it."""

    @functools.wraps(init)
    def wrapped(self: Any, *arguments: Any, **named: Any) -> None:
        if _KEY not in vars(self):
            # Around `nn.Module.__setattr__`, which works only once its own constructor has.
            vars(self)[_KEY] = _plain_arguments(init, self, arguments, named)
        init(self, *arguments, **named)

    return wrapped


def given_to(task: object) -> dict[str, Any]:
    """The plain values by name, without defaults and secrets."""
    found: dict[str, Any] = dict(vars(task).get(_KEY, {}))
    return {name: value for name, value in hide_secrets(found).items() if value == found[name]}


def _plain_arguments(
    init: Callable[..., None], task: Any, arguments: tuple[Any, ...], named: dict[str, Any]
) -> dict[str, Any]:
    signature = inspect.signature(init)
    try:
        bound = signature.bind(task, *arguments, **named)
    except TypeError:  # the constructor itself says so
        return {}
    found: dict[str, Any] = {}
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.name not in bound.arguments:  # a default, which stays one
            continue
        value = bound.arguments[parameter.name]
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= value
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            found[parameter.name] = value
    plain = {name: value for name, value in found.items() if is_plain(value)}
    return {n: tuple(v) if isinstance(v, tuple) else v for n, v in plain.items()}


def is_plain(value: Any, depth: int = _DEPTH) -> bool:
    """Whether it is a number, a text, or a small list or mapping of such."""
    if value is None or type(value) in (bool, int, float):
        return True
    if type(value) is str:
        return len(value) <= _TEXT
    if depth == 0 or not isinstance(value, (list, tuple, Mapping)) or len(value) > _ENTRIES:
        return False
    if isinstance(value, Mapping):
        if type(value) is not dict or not all(type(key) is str for key in value):
            return False
        value = list(value.values())
    return all(is_plain(each, depth - 1) for each in value)


def taken(make: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of values that a file has, those that the constructor of a class takes by name."""
    parameters = inspect.signature(make).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return dict(given)
    known = {each.name for each in parameters}
    return {name: value for name, value in given.items() if name in known}
