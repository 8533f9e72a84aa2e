"""Sharpness-aware minimization around any recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trainbus.errors import UsageError
from trainbus_optim.chain import Chain
from trainbus_optim.classic import sgd
from trainbus_optim.recipe import READY, Recipe


class SAM(Chain):
    """A chain that steps with the gradient at the worst point nearby (Foret et al., 2021).

    `step(closure)` calls the closure twice: it clears the gradients, computes the loss and calls
    `backward`. With several processes make the first of the two without `no_sync` of your own:
    each then climbs by the mean gradient.

    Args:
        params: as of `Chain`.
        base: a recipe.
        rho: how far to climb.
        adaptive: in proportion to the weights (Kwon et al., 2021).
        options: of `Chain`.
    """

    #: A run of trainbus gives `step` a closure.
    needs_closure = True

    def __init__(
        self, params: Any, base: Recipe, *, rho: float = 0.05, adaptive: bool = False,
        **options: Any,
    ) -> None:  # fmt: skip
        if not isinstance(base, Recipe):
            raise UsageError("sam goes around a recipe: sam(model, base=adamw(lr=1e-3))")
        if not rho > 0:
            raise UsageError(f"sam(rho={rho!r}): give a distance above 0")
        self.rho, self.adaptive = rho, adaptive
        super().__init__(params, base, **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Climb, take the gradient there, come back, and step. Returns the first loss."""
        if closure is None:
            raise TypeError("SAM.step needs a closure, which computes the loss and its gradients")
        if getattr(self, "grad_scale", None) is not None:
            raise UsageError("sam evaluates the loss twice, and GradScaler scales one of them")
        with torch.enable_grad():
            loss = closure()
        parameters = [
            p for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        before = [each.detach().clone() for each in parameters]
        self._climb(parameters)
        with torch.enable_grad():
            closure()
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
        super().step()
        return loss

    def _climb(self, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.adaptive:
            gradients = [g * p.abs() for g, p in zip(gradients, parameters, strict=True)]
        norms = torch._foreach_norm(gradients)
        total = torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms]))
        for parameter, gradient in zip(parameters, gradients, strict=True):
            step = gradient * (self.rho / (total + 1e-12)).to(parameter.device)
            parameter.add_(step * parameter.abs() if self.adaptive else step)


def sam(
    params: Any = None, base: Recipe | None = None, *, rho: float = 0.05, adaptive: bool = False,
    **options: Any,
) -> Any:  # fmt: skip
    """SAM (Foret et al., 2021) around a recipe: `sam(model, base=adamw(lr=1e-3))`.

    Without a model it gives a recipe.
    """
    recipe = sgd(lr=0.1, momentum=0.9) if base is None else base
    if params is None:
        return replace(recipe, optimizer=SAM, options={"rho": rho, "adaptive": adaptive, **options})
    return SAM(params, recipe, rho=rho, adaptive=adaptive, **options)


sam.takes_model = True  # type: ignore[attr-defined]
READY["sam"] = sam
