"""What a program is made of: instructions over registers, states, sums, segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from trainbus_optim.numbers import Number
from trainbus_optim.operations import WHOLE


class Instruction(NamedTuple):
    """One operation with its registers; `number` is the place of a number of the program."""

    operation: str
    target: str
    sources: tuple[str, ...] = ()
    number: int | None = None
    function: Callable[..., Any] | None = None
    numbers: tuple[int, ...] = ()


@dataclass
class Kept:
    """What a block keeps for each parameter between steps.

    `start` is "zeros", "ones" or "parameter" (its value then), a number, or a function of the
    parameter that gives the tensor. `shared`: one tensor for all parameters of the chain.
    `host`: one number, which the host reads.
    """

    name: str
    start: str | float | Callable[[Tensor], Tensor | None] = "zeros"
    shared: bool = False
    host: bool = False
    #: It is of the parameter's shape, and follows `state_dtype`.
    elementwise: bool = True


@dataclass
class Total:
    """A sum over all tensors: the function takes the lists of numbers, and the shared tensors."""

    target: str | None
    sources: tuple[str, ...]
    function: Callable[..., Tensor | None]
    shared: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()


@dataclass
class Segment:
    """Instructions without a sum over all tensors between them, and the sums after them."""

    code: list[Instruction] = field(default_factory=list)
    totals: list[Total] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether it needs whole tensors, and no pieces."""
        return any(each.operation in WHOLE for each in self.code)


@dataclass
class Program:
    """What a chain does at a step, for parameters of one kind."""

    segments: list[Segment]
    kept: dict[str, Kept]
    numbers: list[Number]
    running: dict[str, tuple[float, Number]]
    #: Products over all steps, kept for each parameter: the factor of a step.
    products: dict[str, Number]
    #: What kind a register is: "tensor", "scalar" (one number for each tensor), "total".
    kinds: dict[str, str]
    uses_step: bool
    #: Registers with numbers for each tensor to log, by name.
    watched: dict[str, str]
    #: Registers with lists that whoever runs it takes.
    results: tuple[str, ...] = ()

    @property
    def passes(self) -> int:
        """How many instructions go over all elements."""
        return sum(
            self.kinds.get(each.target) == "tensor" for part in self.segments for each in part.code
        )
