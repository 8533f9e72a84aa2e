"""Directions that look at a whole matrix: Muon, SOAP, Adafactor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trainbus_optim.blocks import block
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update

#: Jordan et al., 2024.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def as_matrix(value: Tensor) -> Tensor:
    """A kernel as (outputs, inputs x height x width); a matrix as it is."""
    return value if value.ndim == 2 else value.reshape(value.shape[0], -1)


def orthogonalized(
    value: Tensor, coefficients: tuple[float, float, float] = COEFFICIENTS, steps: int = 5,
    eps: float = 1e-7, dtype: torch.dtype = torch.bfloat16,
) -> Tensor:  # fmt: skip
    """The nearest matrix with singular values of about 1, by Newton-Schulz (Jordan et al., 2024).

    The order of operations is that of torch.optim.Muon.
    """
    a, b, c = coefficients
    matrix = as_matrix(value).to(dtype=dtype, copy=True)
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = matrix.T
    matrix.div_(matrix.norm().clamp(min=eps))
    for _ in range(steps):
        gram = matrix @ matrix.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        matrix = torch.addmm(matrix, polynomial, matrix, beta=a)
    return (matrix.T if tall else matrix).reshape(value.shape)


def _scale(shape: torch.Size, rule: str) -> float:
    rows, columns = shape[0], math.prod(shape[1:])
    if rule == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    if rule == "spectral_unclamped":
        return math.sqrt(rows / columns)
    return math.sqrt(max(1, rows / columns))


@block(
    state=["momentum_buffer"], per_group=["momentum", "eps"], reach="matrix", role="moments",
    formula="b = lerp(b, g, 1 - momentum); u = lerp(g, b, momentum) (nesterov); "
    "u = orthogonal(u) scale(rows, columns)",
)  # fmt: skip
def orthogonal(
    t: Tracer, update: Update, momentum: Any = 0.95, eps: Any = 1e-7, nesterov: bool = True,
    ns_steps: int = 5, ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
    adjust_lr_fn: str | None = None, dtype: str = "bfloat16",
) -> Any:  # fmt: skip
    """Muon (Jordan et al., 2024; Bernstein and Newhouse, 2024), with torch's scales of the rate.

    Decay uses the rate without the scale. The step is `p - lr scale u` in the order of torch.
    """
    gradient = update.direction()
    buffer = t.state("momentum_buffer").lerp_(gradient, 1 - momentum)
    direction = gradient.lerp(buffer, momentum) if nesterov else buffer
    kind = getattr(torch, dtype)
    rule = adjust_lr_fn or "original"

    def orthogonal_of(value: Tensor, smallest: float) -> Tensor:
        return orthogonalized(value, tuple(ns_coefficients), ns_steps, smallest, kind)  # type: ignore[arg-type]

    def add(parameter: Tensor, value: Tensor, lr: float) -> None:
        parameter.add_(value, alpha=-(lr * _scale(parameter.shape, rule)))

    def scaled(parameter: Tensor, value: Tensor) -> Tensor:
        return value.to(parameter.dtype) * _scale(parameter.shape, rule)

    made = t.call(orthogonal_of, direction, numbers=(eps,))

    def apply() -> None:
        t.call(add, t.parameter, made, numbers=(t.lr,), makes=False)

    return Update(t, [], update.decay, apply, lambda: t.call(scaled, t.parameter, made))


def _moved(left: Tensor, right: Tensor, matrix: Tensor) -> Tensor:
    return left.T @ matrix @ right


def _basis(factor: Tensor) -> Tensor:
    """Eigenvectors, the largest first."""
    return torch.linalg.eigh(factor.double()).eigenvectors.flip(1).to(factor.dtype)


def _refreshed(factor: Tensor, basis: Tensor, square: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """One step of the power method and a QR, with the second moments in the new order."""
    values = (basis.T @ factor @ basis).diagonal()
    order = values.argsort(descending=True)
    square = square.index_select(dim, order)
    return torch.linalg.qr(factor @ basis[:, order]).Q, square


def _starts(size: int) -> Any:
    """The first value of a preconditioner: a square matrix of rows, or of columns."""

    def start(parameter: Tensor) -> Tensor:
        matrix = as_matrix(parameter)
        side = matrix.shape[size]
        return matrix.new_zeros(side, side)

    return start


@block(
    state=["exp_avg", "exp_avg_sq", "left", "right", "left_basis", "right_basis"],
    per_group=["betas", "shampoo_beta", "eps"], reach="matrix", role="moments",
    formula="L, R: averages of G G', G' G; Adam in their eigenbases, which a QR renews every few "
    "steps",
)  # fmt: skip
def soap(
    t: Tracer, update: Update, betas: Any = (0.95, 0.95), shampoo_beta: Any = 0.95,
    eps: Any = 1e-8, every: int = 10,
) -> Any:  # fmt: skip
    """SOAP (Vyas et al., 2024). The first gradient makes the bases, and no step."""
    gradient = update.direction()
    kept = [t.state("exp_avg"), t.state("exp_avg_sq")]
    kept += [t.state(name, _starts(0), False) for name in ("left", "left_basis")]
    kept += [t.state(name, _starts(1), False) for name in ("right", "right_basis")]
    if t.first:
        t.call(_first_soap, gradient, *kept, numbers=(shampoo_beta,), makes=False)
        t.count()
        return Update(t, [], None)
    renew = t.every(every)

    def run(g: Tensor, *rest: Any) -> Tensor:
        return _soap(g, rest[:6], *rest[6:], renew=renew)

    numbers = (*betas, shampoo_beta, eps, t.step - 1)
    return update.over(t.call(run, gradient, *kept, numbers=numbers))


def _first_soap(
    gradient: Tensor, mean: Tensor, square: Tensor, left: Tensor, left_basis: Tensor,
    right: Tensor, right_basis: Tensor, beta: float,
) -> None:  # fmt: skip
    g = as_matrix(gradient)
    left.lerp_(g @ g.T, 1 - beta)
    right.lerp_(g.T @ g, 1 - beta)
    left_basis.copy_(_basis(left))
    right_basis.copy_(_basis(right))


def _soap(
    gradient: Tensor, kept: Any, beta1: float, beta2: float, shampoo: float, eps: float,
    step: float, renew: bool,
) -> Tensor:  # fmt: skip
    """One step after the first; the mean is kept outside of the bases."""
    mean, square, left, left_basis, right, right_basis = kept
    g, flat = as_matrix(gradient), square.view(left.shape[0], -1)
    mean.lerp_(gradient, 1 - beta1)
    turned = _moved(left_basis, right_basis, g)
    flat.mul_(beta2).addcmul_(turned, turned, value=1 - beta2)
    turned_mean = _moved(left_basis, right_basis, as_matrix(mean))
    scale = (1 - beta2**step) ** 0.5 / (1 - beta1**step)
    made = left_basis @ (turned_mean / (flat.sqrt() + eps)) @ right_basis.T
    left.lerp_(g @ g.T, 1 - shampoo)
    right.lerp_(g.T @ g, 1 - shampoo)
    if renew:
        new_left, ordered = _refreshed(left, left_basis, flat, 0)
        new_right, ordered = _refreshed(right, right_basis, ordered, 1)
        left_basis.copy_(new_left)
        right_basis.copy_(new_right)
        flat.copy_(ordered)
    return made.mul_(scale).reshape(gradient.shape)
