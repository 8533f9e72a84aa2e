"""Fine-tuning in one run: a cycle for the head alone, then one for all of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainbus import UsageError, hookimpl

if TYPE_CHECKING:
    from trainbus import Run


@dataclass(frozen=True)
class Cycle:
    """One cycle over some epochs: up from 1/div of the rate, and down to 1/final_div.

    Half cosines up and down, and momentum 0.95, 0.85, 0.95 the other way round (Smith and Topin,
    2017; Smith, 2018; the cosines are fastai's).
    """

    epochs: int
    rates: Sequence[float]  # one for each group of parameters
    warmup: float  # part of the cycle in which the rate rises
    div: float
    final_div: float = 1e5
    momentum: tuple[float, float, float] = (0.95, 0.85, 0.95)

    def along(self, done: float, start: float, top: float, end: float) -> float:
        """The value when a part `done` (0 to 1) of the cycle is over."""
        if done < self.warmup:
            return _cosine(start, top, done / self.warmup)
        rest = 1 - self.warmup
        return _cosine(top, end, (done - self.warmup) / rest) if rest else top


class Cycles(LambdaLR):
    """Several cycles, one after the other, with momentum; it is stepped with the optimizer.

    Args:
        optimizer: made with the rates of the last cycle.
        cycles: what follows what.
        steps: optimizer steps of an epoch.
        groups: for each group of the optimizer, the index of its group of parameters.
    """

    def __init__(
        self, optimizer: Optimizer, cycles: Sequence[Cycle], steps: int, groups: Sequence[int]
    ) -> None:
        self.cycles, self.steps_per_epoch = cycles, steps
        # The optimizer was made with the rates of the last cycle; those that it has now are of
        # somewhere in between, if a run is resumed.
        super().__init__(optimizer, [self._rate_of(i, cycles[-1].rates[i]) for i in groups])

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; what it does is said by the call that is resumed."""
        state = super().state_dict()
        return {name: value for name, value in state.items() if name != "cycles"}

    def _rate_of(self, index: int, base: float) -> Callable[[int], float]:
        def factor(step: int) -> float:
            cycle, done = self._at(step)
            top = cycle.rates[index]
            return cycle.along(done, top / cycle.div, top, top / cycle.final_div) / base

        return factor

    def _at(self, step: int) -> tuple[Cycle, float]:
        """The cycle of a step, and which part of it is over."""
        for cycle in self.cycles:
            steps = cycle.epochs * self.steps_per_epoch
            if step < steps or cycle is self.cycles[-1]:
                return cycle, min(1.0, step / max(1, steps - 1))
            step -= steps
        raise AssertionError("there is no cycle")

    def get_lr(self) -> list[Any]:
        """The learning rates of the present step; momentum is set, too."""
        cycle, done = self._at(self.last_epoch)
        momentum = cycle.along(done, *cycle.momentum)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (momentum, *group["betas"][1:])
            elif group.get("momentum"):  # SGD without momentum stays without
                group["momentum"] = momentum
        return super().get_lr()


class Plan:
    """Listens to a learner's fit: tells what was chosen, and unfreezes when it is time.

    Args:
        header: what the run's header says, by topic.
        unfreeze_at: the epoch before which the body is frozen, or None.
        unfreeze: does it.
    """

    plugin_name = "learner_plan"

    def __init__(
        self,
        header: dict[str, str],
        unfreeze_at: int | None = None,
        unfreeze: Callable[[], None] | None = None,
    ) -> None:
        self._header = header
        self._unfreeze_at = unfreeze_at
        self._unfreeze = unfreeze
        self._unfrozen = unfreeze_at is None
        #: Optimizer steps of an epoch, once it is known.
        self.steps_per_epoch = 0

    @hookimpl
    def on_run_start(self, run: Run) -> None:
        """Say what the learner chose."""
        run.header.update(self._header)

    @hookimpl(tryfirst=True)
    def on_epoch_start(self, run: Run) -> None:
        """Unfreeze; what the optimizer knows of the time before is of another problem."""
        if self._unfrozen or self._unfreeze is None or run.epoch < (self._unfreeze_at or 0):
            return
        self._unfrozen = True
        self._unfreeze()
        for optimizer in run.optimizers:
            optimizer.state.clear()

    @hookimpl(before=["schedule"])
    def on_train_epoch_start(self, run: Run) -> None:
        """Count the steps of an epoch, for the schedule that is made next."""
        if self._unfreeze_at is None:
            return
        if run.batches_in_pass is None:
            raise UsageError(
                "fine_tune must know how many steps an epoch has, but the training loader does "
                "not tell its length; use fit, or a loader with a length"
            )
        self.steps_per_epoch = math.ceil(run.batches_in_pass / run.accumulate)

    def state_dict(self) -> dict[str, Any]:
        """Whether it was unfrozen: the optimizer's state is of the time after it."""
        return {"unfrozen": self._unfrozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there."""
        if state["unfrozen"] and not self._unfrozen and self._unfreeze is not None:
            self._unfrozen = True
            self._unfreeze()


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
