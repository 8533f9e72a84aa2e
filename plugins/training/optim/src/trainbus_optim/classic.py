"""The optimizers that torch has, under its names and with its defaults."""

from __future__ import annotations

from typing import Any

from trainbus_optim import adaptive, decays, moments
from trainbus_optim.blocks import Block
from trainbus_optim.recipe import Recipe, ready


def recipe(lr: Any, *blocks: Block) -> Recipe:
    """Blocks with a learning rate; the name is that of the function that is decorated."""
    return Recipe("", blocks, lr)


@ready()
def sgd(
    lr: float = 1e-3, momentum: float = 0.0, dampening: float = 0.0, weight_decay: float = 0.0,
    nesterov: bool = False,
) -> Recipe:  # fmt: skip
    """Gradient descent with momentum: torch.optim.SGD."""
    return recipe(
        lr, decays.l2(weight_decay), moments.momentum(momentum, dampening, nesterov=nesterov)
    )


@ready()
def adam(
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    weight_decay: float = 0.0, amsgrad: bool = False,
) -> Recipe:  # fmt: skip
    """Adam (Kingma and Ba, 2015): torch.optim.Adam."""
    return recipe(lr, decays.l2(weight_decay), adaptive.adam(betas, eps, amsgrad=amsgrad))


@ready()
def adamw(
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    weight_decay: float = 0.01, amsgrad: bool = False,
) -> Recipe:  # fmt: skip
    """Adam with decoupled decay (Loshchilov and Hutter, 2019): torch.optim.AdamW."""
    return recipe(lr, adaptive.adam(betas, eps, amsgrad=amsgrad), decays.decay(weight_decay))


@ready()
def nadam(
    lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    weight_decay: float = 0.0, momentum_decay: float = 4e-3, decoupled_weight_decay: bool = False,
) -> Recipe:  # fmt: skip
    """Adam with Nesterov momentum (Dozat, 2016): torch.optim.NAdam."""
    block = adaptive.nadam(betas, eps, momentum_decay)
    return _decaying(lr, block, weight_decay, decoupled_weight_decay)


@ready()
def radam(
    lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    weight_decay: float = 0.0, decoupled_weight_decay: bool = False,
) -> Recipe:  # fmt: skip
    """Rectified Adam (Liu et al., 2020): torch.optim.RAdam."""
    return _decaying(lr, adaptive.radam(betas, eps), weight_decay, decoupled_weight_decay)


@ready()
def adamax(
    lr: float = 2e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> Recipe:  # fmt: skip
    """Adam with the largest gradient (Kingma and Ba, 2015): torch.optim.Adamax."""
    return recipe(lr, decays.l2(weight_decay), adaptive.adamax(betas, eps))


@ready()
def adagrad(
    lr: float = 1e-2, lr_decay: float = 0.0, weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0, eps: float = 1e-10,
) -> Recipe:  # fmt: skip
    """Adagrad (Duchi, Hazan and Singer, 2011): torch.optim.Adagrad."""
    block = adaptive.adagrad(lr_decay, eps, initial_accumulator_value)
    return recipe(lr, decays.l2(weight_decay), block)


@ready()
def adadelta(
    lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0.0
) -> Recipe:
    """Adadelta (Zeiler, 2012): torch.optim.Adadelta."""
    return recipe(lr, decays.l2(weight_decay), adaptive.adadelta(rho, eps))


@ready()
def rmsprop(
    lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0.0,
    momentum: float = 0.0, centered: bool = False,
) -> Recipe:  # fmt: skip
    """RMSprop (Tieleman and Hinton, 2012; Graves, 2013): torch.optim.RMSprop."""
    return recipe(
        lr, decays.l2(weight_decay), adaptive.rms(alpha, eps, centered=centered),
        adaptive.heavy_ball(momentum),
    )  # fmt: skip


def _decaying(lr: float, block: Block, weight_decay: float, decoupled: bool) -> Recipe:
    if decoupled:
        return recipe(lr, block, decays.decay(weight_decay))
    return recipe(lr, decays.l2(weight_decay), block)
