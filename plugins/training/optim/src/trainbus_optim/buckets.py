"""Parameters that make a step together, and what is kept for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainbus.errors import UsageError
from trainbus_optim import fused
from trainbus_optim.instructions import Kept
from trainbus_optim.recipe import Recipe
from trainbus_optim.runs import Deep, Fused, Wide
from trainbus_optim.variants import Variants

#: Blocks that are linear in the gradient.
_LINEAR = {"l2", "momentum", "decay"}
#: Reaches that a compiled program has.
_NEAR = ("affine", "pointwise")
#: From how many passes over a tensor it pays to take one tensor after the other, on the CPU.
DEEP_FROM = 4


class Part:
    """A recipe with its programs and, where torch has one, its fused kernel."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.variants = Variants(recipe)
        self.kernel, self.why = fused.recognised(recipe)
        self.before: Variants | None = None
        self.after: Variants | None = None
        if self.kernel is not None:
            self.before = Variants(recipe, slice(0, self.kernel.start), whole=False)
            if self.kernel.stop < len(recipe.blocks):
                self.after = Variants(recipe, slice(self.kernel.stop, None))

    def joint_count(self, group: dict[str, Any], count: int, kind: str) -> int:
        """What stands for a count: parameters of one make a step together.

        A fused kernel reads the count of each parameter by itself; what is around it may not.
        """
        if kind != "fused" or self.kernel is None or self.kernel.name == "sgd":
            return count
        around = [each.of(group, count) for each in (self.before, self.after) if each is not None]
        return count if any(each.depends_on_count for each in around) else min(count, 1)

    def kind_for(
        self, parameters: Sequence[Tensor], asked: str, state_dtype: torch.dtype | None = None
    ) -> tuple[str, str]:
        """How it runs for parameters, "fused", "foreach" or "compiled", and why not fused."""
        if asked == "compiled":
            far = [b.name for b in self.recipe.blocks if b.reach not in _NEAR or not b.traced]
            dense = all(is_dense(each) and each.is_floating_point() for each in parameters)
            if far or not dense:
                what = f"{far[0]} looks at whole tensors" if far else "parameters with gaps"
                return "foreach", f"not compiled: {what}"
            return asked, "asked for"
        if asked in ("foreach", "wide", "deep"):
            return "foreach", "asked for"
        if self.kernel is None:
            return "foreach", self.why
        why = fused.unsupported(self.kernel, parameters)
        if state_dtype is not None and any(each.dtype != state_dtype for each in parameters):
            why = "fused kernels keep states in the type of the parameters"
        return ("foreach", why) if why else ("fused", "")


def is_dense(tensor: Tensor) -> bool:
    """Whether its elements fill its memory, each once, in any order of dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _real(tensors: Iterable[Any]) -> list[Any]:
    """Complex tensors as pairs of real numbers, as torch's optimizers see them."""
    return [
        torch.view_as_real(each) if each is not None and torch.is_complex(each) else each
        for each in tensors
    ]


class Bucket:
    """Parameters of one group, device and type, that have made equally many steps.

    Args:
        part: the recipe.
        group: the numbers.
        parameters: those with a gradient.
        states: what is kept for each, filled where it is empty.
        count: the steps that they have made.
        kind: fused, foreach or compiled.
        asked: wide, deep, or what the device is best with.
    """

    def __init__(
        self, part: Part, group: dict[str, Any], parameters: list[nn.Parameter],
        states: list[dict[str, Any]], count: int, kind: str, asked: str,
        state_dtype: torch.dtype | None,
    ) -> None:  # fmt: skip
        self.part, self.group, self.parameters, self.states = part, group, parameters, states
        self.count, self.kind = count, kind
        names = {each.name for each in part.recipe.blocks}
        #: torch's SGD takes complex numbers as they are, all others as pairs.
        self.complex = torch.is_complex(parameters[0]) and not names <= _LINEAR
        self._dtype = state_dtype if state_dtype != parameters[0].dtype else None
        variant = part.variants.of(group, count)
        program = variant.program
        self.kept = dict(program.kept)
        self._uses_step = program.uses_step
        for name, (start, _) in program.running.items():
            group.setdefault(name, start)
        for parameter, state in zip(parameters, states, strict=True):
            _fill(parameter, state, self.kept.values(), self._uses_step, kind, state_dtype)
        self.steps = [state["step"] for state in states] if self._uses_step else []
        real = _real if self.complex else list
        lists: dict[str, Any] = {"p": real(parameters)}
        for each in self.kept.values():
            if each.shared:
                lists[f"s_{each.name}"] = states[0][each.name]
            elif not each.host:
                lists[f"s_{each.name}"] = real(state.get(each.name) for state in states)
        if self.steps:
            lists["s_step"] = self.steps
        self.mode, self.run = self._runner(program.passes, lists, asked)
        self.host = {
            each.name: float(states[0][each.name]) for each in self.kept.values() if each.host
        }

    def _runner(self, passes: int, lists: dict[str, Any], asked: str) -> tuple[str, Wide]:
        part = self.part
        if self.kind == "fused":
            assert part.kernel is not None and part.before is not None
            keys = part.recipe.keys[part.kernel.start : part.kernel.stop]
            return "fused", Fused(part.kernel, keys, part.before, part.after, lists)
        plain = all(type(each) in (nn.Parameter, Tensor) for each in self.parameters)
        dense = plain and all(is_dense(each) for each in lists["p"])
        on_host = self.parameters[0].device.type == "cpu"
        if self.kind == "compiled":
            from trainbus_optim.compiled import Compiled

            return "compiled", Compiled(part.variants, lists)
        deep = on_host and passes >= DEEP_FROM if asked not in ("wide", "deep") else asked == "deep"
        return ("deep", Deep(part.variants, lists)) if deep and dense else (
            "wide", Wide(part.variants, lists)
        )  # fmt: skip

    def begin(self, gradients: list[Tensor]) -> None:
        """Count the step, and look up the program and its numbers."""
        if self.steps:
            on_host = self.steps[0].device.type == "cpu"
            one = _ONE if on_host else 1
            torch._foreach_add_(self.steps, one) if not on_host else torch._foreach_add_(
                self.steps, one, alpha=1.0
            )  # fmt: skip
        gradients = _real(gradients) if self.complex else gradients
        if self._dtype is not None:
            gradients = [each.to(self._dtype) for each in gradients]
        if self.group["maximize"] and self.kind != "fused":
            gradients = list(torch._foreach_neg(gradients))
        if self.host:
            self._multiply()
        self.run.begin(gradients, self.group, self.count, self.host)
        self.count += 1

    def _multiply(self) -> None:
        """Move the products on that are kept on the host, in their own precision."""
        variant = self.part.variants.of(self.group, self.count)
        factors = variant.factors(self.group, float(self.count + 1), self.host)
        for name, factor in zip(variant.program.products, factors, strict=True):
            values = [state[name] for state in self.states]
            torch._foreach_mul_(values, factor)
            self.host[name] = float(values[0])


_ONE = torch.tensor(1.0)


def _fill(
    parameter: nn.Parameter, state: dict[str, Any], kept: Iterable[Kept], step: bool, kind: str,
    dtype: torch.dtype | None,
) -> None:  # fmt: skip
    """Make what a parameter has no state of yet, and bring what it has into form."""
    device = parameter.device
    if step and "step" not in state:
        state["step"] = torch.tensor(0.0, dtype=_type_of_step(kind))
    if step and not isinstance(state["step"], Tensor):
        state["step"] = torch.tensor(float(state["step"]), dtype=_type_of_step(kind))
    if step:
        wanted = device if kind == "fused" else torch.device("cpu")
        state["step"] = state["step"].to(wanted, _type_of_step(kind))
    for each in kept:
        if state.get(each.name) is None:
            if (value := _start(parameter, each, dtype)) is not None:
                state[each.name] = value
        elif each.host:
            state[each.name] = state[each.name].to("cpu")
        elif each.elementwise and state[each.name].stride() != parameter.stride():
            value = state[each.name]
            state[each.name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()


def _type_of_step(kind: str) -> torch.dtype:
    wide = torch.get_default_dtype() == torch.float64 and kind != "fused"
    return torch.float64 if wide else torch.float32


def _start(parameter: nn.Parameter, kept: Kept, dtype: torch.dtype | None) -> Tensor | None:
    value = parameter.detach()
    if kept.host:
        return torch.tensor(kept.start, dtype=_type_of_step(""))
    if kept.shared:
        return torch.tensor(kept.start, device=parameter.device, dtype=torch.float32)
    if callable(kept.start):
        return kept.start(value)
    if kept.start == "parameter":
        return value.clone(memory_format=torch.preserve_format).to(dtype or value.dtype)
    start = {"zeros": 0.0, "ones": 1.0}.get(kept.start, kept.start)  # type: ignore[arg-type]
    made = torch.zeros_like(value, dtype=dtype, memory_format=torch.preserve_format)
    return made.fill_(start) if start else made


def refuse(parameter: Tensor, gradient: Tensor, name: str, recipe: Recipe) -> None:
    """Refuse gradients and parameters that a recipe cannot step with. Raises `UsageError`."""
    if gradient.is_sparse:
        raise UsageError(
            f"the gradient of {name} is sparse, and {recipe.name} touches all rows; make the "
            "embedding with sparse=False, or give this parameter to torch.optim.SparseAdam"
        )
    if torch.is_complex(parameter):
        far = next((b for b in recipe.blocks if b.reach in ("tensor", "matrix", "global")), None)
        far = far or next((each for each in recipe.blocks if not each.traced), None)
        if far is not None:
            raise UsageError(
                f"{name} is complex, and {far.name} is defined for real parameters; give complex "
                "ones to adam, sgd or rmsprop, in an optimizer of their own"
            )
