"""Steps that a task makes with torch's own calls: `loss.backward(); optimizer.step()`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

if TYPE_CHECKING:
    from trainbus.engine.run import Run


class OwnSteps:
    """Counts the steps of a task with `manual = True`, and tells of them as of any other.

    Args:
        run: its optimizers are listened to until `end`.
        count: called after each step.
    """

    def __init__(self, run: Run, count: Callable[[], None]) -> None:
        self._run = run
        self._count = count
        #: Steps that are at work inside of each other: a `step` may call that of its base class.
        self._depth = 0
        self._handles = [
            handle
            for optimizer in run.optimizers
            for handle in (
                optimizer.register_step_pre_hook(self._before),
                optimizer.register_step_post_hook(self._after),
            )
        ]

    def _before(self, optimizer: Optimizer, *_: Any) -> None:
        self._depth += 1
        if self._depth == 1:
            self._run.optimizer = optimizer
            if self._run.bus.on_before_optimizer_step:
                self._run.bus.on_before_optimizer_step(self._run)

    def _after(self, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._count()

    def end(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()
