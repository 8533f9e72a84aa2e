"""Learning rates over a whole run, as multiples of those that the optimizer was made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def one_cycle(
    optimizer: Optimizer,
    total: int,
    warmup: float,
    div: float,
    final_div: float,
    momentum: Sequence[float] | None,
) -> LambdaLR:
    """Up from `1 / div` to 1 and down to `1 / final_div`; momentum the other way round.

    The grid is that of `torch.optim.lr_scheduler.OneCycleLR`: the first step has the lowest value,
    the last one the final value.
    """
    peak = max(0.0, _steps(warmup, total) - 1)
    last = max(1, total - 1)

    def along(step: int, start: float, top: float, end: float) -> float:
        step = min(step, last)
        if step < peak:
            return cosine(start, top, step / peak)
        return cosine(top, end, (step - peak) / (last - peak)) if last > peak else top

    def rate(step: int) -> float:
        return along(step, 1 / div, 1.0, 1 / final_div)

    if momentum is None:
        return LambdaLR(optimizer, rate)
    start, top, end = momentum
    return WithMomentum(optimizer, rate, lambda step: along(step, start, top, end))


def warmup_cosine(optimizer: Optimizer, total: int, warmup: float) -> LambdaLR:
    """Up to 1 in a straight line, and down along half a cosine; a step after the last has 0."""
    rising = round(_steps(warmup, total))

    def rate(step: int) -> float:
        if step < rising:
            return (step + 1) / (rising + 1)
        return cosine(1.0, 0.0, min(1.0, (step - rising) / max(1, total - rising)))

    return LambdaLR(optimizer, rate)


class WithMomentum(LambdaLR):
    """Set the momentum, or the first beta, of the groups that have one, too.

    Args:
        optimizer: its groups get both.
        rate: a multiple of the learning rate for each step; one for all groups, or one for each.
        momentum: the momentum for each step.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rate: Callable[[int], float] | list[Callable[[int], float]],
        momentum: Callable[[int], float],
    ) -> None:
        self.momentum = momentum
        super().__init__(optimizer, rate)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates of the present step."""
        momentum = self.momentum(self.last_epoch)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif group.get("momentum"):  # SGD without momentum stays without
                group["momentum"] = momentum
        return super().get_lr()


def _steps(warmup: float, total: int) -> float:
    """A part of the run (below 1), or a number of steps, as steps."""
    return warmup * total if warmup < 1 else min(warmup, total)


def cosine(start: float, end: float, part: float) -> float:
    """Half a cosine from `start` to `end`, at a part from 0 to 1 of the way."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
