"""A step of an optimizer that nobody answers for is an error, and not a second step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from trainbus.errors import UsageError

if TYPE_CHECKING:
    from trainbus.engine.run import Run

#: A mistake of this kind is made in each batch, so that the first ones show it.
_BATCHES = 3


class StrayStep:
    """Looks, in the first steps of a run, whether each step was made once.

    A listener of `optimizer_step` that steps and returns nothing is followed by the core, which
    steps as well; so is a task that calls `optimizer.step()` by itself and returns a loss.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._seen: dict[int, int] = {}
        #: Steps that are at work inside of each other: a `step` may call that of its base class.
        self._depth = 0
        self._left = _BATCHES * len(optimizers)
        self._handles = [each.register_step_pre_hook(self._begun) for each in optimizers]
        self._handles += [each.register_step_post_hook(self._stepped) for each in optimizers]

    def _begun(self, *_: Any) -> None:
        self._depth += 1

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._seen[id(optimizer)] = self._seen.get(id(optimizer), 0) + 1

    def check(self, run: Run, optimizer: Optimizer, made: bool) -> bool:
        """After a step; True when it looks no more.

        Raises:
            UsageError: the optimizer made another one.
        """
        steps, self._depth = self._seen.pop(id(optimizer), 0), 0
        self._left -= 1
        if self._left <= 0:
            self.end()
        if steps > 1 or (steps and not made):
            others = [name for name in run.bus.order()["optimizer_step"] if name != "core"]
            who = f"the plugins {', '.join(map(repr, others))} listen to optimizer_step; " * bool(
                others
            )
            raise UsageError(
                f"{type(optimizer).__name__} has stepped {steps} times for one step of the run: "
                f"{who}one that steps by itself returns True, and a training_step that does so "
                "calls run.backward(loss) and run.optimizer_step(optimizer) and returns nothing"
            )
        return self._left <= 0

    def end(self) -> None:
        """Look no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
