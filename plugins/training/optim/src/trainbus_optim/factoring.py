"""Adafactor: second moments of a matrix as one row and one column."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_optim.blocks import block
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


def _row(parameter: Tensor) -> Tensor | None:
    if parameter.ndim < 2:
        return None
    return parameter.new_zeros([*parameter.shape[:-1], 1])


def _column(parameter: Tensor) -> Tensor | None:
    if parameter.ndim < 2:
        return None
    return parameter.new_zeros([*parameter.shape[:-2], 1, parameter.shape[-1]])


def _whole(parameter: Tensor) -> Tensor | None:
    return torch.zeros_like(parameter) if parameter.ndim < 2 else None


def _mean_square(gradient: Tensor, dim: int) -> Tensor:
    norm = torch.linalg.vector_norm(gradient, dim=dim, keepdim=True)
    return norm.square_().div_(gradient.size(dim))


def _direction(
    gradient: Tensor, row: Tensor | None, column: Tensor | None, whole: Tensor | None,
    weight: float, eps1: float,
) -> Tensor:  # fmt: skip
    """g / sqrt of the estimate, in the order of torch.optim.Adafactor."""
    if row is not None and column is not None:
        row.lerp_(_mean_square(gradient, -1), weight)
        column.lerp_(_mean_square(gradient, -2), weight)
        estimate = row @ column
        estimate.div_(row.mean(dim=-2, keepdim=True).clamp_(min=eps1))
    else:
        assert whole is not None
        whole.lerp_(gradient * gradient, weight)
        estimate = whole.clone()
    return estimate.clamp_(min=eps1 * eps1).rsqrt_().mul_(gradient)


def _rate(
    parameter: Tensor, direction: Tensor, lr: float, step: float, eps2: float, d: float
) -> Any:
    """What the direction is multiplied with: the parameter's size times the relative rate.

    On the CPU a number of Python, as torch computes it; elsewhere nobody waits for the device.
    """
    if not parameter.numel():
        return 0.0
    relative = min(lr, 1 / (step**0.5))
    root, own_root = parameter.numel() ** 0.5, direction.numel() ** 0.5
    if parameter.device.type == "cpu":
        size = max(eps2, parameter.norm(2).item() / root)
        return size * relative / max(1.0, direction.norm(2).item() / (own_root * d))
    size = (parameter.norm(2) / root).clamp(min=eps2)
    return size * relative / (direction.norm(2) / (own_root * d)).clamp(min=1.0)


@block(
    state=["row_var", "col_var", "variance"], per_group=["beta2_decay", "d"],
    reach="matrix", role="moments",
    formula="r, c: means of g^2 by row and column; u = g / sqrt(r c / mean(r)); "
    "u / max(1, rms(u) / d); rate: max(eps2, rms(p)) min(lr, 1 / sqrt(t))",
)  # fmt: skip
def factored(
    t: Tracer, update: Update, beta2_decay: Any = -0.8, d: Any = 1.0,
    eps: tuple[float | None, float] = (None, 1e-3),
) -> Any:  # fmt: skip
    """Adafactor (Shazeer and Stern, 2018), as torch.optim.Adafactor computes it.

    Rows and columns are the last two dimensions: of a convolution with small kernels they save
    nothing. Give its parameters to another optimizer, or take `adamw`.
    """
    eps1, eps2 = eps
    states = [
        t.state("row_var", _row, False), t.state("col_var", _column, False),
        t.state("variance", _whole, False),
    ]  # fmt: skip
    gradient = update.direction()

    def direct(g: Tensor, row: Any, column: Any, whole: Any, weight: float) -> Tensor:
        smallest = torch.finfo(g.dtype).eps if eps1 is None else eps1
        return _direction(g, row, column, whole, weight, smallest)

    made = t.call(direct, gradient, *states, numbers=(t.step**beta2_decay,))

    def add(parameter: Tensor, size: Any, value: Tensor, lr: float) -> None:
        if isinstance(size, Tensor):
            parameter.sub_(value * size)
        else:
            parameter.add_(value, alpha=-size)

    def size(parameter: Tensor, value: Tensor, *numbers: float) -> Any:
        return _rate(parameter, value, *numbers)

    # The size is of the parameter before its decay.
    scale = t.call(size, t.parameter, made, numbers=(t.lr, t.step, eps2, d), kind="scalar")

    def apply() -> None:
        t.call(add, t.parameter, scale, made, numbers=(t.lr,), makes=False)

    def direction() -> Any:
        def of(value: Tensor, own: Any, lr: float) -> Tensor:
            return value * own / lr if lr else value * 0

        return t.call(of, made, scale, numbers=(t.lr,))

    return Update(t, [], update.decay, apply, direction)
