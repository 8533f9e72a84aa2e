"""Directions that torch has no class for: AdaBelief, ADOPT, LaProp, Adan, MARS, Sophia."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_optim.blocks import block
from trainbus_optim.numbers import Number
from trainbus_optim.program import Symbol, Tracer
from trainbus_optim.update import Update


@block(
    state=["exp_avg", "exp_avg_var"], per_group=["betas", "eps"], role="moments",
    formula="m as Adam; s = beta2 s + (1 - beta2) (g - m)^2 + eps; "
    "u = m / (1 - beta1^t) / (sqrt(s / (1 - beta2^t)) + eps)",
)  # fmt: skip
def adabelief(t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-16) -> Any:
    """AdaBelief (Zhuang et al., 2020). Eps is added inside the average as well, as the authors do.

    In 16 bits, and in float32 with gradients that do not change, eps has to be larger.
    """
    beta1, beta2 = betas
    gradient = update.direction()
    mean = t.state("exp_avg").lerp_(gradient, 1 - beta1)
    surprise = gradient - mean
    variance = t.state("exp_avg_var").mul_(beta2)
    variance.addcmul_(surprise, surprise, 1 - beta2).add_(eps)
    root = variance.sqrt().div_((1 - beta2**t.step) ** 0.5).add_(eps)
    return update.over(mean, root, over=1 - beta1**t.step)


def _clip_of(step: float) -> float:
    """The limit of ADOPT: (t - 1)^(1/4), where t counts from 1."""
    return float((step - 1) ** 0.25)


@block(
    state=["exp_avg", "exp_avg_sq"], per_group=["betas", "eps"], role="moments",
    formula="first v = g^2, no step; then n = clip(g / max(sqrt(v), eps), +-(t-1)^0.25); "
    "m = lerp(m, n, 1 - beta1); u = m; v = beta2 v + (1 - beta2) g^2",
)  # fmt: skip
def adopt(t: Tracer, update: Update, betas: Any = (0.9, 0.9999), eps: Any = 1e-6) -> Any:
    """ADOPT (Taniguchi et al., 2024): v of the steps before, and so any beta2 converges."""
    beta1, beta2 = betas
    gradient = update.direction()
    mean, square = t.state("exp_avg"), t.state("exp_avg_sq")
    if t.first:
        square.addcmul_(gradient, gradient)
        t.count()
        return Update(t, [], None)
    limit = Number.call(_clip_of, t.step)
    scaled = gradient / square.sqrt().clamp_(low=eps)
    mean.lerp_(scaled.clamp_(low=-limit, high=limit), 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, 1 - beta2)
    return update.over(mean)


@block(
    state=["exp_avg", "exp_avg_sq"], per_group=["betas", "eps"], role="moments",
    formula="v as Adam; m = lerp(m, g / (sqrt(v / (1 - beta2^t)) + eps), 1 - beta1); "
    "u = m / (1 - beta1^t)",
)  # fmt: skip
def laprop(t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-15) -> Any:
    """LaProp (Ziyin, Wang and Ueda, 2020): normalised first, averaged then."""
    beta1, beta2 = betas
    gradient = update.direction()
    square = t.state("exp_avg_sq").mul_(beta2).addcmul_(gradient, gradient, 1 - beta2)
    root = square.sqrt().div_((1 - beta2**t.step) ** 0.5).add_(eps)
    mean = t.state("exp_avg").lerp_(gradient / root, 1 - beta1)
    return update.over(mean, over=1 - beta1**t.step)


@block(
    state=["exp_avg", "exp_avg_diff", "exp_avg_sq", "previous"], per_group=["betas", "eps"],
    role="moments",
    formula="d = g - previous g; m, w, n: averages of g, d, (g + beta2 d)^2; "
    "u = (m / c1 + beta2 w / c2) / (sqrt(n / c3) + eps), c: 1 - beta^t",
)  # fmt: skip
def adan(t: Tracer, update: Update, betas: Any = (0.98, 0.92, 0.99), eps: Any = 1e-8) -> Any:
    """Adan (Xie et al., 2022), with the corrections of the authors' program.

    The betas are what stays of an average, as everywhere here; the paper writes 1 - beta.
    """
    beta1, beta2, beta3 = betas
    gradient = update.direction()
    previous = t.state("previous")
    change = t.state("exp_avg_diff")
    if t.first:
        previous.copy_(gradient)
    mean = t.state("exp_avg").lerp_(gradient, 1 - beta1)
    difference = gradient - previous
    change.lerp_(difference, 1 - beta2)
    ahead = difference.mul_(beta2).add_(gradient)
    square = t.state("exp_avg_sq").mul_(beta3).addcmul_(ahead, ahead, 1 - beta3)
    previous.copy_(gradient)
    root = square.sqrt().div_((1 - beta3**t.step) ** 0.5).add_(eps)
    both = (mean / (1 - beta1**t.step)).add_(change, alpha=beta2 / (1 - beta2**t.step))
    return update.over(both, root)


@block(
    per_group=["weight_decay"], reach="affine", role="decay",
    formula="p = (p - lr u) / (1 + lr weight_decay)",
)  # fmt: skip
def proximal_decay(t: Tracer, update: Update, weight_decay: Any = 0.01) -> Any:
    """Decay as a proximal step, after the update: Adan's (Xie et al., 2022)."""
    if t.is_zero("weight_decay"):
        return update

    def apply() -> None:
        update.finish()
        t.parameter.div_(1.0 + t.lr * weight_decay)

    return Update(t, [], None, apply, update.tensor)


def _limited(value: Symbol) -> Symbol:
    """A value with a norm of at most 1, tensor by tensor."""
    one = value.norm().clamp_(low=1.0)
    return value.div_(one)


@block(
    state=["previous"], per_group=["beta", "gamma"], reach="tensor", role="gradient",
    formula="c = g + gamma beta / (1 - beta) (g - previous g); c / max(1, |c|), tensor by tensor",
)  # fmt: skip
def variance_reduced(t: Tracer, update: Update, beta: Any = 0.95, gamma: Any = 0.025) -> Any:
    """The corrected gradient of MARS (Yuan et al., 2024), in its approximate form."""
    gradient = update.direction()
    previous = t.state("previous")
    if t.first:
        corrected = gradient.clone()
    else:
        corrected = gradient.add(gradient - previous, gamma * (beta / (1 - beta)))
    previous.copy_(gradient)
    return update.over(_limited(corrected))


@block(
    state=["exp_avg", "hessian"], per_group=["betas", "rho", "eps"], role="moments",
    formula="m as Lion; h: average of curvature; u = clip(m / max(rho h, eps), +-1)",
)  # fmt: skip
def sophia(
    t: Tracer, update: Update, betas: Any = (0.965, 0.99), rho: Any = 0.04, eps: Any = 1e-12
) -> Any:
    """Sophia (Liu et al., 2023). The curvature comes from `Chain.update_curvature`, every few
    steps: the square of gradients of a loss with labels that the model drew itself."""
    gradient = update.direction()
    mean = t.state("exp_avg").lerp_(gradient, 1 - betas[0])
    scale = (t.state("hessian") * rho).clamp_(low=eps)
    return update.over((mean / scale).clamp_(low=-1.0, high=1.0))


def average_curvature(hessian: Tensor, gradient: Tensor, beta: float, batch: float) -> None:
    """Move the curvature of Sophia: h = beta h + (1 - beta) B g^2."""
    hessian.mul_(beta).add_(torch.square(gradient), alpha=(1 - beta) * batch)
