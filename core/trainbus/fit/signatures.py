"""Signatures of classes and functions: what each is called with, and what its docstring says."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from types import GenericAlias
from typing import Any

from trainbus.plugins.options import types_of

EMPTY = inspect.Parameter.empty


class Unread(str):
    """A default as it is written, where it is no plain value."""

    __repr__ = str.__str__


@dataclass(frozen=True)
class Signature:
    """What a class or a function is called with."""

    parameters: dict[str, inspect.Parameter]
    summary: str = ""
    #: Types as they are written, and what the docstring's `Args:` says, by parameter.
    types: dict[str, str] = field(default_factory=dict)
    docs: dict[str, str] = field(default_factory=dict)

    @property
    def named(self) -> list[str]:
        """The arguments that can be given by name."""
        return [n for n, p in self.parameters.items() if p.kind is not p.VAR_KEYWORD]

    def parameter(self, name: str) -> inspect.Parameter | None:
        """The parameter that takes an argument of this name."""
        if name in self.named:
            return self.parameters[name]
        return next((p for p in self.parameters.values() if p.kind is p.VAR_KEYWORD), None)

    def type_of(self, name: str) -> Any:
        """The type of an argument; a list for `*name`."""
        parameter = self.parameter(name)
        if parameter is None:
            return Any
        annotation = parameter.annotation
        if annotation is EMPTY:
            # A default that is a text tells that a number, too, is meant as one.
            annotation = str if type(parameter.default) is str else Any
        spread = parameter.kind is parameter.VAR_POSITIONAL
        return GenericAlias(list, (annotation,)) if spread else annotation

    @property
    def takes_any(self) -> bool:
        """Whether it takes arguments of any name."""
        return any(p.kind is p.VAR_KEYWORD for p in self.parameters.values())

    @property
    def required(self) -> list[str]:
        """The arguments that have to be given."""
        variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [
            name
            for name, parameter in self.parameters.items()
            if parameter.default is EMPTY and parameter.kind not in variable
        ]


def inspected(target: Any) -> Signature | None:
    """The signature of a class or function at hand, or None if it has none (some C code)."""
    try:
        parameters = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return None
    hints = types_of(target)
    types = {
        name: inspect.formatannotation(parameter.annotation).replace("'", "")
        for name, parameter in parameters.items()
        if parameter.annotation is not EMPTY
    }
    parameters = {
        name: parameter.replace(annotation=hints.get(name, parameter.annotation))
        for name, parameter in parameters.items()
    }
    texts = [inspect.getdoc(target) or ""]
    if isinstance(target, type):
        texts.append(inspect.getdoc(inspect.getattr_static(target, "__init__")) or "")
    return Signature(parameters, summary(texts[0]), types, documented("\n".join(texts)))


def documented(text: str) -> dict[str, str]:
    """What the section `Args:` of a docstring says of each argument."""
    said: dict[str, list[str]] = {}
    inside, margin, name = False, -1, ""
    for line in inspect.cleandoc(text).splitlines():
        indent = len(line) - len(line.lstrip())
        if re.fullmatch(r"(Args|Arguments|Parameters):", line.strip()):
            inside, margin = True, -1
        elif line.strip() and indent == 0:
            inside = False
        elif inside and line.strip():
            margin = indent if margin < 0 else margin
            entry = re.match(r"\s*\*{0,2}(\w+)(?: \(.*?\))?: ?(.*)", line)
            if indent == margin and entry:
                name = entry[1]
                said[name] = [entry[2]]
            elif name in said:
                said[name].append(line.strip())
    return {name: " ".join(lines).strip() for name, lines in said.items()}


def summary(text: str) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(text).partition("\n")[0]
