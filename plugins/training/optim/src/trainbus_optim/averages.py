"""Averages of weights inside the optimizer: what to evaluate differs from what is trained."""

from __future__ import annotations

from typing import Any

from trainbus_optim.blocks import block
from trainbus_optim.numbers import Number
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


@block(
    state=["slow"], per_group=["alpha"], role="weights",
    formula="every k steps: slow = lerp(slow, p, alpha); p = slow",
)  # fmt: skip
def lookahead(t: Tracer, update: Update, alpha: Any = 0.5, k: int = 5) -> Any:
    """Lookahead (Zhang et al., 2019): slow weights that follow the fast ones.

    Args:
        t: the tracer.
        update: not used; the step is made.
        alpha: how far they follow.
        k: steps between.
    """
    slow = t.state("slow", start="parameter")
    if t.every(k):
        slow.lerp_(t.parameter, alpha)
        t.parameter.copy_(slow)
    return update


@block(
    state=["average"], per_group=["beta"], role="weights",
    formula="average = beta average + (1 - beta) p, after the step",
)  # fmt: skip
def ema(t: Tracer, update: Update, beta: Any = 0.999) -> Any:
    """A moving average of the weights (Polyak and Juditsky, 1992)."""
    t.state("average", start="parameter").lerp_(t.parameter, 1 - beta)
    return update


def _weight(step: float, r: float, largest: float, power: float) -> float:
    return float(step**r * largest**power)


def _warmed(lr: float, step: float, warmup: float) -> float:
    return float(lr * min(1.0, step / warmup)) if warmup else float(lr)


def _share(weight: float, total: float) -> float:
    return weight / total if total else 0.0


@block(
    state=["z"], per_group=["beta", "warmup_steps", "r", "weight_lr_power"], role="step",
    formula="g at y; z = z - lr u; x: average of z with weights t^r lr_max^power; "
    "y = lerp(z, x, beta); evaluate at x",
)  # fmt: skip
def schedule_free(
    t: Tracer, update: Update, beta: Any = 0.9, warmup_steps: Any = 0.0, r: Any = 0.0,
    weight_lr_power: Any = 2.0,
) -> Any:  # fmt: skip
    """Schedule-free averaging (Defazio et al., "The road less scheduled", 2024).

    The parameters are y while training. `optimizer.averages()` puts x in their place.
    """
    steps = t.running("steps", 0.0, Number("G['steps']") + 1)
    warm = Number.call(_warmed, t.lr, steps, warmup_steps)
    largest = t.running("lr_max", 0.0, t.largest("lr_max", warm))
    weight = t.running("weight", 0.0, Number.call(_weight, steps, r, largest, weight_lr_power))
    total = t.running("weight_sum", 0.0, Number("G['weight_sum']") + weight)
    share = Number.call(_share, weight, total)
    z = t.state("z", start="parameter")
    direction = update.direction()
    if update.decay is not None:  # at y, as the authors do
        direction = direction.add(t.parameter, update.decay)
    y = t.parameter
    y.lerp_(z, share)
    y.add_(direction, alpha=warm * (beta * (1 - share) - 1))
    z.add_(direction, alpha=-warm)
    return Update(t, [], None)


@block(
    state=["exp_avg_sq"], per_group=["betas", "eps"], role="moments",
    formula="v as Adam; u = g / (sqrt(v / (1 - beta2^t)) + eps)",
)  # fmt: skip
def unaveraged_adam(t: Tracer, update: Update, betas: Any = (0.9, 0.999), eps: Any = 1e-8) -> Any:
    """Adam without momentum, with bias correction: what schedule-free averages."""
    beta2 = betas[1]
    gradient = update.direction()
    square = t.state("exp_avg_sq").mul_(beta2).addcmul_(gradient, gradient, 1 - beta2)
    root = (square / (1 - beta2**t.step)).sqrt_().add_(eps)
    return update.over(gradient, root)
