"""Ready optimizers that torch has no class for, a few blocks each."""

from __future__ import annotations

from dataclasses import replace

from trainbus_optim import (
    adaptive,
    averages,
    decays,
    estimating,
    factoring,
    limits,
    matrix,
    moments,
    newer,
)
from trainbus_optim.classic import adamw, recipe
from trainbus_optim.grouping import hidden_matrix
from trainbus_optim.recipe import Recipe, ready

Betas = tuple[float, float]


@ready()
def lion(lr: float = 1e-4, betas: Betas = (0.9, 0.99), weight_decay: float = 0.1) -> Recipe:
    """Lion (Chen et al., 2023)."""
    return recipe(lr, moments.lion(betas), decays.decay(weight_decay))


@ready()
def lamb(
    lr: float = 2e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-6, weight_decay: float = 0.01
) -> Recipe:
    """LAMB (You et al., "Large batch optimization for deep learning", 2020)."""
    return recipe(lr, adaptive.adam(betas, eps), decays.decay(weight_decay), limits.trust_ratio())


@ready()
def lars(
    lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 1e-4, trust: float = 1e-3,
    nesterov: bool = False,
) -> Recipe:  # fmt: skip
    """LARS (You, Gitman and Ginsburg, 2017); the ratio is of the gradient with its decay."""
    return recipe(
        lr, decays.l2(weight_decay), limits.trust_ratio(trust),
        moments.momentum(momentum, nesterov=nesterov),
    )  # fmt: skip


@ready()
def adafactor(
    lr: float = 1e-2, beta2_decay: float = -0.8, eps: tuple[float | None, float] = (None, 1e-3),
    d: float = 1.0, weight_decay: float = 0.0,
) -> Recipe:  # fmt: skip
    """Adafactor (Shazeer and Stern, 2018), as torch.optim.Adafactor."""
    block = factoring.factored(beta2_decay, d, eps=tuple(eps))
    return recipe(lr, block, decays.decay(weight_decay))


@ready()
def adan(
    lr: float = 1e-3, betas: tuple[float, float, float] = (0.98, 0.92, 0.99), eps: float = 1e-8,
    weight_decay: float = 0.02,
) -> Recipe:  # fmt: skip
    """Adan (Xie et al., 2022), with decay as a proximal step."""
    return recipe(lr, newer.adan(betas, eps), newer.proximal_decay(weight_decay))


@ready()
def adabelief(
    lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-16, weight_decay: float = 0.01
) -> Recipe:
    """AdaBelief (Zhuang et al., 2020)."""
    return recipe(lr, newer.adabelief(betas, eps), decays.decay(weight_decay))


@ready()
def adopt(
    lr: float = 1e-3, betas: Betas = (0.9, 0.9999), eps: float = 1e-6, weight_decay: float = 0.0
) -> Recipe:
    """ADOPT (Taniguchi et al., 2024)."""
    return recipe(lr, newer.adopt(betas, eps), decays.decay(weight_decay))


@ready()
def laprop(
    lr: float = 4e-4, betas: Betas = (0.9, 0.999), eps: float = 1e-15, weight_decay: float = 0.0
) -> Recipe:
    """LaProp (Ziyin, Wang and Ueda, 2020)."""
    return recipe(lr, newer.laprop(betas, eps), decays.decay(weight_decay))


@ready()
def cautious_adamw(
    lr: float = 1e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01
) -> Recipe:
    """AdamW that leaves out where update and gradient disagree (Liang et al., 2024)."""
    return recipe(lr, adaptive.adam(betas, eps), limits.cautious(), decays.decay(weight_decay))


@ready()
def mars(
    lr: float = 3e-3, betas: Betas = (0.95, 0.99), eps: float = 1e-8, weight_decay: float = 0.01,
    gamma: float = 0.025,
) -> Recipe:  # fmt: skip
    """MARS-AdamW (Yuan et al., 2024), in its approximate form, for all parameters."""
    return recipe(
        lr, newer.variance_reduced(betas[0], gamma), adaptive.adam(betas, eps),
        decays.decay(weight_decay),
    )  # fmt: skip


@ready()
def sophia(
    lr: float = 1e-4, betas: Betas = (0.965, 0.99), rho: float = 0.04, weight_decay: float = 0.1
) -> Recipe:
    """Sophia-G (Liu et al., 2023); call `optimizer.update_curvature(batch)` every ten steps."""
    return recipe(lr, newer.sophia(betas, rho), decays.decay(weight_decay))


@ready()
def ranger(
    lr: float = 1e-3, betas: Betas = (0.95, 0.999), eps: float = 1e-5, weight_decay: float = 0.01,
    alpha: float = 0.5, k: int = 6,
) -> Recipe:  # fmt: skip
    """Ranger (Wright, 2019): rectified Adam, centralized gradients, lookahead."""
    return recipe(
        lr, limits.centralize(), adaptive.radam(betas, eps), decays.decay(weight_decay),
        averages.lookahead(alpha, k),
    )  # fmt: skip


@ready()
def schedule_free_sgd(
    lr: float = 1.0, momentum: float = 0.9, weight_decay: float = 0.0, warmup_steps: int = 0,
    r: float = 0.0, weight_lr_power: float = 2.0,
) -> Recipe:  # fmt: skip
    """Schedule-free SGD (Defazio et al., 2024)."""
    return recipe(
        lr, decays.decay(weight_decay),
        averages.schedule_free(momentum, warmup_steps, r, weight_lr_power),
    )  # fmt: skip


@ready()
def schedule_free_adamw(
    lr: float = 2.5e-3, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
    warmup_steps: int = 0, r: float = 0.0, weight_lr_power: float = 2.0,
) -> Recipe:  # fmt: skip
    """Schedule-free AdamW (Defazio et al., 2024)."""
    return recipe(
        lr, averages.unaveraged_adam(betas, eps), decays.decay(weight_decay),
        averages.schedule_free(betas[0], warmup_steps, r, weight_lr_power),
    )  # fmt: skip


@ready()
def prodigy(
    lr: float = 1.0, betas: Betas = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
    d0: float = 1e-6, d_coef: float = 1.0, growth_rate: float = float("inf"),
    use_bias_correction: bool = False,
) -> Recipe:  # fmt: skip
    """Prodigy (Mishchenko and Defazio, 2024): it finds the rate; leave `lr` at 1."""
    block = estimating.prodigy(
        betas, eps, weight_decay, d0=d0, d_coef=d_coef, growth_rate=growth_rate,
        use_bias_correction=use_bias_correction,
    )  # fmt: skip
    return recipe(lr, block)


def _others(others: Recipe | None, lr: float) -> Recipe:
    return adamw(lr=lr) if others is None else others  # type: ignore[no-any-return]


@ready()
def muon(
    lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.1, nesterov: bool = True,
    ns_steps: int = 5, ns_coefficients: tuple[float, float, float] = matrix.COEFFICIENTS,
    eps: float = 1e-7, adjust_lr_fn: str | None = None, dtype: str = "bfloat16",
    others: Recipe | None = None,
) -> Recipe:  # fmt: skip
    """Muon (Jordan et al., 2024) for hidden matrices, `others` (AdamW) for the rest.

    As torch.optim.Muon, with kernels of convolutions as matrices. Embeddings, the last linear
    layer, norms, biases and depthwise kernels are the others'.
    """
    block = matrix.orthogonal(
        momentum, eps, nesterov=nesterov, ns_steps=ns_steps,
        ns_coefficients=tuple(ns_coefficients), adjust_lr_fn=adjust_lr_fn, dtype=dtype,
    )  # fmt: skip
    made = recipe(lr, block, decays.decay(weight_decay))
    return replace(made, others=_others(others, 3e-4), takes=hidden_matrix)


@ready()
def soap(
    lr: float = 3e-3, betas: Betas = (0.95, 0.95), shampoo_beta: float = 0.95, eps: float = 1e-8,
    weight_decay: float = 0.01, every: int = 10, others: Recipe | None = None,
) -> Recipe:  # fmt: skip
    """SOAP (Vyas et al., 2024) for hidden matrices, `others` (AdamW) for the rest."""
    made = recipe(
        lr, matrix.soap(betas, shampoo_beta, eps, every=every), decays.decay(weight_decay)
    )
    return replace(made, others=_others(others, lr), takes=hidden_matrix)
