"""Learning rates over a whole run, as multiples of those that the optimizer was made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus.builtin.curve_options import Name, Options


def named(
    name: Name,
    optimizer: Optimizer,
    total: int,
    warmup: float | None,
    options: Options,
    of: str = "lr",
) -> LRScheduler:
    """The scheduler of a name, over `total` steps, of the learning rate or another number."""
    if name == "one_cycle":
        rising = 0.25 if warmup is None else warmup
        return one_cycle(optimizer, total, rising, options.div, options.final_div, options.momentum)
    factor = _factor(name, total, 0.05 if warmup is None else warmup, options)
    return LambdaLR(optimizer, factor) if of == "lr" else OfGroups(optimizer, of, factor)


def _factor(name: Name, total: int, warmup: float, options: Options) -> Callable[[int], float]:
    """The multiple of the highest value at each step."""
    rising = round(_steps(warmup, total))
    end, length = options.end, max(1, total - rising)

    def left(step: int) -> float:
        return max(0.0, 1 - (step - rising) / length)

    def restarts(step: int) -> float:
        done = (1 - left(step)) * options.cycles
        return cosine(1.0, end, 1.0 if done >= options.cycles else done % 1)

    def wsd(step: int) -> float:
        part = min(1.0, left(step) / options.decay)
        return end + (1 - end) * (1 - math.sqrt(1 - part))

    falling: dict[str, Callable[[int], float]] = {
        "warmup_cosine": lambda step: cosine(1.0, end, 1 - left(step)),
        "cosine_restarts": restarts,
        "linear": lambda step: end + (1 - end) * left(step),
        "polynomial": lambda step: end + (1 - end) * left(step) ** options.power,
        "constant": lambda step: 1.0,
        "inverse_sqrt": lambda step: math.sqrt(max(1, rising) / max(1, step + 1)),
        "wsd": wsd,
    }
    fall = falling[name]
    return lambda step: (step + 1) / (rising + 1) if step < rising else fall(step)


class OfGroups(LRScheduler):
    """Set a number of the groups of an optimizer to multiples of what it was at first.

    Args:
        optimizer: its groups get it, where they have it.
        key: the name of the number; "momentum" is the first of betas, where there are some.
        factor: the multiple for each step.
    """

    def __init__(self, optimizer: Optimizer, key: str, factor: Callable[[int], float]) -> None:
        groups = optimizer.param_groups
        if not any(key in group or (key == "momentum" and "betas" in group) for group in groups):
            known = ", ".join(sorted(groups[0].keys() - {"params"}))
            raise UsageError(
                f"schedule of={key!r}: the groups of {type(optimizer).__name__} have {known}"
            )
        self.key = key
        self.factor = factor
        self.base = [self._value(group) for group in groups]
        super().__init__(optimizer)

    def _value(self, group: dict[str, Any]) -> float | None:
        if self.key == "momentum" and "betas" in group:
            return float(group["betas"][0])
        value = group.get(self.key)
        return None if value is None else float(value)

    def get_lr(self) -> list[float | torch.Tensor]:
        """The learning rates as they are; the number is set beside them."""
        factor = self.factor(self.last_epoch)
        for group, base in zip(self.optimizer.param_groups, self.base, strict=False):
            if base is None:
                continue
            if self.key == "momentum" and "betas" in group:
                group["betas"] = (base * factor, *group["betas"][1:])
            else:
                group[self.key] = base * factor
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """All but the optimizer and the function."""
        return {k: v for k, v in super().state_dict().items() if k != "factor"}


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
