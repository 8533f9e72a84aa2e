"""Momentum, and the directions that are made of it alone."""

from __future__ import annotations

from typing import Any

from trainbus_optim.blocks import block
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


@block(
    state=["momentum_buffer"], per_group=["momentum", "dampening"], role="moments",
    formula="b = momentum b + (1 - dampening) u, at first b = u; "
    "u = b, or u + momentum b (nesterov)",
)  # fmt: skip
def momentum(
    t: Tracer, update: Update, momentum: Any = 0.9, dampening: Any = 0.0, nesterov: bool = False
) -> Any:
    """A running sum of gradients (Polyak, 1964; Nesterov, 1983; Sutskever et al., 2013)."""
    if t.is_zero("momentum"):
        return update
    gradient = update.direction()
    buffer = t.state("momentum_buffer")
    if t.first:
        buffer.copy_(gradient)
    else:
        buffer.mul_(momentum).add_(gradient, alpha=1 - dampening)
    if nesterov:
        return update.over(gradient.add(buffer, momentum))
    return update.over(buffer)


@block(
    state=["exp_avg"], per_group=["beta"], role="moments",
    formula="m = beta m + (1 - beta) u; u = m / (1 - beta^t) (debias)",
)  # fmt: skip
def ema_momentum(t: Tracer, update: Update, beta: Any = 0.9, debias: bool = True) -> Any:
    """A moving average of gradients, as Adam has it (Kingma and Ba, 2015)."""
    mean = t.state("exp_avg").lerp_(update.direction(), 1 - beta)
    return update.over(mean, over=1 - beta**t.step if debias else None)


@block(formula="u = sign(u)")
def sign(t: Tracer, update: Update) -> Any:
    """Only the sign: signSGD (Bernstein et al., 2018)."""
    return update.over(update.sign()) if update.decay is None else update.sign()


@block(
    state=["exp_avg"], per_group=["betas"], role="moments",
    formula="u = sign(beta1 m + (1 - beta1) g); m = beta2 m + (1 - beta2) g",
)  # fmt: skip
def lion(t: Tracer, update: Update, betas: Any = (0.9, 0.99)) -> Any:
    """Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023).

    The rate is 3 to 10 times smaller than AdamW's, the decay as much larger.
    """
    beta1, beta2 = betas
    gradient = update.direction()
    mean = t.state("exp_avg")
    direction = mean.lerp(gradient, 1 - beta1).sign_()
    mean.lerp_(gradient, 1 - beta2)
    return update.over(direction)
