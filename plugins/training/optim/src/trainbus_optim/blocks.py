"""What a block is: a function that is called once with symbols, and what it declares."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainbus.errors import UsageError, nearest
from trainbus_optim.checks import check_number

#: How far a block looks: at numbers of the host, at each element, at a whole tensor, at a matrix,
#: at all tensors.
REACHES = ("affine", "pointwise", "tensor", "matrix", "global")
#: What a block does, by which their order is checked.
ROLES = ("gradient", "moments", "shape", "decay", "l2", "step", "weights")


@dataclass(frozen=True)
class Block:
    """One step of an optimizer, with its values.

    Args:
        name: as it is printed.
        function: called with a tracer, the update and the block's own values.
        make: what made it, for pickling.
        numbers: values that may differ by group and change from step to step.
        options: values that choose what is computed.
        reach: one of `REACHES`.
        role: one of `ROLES`.
        state: what it keeps for each parameter.
        formula: for people.
        traced: whether `function` takes symbols; else tensors, parameter by parameter.
    """

    name: str
    function: Callable[..., Any]
    make: Callable[..., Block]
    numbers: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    reach: str = "pointwise"
    role: str = "shape"
    state: tuple[str, ...] = ()
    formula: str = ""
    traced: bool = True

    def __reduce__(self) -> Any:
        return functools.partial(self.make, **self.numbers, **self.options), ()

    def __repr__(self) -> str:
        values = {**self.numbers, **self.options}
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in values.items())})"


def block(
    *,
    state: Sequence[str] = (),
    per_group: Sequence[str] = (),
    reach: str = "pointwise",
    role: str = "shape",
    formula: str = "",
    traced: bool = True,
    name: str = "",
) -> Callable[[Callable[..., Any]], Callable[..., Block]]:
    """Make a block of a function: `function(t, update, **values)` returns the next update.

    The function is called once, with symbols: arithmetic on them is written down, and runs at each
    step. `t.parameter`, `t.gradient` and `t.state(name)` are symbols; values in `per_group` and
    `t.lr`, `t.step` are numbers, read from the group at each step. With `traced=False` it takes
    tensors, one parameter at a time, `function(update, parameter, state, **values)` with a
    dictionary `state`, and returns a new tensor: slower, in plain code.

    Args:
        state: the names of what it keeps for each parameter.
        per_group: the arguments that are numbers of the group.
        reach: how far it looks, one of `affine`, `pointwise`, `tensor`, `matrix`, `global`.
        role: what it does, one of `gradient`, `moments`, `shape`, `decay`, `l2`, `step` (it changes
            the parameter itself) and `weights` (it comes after the step).
        formula: for `explain()`.
        traced: whether it takes symbols.
        name: instead of the function's.

    Raises:
        UsageError: a declaration is none of these.
    """
    if reach not in REACHES:
        raise UsageError(f"block(reach={reach!r}): give one of {', '.join(REACHES)}")
    if role not in ROLES:
        raise UsageError(f"block(role={role!r}): give one of {', '.join(ROLES)}")

    def decorate(function: Callable[..., Any]) -> Callable[..., Block]:
        title = name or function.__name__
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[2 if traced else 3 :]
        unknown = set(per_group) - {each.name for each in own}
        if unknown:
            raise UsageError(
                f"block {title}: per_group names {sorted(unknown)[0]!r}, which is no argument of it"
            )
        public = signature.replace(parameters=own, return_annotation="Block")

        @functools.wraps(function)
        def make(*args: Any, **kwargs: Any) -> Block:
            try:
                bound = public.bind(*args, **kwargs)
            except TypeError as error:
                names = [each.name for each in own]
                wrong = next((key for key in kwargs if key not in names), "")
                near = nearest(wrong, names) if wrong else ""
                raise UsageError(f"{title}: {error}{near}") from error
            bound.apply_defaults()
            values = dict(bound.arguments)
            numbers = {key: values.pop(key) for key in per_group}
            for key, value in numbers.items():
                check_number(key, value, title)
            return Block(
                title, function, make, numbers, values, reach, role, tuple(state), formula, traced
            )

        make.__signature__ = public  # type: ignore[attr-defined]
        return make

    return decorate
