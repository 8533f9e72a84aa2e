"""Numbers of a group that are known when a step begins: expressions, not values.

A block writes `1 - beta2**t.step` once, while it is traced. What is kept is the Python expression,
in which the values of the group stand by name; each step evaluates all of them in one call, in
double precision and in the order in which they were written, as torch.optim does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: A number, or what becomes one.
Value = Any


class Number:
    """An expression over the values of a group and the count of its steps.

    Args:
        source: Python, over `G` (the group), `t` (the step, from 1.0), `H` (what is kept on the
            host for each parameter) and the names in `functions`.
        functions: what the expression calls.
    """

    __slots__ = ("functions", "source")

    def __init__(
        self, source: str, functions: dict[str, Callable[..., float]] | None = None
    ) -> None:
        self.source = source
        self.functions = functions or {}

    @staticmethod
    def of(value: Value) -> Number:
        """A number as an expression."""
        return value if isinstance(value, Number) else Number(repr(float(value)))

    @staticmethod
    def call(function: Callable[..., float], *arguments: Value) -> Number:
        """What a function of the host gives for numbers, at each step.

        The function's name tells it apart: two functions of one name in one module are one.
        """
        given = [Number.of(each) for each in arguments]
        name = f"{function.__module__}_{function.__qualname__}"
        name = "".join(c if c.isalnum() else "_" for c in name)
        functions = {name: function}
        for each in given:
            functions |= each.functions
        return Number(f"{name}({', '.join(each.source for each in given)})", functions)

    def _with(self, other: Value, form: str) -> Number:
        second = Number.of(other)
        text = "(" + form.format(self.source, second.source) + ")"
        return Number(text, {**self.functions, **second.functions})

    def __add__(self, other: Value) -> Number:
        return self._with(other, "{0} + {1}")

    def __radd__(self, other: Value) -> Number:
        return self._with(other, "{1} + {0}")

    def __sub__(self, other: Value) -> Number:
        return self._with(other, "{0} - {1}")

    def __rsub__(self, other: Value) -> Number:
        return self._with(other, "{1} - {0}")

    def __mul__(self, other: Value) -> Any:
        return self._with(other, "{0} * {1}") if _is_plain(other) else NotImplemented

    def __rmul__(self, other: Value) -> Number:
        return self._with(other, "{1} * {0}")

    def __truediv__(self, other: Value) -> Number:
        return self._with(other, "{0} / {1}")

    def __rtruediv__(self, other: Value) -> Number:
        return self._with(other, "{1} / {0}")

    def __pow__(self, other: Value) -> Number:
        return self._with(other, "{0} ** {1}")

    def __rpow__(self, other: Value) -> Number:
        return self._with(other, "{1} ** {0}")

    def __neg__(self) -> Number:
        return Number(f"(-{self.source})", self.functions)

    def __bool__(self) -> bool:
        raise TypeError(
            "a number of a group is known when a step is made, not when a block is traced: "
            "no `if` can ask for it; use t.is_zero(name), or Number.call(function, ...)"
        )


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, Number))


def evaluator(numbers: list[Number]) -> Callable[..., tuple[float, ...]]:
    """One function that gives all numbers of a program: `evaluate(group, step, host)`."""
    space: dict[str, Any] = {}
    for each in numbers:
        space |= each.functions
    lines = "".join(f"  {each.source},\n" for each in numbers)
    exec(compile(f"def evaluate(G, t, H):\n return (\n{lines} )", "<numbers>", "exec"), space)
    return space["evaluate"]  # type: ignore[no-any-return]


def advancer(running: dict[str, Number]) -> Callable[[dict[str, Any]], None] | None:
    """A function that moves the running values of a group on by one step; None if it has none."""
    if not running:
        return None
    space: dict[str, Any] = {}
    for each in running.values():
        space |= each.functions
    lines = "".join(f" G[{name!r}] = {each.source}\n" for name, each in running.items())
    exec(compile(f"def advance(G):\n{lines}", "<running values>", "exec"), space)
    return space["advance"]  # type: ignore[no-any-return]
