"""Prodigy: a learning rate that is estimated while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_optim.blocks import block
from trainbus_optim.numbers import Number
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


def _correction(step: float, beta1: float, beta2: float, wanted: float) -> float:
    return ((1 - beta2**step) ** 0.5) / (1 - beta1**step) if wanted else 1.0


def _estimate(growth: float, coefficient: float, first: float) -> Any:
    """Move the estimate d of the distance on; what it was before is the result."""

    def move(
        products: list[Tensor], sizes: list[Tensor], d: Tensor, largest: Tensor, sum_: Tensor,
        rate: float, root: float,
    ) -> Tensor:  # fmt: skip
        before = d.clone()
        sum_.mul_(root).add_(d * d * (rate / first) * torch.stack(products).sum())
        below = torch.stack(sizes).sum()
        hat = coefficient * sum_ / below
        known = below != 0
        following = torch.where(d == first, torch.maximum(d, hat), d)
        now_largest = torch.maximum(largest, hat)
        largest.copy_(torch.where(known, now_largest, largest))
        d.copy_(torch.where(known, torch.minimum(now_largest, following * growth), d))
        return before

    return move


@block(
    state=["exp_avg", "exp_avg_sq", "s", "p0", "d", "d_max", "d_numerator"],
    per_group=["betas", "eps", "weight_decay"], reach="global", role="moments",
    formula="d: estimate of the distance to the solution, from <g, p0 - p>; Adam of d g; "
    "u = d m / (sqrt(v) + d eps)",
)  # fmt: skip
def prodigy(
    t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8,
    weight_decay: Any = 0.0, d0: float = 1e-6, d_coef: float = 1.0,
    growth_rate: float = float("inf"), use_bias_correction: bool = False,
) -> Any:  # fmt: skip
    """Prodigy (Mishchenko and Defazio, 2024); the rate that is given is a factor, 1 is usual.

    The sums go over all parameters of the chain. The estimate stays on the device. Groups have to
    have one rate, since there is one estimate.
    """
    beta1, beta2 = betas
    beta3 = beta2**0.5
    d, largest = t.shared("d", d0), t.shared("d_max", d0)
    numerator = t.shared("d_numerator", 0.0)
    gradient = update.direction()
    correction = Number.call(_correction, t.step, beta1, beta2, float(use_bias_correction))
    rate = t.lr * correction
    start = t.state("p0", start="parameter")
    products = gradient.dot(start - t.parameter)
    scaled = gradient * d
    mean = t.state("exp_avg").mul_(beta1).add_(scaled, alpha=1 - beta1)
    square = t.state("exp_avg_sq").mul_(beta2).addcmul_(scaled, scaled, 1 - beta2)
    weighted = t.state("s").mul_(beta3).add_(scaled.mul_(d), alpha=rate / d0)
    before = t.total(
        _estimate(growth_rate, d_coef, d0), products, weighted.norm1(),
        shared=(d, largest, numerator), numbers=(rate, beta3),
    )  # fmt: skip
    direction = mean / square.sqrt().add_(d, alpha=eps)
    if not t.is_zero("weight_decay"):
        direction.add_(t.parameter, alpha=weight_decay)
    return update.over(direction.mul_(before), factor=correction)
