"""Gradient accumulation: the batches whose gradients make one optimizer step."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import Optimizer


class Window:
    """The batches whose gradients make one optimizer step; without accumulation just one."""

    __slots__ = ("begun", "gathered", "size")

    def __init__(self) -> None:
        #: Batches in it. Each loss is divided by this number.
        self.size = 1
        #: Batches that were begun, until the last one is.
        self.begun = 0
        #: Batches whose gradients are there.
        self.gathered = 0

    def begin_batch(self, wanted: int, left: int | None) -> bool:
        """Count a batch in; True while more are to come before the step.

        Args:
            wanted: batches in a window.
            left: batches to come in this pass, this one included, where that is known: the last
                window may be short.
        """
        if self.begun == 0:
            self.size = wanted if left is None else max(1, min(wanted, left))
        self.begun += 1
        if self.begun < self.size:
            return True
        self.begun = 0
        return False

    def close(self, optimizers: Iterable[Optimizer]) -> None:
        """Make gradients of a window that ended early their mean, and begin a new one."""
        if self.gathered != self.size:  # each loss was divided by too much
            factor = self.size / self.gathered
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        if parameter.grad is not None:
                            parameter.grad.mul_(factor)
        self.clear()

    def clear(self) -> None:
        """Begin a new window."""
        self.size, self.begun, self.gathered = 1, 0, 0
