"""Weights to evaluate, where they are not those that are trained; and Sophia's curvature."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus_optim.recipe import Recipe


class Evaluated:
    """A part of `Chain`: what is kept beside the weights."""

    param_groups: list[dict[str, Any]]
    state: Any
    recipe: Recipe

    def recipe_of(self, group: dict[str, Any]) -> Recipe:
        """The blocks of a group."""
        raise NotImplementedError

    @torch.no_grad()
    def averaged(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters whose value to evaluate is not the one that is trained, with that value.

        Schedule-free chains have one, lookahead, and chains with `ema`.
        """
        made = []
        for group in self.param_groups:
            blocks = {each.name: keys for each, keys in zip(
                self.recipe_of(group).blocks, self.recipe_of(group).keys, strict=True
            )}  # fmt: skip
            for p in group["params"]:
                state = self.state.get(p) or {}
                if "schedule_free" in blocks and state.get("z") is not None:
                    beta = group[blocks["schedule_free"]["beta"]]
                    if beta:
                        made.append((p, p.detach().lerp(state["z"], 1 - 1 / beta)))
                elif "ema" in blocks and state.get("average") is not None:
                    made.append((p, state["average"].to(p.dtype)))
                elif "lookahead" in blocks and state.get("slow") is not None:
                    made.append((p, state["slow"].to(p.dtype)))
        return made

    @property
    def listener(self) -> Any:
        """What a run of trainbus registers with this optimizer; None where nothing is averaged."""
        names = {each.name for group in self.param_groups for each in self.recipe_of(group).blocks}
        if not names & {"schedule_free", "ema", "lookahead"}:
            return None
        from trainbus_optim.listening import Averages

        return Averages(self)

    @contextmanager
    @torch.no_grad()
    def averages(self) -> Iterator[None]:
        """Evaluate, or save, with the averaged weights; training goes on after it, bit for bit."""
        pairs = self.averaged()
        aside = [p.detach().clone() for p, _ in pairs]
        for p, value in pairs:
            p.copy_(value)
        try:
            yield
        finally:
            with torch.no_grad():
                for (p, _), value in zip(pairs, aside, strict=True):
                    p.copy_(value)

    @torch.no_grad()
    def update_curvature(self, batch: int = 1) -> None:
        """Take the gradients at hand into Sophia's curvature: those of a loss with labels that the
        model drew from its own output, the mean over `batch` examples."""
        from trainbus_optim.newer import average_curvature

        found = False
        for group in self.param_groups:
            for each, keys in zip(
                self.recipe_of(group).blocks, self.recipe_of(group).keys, strict=True
            ):
                if each.name != "sophia":
                    continue
                found = True
                beta = group[keys["betas"]][1]
                for p in group["params"]:
                    if p.grad is not None:
                        hessian = self.state[p].setdefault("hessian", torch.zeros_like(p))
                        average_curvature(hessian, p.grad, beta, batch)
        if not found:
            raise UsageError(f"{self.recipe.name} has no curvature; sophia has")
