"""The programs of a recipe: one for each combination of what its blocks asked while traced."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainbus_optim.generate import Piece, by_tensor, for_lists
from trainbus_optim.instructions import Program
from trainbus_optim.numbers import advancer, evaluator
from trainbus_optim.recipe import Recipe


@dataclass(frozen=True)
class Conditions:
    """When a program is right."""

    first: bool | None
    zeros: dict[str, bool]
    periods: dict[int, bool]
    options: dict[str, Any]

    def hold(self, group: Mapping[str, Any], count: int) -> bool:
        """Whether they hold for a group after `count` steps."""
        if self.first is not None and self.first != (count == 0):
            return False
        return (
            all((not group[key]) is zero for key, zero in self.zeros.items())
            and all(((count + 1) % n == 0) is time for n, time in self.periods.items())
            and all(group[key] == value for key, value in self.options.items())
        )


class Variant:
    """A program with its code, made when it is first run."""

    def __init__(self, program: Program, conditions: Conditions) -> None:
        self.program, self.conditions = program, conditions
        #: By segment, the function compiled and as it is, and the registers that it takes.
        self.compiled: dict[int, tuple[Any, Any, list[str]]] = {}
        self.evaluate = evaluator(program.numbers)
        self.factors = evaluator(list(program.products.values()))
        self.advance = advancer(
            {name: following for name, (_, following) in program.running.items()}
        )

    @property
    def depends_on_count(self) -> bool:
        """Whether it is another one, or has other numbers, after other counts of steps."""
        return self.program.uses_step or self.conditions.first is not None

    @functools.cached_property
    def wide(self) -> list[Piece]:
        """The segments for lists."""
        return [for_lists(self.program, index) for index in range(len(self.program.segments))]

    @functools.cached_property
    def deep(self) -> list[Piece]:
        """The segments tensor by tensor."""
        return [by_tensor(self.program, index) for index in range(len(self.program.segments))]


class Variants:
    """The programs of a part of a recipe.

    Args:
        recipe: whose blocks.
        part: which of them.
        whole: whether the parameter is changed, see `Recipe.traced`.
    """

    def __init__(self, recipe: Recipe, part: slice = slice(None), whole: bool = True) -> None:
        self._recipe, self._part, self._whole = recipe, part, whole
        self._known: list[Variant] = []

    def of(self, group: Mapping[str, Any], count: int) -> Variant:
        """The program for a group after `count` steps."""
        for each in self._known:
            if each.conditions.hold(group, count):
                return each
        program, tracer = self._recipe.traced(group, count, self._part, self._whole)
        options = {key: group[key] for key in self._recipe.option_keys}
        conditions = Conditions(tracer.only_first, tracer.zeros, tracer.periods, options)
        self._known.append(Variant(program, conditions))
        return self._known[-1]
