"""Limits and shapes: of gradients before the moments, of updates after them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainbus_optim.blocks import block
from trainbus_optim.program import Tracer
from trainbus_optim.update import Update


def _factor(limit: float) -> Any:
    """What all gradients are multiplied with, as torch.nn.utils.clip_grad_norm_ computes it."""

    def of(norms: list[Tensor]) -> Tensor:
        total = torch.linalg.vector_norm(torch.stack(norms))
        return (limit / (total + 1e-6)).clamp(max=1.0)

    return of


@block(reach="global", role="gradient", formula="g = g min(1, max_norm / |all g|)")
def clip_norm(t: Tracer, update: Update, max_norm: float = 1.0) -> Any:
    """Limit the norm of all gradients of the chain together (Pascanu et al., 2013).

    The gradients themselves stay as they are.
    """
    gradient = update.direction()
    norms = gradient.norm()
    t.watch("gradient_norm", norms)
    return update.over(gradient * t.total(_factor(max_norm), norms))


@block(per_group=["limit"], role="gradient", formula="g = clamp(g, +-limit)")
def clip_value(t: Tracer, update: Update, limit: Any = 1.0) -> Any:
    """Limit each element (Mikolov, 2012)."""
    return update.over(update.direction().clone().clamp_(low=-limit, high=limit))


def _centered(gradient: Tensor) -> Tensor:
    if gradient.ndim < 2:
        return gradient.clone()
    return gradient - gradient.mean(dim=tuple(range(1, gradient.ndim)), keepdim=True)


@block(
    reach="tensor", role="gradient", formula="g = g - mean of g over all dimensions but the first"
)
def centralize(t: Tracer, update: Update) -> Any:
    """Gradient centralization (Yong et al., 2020); vectors are left alone."""
    return update.over(t.call(_centered, update.direction()))


def _row_norm(value: Tensor) -> Tensor:
    if value.ndim < 2:
        return torch.linalg.vector_norm(value)
    dims = tuple(range(1, value.ndim))
    return torch.linalg.vector_norm(value, dim=dims, keepdim=True)


def _adaptive(gradient: Tensor, parameter: Tensor, limit: float, eps: float) -> Tensor:
    allowed = _row_norm(parameter).clamp_(min=eps).mul_(limit)
    norm = _row_norm(gradient)
    return gradient * torch.where(norm > allowed, allowed / norm.clamp(min=1e-6), 1.0)


@block(
    per_group=["limit", "eps"], reach="tensor", role="gradient",
    formula="each row: g = g min(1, limit max(|p|, eps) / |g|)",
)  # fmt: skip
def adaptive_clip(t: Tracer, update: Update, limit: Any = 0.01, eps: Any = 1e-3) -> Any:
    """Limit each unit's gradient beside its weights (AGC: Brock et al., 2021)."""
    value = t.call(_adaptive, update.direction(), t.parameter, numbers=(limit, eps))
    return update.over(value)


@block(per_group=["limit"], reach="tensor", formula="u = u / max(1, rms(u) / limit)")
def rms_clip(t: Tracer, update: Update, limit: Any = 1.0) -> Any:
    """Limit the root mean square of an update (Shazeer and Stern, 2018)."""
    direction = update.direction()
    size = (direction.rms() / limit).clamp_(low=1.0)
    return update.over(direction / size)


@block(reach="tensor", formula="k = [u g > 0]; u = u k / max(mean of k, 0.001)")
def cautious(t: Tracer, update: Update) -> Any:
    """Leave out where update and gradient disagree (Liang et al., 2024)."""
    direction = update.direction()
    mask = (direction * t.gradient).sign_().clamp_(low=0.0)
    share = mask.mean_abs().clamp_(low=1e-3)
    return update.over(mask.mul_(direction).div_(share))


def _ratio(weights: Tensor, update: Tensor, largest: float, trust: float) -> Tensor:
    ratio = torch.where((weights > 0) & (update > 0), weights / update, 1.0)
    return (ratio.clamp(max=largest) if largest else ratio) * trust


@block(
    per_group=["trust", "max_ratio"], reach="tensor",
    formula="u = u |p| / |u|, tensor by tensor; 1 where one of them is 0",
)  # fmt: skip
def trust_ratio(t: Tracer, update: Update, trust: Any = 1.0, max_ratio: Any = 0.0) -> Any:
    """A step in proportion to the weights: LARS (You, Gitman and Ginsburg, 2017), LAMB (You et al.,
    2020).

    Args:
        t: the tracer.
        update: with its decay.
        trust: what the ratio is multiplied with; 0 leaves a group (biases, norms) alone.
        max_ratio: the largest ratio; 0 for none.
    """
    if t.is_zero("trust"):
        return update
    direction = update.tensor()
    norms = t.parameter.norm(), direction.norm()
    ratio = t.call(_ratio, *norms, numbers=(max_ratio, trust), kind="scalar")
    t.watch("trust_ratio", ratio)
    return direction.mul_(ratio)


def _noise(gradient: Tensor, step: float, eta: float, gamma: float) -> Tensor:
    spread = (eta / (1 + step) ** gamma) ** 0.5
    return gradient + torch.randn_like(gradient) * spread


@block(
    per_group=["eta", "gamma"], reach="tensor", role="gradient",
    formula="g = g + N(0, eta / (1 + t)^gamma)",
)  # fmt: skip
def noise(t: Tracer, update: Update, eta: Any = 0.01, gamma: Any = 0.55) -> Any:
    """Gradient noise that fades (Neelakantan et al., 2015), from torch's generator."""
    value = t.call(_noise, update.direction(), numbers=(t.step, eta, gamma))
    return update.over(value)
