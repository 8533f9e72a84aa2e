"""Fine-tuning in one run: a cycle for the head alone, then one for all of the model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from trainbus import UsageError, hookimpl
from trainbus.builtin import curves

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
            return curves.cosine(start, top, done / self.warmup)
        rest = 1 - self.warmup
        return curves.cosine(top, end, (done - self.warmup) / rest) if rest else top


class Cycles(curves.WithMomentum):
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
        def at(step: int) -> tuple[Cycle, float]:
            """The cycle of a step, and which part of it is over."""
            for cycle in cycles:
                count = cycle.epochs * steps
                if step < count or cycle is cycles[-1]:
                    return cycle, min(1.0, step / max(1, count - 1))
                step -= count
            raise AssertionError("there is no cycle")

        def rate_of(index: int, step: int) -> float:
            cycle, done = at(step)
            top = cycle.rates[index]
            # The optimizer was made with the rates of the last cycle; those that it has now are of
            # somewhere in between, if a run is resumed.
            rate = cycle.along(done, top / cycle.div, top, top / cycle.final_div)
            return rate / cycles[-1].rates[index]

        def momentum(step: int) -> float:
            cycle, done = at(step)
            return cycle.along(done, *cycle.momentum)

        rates = [partial(rate_of, index) for index in groups]
        super().__init__(optimizer, rates, momentum)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands; what it does is said by the call that is resumed."""
        state = super().state_dict()
        return {name: value for name, value in state.items() if name != "momentum"}


class Plan:
    """Listens to a fit of a learner: writes its header, and unfreezes when it is time.

    Args:
        header: what the run's header says, by topic.
        unfreeze_at: the epoch before which the body is frozen, or None.
        unfreeze: does it.
    """

    plugin_name = "learner_plan"
    #: It is a part of the learner, and none that somebody named.
    unlisted = True

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
        """Unfreeze, and clear what the optimizer learned about another problem."""
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
                "not say its length; use fit, or a loader with a length"
            )
        self.steps_per_epoch = math.ceil(run.batches_in_pass / run.accumulate)

    def state_dict(self) -> dict[str, Any]:
        """Whether it was unfrozen: the optimizer's state is of the time after it."""
        return {"unfrozen": self._unfrozen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        if state["unfrozen"] and not self._unfrozen and self._unfreeze is not None:
            self._unfrozen = True
            self._unfreeze()
