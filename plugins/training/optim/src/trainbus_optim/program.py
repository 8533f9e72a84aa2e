"""A chain of blocks as one flat list of instructions, made by calling the blocks with symbols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from trainbus.errors import UsageError
from trainbus_optim.instructions import Instruction, Kept, Program, Segment, Total
from trainbus_optim.numbers import Number, Value
from trainbus_optim.operations import OPERATIONS


class Symbol:
    """A list of tensors that is not there yet: what is done to it is written down.

    `a + b` and the like make a new one; methods that end with an underscore change it.
    """

    __slots__ = ("kind", "name", "tracer")

    def __init__(self, tracer: Tracer, name: str, kind: str = "tensor") -> None:
        self.tracer, self.name, self.kind = tracer, name, kind

    # --- in place ------------------------------------------------------------------------------

    def _change(self, operation: str, *sources: Any, number: Value | None = None) -> Symbol:
        self.tracer.check_writable(self)
        self.tracer.emit(operation, self.name, *sources, number=number)
        return self

    def mul_(self, other: Any) -> Symbol:
        """Multiply by a symbol or a number."""
        if isinstance(other, Symbol):
            return self._change("mul_", other)
        return self._change("mul_number_", number=other)

    def div_(self, other: Any) -> Symbol:
        """Divide by a symbol or a number."""
        if isinstance(other, Symbol):
            return self._change("div_", other)
        return self._change("div_number_", number=other)

    def add_(self, other: Any, alpha: Value | None = None) -> Symbol:
        """Add a number, a symbol, or `alpha` times a symbol."""
        if not isinstance(other, Symbol):
            return self._change("add_number_", number=other)
        if alpha is None:
            return self._change("add_", other)
        return self._change("add_scaled_", other, number=alpha)

    def sub_(self, other: Symbol) -> Symbol:
        """Subtract a symbol."""
        return self._change("sub_", other)

    def lerp_(self, other: Symbol, weight: Value) -> Symbol:
        """Move by `weight` of the way to another."""
        return self._change("lerp_", other, number=weight)

    def addcmul_(self, one: Symbol, other: Symbol, value: Value = 1.0) -> Symbol:
        """Add `value * one * other`."""
        return self._change("addcmul_", one, other, number=value)

    def addcdiv_(self, one: Symbol, other: Symbol, value: Value = 1.0) -> Symbol:
        """Add `value * one / other`."""
        return self._change("addcdiv_", one, other, number=value)

    def maximum_(self, other: Symbol) -> Symbol:
        """Keep the larger of both."""
        return self._change("maximum_", other)

    def minimum_(self, other: Symbol) -> Symbol:
        """Keep the smaller of both."""
        return self._change("minimum_", other)

    def clamp_(self, low: Value | None = None, high: Value | None = None) -> Symbol:
        """Keep within limits."""
        if low is not None:
            self._change("clamp_min_", number=low)
        if high is not None:
            self._change("clamp_max_", number=high)
        return self

    def sqrt_(self) -> Symbol:
        """Take the square root."""
        return self._change("sqrt_")

    def abs_(self) -> Symbol:
        """Take away the sign."""
        return self._change("abs_")

    def sign_(self) -> Symbol:
        """Keep -1, 0 or 1."""
        return self._change("sign_")

    def neg_(self) -> Symbol:
        """Turn the sign."""
        return self._change("neg_")

    def reciprocal_(self) -> Symbol:
        """Take one over it."""
        return self._change("reciprocal_")

    def copy_(self, other: Symbol) -> Symbol:
        """Take the values of another."""
        return self._change("copy_", other)

    # --- new -----------------------------------------------------------------------------------

    def sqrt(self) -> Symbol:
        """The square root."""
        return self.tracer.new("sqrt", self)

    def abs(self) -> Symbol:
        """Without sign."""
        return self.tracer.new("abs", self)

    __abs__ = abs

    def sign(self) -> Symbol:
        """-1, 0 or 1."""
        return self.tracer.new("sign", self)

    def clone(self) -> Symbol:
        """A copy."""
        return self.tracer.new("clone", self)

    def lerp(self, other: Symbol, weight: Value) -> Symbol:
        """`weight` of the way to another."""
        return self.tracer.new("lerp", self, other, number=weight)

    def addcmul(self, square: Symbol, value: Value) -> Symbol:
        """Itself and `value` times the square of another."""
        return self.tracer.new("addcmul", self, square, number=value)

    def maximum(self, other: Symbol) -> Symbol:
        """The larger of both."""
        return self.tracer.new("maximum", self, other)

    def add(self, other: Symbol, alpha: Value) -> Symbol:
        """Itself and `alpha` times another."""
        return self.tracer.new("add_scaled", self, other, number=alpha)

    def __add__(self, other: Any) -> Symbol:
        return self.tracer.binary("add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Symbol:
        if not isinstance(other, Symbol):
            return self.tracer.binary("add", self, -Number.of(other))
        return self.tracer.binary("sub", self, other)

    def __rsub__(self, other: Any) -> Symbol:
        return (-self).add_(other)

    def __mul__(self, other: Any) -> Symbol:
        return self.tracer.binary("mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Symbol:
        return self.tracer.binary("div", self, other)

    def __neg__(self) -> Symbol:
        return self.tracer.new("neg", self)

    # --- one number for each tensor ------------------------------------------------------------

    def norm(self) -> Symbol:
        """The Euclidean norm of each tensor."""
        return self.tracer.new("norm", self, kind="scalar")

    def norm1(self) -> Symbol:
        """The sum of absolute values of each tensor."""
        return self.tracer.new("norm1", self, kind="scalar")

    def dot(self, other: Symbol) -> Symbol:
        """The sum of products of each tensor."""
        return self.tracer.new("dot", self, other, kind="scalar")

    def rms(self) -> Symbol:
        """The root of the mean of squares of each tensor."""
        return self.norm().div_(self.tracer.new("root_size", self, kind="scalar"))

    def mean_abs(self) -> Symbol:
        """The mean of absolute values of each tensor."""
        return self.norm1().div_(self.tracer.new("size", self, kind="scalar"))

    def __bool__(self) -> bool:
        raise UsageError(
            f"block {self.tracer.block}: it asks `if` of a tensor, which is not there while a "
            "chain is traced; multiply by a mask, or write the block with traced=False"
        )


class Tracer:
    """What a block is called with: declares state, and gives symbols and numbers.

    Args:
        group: the values of the group, to ask which numbers are zero.
        count: how many steps these parameters have made.
    """

    def __init__(self, group: Mapping[str, Any], count: int) -> None:
        #: The block that is traced now, for messages.
        self.block = ""
        self._first = count == 0
        self._asked_first = False
        self._step = count + 1
        self._periods: dict[int, bool] = {}
        self._group = group
        self._keys: Mapping[str, str] = {}
        self._zeros: dict[str, bool] = {}
        self._count = 0
        self._segments = [Segment()]
        self._kept: dict[str, Kept] = {}
        self._numbers: list[Number] = []
        self._running: dict[str, tuple[float, Number]] = {}
        self._products: dict[str, Number] = {}
        self._kinds = {"p": "tensor", "g": "tensor"}
        self._uses_step = False
        self._watched: dict[str, str] = {}

    def enter(self, block: str, keys: Mapping[str, str]) -> None:
        """Go on with another block."""
        self.block, self._keys = block, keys

    # --- what a block reads --------------------------------------------------------------------

    @property
    def parameter(self) -> Symbol:
        """The parameters."""
        return Symbol(self, "p")

    @property
    def gradient(self) -> Symbol:
        """The gradients, as autograd gave them; they cannot be written to."""
        return Symbol(self, "g")

    @property
    def lr(self) -> Number:
        """The learning rate."""
        return Number("G['lr']")

    @property
    def step(self) -> Number:
        """How many steps these parameters make with this one, from 1.0."""
        self._uses_step = True
        return Number("t")

    def value(self, name: str) -> float:
        """What a number of this block is now: for the first value of a state."""
        return float(self._group[self._keys[name]])

    def largest(self, name: str, other: Number) -> Number:
        """The larger of a running value and a number."""
        return Number.call(max, Number(f"G[{name!r}]"), other)

    def is_zero(self, name: str) -> bool:
        """Whether a number of this block is zero in the group; another program if that changes."""
        key = self._keys[name]
        self._zeros[key] = not self._group[key]
        return self._zeros[key]

    @property
    def first(self) -> bool:
        """Whether this is the first step of these parameters; later ones have another program."""
        self._asked_first = True
        return self._first

    @property
    def only_first(self) -> bool | None:
        """Whether the program is for first steps; None if it is for all."""
        return self._first if self._asked_first else None

    def count(self) -> None:
        """Keep the count of steps for each parameter, as torch's optimizers do."""
        self._uses_step = True

    def every(self, steps: int) -> bool:
        """Whether this is a step of every so many; other steps have another program."""
        self._uses_step = True
        self._periods[steps] = self._step % steps == 0
        return self._periods[steps]

    @property
    def periods(self) -> dict[int, bool]:
        """The periods that were asked for."""
        return self._periods

    @property
    def zeros(self) -> dict[str, bool]:
        """The numbers that were asked for, and whether they were zero."""
        return self._zeros

    # --- what a block keeps --------------------------------------------------------------------

    def state(self, name: str, start: Any = "zeros", elementwise: bool = True) -> Symbol:
        """What is kept for each parameter under a name."""
        self._keep(Kept(name, start, elementwise=elementwise))
        return self._symbol(f"s_{name}", "tensor")

    def shared(self, name: str, start: float) -> Symbol:
        """One number on the device, for all parameters of the chain."""
        self._keep(Kept(name, start, shared=True, elementwise=False))
        return self._symbol(f"s_{name}", "total")

    def product(self, name: str, factor: Number) -> Number:
        """The product over all steps of a number, in float32, for each parameter."""
        self._keep(Kept(name, 1.0, host=True, elementwise=False))
        self._products[name] = factor
        return Number(f"H[{name!r}]")

    def running(self, name: str, start: float, following: Number | None = None) -> Number:
        """A number of the group that moves on by `following` at each step, before all others."""
        value = Number(f"G[{name!r}]")
        if following is not None:
            self._running[name] = (start, following)
        return value

    def _keep(self, kept: Kept) -> None:
        if kept.name in self._kept:
            raise UsageError(
                f"block {self.block}: the chain keeps {kept.name!r} already; two blocks with a "
                "state of one name would share it: take one of them out, or name the state of "
                "your own block otherwise"
            )
        self._kept[kept.name] = kept

    def _symbol(self, name: str, kind: str) -> Symbol:
        self._kinds[name] = kind
        return Symbol(self, name, kind)

    # --- writing down --------------------------------------------------------------------------

    def check_writable(self, symbol: Symbol) -> None:
        """Refuse to change a gradient. Raises `UsageError`."""
        if symbol.name == "g":
            raise UsageError(
                f"block {self.block} changes the gradient, which loggers and other optimizers "
                "read as well; compute a new value (update * 2, update.clone())"
            )

    def _number(self, value: Value) -> int:
        number = Number.of(value)
        for index, known in enumerate(self._numbers):
            if known.source == number.source:
                return index
        self._numbers.append(number)
        return len(self._numbers) - 1

    def emit(self, operation: str, target: str, *sources: Any, number: Value | None = None) -> None:
        """Write an instruction down."""
        if self._kinds[target] == "total":
            raise UsageError(
                f"block {self.block} computes with a number of all tensors; do that in the "
                "function that is given to t.total"
            )
        for each in sources:
            if not isinstance(each, Symbol):
                raise UsageError(
                    f"block {self.block}: {operation} needs a tensor of the chain, and was given "
                    f"{type(each).__name__}; use update.tensor() and t.state(...)"
                )
        names = tuple(each.name for each in sources)
        index = None if number is None else self._number(number)
        self._segments[-1].code.append(Instruction(operation, target, names, index))

    def new(
        self, operation: str, *sources: Any, number: Value | None = None, kind: str = ""
    ) -> Symbol:
        """Write an instruction down that makes something new."""
        kind = kind or next((s.kind for s in sources if s.kind == "tensor"), sources[0].kind)
        self._count += 1
        made = self._symbol(f"t{self._count}", kind)
        self.emit(operation, made.name, *sources, number=number)
        return made

    def binary(self, operation: str, one: Symbol, other: Any) -> Symbol:
        """`one + other` and the like; `other` is a symbol, an update or a number."""
        if hasattr(other, "tensor"):
            other = other.tensor()
        if isinstance(other, Symbol):
            if one.kind != "tensor" and other.kind == "tensor" and operation in ("add", "mul"):
                one, other = other, one
            return self.new(operation, one, other)
        return self.new(f"{operation}_number", one, number=other)

    def call(
        self, function: Callable[..., Any], *sources: Symbol, numbers: tuple[Value, ...] = (),
        kind: str = "tensor", makes: bool = True,
    ) -> Symbol:  # fmt: skip
        """Call plain tensor code once for each parameter: `function(*tensors, *numbers)`."""
        self._count += 1
        made = self._symbol(f"t{self._count}", kind)
        indices = tuple(self._number(each) for each in numbers)
        names = tuple(each.name for each in sources)
        target = made.name if makes else "_"
        self._segments[-1].code.append(Instruction("call", target, names, None, function, indices))
        return made

    def total(
        self, function: Callable[..., Tensor | None], *sources: Symbol,
        shared: tuple[Symbol, ...] = (), numbers: tuple[Value, ...] = (),
    ) -> Symbol:  # fmt: skip
        """One number of all tensors: `function(*lists of numbers, *shared, *numbers)`."""
        count = sum(len(each.totals) for each in self._segments)
        made = self._symbol(f"x{count}", "total")
        place = self._segments[-1]
        if not place.code and len(self._segments) > 1:
            place = self._segments[-2]
        else:
            self._segments.append(Segment())
        place.totals.append(
            Total(
                made.name, tuple(each.name for each in sources), function,
                tuple(each.name for each in shared), tuple(map(self._number, numbers)),
            )
        )  # fmt: skip
        return made

    def watch(self, name: str, symbol: Symbol) -> None:
        """Offer a number of each tensor to be logged."""
        self._watched[name] = symbol.name

    def finish(self, *results: Symbol) -> Program:
        """The program."""
        if not self._segments[-1].code and len(self._segments) > 1:
            self._segments.pop()
        assert all(
            each.operation in OPERATIONS or each.operation == "call"
            for part in self._segments
            for each in part.code
        )
        return Program(
            self._segments, self._kept, self._numbers, self._running,
            self._products, self._kinds,
            self._uses_step, self._watched, tuple(each.name for each in results),
        )  # fmt: skip
