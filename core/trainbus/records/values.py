"""What records hold: copies that nobody changes, and JSON that every reader understands."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from trainbus.errors import RecordRejected


def repeats(
    repeatable: Mapping[str, Mapping[int, float]], step: int, body: Mapping[str, Any]
) -> tuple[set[str], bool]:
    """The names whose value at a step is known from before the run went back; is one another?"""
    found, differs = set(), False
    for name, value in body.items():
        known = repeatable[name].get(step)
        if known is None:
            continue
        if known == value or (math.isnan(known) and math.isnan(value)):
            found.add(name)
        else:
            differs = True
    return found, differs


class Asked(dict[str, dict[int, float]]):
    """Values by metric and step, each metric read when it is first asked for."""

    def __init__(self, read: Callable[[str], dict[int, float]]) -> None:
        self.read = read

    def __missing__(self, name: str) -> dict[int, float]:
        found = self[name] = self.read(name)
        return found


class ReadOnly(dict[str, Any]):
    """A mapping that no listener can change for the others; a copy of it is a plain `dict`."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("what was logged is read-only: others receive it, too; copy it first")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        return {key: deepcopy(value, memo) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def read_only(value: Any, around: tuple[int, ...] = ()) -> Any:
    """A copy of a record's values that no listener can change for the others."""
    if id(value) in around or len(around) > 100:  # the journal refuses it
        return value
    around = (*around, id(value))
    if isinstance(value, Mapping):
        return ReadOnly({key: read_only(item, around) for key, item in value.items()})
    if type(value) in (list, tuple):
        return tuple(read_only(item, around) for item in value)
    return value


def plain(value: Any) -> Any:
    """What JSON has no word for: numbers of torch or NumPy as numbers, everything else as text."""
    return value.item() if getattr(value, "ndim", None) == 0 else str(value)


def text(body: Mapping[str, Any]) -> str:
    """A body in JSON, whose keys are texts. Raises `RecordRejected`."""
    try:
        return json.dumps(_keyed(body), default=plain)
    except Exception as error:  # of a `__str__`, of what leads back to itself, of any kind
        raise RecordRejected(f"{type(error).__name__}: {error}") from error


def _keyed(value: Any, around: tuple[int, ...] = ()) -> Any:
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    if id(value) in around or len(around) > 100:
        raise RecordRejected("it is nested too deeply, or holds itself")
    around = (*around, id(value))
    if isinstance(value, Mapping):
        return {str(key): _keyed(item, around) for key, item in value.items()}
    return [_keyed(item, around) for item in value]
