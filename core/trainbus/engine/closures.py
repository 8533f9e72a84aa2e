"""Optimizers that evaluate the model again within a step: LBFGS, and those that look around."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

from trainbus.engine.task import loss_of
from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus.engine.run import Run


def needs_closure(optimizer: Optimizer) -> bool:
    """Whether `step` takes a function that evaluates the model, and cannot do without.

    An optimizer whose `step` could, and should not, says so by `needs_closure = True`.
    """
    if hasattr(optimizer, "needs_closure"):
        return bool(optimizer.needs_closure)
    given = inspect.signature(type(optimizer).step).parameters.get("closure")
    return given is not None and given.default is given.empty


def closure_of(run: Run) -> Callable[[], Tensor]:
    """A function that gives the loss of the present batch, with its gradients.

    At first those that are there already; later the batch is evaluated anew, and logs nothing.

    Raises:
        UsageError: the step is made of several batches, of which only the last one is at hand.
    """
    if run.accumulate != 1:
        raise UsageError(
            f"{type(run.optimizer).__name__} evaluates the model again within its step, which "
            f"accumulate={run.accumulate} has no batches for; leave accumulate out"
        )
    bus, first = run.bus, True

    def closure() -> Tensor:
        nonlocal first
        if first and run.loss is not None:
            first = False
            return run.loss
        run.optimizer.zero_grad()
        mark, was = run.mark_log(), run.loss
        loss = loss_of(run.task, bus.training_step(run))
        run.retract_log(mark)
        run.loss_to_backward = loss
        bus.backward(run)
        run.loss, run.loss_to_backward = was, None
        return loss.detach()

    return closure
